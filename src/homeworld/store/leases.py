"""Who works on what: leases with fencing tokens.

Invariants: a resource has at most one owner whose lease has not ended; each new grant has a greater token,
also after the lease was released; a write that passes :meth:`Leases.require` commits only while its token is
still the newest, because both are in one transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import select, update

from homeworld.model.errors import FencedError
from homeworld.store.tables import journal
from homeworld.store.work import Work

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
"""When a lease that was released ended: before now by anybody's clock."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as it stands."""

    resource: str
    owner: str
    token: int
    expires_at: datetime


class Leases:
    """The leases within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def get(self, resource: str) -> Lease | None:
        """The newest lease on a resource, ended or not."""
        table = journal.leases
        return self._work.first(select(table).where(table.c.resource == resource), Lease)

    def acquire(self, resource: str, owner: str, ttl_seconds: float, over: Lease | None = None) -> int | None:
        """Take a free or ended lease; its token, or None while somebody else holds it.

        An owner that still holds it gets a new token too: what it did under the old one is fenced.

        :param over: the lease as the caller saw it longer ago than it lives without being renewed, by the
            caller's own clock. If it stands like that still, it has ended whatever wall clocks say: one that
            was ahead when it was written, or was set back since, must not keep others out.
        """
        table = journal.leases
        known = self.get(resource)
        expires_at = self._work.now + timedelta(seconds=ttl_seconds)
        if known is None:
            self._work.add(
                table, {"resource": resource, "owner": owner, "token": 1, "expires_at": expires_at}
            )
            return 1
        if known.owner != owner and known.expires_at > self._work.now and known != over:
            return None
        token = known.token + 1
        self._work.change(
            table,
            table.c.resource,
            resource,
            {"owner": owner, "token": token, "expires_at": expires_at},
        )
        return token

    def renew(self, resource: str, token: int, ttl_seconds: float) -> bool:
        """Prolong a lease; False if a newer one was granted. An ended one that nobody took is prolonged."""
        return self._set_end(resource, token, self._work.now + timedelta(seconds=ttl_seconds))

    def release(self, resource: str, token: int) -> bool:
        """End a lease; False if a newer one was granted."""
        return self._set_end(resource, token, LONG_AGO)

    def _set_end(self, resource: str, token: int, expires_at: datetime) -> bool:
        table = journal.leases
        changed = self._work.connection.execute(
            update(table)
            .where(table.c.resource == resource, table.c.token == token)
            .values(expires_at=expires_at)
        ).rowcount
        return changed == 1

    def require(self, resource: str, token: int) -> None:
        """Go on only as the newest owner.

        :raises FencedError: a newer lease was granted.
        """
        known = self.get(resource)
        if known is None or known.token != token:
            raise FencedError(resource=resource, token=token)
