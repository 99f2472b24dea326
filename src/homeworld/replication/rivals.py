"""What becomes of a row that is new on its source shard while the target has a row of its key already.

That row may be its own: a chunk's snapshot was ahead of the log, or the log is given again. Or it is another
source shard's. Theory of operation: the servers are asked once, for all such keys of a table.

* Another source shard has a row of the key now: the two would become one. An error tells both.
* None has, and it is as the row is on its own shard, in the batch or now: it is its own.
* None has, and it is another's, or older. On another server one may have had it until just now: its follower
  is waited for until it has passed that moment. On this server such a shard would have had it together with
  ours: should this very log say so before the moment of asking, that is the same error. Then the row takes
  its place.
* The row is gone again within the batch: what the target has is left to the other shard that has it now, or
  taken out where none has.

Invariant: a row of another source shard is displaced only after that shard has given it up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from homeworld.model.errors import RowRefusedError, UnavailableError
from homeworld.model.gtid import Position
from homeworld.model.topology import Endpoint, ShardPlace
from homeworld.replication.changes import Row, TableName
from homeworld.replication.chunks import Outcome
from homeworld.replication.coalesce import Fresh, Outcomes
from homeworld.replication.connection import Connection
from homeworld.replication.contest import Hit, hits, holders, rows_of, there, told
from homeworld.replication.keyorder import Key
from homeworld.replication.moving import MovingTable
from homeworld.replication.positions import current_position

Wait = Callable[[str], None]
"""Returns once a follower has passed a position."""


@dataclass(slots=True)
class _Decision:
    """For one table on one target: keys that count as known, that are let be, and rows to be taken out."""

    known: set[Key] = field(default_factory=set[Key])
    let_be: set[Key] = field(default_factory=set[Key])
    out: set[Key] = field(default_factory=set[Key])

    def apply(self, outcome: Outcome, fresh: set[Key]) -> None:
        fresh -= self.known
        for key in self.let_be & outcome.keys() & fresh:
            if outcome[key] is None:
                del outcome[key]
        for key in self.out:
            outcome.setdefault(key, None)


class Rivals:
    """The other source shards of one follower's tables. Used by the follower's thread.

    :param server_id: of the follower.
    :param tables: of all source shards.
    :param waits: by source server id, for the other followers.
    """

    def __init__(self, server_id: str, tables: Sequence[MovingTable], waits: Mapping[str, Wait]) -> None:
        self._server_id = server_id
        self._tables = {t.name: t for t in tables if t.source.endpoint.server_id == server_id}
        self._all = tuple(tables)
        self._waits = dict(waits)
        self._decided: dict[tuple[int, TableName], _Decision] = {}
        self._taken: dict[tuple[int, TableName], dict[Key, Position]] = {}

    def admit(self, outcomes: Outcomes, fresh: Fresh) -> None:
        """Lay what is decided over a batch's outcomes.

        :raises RowRefusedError: a shard gives up a key only now of which another had a row before.
        """
        for (at, name), taken in self._taken.items():
            for key in taken.keys() & outcomes[at].get(name, {}).keys():
                if key not in fresh[at].get(name, ()):
                    hit = Hit(self._tables[name].key.index, key, key)
                    raise RowRefusedError(told(self._tables[name], [(hit, ["another shard of its server"])]))
                del taken[key]
        for (at, name), decision in self._decided.items():
            if name in outcomes[at]:
                decision.apply(outcomes[at][name], fresh[at].setdefault(name, set()))

    def passed(self, position: Position) -> None:
        """A batch has been applied up to its end."""
        self._decided.clear()
        for key, taken in list(self._taken.items()):
            left = {one: until for one, until in taken.items() if not position.contains(until)}
            if left:
                self._taken[key] = left
            else:
                del self._taken[key]

    def decide(self, at: int, name: TableName, outcome: Outcome, fresh: set[Key]) -> None:
        """Find out what is in the way of a table's rows on a target, and change outcome and ``fresh`` so that
        the batch can be carried out. Nothing of it may be open on the target, and the gate is not held.

        :raises RowRefusedError: another source shard has a row of a key.
        :raises UnavailableError: a key has just gone from this shard to another; beginning anew mends it.
        :raises DeadlineExceededError: another follower did not come by in time, or the mover is stopped.
        """
        table = self._tables[name]
        others = [t for t in self._all if t.table.name == table.table.name and t.source != table.source]
        target = table.targets[at]
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
        self._refuse(table, [(hit, asked[hit.holder]) for hit in in_the_way if hit.holder in asked])
        strange = self._strange(table, target, outcome, [h.holder for h in in_the_way if h.holder in fresh])
        if strange:
            self._wait_for(others)
            self._watch(at, table, others, strange)
        decision = self._decided.setdefault((at, name), _Decision())
        decision.let_be |= {key for key in left if key in asked}
        decision.known |= {key for key in left if key not in asked}
        for hit in in_the_way:
            if hit.holder in fresh:
                decision.known.add(hit.holder)
            else:
                decision.out.add(hit.holder)
        decision.apply(outcome, fresh)

    def _refuse(self, table: MovingTable, held: Sequence[tuple[Hit, Sequence[str]]]) -> None:
        if not held:
            return
        same = [hit.holder for hit, _ in held if hit.index == table.key.index]
        if len(same) == len(held) and not holders([table], same):
            raise UnavailableError(
                f"table {table.table.name!r}: rows went from shard {table.source.shard} to another while "
                "they were followed"
            )
        raise RowRefusedError(told(table, held))

    def _strange(
        self, table: MovingTable, target: ShardPlace, outcome: Outcome, keys: Sequence[Key]
    ) -> list[Key]:
        """The keys whose row on the target is not the one that its own shard has, in the batch or now."""
        if not keys:
            return []
        stored = [at for at, column in enumerate(table.table.columns) if not column.generated]

        def cut(row: Row | None) -> Row | None:
            return None if row is None else tuple(row[at] for at in stored)

        found = rows_of(target, table, keys)
        doubtful = [key for key in keys if cut(found.get(key)) != cut(outcome.get(key))]
        now = rows_of(table.source, table, doubtful) if doubtful else {}
        return [key for key in doubtful if cut(found.get(key)) != cut(now.get(key))]

    def _wait_for(self, others: Sequence[MovingTable]) -> None:
        """Let the followers of other servers pass what their shards have done until now."""
        servers = {other.source.endpoint.server_id: other.source.endpoint for other in others}
        for server_id, endpoint in servers.items():
            if server_id != self._server_id:
                self._waits[server_id](_now(endpoint))

    def _watch(self, at: int, table: MovingTable, others: Sequence[MovingTable], keys: Sequence[Key]) -> None:
        """Mind what shards of this server have yet to say of the keys, up to now."""
        mine = [other for other in others if other.source.endpoint.server_id == self._server_id]
        if mine:
            until = Position.parse(table.source.endpoint.flavor, _now(table.source.endpoint))
            for other in mine:
                self._taken.setdefault((at, other.name), {}).update(dict.fromkeys(keys, until))


def _now(endpoint: Endpoint) -> str:
    with Connection(endpoint) as connection:
        return current_position(connection, endpoint.flavor)
