"""A session's SET statements, so that a connection opened later can be brought to the same state.

Knows texts only. The invariant: performing :meth:`Settings.since` on a connection that has performed the
first ``n`` brings it to where one stands that has performed them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from homeworld.model.errors import UnavailableError, UnsupportedSqlError

_ONE_SHOT = re.compile(rb"^\s*set\s+transaction\b", re.IGNORECASE)
_NOT_OURS = re.compile(rb"^\s*set\s+(?:@@)?(?:global|persist|persist_only|password)\b", re.IGNORECASE)
_TARGET = re.compile(
    rb"^\s*set\s+(?:@@)?(?:(?:session|local)[\s.]+)?(@?[a-z0-9_.$]+|@`[^`]+`|names|character\s+set|charset)\s*"
    rb"(?::?=|\s)",
    re.IGNORECASE,
)
_READING = re.compile(rb"^(names|character set|charset|character_set_.*|collation_.*|sql_mode|time_zone)$")
"""Variables that decide how the text of later SETs is read."""
_MANY = 10_000


_NAMES_UTF8MB4 = re.compile(
    rb"^\s*set\s+names\s*(['\"]?)utf8mb4\1(?:\s+collate\s+(['\"]?)utf8mb4_[a-z0-9_]+\2)?\s*$", re.IGNORECASE
)
_NAMES = re.compile(rb"(?:^\s*set\s+|,\s*)(?:names|charset|character\s+set)\b", re.IGNORECASE)
_OF_TEXTS = re.compile(rb"names|charset|character|collation|sql_mode", re.IGNORECASE)
_CLIENT_CHARSET = re.compile(
    rb"^\s*set\s+(?:@@)?(?:(?:session|local)[\s.]+)?`?character_set_client`?\s*:?=\s*@[a-z0-9_$.]+\s*$",
    re.IGNORECASE,
)
_OTHER_ASCII = {
    1: "big5", 84: "big5", 13: "sjis", 88: "sjis", 28: "gbk", 87: "gbk", 95: "cp932", 96: "cp932",
    248: "gb18030", 249: "gb18030", 250: "gb18030", 10: "swe7", 82: "swe7",
    **dict.fromkeys((35, 90, 159, *range(128, 152)), "ucs2"), 54: "utf16", 55: "utf16", 56: "utf16le",
    62: "utf16le", 60: "utf32", 61: "utf32", **dict.fromkeys(range(101, 125), "utf16"),
    **dict.fromkeys(range(160, 184), "utf32"),
}  # fmt: skip
"""Collation ids in whose character sets a byte below 0x80 is not always that ASCII character."""
_UTF8MB4_IDS = frozenset({45, 46, *range(224, 248), 255})
_UTF8MB3_IDS = frozenset({33, 76, 83, *range(192, 216), 223})
_UTF8 = frozenset({"utf8", "utf8mb3", "utf8mb4"})
READING = b"SELECT @@character_set_client, @@character_set_connection, @@sql_mode"
"""Asks a server how it reads a session's texts; for :func:`texts_as_read`."""


def charset_name(collation_id: int) -> str:
    """The character set of a collation id of the handshake. No id means the server's own, utf8mb4; an id that
    is not known here gives a name that no character set has, so that nothing is taken for certain.
    """
    if not collation_id or collation_id in _UTF8MB4_IDS:
        return "utf8mb4"
    if collation_id in _UTF8MB3_IDS:
        return "utf8mb3"
    return _OTHER_ASCII.get(collation_id, f"of collation {collation_id}")


def check_handshake_charset(collation_id: int) -> None:
    """Refuse a client whose texts cannot be read here.

    :raises UnsupportedSqlError: in its character set ASCII bytes are other characters, or parts of such.
    """
    name = _OTHER_ASCII.get(collation_id)
    if name is not None:
        raise UnsupportedSqlError(
            f"VT12001: unsupported: character set {name} for statements; connect with utf8mb4"
        )


def texts_charset(client: str, connection: str) -> str:
    """The character set by which the server reads a session's literals: where both are forms of UTF-8 the
    smaller one, else the one that is none.

    :param client: character_set_client, in which the text is sent.
    :param connection: character_set_connection, into which its literals are converted.
    """
    for name in (client, connection):
        if name not in _UTF8:
            return name
    return "utf8mb4" if client == connection == "utf8mb4" else "utf8mb3"


def is_names_utf8mb4(sql: bytes) -> bool:
    """The SET that most drivers begin with: what it gives is known without asking."""
    return _NAMES_UTF8MB4.match(sql) is not None


def is_names(sql: bytes) -> bool:
    """Whether a SET (without comments) sets all that a connection's character set is."""
    return _NAMES.search(sql) is not None


def may_change_reading(sql: bytes) -> bool:
    """Whether a SET may change how the server reads a session's texts and the zeros in them."""
    return _OF_TEXTS.search(sql) is not None


def is_saved_client_charset(sql: bytes) -> bool:
    """A SET of character_set_client alone from a user variable, as dumps have it behind each table."""
    return _CLIENT_CHARSET.match(sql) is not None


def is_one_shot(sql: bytes) -> bool:
    """``SET TRANSACTION …`` without SESSION: meant for the next transaction only."""
    return _ONE_SHOT.match(sql) is not None


def is_for_server(sql: bytes) -> bool:
    """A SET that changes the server or an account, not the session: never repeated anywhere."""
    return _NOT_OURS.match(sql) is not None


def _single_target(sql: bytes) -> bytes | None:
    """The one variable a SET assigns, if it is a plain assignment of a constant; else None."""
    found = _TARGET.match(sql)
    if found is None:
        return None
    value = sql[found.end() :]
    # A comma may begin a second assignment, a parenthesis or @ makes the value depend on something.
    if any(byte in value for byte in b",(@"):
        return None
    return b" ".join(found[1].lower().split())


class Settings:
    """The SETs of one session in order. ``count`` only grows until :meth:`clear`."""

    def __init__(self) -> None:
        self.count = 0
        self._overflow = False
        self._performed: list[tuple[int, bytes | None, bytes]] = []

    def add(self, sql: bytes) -> None:
        """A SET was performed on a connection that had performed all before it."""
        self.count += 1
        target = _single_target(sql)
        if target is not None:
            # What it replaces need not be repeated, unless something in between may have read it.
            reading = _READING.match(target) is not None
            for at in range(len(self._performed) - 1, -1, -1):
                _, known, _ = self._performed[at]
                if known is None or (reading and known.startswith(b"@")):
                    break
                if known == target:
                    del self._performed[at]
                    break
        self._performed.append((self.count, target, sql))
        if len(self._performed) > _MANY:
            self._performed.clear()
            self._overflow = True

    @property
    def overflow(self) -> bool:
        """Whether there were more than can be repeated."""
        return self._overflow

    @property
    def performed(self) -> tuple[bytes, ...]:
        """The SETs that make up what the session is, in order."""
        return tuple(sql for _, _, sql in self._performed)

    def restore(self, performed: Iterable[bytes]) -> None:
        """Begin with what :attr:`performed` gave of another session, on no connection yet."""
        self.clear()
        for sql in performed:
            self.add(sql)

    def since(self, count: int) -> tuple[bytes, ...]:
        """The SETs that a connection still lacks which stands at ``count``.

        :raises UnavailableError: there are too many to repeat.
        """
        if count == self.count:
            return ()
        if self._overflow:
            raise UnavailableError("the session has made more SET statements than can be repeated elsewhere")
        return tuple(sql for number, _, sql in self._performed if number > count)

    def clear(self) -> None:
        """The session was reset."""
        self.count = 0
        self._overflow = False
        self._performed.clear()
