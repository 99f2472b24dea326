"""Where one statement of a text ends and the next begins: at a ``;``, but not inside of a stored program.

It reads no more of a program than what nests: blocks, IF, CASE, loops, handlers. Invariant: no ``;`` that a
server takes for the end of a statement is kept inside of one, so that nothing rides along unseen; where a
program's end cannot be found for certain, every ``;`` ends a statement, and the server says what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from homeworld.gateway.sql_expressions import RESERVED
from homeworld.gateway.sql_statement import (
    always_executed,
    behind_program_kind,
    is_qualified,
    program_kind,
)
from homeworld.gateway.sql_tokens import CODE, NAME, STRING, Kind, SqlSyntaxError, Token, tokenize

_NAMES = (Kind.WORD, Kind.QUOTED)
# Up to the first ; that is not in a string, a name or a comment, or to what is never closed.
_UP_TO_END = re.compile(
    rb"(?:[^;'\"`/#-]++|" + STRING + rb"|" + NAME + rb"|" + CODE + rb"|/\*(?!M?!).*?\*/|#[^\n]*+"
    rb"|--(?:[\x00-\x20\x7f][^\n]*+|$)|/(?!\*)|-)*",
    re.DOTALL,
)
_BLOCK_WORDS = frozenset(
    {b"BEGIN", b"CASE", b"ELSE", b"ELSEIF", b"END", b"FOR", b"IF", b"LOOP", b"REPEAT", b"THEN", b"UNTIL",
     b"WHEN", b"WHILE"}
)  # fmt: skip
# None of these is the last word of an expression.
_INSIDE_EXPRESSIONS = RESERVED - {b"NULL", b"TRUE", b"FALSE", b"DEFAULT"} | {b"ESCAPE"}
_END = frozenset({b"END"})
_ROUTINES = frozenset({b"PROCEDURE", b"FUNCTION"})
# What may stand behind the type that a function returns.
_OF_TYPE = frozenset(
    {b"UNSIGNED", b"SIGNED", b"ZEROFILL", b"BINARY", b"ASCII", b"UNICODE", b"BYTE", b"VARYING", b"PRECISION",
     b"VARCHAR", b"CHAR", b"CHARACTER"}
)  # fmt: skip


class _UnclearError(Exception):
    """The end of the program is not where it should be."""


def split_statements(sql: bytes) -> tuple[bytes, ...]:
    """The statements of a text without their ``;``; those with nothing but comments are left out.

    A text that cannot be read stays one statement: the server says what is wrong with it.
    """
    last = len(sql.rstrip(b"; \t\r\n"))
    up_to = _UP_TO_END.match(sql)
    first = len(sql) if up_to is None or sql[up_to.end() : up_to.end() + 1] != b";" else up_to.end()
    if first >= last:
        only = sql[:first].strip()
        return (only,) if only else ()
    try:
        words, outer = _opened(sql)
    except SqlSyntaxError:
        return (sql,)
    program = _Program(words)
    found: list[bytes] = []
    start = at = 0
    while at < len(words):
        end = _end(program, words, outer, at)
        stop = words[end].start if end < len(words) else len(sql)
        if end > at:
            found.append(sql[start:stop].strip())
        start = words[end].end if end < len(words) else stop
        at = end + 1
    return tuple(found)


def statements_of_block(words: Sequence[Token]) -> list[list[Token]]:
    """The statements in a block that is run at once, those that only nest others left out.

    :raises SqlSyntaxError: they cannot be told apart.
    """
    program = _Program(words)
    try:
        behind = program.whole(b"BEGIN", 0)
    except _UnclearError:
        behind = -1
    if behind != len(words):
        raise SqlSyntaxError("You have an error in your SQL syntax; the block's end cannot be found")
    return [list(words[start:end]) for start, end in program.plain if start < end]


def _opened(sql: bytes) -> tuple[list[Token], list[bool]]:
    """A text's tokens without comments, those in comments that every server executes among them, and which
    of them stand outside of any.

    :raises SqlSyntaxError: the text cannot be read.
    """
    words: list[Token] = []
    outer: list[bool] = []
    for token in tokenize(sql):
        if token.kind is Kind.COMMENT:
            continue
        body = always_executed(sql, token) if token.kind is Kind.CODE else -1
        inner = [token] if body < 0 else _moved(sql, body, token.end - 2)
        words += inner
        outer += [body < 0] * len(inner)
    return words, outer


def _moved(sql: bytes, start: int, end: int) -> list[Token]:
    found = tokenize(sql[start:end])
    return [
        Token(one.kind, one.start + start, one.end + start, one.text, one.upper)
        for one in found
        if one.kind is not Kind.COMMENT
    ]


def _end(program: _Program, words: Sequence[Token], outer: Sequence[bool], at: int) -> int:
    """Where the ``;`` behind the statement from ``at`` on stands; the number of words where there is none."""
    behind = at
    kind = program_kind(words, at)
    if kind and not program.unclear:
        try:
            behind = program.whole(kind, at)
        except (_UnclearError, RecursionError):  # blocks in blocks, deeper than anybody writes
            # Nor is the end of a later one looked for: each look may go to the end of the text.
            program.unclear = True
    while behind < len(words) and not (outer[behind] and _is(words[behind], b";")):
        behind += 1
    return behind


def _is(token: Token, text: bytes) -> bool:
    return token.kind is Kind.OP and token.text == text


def _key(token: Token) -> bytes | None:
    """The keyword that a token may be; None: one that not every server reads."""
    if token.kind is Kind.CODE:
        try:
            inner = {one.upper for one in tokenize(token.text[3:-2])}
        except SqlSyntaxError:
            return None
        return None if _BLOCK_WORDS & inner else b""
    return token.upper if token.kind in (Kind.WORD, Kind.OP) else b""


class _Program:
    """Goes through one stored program. Each method takes the place of its first word and gives the place
    behind its last. ``plain`` is where the statements are that hold no others; ``unclear`` is set by who
    could not find a program's end.
    """

    def __init__(self, words: Sequence[Token]) -> None:
        self._words = words
        self._keys = [
            b"" if token.kind is Kind.WORD and is_qualified(words, at) else _key(token)
            for at, token in enumerate(words)
        ]
        self.plain: list[tuple[int, int]] = []
        self.unclear = False

    def _word(self, at: int) -> bytes:
        """The keyword at a place; empty where something else stands there."""
        if at >= len(self._keys):
            return b""
        key = self._keys[at]
        if key is None:
            raise _UnclearError
        return key

    def _is_name(self, at: int) -> bool:
        return at < len(self._words) and self._words[at].kind in _NAMES

    def whole(self, kind: bytes, at: int) -> int:
        """The program whose statement begins at ``at``."""
        if kind == b"BEGIN":
            return self._statement(at)
        at = behind_program_kind(self._words, at)
        if kind == b"TRIGGER":
            while self._word(at) not in {b"EACH", b";"} and at < len(self._words):
                at += 1
            if self._word(at) != b"EACH":
                raise _UnclearError
            at += 2 if self._word(at + 1) == b"ROW" else 1
            if self._word(at) in {b"FOLLOWS", b"PRECEDES"}:
                at += 2
            return self._statement(at)
        if kind == b"EVENT":
            while self._word(at) not in {b"DO", b";"} and at < len(self._words):
                at += 1
            return self._statement(at + 1) if self._word(at) == b"DO" else at
        if kind == b"PACKAGE":
            return self._package(at)
        return self._routine(at)

    def _package(self, at: int) -> int:
        while self._word(at) not in {b"AS", b"IS"} | _ROUTINES:
            if at >= len(self._words) or self._word(at) == b";":
                raise _UnclearError
            at += 1
        if self._word(at) not in _ROUTINES:
            at += 1
        while self._word(at) != b"END":
            body = self._word(at) == b"BEGIN"
            at = self._routine(at + 1) if self._word(at) in _ROUTINES else self._statement(at)
            if body:
                return at
            if self._word(at) != b";":
                raise _UnclearError
            at += 1
        return self._behind_end(at + 1)

    def _routine(self, at: int) -> int:
        """From a routine's name on."""
        while self._word(at) not in {b"(", b";", b"RETURNS", b"RETURN", b"AS", b"IS"} and at < len(
            self._words
        ):
            at += 1
        if self._word(at) == b"(":
            at = self._parentheses(at)
        return self._statement(self._characteristics(at))

    def _characteristics(self, at: int) -> int:
        while True:
            match self._word(at), self._word(at + 1):
                case (b"RETURNS", _):
                    at = self._type(at + 1)
                case (b"COMMENT", _) | (b"LANGUAGE", _) | (b"NOT", b"DETERMINISTIC"):
                    at += 2
                case (b"CONTAINS" | b"NO", b"SQL"):
                    at += 2
                case (b"READS" | b"MODIFIES", b"SQL") | (b"SQL", b"SECURITY"):
                    at += 3
                case (b"DETERMINISTIC" | b"AS" | b"IS", _):
                    at += 1
                case _:
                    return at

    def _type(self, at: int) -> int:
        if (self._word(at), self._word(at + 1)) == (b"TYPE", b"OF"):
            at += 2
            while self._word(at + 1) == b".":
                at += 2
            return at + 1
        at += 1
        while True:
            word = self._word(at)
            if word == b"(":
                at = self._parentheses(at)
            elif word in {b"CHARSET", b"COLLATE"}:
                at += 2
            elif word == b"CHARACTER" and self._word(at + 1) == b"SET":
                at += 3
            elif word in _OF_TYPE:
                at += 1
            else:
                return at

    def _parentheses(self, at: int) -> int:
        depth = 0
        while at < len(self._words):
            depth += {b"(": 1, b")": -1}.get(self._word(at), 0)
            at += 1
            if depth == 0:
                return at
        raise _UnclearError

    # --- statements of a body

    def _statement(self, at: int) -> int:
        if self._is_name(at) and self._word(at + 1) == b":":
            at += 2
        match self._word(at):
            case b"BEGIN":
                at += 3 if (self._word(at + 1), self._word(at + 2)) == (b"NOT", b"ATOMIC") else 1
                return self._behind_end(self._list(at, _END) + 1)
            case b"IF":
                return self._if(at + 1)
            case b"CASE":
                return self._case(at + 1)
            case b"LOOP" as kind:
                return self._closed(self._list(at + 1, _END), kind)
            case b"WHILE" | b"FOR" as kind:
                return self._closed(self._list(self._behind(at + 1, b"DO"), _END), kind)
            case b"REPEAT" as kind:
                until = self._list(at + 1, frozenset({b"UNTIL"}))
                return self._closed(self._behind(until + 1, b"END") - 1, kind)
            case b"DECLARE" if self._word(at + 2) == b"HANDLER":
                return self._statement(self._conditions(at + 4))
            case _:
                start = at
                while at < len(self._words) and self._word(at) != b";":
                    at += 1
                self.plain.append((start, at))
                return at

    def _list(self, at: int, closers: frozenset[bytes]) -> int:
        """Statements with ``;`` behind each, up to one of the closing words; the place of that word."""
        while self._word(at) not in closers or self._word(at + 1) == b":":
            at = self._statement(at)
            if self._word(at) != b";":
                raise _UnclearError
            at += 1
        return at

    def _if(self, at: int) -> int:
        at = self._behind(at, b"THEN")
        while True:
            at = self._list(at, frozenset({b"END", b"ELSE", b"ELSEIF"}))
            match self._word(at):
                case b"ELSEIF":
                    at = self._behind(at + 1, b"THEN")
                case b"ELSE":
                    at += 1
                case _:
                    return self._closed(at, b"IF")

    def _case(self, at: int) -> int:
        at = at + 1 if self._word(at) == b"WHEN" else self._behind(at, b"WHEN")
        at = self._behind(at, b"THEN")
        while True:
            at = self._list(at, frozenset({b"END", b"ELSE", b"WHEN"}))
            match self._word(at):
                case b"WHEN":
                    at = self._behind(at + 1, b"THEN")
                case b"ELSE":
                    at += 1
                case _:
                    return self._closed(at, b"CASE")

    def _closed(self, at: int, kind: bytes) -> int:
        """``END kind [label]``"""
        if (self._word(at), self._word(at + 1)) != (b"END", kind):
            raise _UnclearError
        return self._behind_end(at + 2)

    def _behind_end(self, at: int) -> int:
        """A label may stand behind the end."""
        return at + 1 if self._is_name(at) else at

    def _conditions(self, at: int) -> int:
        """What a handler is for."""
        while True:
            match self._word(at), self._word(at + 1):
                case (b"SQLSTATE", b"VALUE"):
                    at += 3
                case (b"SQLSTATE", _) | (b"NOT", b"FOUND"):
                    at += 2
                case _:
                    at += 1
            if self._word(at) != b",":
                return at
            at += 1

    def _behind(self, at: int, word: bytes) -> int:
        """The place behind the word that ends the expression from ``at`` on."""
        parentheses = cases = 0
        start = at
        while at < len(self._words):
            found = self._word(at)
            if found == b";":
                break
            if found in {b"(", b")"}:
                parentheses += 1 if found == b"(" else -1
            elif parentheses == 0 and found in (b"END", word):
                # Some of these words may be names, too: behind an operator they are.
                if at == start or not self._may_end_expression(at - 1):
                    break
                if found == word and cases == 0:
                    return at + 1
                cases -= found == b"END"
            elif parentheses == 0 and found == b"CASE":
                cases += 1
            if parentheses < 0 or cases < 0:
                break
            at += 1
        raise _UnclearError

    def _may_end_expression(self, at: int) -> bool:
        token, word = self._words[at], self._word(at)
        if token.kind is Kind.OP:
            return word == b")"
        return token.kind is not Kind.CODE and (word not in _INSIDE_EXPRESSIONS)
