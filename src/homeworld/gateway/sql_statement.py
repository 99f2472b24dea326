"""What is known of a statement before its grammar: its words, its verb, the tables it names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from homeworld.gateway.plan import Verb
from homeworld.gateway.sql_tokens import Kind, SqlSyntaxError, Token, tokenize

NAMES = (Kind.WORD, Kind.QUOTED)

VERBS: dict[bytes, Verb] = {
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
    stand in an executable comment, ``doubtful`` that one which not every server executes makes it a statement
    of another kind or on other tables. ``program``: the kind of stored program that it holds, or BEGIN for a
    block that is run at once. ``ctes``: the names of all its common table expressions.
    """

    verb: Verb
    words: list[Token]
    tables: list[TableRef] = field(default_factory=list[TableRef])
    locking_read: bool = False
    keeps_state: bool = False
    unknown_functions: bool = False
    qualified_functions: bool = False
    calls: set[bytes] = field(default_factory=set[bytes])
    code: bool = False
    doubtful: bool = False
    program: bytes = b""
    ctes: set[str] = field(default_factory=set[str])

    def word(self, at: int) -> bytes:
        """The word at a position in capitals; empty behind the end."""
        return self.words[at].upper if at < len(self.words) else b""


# Up to here every server executes; MariaDB takes what follows, up to its own versions, for remarks.
_ALWAYS_EXECUTED = 50_699
_MARIADB = 100_000
# No server is of this version: the first line of MariaDB's dumps speaks so to their client alone.
_NO_SERVER = 999_999
# The text is read twice for each; dumps have one or two in a statement.
_MOST_VERSIONS = 8
_VERSION = re.compile(rb"[0-9]{5,6}")
Executed = Callable[[bool, int], bool]
"""Whether a server executes a comment, by whether it begins as MariaDB's own and by its version."""


def _always(of_mariadb: bool, version: int) -> bool:
    return not of_mariadb and version <= _ALWAYS_EXECUTED


def significant(sql: bytes, executed: Executed | None = None) -> tuple[list[Token], bool]:
    """A text's tokens without comments; executable comments are opened, and whether there were any.

    :param executed: which of them to open; the others are remarks. None: all.
    :raises SqlSyntaxError: the text cannot be read.
    """
    found: list[Token] = []
    code = False
    for token in tokenize(sql):
        if token.kind is Kind.CODE:
            of_mariadb, version, body = _code(sql, token)
            if of_mariadb and version == _NO_SERVER:
                continue
            code = True
            if executed is not None and not executed(of_mariadb, version):
                continue
            inner, _ = significant(sql[body : token.end - 2])
            if any(
                one.text == b"*" and two.text == b"/" and one.end == two.start for one, two in pairwise(inner)
            ):
                # A server reads strings in it; by what a comment is alone it would end elsewhere.
                raise SqlSyntaxError("You have an error in your SQL syntax; a comment ends within a comment")
            found += [Token(one.kind, one.start + body, one.end + body, one.text, one.upper) for one in inner]
        elif token.kind not in (Kind.COMMENT, Kind.HINT):
            found.append(token)
    while found and found[-1].text == b";" and found[-1].kind is Kind.OP:
        found.pop()
    return found, code


def always_executed(sql: bytes, token: Token) -> int:
    """Where the text of an executable comment begins, if servers of all versions execute it; else -1."""
    of_mariadb, version, body = _code(sql, token)
    return body if _always(of_mariadb, version) else -1


def _code(sql: bytes, token: Token) -> tuple[bool, int, int]:
    """An executable comment: whether it is MariaDB's own, its version, and where its text begins."""
    at = token.start + token.text.index(b"!") + 1
    digits = _VERSION.match(sql, at)
    version = b"" if digits is None else digits[0]
    return token.text[2:3] == b"M", int(version or b"0"), at + len(version)


def readings(sql: bytes) -> list[list[Token]]:
    """The tokens as servers of all versions and flavours may read a text with executable comments.

    :raises SqlSyntaxError: the text cannot be read.
    """
    versions = {_code(sql, token)[:2] for token in tokenize(sql) if token.kind is Kind.CODE}
    versions.discard((True, _NO_SERVER))
    doubtful = sorted({version for of_mariadb, version in versions if not _always(of_mariadb, version)})
    if not doubtful:
        return []
    if len(doubtful) > _MOST_VERSIONS:
        raise SqlSyntaxError("executable comments for so many versions of servers cannot be read")

    def mysql(server: int) -> Executed:
        return lambda of_mariadb, version: not of_mariadb and version <= max(server, _ALWAYS_EXECUTED)

    def mariadb(server: int) -> Executed:
        return lambda of_mariadb, version: (
            _always(of_mariadb, version) or ((of_mariadb or version >= _MARIADB) and version <= server)
        )

    return [significant(sql, made(server))[0] for server in (0, *doubtful) for made in (mysql, mariadb)]


def is_qualified(words: Sequence[Token], at: int) -> bool:
    """Whether the word there is part of a qualified name, in which even reserved words are plain names."""
    if at and words[at - 1].text == b".":
        number = at > 1 and words[at - 2].kind is Kind.NUMBER and words[at - 2].end == words[at - 1].start
        return not number  # SELECT 1.FROM t
    return (
        at + 2 < len(words)
        and words[at + 1].text == b"."
        and words[at + 2].kind is Kind.WORD
        and words[at].end == words[at + 1].start
        and words[at + 1].end == words[at + 2].start
    )


_PROGRAMS = frozenset({b"PROCEDURE", b"FUNCTION", b"TRIGGER", b"EVENT", b"PACKAGE"})


def program_kind(words: Sequence[Token], at: int = 0) -> bytes:
    """The kind of stored program that the statement from ``at`` on defines, BEGIN for MariaDB's block that is
    run at once; empty: neither.
    """

    def word(number: int) -> bytes:
        return words[number].upper if number < len(words) else b""

    if word(at) == b"BEGIN":
        return b"BEGIN" if (word(at + 1), word(at + 2)) == (b"NOT", b"ATOMIC") else b""
    kind = word(_kind_at(words, at))
    if word(at) == b"ALTER":
        return kind if kind == b"EVENT" else b""
    return kind if word(at) == b"CREATE" and kind in _PROGRAMS else b""


def behind_program_kind(words: Sequence[Token], at: int) -> int:
    """The place of the word behind the kind of a statement that defines a stored program."""
    at = _kind_at(words, at)
    return at + 2 if at + 1 < len(words) and words[at + 1].upper == b"BODY" else at + 1


def _kind_at(words: Sequence[Token], at: int) -> int:
    def word(number: int) -> bytes:
        return words[number].upper if number < len(words) else b""

    at += 1
    if (word(at), word(at + 1)) == (b"OR", b"REPLACE"):
        at += 2
    if (word(at), word(at + 1)) == (b"DEFINER", b"="):
        at += 3
        if at < len(words) and words[at].kind is Kind.VARIABLE:  # @host; the host may stand apart from its @
            at += 2 if words[at].text == b"@" else 1
        elif word(at) == b"(":
            at += 2
    return at + 1 if word(at) == b"AGGREGATE" else at


def bare(sql: bytes) -> bytes:
    """A text without comments and with one space between its tokens: to look for words in, not to be sent.

    :raises SqlSyntaxError: the text cannot be read.
    """
    return b" ".join(token.text for token in significant(sql)[0])
