"""The errand of metering: looks at each server once an hour and counts the hour.

Invariant: looking is outside of any transaction; what is stored of an hour is counted by transactions that
count nothing twice, each of a portion of the servers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from homeworld.metering.prices import Prices
from homeworld.model.errors import HomeworldError
from homeworld.model.states.lifecycle import Life
from homeworld.store.branches import Server
from homeworld.store.maintenance import ServerFacts
from homeworld.store.store import Store, Transaction
from homeworld.store.usage import UsedHour

_REST_SECONDS = 15.0
#: So many servers' hours are counted in one transaction: nobody else writes meanwhile.
_PORTION = 100
_log = logging.getLogger(__name__)


class Tenure(Protocol):
    """A lease that is held."""

    def require(self, tx: Transaction) -> None: ...  # noqa: D102 - as on workflows.leases.Lease


class Looks(Protocol):
    """An engine whose servers can be looked at."""

    @property
    def version(self) -> str:
        """Of the installed server program."""
        ...

    def running_version(self, server_id: str) -> str:
        """Of the program that the server runs.

        :raises UnavailableError: it does not answer.
        """
        ...

    def storage_bytes(self, server_id: str) -> int:
        """What its data take."""
        ...


class Meter:
    """Implements the errand."""

    resource = "metering"
    on_commit = False

    def __init__(
        self, store: Store, looks: Looks, prices: Prices, wake: Callable[[], None] = lambda: None
    ) -> None:
        self._store = store
        self._looks = looks
        self._prices = prices
        self.wake = wake

    def turn(self, lease: Tenure) -> float:
        """Count what is not counted of this hour; seconds until the next look.

        :raises FencedError: the lease is lost.
        """
        with self._store.read() as tx:
            hour = tx.work.now.replace(minute=0, second=0, microsecond=0)
            counted = tx.usage.counted(hour)
            servers = [
                server
                for server in tx.servers.own()
                if server.state is Life.READY and server.id not in counted
            ]
        for begin in range(0, len(servers), _PORTION):
            self._count(lease, servers[begin : begin + _PORTION], hour)
        if servers:
            with self._store.write() as tx:
                lease.require(tx)
                tx.usage.forget_old()
        return _REST_SECONDS

    def _count(self, lease: Tenure, servers: Sequence[Server], hour: datetime) -> None:
        """Look at some servers and count their hour."""
        used: list[UsedHour] = []
        seen: list[tuple[str, str, int]] = []
        for server in servers:
            try:
                size = self._looks.storage_bytes(server.id)
            except OSError as error:
                _log.warning("server %s is not counted for now: %s", server.id, error)
                continue
            used.append(
                UsedHour(
                    server.id, server.branch_id, hour, size, self._prices.of_server(),
                    self._prices.of_storage(size),
                )
            )  # fmt: skip
            try:
                seen.append((server.id, self._looks.running_version(server.id), size))
            except HomeworldError as error:
                _log.info("server %s does not say its version: %s", server.id, error)
        with self._store.write() as tx:
            lease.require(tx)
            tx.usage.count(used)
            for server_id, version, size in seen:
                tx.maintenance.saw(ServerFacts(server_id, version, self._looks.version, size, tx.work.now))

    def stop(self, seconds: float) -> None:
        """Nothing is under way."""
