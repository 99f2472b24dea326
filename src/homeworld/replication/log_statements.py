"""What a statement in the binlog means for a row stream, told from its first words.

It is no SQL parser: it knows the few forms in which tables are created, changed, emptied, renamed and
dropped, and the words that frame transactions. It knows no table's definition.

Invariant: a statement that may touch a table is never called harmless; where the tables cannot be told the
statement is UNKNOWN, and every name in it counts as touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from homeworld.model.errors import MalformedPacketError


class Meaning(StrEnum):
    """What a logged statement is to a row stream."""

    BEGIN = "begin"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    SAVEPOINT = "savepoint"
    ROLLBACK_TO = "rollback to"
    RELEASE = "release"
    XA_START = "xa start"
    XA_END = "xa end"
    XA_COMMIT = "xa commit"
    XA_ROLLBACK = "xa rollback"
    DDL = "ddl"
    TRUNCATE = "truncate"
    DROP_SCHEMA = "drop schema"
    ROWS_BY_STATEMENT = "rows by statement"
    HARMLESS = "harmless"
    UNKNOWN = "unknown"


#: (schema, or empty where the statement names none; table)
Name: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Statement:
    """A classified statement.

    :param names: the tables it touches; for DROP_SCHEMA one (schema, ""); for UNKNOWN and
        ROWS_BY_STATEMENT every name in it, as a schema and as a table.
    :param label: savepoint name, or the xid as the binlog's XA events have it, in latin-1.
    """

    meaning: Meaning
    names: tuple[Name, ...] = ()
    label: str = ""


_TOKEN = re.compile(
    r"""\s+ | \#[^\n]* | --(?:[\s][^\n]*|$) | /\*(?!M?!)(?:.*?)\*/ | /\*M?![0-9]* | \*/
    | (?P<quoted>`(?:[^`]|``)*`)
    | (?P<string>[xXbBnN]?'(?:[^'\\]|''|\\.)*' | "(?:[^"\\]|""|\\.)*")
    | (?P<word>[\w$\x80-\U0010ffff]+)
    | (?P<mark>.)""",
    re.VERBOSE | re.DOTALL,
)
# Collation ids of client character sets in which a statement's bytes may not be UTF-8.
_CODECS = {
    "cp1252": (5, 8, 15, 31, 47, 48, 49, 94),
    "iso8859-2": (2, 9, 21, 27, 77),
    "cp1250": (26, 34, 44, 66, 99),
    "cp1251": (14, 23, 50, 51, 52),
    "koi8-r": (7, 74),
    "gbk": (28, 87),
    "gb18030": (24, 86, 248, 249, 250),
    "big5": (1, 84),
    "cp932": (13, 88, 95, 96),
    "euc_jp": (12, 91, 97, 98),
    "euc_kr": (19, 85),
}
_CODEC_OF = {number: codec for codec, numbers in _CODECS.items() for number in numbers}


def readings(sql: bytes, charset: int) -> list[str]:
    """How the statement's bytes can be read, the likeliest first; empty where they cannot.

    They are in the client's character set, except that statements which the server wrote itself are in
    UTF-8 under the same mark; where the two differ both readings count.

    :param charset: the client's collation id as logged.
    """
    if sql.isascii():
        return [sql.decode("ascii")]
    found: list[str] = []
    for codec in dict.fromkeys(("utf-8", _CODEC_OF.get(charset, "utf-8"))):
        try:
            found.append(sql.decode(codec))
        except UnicodeDecodeError:
            continue
    return found


_FRAMES = {
    "BEGIN": Meaning.BEGIN,
    "COMMIT": Meaning.COMMIT,
    "SAVEPOINT": Meaning.SAVEPOINT,
    "RELEASE": Meaning.RELEASE,
}
_ROWS = frozenset(
    {"INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "CALL", "WITH", "DO", "SELECT", "TABLE", "VALUES"}
)
_HARMLESS = frozenset(
    {"GRANT", "REVOKE", "ANALYZE", "OPTIMIZE", "REPAIR", "CHECK", "FLUSH", "SET", "INSTALL", "UNINSTALL"}
    | {"PURGE", "RESET", "KILL", "USE"}
)
# What CREATE, ALTER and DROP can name besides tables and indexes without changing any row of a table.
_OTHER_OBJECTS = frozenset(
    {"VIEW", "PROCEDURE", "FUNCTION", "TRIGGER", "EVENT", "USER", "ROLE", "SERVER", "SEQUENCE", "PACKAGE"}
    | {"TABLESPACE", "LOGFILE", "UNDO", "RESOURCE", "INSTANCE", "SPATIAL_REFERENCE", "LIBRARY", "CATALOG"}
)


class _Tokens:
    """The statement's tokens, upper-case words apart from names."""

    def __init__(self, sql: str) -> None:
        self.items: list[tuple[str, str]] = [
            (match.lastgroup, match[0]) for match in _TOKEN.finditer(sql) if match.lastgroup
        ]
        self.at = 0

    def word(self) -> str:
        """The next token as a keyword, or empty."""
        if self.at < len(self.items) and self.items[self.at][0] == "word":
            return self.items[self.at][1].upper()
        return ""

    def next(self) -> str:
        """Take the next token as a keyword."""
        found = self.word()
        self.at += 1
        return found

    def skip(self, *words: str) -> bool:
        """Pass over any of the words, in any order and number; whether there was one."""
        start = self.at
        while self.word() in words:
            self.at += 1
        return self.at > start

    def mark(self, mark: str) -> bool:
        """Take this punctuation mark if it is next."""
        if self.at < len(self.items) and self.items[self.at] == ("mark", mark):
            self.at += 1
            return True
        return False

    def name(self) -> Name | None:
        """Take a name, qualified or not."""
        first = self._identifier()
        if first is None:
            return None
        if self.mark("."):
            second = self._identifier()
            return None if second is None else (first, second)
        return "", first

    def _identifier(self) -> str | None:
        if self.at >= len(self.items):
            return None
        kind, text = self.items[self.at]
        self.at += 1
        return _unquote(kind, text)

    def find(self, word: str) -> bool:
        """Go behind the next occurrence of a keyword; whether there was one."""
        while self.at < len(self.items):
            if self.next() == word:
                return True
        return False

    def all_names(self) -> tuple[Name, ...]:
        """Every name in the statement, as a table and as a schema."""
        texts = {_unquote(kind, text) for kind, text in self.items} - {None}
        return tuple(name for text in sorted(t for t in texts if t) for name in (("", text), (text, "")))


def _unquote(kind: str, text: str) -> str | None:
    if kind == "word":
        return text
    if kind == "quoted":
        return text[1:-1].replace("``", "`")
    if kind == "string" and text.startswith('"'):  # a name where ANSI_QUOTES is on
        return text[1:-1].replace('""', '"')
    return None


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a statement, without comments.

    :param word: upper-case keyword (or name without quotes), or punctuation mark; empty for what is quoted.
    :param name: as an identifier; None for marks and strings.
    """

    word: str
    name: str | None


def tokens_of(sql: str) -> Iterator[Token]:
    """The statement's pieces in order."""
    for match in _TOKEN.finditer(sql):
        kind, text = match.lastgroup, match[0]
        if kind is not None:
            word = text.upper() if kind in {"word", "mark"} else ""
            yield Token(word, _unquote(kind, text))


def classify(sql: str) -> Statement:
    """What ``sql`` means.

    :raises MalformedPacketError: an XA statement whose id cannot be read.
    """
    return _classify(_Tokens(sql))


def _classify(tokens: _Tokens) -> Statement:
    first = tokens.next()
    if first == "SET" and tokens.word() == "STATEMENT":  # MariaDB: SET STATEMENT variable=value FOR statement
        return _classify(tokens) if tokens.find("FOR") else Statement(Meaning.UNKNOWN, tokens.all_names())
    if first in _FRAMES:
        name = tokens.name()
        return Statement(_FRAMES[first], label=name[1] if name else "")
    if first == "ROLLBACK":
        tokens.skip("WORK")
        if not tokens.skip("TO"):
            return Statement(Meaning.ROLLBACK)
        tokens.skip("SAVEPOINT")
        name = tokens.name()
        return Statement(Meaning.ROLLBACK_TO, label=name[1] if name else "")
    if first == "XA":
        return _xa(tokens)
    found = _tables(first, tokens)
    if found is not None:
        return found
    if first in _HARMLESS:
        return Statement(Meaning.HARMLESS)
    meaning = Meaning.ROWS_BY_STATEMENT if first in _ROWS else Meaning.UNKNOWN
    return Statement(meaning, tokens.all_names())


def _xa(tokens: _Tokens) -> Statement:
    meanings = {
        "START": Meaning.XA_START,
        "BEGIN": Meaning.XA_START,
        "END": Meaning.XA_END,
        "COMMIT": Meaning.XA_COMMIT,
        "ROLLBACK": Meaning.XA_ROLLBACK,
    }
    meaning = meanings.get(tokens.next())
    if meaning is None:
        return Statement(Meaning.UNKNOWN, tokens.all_names())
    parts: list[bytes] = []
    form = 1
    for kind, text in tokens.items[tokens.at :]:
        if kind == "string":
            hexadecimal = text[0] in "xX"
            parts.append(bytes.fromhex(text[2:-1]) if hexadecimal else text.strip("'").encode("latin-1"))
        elif kind == "word" and text.isdigit():
            form = int(text)
    if not parts or len(parts) > 2 or not 0 <= form < 1 << 32:
        raise MalformedPacketError("the id of an XA transaction cannot be read")
    first, second = (*parts, b"")[:2]
    xid = form.to_bytes(4, "little") + bytes((len(first), len(second))) + first + second
    return Statement(meaning, label=xid.decode("latin-1"))


def _tables(first: str, tokens: _Tokens) -> Statement | None:
    """The statements about tables, indexes and other objects; None where it is none of them."""
    if first == "TRUNCATE":
        tokens.skip("TABLE")
        return _one(Meaning.TRUNCATE, tokens)
    if first == "RENAME":
        return _rename(tokens) if tokens.skip("TABLE", "TABLES") else None
    if first not in {"CREATE", "ALTER", "DROP"}:
        return None
    if tokens.skip("OR"):
        tokens.skip("REPLACE")
    start = tokens.at
    temporary = "TEMPORARY" in (tokens.next(), tokens.word())
    tokens.at = start
    tokens.skip("TEMPORARY", "ONLINE", "OFFLINE", "IGNORE", "UNIQUE", "FULLTEXT", "SPATIAL", "COLUMNAR")
    what = tokens.next()
    if what in {"TABLE", "TABLES"}:
        if temporary:
            return Statement(Meaning.HARMLESS)
        tokens.skip("IF", "NOT", "EXISTS")
        return {"CREATE": _create, "ALTER": _alter, "DROP": _drop}[first](tokens)
    if what in {"INDEX", "VECTOR"}:
        return _one(Meaning.DDL, tokens) if tokens.find("ON") else None
    if what in {"DATABASE", "SCHEMA"}:
        if first != "DROP":
            return Statement(Meaning.HARMLESS)
        tokens.skip("IF", "EXISTS")
        name = tokens.name()
        return Statement(Meaning.DROP_SCHEMA, ((name[1], ""),)) if name else None
    # CREATE DEFINER=… SQL SECURITY … ALGORITHM=… stand in front of views and routines.
    while what and what not in _OTHER_OBJECTS and tokens.at < min(len(tokens.items), 40):
        if what in {"TABLE", "INDEX", "AS", "SELECT"}:
            return None
        while tokens.at < len(tokens.items) and not tokens.word():
            tokens.at += 1
        what = tokens.next()
    return Statement(Meaning.HARMLESS) if what in _OTHER_OBJECTS else None


def _one(meaning: Meaning, tokens: _Tokens) -> Statement | None:
    name = tokens.name()
    return Statement(meaning, (name,)) if name else None


def _create(tokens: _Tokens) -> Statement | None:
    return _one(Meaning.DDL, tokens)


def _drop(tokens: _Tokens) -> Statement | None:
    names: list[Name] = []
    while (name := tokens.name()) is not None:
        names.append(name)
        if not tokens.mark(","):
            return Statement(Meaning.DDL, tuple(names))
    return None


def _rename(tokens: _Tokens) -> Statement | None:
    tokens.skip("IF", "EXISTS")
    names: list[Name] = []
    while (name := tokens.name()) is not None:
        names.append(name)
        if tokens.skip("TO"):
            continue
        if tokens.skip("WAIT"):
            tokens.at += 1  # for so many seconds
        if tokens.skip("NOWAIT", "TO"):
            continue
        if not tokens.mark(","):
            return Statement(Meaning.DDL, tuple(names))
    return None


def _alter(tokens: _Tokens) -> Statement | None:
    name = tokens.name()
    if name is None:
        return None
    if _only_counts(tokens):
        return Statement(Meaning.HARMLESS)
    names = [name]
    while tokens.at < len(tokens.items):
        word = tokens.next()
        other: Name | None = None
        if word == "RENAME" and tokens.word() not in {"COLUMN", "INDEX", "KEY"}:
            tokens.skip("TO", "AS")
            tokens.mark("=")
            other = tokens.name()
        elif word == "TABLE":  # EXCHANGE PARTITION p WITH TABLE t, CONVERT TABLE t TO PARTITION p
            other = tokens.name()
        if other is not None:
            names.append(other)
    return Statement(Meaning.DDL, tuple(names))


def _only_counts(tokens: _Tokens) -> bool:
    """Whether what is left only sets the next id: no row and no column changes, and ids are looked after
    where traffic moves. Our own statement for that may lie behind a stream's start.
    """
    rest = [text.upper() for _, text in tokens.items[tokens.at :] if text != "="]
    return len(rest) == 2 and rest[0] == "AUTO_INCREMENT" and rest[1].isdigit()
