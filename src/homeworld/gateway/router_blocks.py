"""Which rows of which shards a statement can need: query blocks, pins and equalities.

Theory of operation. Each use of a sharded table in a statement is a node. A *pin* says that only rows
whose vindex columns equal given literals can matter. An *edge* from x to y says: for a row of x, only rows of
y with the same vindex values (so of the same shard) can matter. Both come only from conditions that must
hold:

* WHERE and the ON of inner joins restrict every table of their block, so their edges go both ways;
* the ON of an outer join restricts only its inner side: edges go to it, and pins stay with the table;
* a condition of a subquery restricts only the subquery's tables: edges go inward, and pins stay inside.

A statement needs one shard if every node is pinned there, by itself or along edges. A single SELECT can be
asked of each shard by itself if all nodes are reached by edges from a table that no outer join makes
optional: then each of its rows finds on its own shard everything that it can find at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from homeworld.gateway.router_tables import ShardedTable
from homeworld.gateway.sql_ast import (
    Col,
    Derived,
    Expr,
    From,
    In,
    Join,
    Lit,
    Op,
    Query,
    Select,
    Source,
    Sub,
    Union,
    conjuncts,
    walk,
)
from homeworld.model.tables import Column

Pin = list[list[Lit]]
"""Alternatives; each has one literal for every vindex column."""


@dataclass(eq=False, slots=True)
class Use:
    """One use of a table. ``table`` is None for what is no table of the keyspace (a derived table).

    ``optional``: an outer join may leave it out. ``pins`` holds what restricts the whole block's rows,
    ``own_pins`` what restricts this use only. ``edges`` go to uses whose rows follow this one's.
    """

    name: str
    table: ShardedTable | None
    optional: bool
    top: bool
    pins: list[Pin] = field(default_factory=list[Pin])
    own_pins: list[Pin] = field(default_factory=list[Pin])
    edges: list[Use] = field(default_factory=list["Use"])

    @property
    def placed(self) -> bool:
        """Whether it has its rows spread over shards."""
        return self.table is not None and not self.table.reference


class Scope:
    """The names that a block's columns can mean: its own tables first, then those around it."""

    def __init__(self, outer: Scope | None) -> None:
        self.outer = outer
        self.uses: list[Use] = []

    def find(self, column: Col) -> tuple[Use, Scope] | None:
        """The use that a column belongs to, and where that is; None: it cannot be told."""
        if column.table:
            found = [use for use in self.uses if use.name == column.table]
        elif any(use.table is None for use in self.uses):
            return None
        else:
            found = [use for use in self.uses if use.table is not None and use.table.column(column.name)]
        if len(found) == 1:
            return found[0], self
        if found or self.outer is None:
            return None
        return self.outer.find(column)

    def column(self, column: Col) -> Column | None:
        """The column that a name means."""
        found = self.find(column)
        if found is None or found[0].table is None:
            return None
        return found[0].table.column(column.name)


@dataclass(slots=True)
class Blocks:
    """What was found in a statement.

    :param nested: the statement has tables outside of one block's FROM and its subqueries in conditions
        (derived tables, common table expressions, UNION).
    """

    uses: list[Use] = field(default_factory=list[Use])
    nested: bool = False
    scope: Scope = field(default_factory=lambda: Scope(None))

    @property
    def placed(self) -> list[Use]:
        """The uses of tables that are spread over shards."""
        return [use for use in self.uses if use.placed]

    def anchor(self) -> Use | None:
        """A table from which all others are reached by edges, and that no outer join makes optional."""
        if self.nested:
            return None
        placed = set(self.placed)
        for use in self.uses:
            if use.top and use.placed and not use.optional and placed <= _reached(use):
                return use
        return None


def _reached(start: Use) -> set[Use]:
    found = {start}
    open_ = [start]
    while open_:
        for use in open_.pop().edges:
            if use not in found:
                found.add(use)
                open_.append(use)
    return found


def pins_of(blocks: Blocks) -> dict[Use, list[Pin]]:
    """Every use with all pins that hold for it: its own, and those of the whole block that come along edges.

    They come both ways. Forward: what follows a restricted row has its values. Back: a row whose follower
    must be there (the block's conditions see to that) has its follower's values.
    """
    found: dict[Use, list[Pin]] = {use: [*use.own_pins] for use in blocks.placed}
    for use in blocks.placed:
        for other in _reached(use):
            if other not in found:
                continue
            found[use] += other.pins
            if other is not use:
                found[other] += use.pins
    return found


Resolve = Callable[[Source], ShardedTable | None]
"""What a table in FROM is; None: the name of a common table expression."""


class Builder:
    """Goes through a statement's blocks."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._pending: dict[int, tuple[Use, Col]] = {}
        self.blocks = Blocks()

    def query(self, query: Query, outer: Scope | None, *, top: bool) -> None:
        """Take in a query with everything inside it."""
        for _, inner in query.ctes:
            self.blocks.nested = True
            self.query(inner, outer, top=False)
        if isinstance(query, Union):
            self.blocks.nested = True
            for part in query.parts:
                self.query(part, outer, top=False)
            for key in query.order:
                self.expressions([key.expr], Scope(outer))
            return
        self.select(query, outer, top=top)

    def select(self, select: Select, outer: Scope | None, *, top: bool) -> None:
        """Take in one SELECT."""
        scope = Scope(outer)
        if top:
            self.blocks.scope = scope
        if select.source is not None:
            self.sources(select.source, scope, top=top)
        self.restrict(conjuncts(select.where), scope)
        self._compared_with_outside(select, scope)
        exprs = [item.expr for item in select.items]
        exprs += [*select.group, *(key.expr for key in select.order)]
        exprs += [expr for expr in (select.where, select.having) if expr is not None]
        self.expressions(exprs, scope)

    def sources(self, source: From, scope: Scope, *, top: bool) -> None:
        """Take in a FROM clause: first its tables, so that every ON can name them, then its conditions."""
        self._tables(source, scope, top=top, optional=False)
        self._conditions(source, scope, optional=False)

    def _tables(self, source: From, scope: Scope, *, top: bool, optional: bool) -> None:
        match source:
            case Join(kind=kind, left=left, right=right):
                self._tables(left, scope, top=top, optional=optional or kind == "right")
                self._tables(right, scope, top=top, optional=optional or kind == "left")
            case Derived(query=query, alias=alias):
                self.blocks.nested = True
                self.query(query, scope.outer, top=False)
                scope.uses.append(Use(alias, None, optional, top))
            case Source():
                use = Use(source.known_as, self._resolve(source), optional, top)
                scope.uses.append(use)
                self.blocks.uses.append(use)

    def _names(self, source: From) -> set[str]:
        match source:
            case Join(left=left, right=right):
                return self._names(left) | self._names(right)
            case Derived(alias=alias):
                return {alias}
            case Source():
                return {source.known_as}

    def _conditions(self, source: From, scope: Scope, *, optional: bool) -> None:
        if not isinstance(source, Join):
            return
        kind = source.kind
        self._conditions(source.left, scope, optional=optional or kind == "right")
        self._conditions(source.right, scope, optional=optional or kind == "left")
        if kind == "inner":
            kept: set[str] = set()
        else:
            kept = self._names(source.left if kind == "left" else source.right)
        conditions = [*conjuncts(source.on), *self._using(source, scope)]
        if kind == "inner" and not optional:
            self.restrict(conditions, scope)
        else:
            self._restrict_inner(conditions, scope, kept, self._names(source) - kept)
        if source.on is not None:
            self.expressions([source.on], scope)

    def _using(self, join: Join, scope: Scope) -> Iterable[Expr]:
        """``USING (a)`` as equalities, where each side has one table with that column."""
        for name in join.using:
            sides: list[Use] = []
            for side in (join.left, join.right):
                names = self._names(side)
                having = [
                    use
                    for use in scope.uses
                    if use.name in names and (use.table is None or use.table.column(name))
                ]
                sides += having if len(having) == 1 else []
            if len(sides) == 2:
                left, right = (Col(join.start, join.end, "", use.name, name) for use in sides)
                yield Op(join.start, join.end, "=", [left, right])

    def restrict(self, conditions: Iterable[Expr], scope: Scope) -> None:
        """Conditions that every row of the block must meet."""
        literals, equalities = self._gather(conditions, scope)
        for (left, right), pairs in equalities.items():
            if not _same_shard(left, right, pairs):
                continue
            if left in scope.uses:
                right.edges.append(left)
            if right in scope.uses:
                left.edges.append(right)
        for use, by_column in literals.items():
            pin = _pin(use, by_column)
            if pin is None:
                continue
            if use.top:
                use.pins.append(pin)
            else:  # a subquery's pin says nothing of the tables around it, but of its neighbours
                for other in _reached(use) & set(scope.uses):
                    other.own_pins.append(pin)

    def _gather(
        self, conditions: Iterable[Expr], scope: Scope
    ) -> tuple[dict[Use, dict[str, list[Lit]]], dict[tuple[Use, Use], set[tuple[str, str]]]]:
        """Literals by use and column, and equal columns by the two uses they are of."""
        literals: dict[Use, dict[str, list[Lit]]] = {}
        equalities: dict[tuple[Use, Use], set[tuple[str, str]]] = {}
        for condition in conditions:
            self._literal(condition, scope, literals)
            self._equality(condition, scope, equalities)
        return literals, equalities

    def _restrict_inner(
        self, conditions: Iterable[Expr], scope: Scope, kept: set[str], inner: set[str]
    ) -> None:
        """Conditions that say only which rows of ``inner`` are joined to those of ``kept``."""
        literals, equalities = self._gather(conditions, scope)
        for use, by_column in literals.items():
            pin = _pin(use, by_column)
            if pin is not None and use.name in inner:
                use.own_pins.append(pin)
        for (left, right), pairs in equalities.items():
            if not _same_shard(left, right, pairs):
                continue
            for one, other in ((left, right), (right, left)):
                both_inner = one in scope.uses and one.name in inner
                if other in scope.uses and other.name in inner and not (both_inner and kept):
                    one.edges.append(other)

    def _literal(self, condition: Expr, scope: Scope, found: dict[Use, dict[str, list[Lit]]]) -> None:
        column: Expr
        match condition:
            case Op(op="=", args=[Col() as column, Lit() as literal]):
                values: list[Lit] = [literal]
            case Op(op="=", args=[Lit() as literal, Col() as column]):
                values = [literal]
            case In(expr=Col() as column, items=items, query=None, negated=False):
                values = [item for item in items if isinstance(item, Lit)]
                if len(values) != len(items):
                    return
            case _:
                return
        # NULL equals nothing: it may stand in a list, alone it says nothing that needs a shard.
        values = [value for value in values if value.kind != "null"]
        if not values or any(value.kind == "bool" for value in values):
            return
        place = scope.find(column)
        if place is not None and place[1] is scope and place[0].placed:
            found.setdefault(place[0], {}).setdefault(column.name.lower(), values)

    def _equality(
        self, condition: Expr, scope: Scope, found: dict[tuple[Use, Use], set[tuple[str, str]]]
    ) -> None:
        match condition:
            case Op(op="=", args=[Col() as left, Col() as right]):
                pass
            case In(expr=Col() as left, query=Select() as query, negated=False):
                self._in_query(left, query, scope)
                return
            case _:
                return
        one, other = scope.find(left), scope.find(right)
        if one is None or other is None or one[0] is other[0]:
            return
        first, second = left.name.lower(), right.name.lower()
        if (other[0], one[0]) in found:  # the same two tables, written the other way round
            found[other[0], one[0]].add((second, first))
        else:
            found.setdefault((one[0], other[0]), set()).add((first, second))

    def _in_query(self, left: Col, query: Select, scope: Scope) -> None:
        """``column IN (SELECT column …)``: the inner rows that matter have the outer one's value."""
        place = scope.find(left)
        table = place[0].table if place is not None else None
        if place is None or table is None or len(table.vindex_columns) != 1:
            return
        if table.vindex_columns[0].name.lower() == left.name.lower() and query.limit is None:
            self._pending[id(query)] = (place[0], left)

    def _compared_with_outside(self, select: Select, scope: Scope) -> None:
        """The inner side of :meth:`_in_query`, now that its tables are known."""
        pending = self._pending.pop(id(select), None)
        if pending is None or len(select.items) != 1 or select.group or select.having is not None:
            return
        inner = select.items[0].expr
        place = scope.find(inner) if isinstance(inner, Col) else None
        if place is None or place[1] is not scope or not isinstance(inner, Col):
            return
        outer, column = pending
        if _same_shard(outer, place[0], {(column.name.lower(), inner.name.lower())}):
            outer.edges.append(place[0])

    def expressions(self, exprs: Iterable[Expr], scope: Scope) -> None:
        """Take in the subqueries inside expressions."""
        for expr in exprs:
            for part in walk(expr):
                match part:
                    case Sub(query=query):
                        self.query(query, scope, top=False)
                    case In(query=query) if query is not None:
                        self.query(query, scope, top=False)
                    case _:
                        pass


def _pin(use: Use, by_column: dict[str, list[Lit]]) -> Pin | None:
    """The alternatives of a use, if every vindex column has a literal."""
    table = use.table
    if table is None or table.reference:
        return None
    wanted = [by_column.get(column.name.lower()) for column in table.vindex_columns]
    if any(values is None for values in wanted):
        return None
    lists = [values for values in wanted if values is not None]
    if len(lists) == 1:
        return [[value] for value in lists[0]]
    if all(len(values) == 1 for values in lists):
        return [[values[0] for values in lists]]
    return None


def _same_shard(left: Use, right: Use, pairs: set[tuple[str, str]]) -> bool:
    """Whether the equalities hold all vindex columns of two tables together."""
    one, other = left.table, right.table
    if one is None or other is None or one.reference or other.reference:
        return False
    if one.vindex != other.vindex or one.classes != other.classes or "" in one.classes:
        return False
    return all(
        (a.name.lower(), b.name.lower()) in pairs
        for a, b in zip(one.vindex_columns, other.vindex_columns, strict=True)
    )


def shards_of(
    pins: Sequence[Pin], table: ShardedTable, literals: Sequence[bytes], charset: str
) -> set[int] | None:
    """The shards that the first pin which can be told leads to; None: none can."""
    for pin in pins:
        found = {table.shard_of(alternative, literals, charset) for alternative in pin}
        if None not in found:
            return {shard for shard in found if shard is not None}
    return None


class Whereabouts:
    """Decides for each execution of a statement which shards it goes to."""

    def __init__(self, blocks: Blocks) -> None:
        pins = pins_of(blocks)
        self._placed = [(use.table, pins[use]) for use in blocks.placed if use.table is not None]
        anchor = blocks.anchor()
        self.separable = anchor is not None
        self._anchor = (
            (anchor.table, pins[anchor]) if anchor is not None and anchor.table is not None else None
        )

    def decide(self, literals: Sequence[bytes], charset: str, count: int) -> list[int] | None:
        """The numbers of the shards that the statement needs, of ``count``; None: they cannot be told apart,
        because tables are on several shards without following each other.
        """
        if count == 1 or not self._placed:
            return [0]
        if self._anchor is not None:
            table, pins = self._anchor
            found = shards_of(pins, table, literals, charset)
            return list(range(count)) if found is None else sorted(found)
        together: set[int] = set()
        for table, pins in self._placed:
            found = shards_of(pins, table, literals, charset)
            if found is None:
                return None
            together |= found
        return list(together) if len(together) == 1 else None
