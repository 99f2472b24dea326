"""Goes through a statement's words once and finds the tables it names; see ``sql_tables``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from homeworld.gateway.plan import Verb
from homeworld.gateway.sql_statement import NAMES, Scan, TableRef, is_qualified
from homeworld.gateway.sql_tokens import Kind, Token

# Functions in whose parentheses FROM does not begin a list of tables.
_FROM_FUNCTIONS = frozenset({b"EXTRACT", b"SUBSTRING", b"SUBSTR", b"MID", b"TRIM", b"OVERLAY"})
# All of these are reserved words: none is a table's name.
_INSERT_WORDS = frozenset({b"LOW_PRIORITY", b"DELAYED", b"HIGH_PRIORITY", b"IGNORE", b"INTO"})
_UPDATE_WORDS = frozenset({b"LOW_PRIORITY", b"IGNORE"})


@dataclass(slots=True)
class _Frame:
    """One level of parentheses. ``from_list``: commas here separate tables; ``expects``: a table comes next;
    ``call``: the function whose arguments these are; ``ctes``: common table expressions come next;
    ``names``: those known from here on.
    """

    call: bytes = b""
    from_list: bool = False
    expects: bool = False
    has_select: bool = False
    ctes: bool = False
    recursive: bool = False
    names: set[str] = field(default_factory=set[str])


class Walk:
    """Goes through the words once, with a stack of frames."""

    def __init__(self, found: Scan) -> None:
        self.found = found
        self.words: list[Token] = found.words
        self.at: int = 0
        self.frames: list[_Frame] = [_Frame()]
        self.open_ctes: list[tuple[int, str]] = []
        # Common table expressions known here, with how many frames know each.
        self.known: Counter[str] = Counter()
        # How many tables were found before DELETE FROM, until USING says what its names mean.
        self.before_delete = -1

    def run(self, first: int) -> None:
        """Find the tables from the first word of the statement on."""
        self.frames = [_Frame() for _ in range(first + 1)]
        self.at = first
        verb = self.words[first].upper
        head = _HEADS.get(verb)
        if head is not None:
            head(self)
        while self.at < len(self.words):
            self.step()

    # --- names

    def peek(self, ahead: int = 0) -> bytes:
        """The word ahead in capitals; empty behind the end."""
        at = self.at + ahead
        return self.words[at].upper if at < len(self.words) else b""

    def behind(self, *words: bytes) -> bool:
        """Whether one of those words stands before this one."""
        return self.words[self.at - 1].upper in words and not is_qualified(self.words, self.at - 1)

    def skip(self, words: Iterable[bytes]) -> None:
        """Pass over those words."""
        while self.peek() in words:
            self.at += 1

    def name(self, *, record: bool = True) -> bool:
        """Take a (qualified) table name at the present place, if there is one.

        :param record: it names a table; otherwise it may be an alias, unless it is qualified.
        """
        if self.peek() == b"." and self.at + 1 < len(self.words):  # MariaDB takes a dot alone before it
            self.at += 1
        if self.at >= len(self.words) or self.words[self.at].kind not in NAMES:
            return False
        first = last = self.words[self.at]
        schema = ""
        self.at += 1
        if self.peek() == b"." and self.at + 1 < len(self.words):
            following = self.words[self.at + 1]
            if following.kind in NAMES:
                schema, last = first.name(), following
                self.at += 2
        if self.peek() == b"." and self.peek(1) == b"*":  # DELETE t.* FROM …
            self.at += 2
        if schema or (record and not self.known[last.name()]):
            self.found.tables.append(TableRef(schema, last.name(), first.start, last.start, last.end))
        return True

    def know(self, frame: _Frame, name: str) -> None:
        """A common table expression of that name is known from here on, to the end of the frame."""
        if name not in frame.names:
            frame.names.add(name)
            self.known[name] += 1

    def names(self) -> None:
        """Take a list of names separated by commas."""
        while self.name() and self.peek() == b",":
            self.at += 1

    # --- one word

    def step(self) -> None:
        """Take one word."""
        token = self.words[self.at]
        frame = self.frames[-1]
        if token.kind is Kind.OP:
            self.at += 1
            self.operator(token, frame)
            return
        if token.kind not in NAMES:
            self.at += 1
            frame.expects = False
            return
        if (
            token.kind is Kind.WORD
            and not is_qualified(self.words, self.at)
            and self.keyword(token.upper, frame)
        ):
            self.at += 1
            return
        if frame.expects:
            frame.expects = False
            if self.peek(1) == b"(":  # JSON_TABLE( and other table functions
                self.at += 1
                return
            if token.upper == b"DUAL" and token.kind is Kind.WORD:
                self.at += 1
                return
            if token.upper == b"OJ" and self.words[self.at - 1].text == b"{":  # {OJ a LEFT JOIN b …}
                frame.expects = True
                self.at += 1
                return
            self.name()
            return
        if (
            frame.ctes
            and self.peek(1) in {b"AS", b"("}
            and self.words[self.at - 1].upper in {b"WITH", b"RECURSIVE", b","}
        ):
            self.cte(token.name(), frame)
            return
        self.at += 1

    def operator(self, token: Token, frame: _Frame) -> None:
        """Parentheses open and close frames; a comma goes on with a list of tables; ``;`` ends all."""
        if token.text == b"(":
            before = self.words[self.at - 2] if self.at >= 2 else None
            call = before.upper if before is not None and before.kind in NAMES else b""
            inner = _Frame(call=call)
            if frame.expects:  # a derived table, or joined tables in parentheses
                inner.from_list = inner.expects = True
                frame.expects = False
            self.frames.append(inner)
        elif token.text == b")":
            if len(self.frames) > 1:
                self.known.subtract(self.frames.pop().names)
            while self.open_ctes and self.open_ctes[-1][0] >= len(self.frames):
                self.know(self.frames[-1], self.open_ctes.pop()[1])
        elif token.text == b"," and frame.from_list:
            frame.expects = True
        elif token.text == b";":
            self.frames, self.open_ctes = [_Frame()], []
            self.known.clear()

    def cte(self, name: str, frame: _Frame) -> None:
        """``name [(columns)] AS (``: the name is known behind the closing parenthesis, or at once."""
        self.found.ctes.add(name)
        if frame.recursive:
            self.know(frame, name)
        self.at += 1
        if self.peek() == b"(":
            while self.at < len(self.words) and self.peek() != b")":
                self.at += 1
            self.at += 1
        if self.peek() == b"AS":
            self.at += 1
        self.open_ctes.append((len(self.frames), name))

    def keyword(self, upper: bytes, frame: _Frame) -> bool:
        """Whether the word is one that matters here."""
        act = _KEYWORDS.get(upper)
        return act is not None and act(self, frame)

    # --- keywords inside statements; each says whether it was one

    def on_select(self, frame: _Frame) -> bool:
        """SELECT"""
        frame.has_select = True
        frame.from_list = frame.expects = frame.ctes = False
        return True

    def on_with(self, frame: _Frame) -> bool:
        """WITH, which begins common table expressions unless it is WITH ROLLUP."""
        if self.peek(1) in {b"ROLLUP", b"CUBE"}:
            return False
        frame.ctes = True
        frame.expects = False
        frame.recursive = self.peek(1) == b"RECURSIVE"
        self.at += frame.recursive
        return True

    def on_from(self, frame: _Frame) -> bool:
        """FROM, unless it is part of a function's arguments."""
        if frame.call in _FROM_FUNCTIONS and not frame.has_select:
            return True
        frame.from_list = frame.expects = True
        return True

    def on_join(self, frame: _Frame) -> bool:
        """JOIN, unless it is that of an index hint (USE INDEX FOR JOIN)."""
        if frame.from_list and not self.behind(b"FOR"):
            frame.expects = True
            return True
        return False

    def on_lateral(self, frame: _Frame) -> bool:
        """LATERAL, which MariaDB takes for a name."""
        return frame.expects and self.peek(1) == b"("

    def on_table(self, frame: _Frame) -> bool:
        """``TABLE t`` as a query; where the word means anything else the heads have taken it."""
        frame.expects, frame.from_list = True, False
        return True

    def on_end_of_from(self, frame: _Frame) -> bool:
        """A clause that ends a list of tables."""
        # Servers do not reserve all of these words: it may be a table's name or alias. And USE INDEX FOR
        # ORDER BY is no clause.
        if frame.expects or self.behind(b"AS", b"FOR"):
            return False
        if self.peek() == b"WINDOW" and self.peek(2) != b"AS":
            return False
        frame.from_list = False
        return True

    def on_on(self, frame: _Frame) -> bool:
        """ON DUPLICATE KEY ends a list of tables: commas go on with assignments."""
        if self.peek(1) == b"DUPLICATE" and self.peek(2) == b"KEY":
            frame.from_list = frame.expects = False
            return True
        return False

    def on_for(self, frame: _Frame) -> bool:
        """FOR UPDATE and FOR SHARE end a list of tables: behind OF stand aliases."""
        if self.peek(1) in {b"UPDATE", b"SHARE"}:
            frame.from_list = frame.expects = False
            self.at += 1
            return True
        return False

    def on_update(self, frame: _Frame) -> bool:
        """UPDATE behind WITH."""
        if self.found.verb is Verb.UPDATE and len(self.frames) == 1 and frame.ctes:
            frame.ctes = False
            frame.from_list = frame.expects = True
            return True
        return False

    def on_delete(self, frame: _Frame) -> bool:
        """DELETE behind WITH."""
        if self.found.verb is Verb.DELETE and len(self.frames) == 1 and frame.ctes:
            frame.ctes = False
            self.head_delete()
            self.at -= 1
            return True
        return False

    def on_using(self, frame: _Frame) -> bool:
        """``DELETE FROM a USING a JOIN b``: before it were names or aliases of what follows."""
        if self.before_delete < 0 or len(self.frames) > 1:
            return False
        tables = self.found.tables
        tables[self.before_delete :] = [ref for ref in tables[self.before_delete :] if ref.schema]
        self.before_delete = -1
        frame.from_list = frame.expects = True
        return True

    def on_references(self, _frame: _Frame) -> bool:
        """REFERENCES in DDL."""
        if self.found.verb is not Verb.DDL:
            return False
        self.at += 1
        self.name()
        self.at -= 1
        return True

    def on_set(self, frame: _Frame) -> bool:
        """SET ends the tables of an UPDATE."""
        if self.found.verb is Verb.UPDATE and len(self.frames) == 1:
            frame.from_list = frame.expects = False
            return True
        return False

    # --- the heads of statements

    def head_dml(self) -> None:
        """INSERT, REPLACE"""
        self.at += 1
        self.skip(_INSERT_WORDS)
        self.name()

    def head_update(self) -> None:
        """UPDATE"""
        self.at += 1
        self.skip(_UPDATE_WORDS)
        self.frames[-1].from_list = self.frames[-1].expects = True

    def head_delete(self) -> None:
        """DELETE; names before FROM are those of tables behind it."""
        self.at += 1
        self.skip({b"LOW_PRIORITY", b"QUICK", b"IGNORE"})
        if self.peek() == b"FROM":
            self.before_delete = len(self.found.tables)
            return
        while self.name(record=False) and self.peek() == b",":
            self.at += 1

    def head_table(self) -> None:
        """TABLE t"""
        self.at += 1
        self.name()

    def head_names_behind_table(self) -> None:
        """ANALYZE, CHECK, CHECKSUM, OPTIMIZE, REPAIR TABLE a, b"""
        self.at += 1
        if self.peek() in {b"NO_WRITE_TO_BINLOG", b"LOCAL"}:
            self.at += 1
        if self.peek() in {b"TABLE", b"TABLES", b"VIEW"}:  # else it is MariaDB's ANALYZE statement
            self.at += 1
            self.names()

    def head_truncate(self) -> None:
        """TRUNCATE [TABLE] t"""
        self.at += 2 if self.peek(1) == b"TABLE" else 1
        self.name()

    def head_rename(self) -> None:
        """RENAME TABLE a TO b, c [WAIT 5] TO d"""
        self.at += 1
        if self.peek() not in {b"TABLE", b"TABLES"}:
            return
        self.at += 1
        self.if_exists()
        while self.name():
            self.at += {b"WAIT": 2, b"NOWAIT": 1}.get(self.peek(), 0)
            if self.peek() not in {b"TO", b","}:
                return
            self.at += 1

    def head_lock(self) -> None:
        """LOCK TABLES a READ, b AS x WRITE"""
        self.at += 1
        if self.peek() not in {b"TABLES", b"TABLE"}:
            return
        self.at += 1
        while self.name():
            while self.at < len(self.words) and self.peek() != b",":
                self.at += 1
            self.at += 1

    def head_load(self) -> None:
        """LOAD DATA … INTO TABLE t"""
        while self.at < len(self.words) and not (self.peek() == b"INTO" and self.peek(1) == b"TABLE"):
            self.at += 1
        self.at += 2
        self.name()

    def head_describe(self) -> None:
        """DESCRIBE t, EXPLAIN t, EXPLAIN statement"""
        self.at += 1
        if self.peek() in {b"EXTENDED", b"PARTITIONS", b"ANALYZE"}:
            self.at += 1
        if self.peek() == b"FORMAT":
            self.at += 3
        self.skip({b"TABLE"} if self.peek(1) not in {b".", b""} else ())
        upper = self.peek()
        if upper in {b"SELECT", b"INSERT", b"UPDATE", b"DELETE", b"REPLACE", b"WITH", b"(", b"FOR", b"INTO"}:
            head = _HEADS.get(upper)
            if head is not None:
                head(self)
            return
        self.name()
        self.at = len(self.words)  # what may follow is a column

    def head_show(self) -> None:
        """SHOW … FROM t is read where SHOW is understood."""
        self.at = len(self.words)

    def head_handler(self) -> None:
        """HANDLER t OPEN"""
        self.at += 1
        self.name()

    def if_exists(self) -> None:
        """IF [NOT] EXISTS"""
        self.skip({b"IF", b"NOT", b"EXISTS"})

    def head_alter(self) -> None:
        """ALTER"""
        self.at += 1
        self.skip({b"ONLINE", b"OFFLINE", b"IGNORE"})
        kind = self.peek()
        self.at += 1
        if kind == b"TABLE":
            self.if_exists()
            self.name()
            while self.at < len(self.words):
                if self.peek() == b"RENAME" and self.peek(1) in {b"TO", b"AS", b"="}:
                    self.at += 2
                    self.name()
                elif self.peek() == b"RENAME" and self.peek(1) not in {b"COLUMN", b"INDEX", b"KEY"}:
                    self.at += 1
                    self.name()
                elif self.peek() in {b"WITH", b"TO", b"CONVERT"} and self.peek(1) == b"TABLE":  # partitions
                    self.at += 2
                    self.name()
                elif self.peek() == b"REFERENCES":
                    self.at += 1
                    self.name()
                else:
                    self.at += 1
        else:
            self.at -= 1
            self.definition()

    def head_create(self) -> None:
        """CREATE"""
        self.at += 1
        self.definition()

    def definition(self) -> None:
        """CREATE or ALTER … of anything that is not ALTER TABLE."""
        while self.at < len(self.words):
            upper = self.peek()
            if upper == b"DEFINER" and self.peek(1) == b"=":  # whose name may be one of the words below
                self.at += 3
                continue
            if upper in {b"TABLE", b"SEQUENCE"}:
                self.at += 1
                self.if_exists()
                self.name()
                if self.peek() == b"LIKE" or (self.peek() == b"(" and self.peek(1) == b"LIKE"):
                    self.at += 1 if self.peek() == b"LIKE" else 2
                    self.name()
                return
            if upper == b"VIEW":
                self.at += 1
                self.if_exists()
                self.name()
                return
            if upper == b"INDEX":
                while self.at < len(self.words) and self.peek() != b"ON":
                    self.at += 1
                self.at += 1
                self.name()
                self.at = len(self.words)
                return
            if upper == b"TRIGGER":
                while self.at < len(self.words) and self.peek() != b"ON":
                    self.at += 1
                self.at += 1
                self.name()
                self.at = len(self.words)  # what its body names is looked for when it runs
                return
            if upper in {
                b"PROCEDURE",
                b"FUNCTION",
                b"EVENT",
                b"PACKAGE",
                b"DATABASE",
                b"SCHEMA",
                b"USER",
                b"ROLE",
            }:
                self.at = len(self.words)
                return
            self.at += 1

    def head_drop(self) -> None:
        """DROP"""
        self.at += 1
        self.skip({b"TEMPORARY"})
        kind = self.peek()
        self.at += 1
        if kind in {b"TABLE", b"TABLES", b"VIEW", b"SEQUENCE"}:
            self.if_exists()
            self.names()
        elif kind == b"INDEX":
            while self.at < len(self.words) and self.peek() != b"ON":
                self.at += 1
            self.at += 1
            self.name()
        self.at = len(self.words)


_KEYWORDS = {
    b"SELECT": Walk.on_select,
    b"WITH": Walk.on_with,
    b"FROM": Walk.on_from,
    b"JOIN": Walk.on_join,
    b"STRAIGHT_JOIN": Walk.on_join,
    b"LATERAL": Walk.on_lateral,
    b"TABLE": Walk.on_table,
    b"USING": Walk.on_using,
    b"DELETE": Walk.on_delete,
    b"REFERENCES": Walk.on_references,
    b"ON": Walk.on_on,
    b"FOR": Walk.on_for,
    b"SET": Walk.on_set,
    b"UPDATE": Walk.on_update,
    **dict.fromkeys(
        (b"WHERE", b"GROUP", b"HAVING", b"ORDER", b"LIMIT", b"WINDOW", b"UNION", b"EXCEPT", b"INTERSECT"),
        Walk.on_end_of_from,
    ),
    **dict.fromkeys((b"PROCEDURE", b"OUTFILE"), Walk.on_end_of_from),
}

_HEADS = {
    b"ALTER": Walk.head_alter,
    b"ANALYZE": Walk.head_names_behind_table,
    b"CHECK": Walk.head_names_behind_table,
    b"CHECKSUM": Walk.head_names_behind_table,
    b"CREATE": Walk.head_create,
    b"DELETE": Walk.head_delete,
    b"DESC": Walk.head_describe,
    b"DESCRIBE": Walk.head_describe,
    b"DROP": Walk.head_drop,
    b"EXPLAIN": Walk.head_describe,
    b"HANDLER": Walk.head_handler,
    b"INSERT": Walk.head_dml,
    b"LOAD": Walk.head_load,
    b"LOCK": Walk.head_lock,
    b"OPTIMIZE": Walk.head_names_behind_table,
    b"RENAME": Walk.head_rename,
    b"REPAIR": Walk.head_names_behind_table,
    b"REPLACE": Walk.head_dml,
    b"SHOW": Walk.head_show,
    b"TABLE": Walk.head_table,
    b"TRUNCATE": Walk.head_truncate,
    b"UPDATE": Walk.head_update,
}
