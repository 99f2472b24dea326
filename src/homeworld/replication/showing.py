"""Values of columns as people read them. Pure; nothing is decided by what it gives.

Invariant: two values that differ are shown as two texts that do, with where they begin to differ.
"""

from __future__ import annotations

from dataclasses import dataclass

from homeworld.model.names import quote
from homeworld.model.tables import Column
from homeworld.replication.column_types import select_expression
from homeworld.replication.json_scalars import TypedDocument
from homeworld.replication.json_types import document, types_expression

_SHOWN = 300
_BEFORE = 40
_HUGE = frozenset({"mediumtext", "longtext", "mediumblob", "longblob", "json"})
# Of documents up to this size it is told what their scalars are that text does not tell.
_TYPES_OF_BYTES = 1 << 20
_TYPES_SHOWN = 8
_BARE = frozenset({"bit", "geometry", "vector"})
# Signs that cannot be seen, of which terminals and PostgreSQL's text do not take all, by their pictures.
_CONTROLS = {code: 0x2400 + code for code in range(32)} | {127: 0x2421}
# To show text only: what these do not read right is shown as bytes.
_CODECS = {
    "": "utf-8", "ascii": "ascii", "utf8": "utf-8", "utf8mb3": "utf-8", "utf8mb4": "utf-8",
    "latin1": "cp1252", "latin2": "iso8859-2", "latin5": "iso8859-9", "latin7": "iso8859-13",
    "greek": "iso8859-7", "hebrew": "iso8859-8", "ucs2": "utf-16-be", "utf16": "utf-16-be",
    "utf16le": "utf-16-le", "utf32": "utf-32-be",
    "cp1250": "cp1250", "cp1251": "cp1251", "cp1256": "cp1256", "cp1257": "cp1257",
    "cp850": "cp850", "cp852": "cp852", "cp866": "cp866", "koi8r": "koi8-r", "koi8u": "koi8-u",
    "gbk": "gbk", "gb2312": "gb2312", "gb18030": "gb18030", "big5": "big5", "sjis": "cp932", "cp932": "cp932",
    "ujis": "euc-jp", "eucjpms": "euc-jp", "euckr": "euc-kr", "tis620": "tis-620",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shown:
    """A column's value for people, and what tells it from another."""

    text: str | None
    identity: bytes | None
    whole: bytes | None


def shown_expression(column: Column) -> str:
    """Three columns of a SELECT that :func:`shown` reads: huge values come as their beginning and hash."""
    if column.type == "json":
        name, types = quote(column.name), types_expression(column)
        return (
            f"IF(LENGTH({name})<={_TYPES_OF_BYTES:d},{name},LEFT({name},{_SHOWN:d})), LENGTH({name}), "
            f"CONCAT(SHA2(CONCAT(SHA2({name},256),{types}),256),' ',{types})"
        )
    if column.type in _HUGE:
        name = quote(column.name)
        return f"LEFT({name},{_SHOWN:d}), LENGTH({name}), SHA2({name},256)"
    return f"{select_expression(column)}, NULL, NULL"


def readable(column: Column, value: bytes | None) -> str | None:
    """A value for people: text where it is text, else its bytes."""
    if value is None:
        return None
    text = _text(column, value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _text(column: Column, value: bytes) -> str:
    codec = _CODECS.get(column.charset)
    if column.type == "bit":
        return f"b'{int.from_bytes(value, 'big'):b}'"
    if codec is None or (column.charset == "" and not value.isascii()) or column.type in _BARE:
        return "0x" + value.hex()
    return value.decode(codec, "backslashreplace").translate(_CONTROLS)


def shown(column: Column, value: bytes | None, length: bytes | None, digest: bytes | None) -> Shown:
    """What the three columns of :func:`shown_expression` gave."""
    if length is None or value is None:
        return Shown(readable(column, value), value, value)
    if column.type == "json":
        return _document(column, value, int(length), digest or b"")
    text = readable(column, value) or ""
    if int(length) > len(value):
        text = f"{text.removesuffix('…')}… ({int(length)} bytes, SHA-256 {(digest or b'').decode()})"
    return Shown(text, digest, None)


def _document(column: Column, value: bytes, length: int, digest: bytes) -> Shown:
    """A document of MySQL, with those of its scalars that its text does not tell."""
    hashed, _, types = digest.partition(b" ")
    size = f"({length} bytes, SHA-256 with types {hashed.decode()})"
    text = readable(column, value) or ""
    if length > len(value):
        return Shown(f"{text.removesuffix('…')}… {size}", digest, None)
    told = document(value, types)
    scalars = told.scalars if isinstance(told, TypedDocument) else ()
    listed = [f"{each.type} at {each.path}" for each in scalars[:_TYPES_SHOWN]]
    if len(scalars) > _TYPES_SHOWN:
        listed.append(f"{len(scalars) - _TYPES_SHOWN} more")
    if listed:
        text += f" (of types: {', '.join(listed)})"
    if text.endswith("more)") or len(value) > _SHOWN:
        text += f" {size}"
    return Shown(text, digest, None)


def apart(column: Column, one: Shown, other: Shown) -> tuple[Shown, Shown]:
    """Two values that differ, cut so that it shows where."""
    if one.text != other.text or one.whole is None or other.whole is None:
        return one, other
    texts = [_text(column, each.whole or b"") for each in (one, other)]
    same = next((at for at, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
    start = max(0, same - _BEFORE)
    cut = [
        f"…{text[start : start + _SHOWN]}{'…' if start + _SHOWN < len(text) else ''} (from character {start})"
        for text in texts
    ]
    return Shown(cut[0], one.identity, None), Shown(cut[1], other.identity, None)
