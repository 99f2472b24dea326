"""What becomes of a row that is new on its source shard while the target has one of its keys already.

The row there may be its own: a chunk's snapshot was ahead of the log, or the log is given again. Or it is
another source shard's. Theory of operation: the servers are asked once, for all such keys of a table. What is
not plainly the shard's own is decided for one transaction at a time: a batch of several is read again.

* Another source shard has the key now and this one still has its row: the two would become one. An error
  tells both.
* Another has it now and this one no longer: the key has gone from shard to shard, and this log is behind.
  What it says of the key up to now is passed over.
* None has. On another server one may have had it until just now: its log says so (``pending``), and its
  follower is waited for until it has passed that, or the row is gone. On this server such a shard would have
  had it together with ours: should this very log say so before the moment of asking, that is the same error.
  Then the row takes its place.
* The row is gone again within the batch: what the target has is left to the other shard that has it now, or
  taken out where none has.

Invariant: a row of another source shard is displaced only after that shard has given it up, and what is taken
out is taken out before anything of the batch is carried out, once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from homeworld.model.errors import DeadlineExceededError, RowRefusedError, UnavailableError
from homeworld.model.gtid import Position
from homeworld.model.topology import Endpoint, Flavor
from homeworld.replication.changes import Row, TableName
from homeworld.replication.chunks import Outcome
from homeworld.replication.connection import Connection
from homeworld.replication.contest import Hit, hits, holders, rows_of, still_had, there, told
from homeworld.replication.keyorder import Key
from homeworld.replication.moving import MovingTable
from homeworld.replication.pending import last_taken
from homeworld.replication.positions import current_position
from homeworld.replication.verdicts import Verdicts

PATIENCE_SECONDS = 300.0
_LOOK_SECONDS = 0.05


class Other(Protocol):
    """Another server's follower."""

    @property
    def position(self) -> str:
        """Everything up to here is on the targets, or dropped."""
        ...

    @property
    def rests(self) -> bool:
        """Whether it is held, and goes no further before it is released."""
        ...

    def passed(self, position: str, timeout_seconds: float) -> bool:
        """Whether it has passed a position, within so many seconds."""
        ...


@dataclass(slots=True)
class _Look:
    """What was found in the way of a table's rows on a target a moment ago.

    :param held: what other source shards have now, and which.
    :param free: what none of them has.
    :param left: keys that came and went with the batch of which the target has a row: those that others have.
    :param spent: the same, which none has.
    :param found: the rows of ``free``.
    :param strange: whether some of them are not as they are on their own shard, in the batch or now.
    """

    held: list[tuple[Hit, list[str]]]
    free: list[Hit]
    left: set[Key]
    spent: set[Key]
    found: dict[Key, Row]
    strange: bool


class Rivals:
    """The other source shards of one follower's tables. Used by the follower's thread.

    :param server_id: of the follower.
    :param tables: of all source shards.
    :param others: by source server id, the other followers.
    :param stopping: set by whoever ends the mover.

    * ``verdicts``: what is decided.
    """

    def __init__(
        self,
        server_id: str,
        tables: Sequence[MovingTable],
        others: Mapping[str, Other],
        stopping: threading.Event,
    ) -> None:
        self.verdicts = Verdicts({t.name: t for t in tables if t.source.endpoint.server_id == server_id})
        self._server_id = server_id
        self._tables = {t.name: t for t in tables if t.source.endpoint.server_id == server_id}
        self._all = tuple(tables)
        self._others = dict(others)
        self._stopping = stopping
        self._waiting = ""  # for the follower of this server

    @property
    def blocked(self) -> bool:
        """Whether another follower is waited for that is held. From any thread."""
        waiting = self._waiting
        return bool(waiting) and self._others[waiting].rests

    def decide(
        self, at: int, name: TableName, outcomes: Mapping[TableName, Outcome], fresh: set[Key], *, whole: bool
    ) -> bool:
        """Find out what is in the way of a table's rows on a target, and change outcome and ``fresh`` so that
        the batch can be carried out. Nothing of it may be open on the target, and the gate is not held.

        :param outcomes: the target's.
        :param whole: the batch is not a part of a transaction.
        :returns: False: nothing is decided; the batch must be read again, one transaction at a time.
        :raises RowRefusedError: another source shard has a row of a key.
        :raises DeadlineExceededError: another follower did not come by in time, or the mover is stopped.
        :raises UnavailableError: a key goes from this shard to another just now; to be tried again.
        """
        table = self._tables[name]
        others = [t for t in self._all if t.table.name == table.table.name and t.source != table.source]
        outcome = outcomes[name]
        look = self._look(at, table, others, outcomes, fresh)
        if (look.strange or look.held) and self.verdicts.alone_until is None:
            return False
        foreign = [other for other in others if other.source.endpoint.server_id != self._server_id]
        deadline = time.monotonic() + PATIENCE_SECONDS
        while look.found and (pending := self._pending(foreign, look.found, deadline)):
            if self.verdicts.alone_until is None:
                return False
            seen = look.found
            self._wait_for(
                pending, deadline, lambda seen=seen: rows_of(table.targets[at], table, list(seen)) != seen
            )
            look = self._look(at, table, others, outcomes, fresh)
        if (look.strange or look.held) and self.verdicts.alone_until is None:
            return False
        self._give_way(at, table, look.held, outcome, fresh, whole=whole)
        self._watch(at, table, others, list(look.found))
        decision = self.verdicts.of(at, name)
        decision.let_be |= look.left
        decision.known |= look.spent
        for hit in look.free:
            (decision.known if hit.holder in fresh else decision.out).add(hit.holder)
        if whole:
            decision.apply(outcome, fresh)
        return True

    def _look(
        self,
        at: int,
        table: MovingTable,
        others: Sequence[MovingTable],
        outcomes: Mapping[TableName, Outcome],
        fresh: set[Key],
    ) -> _Look:
        outcome, target = outcomes[table.name], table.targets[at]
        alone = table.writers[at].alone
        rows = [row for key, row in outcome.items() if row is not None and (key in fresh or not alone)]
        with Connection(target.endpoint) as connection:
            in_the_way = [
                hit
                for hit in hits(connection, target.schema, table.table, rows)
                # A row of the batch's own that was there before goes out of the way by itself.
                if hit.holder in fresh or hit.holder not in outcome
            ]
        gone = [key for key, row in outcome.items() if row is None and key in fresh]
        left = there(target, table.table.name, table.key, gone) if gone else []
        asked = holders(others, list(dict.fromkeys([*(hit.holder for hit in in_the_way), *left])))
        free = [hit for hit in in_the_way if hit.holder not in asked]
        found = rows_of(target, table, list(dict.fromkeys(hit.holder for hit in free)))
        return _Look(
            held=[(hit, asked[hit.holder]) for hit in in_the_way if hit.holder in asked],
            free=free,
            left={key for key in left if key in asked},
            spent={key for key in left if key not in asked},
            found=found,
            strange=self._strange(table, outcomes, found),
        )

    def _strange(
        self, table: MovingTable, outcomes: Mapping[TableName, Outcome], found: Mapping[Key, Row]
    ) -> bool:
        """Whether rows on the target are not those that their own shard has, in the batch or now.

        Not those which another shard of this server gives up in the batch itself.
        """
        outcome = outcomes[table.name]
        others = [rows for name, rows in outcomes.items() if name != table.name and name[1] == table.name[1]]
        stored = [at for at, column in enumerate(table.table.columns) if not column.generated]

        def cut(row: Row | None) -> Row | None:
            return None if row is None else tuple(row[at] for at in stored)

        doubtful = [
            key
            for key, row in found.items()
            if cut(row) != cut(outcome.get(key)) and not any(rows.get(key, ()) is None for rows in others)
        ]
        now = rows_of(table.source, table, doubtful) if doubtful else {}
        return any(cut(found[key]) != cut(now.get(key)) for key in doubtful)

    def _give_way(
        self,
        at: int,
        table: MovingTable,
        held: Sequence[tuple[Hit, Sequence[str]]],
        outcome: Outcome,
        fresh: set[Key],
        *,
        whole: bool,
    ) -> None:
        """Pass over the rows that are not on this shard any more while another has their key."""
        if not held:
            return
        rows = {hit: row for hit, _ in held if (row := outcome.get(hit.key)) is not None}
        had, since = still_had(table, rows)
        refused = [(hit, shards) for hit, shards in held if hit in had or hit not in rows]
        if refused:
            raise RowRefusedError(told(table, refused))
        until = _now(table.source.endpoint)
        for hit, _ in held:
            if hit.index == table.key.index:
                self.verdicts.pass_over(at, table.name, hit.key, since, until)
            elif not whole:
                raise UnavailableError(
                    f"table {table.table.name!r}: rows went from shard {table.source.shard} to another while "
                    "they were followed"
                )
            # A change of the row which follows in the log gives it another value, or takes it away.
            outcome.pop(hit.key, None)
            fresh.discard(hit.key)

    def _pending(
        self, foreign: Sequence[MovingTable], keys: Collection[Key], deadline: float
    ) -> dict[str, str]:
        """Up to where followers of other servers have yet to pass what takes rows of the keys away."""
        servers: dict[str, list[MovingTable]] = {}
        for table in foreign:
            servers.setdefault(table.source.endpoint.server_id, []).append(table)
        found: dict[str, str] = {}
        for server_id, tables in servers.items():
            start = self._others[server_id].position
            until = _now(tables[0].source.endpoint)
            last = last_taken(tables, start, until, keys, self._stopping, deadline)
            if last is not None:
                found[server_id] = last
        return found

    def _wait_for(self, pending: Mapping[str, str], deadline: float, over: Callable[[], bool]) -> None:
        """Let followers of other servers pass these positions, unless that is of no more use."""
        try:
            for server_id, position in pending.items():
                self._waiting = server_id
                while not self._others[server_id].passed(position, _LOOK_SECONDS):
                    if self._stopping.is_set() or time.monotonic() > deadline:
                        raise DeadlineExceededError(f"the targets have not applied {position} in time")
                    if over():
                        return
        finally:
            self._waiting = ""

    def _watch(self, at: int, table: MovingTable, others: Sequence[MovingTable], keys: Sequence[Key]) -> None:
        """Mind what shards of this server have yet to say of the keys, up to now."""
        mine = [other for other in others if other.source.endpoint.server_id == self._server_id]
        if mine and keys:
            until = _now(table.source.endpoint)
            for other in mine:
                self.verdicts.mind(at, table.name, keys, other.name, until)


def _now(endpoint: Endpoint) -> Position:
    """A position that has everything which could be seen there before the call."""
    if endpoint.flavor is Flavor.MYSQL:
        time.sleep(_LOOK_SECONDS)  # it names a transaction a moment after that can be seen
    with Connection(endpoint) as connection:
        return Position.parse(endpoint.flavor, current_position(connection, endpoint.flavor))
