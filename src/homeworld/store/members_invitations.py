"""Invitations: a link that makes whoever has it a member. No mail is sent from here.

Invariant: a link is told once and kept as a digest; it is good once, until it ends or is taken back, only
for the address it was made for, and only while the user who sent it administers the organization: whoever is
taken out does not come back by a link of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select

from homeworld.model.errors import InvalidError
from homeworld.model.names import new_id, new_secret
from homeworld.store.members import Members, checked_role
from homeworld.store.pages import Page, PageRequest, fetch_page
from homeworld.store.tables import access
from homeworld.store.users import Users, checked_email
from homeworld.store.users_secrets import digest
from homeworld.store.work import Work

GOOD_FOR = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation. ``secret_sha256`` never leaves the control plane."""

    id: str
    organization_id: str
    email: str
    role: str
    sender_id: str
    secret_sha256: bytes
    expires_at: datetime
    accepted_at: datetime | None
    cancelled_at: datetime | None
    created_at: datetime


class Invitations:
    """Invitations within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def create(self, organization_id: str, email: str, role: str, sender_id: str) -> tuple[Invitation, str]:
        """A new invitation, and the secret of its link, told only here. An open one for the same address is
        taken back.

        :raises InvalidError: the address is none, there is no such role, or they are a member already.
        """
        email = checked_email(email)
        checked_role(role)
        known = Users(self._work).by_email(email)
        if known is not None and Members(self._work).find(organization_id, known.id) is not None:
            raise InvalidError(f"{email} is a member already")
        table, now = access.invitations, self._work.now
        self._work.connection.execute(
            table.update()
            .where(
                table.c.organization_id == organization_id,
                table.c.email == email,
                table.c.accepted_at.is_(None),
                table.c.cancelled_at.is_(None),
            )
            .values(cancelled_at=now)
        )
        secret = new_secret()
        made = Invitation(
            new_id(), organization_id, email, role, sender_id, digest(secret), now + GOOD_FOR, None, None, now
        )
        self._work.add(table, {field: getattr(made, field) for field in made.__slots__})
        return made, secret

    def page(self, organization_id: str, request: PageRequest) -> Page[Invitation]:
        """Those that nobody has accepted or taken back, newest first."""
        table = access.invitations
        query = (
            select(table)
            .where(
                table.c.organization_id == organization_id,
                table.c.accepted_at.is_(None),
                table.c.cancelled_at.is_(None),
            )
            .order_by(table.c.created_at.desc(), table.c.id.desc())
        )
        return fetch_page(self._work.connection, query, request, Invitation)

    def get(self, organization_id: str, invitation_id: str) -> Invitation:
        """An invitation that nobody has accepted or taken back.

        :raises NotFoundError: there is none.
        """
        table = access.invitations
        query = select(table).where(
            table.c.id == invitation_id,
            table.c.organization_id == organization_id,
            table.c.accepted_at.is_(None),
            table.c.cancelled_at.is_(None),
        )
        return self._work.only(query, Invitation)

    def open(self, secret: str) -> Invitation | None:
        """The invitation of a link, if it is still good."""
        table = access.invitations
        query = select(table).where(
            table.c.secret_sha256 == digest(secret),
            table.c.accepted_at.is_(None),
            table.c.cancelled_at.is_(None),
            table.c.expires_at > self._work.now,
        )
        found = self._work.first(query, Invitation)
        return found if found is not None and self._sender_may(found) else None

    def _sender_may(self, invitation: Invitation) -> bool:
        sender = Users(self._work).by_ids([invitation.sender_id]).get(invitation.sender_id)
        if sender is None:
            return True  # a service token, which invites nobody but members
        member = Members(self._work).find(invitation.organization_id, sender.id)
        return member is not None and member.role == "admin" and sender.disabled_at is None

    def cancel(self, invitation: Invitation) -> None:
        """Take it back."""
        table = access.invitations
        self._work.change(table, table.c.id, invitation.id, {"cancelled_at": self._work.now})

    def accept(self, invitation: Invitation, user_id: str) -> None:
        """Let the user belong; the invitation is used up. Who belongs already (by the identity provider) gets
        its role and loses none.
        """
        members = Members(self._work)
        known = members.find(invitation.organization_id, user_id)
        if known is None:
            members.add(invitation.organization_id, user_id, invitation.role)
        elif invitation.role == "admin":
            members.set_role(known, "admin")
        table = access.invitations
        self._work.change(table, table.c.id, invitation.id, {"accepted_at": self._work.now})
