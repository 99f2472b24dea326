"""From the source's ``SHOW CREATE TABLE`` to the target's CREATE TABLE: text in, text out.

It knows no server. The text is the server's own canonical form, so it is cut at the commas of its outermost
parentheses and never parsed further than an element's first words; what is not asked to change stays byte
for byte. Invariant: the target has every column, every unique key and every option that the source has,
except for what :class:`TargetForm` says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from homeworld.model.errors import InvalidError
from homeworld.model.names import quote
from homeworld.model.tables import Column, Index, Table

_QUOTES = "'`\""
_INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
_NARROW = re.compile(r"\butf8(?:mb3)?(?=_| |$)")
_NAME = r"`(?:[^`]|``)+`"
_KEY = re.compile(rf"^(?P<kind>FULLTEXT |SPATIAL )?KEY (?P<name>{_NAME}) ")
_FOREIGN = re.compile(rf"^(?:CONSTRAINT (?:{_NAME} )?)?FOREIGN KEY (?:{_NAME} )?\((?P<columns>[^)]*)\)")
_HEAD = re.compile(rf"^CREATE TABLE (?:{_NAME}\.)?{_NAME} \(", re.IGNORECASE)
_DIRECTORY = re.compile(r" (?:DATA|INDEX) DIRECTORY ?= ?'(?:[^'\\]|\\.|'')*'")
_COUNTER = re.compile(r" AUTO_INCREMENT=\d+")
_COMMENT_OPTION = re.compile(r" COMMENT='(?:[^'\\]|\\.|'')*'")
_LENGTH = re.compile(r"\(\d+\)")
# Display widths say nothing about the value and differ between versions; ZEROFILL's does.
_WIDTH = re.compile(r"\b(tinyint|smallint|mediumint|int|bigint|year)\(\d+\)")


@dataclass(frozen=True, slots=True)
class TargetForm:
    """What the target's table leaves out.

    :param defer_keys: secondary keys that are not unique are built after the rows.
    :param keep_auto_increment: False for sharded targets, whose ids come from a sequence.
    :param keep_foreign_keys: False for sharded targets, and where the parent does not move along.
    :param numbered: columns that get AUTO_INCREMENT before the rows come; keys that begin with one stay.
    """

    defer_keys: bool
    keep_auto_increment: bool
    keep_foreign_keys: bool
    numbered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeferredKey:
    """A key to be built later; ``definition`` is its text in CREATE TABLE."""

    name: str
    definition: str


@dataclass(frozen=True, slots=True)
class TargetTable:
    """``create_sql`` names the table without a schema."""

    create_sql: str
    deferred: tuple[DeferredKey, ...]


def split_create(create_sql: str) -> tuple[tuple[str, ...], str]:
    """The elements between the outermost parentheses, and what follows those.

    :raises InvalidError: this is no CREATE TABLE with a list of columns.
    """
    head = _HEAD.match(create_sql)
    if head is None:
        raise InvalidError(f"not a CREATE TABLE statement: {create_sql[:80]!r}")
    elements: list[str] = []
    start = head.end()
    depth = 0
    for at, character in _outside_quotes(create_sql, start):
        if character == "(":
            depth += 1
        elif character == ")" and depth:
            depth -= 1
        elif character == ")":
            elements.append(create_sql[start:at].strip())
            return tuple(elements), create_sql[at + 1 :]
        elif character == "," and not depth:
            elements.append(create_sql[start:at].strip())
            start = at + 1
    raise InvalidError(f"the parentheses of this statement do not match: {create_sql[:80]!r}")


def replayable(create_sql: str) -> str:
    """What ``SHOW CREATE TABLE`` says, such that the server takes it back.

    MySQL shows a key part that is an expression, and was cut to what the row format takes, with the length
    it was cut to, ``((hex(`c`))(191))``, and refuses that itself. Without it the part is cut the same way.
    """
    if ")(" not in create_sql:
        return create_sql
    kept, end, last = "", 0, -2
    for at, character in _outside_quotes(create_sql, 0):
        if character == "(" and last == at - 1 and create_sql[last] == ")":
            length = _LENGTH.match(create_sql, at)
            if length is not None:
                kept += create_sql[end:at]
                end = length.end()
        last = at
    return kept + create_sql[end:]


def _outside_quotes(text: str, start: int) -> Iterator[tuple[int, str]]:
    """Positions and characters from ``start`` that stand in no string, identifier or comment."""
    at = start
    while at < len(text):
        character = text[at]
        if character in _QUOTES:
            at = _after_quoted(text, at)
            continue
        yield at, character
        at += 1


def outside_quotes(text: str) -> str:
    """What of ``text`` stands in no string, identifier or comment text; each of those is one space.

    :raises InvalidError: a quote is never closed.
    """
    kept: list[str] = []
    last = -1
    for at, character in _outside_quotes(text, 0):
        kept.append(character if at == last + 1 else f" {character}")
        last = at
    return "".join(kept)


def _after_quoted(text: str, start: int) -> int:
    mark = text[start]
    at = start + 1
    while at < len(text):
        if text[at] == "\\" and mark != "`":
            at += 2
        elif text[at] == mark:
            if text[at + 1 : at + 2] != mark:
                return at + 1
            at += 2
        else:
            at += 1
    raise InvalidError(f"a quote is never closed: {text[start : start + 80]!r}")


def target_table(table: Table, form: TargetForm) -> TargetTable:
    """The CREATE TABLE for a target, and the keys that are left for later.

    A key stays where it is when something on the target needs it while rows come in: the AUTO_INCREMENT
    column's, or a foreign key's.
    """
    elements, rest = split_create(table.create_sql)
    if not form.keep_foreign_keys:
        elements = tuple(element for element in elements if not _FOREIGN.match(element))
    if not form.keep_auto_increment:
        elements = tuple(_without_auto_increment(element) for element in elements)
    needed = _leading_columns_needed(table, elements, form)
    kept: list[str] = []
    deferred: list[DeferredKey] = []
    for element in elements:
        key = _KEY.match(element)
        if key is None or not form.defer_keys or _first_column(element) in needed:
            kept.append(element)
        else:
            deferred.append(DeferredKey(key["name"][1:-1].replace("``", "`"), element))
    rest = _outer(rest, _DIRECTORY)
    if not form.keep_auto_increment:
        rest = _outer(rest, _COUNTER)
    body = ",\n  ".join(kept)
    return TargetTable(f"CREATE TABLE {quote(table.name)} (\n  {body}\n){rest}", tuple(deferred))


def _outer(options: str, pattern: re.Pattern[str]) -> str:
    # The table's comment may look like an option; it is put aside while options are removed.
    comment = _COMMENT_OPTION.search(options)
    if comment is None:
        return pattern.sub("", options)
    return (
        pattern.sub("", options[: comment.start()]) + comment[0] + pattern.sub("", options[comment.end() :])
    )


def without_counter(create_sql: str) -> str:
    """The statement without the AUTO_INCREMENT counter, which moves with every row."""
    elements, rest = split_create(create_sql)
    return ",".join(elements) + _outer(rest, _COUNTER)


def _without_auto_increment(element: str) -> str:
    if not element.startswith("`"):
        return element
    word = "AUTO_INCREMENT"
    for at, _ in _outside_quotes(element, 0):
        if element.startswith(word, at):
            return (element[:at].rstrip() + element[at + len(word) :]).strip()
    return element


def _leading_columns_needed(table: Table, elements: tuple[str, ...], form: TargetForm) -> set[str]:
    needed = {name.lower() for name in form.numbered}
    for element in elements:
        foreign = _FOREIGN.match(element)
        if foreign:
            needed.add(foreign["columns"].split("`")[1].lower())
    if form.keep_auto_increment:
        needed |= {column.name.lower() for column in table.columns if column.auto_increment}
    return needed


def _first_column(element: str) -> str:
    found = re.search(rf"KEY {_NAME} \(({_NAME})", element)
    return found[1][1:-1].replace("``", "`").lower() if found else ""


def add_keys_sql(schema: str, table: str, keys: tuple[DeferredKey, ...]) -> tuple[str, ...]:
    """The ALTER TABLE statements that build deferred keys: one for all, because the table is read once.

    A FULLTEXT key needs one of its own: InnoDB builds one at a time.
    """
    together = [key for key in keys if not key.definition.startswith("FULLTEXT")]
    alone = [key for key in keys if key.definition.startswith("FULLTEXT")]
    groups = [group for group in (together, *([key] for key in alone)) if group]
    head = f"ALTER TABLE {quote(schema, table)} "
    return tuple(head + ", ".join(f"ADD {key.definition}" for key in group) for group in groups)


def in_schema(create_sql: str, schema: str, table: str) -> str:
    """The CREATE TABLE with the table named in a schema."""
    head = _HEAD.match(create_sql)
    if head is None:
        raise InvalidError(f"not a CREATE TABLE statement: {create_sql[:80]!r}")
    return f"CREATE TABLE {quote(schema, table)} ({create_sql[head.end() :]}"


def layout_differences(
    source: Table, target: Table, ours: str = "the source", theirs: str = "the target"
) -> tuple[str, ...]:
    """Why rows of ``source`` cannot be put into ``target`` byte for byte; empty: they can.

    Further columns on the target are fine, because the server gives them their default; a further unique key
    is not, because a row that it refuses or displaces would be lost.

    :param ours: what to call the place of ``source``, and ``theirs`` that of ``target``.
    """
    found: list[str] = []
    for column in source.columns:
        other = _column(target, column.name)
        where = f"column {column.name!r} of table {source.name!r}"
        if other is None:
            if not column.generated:
                found.append(f"{where} is missing on {theirs}")
        elif column.generated or other.generated:
            if column.generated != other.generated:
                found.append(f"{where} is generated on one side only")
        else:
            here, there = shape(column), shape(other)
            if here != there:
                found.append(f"{where} is {here} on {ours} and {there} on {theirs}")
    if source.key is not None:
        names = tuple(name.lower() for name in source.key.columns)
        if not any(
            index.unique
            and not index.prefixed
            and index.name == source.key.name
            and tuple(name.lower() for name in index.columns) == names
            for index in target.indexes
        ):
            found.append(
                f"table {source.name!r} on {theirs} has no unique key {source.key.name!r} "
                f"over ({', '.join(source.key.columns)})"
            )
    found += [
        f"unique key {index.name!r} of table {source.name!r} on {theirs} does not hold on {ours}"
        for index in target.indexes
        if index.unique and not any(_implies(other, index) for other in source.indexes)
    ]
    return tuple(found)


def differences_both_ways(source: Table, target: Table, ours: str, theirs: str) -> tuple[str, ...]:
    """Why rows of ``source`` cannot be put into ``target``, or come back from there; empty: both can be."""
    there = layout_differences(source, target, ours, theirs)
    return there or layout_differences(target, source, theirs, ours)


def _implies(source: Index, target: Index) -> bool:
    """Whether rows that are unique by ``source`` are unique by ``target``."""
    ours = tuple(name.lower() for name in source.columns)
    theirs = tuple(name.lower() for name in target.columns)
    if not source.unique:
        return False
    if source.prefixed or target.prefixed or "" in ours or "" in theirs:
        return ours == theirs and source.prefixed == target.prefixed
    return set(ours) <= set(theirs)


def _column(table: Table, name: str) -> Column | None:
    try:
        return table.column(name)
    except KeyError:
        return None


def alike(one: Sequence[Column], other: Sequence[Column]) -> bool:
    """Whether rows mean the same by both: names, order, and what values can be."""
    return [(column.name, shape(column)) for column in one] == [(each.name, shape(each)) for each in other]


def keeps_order(old: Column, new: Column) -> bool:
    """Whether values of a key's column come in the same order, as the same bytes, by a changed definition."""
    if old.type == new.type and old.type in {"enum", "set"}:
        # Ordinals count: labels may be added behind the others.
        added = new.column_type.removeprefix(old.column_type[:-1])
        return _wide(old) == _wide(new) and added != new.column_type and added[:1] in {",", ")"}
    return _ordering(old) == _ordering(new)


def _ordering(column: Column) -> str:
    if column.type in {"bit", "binary", "datetime", "timestamp", "time"}:
        return column.column_type  # their values are told in one width
    if column.type in _INTEGERS:
        return "integer"
    if column.charset == "binary":
        return "bytes"
    return f"text {_wide(column)}" if column.charset else column.type


def _wide(column: Column) -> str:
    """Character set and collation; utf8mb4 where they are those of its narrower form."""
    return _NARROW.sub("utf8mb4", f"{column.charset} {column.collation}")


def shape(column: Column) -> str:
    """What decides which values a column can hold and how they compare; display widths do not."""
    told = column.column_type
    if "zerofill" not in told.lower():
        told = _WIDTH.sub(r"\1", told)
    if column.charset and column.charset != "binary":
        charset = "utf8mb3" if column.charset == "utf8" else column.charset
        told += f" {charset} {column.collation.replace('utf8_', 'utf8mb3_')}"
    return told if column.nullable else f"{told} not null"
