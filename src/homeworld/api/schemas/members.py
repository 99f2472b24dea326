"""Users, members and invitations as published."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from homeworld.api.calls import Call
from homeworld.api.schemas.common import Body, ResourceOut
from homeworld.store.members import Membership
from homeworld.store.members_invitations import Invitation
from homeworld.store.tenants import Actor, Organization
from homeworld.store.users import User

Short = Annotated[str, Field(max_length=255)]


class UserOut(BaseModel):
    """A user."""

    id: str
    display_name: str
    name: str
    email: str
    avatar_url: str = ""
    created_at: datetime
    updated_at: datetime
    two_factor_auth_configured: bool = False
    default_organization: ResourceOut | None = None
    sso: bool
    managed: bool
    directory_managed: bool = False
    email_verified: bool = True


class MemberOut(BaseModel):
    """A user in an organization."""

    id: str
    user: UserOut
    role: str
    created_at: datetime
    updated_at: datetime


class UpdateMember(Body):
    """The body of update_organization_membership."""

    role: Short


class CreateInvitation(Body):
    """The body of create_organization_invitation."""

    email: Short
    role: Short = "member"


class InvitationOut(BaseModel):
    """An invitation. ``url`` is the link; it is null but in the answer to its creation."""

    id: str
    email: str
    role: str
    sender: UserOut
    recipient: UserOut | None
    expired: bool
    expires_at: datetime
    created_at: datetime
    avatar_url: str = ""
    url: str | None = None


def show_user(user: User, default: Organization | None) -> UserOut:
    """A user as published.

    :param default: the user's first organization that the caller knows of.
    """
    return UserOut(
        id=user.id,
        display_name=user.name,
        name=user.name,
        email=user.email,
        created_at=user.created_at,
        updated_at=user.updated_at,
        default_organization=None
        if default is None
        else ResourceOut(
            id=default.id,
            name=default.name,
            created_at=default.created_at,
            updated_at=default.updated_at,
            deleted_at=None,
        ),
        sso=user.sso_subject is not None,
        managed=user.sso_subject is not None and user.password_hash is None,
    )


def show_users(call: Call, user_ids: Sequence[str]) -> dict[str, UserOut]:
    """Users as published by their ids, in three queries however many there are. Of their organizations only
    such are told that the caller belongs to, too.
    """
    users = call.tx.users.by_ids(user_ids)
    first: dict[str, str] = {}
    for user, ids in call.tx.members.organizations_of(users).items():
        known = [one for one in ids if one in call.bearer.organization_ids]
        first |= {user: known[0]} if known else {}
    organizations = call.tx.organizations.by_ids(first.values())
    return {
        user_id: show_user(user, organizations.get(first.get(user_id, ""))) for user_id, user in users.items()
    }


def show_members(call: Call, members: Sequence[Membership]) -> list[MemberOut]:
    """Members as published."""
    users = show_users(call, [member.user_id for member in members])
    return [
        MemberOut(
            id=member.id,
            user=users[member.user_id],
            role=member.role,
            created_at=member.created_at,
            updated_at=member.updated_at,
        )
        for member in members
    ]


def _sender(actor: Actor) -> UserOut:
    # A service token invites too, and the published object is a user's that is never null.
    return UserOut(
        id=actor.id,
        display_name=actor.display_name,
        name=actor.display_name,
        email="",
        avatar_url=actor.avatar_url,
        created_at=actor.created_at,
        updated_at=actor.created_at,
        sso=False,
        managed=False,
    )


def show_invitations(
    call: Call, invitations: Sequence[Invitation], url: str | None = None
) -> list[InvitationOut]:
    """Invitations as published.

    :param url: the link, of one that was just created.
    """
    senders = show_users(call, [invitation.sender_id for invitation in invitations])
    actors = call.actors(invitation.sender_id for invitation in invitations)
    return [
        InvitationOut(
            id=one.id,
            email=one.email,
            role=one.role,
            sender=senders.get(one.sender_id) or _sender(actors[one.sender_id]),
            recipient=None,
            expired=one.expires_at <= call.now,
            expires_at=one.expires_at,
            created_at=one.created_at,
            url=url,
        )
        for one in invitations
    ]
