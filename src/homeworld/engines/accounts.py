"""The accounts of every managed server: names, passwords, and where they may connect from.

One installation has one set of passwords, made once and kept in ``secrets.json`` (mode 0600). Every server is
copied from a template that already has the accounts, so the passwords are never sent over the network and
never stand in a statement of a binlog. Knows nothing of rights (see flavors).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from homeworld.model.errors import InvalidError
from homeworld.model.names import new_secret
from homeworld.model.topology import BackendRole

# MySQL takes no longer password for a replica's connection.
_LENGTH = 32
# Over the socket and over loopback; with skip-name-resolve these are two different hosts to the server.
HOSTS = ("localhost", "127.0.0.1")


def user_of(role: BackendRole) -> str:
    """The user name of a role: ``homeworld_reader`` …"""
    return f"homeworld_{role.value}"


def accounts_of(role: BackendRole) -> tuple[str, ...]:
    """The role's accounts as statements name them: ``'homeworld_reader'@'localhost'`` …"""
    return tuple(f"'{user_of(role)}'@'{host}'" for host in HOSTS)


@dataclass(frozen=True, slots=True)
class Accounts:
    """The password of each role. Passwords are letters, digits and dashes only, so they need no escaping."""

    passwords: Mapping[BackendRole, str] = field(repr=False)

    def __post_init__(self) -> None:
        for role in BackendRole:
            if not self.passwords.get(role, "").replace("-", "").isalnum():
                raise InvalidError(
                    f"the password of {role.value} is missing or has characters it may not have"
                )

    def digest(self) -> str:
        """Changes when a password changes; tells nothing about them (each has 190 random bits)."""
        text = "\n".join(f"{role.value}={self.passwords[role]}" for role in BackendRole)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load(file: Path, *, may_create: bool) -> Accounts:
    """Read the installation's passwords, or make them where there are none yet and ``may_create``.

    :raises InvalidError: the file is gone though servers exist, or it cannot be understood. New passwords
        would not open the existing servers, so none are made up.
    """
    try:
        text = file.read_text()
    except FileNotFoundError:
        if not may_create:
            raise InvalidError(f"{file} is missing, but servers exist whose passwords were in it") from None
        made = Accounts({role: new_secret(_LENGTH) for role in BackendRole})
        _write(file, made)
        return made
    try:
        known = cast("dict[str, str]", json.loads(text)["accounts"])
        return Accounts({role: known[role.value] for role in BackendRole})
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidError(f"{file} cannot be understood: {type(error).__name__}") from None


def _write(file: Path, accounts: Accounts) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    content = {"accounts": {role.value: accounts.passwords[role] for role in BackendRole}}
    new = file.with_suffix(".new")
    new.unlink(missing_ok=True)
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as out:
        json.dump(content, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    new.replace(file)
