"""What a parsed statement is made of. Every node knows the bytes it was written with.

Plans are made by looking at these nodes and by changing the original text at their places; text is never made
from nodes, so that what the parser does not care about reaches the server as the client wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class Node:
    """``start`` and ``end`` are byte offsets in the text."""

    start: int
    end: int


@dataclass(slots=True)
class Lit(Node):
    """A literal. ``kind`` is int, dec (with point or exponent), str, hex, null, bool or param.

    ``index`` counts the statement's literals as ``sql_tokens.literals`` does; -1 for null, bool and param.
    ``negative``: a minus stands before it (it is within ``start`` … ``end``).
    """

    kind: str
    text: bytes
    index: int = -1
    negative: bool = False


@dataclass(slots=True)
class Col(Node):
    """A column, with the qualifiers as written (empty: none)."""

    schema: str
    table: str
    name: str


@dataclass(slots=True)
class Star(Node):
    """``*`` or ``t.*`` in a select list."""

    table: str


@dataclass(slots=True)
class Op(Node):
    """An operator or any other construct with parts. ``op`` names it; only these are looked at by name:
    AND, OR, XOR, NOT, =, and the arithmetic ones.
    """

    op: str
    args: list[Expr]


@dataclass(slots=True)
class Call(Node):
    """A function call; ``name`` in capitals. ``opaque``: the arguments were not understood (``args`` empty).
    ``star``: COUNT(*). ``over``: a window function. ``inside``: functions named in opaque arguments.
    """

    name: str
    args: list[Expr] = field(default_factory=list["Expr"])
    distinct: bool = False
    star: bool = False
    over: bool = False
    opaque: bool = False
    inside: frozenset[str] = frozenset()


@dataclass(slots=True)
class In(Node):
    """``expr [NOT] IN (items)`` or ``(query)``."""

    expr: Expr
    items: list[Expr]
    query: Query | None
    negated: bool


@dataclass(slots=True)
class Sub(Node):
    """A subquery as an expression. ``kind`` is exists, all (ANY, SOME, ALL) or scalar."""

    query: Query
    kind: str


@dataclass(slots=True)
class Var(Node):
    """``@name`` (``user``) or ``@@name``."""

    user: bool


Expr = Lit | Col | Star | Op | Call | In | Sub | Var


@dataclass(slots=True)
class Item(Node):
    """One expression of a select list. ``alias`` is empty where there is none."""

    expr: Expr
    alias: str


@dataclass(slots=True)
class Order(Node):
    """One key of ORDER BY."""

    expr: Expr
    descending: bool


@dataclass(slots=True)
class Source(Node):
    """A table in FROM. ``start`` is where its name begins, as in the statement's scan."""

    schema: str
    table: str
    alias: str

    @property
    def known_as(self) -> str:
        """What columns qualify it by."""
        return self.alias or self.table


@dataclass(slots=True)
class Derived(Node):
    """A query in FROM."""

    query: Query
    alias: str


@dataclass(slots=True)
class Join(Node):
    """``kind`` is inner (also cross and comma), left or right."""

    left: From
    right: From
    kind: str
    on: Expr | None = None
    using: tuple[str, ...] = ()
    natural: bool = False


From = Source | Derived | Join


@dataclass(slots=True)
class Limit(Node):
    """``LIMIT count OFFSET offset``; ``start`` is at the word LIMIT."""

    count: Lit
    offset: Lit | None


@dataclass(slots=True)
class Select(Node):
    """One SELECT. ``items_end`` is where more of the select list can be put in.

    ``tail_start``: where ORDER BY, LIMIT or what follows begins; ``odd`` names a clause that no plan over
    several shards can have (INTO, WINDOW, WITH ROLLUP, SQL_CALC_FOUND_ROWS).
    """

    items: list[Item] = field(default_factory=list[Item])
    items_end: int = 0
    distinct: bool = False
    source: From | None = None
    where: Expr | None = None
    group: list[Expr] = field(default_factory=list["Expr"])
    having: Expr | None = None
    order: list[Order] = field(default_factory=list[Order])
    limit: Limit | None = None
    ctes: list[tuple[str, Query]] = field(default_factory=list[tuple[str, "Query"]])
    odd: str = ""


@dataclass(slots=True)
class Union(Node):
    """Queries joined by UNION, EXCEPT or INTERSECT; ``all``: every joint is UNION ALL."""

    parts: list[Query]
    all: bool
    order: list[Order] = field(default_factory=list[Order])
    limit: Limit | None = None
    ctes: list[tuple[str, Query]] = field(default_factory=list[tuple[str, "Query"]])


Query = Select | Union


@dataclass(slots=True)
class Assign(Node):
    """``column = expr``."""

    column: Col
    value: Expr


@dataclass(slots=True)
class RowOf(Node):
    """One row of VALUES; ``start`` is at its parenthesis."""

    values: list[Expr]


@dataclass(slots=True)
class Insert(Node):
    """INSERT or REPLACE of rows. ``columns`` is None where the statement names none.

    :param columns_end: where the list of columns closes; ``table_end``: where the table's name ends.
    :param query: INSERT … SELECT. ``ignore``: rows in conflict are left out.
    """

    table: Source
    replace: bool
    ignore: bool = False
    columns: list[Col] | None = None
    columns_end: int = 0
    table_end: int = 0
    rows: list[RowOf] = field(default_factory=list[RowOf])
    assigns: list[Assign] = field(default_factory=list[Assign])
    on_duplicate: list[Assign] = field(default_factory=list[Assign])
    query: Query | None = None


@dataclass(slots=True)
class Update(Node):
    """UPDATE of one or joined tables."""

    source: From
    assigns: list[Assign] = field(default_factory=list[Assign])
    where: Expr | None = None
    order: list[Order] = field(default_factory=list[Order])
    limit: Limit | None = None


@dataclass(slots=True)
class Delete(Node):
    """DELETE; ``many`` where the tables to delete from are listed apart."""

    source: From
    many: bool = False
    where: Expr | None = None
    order: list[Order] = field(default_factory=list[Order])
    limit: Limit | None = None


Statement = Select | Union | Insert | Update | Delete


def children(expr: Expr) -> Iterator[Expr]:
    """The expressions directly inside one; a subquery's own are not among them."""
    match expr:
        case Op(args=args) | Call(args=args):
            yield from args
        case In(expr=left, items=items):
            yield left
            yield from items
        case _:
            return


def walk(expr: Expr) -> Iterator[Expr]:
    """An expression and all inside it, but not into subqueries."""
    yield expr
    for child in children(expr):
        yield from walk(child)


def conjuncts(expr: Expr | None) -> Iterator[Expr]:
    """The parts of a condition that all must hold."""
    if expr is None:
        return
    if isinstance(expr, Op) and expr.op == "AND":
        for arg in expr.args:
            yield from conjuncts(arg)
    else:
        yield expr


def sources(source: From | None) -> Iterator[Source | Derived]:
    """The tables of a FROM clause from left to right."""
    match source:
        case None:
            return
        case Join(left=left, right=right):
            yield from sources(left)
            yield from sources(right)
        case _:
            yield source


def expressions_of(statement: Statement) -> Iterator[Expr]:
    """Every expression of a statement with all inside it, subqueries too."""
    for expr in _own_expressions(statement):
        for part in walk(expr):
            yield part
            match part:
                case Sub(query=query):
                    yield from expressions_of(query)
                case In(query=query) if query is not None:
                    yield from expressions_of(query)
                case _:
                    pass


def _own_expressions(statement: Statement) -> Iterator[Expr]:
    match statement:
        case Select():
            yield from (item.expr for item in statement.items)
            yield from statement.group
            if statement.having is not None:
                yield statement.having
            yield from _of_source(statement.source)
            for _, query in statement.ctes:
                yield from expressions_of(query)
        case Union():
            for query in (*statement.parts, *(query for _, query in statement.ctes)):
                yield from expressions_of(query)
        case Insert():
            for row in statement.rows:
                yield from row.values
            yield from (assign.value for assign in (*statement.assigns, *statement.on_duplicate))
            if statement.query is not None:
                yield from expressions_of(statement.query)
            return
        case Update():
            yield from (assign.value for assign in statement.assigns)
            yield from _of_source(statement.source)
        case Delete():
            yield from _of_source(statement.source)
    if not isinstance(statement, Union) and statement.where is not None:
        yield statement.where
    yield from (key.expr for key in statement.order)


def _of_source(source: From | None) -> Iterator[Expr]:
    match source:
        case Join(left=left, right=right, on=on):
            yield from _of_source(left)
            yield from _of_source(right)
            if on is not None:
                yield on
        case Derived(query=query):
            yield from expressions_of(query)
        case _:
            return
