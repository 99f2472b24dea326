"""Browsers that somebody logged in with, browsers at the identity provider, and guesses at secrets and other
counts that several processes share.

Invariant: what has ended is none any more the moment it ends, and its row is swept away later, a few with
each new one; the guesses at one thing within a window are counted before it is looked whether they are
right, so that many at once are not more than many in turn.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Table, delete, select

from homeworld.model.errors import TooManyError
from homeworld.model.names import new_secret
from homeworld.store.tables import access
from homeworld.store.users_secrets import digest
from homeworld.store.work import Work

SESSION_FOR = timedelta(hours=12)
SSO_FOR = timedelta(minutes=10)
GUESSES_FOR = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class SsoAttempt:
    """A browser that was sent to the identity provider."""

    state_sha256: bytes
    nonce: str
    verifier: str
    next: str
    expires_at: datetime
    created_at: datetime


class Sessions:
    """Sessions within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def begin(self, user_id: str) -> str:
        """A new session; its secret, told only to the browser."""
        self._sweep(access.sessions)
        secret = new_secret()
        now = self._work.now
        self._work.add(
            access.sessions,
            {
                "secret_sha256": digest(secret),
                "user_id": user_id,
                "expires_at": now + SESSION_FOR,
                "created_at": now,
            },
        )
        return secret

    def user_of(self, secret: str) -> str | None:
        """The id of the user who is logged in by it, if it lives."""
        table, user = access.sessions, access.users
        query = (
            select(table.c.user_id)
            .join(user, user.c.id == table.c.user_id)
            .where(
                table.c.secret_sha256 == digest(secret),
                table.c.expires_at > self._work.now,
                user.c.disabled_at.is_(None),
            )
        )
        return self._work.connection.execute(query).scalar_one_or_none()

    def end(self, secret: str) -> None:
        """End a session; one that is none is fine."""
        table = access.sessions
        self._work.connection.execute(delete(table).where(table.c.secret_sha256 == digest(secret)))

    def sent_away(self, state: str, nonce: str, verifier: str, next_path: str) -> None:
        """Remember a browser that goes to the identity provider."""
        self._sweep(access.sso_attempts)
        now = self._work.now
        attempt = SsoAttempt(digest(state), nonce, verifier, next_path, now + SSO_FOR, now)
        self._work.add(access.sso_attempts, {field: getattr(attempt, field) for field in attempt.__slots__})

    def came_back(self, state: str) -> SsoAttempt | None:
        """The browser that was sent away with this state; each comes back once."""
        table = access.sso_attempts
        query = select(table).where(table.c.state_sha256 == digest(state))
        attempt = self._work.first(query, SsoAttempt)
        if attempt is None:
            return None
        self._work.connection.execute(delete(table).where(table.c.state_sha256 == attempt.state_sha256))
        return attempt if attempt.expires_at > self._work.now else None

    def guess(self, what: str, most: int) -> None:
        """Count one more guess at ``what``.

        :param most: how many are allowed within GUESSES_FOR from the first.
        :raises TooManyError: there were as many already.
        """
        table, now = access.guesses, self._work.now
        key = hashlib.sha256(what.encode()).digest()
        query = select(table.c["count"], table.c.expires_at).where(table.c.key_sha256 == key)
        row = self._work.connection.execute(query).first()
        if row is None:
            self._sweep(table)
            self._work.add(table, {"key_sha256": key, "count": 1, "expires_at": now + GUESSES_FOR})
            return
        counted, ends = int(row[0]), row[1]
        if ends <= now:
            values = {"count": 1, "expires_at": now + GUESSES_FOR}
            self._work.change(table, table.c.key_sha256, key, values)
        elif counted >= most:
            raise TooManyError("too many attempts; wait and try again", (ends - now).total_seconds())
        else:
            self._work.change(table, table.c.key_sha256, key, {"count": counted + 1})

    def told(self, what: str, more: int, lasts: timedelta) -> tuple[int, timedelta]:
        """Count what several processes tell of one thing.

        :param lasts: for how long it counts, where it is the first of a window.
        :returns: how much was told in the window in all, and how long it lasts from now on.
        """
        table, now = access.guesses, self._work.now
        key = hashlib.sha256(what.encode()).digest()
        query = select(table.c["count"], table.c.expires_at).where(table.c.key_sha256 == key)
        row = self._work.connection.execute(query).first()
        if row is None:
            self._sweep(table)
            self._work.add(table, {"key_sha256": key, "count": more, "expires_at": now + lasts})
            return more, lasts
        counted, ends = int(row[0]), row[1]
        if ends <= now:
            counted, ends = 0, now + lasts
        values = {"count": counted + more, "expires_at": ends}
        self._work.change(table, table.c.key_sha256, key, values)
        return counted + more, ends - now

    def not_a_guess(self, what: str) -> None:
        """What was counted last was none: it does not count."""
        table = access.guesses
        key = hashlib.sha256(what.encode()).digest()
        self._work.connection.execute(
            table.update()
            .where(table.c.key_sha256 == key, table.c["count"] > 0)
            .values({"count": table.c["count"] - 1})
        )

    def guessed(self, what: str) -> None:
        """It was right: what was counted is forgotten."""
        table = access.guesses
        key = hashlib.sha256(what.encode()).digest()
        self._work.connection.execute(delete(table).where(table.c.key_sha256 == key))

    def _sweep(self, table: Table) -> None:
        # An hour later, so that no clock that is a little behind misses what it still counts with.
        past = self._work.now - timedelta(hours=1)
        self._work.connection.execute(delete(table).where(table.c.expires_at < past))
