"""OAuth tokens and authorization codes.

Invariants: a code is good once, for its own application, address and proof, and whoever brings it a second
time ends what came of it; a refresh token is good once, and whoever brings a used one, however often the
token was renewed since, ends the whole token: one of the two who had it should not have. Of all of them only
digests are kept.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select

from homeworld.model.names import new_id, new_secret
from homeworld.model.oauth_scopes import accesses_of
from homeworld.store.journal import Journal
from homeworld.store.members import Members
from homeworld.store.pages import Page, PageRequest, fetch_counted_page
from homeworld.store.tables import access
from homeworld.store.tokens import Bearer
from homeworld.store.users import Users
from homeworld.store.users_secrets import ACCESS_PREFIX, REFRESH_PREFIX, digest, same
from homeworld.store.work import Work

ACCESS_FOR = timedelta(days=30)
REFRESH_FOR = timedelta(days=180)
CODE_FOR = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class OAuthToken:
    """A token that acts for a user. Its digests never leave the control plane."""

    id: str
    application_id: str | None
    client_id: str
    user_id: str
    scopes: Sequence[str] | None
    access_sha256: bytes
    refresh_sha256: bytes | None
    expires_at: datetime
    refresh_expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Issued:
    """A token with its secrets, which are told only here."""

    token: OAuthToken
    access: str
    refresh: str


@dataclass(frozen=True, slots=True)
class Code:
    """An authorization code."""

    code_sha256: bytes
    application_id: str
    user_id: str
    redirect_uri: str
    scopes: Sequence[str]
    challenge: str | None
    token_id: str | None
    expires_at: datetime
    created_at: datetime


class OAuthTokens:
    """OAuth tokens within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def issue(
        self, user_id: str, client_id: str, *, application_id: str | None, scopes: Sequence[str] | None
    ) -> Issued:
        """A new token.

        :param scopes: by their whole names; None: all that the user may.
        """
        now = self._work.now
        access_text, refresh = ACCESS_PREFIX + new_secret(), REFRESH_PREFIX + new_secret()
        made = OAuthToken(
            id=new_id(),
            application_id=application_id,
            client_id=client_id,
            user_id=user_id,
            scopes=None if scopes is None else list(scopes),
            access_sha256=digest(access_text),
            refresh_sha256=digest(refresh),
            expires_at=now + ACCESS_FOR,
            refresh_expires_at=now + REFRESH_FOR,
            last_used_at=None,
            revoked_at=None,
            created_at=now,
            updated_at=now,
        )
        self._work.add(access.oauth_tokens, {field: getattr(made, field) for field in made.__slots__})
        return Issued(made, access_text, refresh)

    def authenticate(self, text: str) -> Bearer | None:
        """Who acts by this access token, if it is one and lives, and its user too."""
        table = access.oauth_tokens
        token = self._work.first(select(table).where(table.c.access_sha256 == digest(text)), OAuthToken)
        if token is None or token.revoked_at is not None or token.expires_at <= self._work.now:
            return None
        users = Users(self._work)
        if users.get(token.user_id).disabled_at is not None:
            return None
        rights = users.rights(token.user_id)
        accesses, admin_of = rights.accesses, rights.admin_of
        if token.scopes is not None:
            allowed = accesses_of(token.scopes)
            accesses = {resource: held & allowed for resource, held in accesses.items()}
            admin_of = frozenset[str]()
        return Bearer(
            id=token.id,
            actor_id=token.user_id,
            organization_ids=rights.organization_ids,
            accesses=accesses,
            last_used_at=token.last_used_at,
            user_id=token.user_id,
            scopes=None if token.scopes is None else frozenset(token.scopes),
            admin_of=admin_of,
        )

    def note_use(self, token_id: str) -> None:
        """Note that the token was used now."""
        table = access.oauth_tokens
        self._work.change(table, table.c.id, token_id, {"last_used_at": self._work.now})

    def get(self, application_id: str, token_id: str) -> OAuthToken:
        """The application's living token.

        :raises NotFoundError: there is none.
        """
        table = access.oauth_tokens
        query = select(table).where(
            table.c.id == token_id, table.c.application_id == application_id, table.c.revoked_at.is_(None)
        )
        return self._work.only(query, OAuthToken)

    def page(self, application_id: str, request: PageRequest) -> Page[OAuthToken]:
        """The application's living tokens, newest first."""
        table = access.oauth_tokens
        query = (
            select(table)
            .where(table.c.application_id == application_id, table.c.revoked_at.is_(None))
            .order_by(table.c.created_at.desc(), table.c.id.desc())
        )
        return fetch_counted_page(self._work.connection, query, request, OAuthToken)

    def revoke(self, token_id: str) -> None:
        """Make it useless from now on."""
        table, now = access.oauth_tokens, self._work.now
        self._work.change(table, table.c.id, token_id, {"revoked_at": now, "updated_at": now})

    def _end(self, token: OAuthToken, why: str) -> None:
        """Make it useless because somebody has what they should not; its user's organizations are told."""
        if token.revoked_at is not None:
            return
        self.revoke(token.id)
        for organization_id in Members(self._work).organizations_of([token.user_id]).get(token.user_id, ()):
            Journal(self._work).audit(
                organization_id, None, "oauth_token.ended", ("oauth_token", token.id, token.client_id),
                audit_id=new_id(), metadata={"reason": why, "user": token.user_id},
            )  # fmt: skip

    def revoke_text(self, text: str) -> OAuthToken | None:
        """Make the token useless that this is the access or refresh token of; gives it as it was before, or
        None where it is none.
        """
        table, key = access.oauth_tokens, digest(text)
        for column in (table.c.access_sha256, table.c.refresh_sha256):
            token = self._work.first(select(table).where(column == key), OAuthToken)
            if token is not None:
                if token.revoked_at is None:
                    self.revoke(token.id)
                return token
        return None

    def refresh(self, text: str, client_id: str) -> Issued | None:
        """New secrets for the token that this is the refresh token of; the old ones are useless then.

        :param client_id: whose it must be.
        """
        table, used = access.oauth_tokens, access.oauth_used_refreshes
        key, now = digest(text), self._work.now
        brought_again = (
            select(table).join(used, used.c.token_id == table.c.id).where(used.c.refresh_sha256 == key)
        )
        again = self._work.first(brought_again, OAuthToken)
        if again is not None and again.client_id == client_id:
            self._end(again, "a refresh token that was used came again")
            return None
        token = self._work.first(select(table).where(table.c.refresh_sha256 == key), OAuthToken)
        if token is None or token.revoked_at is not None or token.client_id != client_id:
            return None
        if token.refresh_expires_at is None or token.refresh_expires_at <= now:
            return None
        self._work.connection.execute(delete(used).where(used.c.expires_at <= now))
        self._work.add(
            used, {"refresh_sha256": key, "token_id": token.id, "expires_at": token.refresh_expires_at}
        )
        access_text, refresh = ACCESS_PREFIX + new_secret(), REFRESH_PREFIX + new_secret()
        self._work.change(
            table,
            table.c.id,
            token.id,
            {
                "access_sha256": digest(access_text),
                "refresh_sha256": digest(refresh),
                "expires_at": now + ACCESS_FOR,
                "refresh_expires_at": now + REFRESH_FOR,
                "updated_at": now,
            },
        )
        return Issued(self.by_id(token.id), access_text, refresh)

    def by_id(self, token_id: str) -> OAuthToken:
        """The token, also one that has ended.

        :raises NotFoundError: there is none.
        """
        table = access.oauth_tokens
        return self._work.only(select(table).where(table.c.id == token_id), OAuthToken)

    # authorization codes

    def allow(
        self,
        application_id: str,
        user_id: str,
        redirect_uri: str,
        scopes: Sequence[str],
        challenge: str | None,
    ) -> str:
        """A code for an application that a user said yes to; told only to the application."""
        table, now = access.oauth_codes, self._work.now
        self._work.connection.execute(delete(table).where(table.c.expires_at < now - timedelta(days=1)))
        code = new_secret()
        made = Code(
            digest(code), application_id, user_id, redirect_uri, list(scopes), challenge, None,
            now + CODE_FOR, now,
        )  # fmt: skip
        self._work.add(table, {field: getattr(made, field) for field in made.__slots__})
        return code

    def exchange(
        self, text: str, application_id: str, client_id: str, redirect_uri: str, verifier: str
    ) -> Issued | None:
        """The token that a code is good for; None: it is good for nothing."""
        table = access.oauth_codes
        code = self._work.first(select(table).where(table.c.code_sha256 == digest(text)), Code)
        if code is None or code.application_id != application_id:
            return None
        if code.token_id is not None:
            self._end(self.by_id(code.token_id), "an authorization code that was used came again")
            return None
        if code.expires_at <= self._work.now or code.redirect_uri != redirect_uri:
            return None
        # A proof that nobody asked for shows that the code is not of the login that its bringer began.
        if (code.challenge is None and verifier) or not _proves(verifier, code.challenge):
            return None
        issued = self.issue(code.user_id, client_id, application_id=application_id, scopes=tuple(code.scopes))
        self._work.change(table, table.c.code_sha256, code.code_sha256, {"token_id": issued.token.id})
        return issued


def _proves(verifier: str, challenge: str | None) -> bool:
    if challenge is None:
        return True
    made = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=")
    return same(made, challenge.encode())
