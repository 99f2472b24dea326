"""Expressions of MySQL's grammar, parsed with its precedence.

The grammar is followed level by level (OR, XOR, AND, NOT, comparisons, predicates, bit expressions, simple
expressions), because where a condition's AND ends decides which shard a statement goes to. What is not
understood is an error, and then the statement is refused.
"""

from __future__ import annotations

from collections.abc import Callable

from homeworld.gateway.sql_ast import Call, Col, Expr, In, Lit, Op, Query, Star, Sub, Var
from homeworld.gateway.sql_tokens import LITERALS, Kind, SqlSyntaxError, Token


def _words(text: str) -> frozenset[bytes]:
    return frozenset(text.encode().split())


# Words that cannot be names unless they are quoted, as far as they can stand where a name could.
RESERVED = _words(
    """ACCESSIBLE ADD ALL ALTER ANALYZE AND AS ASC BEFORE BETWEEN BINARY BOTH BY CALL CASCADE CASE CHANGE
    CHARACTER CHECK COLLATE COLUMN CONDITION CONSTRAINT CONTINUE CREATE CROSS CUBE CURSOR DECLARE DEFAULT
    DELAYED DELETE DESC DESCRIBE DETERMINISTIC DISTINCT DISTINCTROW DIV DROP EACH ELSE ELSEIF ENCLOSED ESCAPED
    EXCEPT EXISTS EXIT EXPLAIN FALSE FETCH FOR FORCE FOREIGN FROM FULLTEXT GRANT GROUP HAVING HIGH_PRIORITY IF
    IGNORE IN INDEX INFILE INNER INOUT INSERT INTERSECT INTERVAL INTO IS ITERATE JOIN KEY KEYS KILL LATERAL
    LEADING LEAVE LEFT LIKE LIMIT LINEAR LINES LOAD LOCK LOOP LOW_PRIORITY MATCH MOD NATURAL NOT NULL ON
    OPTIMIZE OPTION OPTIONALLY OR ORDER OUT OUTER OUTFILE OVER PARTITION PRIMARY PROCEDURE PURGE RANGE READ
    REFERENCES REGEXP RELEASE RENAME REPEAT REPLACE REQUIRE RESTRICT RETURN RETURNING REVOKE RIGHT RLIKE
    SELECT SEPARATOR SET SHOW SPATIAL SQL STARTING STORED STRAIGHT_JOIN TABLE TERMINATED THEN TO TRAILING
    TRIGGER TRUE UNDO UNION UNIQUE UNLOCK UPDATE USAGE USE USING VALUES VIRTUAL WHEN WHERE WHILE WINDOW WITH
    WRITE XOR"""
)
_RESERVED_CALLS = _words("CHARACTER IF INSERT LEFT MOD REPEAT REPLACE RIGHT VALUES DEFAULT BINARY")
# Functions whose arguments have a grammar of their own.
_OWN_GRAMMAR = frozenset({"CONVERT", "GET_FORMAT", "JSON_VALUE"})
_BARE_CALLS = _words(
    """CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP CURRENT_USER LOCALTIME LOCALTIMESTAMP UTC_DATE UTC_TIME
    UTC_TIMESTAMP"""
)
_COMPARE = frozenset({b"=", b"<=>", b">=", b">", b"<=", b"<", b"<>", b"!="})
_BITS: dict[bytes, int] = {
    b"|": 1, b"&": 2, b"<<": 3, b">>": 3, b"+": 4, b"-": 4, b"*": 5, b"/": 5, b"DIV": 5, b"%": 5, b"MOD": 5,
    b"^": 6,
}  # fmt: skip
_QUERY_STARTS = frozenset({b"SELECT", b"WITH", b"TABLE", b"VALUES"})


class ExpressionParser:
    """A cursor over tokens. Statements are parsed by the subclass in ``sql_parse``."""

    def __init__(self, words: list[Token]) -> None:
        self.words = words
        self.at = 0
        self._literal_at: dict[int, int] = {}
        # Each is looked for once, however deep the text nests: where a parenthesis closes, and what stands
        # behind several that open.
        self._closing: dict[int, int] = {}
        self._inner: dict[int, int] = {}
        open_: list[int] = []
        for at, token in enumerate(words):
            if token.kind in LITERALS:
                self._literal_at[token.start] = len(self._literal_at)
            elif token.kind is Kind.OP and token.text == b"(":
                open_.append(at)
            elif token.kind is Kind.OP and token.text == b")" and open_:
                self._closing[open_.pop()] = at

    # --- the cursor

    def peek(self, ahead: int = 0) -> bytes:
        """The token ahead, in capitals where it is a word; empty behind the end, and for quoted names."""
        at = self.at + ahead
        if at >= len(self.words) or self.words[at].kind in (Kind.QUOTED, Kind.STRING):
            return b""
        return self.words[at].upper

    def kind(self, ahead: int = 0) -> Kind | None:
        """The kind of the token ahead."""
        at = self.at + ahead
        return self.words[at].kind if at < len(self.words) else None

    def next(self) -> Token:
        """Take a token."""
        if self.at >= len(self.words):
            raise self.error()
        self.at += 1
        return self.words[self.at - 1]

    def accept(self, *wanted: bytes) -> bool:
        """Take the token if it is one of those."""
        if self.peek() in wanted:
            self.at += 1
            return True
        return False

    def expect(self, wanted: bytes) -> Token:
        """Take the token, which must be that."""
        if self.peek() != wanted:
            raise self.error()
        return self.next()

    def error(self) -> SqlSyntaxError:
        """What to raise where the text goes on in a way that is not understood."""
        near = b" ".join(word.text for word in self.words[self.at : self.at + 6])
        return SqlSyntaxError(f"syntax near '{near.decode('utf-8', 'replace')}'")

    def start(self) -> int:
        """Where the next token begins."""
        return self.words[self.at].start if self.at < len(self.words) else self.end()

    def end(self) -> int:
        """Where the last taken token ended."""
        return self.words[self.at - 1].end if self.at else 0

    def is_name(self, ahead: int = 0) -> bool:
        """Whether the token can be a name where no keyword is meant."""
        kind = self.kind(ahead)
        return kind is Kind.QUOTED or (kind is Kind.WORD and self.peek(ahead) not in RESERVED)

    def name(self) -> str:
        """Take a name."""
        if not self.is_name():
            raise self.error()
        return self.next().name()

    # --- expressions, from the weakest binding to the strongest

    def expression(self) -> Expr:
        """``expr`` of the grammar."""
        return self._chain(self._xor, "OR", (b"OR", b"||"))

    def _xor(self) -> Expr:
        return self._chain(self._and, "XOR", (b"XOR",))

    def _and(self) -> Expr:
        return self._chain(self._not, "AND", (b"AND", b"&&"))

    def _chain(self, part: Callable[[], Expr], name: str, words: tuple[bytes, ...]) -> Expr:
        first = part()
        if self.peek() not in words:
            return first
        args = [first]
        while self.accept(*words):
            args.append(part())
        return Op(first.start, self.end(), name, args)

    def _not(self) -> Expr:
        start = self.start()
        if self.accept(b"NOT"):
            inner = self._not()
            return Op(start, self.end(), "NOT", [inner])
        found = self._comparison()
        while self.peek() == b"IS":
            self.at += 1
            self.accept(b"NOT")
            if not self.accept(b"TRUE", b"FALSE", b"UNKNOWN", b"NULL"):
                raise self.error()
            found = Op(start, self.end(), "IS", [found])
            if self.peek() in _COMPARE:  # a IS NULL = b
                raise self.error()
        return found

    def _comparison(self) -> Expr:
        start = self.start()
        found = self._predicate()
        while (op := self.peek()) in _COMPARE:
            self.at += 1
            if self.accept(b"ALL", b"ANY", b"SOME"):
                query = self._subquery()
                found = Op(start, self.end(), "?", [found, Sub(query.start, query.end, query, "all")])
            else:
                right = self._predicate()
                found = Op(start, self.end(), op.decode(), [found, right])
        return found

    def _predicate(self) -> Expr:
        start = self.start()
        left = self._bits(1)
        negated = self.peek() == b"NOT" and self.peek(1) in {b"IN", b"BETWEEN", b"LIKE", b"REGEXP", b"RLIKE"}
        if negated:
            self.at += 1
        word = self.peek()
        if word == b"IN":
            self.at += 1
            return self._in(left, start, negated=negated)
        if word == b"BETWEEN":
            self.at += 1
            low = self._bits(1)
            self.expect(b"AND")
            high = self._predicate()
            return Op(start, self.end(), "BETWEEN", [left, low, high])
        if word == b"LIKE":
            self.at += 1
            args = [left, self._simple()]
            if self.accept(b"ESCAPE"):
                args.append(self._simple())
            return Op(start, self.end(), "LIKE", args)
        if word in {b"REGEXP", b"RLIKE"}:
            self.at += 1
            pattern = self._bits(1)
            return Op(start, self.end(), "REGEXP", [left, pattern])
        if word == b"SOUNDS" and self.peek(1) == b"LIKE":
            self.at += 2
            other = self._bits(1)
            return Op(start, self.end(), "SOUNDS", [left, other])
        if word == b"MEMBER":
            self.at += 1
            self.accept(b"OF")
            self.expect(b"(")
            right = self._simple()
            self.expect(b")")
            return Op(start, self.end(), "MEMBER", [left, right])
        return left

    def _in(self, left: Expr, start: int, *, negated: bool) -> Expr:
        if self.peek() == b"(" and self.peek(1) in _QUERY_STARTS:
            query = self._subquery()
            return In(start, self.end(), left, [], query, negated)
        self.expect(b"(")
        items = self.expressions()
        self.expect(b")")
        return In(start, self.end(), left, items, None, negated)

    def expressions(self) -> list[Expr]:
        """Expressions separated by commas."""
        found = [self.expression()]
        while self.accept(b","):
            found.append(self.expression())
        return found

    def _bits(self, least: int) -> Expr:
        start = self.start()
        left = self._simple()
        while (level := _BITS.get(self.peek(), 0)) >= least:
            op = self.next().upper.decode()
            right = self._interval() if self.peek() == b"INTERVAL" else self._bits(level + 1)
            left = Op(start, self.end(), op, [left, right])
        return left

    def _interval(self) -> Expr:
        start = self.start()
        self.expect(b"INTERVAL")
        amount = self.expression()
        if self.kind() is not Kind.WORD:
            raise self.error()
        self.next()  # the unit
        return Op(start, self.end(), "INTERVAL", [amount])

    def _simple(self) -> Expr:
        start = self.start()
        found = self._operand()
        while True:
            if self.accept(b"COLLATE"):
                if not self.is_name() and self.kind() is not Kind.STRING and self.peek() != b"BINARY":
                    raise self.error()
                self.next()
                found = Op(start, self.end(), "COLLATE", [found])
            elif self.accept(b"->", b"->>"):
                if self.kind() is not Kind.STRING:
                    raise self.error()
                self.next()
                found = Op(start, self.end(), "->", [found])
            else:
                return found

    def _operand(self) -> Expr:
        start = self.start()
        kind = self.kind()
        if kind is None:
            raise self.error()
        if kind in LITERALS:
            return self._literal()
        if kind is Kind.PARAM:
            token = self.next()
            return Lit(token.start, token.end, "param", token.text)
        if kind is Kind.VARIABLE:
            token = self.next()
            if self.peek() == b":=":
                raise self.error()
            return Var(start, token.end, not token.text.startswith(b"@@"))
        if kind is Kind.OP:
            return self._operator_first()
        if kind is Kind.QUOTED:
            return self._column()
        return self._word_first()

    def _literal(self) -> Expr:
        token = self.next()
        index = self._literal_at[token.start]
        if token.kind is Kind.STRING:
            if self.kind() is Kind.STRING:  # 'a' 'b' is one string
                while self.kind() is Kind.STRING:
                    self.next()
                return Op(token.start, self.end(), "STRINGS", [])
            return Lit(token.start, token.end, "str", token.text, index)
        if token.kind is Kind.HEX:
            return Lit(token.start, token.end, "hex", token.text, index)
        return Lit(token.start, token.end, "int" if token.text.isdigit() else "dec", token.text, index)

    def _operator_first(self) -> Expr:
        start = self.start()
        text = self.next().text
        if text == b"(":
            if self.behind_open() in _QUERY_STARTS:
                self.at -= 1
                query = self._subquery()
                return Sub(start, self.end(), query, "scalar")
            args = self.expressions()
            self.expect(b")")
            if len(args) == 1:
                return _spanning(args[0], start, self.end())
            return Op(start, self.end(), "ROW", args)
        if text in {b"-", b"+", b"~", b"!"}:
            operand = self._simple()
            plain = isinstance(operand, Lit) and operand.kind in {"int", "dec"} and not operand.negative
            if (
                text == b"-"
                and plain
                and isinstance(operand, Lit)
                and operand.start == self.end() - len(operand.text)
            ):
                return Lit(start, operand.end, operand.kind, operand.text, operand.index, negative=True)
            return Op(start, self.end(), "unary" + text.decode(), [operand])
        self.at -= 1
        raise self.error()

    def behind_open(self) -> bytes:
        """The word behind all the parentheses that open here."""
        at = self.at
        if at not in self._inner:
            ahead = 0
            while self.peek(ahead) == b"(":
                ahead += 1
            self._inner.update(dict.fromkeys(range(at, at + ahead + 1), at + ahead))
        return self.peek(self._inner[at] - at)

    def _word_first(self) -> Expr:
        start = self.start()
        word = self.peek()
        follows = self.peek(1)
        if word in {b"NULL", b"TRUE", b"FALSE"} and follows != b"(":
            token = self.next()
            return Lit(token.start, token.end, "null" if word == b"NULL" else "bool", token.upper)
        if word == b"EXISTS" and follows == b"(":
            self.at += 1
            query = self._subquery()
            return Sub(start, self.end(), query, "exists")
        if word == b"CASE":
            return self._case()
        if word == b"BINARY" and follows != b"(":
            self.at += 1
            operand = self._simple()
            return Op(start, self.end(), "BINARY", [operand])
        if word == b"INTERVAL":
            return self._call() if follows == b"(" and not self._unit_behind() else self._interval()
        if word == b"MATCH" and follows == b"(":
            return self._match()
        typed = word in {b"DATE", b"TIME", b"TIMESTAMP", b"N"} or word.startswith(b"_")
        if typed and (self.kind(1) is Kind.STRING or (word.startswith(b"_") and self.kind(1) is Kind.HEX)):
            joins = self.kind(1) is Kind.STRING and (word == b"N" or word.startswith(b"_"))
            self.at += 2
            while joins and self.kind() is Kind.STRING:
                self.next()
            return Op(start, self.end(), "TYPED", [])
        if word in _BARE_CALLS and follows != b"(":
            self.at += 1
            return Call(start, self.end(), word.decode())
        if word == b"DEFAULT" and follows != b"(":
            self.at += 1
            return Op(start, self.end(), "DEFAULT", [])
        if follows == b"(" and (word not in RESERVED or word in _RESERVED_CALLS):
            return self._call()
        if word in RESERVED:
            raise self.error()
        return self._column()

    def _column(self) -> Expr:
        start = self.start()
        parts = [self.name()]
        while self.peek() == b"." and len(parts) < 3:
            self.at += 1
            if self.kind() not in (Kind.WORD, Kind.QUOTED):
                raise self.error()
            parts.append(self.next().name())
        if self.peek() == b"(":  # a stored function
            raise self.error()
        schema, table, name = ("", "", *parts)[-3:]
        return Col(start, self.end(), schema, table, name)

    def _case(self) -> Expr:
        start = self.next().start
        args: list[Expr] = []
        if self.peek() != b"WHEN":
            args.append(self.expression())
        while self.accept(b"WHEN"):
            args.append(self.expression())
            self.expect(b"THEN")
            args.append(self.expression())
        if self.accept(b"ELSE"):
            args.append(self.expression())
        self.expect(b"END")
        return Op(start, self.end(), "CASE", args)

    def _match(self) -> Expr:
        start = self.next().start
        self.expect(b"(")
        args = self.expressions()
        self.expect(b")")
        self.expect(b"AGAINST")
        self.skip_parentheses()
        return Op(start, self.end(), "MATCH", args)

    def _unit_behind(self) -> bool:
        """Whether ``INTERVAL (…)`` is followed by a unit."""
        behind = self._closing.get(self.at + 1, len(self.words)) + 1 - self.at
        return self.kind(behind) is Kind.WORD and self.peek(behind) not in RESERVED

    def _call(self) -> Expr:
        token = self.next()
        call = Call(token.start, token.end, token.upper.decode("utf-8", "replace"))
        open_at = self.at
        try:
            if call.name in _OWN_GRAMMAR:
                raise self.error()
            self._arguments(call)
        except SqlSyntaxError:
            self.at = open_at
            call.args = []
            call.opaque = True
            self._skip_arguments(call)
        if self.peek() == b"FILTER" or (self.peek() in {b"IGNORE", b"RESPECT"} and self.peek(1) == b"NULLS"):
            raise self.error()
        if self.accept(b"OVER"):
            call.over = True
            if self.peek() == b"(":
                self.skip_parentheses()
            else:
                self.name()
        call.end = self.end()
        return call

    def _arguments(self, call: Call) -> None:
        self.expect(b"(")
        if self.accept(b")"):
            return
        if self.peek() == b"*" and self.peek(1) == b")":
            self.at += 2
            call.star = True
            return
        call.distinct = self.accept(b"DISTINCT")
        self.accept(b"ALL")
        call.args = self.expressions()
        if self.accept(b"AS"):  # CAST(x AS type), WEIGHT_STRING(x AS type)
            self._skip_type()
        elif self.accept(b"USING"):
            self.name()
        self.expect(b")")

    def _skip_type(self) -> None:
        while self.kind() is Kind.WORD:
            self.next()
            if self.peek() == b"(":
                self.skip_parentheses()

    def _skip_arguments(self, call: Call) -> None:
        first = self.at
        self.skip_parentheses()
        inside: set[str] = set()
        for at in range(first, self.at):
            token = self.words[at]
            if token.kind is Kind.WORD and token.upper in {b"SELECT", b"TABLE", b"VALUES"}:
                raise self.error()
            if token.kind is Kind.VARIABLE and not token.text.startswith(b"@@"):
                raise self.error()
            follows = self.words[at + 1].text if at + 1 < self.at else b""
            if follows == b"(" and token.kind in (Kind.WORD, Kind.QUOTED):
                inside.add(token.upper.decode("utf-8", "replace"))
        call.inside = frozenset(inside)

    def skip_parentheses(self) -> None:
        """Take everything up to the parenthesis that closes the next one."""
        self.expect(b"(")
        depth = 1
        while depth:
            depth += {b"(": 1, b")": -1}.get(self.peek(), 0)
            self.next()

    def _subquery(self) -> Query:
        self.expect(b"(")
        query = self.query()
        self.expect(b")")
        return query

    def query(self) -> Query:
        """A query; what one is, the statement parser knows."""
        raise NotImplementedError

    def star(self) -> Star | None:
        """``*`` or ``t.*`` or ``s.t.*``, if it is one."""
        start = self.start()
        if self.accept(b"*"):
            return Star(start, self.end(), "")
        ahead = 0
        while self.is_name(ahead) and self.peek(ahead + 1) == b"." and ahead < 4:
            if self.peek(ahead + 2) == b"*":
                table = self.words[self.at + ahead].name()
                self.at += ahead + 3
                return Star(start, self.end(), table)
            ahead += 2
        return None


def _spanning(expr: Expr, start: int, end: int) -> Expr:
    """The expression with its parentheses; a literal keeps its own place, which may be filled anew."""
    if not isinstance(expr, Lit):
        expr.start, expr.end = start, end
    return expr
