"""Teams: members of an organization who share rights on databases.

Invariant: a team is of one organization, and so are its members and databases. Rights end with the commit
that takes a member or a database out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict, Unpack

from sqlalchemy import delete, or_, select

from homeworld.model.accesses import DATABASE_ROLES
from homeworld.model.errors import InvalidError, NotFoundError
from homeworld.model.names import new_id
from homeworld.store.members import Members
from homeworld.store.pages import Page, PageRequest, fetch_counted_page
from homeworld.store.tables import access, resources
from homeworld.store.work import Work

_LONGEST_NAME = 100
_LONGEST_SLUG = 63


@dataclass(frozen=True, slots=True)
class Team:
    """A team; ``slug`` is its name in paths."""

    id: str
    organization_id: str
    name: str
    slug: str
    description: str | None
    creator_id: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class TeamMember:
    """A user in a team; ``actor_id`` is who put them there."""

    id: str
    team_id: str
    user_id: str
    actor_id: str
    created_at: datetime
    updated_at: datetime


class TeamFields(TypedDict, total=False):
    """What can be changed of a team."""

    name: str
    description: str | None


def slug_of(name: str) -> str:
    """The name as it stands in paths.

    :raises InvalidError: nothing of it can.
    """
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise InvalidError(f"a team's name has at most {_LONGEST_NAME} characters, all of them printable")
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower())[:_LONGEST_SLUG].strip("-")
    if not slug:
        raise InvalidError(f"team name {name!r} has no letter (a to z) or digit")
    return slug


class Teams:
    """Teams within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def create(self, organization_id: str, name: str, description: str | None, creator_id: str) -> Team:
        """A new team without members or databases.

        :raises InvalidError: the name is not valid or taken.
        """
        now = self._work.now
        slug = self._free_slug(organization_id, name)
        made = Team(new_id(), organization_id, name, slug, description, creator_id, now, now)
        self._work.add(access.teams, {field: getattr(made, field) for field in made.__slots__})
        return made

    def _free_slug(self, organization_id: str, name: str, own: str = "") -> str:
        slug, table = slug_of(name), access.teams
        query = select(table).where(
            table.c.organization_id == organization_id, table.c.slug == slug, table.c.id != own
        )
        if self._work.first(query, Team) is not None:
            raise InvalidError(f"there is a team {slug} already")
        return slug

    def get(self, organization_id: str, named: str) -> Team:
        """The team of that slug or id.

        :raises NotFoundError: there is none.
        """
        table = access.teams
        query = select(table).where(
            table.c.organization_id == organization_id, or_(table.c.slug == named, table.c.id == named)
        )
        return self._work.only(query, Team)

    def page(self, organization_id: str, request: PageRequest, q: str = "") -> Page[Team]:
        """The organization's teams by slug; ``q`` keeps those whose name contains it."""
        table = access.teams
        query = select(table).where(table.c.organization_id == organization_id).order_by(table.c.slug)
        if q:
            query = query.where(table.c.name.icontains(q, autoescape=True))
        return fetch_counted_page(self._work.connection, query, request, Team)

    def update(self, team: Team, **fields: Unpack[TeamFields]) -> Team:
        """Change name (and slug with it) or description.

        :raises InvalidError: the name is not valid or taken.
        """
        table = access.teams
        values: dict[str, object] = {**fields, "updated_at": self._work.now}
        if "name" in fields:
            values["slug"] = self._free_slug(team.organization_id, fields["name"], team.id)
        self._work.change(table, table.c.id, team.id, values)
        return self.get(team.organization_id, team.id)

    def delete(self, team: Team) -> None:
        """Take the team away, and with it the rights it gave."""
        for table in (access.team_databases, access.team_members):
            self._work.connection.execute(delete(table).where(table.c.team_id == team.id))
        self._work.connection.execute(delete(access.teams).where(access.teams.c.id == team.id))

    # members

    def add_member(self, team: Team, user_id: str, actor_id: str) -> TeamMember:
        """Put a member of the organization into the team; who is in it stays.

        :raises InvalidError: the user does not belong to the organization.
        """
        if Members(self._work).find(team.organization_id, user_id) is None:
            raise InvalidError("user_id names nobody who belongs to this organization")
        known = self._find_member(team, user_id)
        if known is not None:
            return known
        now = self._work.now
        made = TeamMember(new_id(), team.id, user_id, actor_id, now, now)
        self._work.add(access.team_members, {field: getattr(made, field) for field in made.__slots__})
        return made

    def _find_member(self, team: Team, named: str) -> TeamMember | None:
        table = access.team_members
        query = select(table).where(
            table.c.team_id == team.id, or_(table.c.id == named, table.c.user_id == named)
        )
        return self._work.first(query, TeamMember)

    def member(self, team: Team, named: str) -> TeamMember:
        """The team's member, by the membership's id or the user's.

        :raises NotFoundError: there is none.
        """
        found = self._find_member(team, named)
        if found is None:
            raise NotFoundError
        return found

    def page_of_members(self, team: Team, request: PageRequest) -> Page[TeamMember]:
        """Who is in the team, in the order in which they came."""
        table = access.team_members
        query = select(table).where(table.c.team_id == team.id).order_by(table.c.created_at, table.c.id)
        return fetch_counted_page(self._work.connection, query, request, TeamMember)

    def members_of(self, team_ids: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """The ids of the users of several teams, in one query."""
        table = access.team_members
        query = (
            select(table.c.team_id, table.c.user_id)
            .where(table.c.team_id.in_(team_ids))
            .order_by(table.c.created_at, table.c.id)
        )
        found: dict[str, list[str]] = {}
        for team_id, user_id in self._work.connection.execute(query):
            found.setdefault(team_id, []).append(user_id)
        return found

    def remove_member(self, member: TeamMember) -> None:
        """Take somebody out of the team."""
        table = access.team_members
        self._work.connection.execute(delete(table).where(table.c.id == member.id))

    # databases

    def set_database(self, team: Team, database_id: str, role: str) -> None:
        """Give the team's members a role on a database of its organization.

        :raises InvalidError: there is no such role.
        """
        if role not in DATABASE_ROLES:
            raise InvalidError(f"role {role!r} is not one of {', '.join(DATABASE_ROLES)}")
        self.remove_database(team, database_id)
        values = {
            "team_id": team.id,
            "database_id": database_id,
            "role": role,
            "created_at": self._work.now,
        }
        self._work.add(access.team_databases, values)

    def remove_database(self, team: Team, database_id: str) -> bool:
        """Take the role away again; whether there was one."""
        table = access.team_databases
        gone = delete(table).where(table.c.team_id == team.id, table.c.database_id == database_id)
        return self._work.connection.execute(gone).rowcount > 0

    def databases_of(self, team_ids: Sequence[str]) -> Mapping[str, Sequence[tuple[str, str, str]]]:
        """The live databases of several teams as (id, name, role), in one query."""
        table, database = access.team_databases, resources.databases
        query = (
            select(table.c.team_id, database.c.id, database.c.name, table.c.role)
            .join(database, database.c.id == table.c.database_id)
            .where(table.c.team_id.in_(team_ids), database.c.deleted_at.is_(None))
            .order_by(database.c.name)
        )
        found: dict[str, list[tuple[str, str, str]]] = {}
        for team_id, database_id, name, role in self._work.connection.execute(query):
            found.setdefault(team_id, []).append((database_id, name, role))
        return found
