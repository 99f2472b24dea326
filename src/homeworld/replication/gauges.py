"""What a mover measures of others' servers: how far replicas are behind, how busy the sources are.

One thread a server, each with connections of its own and little time for every answer, so that a server that
hangs delays nobody else's figure. It judges nothing (see :mod:`homeworld.replication.throttle`) and changes
nothing on any server.

Invariant: a figure is what a server said within STALE_SECONDS, or it is told as not known.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from homeworld.model.errors import HomeworldError
from homeworld.model.gtid import Position
from homeworld.model.movers import MoverSpec, ReplicaPlace
from homeworld.model.topology import Endpoint, Flavor, ShardPlace
from homeworld.replication.connection import Connection
from homeworld.replication.positions import current_position
from homeworld.replication.throttle import Gauge, Reading

EVERY_SECONDS = 1.0
ANSWER_SECONDS = 2.0
STALE_SECONDS = 5.0
SAMPLES = 512
"""So many of the primary's positions are kept; when there are more, every second one goes."""

_APPLIED = {
    Flavor.MYSQL: "SELECT @@GLOBAL.gtid_executed",
    Flavor.MARIADB: "SELECT @@GLOBAL.gtid_slave_pos",
}
_STATUS = {Flavor.MYSQL: "SHOW REPLICA STATUS", Flavor.MARIADB: "SHOW SLAVE STATUS"}
# Seconds_Behind_Source, or _Master: it has stood there in every release (tests/servers/test_throttle.py).
_BEHIND = 32
_HISTORY = {
    Flavor.MYSQL: "SELECT COUNT FROM information_schema.INNODB_METRICS WHERE NAME = 'trx_rseg_history_len'",
    Flavor.MARIADB: (
        "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS "
        "WHERE VARIABLE_NAME = 'INNODB_HISTORY_LIST_LENGTH'"
    ),
}


class Trail:
    """When a primary had what, and so how far behind a replica is. Pure: time is given.

    A replica that lacks what the primary had at *t* is at least *now - t* behind. Of a time before the first
    look nothing is known.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, Position]] = deque()
        self._complete = False  # the replica had a position of the trail

    def saw(self, now: float, position: Position) -> None:
        """The primary had ``position`` at ``now``."""
        if self._seen and self._seen[-1][1] == position:
            return  # lacking it is lacking what was there from the first time on
        self._seen.append((now, position))
        if len(self._seen) > SAMPLES:
            kept = [seen for at, seen in enumerate(self._seen) if at % 2 == 0]
            self._seen = deque(kept)

    def behind(self, now: float, applied: Position) -> tuple[float, bool]:
        """Seconds that a replica with ``applied`` is behind at the least, and whether that is all."""
        while self._seen and applied.contains(self._seen[0][1]):
            self._seen.popleft()
            self._complete = True
        return (now - self._seen[0][0], self._complete) if self._seen else (0.0, True)


class _Measures(Protocol):
    def measure(self) -> Sequence[Reading]: ...
    def hang_up(self) -> None: ...


class _Asks:
    """Connections that are opened when they are needed."""

    def __init__(self) -> None:
        self._open: dict[Endpoint, Connection] = {}

    def _ask(self, endpoint: Endpoint) -> Connection:
        known = self._open.get(endpoint)
        if known is None or known.closed:
            known = self._open[endpoint] = Connection(
                endpoint, fidelity=False, connect_seconds=ANSWER_SECONDS, timeout_seconds=ANSWER_SECONDS
            )
        return known

    def hang_up(self) -> None:
        """Close all."""
        for connection in self._open.values():
            connection.close()
        self._open.clear()


class _Replica(_Asks):
    """The lag of one replica."""

    def __init__(self, gauge: Gauge, where: str, primary: Endpoint, replica: Endpoint) -> None:
        super().__init__()
        self._gauge, self._where = gauge, where
        self._primary, self._replica = primary, replica
        self._flavor = primary.flavor
        self._trail = Trail()

    def measure(self) -> Sequence[Reading]:
        """:raises HomeworldError: one of the two does not answer, or refuses."""
        now = time.monotonic()
        there = current_position(self._ask(self._primary), self._flavor)
        self._trail.saw(now, Position.parse(self._flavor, there))
        (text,) = self._ask(self._replica).query_one(_APPLIED[self._flavor])
        applied = Position.parse(self._flavor, (text or b"").decode())
        behind, known = self._trail.behind(time.monotonic(), applied)
        if not known:
            behind = max(behind, self._own_word())
        return (Reading(self._gauge, self._where, behind),)

    def _own_word(self) -> float:
        """What the replica says of itself; 0 where it cannot tell."""
        found = self._ask(self._replica).query_all(_STATUS[self._flavor])
        told = found[0][_BEHIND] if found else None
        return float(told) if told and told.isdigit() else 0.0


class _Source(_Asks):
    """How busy one source server is."""

    def __init__(self, where: str, endpoint: Endpoint) -> None:
        super().__init__()
        self._where, self._endpoint = where, endpoint

    def measure(self) -> Sequence[Reading]:
        """:raises HomeworldError: it does not answer, or refuses."""
        connection = self._ask(self._endpoint)
        _, running = connection.query_one("SHOW GLOBAL STATUS LIKE 'Threads_running'")
        (history,) = connection.query_one(_HISTORY[self._endpoint.flavor])
        return (
            Reading(Gauge.THREADS, self._where, float(running or 0)),
            Reading(Gauge.HISTORY, self._where, float(history or 0)),
        )


class Gauges:
    """All figures of a mover. ``start``, then :meth:`readings` from any thread, until ``stopping``."""

    def __init__(self, spec: MoverSpec, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._lock = threading.Lock()
        self._newest: dict[int, tuple[float, Sequence[Reading]]] = {}
        self._measuring: list[tuple[_Measures, Sequence[Reading]]] = []
        for place in _servers(spec.sources):
            where = f"{place.keyspace}/{place.shard}"
            unknown = tuple(Reading(gauge, where, None) for gauge in (Gauge.THREADS, Gauge.HISTORY))
            self._measuring.append((_Source(where, place.endpoint), unknown))
        for gauge, places, replicas in (
            (Gauge.TARGET_REPLICA, spec.targets, spec.target_replicas),
            (Gauge.SOURCE_REPLICA, spec.sources, spec.source_replicas),
        ):
            self._measuring += [
                (_Replica(gauge, where, primary, replica), (Reading(gauge, where, None),))
                for where, primary, replica in _pairs(places, replicas)
            ]

    def start(self) -> None:
        """Start to measure; daemon threads that end with ``stopping``."""
        for number, (what, _) in enumerate(self._measuring):
            threading.Thread(
                target=self._run, args=(number, what), name=f"gauge {number}", daemon=True
            ).start()

    def _run(self, number: int, what: _Measures) -> None:
        try:
            while not self._stopping.is_set():
                self._look(number, what)
                self._stopping.wait(EVERY_SECONDS)
        finally:
            what.hang_up()

    def _look(self, number: int, what: _Measures) -> None:
        try:
            found = what.measure()
        except HomeworldError as error:
            what.hang_up()
            found = _unknown(self._measuring[number][1], str(error))
        with self._lock:
            self._newest[number] = (time.monotonic(), found)

    def readings(self) -> tuple[Reading, ...]:
        """The newest figures."""
        now = time.monotonic()
        with self._lock:
            newest = dict(self._newest)
        made: list[Reading] = []
        for number, (_, unknown) in enumerate(self._measuring):
            at, found = newest.get(number, (now, unknown))
            made += found if now - at < STALE_SECONDS else _unknown(unknown, "the server does not answer")
        return tuple(made)


def _unknown(readings: Sequence[Reading], why: str) -> tuple[Reading, ...]:
    return tuple(Reading(each.gauge, each.where, None, why) for each in readings)


def _servers(places: Sequence[ShardPlace]) -> tuple[ShardPlace, ...]:
    """The first shard of each server: what is measured is the server's."""
    return tuple({place.endpoint.server_id: place for place in reversed(places)}.values())[::-1]


def _pairs(
    places: Sequence[ShardPlace], replicas: Sequence[ReplicaPlace]
) -> list[tuple[str, Endpoint, Endpoint]]:
    """Each replica of the shards once, with its primary, and how people are told of it."""
    primaries = {place.endpoint.server_id: place for place in reversed(places)}
    return [
        (f"{place.keyspace}/{place.shard}", place.endpoint, replica.endpoint)
        for replica in replicas
        if (place := primaries.get(replica.primary_id)) is not None
    ]
