"""Names and ids: the one function that quotes identifiers, and where ids come from."""

from __future__ import annotations

import re
import secrets
import string

from homeworld.model.errors import InvalidError

_ALPHABET = string.ascii_lowercase + string.digits
# Schemas of the servers themselves and of homeworld on them; no keyspace can be one.
SERVER_SCHEMAS = frozenset(
    {"information_schema", "mysql", "ndbinfo", "performance_schema", "sys", "_homeworld"}
)
_LONGEST_SCHEMA = 64
_RESOURCE = re.compile(r"^[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?$", re.IGNORECASE)


def quote(*identifiers: str) -> str:
    """Quote identifiers for MySQL, joined by dots: ``quote("ks", "t")`` gives `` `ks`.`t` ``.

    :raises InvalidError: an identifier is empty, longer than 64 characters or has a NUL.
    """
    for identifier in identifiers:
        if not identifier or len(identifier) > 64 or "\0" in identifier:
            raise InvalidError(f"{identifier!r} is not a MySQL identifier")
    return ".".join("`" + identifier.replace("`", "``") + "`" for identifier in identifiers)


def new_id() -> str:
    """A public id: 12 characters, about 62 bits, unguessable."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(12))


def new_secret(length: int = 40) -> str:
    """A secret of letters and digits only: HTTP drivers use it in URLs without decoding."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(length))


def check_resource_name(name: str, what: str) -> str:
    """Return ``name`` if a database, branch or keyspace may have it.

    :raises InvalidError: not 1 to 64 letters, digits, ``-``, ``_`` between letters or digits.
    """
    if not _RESOURCE.fullmatch(name):
        raise InvalidError(
            f"{what} name {name!r} is not valid; use 1 to 64 letters, digits, dashes and underscores, "
            "beginning and ending with a letter or digit"
        )
    return name


def check_schema_resource_name(name: str, what: str) -> str:
    """Return ``name`` if a keyspace, or a database with a keyspace of that name, may have it.

    :raises InvalidError: as ``check_resource_name``, or the name is one of the servers' own schemas.
    """
    check_resource_name(name, what)
    if name.lower() in SERVER_SCHEMAS:
        raise InvalidError(f"{what} name {name!r} is reserved: servers have a schema of that name")
    return name


def grant_pattern(schema: str) -> str:
    """The schema as GRANT stores it: an underscore is a wildcard there unless it is escaped."""
    return schema.replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%")


def fits_schema(schema: str) -> bool:
    """Whether servers can have a schema of that name and rights on it: of the name's 64 characters each
    underscore takes two where rights are stored.
    """
    return len(grant_pattern(schema)) <= _LONGEST_SCHEMA
