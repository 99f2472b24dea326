"""Teams, who is in them, and which databases they have a role on."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from homeworld.api.calls import ApiDep, CallerDep, Id, InDatabase, InOrganization, TeamSlug
from homeworld.api.listing import Routes
from homeworld.api.pages import CountedListing, PageDep, counted_listing
from homeworld.api.routes.databases import checked_term
from homeworld.api.schemas.teams import (
    AddTeamMember,
    CreateTeam,
    SetTeamDatabase,
    TeamMemberOut,
    TeamOut,
    UpdateTeam,
    show_team_members,
    show_teams,
)
from homeworld.model.accesses import DATABASE_ROLES
from homeworld.store.teams import TeamFields

router = Routes(tags=["Organization teams"])

_ALL = "/organizations/{organization}/teams"
_ONE = _ALL + "/{team}"
_MEMBERS = _ONE + "/members"
_DATABASE = _ONE + "/databases/{database}"


@router.get(_ALL, operation_id="list_organization_teams")
def list_organization_teams(
    api: ApiDep,
    caller: CallerDep,
    path: InOrganization,
    page: PageDep,
    q: Annotated[str, Query()] = "",
) -> CountedListing[TeamOut]:
    """The organization's teams."""
    with api.read(caller, "list_organization_teams", path) as call:
        found = call.tx.teams.page(call.organization.id, page, checked_term(q))
        return counted_listing(caller, found, show_teams(call, found.items))


@router.post(_ALL, operation_id="create_organization_team")
def create_organization_team(
    api: ApiDep, caller: CallerDep, path: InOrganization, body: CreateTeam
) -> TeamOut:
    """A new team without members or databases."""
    with api.write(caller, "create_organization_team", path) as call:
        team = call.tx.teams.create(call.organization.id, body.name, body.description, call.actor_id)
        call.audit("organization_team.created", "team", team.id, team.name)
        return show_teams(call, [team])[0]


@router.get(_ONE, operation_id="get_organization_team")
def get_organization_team(api: ApiDep, caller: CallerDep, path: InOrganization, slug: TeamSlug) -> TeamOut:
    """A team."""
    with api.read(caller, "get_organization_team", path) as call:
        return show_teams(call, [call.tx.teams.get(call.organization.id, slug)])[0]


@router.patch(_ONE, operation_id="update_organization_team")
def update_organization_team(
    api: ApiDep,
    caller: CallerDep,
    path: InOrganization,
    slug: TeamSlug,
    body: UpdateTeam | None = None,
) -> TeamOut:
    """Change a team's name, and its slug with it, or description."""
    asked = body or UpdateTeam()
    fields = TeamFields()
    if asked.name is not None:
        fields["name"] = asked.name
    if asked.description is not None:
        fields["description"] = asked.description
    with api.write(caller, "update_organization_team", path) as call:
        team = call.tx.teams.update(call.tx.teams.get(call.organization.id, slug), **fields)
        call.audit("organization_team.updated", "team", team.id, team.name, fields=dict(fields))
        return show_teams(call, [team])[0]


@router.delete(_ONE, operation_id="delete_organization_team", status_code=204)
def delete_organization_team(api: ApiDep, caller: CallerDep, path: InOrganization, slug: TeamSlug) -> None:
    """Take a team away, and the rights that it gave."""
    with api.write(caller, "delete_organization_team", path) as call:
        team = call.tx.teams.get(call.organization.id, slug)
        call.tx.teams.delete(team)
        call.audit("organization_team.deleted", "team", team.id, team.name)


@router.put(_DATABASE, operation_id="set_organization_team_database")
def set_organization_team_database(
    api: ApiDep,
    caller: CallerDep,
    path: InDatabase,
    slug: TeamSlug,
    body: SetTeamDatabase | None = None,
) -> TeamOut:
    """Give a team's members the role admin (the default) or analyst on a database. Nobody gives what they do
    not have.
    """
    role = (body or SetTeamDatabase()).role
    with api.write(caller, "set_organization_team_database", path) as call:
        team = call.tx.teams.get(call.organization.id, slug)
        roles = {one: known for one, _, known in call.tx.teams.databases_of([team.id]).get(team.id, ())}
        had = DATABASE_ROLES.get(roles.get(call.database.id, ""), frozenset[str]())
        call.require_held(DATABASE_ROLES.get(role, frozenset[str]()) - had, call.database.id)
        call.tx.teams.set_database(team, call.database.id, role)
        call.audit(
            "organization_team.added_database", "team", team.id, team.name,
            database=call.database.name, role=role,
        )  # fmt: skip
        return show_teams(call, [team])[0]


@router.delete(_DATABASE, operation_id="remove_organization_team_database", status_code=204)
def remove_organization_team_database(
    api: ApiDep, caller: CallerDep, path: InDatabase, slug: TeamSlug
) -> None:
    """Take a team's role on a database away."""
    with api.write(caller, "remove_organization_team_database", path) as call:
        team = call.tx.teams.get(call.organization.id, slug)
        if call.tx.teams.remove_database(team, call.database.id):
            call.audit(
                "organization_team.removed_database", "team", team.id, team.name, database=call.database.name
            )


@router.get(_MEMBERS, operation_id="list_organization_team_members")
def list_organization_team_members(
    api: ApiDep, caller: CallerDep, path: InOrganization, slug: TeamSlug, page: PageDep
) -> CountedListing[TeamMemberOut]:
    """Who is in a team."""
    with api.read(caller, "list_organization_team_members", path) as call:
        team = call.tx.teams.get(call.organization.id, slug)
        found = call.tx.teams.page_of_members(team, page)
        return counted_listing(caller, found, show_team_members(call, team, found.items))


@router.post(_MEMBERS, operation_id="add_organization_team_member")
def add_organization_team_member(
    api: ApiDep, caller: CallerDep, path: InOrganization, slug: TeamSlug, body: AddTeamMember
) -> TeamMemberOut:
    """Put a member of the organization into a team. Nobody gives what they do not have."""
    with api.write(caller, "add_organization_team_member", path) as call:
        team = call.tx.teams.get(call.organization.id, slug)
        if body.user_id not in call.tx.teams.members_of([team.id]).get(team.id, ()):
            for database_id, _, role in call.tx.teams.databases_of([team.id]).get(team.id, ()):
                call.require_held(DATABASE_ROLES[role], database_id)
        member = call.tx.teams.add_member(team, body.user_id, call.actor_id)
        call.audit("organization_team.added_member", "team", team.id, team.name, user=member.user_id)
        return show_team_members(call, team, [member])[0]


@router.get(_MEMBERS + "/{id}", operation_id="get_organization_team_member")
def get_organization_team_member(
    api: ApiDep, caller: CallerDep, path: InOrganization, slug: TeamSlug, member_id: Id
) -> TeamMemberOut:
    """A team's member, by the membership's or the user's id."""
    with api.read(caller, "get_organization_team_member", path) as call:
        team = call.tx.teams.get(call.organization.id, slug)
        return show_team_members(call, team, [call.tx.teams.member(team, member_id)])[0]


@router.delete(_MEMBERS + "/{id}", operation_id="remove_organization_team_member", status_code=204)
def remove_organization_team_member(
    api: ApiDep,
    caller: CallerDep,
    path: InOrganization,
    slug: TeamSlug,
    member_id: Id,
    delete_passwords: Annotated[bool, Query()] = False,
) -> None:
    """Take somebody out of a team, with the passwords they made for its databases where that is asked."""
    with api.write(caller, "remove_organization_team_member", path) as call:
        team = call.tx.teams.get(call.organization.id, slug)
        member = call.tx.teams.member(team, member_id)
        call.tx.teams.remove_member(member)
        call.audit("organization_team.removed_member", "team", team.id, team.name, user=member.user_id)
        if delete_passwords:
            databases = [one[0] for one in call.tx.teams.databases_of([team.id]).get(team.id, ())]
            for password in call.tx.members.passwords_of(call.organization.id, member.user_id, databases):
                call.tx.passwords.delete(password)
                call.audit("password.deleted", "password", password.id, password.name)
    if delete_passwords:
        api.tell_gateways()
