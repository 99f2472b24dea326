"""SELECT over several shards: the text each shard gets, and how their rows become one answer.

The text is the client's own with helper columns put behind the select list (sort keys, parts of averages) and
its LIMIT changed. What cannot be merged exactly raises, with what stands in the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from homeworld.gateway.merge import Aggregate, Column, Key, Merge
from homeworld.gateway.router_blocks import Blocks
from homeworld.gateway.router_errors import unsupported
from homeworld.gateway.router_text import Change, Literals, Piece, Sample
from homeworld.gateway.router_types import NUMBER, Kind, Type, decimals, infer, of_column
from homeworld.gateway.router_values import compares_bytes
from homeworld.gateway.sql_ast import (
    Call,
    Col,
    Derived,
    Expr,
    Limit,
    Lit,
    Select,
    Star,
    Sub,
    sources,
    walk,
)
from homeworld.gateway.sql_functions import AGGREGATES, WINDOW_ONLY
from homeworld.model.tables import Column as TableColumn
from homeworld.model.topology import Flavor

# max_sort_length, which sessions may not change, less the length that MariaDB puts behind binary strings.
_MOST_SORTED = 1024 - 4
_MERGED = {
    "SUM": Aggregate.SUM,
    "COUNT": Aggregate.COUNT,
    "MIN": Aggregate.MIN,
    "MAX": Aggregate.MAX,
    "AVG": Aggregate.AVG,
    "ANY_VALUE": Aggregate.FIRST,
}


@dataclass(slots=True)
class Scattered:
    """A compiled scatter: ``changes`` make the text for a shard from those that names need there, ``merge``
    the answer from given literals.

    ``hidden`` columns at the end are helpers. ``shape``: it serves every text of the fingerprint.
    """

    changes: Callable[[Sequence[Change]], list[Change]]
    merge: Callable[[Literals], Merge]
    hidden: int
    shape: bool = True


def is_aggregate(expr: Expr) -> bool:
    """Whether an expression has an aggregate in it (subqueries aside)."""
    return any(
        isinstance(part, Call) and not part.over and (part.name in AGGREGATES or part.inside & AGGREGATES)
        for part in walk(expr)
    )


def is_null(expr: Expr) -> bool:
    """``ORDER BY NULL`` asks for no order."""
    return isinstance(expr, Lit) and expr.kind == "null"


def _has_window(expr: Expr) -> bool:
    return any(
        isinstance(part, Call) and (part.over or part.name in WINDOW_ONLY or part.inside & WINDOW_ONLY)
        for part in walk(expr)
    )


@dataclass(slots=True)
class _Builder:
    """Gathers helper columns and keys for one SELECT.

    ``fresh``: only this very text may use what is made (a position in ORDER BY is a literal too).
    """

    select: Select
    blocks: Blocks
    sample: Sample
    flavor: Flavor
    grouped: bool = False
    helpers: list[tuple[bytes, Expr, bytes]] = field(default_factory=list[tuple[bytes, Expr, bytes]])
    fresh: bool = False

    # --- columns of a shard's row

    def helper(self, before: bytes, expr: Expr, after: bytes) -> int:
        """A column with that expression behind the select list; its number among the helpers."""
        self.helpers.append((before, expr, after))
        return len(self.helpers) - 1

    def place(self, number: int) -> int:
        """A helper's column, counted from the end of the row."""
        return number - len(self.helpers)

    def item(self, number: int) -> int | None:
        """An item's column from the start of the row; None: a star before it hides where it is."""
        before = self.select.items[:number]
        return None if any(isinstance(item.expr, Star) for item in before) else number

    def text(self, expr: Expr) -> bytes:
        """What makes two expressions the same: their text, and which column a name means."""
        self._look(expr)
        if isinstance(expr, Col):
            found = self.blocks.scope.find(expr)
            if found is not None:
                return f"{found[0].name}.{expr.name.lower()}".encode("utf-8", "surrogateescape")
        return self.sample.sql[expr.start : expr.end]

    def type(self, expr: Expr) -> Type | None:
        """The expression's type."""
        self._look(expr)
        return infer(expr, self.blocks.scope.column)

    def _look(self, expr: Expr) -> None:
        """Something was decided by the expression's text: another text's literals may say otherwise."""
        if self.sample.has_literals(expr.start, expr.end):
            self.fresh = True

    def check_addable(self, name: str, argument: Expr) -> None:
        """Sums of shards come as texts; a server adds with what a text does not show, too.

        :raises RefusedError: the argument's values have more digits than their text.
        """
        rounds = self.flavor is Flavor.MYSQL
        if decimals(argument, self.blocks.scope.column, rounds_quotients=rounds) is None:
            raise unsupported(
                f"{name} over several shards of values with more digits than are shown; "
                f"{name}(ROUND(…, 4)) adds what is shown"
            )

    # --- what names in ORDER BY and GROUP BY mean

    def position(self, expr: Expr) -> int | None:
        """The item that a number in ORDER BY or GROUP BY stands for."""
        if not isinstance(expr, Lit) or expr.kind != "int":
            return None
        self.fresh = True
        number = int(expr.text) - 1
        if not 0 <= number < len(self.select.items) or expr.negative or self.item(number) is None:
            raise unsupported("ORDER BY or GROUP BY this position over several shards")
        return number

    def alias(self, expr: Expr) -> int | None:
        """The item whose alias an unqualified name is."""
        if not isinstance(expr, Col) or expr.table:
            return None
        found = [
            number
            for number, item in enumerate(self.select.items)
            if item.alias and item.alias.lower() == expr.name.lower()
        ]
        if not found:
            return None
        own = self.blocks.scope.column(expr)
        if len(found) > 1 or (
            own is not None and self.text(self.select.items[found[0]].expr) != self.text(expr)
        ):
            raise unsupported(f"the ambiguous name {expr.name} in ORDER BY or GROUP BY over several shards")
        return found[0]

    def meant(self, expr: Expr) -> Expr:
        """The expression that a key of ORDER BY or GROUP BY means."""
        number = self.position(expr)
        if number is None:
            number = self.alias(expr)
        return expr if number is None else self.select.items[number].expr

    # --- keys

    def sort_key(self, expr: Expr, *, descending: bool) -> Callable[[], Key]:
        """A key to sort rows by; its place is known when all helpers are."""
        meant = self.meant(expr)
        for part in walk(meant):
            if part is not meant:
                self.alias(part)  # inside an expression it must not differ from the column of that name
        type_ = self.type(meant)
        if type_ is None:
            raise unsupported("ORDER BY an expression of this type over several shards")
        if type_.kind is Kind.MOMENT and not isinstance(meant, Col):
            return self.moment_key(meant, descending=descending)
        before, after = _SORTED_AS[type_.kind]
        if type_.kind is Kind.WEIGHT:
            before, after = self.weight(meant)
        if type_.single:
            before, after = b"(", b")+0e0"
        number = self.visible(meant) if not before else None
        if number is not None:
            index = number
            return lambda: self.key(index, type_, descending=descending)
        helper = self.helper(before or b"(", meant, after or b")")
        return lambda: self.key(self.place(helper), type_, descending=descending)

    def key(self, index: int, type_: Type, *, descending: bool) -> Key:
        """A key to sort by that column. MySQL sorts by all of a text only if its collation does not pad, and
        MariaDB never does.
        """
        text = type_.kind is Kind.WEIGHT or type_.kind is Kind.BYTES
        cut = text and (bool(type_.pad) or self.flavor is Flavor.MARIADB)
        return Key(index, type_, descending, most=_MOST_SORTED if cut else 0)

    def moment_key(self, expr: Expr, *, descending: bool) -> Callable[[], Key]:
        """A key to sort rows by the least or greatest moment of each one's group. Servers of both flavours
        take it by its text where a temporary table keeps it, and by the moment where an index has it.
        """
        moment = self.best_moment(expr)
        type_ = Type(Kind.MOMENT)
        text = self.helper(b"(", expr, b")")
        return lambda: Key(self.place(moment), type_, descending, self.place(text))

    def best_moment(self, expr: Expr) -> int:
        """The helper with the moment that MIN or MAX gives the text of."""
        if not isinstance(expr, Call) or expr.name not in {"MIN", "MAX"} or expr.over or expr.opaque:
            raise unsupported("ORDER BY an expression of a TIMESTAMP over several shards")
        return self.helper(expr.name.encode() + b"(UNIX_TIMESTAMP(", expr.args[0], b"))")

    def weight(self, expr: Expr) -> tuple[bytes, bytes]:
        """What to write around an expression to have its weight. A server may not see that the weight of a
        grouped expression is the same for the whole group; any of them will do.
        """
        if self.grouped and not isinstance(expr, Col) and not is_aggregate(expr):
            return b"MIN(WEIGHT_STRING(", b"))"
        return b"WEIGHT_STRING(", b")"

    def visible(self, expr: Expr) -> int | None:
        """The column of a select item that is this expression."""
        wanted = self.text(expr)
        for number, item in enumerate(self.select.items):
            if not isinstance(item.expr, Star) and self.text(item.expr) == wanted:
                return self.item(number)
        return None

    def same_key(self, expr: Expr, what: str) -> Callable[[], Key]:
        """A key by which equal values are found."""
        type_ = self.type(expr)
        if type_ is None or type_.kind is Kind.DOUBLE:
            raise unsupported(f"{what} an expression of this type over several shards")
        if type_.kind is Kind.WEIGHT:
            before, after = self.weight(expr)
            helper = self.helper(before, expr, after)
            return lambda: Key(self.place(helper), type_)
        if type_.kind is Kind.MOMENT:
            if not isinstance(expr, Col):
                raise unsupported(f"{what} an expression of a TIMESTAMP over several shards")
            return self.same_moment(expr, type_)
        number = self.visible(expr)
        if number is not None:
            index = number
            return lambda: Key(index, type_)
        helper = self.helper(b"(", expr, b")")
        return lambda: Key(self.place(helper), type_)

    def same_moment(self, expr: Col, type_: Type) -> Callable[[], Key]:
        """A key by which equal moments are found. MariaDB groups by the moment. MySQL does in a temporary
        table; where rows come in order, it joins those that follow each other with the same text.
        """
        if self.flavor is not Flavor.MYSQL:
            moment = self.helper(b"UNIX_TIMESTAMP(", expr, b")")
            return lambda: Key(self.place(moment), type_)
        text = self.helper(b"(", expr, b")")
        if not self.select.group:
            moment = self.helper(b"UNIX_TIMESTAMP(", expr, b")")
            return lambda: Key(self.place(moment), type_, text=self.place(text))
        first = self.helper(b"MIN(UNIX_TIMESTAMP(", expr, b"))")
        last = self.helper(b"MAX(UNIX_TIMESTAMP(", expr, b"))")
        return lambda: Key(self.place(first), type_, text=self.place(text), twin=self.place(last))

    def order(self) -> list[Callable[[], Key]]:
        """The keys of ORDER BY."""
        return [
            self.sort_key(key.expr, descending=key.descending)
            for key in self.select.order
            if not is_null(key.expr)
        ]

    # --- the end

    def changes(self, *, keep_limit: bool) -> Callable[[Sequence[Change]], list[Change]]:
        """What to change in the text for a shard, given what its names need."""
        return lambda names: [*names, *self._changes(names, keep_limit=keep_limit)]

    def _changes(self, names: Sequence[Change], *, keep_limit: bool) -> list[Change]:
        found: list[Change] = []
        if self.helpers:
            added: list[Piece] = []
            for before, expr, after in self.helpers:
                added += (b", ", before, *self.sample.changed(names, expr.start, expr.end), after)
            found.append((self.select.items_end, self.select.items_end, added))
        limit = self.select.limit
        if limit is not None and not keep_limit:
            found.append((limit.start, limit.end, []))
        elif limit is not None and limit.offset is not None:
            found.append((limit.start, limit.end, [_limit_of_shard(limit)]))
        return found


_SORTED_AS: dict[Kind, tuple[bytes, bytes]] = {
    Kind.NUMBER: (b"", b""),
    Kind.DOUBLE: (b"", b""),
    Kind.BYTES: (b"", b""),
    Kind.TIME: (b"", b""),
    Kind.WEIGHT: (b"WEIGHT_STRING(", b")"),
    Kind.LABEL: (b"CAST(", b" AS UNSIGNED)"),
    Kind.MOMENT: (b"UNIX_TIMESTAMP(", b")"),
}


def _limit_of_shard(limit: Limit) -> Callable[[Literals], bytes]:
    """Each shard may have all of the first offset + count rows."""

    def text(literals: Literals) -> bytes:
        count, offset = limit_of(limit, literals)
        return b"LIMIT %d" % min(count + offset, (1 << 64) - 1)

    return text


def limit_of(limit: Limit, literals: Literals) -> tuple[int, int]:
    """The numbers of a LIMIT in a text with these literals.

    :raises RefusedError: they are not numbers.
    """
    found: list[int] = []
    for literal in (limit.count, limit.offset):
        text = b"0" if literal is None else literals[literal.index]
        if not text.isdigit():
            raise unsupported("LIMIT by something other than a number over several shards")
        found.append(int(text))
    return found[0], found[1]


def compile_scatter(select: Select, blocks: Blocks, sample: Sample, flavor: Flavor) -> Scattered:
    """Compile one SELECT for several shards.

    :param flavor: of the branch's servers.
    :raises RefusedError: its answer cannot be made exactly from the shards' answers.
    """
    if select.odd:
        raise unsupported(f"{select.odd} over several shards")
    builder = _Builder(select, blocks, sample, flavor)
    exprs = [item.expr for item in select.items] + [key.expr for key in select.order]
    if select.having is not None:
        exprs.append(select.having)
    if any(_has_window(expr) for expr in exprs):
        raise unsupported("window functions over several shards")
    grouped = builder.grouped = bool(select.group) or any(is_aggregate(expr) for expr in exprs)
    if not grouped or _groups_stay_together(builder):
        return _rows(builder, local=grouped)
    return _groups(builder)


def _groups_stay_together(builder: _Builder) -> bool:
    """Whether every group has all its rows on one shard: it is a group of the anchor's vindex columns."""
    anchor = builder.blocks.anchor()
    if anchor is None or anchor.table is None or not builder.select.group:
        return False
    names: set[str] = set()
    for expr in builder.select.group:
        meant = builder.meant(expr)
        place = builder.blocks.scope.find(meant) if isinstance(meant, Col) else None
        if place is not None and place[0] is anchor and isinstance(meant, Col):
            names.add(meant.name.lower())
    columns = anchor.table.vindex_columns
    return all(column.name.lower() in names and compares_bytes(column) for column in columns)


def _rows(builder: _Builder, *, local: bool) -> Scattered:
    """Rows are what they are on their shard (groups too, where they stay together)."""
    select = builder.select
    order = builder.order()
    distinct: list[Callable[[], Key]] | None = None
    width = 0
    if select.distinct:
        if local:
            raise unsupported("DISTINCT with GROUP BY over several shards")
        distinct, width = _distinct(builder)
    limit = select.limit
    # Helpers can tell apart what is equal ('a' and 'a '), so that a shard would count one row twice.
    changes = builder.changes(keep_limit=not (select.distinct and builder.helpers))
    hidden = len(builder.helpers)

    def merge(literals: Literals) -> Merge:
        count, offset = (None, 0) if limit is None else limit_of(limit, literals)
        return Merge(
            order=tuple(key() for key in order),
            limit=count,
            offset=offset,
            hidden=hidden,
            distinct=None if distinct is None else tuple(key() for key in distinct),
            width=width + hidden if width else 0,
        )

    return Scattered(changes, merge, hidden, not builder.fresh)


def _distinct(builder: _Builder) -> tuple[list[Callable[[], Key]], int]:
    """Keys for every visible column, and how many those are."""
    keys: list[Callable[[], Key]] = []
    width = 0
    for key in builder.select.order:
        if builder.visible(builder.meant(key.expr)) is None:
            raise unsupported("DISTINCT with ORDER BY of something not selected, over several shards")
    for item in builder.select.items:
        if isinstance(item.expr, Star):
            columns = _star_columns(builder, item.expr)
            for column in columns:
                type_ = of_column(column)
                if type_ is None or type_.kind is Kind.DOUBLE:
                    raise unsupported(
                        f"DISTINCT with column {column.name} of type {column.type} over several shards"
                    )
                if type_.kind in {Kind.WEIGHT, Kind.MOMENT}:
                    raise unsupported(
                        "DISTINCT * with text or TIMESTAMP columns over several shards; name the columns"
                    )
                keys.append(lambda index=width, type_=type_: Key(index, type_))
                width += 1
            continue
        if isinstance(item.expr, Lit):
            keys.append(lambda index=width: Key(index, Type(Kind.BYTES)))
            width += 1
            continue
        keys.append(builder.same_key(item.expr, "DISTINCT with"))
        width += 1
    return keys, width


def _star_columns(builder: _Builder, star: Star) -> list[TableColumn]:
    found: list[TableColumn] = []
    if any(isinstance(source, Derived) for source in sources(builder.select.source)):
        raise unsupported("DISTINCT * of a derived table over several shards")
    for use in builder.blocks.scope.uses:
        if use.table is not None and star.table in {"", use.name}:
            found += [column for column in use.table.columns if not column.invisible]
    return found


def _groups(builder: _Builder) -> Scattered:
    """Groups have rows on several shards: aggregates of aggregates."""
    select = builder.select
    if select.distinct:
        raise unsupported("DISTINCT with aggregates over several shards")
    if select.having is not None:
        raise unsupported("HAVING over several shards unless the groups are by the primary vindex")
    groups = [builder.meant(expr) for expr in select.group]
    group_texts = {builder.text(expr) for expr in groups}
    group_keys = [builder.same_key(expr, "GROUP BY") for expr in groups]
    columns: list[Callable[[], Column]] = []
    for number, item in enumerate(select.items):
        columns += _aggregated(builder, item.expr, number, group_texts)
    order = [
        _group_order(builder, key.expr, descending=key.descending, columns=columns, groups=group_texts)
        for key in select.order
        if not is_null(key.expr)
    ]
    limit = select.limit
    changes = builder.changes(keep_limit=False)
    hidden = len(builder.helpers)

    def merge(literals: Literals) -> Merge:
        count, offset = (None, 0) if limit is None else limit_of(limit, literals)
        return Merge(
            order=tuple(key() for key in order),
            limit=count,
            offset=offset,
            hidden=hidden,
            columns=tuple(column() for column in columns),
            groups=tuple(key() for key in group_keys),
        )

    return Scattered(changes, merge, hidden, not builder.fresh)


def _aggregated(
    builder: _Builder, expr: Expr, index: int, groups: set[bytes]
) -> Sequence[Callable[[], Column]]:
    """The columns to compute for one select item (or helper) at ``index``."""
    if isinstance(expr, Star):
        raise unsupported("* with aggregates over several shards")
    if isinstance(expr, Lit) or builder.text(expr) in groups:
        return ()
    if not is_aggregate(expr):
        raise unsupported("a column that is neither grouped by nor aggregated, over several shards")
    if isinstance(expr, Call) and expr.name in AGGREGATES - _MERGED.keys():
        raise unsupported(
            f"{expr.name} over several shards unless the groups are by the primary vindex; select the rows "
            "themselves"
        )
    if not isinstance(expr, Call) or expr.name not in _MERGED or expr.opaque:
        raise unsupported("an expression of aggregates over several shards; select the aggregates themselves")
    how = _MERGED[expr.name]
    if how is Aggregate.COUNT:
        if expr.distinct:
            raise unsupported("COUNT(DISTINCT …) over several shards")
        return (lambda: Column(index, how),)
    (argument,) = expr.args
    if any(isinstance(part, Sub) for part in walk(argument)):
        raise unsupported("subqueries in aggregates over several shards")
    if how is Aggregate.FIRST:
        if not builder.select.group:  # a shard without rows has one too, of NULL
            raise unsupported("ANY_VALUE without GROUP BY over several shards")
        return ()
    type_ = builder.type(argument)
    if how in {Aggregate.SUM, Aggregate.AVG}:
        if type_ != NUMBER or expr.distinct:
            raise unsupported(f"{expr.name} of something other than exact numbers over several shards")
        builder.check_addable(expr.name, argument)
        if how is Aggregate.SUM:
            return (lambda: Column(index, how),)
        total = builder.helper(b"SUM(", argument, b")")
        count = builder.helper(b"COUNT(", argument, b")")
        return (lambda: Column(index, how, total=(builder.place(total), builder.place(count))),)
    if type_ is None or type_.kind is Kind.LABEL:
        raise unsupported(f"{expr.name} of this type over several shards")
    compared = _compared(builder, expr, type_)
    return (lambda: Column(index, how, type_, index if compared is None else builder.place(compared)),)


def _compared(builder: _Builder, expr: Call, type_: Type) -> int | None:
    """The helper by which MIN and MAX compare, where the value itself does not say enough."""
    if type_.kind is Kind.WEIGHT:
        return builder.helper(b"WEIGHT_STRING(", expr, b")")
    if type_.kind is Kind.MOMENT:
        return builder.best_moment(expr)
    if type_.single:
        return builder.helper(b"(", expr, b")+0e0")
    return None


def _group_order(
    builder: _Builder,
    expr: Expr,
    *,
    descending: bool,
    columns: list[Callable[[], Column]],
    groups: set[bytes],
) -> Callable[[], Key]:
    """A key by which merged groups are sorted."""
    meant = builder.meant(expr)
    if not is_aggregate(meant):
        if builder.text(meant) not in groups:
            raise unsupported("ORDER BY of something neither grouped by nor aggregated, over several shards")
        return builder.sort_key(meant, descending=descending)
    type_ = builder.type(meant)
    if type_ is None or type_.kind is Kind.WEIGHT or type_.single:
        raise unsupported("ORDER BY this aggregate over several shards")
    number = builder.visible(meant) if type_.kind is not Kind.MOMENT else None
    if number is not None:
        return lambda: builder.key(number, type_, descending=descending)
    helper = builder.helper(b"(", meant, b")")
    computed = [_at(builder, helper, made) for made in _aggregated(builder, meant, 0, groups)]
    columns += computed
    if type_.kind is Kind.MOMENT:
        (moment,) = computed
        return lambda: Key(moment().compared, type_, descending, builder.place(helper))
    return lambda: builder.key(builder.place(helper), type_, descending=descending)


def _at(builder: _Builder, helper: int, made: Callable[[], Column]) -> Callable[[], Column]:
    """The column, computed into a helper's place."""

    def column() -> Column:
        found, index = made(), builder.place(helper)
        compared = index if found.compared == found.index else found.compared
        return replace(found, index=index, compared=compared)

    return column
