"""What a schema statement does to rows without telling the binlog: statements that have no row events.

Most schema statements keep every row as it is, so that whoever runs the same one on the other side has the
same rows there. Some empty tables or put other rows in their place, and no row event says so. Told from the
statement's words alone; it knows no server and no table's definition.

Invariant: a statement that may take, bring or exchange rows unseen is never called one that keeps them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from homeworld.replication.log_statements import Token, tokens_of


class Rows(IntEnum):
    """What becomes of a table's rows; the greater one counts."""

    KEPT = 0
    EMPTIED = 1  # all are gone: TRUNCATE TABLE
    CUT = 2  # those of partitions are gone
    EXCHANGED = 3  # others are in their place, or may be


@dataclass(frozen=True, slots=True)
class RowEffect:
    """:param gone: columns (in lower case) that the statement takes away, values and all; one that the table
    has afterwards, or later, is another column of the same name.
    """

    rows: Rows = Rows.KEPT
    gone: frozenset[str] = frozenset()


_KEPT = RowEffect()
_EXCHANGED = RowEffect(Rows.EXCHANGED)
# What ALTER TABLE … DROP can name besides columns and partitions.
_NOT_COLUMNS = frozenset({"PRIMARY", "FOREIGN", "KEY", "INDEX", "CHECK", "CONSTRAINT", "PERIOD", "SYSTEM"})
_BEFORE_INDEX = frozenset({"UNIQUE", "FULLTEXT", "SPATIAL", "VECTOR", "ONLINE", "OFFLINE"})


def row_effect(sql: str) -> RowEffect:
    """What ``sql``, a statement that touches tables, does to their rows; EXCHANGED where nobody can tell."""
    tokens = _statement(sql)
    words = [token.word for token in tokens]
    match words[:1]:
        case ["TRUNCATE"]:
            return RowEffect(Rows.EMPTIED)
        case ["ALTER"]:
            return _altered(tokens)
        case ["CREATE" | "DROP" as verb]:
            return _made(verb, words[1:])
        case _:
            return _EXCHANGED


def changes_of(sql: str) -> tuple[Sequence[Token], ...]:
    """The single changes of an ALTER TABLE, each from its verb on; nothing for any other statement."""
    tokens = _statement(sql)
    words = [token.word for token in tokens]
    if words[:1] != ["ALTER"] or "TABLE" not in words[:4]:
        return ()
    return tuple(parts_of(tokens[_behind_name(words) :]))


def _statement(sql: str) -> list[Token]:
    tokens = list(tokens_of(sql))
    words = [token.word for token in tokens]
    if words[:2] == ["SET", "STATEMENT"]:  # MariaDB: SET STATEMENT variable=value FOR statement
        return tokens[words.index("FOR") + 1 if "FOR" in words else len(words) :]
    return tokens


def _behind_name(words: Sequence[str]) -> int:
    """Where the changes of an ALTER TABLE begin."""
    at = words.index("TABLE")
    at += 3 if words[at + 1 : at + 3] == ["IF", "EXISTS"] else 1
    at += 3 if words[at + 1 : at + 2] == ["."] else 1  # behind the table's name
    if words[at : at + 1] == ["WAIT"]:
        at += 2
    elif words[at : at + 1] == ["NOWAIT"]:
        at += 1
    return at


def _made(verb: str, words: Sequence[str]) -> RowEffect:
    replaces = list(words[:2]) == ["OR", "REPLACE"]
    rest = [word for word in words[2 if replaces else 0 :][:4] if word not in _BEFORE_INDEX]
    if rest[:1] == ["INDEX"]:
        return _KEPT
    # Where the table was there, nothing happens; where it was not, what took it away was seen before.
    kept = verb == "CREATE" and not replaces and rest == ["TABLE", "IF", "NOT", "EXISTS"][: len(rest)]
    return _KEPT if kept and len(rest) > 1 else _EXCHANGED


def _altered(tokens: Sequence[Token]) -> RowEffect:
    words = [token.word for token in tokens]
    if "TABLE" not in words[:4]:
        return _EXCHANGED
    if "IGNORE" in words[: words.index("TABLE")]:  # rows that a new unique key refuses are deleted
        return _EXCHANGED
    rows, gone = Rows.KEPT, set[str]()
    for change in parts_of(tokens[_behind_name(words) :]):
        rows = max(rows, _rows_of(change))
        gone |= _gone(change)
    return RowEffect(rows, frozenset(gone))


def parts_of(tokens: Iterable[Token]) -> Iterator[list[Token]]:
    """What stands between the commas outside parentheses."""
    depth = 0
    part: list[Token] = []
    for token in tokens:
        depth += (token.word == "(") - (token.word == ")")
        if token.word == "," and not depth:
            yield part
            part = []
        else:
            part.append(token)
    yield part


def _rows_of(change: Sequence[Token]) -> Rows:
    match [token.word for token in change[:2]]:
        case ["EXCHANGE" | "DISCARD" | "IMPORT", _]:
            return Rows.EXCHANGED
        case ["CONVERT", "TABLE" | "PARTITION"]:
            return Rows.EXCHANGED
        case ["DROP" | "TRUNCATE", "PARTITION"]:
            return Rows.CUT
        case ["RENAME", other] if other not in {"COLUMN", "INDEX", "KEY"}:
            return Rows.EXCHANGED
        case _:
            return Rows.KEPT


def _gone(change: Sequence[Token]) -> set[str]:
    """The columns that one part of an ALTER TABLE takes away."""
    words = [token.word for token in change]
    verb = words[0] if words else ""
    if verb not in {"DROP", "RENAME", "CHANGE"}:
        return set()
    at = 1
    if words[at : at + 1] == ["COLUMN"]:
        at += 1
    elif verb == "RENAME" or (verb == "DROP" and (words[at : at + 1] or [""])[0] in _NOT_COLUMNS):
        return set()
    if words[at : at + 2] == ["IF", "EXISTS"]:
        at += 2
    names = [token.name.lower() for token in change[at:] if token.name]
    if not names or (verb == "DROP" and words[at] == "PARTITION"):
        return set()
    if verb == "CHANGE" and names[1:2] == names[:1]:
        return set()  # the same column in another form
    return {names[0]}
