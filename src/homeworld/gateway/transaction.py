"""What a session knows of its transaction: whether one is open, its savepoints, what it has touched.

Facts only; the dialogues that perform BEGIN, COMMIT and the rest are in ``control``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from homeworld.gateway.hold import Touch
from homeworld.gateway.plan import Destination, Footprint, Verb
from homeworld.gateway.sql_statement import NAMES, significant

_BACK = ([b"TO"], [b"TO", b"SAVEPOINT"])
_MANY = 256


@dataclass(frozen=True, slots=True)
class SavepointAct:
    """A savepoint statement: ``kind`` is ``set``, ``back`` or ``release``; ``name`` is in lower case."""

    kind: str
    name: str


def savepoint_act(sql: bytes) -> SavepointAct | None:
    """Read SAVEPOINT, ROLLBACK TO and RELEASE SAVEPOINT, whatever comments are in them; None for anything
    else.

    :raises SqlSyntaxError: the text cannot be read.
    """
    words, _ = significant(sql)
    heads = [word.upper for word in words[:-1]]
    if not heads or words[-1].kind not in NAMES:
        return None
    if heads == [b"SAVEPOINT"]:
        kind = "set"
    elif heads == [b"RELEASE", b"SAVEPOINT"]:
        kind = "release"
    elif heads[0] == b"ROLLBACK" and [word for word in heads[1:] if word != b"WORK"] in _BACK:
        kind = "back"
    else:
        return None
    return SavepointAct(kind, words[-1].name().lower())


class Transaction:
    """The transaction of one session.

    * ``begin``: the client's BEGIN text while an explicit transaction is open, else None.
    * ``next_settings``: SET TRANSACTION statements for the next transaction only.
    * ``lost``: why the open transaction cannot go on; only ROLLBACK ends it.
    * ``opened``: when it reached a server first (``time.monotonic``), as far as answers tell; 0 before. Only
      for people to read.
    """

    __slots__ = ("_locks", "_touched", "begin", "lost", "next_settings", "opened", "savepoints")

    def __init__(self) -> None:
        self.begin: bytes | None = None
        self.lost = ""
        self.opened = 0.0
        self.next_settings: list[bytes] = []
        self.savepoints: list[tuple[str, bytes]] = []
        self._touched: dict[tuple[int, int], tuple[Footprint, Destination, int]] = {}
        self._locks: list[tuple[Footprint, Destination]] = []

    def reached(self) -> None:
        """A server has begun it."""
        self.opened = self.opened or time.monotonic()

    def touch(self, footprint: Footprint, destination: Destination, turn: int) -> None:
        """The transaction has a statement there.

        :param turn: the branch's.
        """
        if len(self._touched) >= _MANY:
            self._compact()
        self._touched.setdefault((id(footprint), id(destination)), (footprint, destination, turn))

    def lock(self, footprint: Footprint, destination: Destination, *, locked: bool) -> None:
        """LOCK TABLES (or UNLOCK TABLES) has succeeded there."""
        if not locked:
            self._locks.clear()
        else:
            self._locks = [kept for kept in self._locks if kept[1] != destination]
            self._locks.append((footprint, destination))

    def _compact(self) -> None:
        """Literals make many footprints of few tables; keep one for each destination, of its first turn."""
        merged: dict[Destination, tuple[frozenset[tuple[str, str]], int]] = {}
        unnamed: dict[tuple[Destination, Verb], tuple[Footprint, Destination, int]] = {}
        for footprint, destination, turn in self._touched.values():
            if footprint.tables:
                tables, first = merged.get(destination, (frozenset[tuple[str, str]](), turn))
                merged[destination] = tables | footprint.tables, min(first, turn)
            if not footprint.tables or footprint.anywhere:
                # Where it ran counts, and an opaque one stands for every table.
                bare = replace(footprint, tables=frozenset[tuple[str, str]]())
                unnamed.setdefault((destination, footprint.verb), (bare, destination, turn))
        self._touched = {(id(one), id(at)): (one, at, turn) for one, at, turn in unnamed.values()}
        for destination, (tables, first) in merged.items():
            footprint = Footprint(Verb.OTHER, tables)
            self._touched[id(footprint), id(destination)] = (footprint, destination, first)

    def touches(self) -> Iterator[Touch]:
        """What it has touched, and what is locked."""
        for touch, _ in self.touched():
            yield touch
        for footprint, destination in self._locks:
            yield Touch.at(footprint, (destination,))

    def touched(self) -> Iterator[tuple[Touch, int]]:
        """What it has touched, and in which turn first."""
        for footprint, destination, turn in self._touched.values():
            yield Touch.at(footprint, (destination,)), turn

    def set_savepoint(self, name: str, sql: bytes) -> None:
        """A savepoint was set; one of the same name is replaced."""
        self.savepoints = [kept for kept in self.savepoints if kept[0] != name]
        self.savepoints.append((name, sql))

    def has_savepoint(self, name: str) -> bool:
        """Whether the savepoint exists."""
        return any(known == name for known, _ in self.savepoints)

    def back_to(self, name: str) -> None:
        """Rolled back to a savepoint: those after it are gone."""
        at = next(at for at, (known, _) in enumerate(self.savepoints) if known == name)
        del self.savepoints[at + 1 :]

    def release(self, name: str) -> None:
        """A savepoint was released: it and those after it are gone."""
        at = next(at for at, (known, _) in enumerate(self.savepoints) if known == name)
        del self.savepoints[at:]

    def chain(self) -> None:
        """It was committed or rolled back, and one like it begins."""
        self.opened = 0.0
        self.reached()
        self.savepoints.clear()
        self._touched.clear()

    def over(self) -> None:
        """It was committed or rolled back."""
        self.begin = None
        self.lost = ""
        self.opened = 0.0
        self.next_settings.clear()
        self.savepoints.clear()
        self._touched.clear()
