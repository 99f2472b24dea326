"""A session's SET statements, so that a connection opened later can be brought to the same state.

Knows texts only. The invariant: performing :meth:`Settings.since` on a connection that has performed the
first ``n`` brings it to where one stands that has performed them all.
"""

from __future__ import annotations

import re

from homeworld.model.errors import UnavailableError

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


_CLIENT_CHARSET = re.compile(
    rb"\b(?:names|character\s+set|charset|character_set_client)\s*(?::?=)?\s*['\"]?([a-z0-9_]+)",
    re.IGNORECASE,
)
_SPECIAL_CHARSETS = {
    1: "big5", 84: "big5", 13: "sjis", 88: "sjis", 28: "gbk", 87: "gbk", 95: "cp932", 96: "cp932",
    248: "gb18030", 249: "gb18030", 250: "gb18030", 35: "ucs2", 54: "utf16", 60: "utf32",
}  # fmt: skip
"""Collation ids whose character sets have bytes below 0x80 inside longer characters."""


def charset_name(collation_id: int) -> str:
    """The character set of a collation id of the handshake, as far as it matters for reading SQL."""
    return _SPECIAL_CHARSETS.get(collation_id, "utf8mb4")


def charset_set_by(sql: bytes) -> str | None:
    """The character_set_client that a SET gives the session, if it gives one."""
    found = _CLIENT_CHARSET.search(sql)
    if found is None:
        return None
    name = found[1].decode().lower()
    return "utf8mb4" if name == "default" else name


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
