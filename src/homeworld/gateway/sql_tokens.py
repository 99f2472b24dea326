"""SQL text as tokens: the one place that knows where a string, a comment or a name ends.

The lexical rules are those of MySQL and MariaDB with their default ``sql_mode`` (the router refuses to
switch on the modes that change them: ANSI_QUOTES, NO_BACKSLASH_ESCAPES …) and a character set in which no
byte below 0x80 is part of a longer character. It knows no grammar. Invariant: tokens cover the text from left
to right; joining the text between them with the tokens gives the text back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from homeworld.model.errors import HomeworldError


class SqlSyntaxError(HomeworldError):
    """The text is not SQL that could be read."""

    code = "syntax_error"
    http_status = 400
    mysql_errno = 1064
    sqlstate = "42000"


class Kind(IntEnum):
    """What a token is. Everything up to HEX is a literal that takes a place in a statement's fingerprint."""

    STRING = 0  # 'text' or "text"
    NUMBER = 1  # 12, 1.5, 1e3, .5
    HEX = 2  # x'00ff', 0xff, b'01', 0b01
    WORD = 3  # keyword or plain name
    QUOTED = 4  # `name`
    VARIABLE = 5  # @name, @@name
    PARAM = 6  # ?
    OP = 7
    COMMENT = 8  # plain comment
    HINT = 9  # /*+ … */, /*vt+ … */
    CODE = 10  # /*! … */, /*M! … */: text that the server executes
    BAD = 11


LITERALS = frozenset({Kind.STRING, Kind.NUMBER, Kind.HEX})


@dataclass(frozen=True, slots=True)
class Token:
    """One token. ``text`` is as written; ``upper`` is it in capitals where it is a word, else the text."""

    kind: Kind
    start: int
    end: int
    text: bytes
    upper: bytes

    def name(self) -> str:
        """The identifier that a WORD or QUOTED token writes."""
        text = self.text
        if self.kind is Kind.QUOTED:
            text = text[1:-1].replace(b"``", b"`")
        return text.decode("utf-8", "surrogateescape")


_W = rb"[0-9A-Za-z_$\x80-\xff]"
# Possessive quantifiers: a text with a quote that is never closed must not cost more than its length.
# Behind a name, a dot or an @ a digit goes on with a name.
_FRESH = rb"(?<![0-9A-Za-z_$`.@\x80-\xff])"
STRING = rb"'(?:[^'\\]++|\\.|'')*+'|\"(?:[^\"\\]++|\\.|\"\")*+\""
NAME = rb"`(?:[^`]++|``)++`"
# A comment whose text servers execute may have comments in it, as dumped triggers have.
# No group of it is possessive: up to Python 3.11.4 possessive groups in which there is something to go back
# to do not match. What each may match begins differently, so going back costs no more than the length either.
CODE = rb"/\*M?!(?:[^/*]++|/(?!\*)|\*(?!/)|/\*(?:[^*]++|\*(?!/))*\*/)*\*/"
_HEX = _FRESH + rb"(?:[xX]'[0-9a-fA-F]*'|[bB]'[01]*'|0x[0-9a-fA-F]+(?!" + _W + rb")|0b[01]+(?!" + _W + rb"))"
_NUMBER = _FRESH + rb"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?!" + _W + rb")"
# A dash begins a comment only before a space or control character; at the end of the text it does too.
_DASHES = rb"--(?:[\x00-\x20\x7f][^\n]*|$)"

_TOKEN = re.compile(
    rb"(?P<space>[\x09-\x0d\x20]+)"
    rb"|(?P<HINT>/\*(?:\+|[vV][tT]\+).*?\*/)"
    rb"|(?P<CODE>" + CODE + rb")"
    rb"|(?P<COMMENT>/\*(?!M?!).*?\*/|#[^\n]*|" + _DASHES + rb")"
    rb"|(?P<HEX>" + _HEX + rb")"
    rb"|(?P<STRING>" + STRING + rb")"
    rb"|(?P<NUMBER>" + _NUMBER + rb")"
    rb"|(?P<WORD>" + _W + rb"+)"
    rb"|(?P<QUOTED>`(?:[^`]++|``)++`)"
    rb"|(?P<VARIABLE>@@?(?:`(?:[^`]++|``)++`|" + STRING + rb"|[0-9A-Za-z_$.\x80-\xff]+)?)"
    rb"|(?P<PARAM>\?)"
    rb"|(?P<OP><=>|->>|->|<<|>>|<>|!=|>=|<=|:=|\|\||&&|/(?!\*)|[-+*%(),.;=<>!~^|&:{}])",
    re.DOTALL,
)
_KINDS = {kind.name: kind for kind in Kind}


def tokenize(sql: bytes) -> list[Token]:
    """The tokens of a text without the spaces between them; comments are tokens.

    :raises SqlSyntaxError: a quote or comment is not closed, or a byte that begins no token.
    """
    return list(tokens(sql))


def tokens(sql: bytes) -> Iterator[Token]:
    """The same, one after another: all of a large text's take many times its size.

    :raises SqlSyntaxError: while going on.
    """
    at = 0
    match = _TOKEN.match
    while at < len(sql):
        found = match(sql, at)
        if found is None:
            raise SqlSyntaxError(
                "You have an error in your SQL syntax; the text cannot be read near "
                f"'{sql[at : at + 40].decode('utf-8', 'replace')}'"
            )
        group = found.lastgroup
        end = found.end()
        if group != "space":
            text = found[0]
            kind = _KINDS[group or ""]
            yield Token(kind, at, end, text, text.upper() if kind is Kind.WORD else text)
        at = end


# The same rules once more, written so that the regular expression engine can leap from one possible first
# byte to the next: what may stand before is looked at behind the first byte. What is never closed reaches to
# the end, so that a text costs no more than its length (and tokenize refuses it).
_BEFORE = rb"(?<![0-9A-Za-z_$`.@\x80-\xff].)"
_VALUE = (
    STRING
    + rb"|0" + _BEFORE + rb"(?:x[0-9a-fA-F]+|b[01]+)(?!" + _W + rb")"
    rb"|[0-9]" + _BEFORE + rb"[0-9]*(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?(?!" + _W + rb")"
    rb"|\." + _BEFORE + rb"[0-9]+(?:[eE][+-]?[0-9]+)?(?!" + _W + rb")"
    rb"|[xX]" + _BEFORE + rb"'[0-9a-fA-F]*'|[bB]" + _BEFORE + rb"'[01]*'"
)  # fmt: skip
_KEPT = NAME + rb"|@@?(?:" + NAME + rb"|" + STRING + rb")|/\*(?:\+|[vV][tT]\+).*?\*/|" + CODE
_DROPPED = rb"/\*(?!M?!).*?\*/|#[^\n]*|" + _DASHES
_OPEN = rb"(?:@@?)?['\"`].*+|/\*.*+"
_SPLIT = re.compile(
    rb"(" + _KEPT + rb")|()(?:" + _DROPPED + rb")|" + _VALUE + rb"|()(?:" + _OPEN + rb")", re.DOTALL
)
_LITERAL = re.compile(_KEPT + rb"|" + _DROPPED + rb"|(" + _VALUE + rb")|" + _OPEN, re.DOTALL)

# findall is done in one go, in which no other thread gets on: a client of each would wait for it.
_IN_STEPS = 1 << 18

Fingerprint = tuple[bytes | None, ...]


def fingerprint(sql: bytes) -> Fingerprint:
    """What two texts have in common that differ in nothing but literals and plain comments.

    Each gap has a mark of its own kind (a kept text, a comment, a literal, what is never closed): a comment
    never stands in for a literal, so texts of one fingerprint have their literals at the same places.
    """
    return tuple(_SPLIT.split(sql))


def literals(sql: bytes) -> list[bytes]:
    """The literals of a text in order: its tokens of a kind in ``LITERALS``."""
    if len(sql) >= _IN_STEPS:
        return [found for match in _LITERAL.finditer(sql) if (found := match[1])]
    return [found for found in _LITERAL.findall(sql) if found]


# Any other character stands for itself. \% and \_ keep their backslash: patterns of LIKE are to see it.
_ESCAPES = {
    ord("%"): b"\\%",
    ord("_"): b"\\_",
    ord("0"): b"\0",
    ord("b"): b"\b",
    ord("n"): b"\n",
    ord("r"): b"\r",
    ord("t"): b"\t",
    ord("Z"): b"\x1a",
}
_ESCAPE = re.compile(rb"\\(.)|''|\"\"", re.DOTALL)


def string_value(literal: bytes) -> bytes:
    """The bytes that a STRING token writes."""
    quote, body = literal[:1], literal[1:-1]
    if b"\\" not in body and quote not in body:
        return body

    def plain(found: re.Match[bytes]) -> bytes:
        escaped = found[1]
        if escaped is None:  # a doubled quote stands for one only where it is the string's own
            return quote if found[0] == quote * 2 else found[0]
        return _ESCAPES.get(escaped[0], escaped)

    return _ESCAPE.sub(plain, body)


def hex_value(literal: bytes) -> bytes:
    """The bytes that a HEX token writes."""
    if literal[:1] in b"xX":
        return bytes.fromhex(literal[2:-1].decode())
    if literal[:2] == b"0x":
        digits = literal[2:].decode()
        return bytes.fromhex(digits if len(digits) % 2 == 0 else "0" + digits)
    bits = literal[2:-1] if literal[:1] in b"bB" else literal[2:]
    return int(bits or b"0", 2).to_bytes((len(bits) + 7) // 8, "big")


def quote_string(value: bytes) -> bytes:
    """A STRING literal that writes ``value``."""
    return b"'" + value.replace(b"\\", b"\\\\").replace(b"'", b"''") + b"'"
