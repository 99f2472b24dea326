"""SELECT, INSERT, REPLACE, UPDATE and DELETE, parsed as far as plans over shards need to understand them.

Anything else in the text is an error, so that a statement on a sharded keyspace is either wholly understood
or refused.
"""

from __future__ import annotations

from homeworld.gateway.sql_ast import (
    Assign,
    Col,
    Delete,
    Derived,
    From,
    Insert,
    Item,
    Join,
    Limit,
    Lit,
    Order,
    Query,
    RowOf,
    Select,
    Source,
    Statement,
    Union,
    Update,
)
from homeworld.gateway.sql_expressions import ExpressionParser
from homeworld.gateway.sql_tokens import Kind, Token, string_value

_MODIFIERS = frozenset(
    {b"ALL", b"HIGH_PRIORITY", b"SQL_SMALL_RESULT", b"SQL_BIG_RESULT", b"SQL_BUFFER_RESULT", b"SQL_NO_CACHE",
     b"SQL_CACHE"}
)  # fmt: skip
_SET_OPERATORS = frozenset({b"UNION", b"EXCEPT", b"INTERSECT"})


def parse(words: list[Token]) -> Statement:
    """Parse a statement's tokens (without comments).

    :raises SqlSyntaxError: something in it is not understood.
    """
    parser = _Parser(words)
    match parser.peek():
        case b"INSERT" | b"REPLACE":
            found: Statement = parser.insert()
        case b"UPDATE":
            found = parser.update()
        case b"DELETE":
            found = parser.delete()
        case _:
            found = parser.query()
    if parser.at != len(words):
        raise parser.error()
    return found


class _Parser(ExpressionParser):
    # --- queries

    def query(self) -> Query:
        start = self.start()
        ctes = self._with()
        parts = [self._query_part()]
        if self.peek() not in _SET_OPERATORS:
            (only,) = parts
            if ctes:
                only.ctes = ctes + only.ctes
                only.start = start
            return only
        every_all = True
        while self.peek() in _SET_OPERATORS:
            operator = self.next().upper
            is_all = self.accept(b"ALL")
            self.accept(b"DISTINCT")
            every_all = every_all and is_all and operator == b"UNION"
            parts.append(self._query_part())
        found = Union(start, self.end(), parts, every_all, ctes=ctes)
        last = parts[-1]
        if isinstance(last, Select) and not self._parenthesised(last):
            # What stands behind the last SELECT belongs to the union.
            found.order, last.order = last.order, []
            found.limit, last.limit = last.limit, None
        if self.peek() in {b"ORDER", b"LIMIT"}:
            found.order = self._order()
            found.limit = self._limit()
        found.end = self.end()
        return found

    def _parenthesised(self, part: Select) -> bool:
        return self.words[self.at - 1].text == b")" and self.words[self.at - 1].start >= part.end

    def _with(self) -> list[tuple[str, Query]]:
        found: list[tuple[str, Query]] = []
        if not self.accept(b"WITH"):
            return found
        self.accept(b"RECURSIVE")
        while True:
            name = self.name()
            if self.peek() == b"(":
                self.skip_parentheses()
            self.expect(b"AS")
            self.expect(b"(")
            found.append((name, self.query()))
            self.expect(b")")
            if not self.accept(b","):
                return found

    def _query_part(self) -> Query:
        if self.accept(b"("):
            found = self.query()
            self.expect(b")")
            return found
        return self._select()

    def _select(self) -> Select:
        start = self.expect(b"SELECT").start
        found = Select(start, start)
        while True:
            if self.accept(b"DISTINCT", b"DISTINCTROW"):
                found.distinct = True
            elif self.accept(b"SQL_CALC_FOUND_ROWS"):
                found.odd = "SQL_CALC_FOUND_ROWS"
            elif not self.accept(*_MODIFIERS, b"STRAIGHT_JOIN"):
                break
        found.items.append(self._item())
        while self.accept(b","):
            found.items.append(self._item())
        found.items_end = self.end()
        self._into(found)
        if self.accept(b"FROM") and not self.accept(b"DUAL"):
            found.source = self.table_references()
        if self.accept(b"WHERE"):
            found.where = self.expression()
        if self.peek() == b"GROUP":
            self._group(found)
        if self.accept(b"HAVING"):
            found.having = self.expression()
        if self.peek() == b"WINDOW":
            raise self.error()
        found.order = self._order()
        found.limit = self._limit()
        self._into(found)
        self._locking()
        self._into(found)
        found.end = self.end()
        return found

    def _group(self, found: Select) -> None:
        self.at += 1
        self.expect(b"BY")
        found.group = self.expressions()
        if self.accept(b"WITH"):
            self.expect(b"ROLLUP")
            found.odd = "WITH ROLLUP"

    def _item(self) -> Item:
        start = self.start()
        star = self.star()
        if star is not None:
            return Item(start, star.end, star, "")
        expr = self.expression()
        alias = ""
        if self.accept(b"AS") or self.is_name() or self.kind() is Kind.STRING:
            alias = self._alias()
        return Item(start, self.end(), expr, alias)

    def _alias(self) -> str:
        if self.kind() is Kind.STRING:
            return string_value(self.next().text).decode("utf-8", "surrogateescape")
        return self.name()

    def _into(self, found: Select) -> None:
        if self.accept(b"INTO"):
            found.odd = "SELECT INTO"
            if self.accept(b"OUTFILE", b"DUMPFILE"):
                raise self.error()
            self.next()
            while self.accept(b","):
                self.next()

    def _locking(self) -> None:
        while self.peek() in {b"FOR", b"LOCK"}:
            if self.accept(b"LOCK"):
                self.expect(b"IN")
                self.expect(b"SHARE")
                self.expect(b"MODE")
                continue
            self.at += 1
            if not self.accept(b"UPDATE", b"SHARE"):
                raise self.error()
            if self.accept(b"OF"):
                self.name()
                while self.accept(b","):
                    self.name()
            if self.accept(b"SKIP"):
                self.expect(b"LOCKED")
            elif self.accept(b"WAIT"):
                self.next()
            else:
                self.accept(b"NOWAIT")

    def _order(self) -> list[Order]:
        found: list[Order] = []
        if not self.accept(b"ORDER"):
            return found
        self.expect(b"BY")
        while True:
            expr = self.expression()
            descending = self.accept(b"DESC")
            if not descending:
                self.accept(b"ASC")
            found.append(Order(expr.start, self.end(), expr, descending))
            if not self.accept(b","):
                return found

    def _limit(self) -> Limit | None:
        start = self.start()
        if not self.accept(b"LIMIT"):
            return None
        first = self._limit_number()
        if self.accept(b","):
            count = self._limit_number()
            return Limit(start, self.end(), count, first)
        offset = self._limit_number() if self.accept(b"OFFSET") else None
        return Limit(start, self.end(), first, offset)

    def _limit_number(self) -> Lit:
        found = self.expression()
        if not isinstance(found, Lit) or found.kind not in {"int", "param"} or found.negative:
            raise self.error()
        return found

    # --- FROM

    def table_references(self) -> From:
        """Tables with their joins; a comma joins as CROSS JOIN does, but binds less."""
        found = self._joined()
        while self.accept(b","):
            right = self._joined()
            found = Join(found.start, self.end(), found, right, "inner")
        return found

    def _joined(self) -> From:
        found = self._factor()
        while True:
            start = found.start
            natural = self.accept(b"NATURAL")
            kind = self._join_kind()
            if kind is None:
                if natural:
                    raise self.error()
                return found
            right = self._factor()
            join = Join(start, self.end(), found, right, kind, natural=natural)
            if not natural:
                self._join_condition(join)
            join.end = self.end()
            found = join

    def _join_kind(self) -> str | None:
        if self.accept(b"JOIN", b"STRAIGHT_JOIN"):
            return "inner"
        if self.peek() in {b"INNER", b"CROSS"} and self.peek(1) == b"JOIN":
            self.at += 2
            return "inner"
        if self.peek() in {b"LEFT", b"RIGHT"}:
            kind = self.next().upper.decode().lower()
            self.accept(b"OUTER")
            self.expect(b"JOIN")
            return kind
        return None

    def _join_condition(self, join: Join) -> None:
        if self.accept(b"ON"):
            join.on = self.expression()
        elif self.accept(b"USING"):
            self.expect(b"(")
            names = [self.name()]
            while self.accept(b","):
                names.append(self.name())
            self.expect(b")")
            join.using = tuple(names)
        elif join.kind != "inner":
            raise self.error()

    def _factor(self) -> From:
        start = self.start()
        if self.peek() == b"(":
            if self.behind_open() in {b"SELECT", b"WITH"}:
                self.at += 1
                query = self.query()
                self.expect(b")")
                self.accept(b"AS")
                alias = self.name()
                if self.peek() == b"(":
                    raise self.error()
                return Derived(start, self.end(), query, alias)
            self.at += 1
            found = self.table_references()
            self.expect(b")")
            return found
        return self._table()

    def _table(self) -> Source:
        found = self._table_name()
        if self.peek() == b"PARTITION" and self.peek(1) == b"(":
            self.at += 1
            self.skip_parentheses()
        if self.accept(b"AS") or self.is_name():
            found.alias = self.name()
        while self.peek() in {b"USE", b"FORCE", b"IGNORE"}:
            self.at += 1
            if not self.accept(b"INDEX", b"KEY"):
                raise self.error()
            if self.accept(b"FOR"):
                while self.peek() != b"(":
                    self.next()
            self.skip_parentheses()
            self.accept(b",")
        return found

    def _table_name(self) -> Source:
        start = self.start()
        first = self.name()
        schema, table = "", first
        if self.peek() == b".":
            self.at += 1
            if self.kind() not in (Kind.WORD, Kind.QUOTED):
                raise self.error()
            schema, table = first, self.next().name()
        return Source(start, self.end(), schema, table, "")

    # --- writes

    def insert(self) -> Insert:
        """INSERT and REPLACE."""
        token = self.next()
        ignore = False
        while (ignores := self.accept(b"IGNORE")) or self.accept(
            b"LOW_PRIORITY", b"DELAYED", b"HIGH_PRIORITY"
        ):
            ignore |= ignores
        self.accept(b"INTO")
        table = self._table_name()
        found = Insert(token.start, token.end, table, token.upper == b"REPLACE", ignore, table_end=self.end())
        if self.peek() == b"PARTITION":
            raise self.error()
        if self.peek() == b"(" and self.peek(1) not in {b"SELECT", b"WITH", b"("}:
            self.at += 1
            found.columns = [] if self.peek() == b")" else [self._plain_column()]
            while self.accept(b","):
                found.columns.append(self._plain_column())
            found.columns_end = self.expect(b")").start
        if self.peek() in {b"VALUES", b"VALUE"}:
            self.at += 1
            self._rows(found)
        elif self.accept(b"SET"):
            found.assigns = self._assignments()
        else:
            found.query = self.query()
        if self.accept(b"AS"):
            self.name()
            if self.peek() == b"(":
                self.skip_parentheses()
        if self.accept(b"ON"):
            self.expect(b"DUPLICATE")
            self.expect(b"KEY")
            self.expect(b"UPDATE")
            found.on_duplicate = self._assignments()
        found.end = self.end()
        return found

    def _plain_column(self) -> Col:
        start = self.start()
        parts = [self.name()]
        while self.accept(b"."):
            parts.append(self.next().name())
        if len(parts) > 3:
            raise self.error()
        schema, table, name = ("", "", *parts)[-3:]
        return Col(start, self.end(), schema, table, name)

    def _rows(self, found: Insert) -> None:
        while True:
            if self.peek() == b"ROW":
                raise self.error()
            start = self.expect(b"(").start
            values = [] if self.peek() == b")" else self.expressions()
            self.expect(b")")
            found.rows.append(RowOf(start, self.end(), values))
            if not self.accept(b","):
                return

    def _assignments(self) -> list[Assign]:
        found: list[Assign] = []
        while True:
            column = self._plain_column()
            if not self.accept(b"=", b":="):
                raise self.error()
            value = self.expression()
            found.append(Assign(column.start, self.end(), column, value))
            if not self.accept(b","):
                return found

    def update(self) -> Update:
        """UPDATE."""
        start = self.next().start
        while self.accept(b"LOW_PRIORITY", b"IGNORE"):
            pass
        found = Update(start, start, self.table_references())
        self.expect(b"SET")
        found.assigns = self._assignments()
        if self.accept(b"WHERE"):
            found.where = self.expression()
        found.order = self._order()
        found.limit = self._limit()
        found.end = self.end()
        return found

    def delete(self) -> Delete:
        """DELETE, in its three forms."""
        start = self.next().start
        while self.accept(b"LOW_PRIORITY", b"QUICK", b"IGNORE"):
            pass
        many = self.peek() != b"FROM"
        if many:
            self._targets()
            self.expect(b"FROM")
            found = Delete(start, start, self.table_references(), many=True)
        else:
            self.at += 1
            before = self.at
            source: From = self._table()
            if self.peek() in {b",", b".", b"USING"}:
                self.at = before
                self._targets()
                self.expect(b"USING")
                found = Delete(start, start, self.table_references(), many=True)
            else:
                found = Delete(start, start, source)
        if self.accept(b"WHERE"):
            found.where = self.expression()
        found.order = self._order()
        found.limit = self._limit()
        found.end = self.end()
        return found

    def _targets(self) -> None:
        while True:
            self.name()
            while self.accept(b"."):
                if not self.accept(b"*"):
                    self.name()
            if not self.accept(b","):
                return
