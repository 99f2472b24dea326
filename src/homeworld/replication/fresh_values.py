"""Whether a schema statement gives rows values that another run of it, elsewhere or later, would not give.

``ADD COLUMN … DEFAULT CURRENT_TIMESTAMP`` fills the column of every row that is there with the time of *this*
run; a random default, numbers given out by AUTO_INCREMENT, NULLs that a TIMESTAMP NOT NULL cannot keep, and
what a server fills a TIMESTAMP with where explicit_defaults_for_timestamp is OFF are the same. The binlog has
no row events for any of it, so running the statement on the other side makes other rows. Told from the
statement's words, the columns as they were and that setting; it knows no server.

Invariant: a default that is not known to be the same everywhere is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from homeworld.model.tables import Column, Table
from homeworld.replication.log_statements import Token
from homeworld.replication.row_effects import changes_of, parts_of

# What comes behind a default in a column's definition.
_BEHIND = frozenset(
    {
        "NOT", "AUTO_INCREMENT", "UNIQUE", "PRIMARY", "KEY", "COMMENT", "COLLATE", "COLUMN_FORMAT", "STORAGE",
        "CHECK", "CONSTRAINT", "REFERENCES", "ON", "AFTER", "FIRST", "VISIBLE", "INVISIBLE", "GENERATED",
        "AS", "ENGINE_ATTRIBUTE", "SECONDARY_ENGINE_ATTRIBUTE", "COMPRESSED", "WITH", "WITHOUT",
        "REF_SYSTEM_ID",
    }
)  # fmt: skip
# Values by a word alone.
_BARE = frozenset(
    {
        "CURRENT_TIMESTAMP", "LOCALTIME", "LOCALTIMESTAMP", "CURRENT_DATE", "CURRENT_TIME", "UTC_DATE",
        "UTC_TIME", "UTC_TIMESTAMP", "CURRENT_USER", "CURRENT_ROLE", "SYSDATE", "NEXT", "PREVIOUS", "@",
    }
)  # fmt: skip
# Words before a parenthesis whose value depends on nothing but what stands in it, and types in a CAST.
_SAME_EVERYWHERE = frozenset(
    {
        "ABS", "ASCII", "BIN", "BINARY", "BIT_COUNT", "CAST", "CEIL", "CEILING", "CHAR", "CHAR_LENGTH",
        "CHARACTER_LENGTH", "COALESCE", "CONCAT", "CONCAT_WS", "CONV", "CONVERT", "CRC32", "DATETIME",
        "DECIMAL", "FLOOR", "GREATEST", "HEX", "IF", "IFNULL", "IN", "INSERT", "INSTR", "JSON_ARRAY",
        "JSON_COMPACT", "JSON_OBJECT", "JSON_QUOTE", "JSON_UNQUOTE", "LCASE", "LEAST", "LEFT", "LENGTH",
        "LINESTRING", "LOCATE", "LOWER", "LPAD", "LTRIM", "MAKEDATE", "MAKETIME", "MD5", "MID", "MOD",
        "NCHAR", "NULLIF", "OCTET_LENGTH", "POINT", "POLYGON", "POW", "POWER", "REPEAT", "REPLACE",
        "REVERSE", "RIGHT", "ROUND", "RPAD", "RTRIM", "SHA", "SHA1", "SHA2", "SIGN", "SPACE",
        "ST_GEOMFROMTEXT", "ST_GEOMFROMWKB", "SUBSTR", "SUBSTRING", "TIME", "TRIM", "TRUNCATE", "UCASE",
        "UNHEX", "UPPER", "UUID_TO_BIN", "VARCHAR",
    }
)  # fmt: skip
# What follows these is no DEFAULT or NULL of the column itself (SET: what a foreign key does).
_OTHERS = frozenset({"NOT", "SET", "COLUMN_FORMAT", "STORAGE"})
# What ADD can name besides columns, where a name may follow that is spelled like a type.
_NO_COLUMN = frozenset({"INDEX", "KEY", "UNIQUE", "FULLTEXT", "SPATIAL", "CONSTRAINT"})


def fresh_values(sql: str, before: Table, now: Table | None, *, explicit_timestamps: bool) -> str:
    """Why ``sql`` gives rows that are there values of its own run; empty: it does not.

    :param before: the table that it alters, as it was.
    :param now: as it is on the source by now; None: it is gone.
    :param explicit_timestamps: explicit_defaults_for_timestamp is known to be ON wherever it is run.
    """
    for change in changes_of(sql):
        told = _added(change, explicit_timestamps) or _modified(change, before, now, explicit_timestamps)
        if told:
            return told
    return ""


def _added(change: Sequence[Token], explicit_timestamps: bool) -> str:
    words = [token.word for token in change]
    if words[:1] != ["ADD"]:
        return ""
    for value in _defaults(change):
        if why := _fresh(value):
            return (
                f"it fills a column of rows that are there with {why}, which is another value with every run"
            )
    at = 2 if words[1:2] == ["COLUMN"] else 1
    at += 3 if words[at : at + 3] == ["IF", "NOT", "EXISTS"] else 0
    if "AUTO_INCREMENT" in words or words[at + 1 : at + 2] == ["SERIAL"] or _serial_default(words):
        return "it numbers rows that are there, and another run would number them in another order"
    if not explicit_timestamps:
        inner = words[at : at + 1] == ["("]
        for column in parts_of(change[at + 1 :] if inner else change[at:]):
            if column and column[0].word not in _NO_COLUMN and _left_to_server(column[1:]):
                return (
                    f"it leaves to the server what column {column[0].name!r} of rows that are there holds: "
                    "the time of its own run, unless explicit_defaults_for_timestamp is ON, and that is not "
                    "known of both sides. Say DEFAULT or NULL"
                )
    return ""


def _left_to_server(definition: Sequence[Token]) -> bool:
    """Whether a column, from its type on, is a TIMESTAMP with neither DEFAULT nor NULL. A server's setting
    decides then: with explicit_defaults_for_timestamp rows are given NULL, without it the present time, where
    it is the table's first such column, or zero.
    """
    words = [token.word for token in definition]
    return words[:1] == ["TIMESTAMP"] and not any(
        _says(words, word) for word in ("DEFAULT", "NULL", "AS", "GENERATED")
    )


def _says(words: Sequence[str], attribute: str) -> bool:
    """Whether a column's definition has the attribute, outside parentheses."""
    depth = 0
    for before, word in pairwise(words):
        depth += (word == "(") - (word == ")")
        if word == attribute and depth <= 0 and before not in _OTHERS:
            return True
    return False


def _serial_default(words: Sequence[str]) -> bool:
    return any(list(words[at : at + 3]) == ["SERIAL", "DEFAULT", "VALUE"] for at in range(len(words)))


def _defaults(change: Sequence[Token]) -> Iterator[Sequence[Token]]:
    """What stands behind each DEFAULT."""
    for start, token in enumerate(change):
        if token.word != "DEFAULT":
            continue
        depth, end = 0, start + 1
        while end < len(change):
            word = change[end].word
            if not depth and (word in _BEHIND or word in {",", ")"}):
                break
            depth += (word == "(") - (word == ")")
            end += 1
        yield change[start + 1 : end]


def _fresh(value: Sequence[Token]) -> str:
    """What in a default's expression gives another value with every run."""
    for at, token in enumerate(value):
        if token.word in _BARE:
            return "a variable" if token.word == "@" else token.word
        called = value[at + 1].word == "(" if at + 1 < len(value) else False
        if called and token.name is not None and token.word not in _SAME_EVERYWHERE and not _operator(token):
            return f"{token.name.upper()}()"
    return ""


def _operator(token: Token) -> bool:
    return token.word in {
        "AND",
        "OR",
        "XOR",
        "NOT",
        "DIV",
        "IS",
        "LIKE",
        "BETWEEN",
        "CASE",
        "WHEN",
        "THEN",
        "ELSE",
    }


def _modified(change: Sequence[Token], before: Table, now: Table | None, explicit_timestamps: bool) -> str:
    words = [token.word for token in change]
    verb = words[0] if words else ""
    if verb not in {"MODIFY", "CHANGE"}:
        return ""
    at = 2 if words[1:2] == ["COLUMN"] else 1
    at += 2 if words[at : at + 2] == ["IF", "EXISTS"] else 0
    new = at + 1 if verb == "CHANGE" else at
    was = _column(before, change[at : at + 1])
    if was is None:
        return ""
    kind = words[new + 1 : new + 2]
    if (was.type == "timestamp") != (kind == ["TIMESTAMP"]):
        return f"it makes other moments of column {was.name!r}, by the time zone of its own session"
    if "AUTO_INCREMENT" in words and not was.auto_increment:
        return f"it numbers rows that are there by column {was.name!r}"
    if kind == ["TIMESTAMP"] and was.nullable:
        after = _column(now, change[new : new + 1])
        refused = any(words[i : i + 2] == ["NOT", "NULL"] for i in range(new, len(words)))
        refused = refused or not (explicit_timestamps or _says(words[new + 1 :], "NULL"))
        if refused or (after is not None and not after.nullable):
            return f"it makes the time of its own run of what is NULL in column {was.name!r}"
    return ""


def _column(table: Table | None, named: Sequence[Token]) -> Column | None:
    if table is None or not named or named[0].name is None:
        return None
    try:
        return table.column(named[0].name)
    except KeyError:
        return None
