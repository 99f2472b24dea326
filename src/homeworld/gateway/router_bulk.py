"""INSERT and REPLACE of many rows that are nothing but literals: planned, and split over shards where that is
ours to do, without being parsed.

What stands before the rows and behind them is planned once, with the first row alone; each row is then found
by a regular expression, which also gives the values that place it. Invariant: the answer is the one that the
router gives for the same text when it reads all of it; where a row is not of the plain form, that is done.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from homeworld.gateway.plan import Destination, Footprint, NeedSequence, Pass, Plan, Scatter, SessionView
from homeworld.gateway.router_errors import NeedsError, RefusedError
from homeworld.gateway.router_tables import ShardedTable
from homeworld.gateway.router_values import asks_for_id, stored
from homeworld.gateway.sql_tokens import STRING
from homeworld.model.vindexes import UnplaceableError

SMALLEST = 1024
"""Shorter texts (in bytes) are planned by their fingerprint."""
_LONGEST_TAIL = 4096
_MOST_TAILS = 16
_LONGEST_HEAD = 8192
_WIDEST = 64
"""Values of a row; wider rows are parsed one by one."""
_HERE = rb"(?:[^'\"()#?/@;*`-]|`[^`]*`)"
_HEAD = re.compile(
    rb"\s*+(?:insert|replace)\b" + _HERE + rb"*?(?:\(" + _HERE + rb"*+\)\s*+)?\bvalues?\s*+(?=\()",
    re.IGNORECASE,
)
_HEX = rb"0x[0-9a-fA-F]++|[xX]'[0-9a-fA-F]*+'"
_NUMBER = rb"-?(?!0[xb])(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?"
# What may decide where a row goes, and what need not be understood.
_PLAIN = rb"(?:" + STRING + rb"|" + _NUMBER + rb"|" + _HEX + rb"|0b[01]++|[bB]'[01]*+'|[nN][uU][lL][lL])"
_ANY = (
    rb"(?:" + _PLAIN + rb"|_binary\s*+(?:" + STRING + rb"|" + _HEX + rb")"
    rb"|[tT][rR][uU][eE]|[fF][aA][lL][sS][eE]|[dD][eE][fF][aA][uU][lL][tT])"
)
_FIRST = re.compile(rb"\(\s*+(?:" + _ANY + rb"\s*+(?:,\s*+|(?=\))))+\)")
_VALUE = re.compile(_ANY)


@lru_cache(maxsize=256)
def _row_pattern(width: int, wanted: tuple[int, ...]) -> re.Pattern[bytes]:
    """A row of ``width`` values (group 1), those at ``wanted`` (ascending), and the comma (last)."""
    values = [rb"(" + _PLAIN + rb")" if at in wanted else _ANY for at in range(width)]
    inner = rb"\s*+,\s*+".join(values)
    return re.compile(rb"\s*+(\(\s*+" + inner + rb"\s*+\))(?:\s*+(,))?")


@dataclass(frozen=True, slots=True)
class BulkInsert:
    """One INSERT as far as it does not depend on its rows.

    :param width: values in a row; ``row_start``: where the row stood in the text that this was made from.
    :param heads: the text before the rows, for each shard; ``heads_with_id``: with the id's column added.
    :param tails: the text behind them.
    :param same: the client's own text may be sent where one shard gets all rows.
    :param vindex_at: the place of each vindex column in a row; None: the id's column, which is absent.
    :param id_at: the place of the column that a sequence fills; None: absent, or no sequence fills any.
    :param id_column: the name of that column.
    :param given: columns that may not be left to the shards, with their places.
    :param needs_ids: every row must have its id from the sequence.
    :param refusal: what to say where one has not.
    """

    table: ShardedTable
    width: int
    row_start: int
    heads: Sequence[bytes]
    heads_with_id: Sequence[bytes]
    tails: Sequence[bytes]
    same: bool
    destinations: Sequence[Destination]
    footprint: Footprint
    vindex_at: Sequence[int | None]
    id_at: int | None
    sequence: tuple[str, str] | None
    id_column: str
    given: Sequence[tuple[str, int]]
    needs_ids: bool
    refusal: RefusedError

    @property
    def wanted(self) -> tuple[int, ...]:
        """The places of the values that must be looked at, ascending."""
        places = {at for at in (*self.vindex_at, self.id_at, *(at for _, at in self.given)) if at is not None}
        return tuple(sorted(places))


@dataclass(frozen=True, slots=True)
class BulkPass:
    """One INSERT that goes to one place as it stands, whatever its rows are."""

    destination: Destination
    footprint: Footprint


@dataclass(slots=True)
class Head:
    """What is known of texts that begin alike: how many values a row has, and plans by the text behind it."""

    width: int
    wanted: tuple[int, ...] | None = None
    passes: dict[bytes, BulkPass] = field(default_factory=dict[bytes, BulkPass])
    tails: dict[bytes, BulkInsert] = field(default_factory=dict[bytes, BulkInsert])


Rows = list[re.Match[bytes]]
Compile = Callable[[bytes], BulkInsert | BulkPass | None]
"""Plans a text with one row; None: it is nothing that many rows could be planned by.

May raise what the router turns into plans.
"""


class Bulk:
    """Plans texts for one aim of sessions. What it keeps is to be forgotten with all other templates."""

    def __init__(self) -> None:
        self._heads: dict[bytes, Head | None] = {}
        self._last: tuple[bytes, Head, Rows, bytes] | None = None

    def plan(self, sql: bytes, view: SessionView, compile_: Compile) -> Plan | None:
        """The plan; None: the text is not of the plain form.

        :raises RefusedError: a row cannot be placed.
        :raises NeedsError: ids must be taken first.
        """
        last = self._last
        if last is not None and last[0] == sql:  # planned anew with the ids that it asked for
            _, head, rows, tail = last
        else:
            found = _HEAD.match(sql, 0, _LONGEST_HEAD)
            if found is None:
                return None
            begin = found[0]
            head = self._heads.get(begin)
            if head is None:
                if begin in self._heads or (first := _FIRST.match(sql, found.end())) is None:
                    return None
                width = len(_VALUE.findall(first[0]))
                if width > _WIDEST:  # the pattern of a row takes a time to compile that grows with it
                    return None
                head = Head(width)
            rows, end = _rows(sql, found.end(), _row_pattern(head.width, head.wanted or ()))
            tail = sql[end:]
            if not rows or len(tail) > _LONGEST_TAIL:
                return None
            passing = head.passes.get(tail)
            if passing is None and tail not in head.tails:
                made = compile_(begin + rows[0][1] + tail)
                if isinstance(made, BulkPass):
                    passing = self._keep_pass(begin, head, tail, made)
                else:
                    rows = self._learn(sql, found.end(), end, rows, head, made)
                    if not rows:
                        return None
            if passing is not None:
                return Pass(passing.destination, sql, passing.footprint)
        self._last = None
        try:
            return _split(sql, head.tails[tail], rows, view)
        except NeedsError:
            self._last = (sql, head, rows, tail)
            raise

    def _learn(self, sql: bytes, at: int, end: int, rows: Rows, head: Head, made: BulkInsert | None) -> Rows:
        """Keep how texts of this head and tail are split; the rows as they are read for it, none where they
        are not.

        :param at: where the rows begin; ``end``: where the tail does.
        """
        begin, tail = sql[:at], sql[end:]
        if made is None or made.row_start != at:
            self._keep(begin, None)
            return []
        if head.wanted is None:
            head.wanted = made.wanted
            rows, _ = _rows(sql, at, _row_pattern(head.width, made.wanted))
        if made.width != head.width or made.wanted != head.wanted or not rows or rows[-1].end() != end:
            return []
        if len(head.tails) >= _MOST_TAILS:
            head.tails.clear()
        head.tails[tail] = made
        self._keep(begin, head)
        return rows

    def _keep_pass(self, begin: bytes, head: Head, tail: bytes, made: BulkPass) -> BulkPass:
        if len(head.passes) >= _MOST_TAILS:
            head.passes.clear()
        head.passes[tail] = made
        self._keep(begin, head)
        return made

    def _keep(self, begin: bytes, head: Head | None) -> None:
        if len(self._heads) >= 1000:
            self._heads.clear()
        self._heads[begin] = head

    def forget(self) -> None:
        """Keep nothing."""
        self._heads.clear()
        self._last = None


def _rows(sql: bytes, at: int, pattern: re.Pattern[bytes]) -> tuple[Rows, int]:
    """The rows from ``at`` on, and where the last one ends; none where one is not of the plain form."""
    found: Rows = []
    match = pattern.match
    while True:
        row = match(sql, at)
        if row is None:
            return [], at
        found.append(row)
        at = row.end()
        if row[row.re.groups] is None:
            return found, at


def _split(sql: bytes, insert: BulkInsert, rows: Rows, view: SessionView) -> Plan | None:
    group = {at: number for number, at in enumerate(insert.wanted, 2)}
    for name, at in insert.given:
        place = group[at]
        if any(_wants_id(name, row[place], zero_is_value=view.zero_is_value) for row in rows):
            return None  # refused with the other's words
    ids = _ids(insert, rows, group, view)
    if insert.needs_ids and len(ids) < len(rows):
        raise insert.refusal
    id_group = 0 if insert.id_at is None else group[insert.id_at]
    columns = [
        (column, 0 if at is None else group[at])
        for column, at in zip(insert.table.vindex_columns, insert.vindex_at, strict=True)
    ]
    charset = view.charset
    pick = insert.table.shard_for
    by_shard: list[list[bytes]] = [[] for _ in insert.destinations]
    for number, row in enumerate(rows):
        made = ids.get(number)
        values: list[bytes | None] = []
        for column, place in columns:
            if made is not None and place == id_group:
                values.append(b"%d" % made)
                continue
            text = row[place]
            negative = text[:1] == b"-"
            if text[:1] in b"nN":
                return None  # refused with the other's words
            values.append(stored(column, text[1:] if negative else text, negative=negative, charset=charset))
        try:
            shard = pick(tuple(values))
        except UnplaceableError as error:
            raise RefusedError(1105, "HY000", f"VT03002: {error.message}") from None
        if made is None:
            by_shard[shard].append(row[1])
        elif id_group:
            start, end = row.span(1)
            before, behind = row.span(id_group)
            by_shard[shard].append(b"%b%d%b" % (sql[start:before], made, sql[behind:end]))
        else:
            by_shard[shard].append(b"%b, %d)" % (row[1][:-1], made))
    used = [number for number, texts in enumerate(by_shard) if texts]
    heads = insert.heads_with_id if insert.id_at is None and ids else insert.heads
    if len(used) == 1 and not ids and insert.same:
        return Pass(insert.destinations[used[0]], sql, insert.footprint)
    statements = tuple(
        (insert.destinations[n], b"%b%b%b" % (heads[n], b", ".join(by_shard[n]), insert.tails[n]))
        for n in used
    )
    if len(used) == 1 and not ids:
        n = used[0]
        text = b"%b%b%b" % (heads[n], sql[rows[0].start(1) : rows[-1].end(1)], insert.tails[n])
        return Pass(insert.destinations[n], text, insert.footprint)
    return Scatter(statements, insert.footprint, last_insert_id=min(ids.values(), default=0))


def _ids(insert: BulkInsert, rows: Rows, group: dict[int, int], view: SessionView) -> dict[int, int]:
    """The ids that rows get from the sequence, by row.

    :raises NeedsError: they must be taken first.
    """
    if insert.sequence is None:
        return {}
    if insert.id_at is None:
        wanting: Sequence[int] = range(len(rows))
    else:
        place = group[insert.id_at]
        wanting = [
            number
            for number, row in enumerate(rows)
            if _wants_id(insert.id_column, row[place], zero_is_value=view.zero_is_value)
        ]
    if len(view.sequence_ids) < len(wanting):
        raise NeedsError(NeedSequence(*insert.sequence, len(wanting)))
    return dict(zip(wanting, view.sequence_ids, strict=False))


def _wants_id(name: str, text: bytes, *, zero_is_value: bool) -> bool:
    if text[:1] in b"nN":
        return True
    return not zero_is_value and asks_for_id(name, text[1:] if text[:1] == b"-" else text)
