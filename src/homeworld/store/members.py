"""Who belongs to an organization, and who administers which database.

Invariant: an organization that has had an administrator always has one who is let in; who leaves an
organization leaves its teams and databases in the same transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, or_, select

from homeworld.model.accesses import ORGANIZATION_ROLES
from homeworld.model.errors import InvalidError
from homeworld.model.names import new_id
from homeworld.store.pages import Page, PageRequest, fetch_counted_page
from homeworld.store.passwords import Password, load_password
from homeworld.store.tables import access, resources, tenants
from homeworld.store.tokens import ServiceToken
from homeworld.store.work import Work


@dataclass(frozen=True, slots=True)
class Membership:
    """A user in an organization; ``role`` is admin or member."""

    id: str
    organization_id: str
    user_id: str
    role: str
    created_at: datetime
    updated_at: datetime


def checked_role(role: str) -> str:
    """The role, if there is such.

    :raises InvalidError: there is none.
    """
    if role not in ORGANIZATION_ROLES:
        raise InvalidError(f"role {role!r} is not one of {', '.join(ORGANIZATION_ROLES)}")
    return role


class Members:
    """Memberships within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def add(self, organization_id: str, user_id: str, role: str) -> Membership:
        """Let a user belong to an organization.

        :raises InvalidError: there is no such role, or they do already.
        """
        checked_role(role)
        if self.find(organization_id, user_id) is not None:
            raise InvalidError("this user is a member already")
        now = self._work.now
        made = Membership(new_id(), organization_id, user_id, role, now, now)
        self._work.add(access.memberships, {field: getattr(made, field) for field in made.__slots__})
        return made

    def find(self, organization_id: str, user_id: str) -> Membership | None:
        """The user's membership, if any."""
        table = access.memberships
        query = select(table).where(table.c.organization_id == organization_id, table.c.user_id == user_id)
        return self._work.first(query, Membership)

    def get(self, organization_id: str, named: str) -> Membership:
        """The membership of the user of that id, or of that id itself.

        :raises NotFoundError: there is none.
        """
        table = access.memberships
        query = select(table).where(
            table.c.organization_id == organization_id, or_(table.c.user_id == named, table.c.id == named)
        )
        return self._work.only(query, Membership)

    def page(self, organization_id: str, request: PageRequest, q: str = "") -> Page[Membership]:
        """Who belongs, the first first; ``q`` keeps those whose name or address contains it."""
        table, user = access.memberships, access.users
        query = select(table).where(table.c.organization_id == organization_id)
        if q:
            query = query.join(user, user.c.id == table.c.user_id).where(
                or_(user.c.name.icontains(q, autoescape=True), user.c.email.icontains(q, autoescape=True))
            )
        query = query.order_by(table.c.created_at, table.c.id)
        return fetch_counted_page(self._work.connection, query, request, Membership)

    def all(self, organization_id: str) -> tuple[Membership, ...]:
        """Everybody who belongs, in the order in which they came."""
        table = access.memberships
        query = select(table).where(table.c.organization_id == organization_id)
        return self._work.all(query.order_by(table.c.created_at, table.c.id), Membership)

    def organizations_of(self, user_ids: Iterable[str]) -> Mapping[str, Sequence[str]]:
        """The ids of each user's organizations, the first joined first, in one query."""
        table = access.memberships
        query = (
            select(table.c.user_id, table.c.organization_id)
            .where(table.c.user_id.in_(list(user_ids)))
            .order_by(table.c.created_at, table.c.id)
        )
        found: dict[str, list[str]] = {}
        for user_id, organization_id in self._work.connection.execute(query):
            found.setdefault(user_id, []).append(organization_id)
        return found

    def set_role(self, membership: Membership, role: str) -> Membership:
        """Another role.

        :raises InvalidError: there is no such role, or nobody would be left to administer.
        """
        checked_role(role)
        if role != "admin":
            self._keep_an_admin(membership)
        table = access.memberships
        values = {"role": role, "updated_at": self._work.now}
        self._work.change(table, table.c.id, membership.id, values)
        return self.get(membership.organization_id, membership.id)

    def remove(self, membership: Membership) -> None:
        """Take a user out of the organization, its teams and its databases.

        :raises InvalidError: nobody would be left to administer.
        """
        self._keep_an_admin(membership)
        run, user_id = self._work.connection.execute, membership.user_id
        team, through = access.teams, access.team_members
        owner, database = access.database_members, resources.databases
        organization_id = membership.organization_id
        teams = select(team.c.id).where(team.c.organization_id == organization_id)
        databases = select(database.c.id).where(database.c.organization_id == organization_id)
        run(delete(through).where(through.c.user_id == user_id, through.c.team_id.in_(teams)))
        run(delete(owner).where(owner.c.user_id == user_id, owner.c.database_id.in_(databases)))
        run(delete(access.memberships).where(access.memberships.c.id == membership.id))

    def _keep_an_admin(self, membership: Membership) -> None:
        table, user = access.memberships, access.users
        others = (
            select(func.count())
            .select_from(table.join(user, user.c.id == table.c.user_id))
            .where(
                table.c.organization_id == membership.organization_id,
                table.c.role == "admin",
                table.c.id != membership.id,
                user.c.disabled_at.is_(None),
            )
        )
        if membership.role == "admin" and not self._work.connection.execute(others).scalar_one():
            raise InvalidError("this is the organization's last administrator; make another one first")

    def own(self, database_id: str, user_id: str) -> None:
        """Make a user the database's administrator: they created it."""
        values = {"database_id": database_id, "user_id": user_id, "created_at": self._work.now}
        self._work.add(access.database_members, values)

    def passwords_of(
        self, organization_id: str, user_id: str, database_ids: Sequence[str] | None = None
    ) -> tuple[Password, ...]:
        """The live branch passwords that the user created, newest first.

        :param database_ids: of these databases only; None: of all.
        """
        found = self.passwords_of_all(organization_id, [user_id], database_ids)
        return tuple(found.get(user_id, ()))

    def passwords_of_all(
        self, organization_id: str, user_ids: Sequence[str], database_ids: Sequence[str] | None = None
    ) -> Mapping[str, Sequence[Password]]:
        """The live branch passwords of several users by who created them, in one query."""
        password, branch, database = resources.passwords, resources.branches, resources.databases
        query = (
            select(password)
            .join(branch, branch.c.id == password.c.branch_id)
            .join(database, database.c.id == branch.c.database_id)
            .where(
                password.c.actor_id.in_(user_ids),
                password.c.deleted_at.is_(None),
                branch.c.deleted_at.is_(None),
                database.c.organization_id == organization_id,
            )
            .order_by(password.c.created_at.desc(), password.c.id.desc())
        )
        if database_ids is not None:
            query = query.where(database.c.id.in_(database_ids))
        found: dict[str, list[Password]] = {}
        for one in self._work.all(query, load_password):
            found.setdefault(one.actor_id or "", []).append(one)
        return found

    def tokens_of(self, organization_id: str, user_id: str) -> tuple[ServiceToken, ...]:
        """The live service tokens that the user created."""
        table = tenants.service_tokens
        query = select(table).where(
            table.c.organization_id == organization_id,
            table.c.creator_id == user_id,
            table.c.deleted_at.is_(None),
        )
        return self._work.all(query, ServiceToken)
