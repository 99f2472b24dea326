"""Branch passwords as gateways check them.

Invariants: the plain text is told once and never kept (two digests are, each of which proves a handshake and
neither of which logs in elsewhere); usernames are unique among all branches, also deleted ones; gateways hear
of every change by a new routing version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import TypedDict, Unpack

from sqlalchemy import Select, select

from homeworld.model.errors import InvalidError
from homeworld.model.names import new_id, new_secret
from homeworld.model.topology import BackendRole
from homeworld.store.pages import Page, PageRequest, fetch_counted_page, fetch_page
from homeworld.store.routing import Routes
from homeworld.store.tables import resources
from homeworld.store.work import Work

PREFIX = "pscale_pw_"
ROLES = (BackendRole.READER, BackendRole.WRITER, BackendRole.READWRITER, BackendRole.ADMIN)


@dataclass(frozen=True, slots=True)
class Password:
    """A password without its plain text."""

    id: str
    branch_id: str
    database_id: str
    name: str
    username: str
    role: BackendRole
    sha1_twice: bytes
    sha256_twice: bytes
    ttl_seconds: int | None
    expires_at: datetime | None
    cidrs: Sequence[str]
    replica: bool
    direct_vtgate: bool
    renewable: bool
    last_used_at: datetime | None
    actor_id: str | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


class PasswordFields(TypedDict, total=False):
    """What may be changed."""

    name: str
    cidrs: Sequence[str]


def load_password(role: str, **columns: object) -> Password:
    """A password from its row."""
    return Password(role=BackendRole(role), **columns)  # pyright: ignore[reportArgumentType] - the row's own types


def check_cidrs(cidrs: Sequence[str]) -> tuple[str, ...]:
    """The networks in their usual form.

    :raises InvalidError: one is neither an address nor a network.
    """
    checked: list[str] = []
    for cidr in cidrs:
        try:
            if "%" in cidr:
                raise ValueError("a zone is of one machine")
            checked.append(str(ip_network(cidr.strip(), strict=False)))
        except ValueError as error:
            raise InvalidError(f"{cidr!r} is not an IP address or CIDR range") from error
    return tuple(dict.fromkeys(checked))


class Passwords:
    """Passwords within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def create(
        self,
        branch_id: str,
        *,
        name: str = "",
        role: BackendRole = BackendRole.ADMIN,
        ttl_seconds: int | None = None,
        cidrs: Sequence[str] = (),
        replica: bool = False,
        direct_vtgate: bool = False,
        actor_id: str | None = None,
    ) -> tuple[Password, str]:
        """A new password, and its plain text, told only here.

        :raises InvalidError: the role is not a password's, the TTL not positive, or a CIDR is none.
        """
        if role not in ROLES:
            raise InvalidError(f"role {role} is not one of reader, writer, readwriter, admin")
        if ttl_seconds is not None and ttl_seconds <= 0:
            raise InvalidError("ttl must be a positive number of seconds")
        plain = PREFIX + new_secret()
        now, branches = self._work.now, resources.branches
        database_id = self._work.connection.execute(
            select(branches.c.database_id).where(branches.c.id == branch_id)
        ).scalar_one()
        made = Password(
            id=new_id(),
            branch_id=branch_id,
            database_id=database_id,
            name=name,
            username=new_secret(20).lower(),
            role=role,
            sha1_twice=hashlib.sha1(
                hashlib.sha1(plain.encode(), usedforsecurity=False).digest(), usedforsecurity=False
            ).digest(),
            sha256_twice=hashlib.sha256(hashlib.sha256(plain.encode()).digest()).digest(),
            ttl_seconds=ttl_seconds,
            expires_at=now + timedelta(seconds=ttl_seconds) if ttl_seconds else None,
            cidrs=list(check_cidrs(cidrs)),
            replica=replica,
            direct_vtgate=direct_vtgate,
            renewable=ttl_seconds is not None,
            last_used_at=None,
            actor_id=actor_id,
            created_at=now,
            updated_at=now,
            deleted_at=None,
        )
        self._work.add(resources.passwords, {field: getattr(made, field) for field in made.__slots__})
        Routes(self._work).bump(branch_id)
        return made, plain

    def get(self, branch_id: str, password_id: str) -> Password:
        """The live password.

        :raises NotFoundError: none of that id on the branch, or deleted.
        """
        return self._work.only(
            self._live(branch_id).where(resources.passwords.c.id == password_id), load_password
        )

    def page(
        self, branch_id: str, request: PageRequest, q: str = "", expired: bool | None = None
    ) -> Page[Password]:
        """The branch's live passwords, newest first; ``q`` keeps those whose name contains it.

        :param expired: only those whose TTL has passed, or only the others.
        """
        table = resources.passwords
        query = self._live(branch_id).order_by(table.c.created_at.desc(), table.c.id.desc())
        if q:
            query = query.where(table.c.name.icontains(q, autoescape=True))
        if expired is not None:
            over = (table.c.expires_at.is_not(None)) & (table.c.expires_at <= self._work.now)
            query = query.where(over if expired else ~over)
        return fetch_counted_page(self._work.connection, query, request, load_password)

    def page_of_database(self, database_id: str, request: PageRequest) -> Page[Password]:
        """The live passwords of all branches of a database, newest first; a branch takes its own with it."""
        table = resources.passwords
        query = (
            select(table)
            .where(table.c.database_id == database_id, table.c.deleted_at.is_(None))
            .order_by(table.c.created_at.desc(), table.c.id.desc())
        )
        return fetch_page(self._work.connection, query, request, load_password)

    @staticmethod
    def _live(branch_id: str) -> Select[tuple[object, ...]]:
        table = resources.passwords
        return select(table).where(table.c.branch_id == branch_id, table.c.deleted_at.is_(None))

    def update(self, password: Password, **fields: Unpack[PasswordFields]) -> Password:
        """Change the name or the networks.

        :raises InvalidError: a CIDR is none.
        """
        values: dict[str, object] = dict(fields)
        if "cidrs" in fields:
            values["cidrs"] = list(check_cidrs(fields["cidrs"]))
        return self._change(password, values)

    def renew(self, password: Password) -> Password:
        """Count the TTL from now on.

        :raises InvalidError: it has no TTL, or has expired.
        """
        if not password.renewable or password.ttl_seconds is None:
            raise InvalidError("this password has no ttl and cannot be renewed")
        if password.expires_at is not None and password.expires_at <= self._work.now:
            raise InvalidError("this password has expired and cannot be renewed")
        expires_at = self._work.now + timedelta(seconds=password.ttl_seconds)
        return self._change(password, {"expires_at": expires_at})

    def delete(self, password: Password) -> None:
        """Take it away; sessions that use it are closed by the gateways."""
        self._change(password, {"deleted_at": self._work.now})

    def delete_all(self, branch_id: str) -> None:
        """Take all of a branch's passwords away."""
        table = resources.passwords
        now = self._work.now
        self._work.connection.execute(
            table.update()
            .where(table.c.branch_id == branch_id, table.c.deleted_at.is_(None))
            .values(deleted_at=now, updated_at=now)
        )
        Routes(self._work).bump(branch_id)

    def note_use(self, usernames: Sequence[str]) -> None:
        """Note that these were used now; called by gateways now and then, not for each query."""
        table = resources.passwords
        self._work.connection.execute(
            table.update().where(table.c.username.in_(usernames)).values(last_used_at=self._work.now)
        )

    def _change(self, password: Password, values: dict[str, object]) -> Password:
        table = resources.passwords
        self._work.change(table, table.c.id, password.id, {**values, "updated_at": self._work.now})
        Routes(self._work).bump(password.branch_id)
        return self._work.only(select(table).where(table.c.id == password.id), load_password)
