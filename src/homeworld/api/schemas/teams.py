"""Teams and their members as published."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from homeworld.api.calls import Call
from homeworld.api.schemas.common import ActorOut, Body
from homeworld.api.schemas.databases import Name
from homeworld.api.schemas.members import UserOut, show_users
from homeworld.api.schemas.passwords import PasswordOut, show_passwords
from homeworld.store.teams import Team, TeamMember

TeamName = Annotated[str, Field(max_length=100)]
Description = Annotated[str, Field(max_length=1000)]


class CreateTeam(Body):
    """The body of create_organization_team."""

    name: TeamName
    description: Description | None = None


class UpdateTeam(Body):
    """The body of update_organization_team."""

    name: TeamName | None = None
    description: Description | None = None


class AddTeamMember(Body):
    """The body of add_organization_team_member."""

    user_id: Name


class SetTeamDatabase(Body):
    """The body of set_organization_team_database."""

    role: Name = "admin"


class TeamDatabaseOut(BaseModel):
    """A database that a team's members have a role on."""

    id: str
    name: str
    url: str
    branches_url: str


class TeamOut(BaseModel):
    """A team."""

    id: str
    display_name: str
    creator: ActorOut
    members: Sequence[UserOut]
    databases: Sequence[TeamDatabaseOut]
    analyst_databases: Sequence[TeamDatabaseOut]
    name: str
    slug: str
    created_at: datetime
    updated_at: datetime
    description: str | None
    managed: bool = False


class TeamMemberOut(BaseModel):
    """A user in a team, with the passwords they made for the team's databases."""

    id: str
    user: UserOut
    actor: ActorOut
    created_at: datetime
    updated_at: datetime
    passwords: Sequence[PasswordOut]


def show_teams(call: Call, teams: Sequence[Team]) -> list[TeamOut]:
    """Teams as published, in a fixed number of queries."""
    ids = [team.id for team in teams]
    members = call.tx.teams.members_of(ids)
    users = show_users(call, [user for several in members.values() for user in several])
    databases = call.tx.teams.databases_of(ids)
    creators = call.actors(team.creator_id for team in teams)

    def with_role(team: Team, wanted: str) -> list[TeamDatabaseOut]:
        return [
            TeamDatabaseOut(
                id=database_id,
                name=name,
                url=call.api_url("databases", name),
                branches_url=call.api_url("databases", name, "branches"),
            )
            for database_id, name, role in databases.get(team.id, ())
            if role == wanted
        ]

    return [
        TeamOut(
            id=team.id,
            display_name=team.name,
            creator=ActorOut.of(creators, team.creator_id),
            members=[users[user_id] for user_id in members.get(team.id, ())],
            databases=with_role(team, "admin"),
            analyst_databases=with_role(team, "analyst"),
            name=team.name,
            slug=team.slug,
            created_at=team.created_at,
            updated_at=team.updated_at,
            description=team.description,
        )
        for team in teams
    ]


def show_team_members(call: Call, team: Team, members: Sequence[TeamMember]) -> list[TeamMemberOut]:
    """A team's members as published, in a fixed number of queries."""
    user_ids = [member.user_id for member in members]
    users = show_users(call, user_ids)
    actors = call.actors(member.actor_id for member in members)
    database_ids = [one[0] for one in call.tx.teams.databases_of([team.id]).get(team.id, ())]
    made = call.tx.members.passwords_of_all(call.organization.id, user_ids, database_ids)
    shown = show_passwords(call, [password for several in made.values() for password in several])
    passwords = {password.id: password for password in shown}
    return [
        TeamMemberOut(
            id=member.id,
            user=users[member.user_id],
            actor=ActorOut.of(actors, member.actor_id),
            created_at=member.created_at,
            updated_at=member.updated_at,
            passwords=[passwords[password.id] for password in made.get(member.user_id, ())],
        )
        for member in members
    ]
