"""The user who asks, an organization's members, and invitations."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from homeworld.api.calls import ApiDep, Call, CallerDep, Id, InOrganization
from homeworld.api.listing import Routes
from homeworld.api.pages import CountedListing, Listing, PageDep, counted_listing, listing
from homeworld.api.routes.databases import checked_term
from homeworld.api.schemas.members import (
    CreateInvitation,
    InvitationOut,
    MemberOut,
    UpdateMember,
    UserOut,
    show_invitations,
    show_members,
    show_users,
)
from homeworld.model.accesses import ORGANIZATION_ROLES
from homeworld.model.errors import InvalidError
from homeworld.store.members import Membership

router = Routes(tags=["Organization members"])

_ALL = "/organizations/{organization}/members"
_ONE = _ALL + "/{id}"
_INVITATIONS = "/organizations/{organization}/invitations"


@router.get("/user", operation_id="get_current_user")
def get_current_user(api: ApiDep, caller: CallerDep) -> UserOut:
    """The user by whose token this is asked."""
    with api.read(caller, "get_current_user") as call:
        user_id = call.bearer.actor_id
        return show_users(call, [user_id])[user_id]


@router.get(_ALL, operation_id="list_organization_members")
def list_organization_members(
    api: ApiDep,
    caller: CallerDep,
    path: InOrganization,
    page: PageDep,
    q: Annotated[str, Query()] = "",
) -> CountedListing[MemberOut]:
    """Who belongs to the organization, in the order in which they came."""
    with api.read(caller, "list_organization_members", path) as call:
        found = call.tx.members.page(call.organization.id, page, checked_term(q))
        return counted_listing(caller, found, show_members(call, found.items))


@router.get(_ONE, operation_id="get_organization_membership")
def get_organization_membership(
    api: ApiDep, caller: CallerDep, path: InOrganization, user_id: Id
) -> MemberOut:
    """A member, by the user's id."""
    with api.read(caller, "get_organization_membership", path) as call:
        return show_members(call, [call.tx.members.get(call.organization.id, user_id)])[0]


@router.patch(_ONE, operation_id="update_organization_membership")
def update_organization_membership(
    api: ApiDep, caller: CallerDep, path: InOrganization, user_id: Id, body: UpdateMember
) -> MemberOut:
    """Give a member another role; nobody changes their own, or gives what they do not have."""
    with api.write(caller, "update_organization_membership", path) as call:
        member = call.tx.members.get(call.organization.id, user_id)
        if member.user_id == call.user_id:
            raise InvalidError("nobody changes their own role; ask another administrator")
        user = call.tx.users.get(member.user_id)
        if call.organization.idp_managed_roles and user.sso_subject is not None:
            raise InvalidError("the identity provider decides about this member's role")
        wanted, has = (ORGANIZATION_ROLES.get(role, frozenset[str]()) for role in (body.role, member.role))
        call.require_held(wanted - has)
        changed = call.tx.members.set_role(member, body.role)
        call.audit(
            "organization.updated_role",
            "user",
            member.user_id,
            user.email,
            before=member.role,
            role=changed.role,
        )
        return show_members(call, [changed])[0]


@router.delete(_ONE, operation_id="remove_organization_member", status_code=204)
def remove_organization_member(
    api: ApiDep,
    caller: CallerDep,
    path: InOrganization,
    user_id: Id,
    delete_passwords: Annotated[bool, Query()] = False,
    delete_service_tokens: Annotated[bool, Query()] = False,
) -> None:
    """Take a member out of the organization, its teams and its databases; their rights end with it."""
    with api.write(caller, "remove_organization_member", path) as call:
        member = call.tx.members.get(call.organization.id, user_id)
        itself = member.user_id == call.user_id
        if itself and (delete_passwords or delete_service_tokens):
            raise InvalidError(
                "delete_passwords and delete_service_tokens are for other members than oneself"
            )
        if itself and len(call.tx.members.organizations_of([member.user_id])[member.user_id]) == 1:
            raise InvalidError("this is your only organization; nobody leaves their last one")
        user = call.tx.users.get(member.user_id)
        call.tx.members.remove(member)
        call.audit(
            "organization.left" if itself else "organization.removed_member", "user", user.id, user.email
        )
        if delete_passwords:
            _delete_passwords(call, member)
        if delete_service_tokens:
            for token in call.tx.members.tokens_of(call.organization.id, member.user_id):
                call.tx.tokens.delete(call.organization.id, token.id)
                call.audit("service_token.deleted", "service_token", token.id, token.name or token.id)
    if delete_passwords:
        api.tell_gateways()


def _delete_passwords(call: Call, member: Membership) -> None:
    for password in call.tx.members.passwords_of(call.organization.id, member.user_id):
        call.tx.passwords.delete(password)
        call.audit("password.deleted", "password", password.id, password.name)


@router.get(_INVITATIONS, operation_id="list_organization_invitations")
def list_organization_invitations(
    api: ApiDep, caller: CallerDep, path: InOrganization, page: PageDep
) -> Listing[InvitationOut]:
    """The invitations that nobody has accepted, newest first."""
    with api.read(caller, "list_organization_invitations", path) as call:
        found = call.tx.invitations.page(call.organization.id, page)
        return listing(caller, found, show_invitations(call, found.items))


@router.post(_INVITATIONS, operation_id="create_organization_invitation")
def create_organization_invitation(
    api: ApiDep, caller: CallerDep, path: InOrganization, body: CreateInvitation
) -> InvitationOut:
    """Invite somebody. No mail is sent: the link is in this answer only, for the sender to pass on."""
    with api.write(caller, "create_organization_invitation", path) as call:
        if body.role != "member" and call.organization.id not in call.bearer.admin_of:
            raise InvalidError("only administrators invite others than members, and no service token does")
        made, secret = call.tx.invitations.create(call.organization.id, body.email, body.role, call.actor_id)
        call.audit("organization_invitation.created", "invitation", made.id, made.email, role=made.role)
        return show_invitations(call, [made], f"{caller.base_url}/invitations/{secret}")[0]


@router.delete(_INVITATIONS + "/{id}", operation_id="cancel_organization_invitation", status_code=204)
def cancel_organization_invitation(
    api: ApiDep, caller: CallerDep, path: InOrganization, invitation_id: Id
) -> None:
    """Take an invitation back; its link is worth nothing any more."""
    with api.write(caller, "cancel_organization_invitation", path) as call:
        invitation = call.tx.invitations.get(call.organization.id, invitation_id)
        call.tx.invitations.cancel(invitation)
        call.audit("organization_invitation.deleted", "invitation", invitation.id, invitation.email)
