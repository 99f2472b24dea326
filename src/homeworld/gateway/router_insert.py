"""INSERT and REPLACE into a sharded table: each row to its shard, ids from the sequence.

A row's shard is computed from the value that the server will store, and refused where that is not certain.
Several rows are sent to each shard in one statement, in the order the client gave them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from homeworld.gateway.plan import Destination, Footprint, NeedSequence, Pass, Plan, Scatter, SessionView
from homeworld.gateway.router_bulk import BulkInsert
from homeworld.gateway.router_context import Compiled, Context
from homeworld.gateway.router_errors import NeedsError, RefusedError, unsupported
from homeworld.gateway.router_names import Found
from homeworld.gateway.router_tables import ShardedTable
from homeworld.gateway.router_text import Change, Piece, Sample, fill
from homeworld.gateway.router_values import asks_for_id, compares_bytes, may_ask_for_id, stored
from homeworld.gateway.router_writes import check_made_by_insert, is_missing
from homeworld.gateway.sql_ast import Call, Expr, In, Insert, Lit, Sub, expressions_of
from homeworld.gateway.sql_functions import VOLATILE
from homeworld.gateway.sql_tokens import literals
from homeworld.model.errors import InvalidError
from homeworld.model.names import quote
from homeworld.model.routing import KeyspaceRoute
from homeworld.model.tables import Column
from homeworld.model.vindexes import UnplaceableError
from homeworld.model.vschema import find_sequence


@dataclass(slots=True)
class _Row:
    """One row: its values' expressions, and the pieces of its text."""

    values: list[Expr]
    start: int
    end: int


@dataclass(slots=True)
class _Plan:
    """Everything about one INSERT that does not depend on literals.

    :param vindex_at: for each vindex column, its place in a row; None: absent.
    :param id_at: the place of the column that a sequence fills; None: absent. ``id_column``: empty where no
        sequence fills any.
    """

    table: ShardedTable
    rows: list[_Row]
    vindex_at: list[int | None]
    id_at: int | None
    id_column: str
    sequence: tuple[str, str] | None
    given: list[tuple[str, int]]


def compile_insert(
    context: Context,
    keyspace: KeyspaceRoute,
    found: Sequence[Found],
    insert: Insert,
    table: ShardedTable,
    sample: Sample,
    footprint: Footprint,
) -> Compiled:
    """Make the template of an INSERT or REPLACE.

    :raises RefusedError: a row could not be placed for certain.
    """
    _check(insert, table)
    if insert.assigns:
        rows = [
            _Row([assign.value for assign in insert.assigns], insert.assigns[0].start, insert.assigns[-1].end)
        ]
        named: list[str] | None = [assign.column.name for assign in insert.assigns]
    else:
        rows = [_Row(row.values, row.start, row.end) for row in insert.rows]
        named = None if insert.columns is None else [column.name for column in insert.columns]
    columns = _columns(table, named)
    for row in rows:
        if len(row.values) != len(columns):
            raise RefusedError(1136, "21S01", "Column count doesn't match value count at row 1")
    plan = _planned(context, table, columns, rows)
    if table.reference:
        check_made_by_insert(table, insert, columns, [row.values for row in rows])
    needs_ids = not table.reference and _check_unique(insert, plan)
    head_and_tail = _Texts(context, keyspace, found, insert, plan, sample)
    expected = len(sample.spans)
    destinations = [context.aim.at(keyspace.name, shard.name) for shard in keyspace.shards]

    def template(sql: bytes, view: SessionView) -> Plan:
        values = literals(sql)
        if len(values) != expected:
            raise RefusedError(1064, "42000", "You have an error in your SQL syntax near '?'")
        _check_given(plan, values, view)
        ids = _ids(plan, values, view)
        if needs_ids and len(ids) < len(rows):
            raise _beyond_the_shard((plan.id_column,))
        if table.reference:
            everywhere = tuple(
                (destination, head_and_tail.text(number, range(len(rows)), values, ids))
                for number, destination in enumerate(destinations)
            )
            return Scatter(everywhere, footprint, same_rows=True)
        by_shard: dict[int, list[int]] = {}
        for number, row in enumerate(rows):
            by_shard.setdefault(_shard(plan, row, values, ids.get(number), view), []).append(number)
        if len(by_shard) == 1 and not ids:
            (shard,) = by_shard
            return Pass(destinations[shard], head_and_tail.whole(shard, sql, values), footprint)
        statements = tuple(
            (destinations[shard], head_and_tail.text(shard, numbers, values, ids))
            for shard, numbers in sorted(by_shard.items())
        )
        return Scatter(statements, footprint, last_insert_id=min(ids.values(), default=0))

    def bulk() -> BulkInsert:
        return head_and_tail.bulk(destinations, footprint, len(columns), needs_ids=needs_ids)

    placed = all(
        at is not None or (plan.sequence is not None and column.name == plan.id_column)
        for column, at in zip(table.vindex_columns, plan.vindex_at, strict=True)
    )
    made = bulk if placed and not table.reference and insert.rows and len(rows) == 1 else None
    return Compiled(template, shape=len(rows) < _MANY, bulk=made)


_MANY = 50
"""Statements with more rows hardly come again in the same shape."""


def _check(insert: Insert, table: ShardedTable) -> None:
    if insert.query is not None:
        raise unsupported("INSERT … SELECT into a sharded table")
    if not insert.rows and not insert.assigns:
        raise unsupported("INSERT without rows into a sharded table")
    vindex = {column.name.lower() for column in table.vindex_columns}
    for assign in insert.on_duplicate:
        if assign.column.name.lower() in vindex:
            raise unsupported("DML cannot update vindex column")
    for expr in expressions_of(insert):
        if isinstance(expr, Sub) or (isinstance(expr, In) and expr.query is not None):
            raise unsupported("subqueries in INSERT into a sharded table")
        if table.reference and isinstance(expr, Call) and (expr.name in VOLATILE or expr.inside & VOLATILE):
            raise unsupported(f"{expr.name.lower()}() in a write to a reference table")


def _check_unique(insert: Insert, plan: _Plan) -> bool:
    """What acts on rows in conflict must find them on the row's own shard, where only rows with equal vindex
    columns are for certain.

    :returns: whether that holds only if every row has its id from the sequence, which nothing has yet.
    :raises RefusedError: a unique key could be in conflict with a row of another shard.
    """
    if not (insert.replace or insert.ignore or insert.on_duplicate):
        return False
    vindex = {column.name.lower() for column in plan.table.vindex_columns if compares_bytes(column)}
    whole = len(vindex) == len(plan.table.vindex_columns)
    needs_ids = False
    for key in plan.table.unique_keys:
        names = {name.lower() for name in key}
        if whole and vindex <= names:
            continue
        if not plan.id_column or plan.id_column.lower() not in names:
            raise _beyond_the_shard(key)
        needs_ids = True
    return needs_ids


def _beyond_the_shard(key: Sequence[str]) -> RefusedError:
    names = ", ".join(name or "an expression or a prefix" for name in key)
    return unsupported(
        "REPLACE, INSERT IGNORE and ON DUPLICATE KEY UPDATE where a unique key does not hold the primary "
        f"vindex columns compared byte by byte, as a row in conflict may be on another shard: key ({names})"
    )


def _columns(table: ShardedTable, named: list[str] | None) -> list[Column]:
    """The columns that a row's values are for."""
    if named is None:
        return [column for column in table.columns if not column.invisible]
    found: list[Column] = []
    for name in named:
        column = table.column(name)
        if column is None:
            raise RefusedError(1054, "42S22", f"Unknown column '{name}' in 'field list'")
        if column in found:
            raise RefusedError(1110, "42000", f"Column '{name}' specified twice")
        found.append(column)
    return found


def _planned(context: Context, table: ShardedTable, columns: list[Column], rows: list[_Row]) -> _Plan:
    vindex_at = [columns.index(column) if column in columns else None for column in table.vindex_columns]
    id_at: int | None = None
    id_column = ""
    sequence = None
    if table.auto_increment is not None:
        column = table.column(table.auto_increment.column)
        if column is None:
            raise RefusedError(1054, "42S22", f"Unknown column '{table.auto_increment.column}'")
        id_column = column.name
        id_at = columns.index(column) if column in columns else None
        try:
            sequence = find_sequence(context.names.vschemas, table.auto_increment.sequence)
        except InvalidError as error:
            raise RefusedError(1105, "HY000", f"VT05007: {error.message}") from None
    given: list[tuple[str, int]] = []
    for column in table.columns:
        if column.auto_increment and (column.name != id_column or table.reference):
            if column not in columns:
                raise _made_twice(column.name, reference=table.reference)
            given.append((column.name, columns.index(column)))
    return _Plan(table, rows, vindex_at, id_at, id_column, sequence, given)


def _wants_id(name: str, expr: Expr, values: Sequence[bytes], *, zero_is_value: bool) -> bool:
    """Whether a value asks for an id to be made.

    :param name: the column's.
    :raises RefusedError: it cannot be told, so that a shard could make one by itself.
    """
    if is_missing(expr):
        return True
    if isinstance(expr, Lit):
        if zero_is_value or expr.kind == "param":
            return False
        if expr.kind == "bool":
            return expr.text == b"FALSE"
        return asks_for_id(name, values[expr.index])
    raise may_ask_for_id(name)


def _check_given(plan: _Plan, values: Sequence[bytes], view: SessionView) -> None:
    """Columns that no sequence fills must have their values.

    :raises RefusedError: a shard would make one.
    """
    for name, at in plan.given:
        for row in plan.rows:
            if _wants_id(name, row.values[at], values, zero_is_value=view.zero_is_value):
                raise _made_twice(name, reference=plan.table.reference)


def _made_twice(name: str, *, reference: bool) -> RefusedError:
    if reference:
        return unsupported("AUTO_INCREMENT of a reference table; give the column a value")
    return unsupported(
        f"AUTO_INCREMENT on the shards, which would give one id twice: give column {name} a value, or a "
        "sequence with ALTER VSCHEMA … ADD AUTO_INCREMENT"
    )


def _ids(plan: _Plan, values: Sequence[bytes], view: SessionView) -> dict[int, int]:
    """The ids that rows get from the sequence, by row.

    :raises NeedsError: they must be taken first.
    """
    if plan.sequence is None:
        return {}
    at = plan.id_at
    wanting = [
        number
        for number, row in enumerate(plan.rows)
        if at is None or _wants_id(plan.id_column, row.values[at], values, zero_is_value=view.zero_is_value)
    ]
    if not wanting:
        return {}
    if len(view.sequence_ids) < len(wanting):
        raise NeedsError(NeedSequence(*plan.sequence, len(wanting)))
    return dict(zip(wanting, view.sequence_ids, strict=False))


def _shard(plan: _Plan, row: _Row, values: Sequence[bytes], made: int | None, view: SessionView) -> int:
    """The number of the shard that a row belongs to."""
    found: list[bytes | None] = []
    for column, at in zip(plan.table.vindex_columns, plan.vindex_at, strict=True):
        if made is not None and column.name == plan.id_column:
            found.append(b"%d" % made)
        elif at is None:
            raise unsupported(
                f"INSERT without a value for vindex column {column.name}: without it the row has no shard"
            )
        else:
            found.append(_value(column, row.values[at], values, view))
    try:
        return plan.table.shard_for(tuple(found))
    except UnplaceableError as error:
        raise RefusedError(1105, "HY000", f"VT03002: {error.message}") from None


def _value(column: Column, expr: Expr, values: Sequence[bytes], view: SessionView) -> bytes | None:
    if isinstance(expr, Lit):
        if expr.kind == "null":
            raise RefusedError(1048, "23000", f"Column '{column.name}' cannot be null: it is a vindex column")
        if expr.kind == "bool":
            text = b"1" if expr.text == b"TRUE" else b"0"
            return stored(column, text, negative=False, charset=view.charset)
        return stored(column, values[expr.index], negative=expr.negative, charset=view.charset)
    raise unsupported(f"an expression as the value of vindex column {column.name}; give a literal")


class _Texts:
    """Builds the statement for a shard from some of the rows."""

    def __init__(
        self,
        context: Context,
        keyspace: KeyspaceRoute,
        found: Sequence[Found],
        insert: Insert,
        plan: _Plan,
        sample: Sample,
    ) -> None:
        self._plan = plan
        self._insert = insert
        self._sample = sample
        first, last = plan.rows[0], plan.rows[-1]
        self._tails: list[list[Piece]] = []
        self._named_in_rows = False
        self._heads: list[list[Piece]] = []
        self._heads_with_id: list[list[Piece]] = []
        self._edited: list[list[Piece] | None] = []
        for shard in keyspace.shards:
            edits = context.names.physical(found, shard.schema, context.scan.words)
            changes: list[Change] = [(start, end, [text]) for start, end, text in edits]
            self._tails.append(sample.changed(changes, last.end))
            self._named_in_rows |= any(first.start <= start < last.end for start, _, _ in edits)
            self._heads.append(_upto(sample, changes, first.start))
            named = [*changes, *self._column_change()]
            self._heads_with_id.append(_upto(sample, named, first.start))
            self._edited.append(sample.changed(changes) if changes else None)
        self._row_pieces = [self._row(row) for row in plan.rows]

    def bulk(
        self,
        destinations: Sequence[Destination],
        footprint: Footprint,
        width: int,
        *,
        needs_ids: bool,
    ) -> BulkInsert:
        """The same for any number of rows like the one that there is."""
        plan = self._plan
        values = [self._sample.sql[start:end] for start, end in self._sample.spans]
        return BulkInsert(
            plan.table,
            width,
            plan.rows[0].start,
            [fill(head, values) for head in self._heads],
            [fill(head, values) for head in self._heads_with_id],
            [fill(tail, values) for tail in self._tails],
            all(edited is None for edited in self._edited),
            destinations,
            footprint,
            plan.vindex_at,
            plan.id_at if plan.sequence is not None else None,
            plan.sequence,
            plan.id_column,
            plan.given,
            needs_ids,
            _beyond_the_shard((plan.id_column,)),
        )

    def whole(self, shard: int, sql: bytes, values: Sequence[bytes]) -> bytes:
        """The statement with all its rows."""
        edited = self._edited[shard]
        return sql if edited is None else fill(edited, values)

    def text(self, shard: int, rows: Sequence[int], values: Sequence[bytes], ids: dict[int, int]) -> bytes:
        """The statement with some of its rows, those with made ids changed."""
        if self._named_in_rows:
            raise unsupported("columns qualified by a keyspace among the values of rows of several shards")
        absent = self._plan.id_at is None and bool(ids)
        heads = self._heads_with_id if absent else self._heads
        parts = [fill(heads[shard], values)]
        for at, number in enumerate(rows):
            if at:
                parts.append(b", ")
            before, own, after = self._row_pieces[number]
            made = ids.get(number)
            if made is None:
                parts += (fill(before, values), fill(own, values), fill(after, values))
            elif absent:
                parts.append(self._with_id_added(number, made, values))
            else:
                parts += (fill(before, values), b"%d" % made, fill(after, values))
        parts.append(fill(self._tails[shard], values))
        return b"".join(parts)

    def _column_change(self) -> list[Change]:
        """The column that a sequence fills, put into the list of columns."""
        insert = self._insert
        if not self._plan.id_column or self._plan.id_at is not None or insert.assigns:
            return []
        name = quote(self._plan.id_column).encode()
        if insert.columns is not None:
            comma = b", " if insert.columns else b""
            return [(insert.columns_end, insert.columns_end, [comma + name])]
        raise unsupported("INSERT without a list of columns where the sequence's column is invisible")

    def _row(self, row: _Row) -> tuple[list[Piece], list[Piece], list[Piece]]:
        """A row before, at and after the value that a sequence may replace."""
        at = self._plan.id_at
        if at is None:
            return self._sample.cut(row.start, row.end), [], []
        value = row.values[at]
        cut = self._sample.cut
        return cut(row.start, value.start), cut(value.start, value.end), cut(value.end, row.end)

    def _with_id_added(self, number: int, made: int, values: Sequence[bytes]) -> bytes:
        row = self._plan.rows[number]
        text = fill(self._row_pieces[number][0], values)
        if self._insert.assigns:
            return text + b", " + quote(self._plan.id_column).encode() + b" = %d" % made
        comma = b", " if row.values else b""
        return text[:-1] + comma + b"%d)" % made


def _upto(sample: Sample, changes: Sequence[Change], end: int) -> list[Piece]:
    """The text before ``end`` with the changes in it."""
    found: list[Piece] = []
    at = 0
    for start, stop, pieces in sorted(changes, key=lambda change: change[:2]):
        if start >= end:
            break
        found += sample.cut(at, start)
        found += pieces
        at = stop
    return found + sample.cut(at, end)
