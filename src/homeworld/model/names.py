"""Names and ids: the one function that quotes identifiers, and where ids come from."""

from __future__ import annotations

import re
import secrets
import string

from homeworld.model.errors import InvalidError

_ALPHABET = string.ascii_lowercase + string.digits
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
    if not _RESOURCE.match(name):
        raise InvalidError(
            f"{what} name {name!r} is not valid; use 1 to 64 letters, digits, dashes and underscores, "
            "beginning and ending with a letter or digit"
        )
    return name
