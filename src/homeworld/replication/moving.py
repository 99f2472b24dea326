"""One table of one source shard while it moves: its definition, its map, its writers.

It owns no thread and no connection. Who changes or reads ``map``, ``closed`` or the definition holds the gate
of the source server's follower; ``planning`` keeps two copiers from cutting one gap at the same time.

Invariant: ``table``, ``key``, ``route`` and ``writers`` belong together; ``version`` changes with them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from homeworld.model.errors import InvalidError
from homeworld.model.keyranges import KeyRange
from homeworld.model.movers import Placement
from homeworld.model.tables import Column, Table
from homeworld.model.topology import ShardPlace
from homeworld.model.vindexes import make_vindex, shard_picker
from homeworld.replication.changes import TableName
from homeworld.replication.chunks import TableMap
from homeworld.replication.coalesce import Route
from homeworld.replication.ddl import keeps_order
from homeworld.replication.keyorder import TableKey
from homeworld.replication.loading import RowWriter
from homeworld.replication.sidecar import StreamId

_FIRST_ROWS_A_CHUNK = 2000


def make_route(name: TableName, table: Table, placement: Placement, targets: Sequence[ShardPlace]) -> Route:
    """How rows of ``table`` find their target.

    :raises InvalidError: the placement does not fit the table or the targets.
    """
    key = TableKey(table)
    if not placement.vindex_type:
        if len(targets) != 1:
            raise InvalidError(f"table {table.name!r} has no vindex but {len(targets)} target shards")
        return Route(name, table, key)
    names = [column.name.lower() for column in table.columns]
    try:
        positions = [names.index(column.lower()) for column in placement.vindex_columns]
    except ValueError as error:
        raise InvalidError(
            f"table {table.name!r} lacks a column of its vindex ({', '.join(placement.vindex_columns)})"
        ) from error
    ranges = [KeyRange.parse(target.shard) for target in targets]
    order = sorted(range(len(targets)), key=lambda at: ranges[at].start)
    pick = shard_picker(
        make_vindex(placement.vindex_type, placement.vindex_params),
        [ranges[at] for at in order],
        [table.columns[at] for at in positions],
    )
    if order == list(range(len(targets))):
        return Route(name, table, key, positions, pick)
    return Route(name, table, key, positions, lambda row: order[pick(row)])


@dataclass(slots=True, eq=False)
class MovingTable:
    """See the module.

    :param streams: of this source shard, one for each target.
    :param rows_copied: what all targets have got, also before a restart.
    :param alone: no unique key but the one rows are found by: then nothing can be displaced.
    :param closed: no chunk may begin; a change of the definition is on its way.
    """

    source: ShardPlace
    placement: Placement
    targets: tuple[ShardPlace, ...]
    streams: tuple[StreamId, ...]
    table: Table
    route: Route
    writers: tuple[RowWriter, ...]
    map: TableMap
    rows_copied: list[int]
    rows_total: int
    alone: bool
    closed: bool = False
    version: int = 0
    rows_a_chunk: int = _FIRST_ROWS_A_CHUNK
    planning: threading.Lock = field(default_factory=threading.Lock)

    @property
    def name(self) -> TableName:
        """(schema, table) on the source."""
        return self.route.name

    @property
    def key(self) -> TableKey:
        """How rows are found."""
        return self.route.key

    def redefine(self, table: Table) -> None:
        """From here on the source's table is this one.

        :raises InvalidError: rows cannot be followed any more by the new definition.
        """
        route = make_route(self.name, table, self.placement, self.targets)
        begun = not (self.map.complete or self.map.untouched)
        if begun and route.key.names != self.key.names:
            raise InvalidError(
                f"the key of table {table.name!r} was changed during its copy, which must begin anew"
            )
        if begun and not _keep_order(_key_columns(self.table, self.route), _key_columns(table, route)):
            # What counts as copied lies between two keys, in the order that there was.
            raise InvalidError(
                f"the order of the keys of table {table.name!r} was changed during its copy, which must "
                "begin anew"
            )
        self.table = table
        self.route = route
        self.writers = writers_of(table, route, self.targets)
        self.map.key = route.key
        self.alone = one_unique_key(table)
        self.version += 1


def _key_columns(table: Table, route: Route) -> list[Column]:
    return [table.columns[at] for at in route.key.positions]


def _keep_order(old: Sequence[Column], new: Sequence[Column]) -> bool:
    return len(old) == len(new) and all(map(keeps_order, old, new))


def one_unique_key(table: Table) -> bool:
    """Whether there is no unique key but the one rows are found by."""
    return sum(index.unique for index in table.indexes) == 1


def writers_of(table: Table, route: Route, targets: Sequence[ShardPlace]) -> tuple[RowWriter, ...]:
    """A writer for each target."""
    return tuple(RowWriter(table, route.key, target.schema, target.endpoint.flavor) for target in targets)
