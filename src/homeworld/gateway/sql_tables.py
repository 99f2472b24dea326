"""Which tables a statement names, found without knowing the whole grammar.

For statements that a server will parse anyway it is enough to know their verb, the tables they name and
whether they lock, and to know it for certain in one direction: a table that the server will touch because the
text names it is found here. A name too many (a common table expression's, an alias) is possible in odd texts
and only makes a hold wait or a qualifier be asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from homeworld.gateway.plan import Verb
from homeworld.gateway.sql_functions import BUILT_IN, GRAMMAR, KEEPS_STATE
from homeworld.gateway.sql_tokens import Kind, SqlSyntaxError, Token, tokenize

_NAMES = (Kind.WORD, Kind.QUOTED)

_VERBS: dict[bytes, Verb] = {
    b"ALTER": Verb.DDL,
    b"ANALYZE": Verb.DDL,
    b"BEGIN": Verb.BEGIN,
    b"CALL": Verb.CALL,
    b"CHECK": Verb.DDL,
    b"CHECKSUM": Verb.SHOW,
    b"COMMIT": Verb.COMMIT,
    b"CREATE": Verb.DDL,
    b"DELETE": Verb.DELETE,
    b"DESC": Verb.SHOW,
    b"DESCRIBE": Verb.SHOW,
    b"DO": Verb.SELECT,
    b"DROP": Verb.DDL,
    b"EXPLAIN": Verb.SHOW,
    b"INSERT": Verb.INSERT,
    b"LOAD": Verb.LOAD,
    b"LOCK": Verb.LOCK,
    b"OPTIMIZE": Verb.DDL,
    b"RELEASE": Verb.SAVEPOINT,
    b"RENAME": Verb.DDL,
    b"REPAIR": Verb.DDL,
    b"REPLACE": Verb.REPLACE,
    b"ROLLBACK": Verb.ROLLBACK,
    b"SAVEPOINT": Verb.SAVEPOINT,
    b"SELECT": Verb.SELECT,
    b"SET": Verb.SET,
    b"SHOW": Verb.SHOW,
    b"START": Verb.BEGIN,
    b"TABLE": Verb.SELECT,
    b"TRUNCATE": Verb.DDL,
    b"UNLOCK": Verb.LOCK,
    b"UPDATE": Verb.UPDATE,
    b"USE": Verb.USE,
    b"VALUES": Verb.SELECT,
    b"WITH": Verb.SELECT,
}

# Functions in whose parentheses FROM does not begin a list of tables.
_FROM_FUNCTIONS = frozenset({b"EXTRACT", b"SUBSTRING", b"SUBSTR", b"MID", b"TRIM", b"OVERLAY"})
# Verbs whose words before a parenthesis are functions.
_CALLING = frozenset({Verb.SELECT, Verb.INSERT, Verb.UPDATE, Verb.DELETE, Verb.REPLACE})
_DML_WORDS = frozenset({b"LOW_PRIORITY", b"DELAYED", b"HIGH_PRIORITY", b"IGNORE", b"QUICK", b"INTO", b"FROM"})


@dataclass(frozen=True, slots=True)
class TableRef:
    """A table as the text names it: ``schema`` is empty where it is not qualified.

    ``start`` and ``end`` span the whole name, ``name_start`` is where the last part begins.
    """

    schema: str
    name: str
    start: int
    name_start: int
    end: int


@dataclass(slots=True)
class Scan:
    """What was found. ``words`` are the statement's tokens without comments; ``code`` says that some of them
    stand in an executable comment.
    """

    verb: Verb
    words: list[Token]
    tables: list[TableRef] = field(default_factory=list[TableRef])
    locking_read: bool = False
    keeps_state: bool = False
    unknown_functions: bool = False
    calls: set[bytes] = field(default_factory=set[bytes])
    code: bool = False

    def word(self, at: int) -> bytes:
        """The word at a position in capitals; empty behind the end."""
        return self.words[at].upper if at < len(self.words) else b""


def significant(sql: bytes) -> tuple[list[Token], bool]:
    """A text's tokens without comments; executable comments are opened, and whether there were any.

    :raises SqlSyntaxError: the text cannot be read.
    """
    found: list[Token] = []
    code = False
    for token in tokenize(sql):
        if token.kind is Kind.CODE:
            code = True
            body = token.start + token.text.index(b"!") + 1
            while body < token.end and sql[body] in b"0123456789":
                body += 1
            inner, _ = significant(sql[body : token.end - 2])
            found += [Token(one.kind, one.start + body, one.end + body, one.text, one.upper) for one in inner]
        elif token.kind not in (Kind.COMMENT, Kind.HINT):
            found.append(token)
    while found and found[-1].text == b";" and found[-1].kind is Kind.OP:
        found.pop()
    return found, code


def scan(sql: bytes) -> Scan:
    """Read a statement's verb and tables.

    :raises SqlSyntaxError: the text cannot be read, or is empty.
    """
    words, code = significant(sql)
    first = next((word for word in words if word.text != b"("), None)
    if first is None:
        raise SqlSyntaxError("Query was empty")
    found = Scan(_VERBS.get(first.upper, Verb.OTHER), words, code=code)
    if first.upper == b"WITH":
        found.verb = _verb_behind_with(words)
    if first.upper == b"START" and found.word(1) != b"TRANSACTION":
        found.verb = Verb.OTHER
    if first.upper == b"ROLLBACK" and b"TO" in {found.word(1), found.word(2)}:
        found.verb = Verb.SAVEPOINT
    walk = _Walk(found)
    walk.run(words.index(first))
    _look_at_words(found)
    return found


def tables_in(sql: bytes) -> frozenset[tuple[str, str]]:
    """The (schema, table) names in a statement, such as a view's definition; schema is empty where unnamed.

    :raises SqlSyntaxError: the text cannot be read.
    """
    return frozenset((ref.schema, ref.name) for ref in scan(sql).tables)


def _verb_behind_with(words: list[Token]) -> Verb:
    depth = 0
    for token in words:
        if token.text == b"(":
            depth += 1
        elif token.text == b")":
            depth -= 1
        elif depth == 0 and token.upper in {b"SELECT", b"UPDATE", b"DELETE", b"TABLE", b"VALUES"}:
            return _VERBS[token.upper]
    return Verb.SELECT


def _look_at_words(found: Scan) -> None:
    """Functions, variables and locks, wherever they stand."""
    words = found.words
    for at, token in enumerate(words):
        if token.kind is Kind.VARIABLE:
            if not token.text.startswith(b"@@"):
                found.keeps_state = True
            continue
        if token.kind not in _NAMES:
            continue
        upper = token.upper
        follower = words[at + 1].text if at + 1 < len(words) else b""
        if follower == b"(":
            name = upper.decode("utf-8", "replace")
            found.calls.add(upper)
            if name in KEEPS_STATE or (name == "LAST_INSERT_ID" and words[at + 2].text != b")"):
                found.keeps_state = True
            behind = words[at - 1] if at else None
            declares = behind is not None and behind.upper in {b"TABLE", b"INTO", b"EXISTS", b"KEY", b"INDEX"}
            if (
                found.verb in _CALLING
                and not declares
                and (token.kind is Kind.QUOTED or (name not in BUILT_IN and name not in GRAMMAR))
            ):
                found.unknown_functions = True
        elif token.kind is Kind.WORD and found.verb is Verb.SELECT:
            nxt = found.word(at + 1)
            if (upper == b"FOR" and nxt in {b"UPDATE", b"SHARE"}) or (
                upper == b"LOCK" and nxt == b"IN" and found.word(at + 2) == b"SHARE"
            ):
                found.locking_read = True
            elif upper in {b"SQL_CALC_FOUND_ROWS", b"NEXTVAL"}:
                found.keeps_state = True
    if found.verb is Verb.LOCK:
        found.keeps_state = True
    if found.verb is Verb.DDL and b"TEMPORARY" in {found.word(1), found.word(3)}:
        found.keeps_state = True


@dataclass(slots=True)
class _Frame:
    """One level of parentheses. ``from_list``: commas here separate tables; ``expects``: a table comes next;
    ``call``: the function whose arguments these are; ``names``: common table expressions known here.
    """

    call: bytes = b""
    from_list: bool = False
    expects: bool = False
    has_select: bool = False
    ctes: bool = False
    names: set[str] = field(default_factory=set[str])


class _Walk:
    """Goes through the words once, with a stack of frames."""

    def __init__(self, found: Scan) -> None:
        self.found = found
        self.words = found.words
        self.at = 0
        self.frames = [_Frame()]
        self.open_ctes: list[tuple[int, str]] = []

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
        at = self.at + ahead
        return self.words[at].upper if at < len(self.words) else b""

    def skip(self, words: Iterable[bytes]) -> None:
        while self.peek() in words:
            self.at += 1

    def name(self, *, record: bool = True) -> bool:
        """Take a (qualified) table name at the present place, if there is one."""
        if self.at >= len(self.words) or self.words[self.at].kind not in _NAMES:
            return False
        first = last = self.words[self.at]
        schema = ""
        self.at += 1
        if self.peek() == b"." and self.at + 1 < len(self.words):
            following = self.words[self.at + 1]
            if following.kind in _NAMES:
                schema, last = first.name(), following
                self.at += 2
        if self.peek() == b"." and self.peek(1) == b"*":  # DELETE t.* FROM …
            self.at += 2
        if record and (schema or not self.is_cte(last.name())):
            self.found.tables.append(TableRef(schema, last.name(), first.start, last.start, last.end))
        return True

    def is_cte(self, name: str) -> bool:
        return any(name in frame.names for frame in self.frames)

    def names(self) -> None:
        """Take a list of names separated by commas."""
        while self.name() and self.peek() == b",":
            self.at += 1

    # --- one word

    def step(self) -> None:
        token = self.words[self.at]
        frame = self.frames[-1]
        if token.kind is Kind.OP:
            self.at += 1
            self.operator(token, frame)
            return
        if token.kind not in _NAMES:
            self.at += 1
            frame.expects = False
            return
        if token.kind is Kind.WORD and self.keyword(token.upper, frame):
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
            self.name()
            return
        if frame.ctes and self.peek(1) in {b"AS", b"("}:
            self.cte(token.name())
            return
        self.at += 1

    def operator(self, token: Token, frame: _Frame) -> None:
        if token.text == b"(":
            before = self.words[self.at - 2] if self.at >= 2 else None
            call = before.upper if before is not None and before.kind in _NAMES else b""
            inner = _Frame(call=call)
            if frame.expects:  # a derived table, or joined tables in parentheses
                inner.from_list = inner.expects = True
                frame.expects = False
            self.frames.append(inner)
        elif token.text == b")":
            if len(self.frames) > 1:
                self.frames.pop()
            while self.open_ctes and self.open_ctes[-1][0] >= len(self.frames):
                self.frames[-1].names.add(self.open_ctes.pop()[1])
        elif token.text == b"," and frame.from_list:
            frame.expects = True

    def cte(self, name: str) -> None:
        """``name [(columns)] AS (``: the name is known behind the closing parenthesis."""
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
        frame.has_select = True
        frame.from_list = frame.expects = frame.ctes = False
        return True

    def on_with(self, frame: _Frame) -> bool:
        if self.peek(1) in {b"ROLLUP", b"CUBE"}:
            return False
        frame.ctes = True
        frame.expects = False
        if self.peek(1) == b"RECURSIVE":
            self.at += 1
            nxt = self.words[self.at + 1] if self.at + 1 < len(self.words) else None
            if nxt is not None and nxt.kind in _NAMES:
                frame.names.add(nxt.name())
        return True

    def on_from(self, frame: _Frame) -> bool:
        if frame.call in _FROM_FUNCTIONS and not frame.has_select:
            return True
        frame.from_list = frame.expects = True
        return True

    def on_join(self, frame: _Frame) -> bool:
        if frame.from_list:
            frame.expects = True
            return True
        return False

    def on_lateral(self, frame: _Frame) -> bool:
        return frame.expects

    def on_table(self, frame: _Frame) -> bool:
        """``TABLE t`` as a query, in parentheses or behind UNION."""
        before = self.words[self.at - 1].upper if self.at else b""
        if before in {b"(", b"UNION", b"ALL", b"DISTINCT", b"EXCEPT", b"INTERSECT", b"AS"}:
            frame.expects, frame.from_list = True, False
            return True
        return False

    def on_end_of_from(self, frame: _Frame) -> bool:
        if frame.expects:  # MariaDB does not reserve all of these words: it is a table's name
            return False
        frame.from_list = False
        return True

    def on_update(self, frame: _Frame) -> bool:
        """UPDATE behind WITH."""
        if self.found.verb is Verb.UPDATE and len(self.frames) == 1 and frame.ctes:
            frame.ctes = False
            frame.from_list = frame.expects = True
            return True
        return False

    def on_using(self, frame: _Frame) -> bool:
        """``DELETE FROM a USING a JOIN b``: what stood before were names of the tables that follow."""
        if self.found.verb is Verb.DELETE and len(self.frames) == 1 and self.peek(1) != b"(":
            self.found.tables.clear()
            frame.from_list = frame.expects = True
            return True
        return False

    def on_references(self, _frame: _Frame) -> bool:
        if self.found.verb is not Verb.DDL:
            return False
        self.at += 1
        self.name()
        self.at -= 1
        return True

    def on_set(self, frame: _Frame) -> bool:
        if self.found.verb is Verb.UPDATE and len(self.frames) == 1:
            frame.from_list = frame.expects = False
            return True
        return False

    # --- the heads of statements

    def head_dml(self) -> None:
        self.at += 1
        self.skip(_DML_WORDS)
        self.name()

    def head_update(self) -> None:
        self.at += 1
        self.skip(_DML_WORDS)
        self.frames[-1].from_list = self.frames[-1].expects = True

    def head_delete(self) -> None:
        self.at += 1
        self.skip(_DML_WORDS - {b"FROM"})
        if self.peek() == b"FROM":
            return
        while self.name(record=False) and self.peek() == b",":
            self.at += 1

    def head_table(self) -> None:
        self.at += 1
        self.name()

    def head_names_behind_table(self) -> None:
        """ANALYZE, CHECK, CHECKSUM, OPTIMIZE, REPAIR, TRUNCATE [TABLE] a, b"""
        self.at += 1
        self.skip({b"NO_WRITE_TO_BINLOG", b"LOCAL", b"TABLE", b"TABLES"})
        if self.peek() in {b"SELECT", b"UPDATE", b"DELETE", b"FORMAT"}:  # MariaDB's ANALYZE statement
            return
        self.names()

    def head_rename(self) -> None:
        self.at += 1
        self.skip({b"TABLE", b"TABLES"})
        if self.peek() == b"USER":
            return
        self.if_exists()
        while self.name() and self.peek() in {b"TO", b",", b"WAIT", b"NOWAIT"}:
            self.at += 1

    def head_lock(self) -> None:
        self.at += 1
        if self.peek() not in {b"TABLES", b"TABLE"}:
            return
        self.at += 1
        while self.name():
            while self.at < len(self.words) and self.peek() != b",":
                self.at += 1
            self.at += 1

    def head_load(self) -> None:
        while self.at < len(self.words) and not (self.peek() == b"INTO" and self.peek(1) == b"TABLE"):
            self.at += 1
        self.at += 2
        self.name()

    def head_describe(self) -> None:
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
        self.at += 1
        self.name()

    def if_exists(self) -> None:
        self.skip({b"IF", b"NOT", b"EXISTS"})

    def head_alter(self) -> None:
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
                elif self.peek() == b"WITH" and self.peek(1) == b"TABLE":
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
        self.at += 1
        self.definition()

    def definition(self) -> None:
        """CREATE or ALTER … of anything that is not ALTER TABLE."""
        while self.at < len(self.words):
            upper = self.peek()
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
                return
            if upper in {b"PROCEDURE", b"FUNCTION", b"EVENT", b"DATABASE", b"SCHEMA", b"USER", b"ROLE"}:
                self.at = len(self.words)
                return
            self.at += 1

    def head_drop(self) -> None:
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
    b"SELECT": _Walk.on_select,
    b"WITH": _Walk.on_with,
    b"FROM": _Walk.on_from,
    b"JOIN": _Walk.on_join,
    b"STRAIGHT_JOIN": _Walk.on_join,
    b"LATERAL": _Walk.on_lateral,
    b"TABLE": _Walk.on_table,
    b"USING": _Walk.on_using,
    b"REFERENCES": _Walk.on_references,
    b"SET": _Walk.on_set,
    b"UPDATE": _Walk.on_update,
    **dict.fromkeys(
        (b"WHERE", b"GROUP", b"HAVING", b"ORDER", b"LIMIT", b"WINDOW", b"UNION", b"EXCEPT", b"INTERSECT"),
        _Walk.on_end_of_from,
    ),
    **dict.fromkeys((b"PROCEDURE", b"OUTFILE", b"DUMPFILE"), _Walk.on_end_of_from),
}

_HEADS = {
    b"ALTER": _Walk.head_alter,
    b"ANALYZE": _Walk.head_names_behind_table,
    b"CHECK": _Walk.head_names_behind_table,
    b"CHECKSUM": _Walk.head_names_behind_table,
    b"CREATE": _Walk.head_create,
    b"DELETE": _Walk.head_delete,
    b"DESC": _Walk.head_describe,
    b"DESCRIBE": _Walk.head_describe,
    b"DROP": _Walk.head_drop,
    b"EXPLAIN": _Walk.head_describe,
    b"HANDLER": _Walk.head_handler,
    b"INSERT": _Walk.head_dml,
    b"LOAD": _Walk.head_load,
    b"LOCK": _Walk.head_lock,
    b"OPTIMIZE": _Walk.head_names_behind_table,
    b"RENAME": _Walk.head_rename,
    b"REPAIR": _Walk.head_names_behind_table,
    b"REPLACE": _Walk.head_dml,
    b"SHOW": _Walk.head_show,
    b"TABLE": _Walk.head_table,
    b"TRUNCATE": _Walk.head_names_behind_table,
    b"UPDATE": _Walk.head_update,
}
