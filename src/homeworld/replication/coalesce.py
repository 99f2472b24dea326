"""From row changes in commit order to what each target is to hold in the end: pure, and on the hot path.

It knows where rows belong and no server. For each target, table and key only the last image counts. Deletes
are carried out before puts, so that two rows which exchanged keys or unique values, and keys that differ in
bytes but not for the collation, end as on the source: there each key exists once when the batch ends.

Invariant: carrying out the outcomes of a batch gives each target the rows that carrying out its changes one
by one would have given, wherever the target held the source's rows from before the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from homeworld.model.tables import Table
from homeworld.model.vindexes import UnplaceableError
from homeworld.replication.changes import Row, RowChange, TableName
from homeworld.replication.chunks import Outcome
from homeworld.replication.keyorder import Key, TableKey

#: For each target: table to outcome.
Outcomes: TypeAlias = list[dict[TableName, Outcome]]
#: For each target: table to the keys that came to be there with the batch.
Fresh: TypeAlias = list[dict[TableName, set[Key]]]


class Route:
    """Where the rows of one source table go.

    :param pick: from the vindex columns' values to the target's number; None: all go to target 0.
    :param vindex_columns: positions of those columns in a row.
    """

    def __init__(
        self,
        name: TableName,
        table: Table,
        key: TableKey,
        vindex_columns: Sequence[int] = (),
        pick: Callable[[Row], int] | None = None,
    ) -> None:
        self.name = name
        self.table = table
        self.key = key
        self.vindex_columns = tuple(vindex_columns)
        self.pick: Callable[[Row], int] = pick or _nowhere_else
        self.place: Callable[[Row], int] = (
            _nowhere_else if pick is None else _placer(table, self.vindex_columns, pick)
        )
        self.placed_by: Callable[[Row], Row] | None = None if pick is None else _values(self.vindex_columns)


def coalesce(
    changes: Iterable[RowChange],
    routes: Mapping[TableName, Route],
    targets: int,
    fresh: Fresh | None = None,
) -> Outcomes:
    """What each target is to hold after ``changes``.

    :param fresh: takes down the keys whose first change in the batch makes their row there.
    :raises UnplaceableError: a row has no keyspace id.
    """
    outcomes: Outcomes = [{} for _ in range(targets)]
    known: TableName | None = None
    of: Callable[[Row], Key] | None = None
    place: Callable[[Row], int] = _nowhere_else
    placed_by: Callable[[Row], Row] | None = None
    mine: list[Outcome] = []
    for name, before, after in changes:
        if name is not known or of is None:
            known = name
            route = routes[name]
            of, place, placed_by = route.key.of, route.place, route.placed_by
            mine = [each.setdefault(name, {}) for each in outcomes]
        if after is None:
            if before is not None:
                mine[place(before)][of(before)] = None
            continue
        key = of(after)
        target = place(after)
        if before is not None:
            old = of(before)
            left = target if placed_by is None or placed_by(before) == placed_by(after) else place(before)
            if old != key or left != target:
                mine[left][old] = None
                if fresh is not None and key not in mine[target]:
                    fresh[target].setdefault(name, set()).add(key)
        elif fresh is not None and key not in mine[target]:
            fresh[target].setdefault(name, set()).add(key)
        mine[target][key] = after
    return outcomes


def lay_over(rows: Iterable[Row], key: TableKey, outcome: Outcome) -> list[Row]:
    """Rows with an outcome laid over them: its own rows, and those of ``rows`` that it does not speak of."""
    of = key.of
    kept = [row for row in rows if of(row) not in outcome]
    kept.extend(row for row in outcome.values() if row is not None)
    return kept


def _nowhere_else(_row: Row) -> int:
    return 0


def _values(positions: tuple[int, ...]) -> Callable[[Row], Row]:
    if len(positions) == 1:
        at = positions[0]
        return lambda row: row[at : at + 1]
    return lambda row: tuple([row[at] for at in positions])


def _placer(table: Table, positions: tuple[int, ...], pick: Callable[[Row], int]) -> Callable[[Row], int]:
    values = _values(positions)

    def place(row: Row) -> int:
        try:
            return pick(values(row))
        except UnplaceableError as error:
            columns = ", ".join(table.columns[at].name for at in positions)
            raise UnplaceableError(f"table {table.name} by {columns}: {error.message}") from error

    return place
