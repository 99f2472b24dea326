"""Users, and what each may do.

Invariant: a user's rights are computed from memberships, teams and databases at each call, so that whoever
is taken out of a team or an organization has lost them with the commit. A user is never removed: history
names them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, func, literal, select, union_all

from homeworld.model.accesses import DATABASE_ROLES, ORGANIZATION_ROLES
from homeworld.model.errors import InvalidError
from homeworld.store.tables import access, resources
from homeworld.store.tenants import Actors
from homeworld.store.work import Work

_EMAIL = re.compile(r"[^\s@<>\"',;]{1,64}@[a-z0-9](?:[a-z0-9.-]{0,188}[a-z0-9])?\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class User:
    """A person. ``password_hash`` never leaves the control plane; None: by the identity provider only."""

    id: str
    email: str
    name: str
    password_hash: str | None
    sso_issuer: str | None
    sso_subject: str | None
    disabled_at: datetime | None
    last_login_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Rights:
    """What a user may do: resource id (organization or database) to accesses; and where they are a member."""

    organization_ids: frozenset[str]
    accesses: Mapping[str, frozenset[str]]
    admin_of: frozenset[str]


def checked_email(email: str) -> str:
    """The address as it is kept.

    :raises InvalidError: it is none.
    """
    email = email.strip().lower()
    if not _EMAIL.match(email):
        raise InvalidError(f"{email[:100]!r} is not an email address")
    return email


def checked_name(name: str, otherwise: str) -> str:
    """A person's name for display.

    :raises InvalidError: it is too long or has characters that cannot be shown.
    """
    name = " ".join(name.split()) or otherwise
    if len(name) > 100 or not name.isprintable():
        raise InvalidError("a name has at most 100 characters, all of them printable")
    return name


class Users:
    """Users within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def add(
        self,
        email: str,
        name: str = "",
        *,
        password_hash: str | None = None,
        sso: tuple[str, str] | None = None,
    ) -> User:
        """A new user who belongs nowhere yet.

        :param sso: issuer and subject at the identity provider.
        :raises InvalidError: the address is none, or somebody has it.
        """
        email = checked_email(email)
        if self.by_email(email) is not None:
            raise InvalidError(f"there is a user {email} already")
        issuer, subject = sso or (None, None)
        actor = Actors(self._work).add("user", checked_name(name, email.partition("@")[0]))
        now = self._work.now
        made = User(actor.id, email, actor.display_name, password_hash, issuer, subject, None, None, now, now)
        self._work.add(access.users, {field: getattr(made, field) for field in made.__slots__})
        return made

    def get(self, user_id: str) -> User:
        """The user.

        :raises NotFoundError: there is none.
        """
        return self._work.only(select(access.users).where(access.users.c.id == user_id), User)

    def by_email(self, email: str) -> User | None:
        """The user of that address, if any."""
        table = access.users
        return self._work.first(select(table).where(table.c.email == email.strip().lower()), User)

    def by_subject(self, issuer: str, subject: str) -> User | None:
        """The user whom the identity provider calls so, if any."""
        table = access.users
        query = select(table).where(table.c.sso_issuer == issuer, table.c.sso_subject == subject)
        return self._work.first(query, User)

    def by_ids(self, ids: Iterable[str | None]) -> Mapping[str, User]:
        """Users by id; unknown ones are left out."""
        return self._work.by_key(access.users, ids, User)

    def any(self) -> bool:
        """Whether there is any user."""
        count = self._work.connection.execute(select(func.count()).select_from(access.users)).scalar_one()
        return count > 0

    def set_password(self, user_id: str, password_hash: str) -> None:
        """Another password. Who is logged in by the old one is not any more."""
        table = access.users
        values = {"password_hash": password_hash, "updated_at": self._work.now}
        self._work.change(table, table.c.id, user_id, values)
        self._work.connection.execute(access.sessions.delete().where(access.sessions.c.user_id == user_id))

    def disable(self, user_id: str) -> None:
        """Let the user in no more: sessions end, and tokens with them."""
        table, now = access.users, self._work.now
        self._work.change(table, table.c.id, user_id, {"disabled_at": now, "updated_at": now})
        self.log_out(user_id)

    def enable(self, user_id: str) -> None:
        """Let the user in again; what ended stays so."""
        table = access.users
        self._work.change(table, table.c.id, user_id, {"disabled_at": None, "updated_at": self._work.now})

    def log_out(self, user_id: str) -> None:
        """End all sessions and tokens of the user, and what a device that they allowed has not fetched."""
        now, run = self._work.now, self._work.connection.execute
        run(access.device_codes.delete().where(access.device_codes.c.user_id == user_id))
        run(access.oauth_codes.delete().where(access.oauth_codes.c.user_id == user_id))
        run(access.sessions.delete().where(access.sessions.c.user_id == user_id))
        token = access.oauth_tokens
        run(
            token.update()
            .where(token.c.user_id == user_id, token.c.revoked_at.is_(None))
            .values(revoked_at=now, updated_at=now)
        )

    def tie(self, user_id: str, issuer: str, subject: str) -> None:
        """Note whom the identity provider means."""
        table = access.users
        values = {"sso_issuer": issuer, "sso_subject": subject, "updated_at": self._work.now}
        self._work.change(table, table.c.id, user_id, values)

    def note_login(self, user_id: str) -> None:
        """Note that the user logged in now."""
        table = access.users
        self._work.change(table, table.c.id, user_id, {"last_login_at": self._work.now})

    def rights(self, user_id: str) -> Rights:
        """What the user may do, in one query."""
        roles: dict[str, str] = {}
        found: dict[str, frozenset[str]] = {}
        for kind, resource_id, role in self._work.connection.execute(_rights(user_id)):
            if kind == "organization":
                roles[resource_id] = role
                found[resource_id] = ORGANIZATION_ROLES[role]
            else:
                found[resource_id] = found.get(resource_id, frozenset()) | DATABASE_ROLES[role]
        admin_of = frozenset(one for one, role in roles.items() if role == "admin")
        return Rights(frozenset(roles), found, admin_of)


def _rights(user_id: str):  # noqa: ANN202 - SQLAlchemy's own type, which has no useful name
    member, team, through = access.memberships, access.teams, access.team_members
    shared, owner, database = access.team_databases, access.database_members, resources.databases
    organizations = select(literal("organization"), member.c.organization_id, member.c.role).where(
        member.c.user_id == user_id
    )
    by_team = (
        select(literal("database"), shared.c.database_id, shared.c.role)
        .join(team, team.c.id == shared.c.team_id)
        .join(through, through.c.team_id == team.c.id)
        .join(
            member,
            and_(member.c.organization_id == team.c.organization_id, member.c.user_id == user_id),
        )
        .where(through.c.user_id == user_id)
    )
    by_database = (
        select(literal("database"), owner.c.database_id, literal("admin"))
        .join(database, database.c.id == owner.c.database_id)
        .join(
            member,
            and_(member.c.organization_id == database.c.organization_id, member.c.user_id == user_id),
        )
        .where(owner.c.user_id == user_id)
    )
    return union_all(organizations, by_team, by_database)
