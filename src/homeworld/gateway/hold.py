"""Holds: new statements on tables wait while traffic moves, those under way come to their end.

Pure: knows sessions only by what they say they touch, and no clock; whoever owns the registry tells it when
a deadline has passed. Theory of operation::

    DRAINING  statements of sessions that have no open transaction on servers wait;
              transactions that have one go on, also on the held tables.
       | nothing on the tables is under way any more
    HELD      every statement on the tables waits, whatever transaction it is in.
       | released, given up, or its own deadline has passed
    (gone)    waiting statements are planned anew and go on.

The invariant: from the moment :attr:`Hold.state` is HELD until it is gone, no statement on the tables is
under way and no open transaction has touched them. A transaction that waits in HELD has not touched the
tables, so that it may meet them at their new place, where it is not older than that
(``Branch.came_since``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeVar

from homeworld.gateway.plan import Destination, Footprint, Verb
from homeworld.model.routing import EVERY_TABLE, HoldRequest
from homeworld.model.topology import TabletType

OPAQUE = frozenset({Verb.CALL, Verb.OTHER, Verb.DDL, Verb.LOCK})
"""Verbs whose statements may touch tables that their text does not name."""


class HoldState(StrEnum):
    """Where a hold stands."""

    DRAINING = "draining"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class Touch:
    """A statement under way, or part of an open transaction: what it touches and where.

    ``keyspaces`` are those it was sent to, for statements that do not name their tables. What goes to a
    vtgate is sent to wherever its tables are, whatever the session is aimed at; but for a shard: what is
    aimed at one runs there, whatever rules say, and ``aimed`` are the keyspaces of those.
    """

    footprint: Footprint
    tablet_types: frozenset[TabletType]
    keyspaces: frozenset[str]
    aimed: frozenset[str] = frozenset()

    @classmethod
    def at(cls, footprint: Footprint, destinations: Iterable[Destination]) -> Touch:
        """A statement sent there."""
        types: set[TabletType] = set()
        keyspaces: set[str] = set()
        aimed: set[str] = set()
        for destination in destinations:
            types.add(destination.tablet_type)
            keyspaces.add(destination.keyspace)
            if destination.vtgate:
                keyspaces.update(keyspace for keyspace, _ in footprint.tables)
                if destination.shard:
                    aimed.add(destination.keyspace)
        return cls(footprint, frozenset(types), frozenset(keyspaces), frozenset(aimed))


class Toucher(Protocol):
    """A session, as far as holds care."""

    def touches(self) -> Iterable[Touch]:
        """Everything that is under way: the statement being served and those of the open transaction."""
        ...


T = TypeVar("T", bound=Toucher)


@dataclass(slots=True)
class Hold:
    """One hold in force. ``waiters`` are called when it is gone, ``drained`` when it becomes HELD."""

    request: HoldRequest
    state: HoldState = HoldState.DRAINING
    waiters: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])
    drained: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])
    _keyspaces: frozenset[str] = frozenset()
    _whole: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self._keyspaces = frozenset(keyspace for keyspace, _ in self.request.tables)
        self._whole = frozenset(keyspace for keyspace, name in self.request.tables if name == EVERY_TABLE)

    def matches(self, touch: Touch) -> bool:
        """Whether a statement touches what this holds."""
        if not touch.tablet_types & self.request.tablet_types:
            return False
        if touch.keyspaces & self._whole:
            return True
        if touch.footprint.tables:
            return bool(touch.footprint.tables & self.request.tables)
        return touch.footprint.verb in OPAQUE and bool(touch.keyspaces & self._keyspaces)


class Holds:
    """The holds of one branch in one gateway."""

    def __init__(self) -> None:
        self._holds: dict[str, Hold] = {}

    def __bool__(self) -> bool:
        return bool(self._holds)

    @property
    def draining(self) -> bool:
        """Whether some hold waits for what is under way."""
        return any(hold.state is HoldState.DRAINING for hold in self._holds.values())

    def get(self, hold_id: str) -> Hold | None:
        """The hold, if it is in force."""
        return self._holds.get(hold_id)

    def begin(self, request: HoldRequest) -> Hold:
        """Put a hold in force, or give the one that is in force under the same id."""
        return self._holds.setdefault(request.hold_id, Hold(request))

    def blocks(self, touch: Touch, *, under_way: bool) -> Hold | None:
        """The hold for which a statement has to wait, if any.

        :param under_way: the session has an open transaction with statements on servers.
        """
        for hold in self._holds.values():
            if (hold.state is HoldState.HELD or not under_way) and hold.matches(touch):
                return hold
        return None

    def keeping(self, hold: Hold, sessions: Iterable[T]) -> list[T]:
        """Those that have to come to their end before it is HELD."""
        return [one for one in sessions if any(map(hold.matches, one.touches()))]

    def settle(self, sessions: Iterable[Toucher]) -> list[Hold]:
        """Look at what is under way: DRAINING holds for which nothing is left become HELD and are given
        back, their ``drained`` callbacks not yet called.
        """
        waiting = [hold for hold in self._holds.values() if hold.state is HoldState.DRAINING]
        for session in sessions:
            if not waiting:
                return []
            for touch in session.touches():
                waiting = [hold for hold in waiting if not hold.matches(touch)]
        for hold in waiting:
            hold.state = HoldState.HELD
        return waiting

    def end(self, hold_id: str) -> Hold | None:
        """Take a hold out of force; its ``waiters`` have not been called yet."""
        return self._holds.pop(hold_id, None)
