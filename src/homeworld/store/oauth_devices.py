"""Devices that wait for their user: the device flow's codes.

States: pending → approved → used, or pending → denied; each ends at its time. Invariant: a device code
gives one token, to whoever has it, and only once the user has said yes to the user code that was made with
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import delete, select, update

from homeworld.model.errors import ConflictError
from homeworld.model.names import new_secret
from homeworld.store.oauth_tokens import Issued, OAuthTokens
from homeworld.store.tables import access
from homeworld.store.users_secrets import digest, new_user_code, user_code_as_made
from homeworld.store.work import Work

GOOD_FOR = timedelta(minutes=15)
INTERVAL_SECONDS = 2


class Wait(StrEnum):
    """Why a device has no token, as RFC 8628 names it."""

    PENDING = "authorization_pending"
    SLOW_DOWN = "slow_down"
    DENIED = "access_denied"
    EXPIRED = "expired_token"
    UNKNOWN = "invalid_grant"


@dataclass(frozen=True, slots=True)
class Device:
    """A device that asked for a token. ``scopes`` None: all that the user may."""

    device_sha256: bytes
    user_code: str
    client_id: str
    application_id: str | None
    scopes: Sequence[str] | None
    state: str
    user_id: str | None
    polled_at: datetime | None
    expires_at: datetime
    created_at: datetime


class Devices:
    """Devices within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def ask(
        self, client_id: str, *, application_id: str | None, scopes: Sequence[str] | None
    ) -> tuple[Device, str]:
        """A device that waits, and its device code, told only to it."""
        table, now = access.device_codes, self._work.now
        self._work.connection.execute(delete(table).where(table.c.expires_at < now - timedelta(hours=1)))
        code = new_secret()
        user_code = new_user_code()
        while self._by_user_code(user_code) is not None:
            user_code = new_user_code()
        made = Device(
            device_sha256=digest(code),
            user_code=user_code,
            client_id=client_id,
            application_id=application_id,
            scopes=None if scopes is None else list(scopes),
            state="pending",
            user_id=None,
            polled_at=None,
            expires_at=now + GOOD_FOR,
            created_at=now,
        )
        self._work.add(table, {field: getattr(made, field) for field in made.__slots__})
        return made, code

    def waiting(self, typed: str) -> Device | None:
        """The device that shows this user code, if it still waits."""
        device = self._by_user_code(user_code_as_made(typed))
        if device is None or device.state != "pending" or device.expires_at <= self._work.now:
            return None
        return device

    def _by_user_code(self, user_code: str) -> Device | None:
        table = access.device_codes
        return self._work.first(select(table).where(table.c.user_code == user_code), Device)

    def answer(self, device: Device, user_id: str, *, allow: bool) -> None:
        """The user's word.

        :raises ConflictError: somebody said it already.
        """
        table = access.device_codes
        values: dict[str, object] = {"state": "denied"}
        if allow:
            values = {"state": "approved", "user_id": user_id}
        changed = self._work.connection.execute(
            update(table)
            .where(table.c.device_sha256 == device.device_sha256, table.c.state == "pending")
            .values(values)
        ).rowcount
        if changed != 1:
            raise ConflictError("this code was answered already")

    def take(self, code: str, client_id: str) -> Issued | Wait:
        """The token for a device whose user said yes; else why there is none (yet)."""
        table, now = access.device_codes, self._work.now
        device = self._work.first(select(table).where(table.c.device_sha256 == digest(code)), Device)
        if device is None or device.client_id != client_id or device.state == "used":
            return Wait.UNKNOWN
        if device.expires_at <= now:
            return Wait.EXPIRED
        if device.state == "denied":
            return Wait.DENIED
        if device.state == "approved" and device.user_id is not None:
            self._work.change(table, table.c.device_sha256, device.device_sha256, {"state": "used"})
            return OAuthTokens(self._work).issue(
                device.user_id, client_id, application_id=device.application_id, scopes=device.scopes
            )
        quick = device.polled_at is not None and now - device.polled_at < timedelta(
            seconds=INTERVAL_SECONDS / 2
        )
        self._work.change(table, table.c.device_sha256, device.device_sha256, {"polled_at": now})
        return Wait.SLOW_DOWN if quick else Wait.PENDING
