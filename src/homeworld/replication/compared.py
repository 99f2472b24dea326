"""What a verification keeps in the first target's sidecar, so that a later mover goes on with it.

For each table the gaps that are left and how many rows each round found equal; beside them the rounds. It
compares nothing and judges nothing. A schema statement that the stream passes over takes a table's record
away in the stream's own transaction (sidecar.save_definition).

Invariants: a range is recorded as equal only after it was; a record that was taken away never comes back: it
is changed only where it stands, and made anew only with all of the table open.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from homeworld.replication import sidecar
from homeworld.replication.chunks import Span, spans_from_text, spans_to_text
from homeworld.replication.comparing import EVERYTHING
from homeworld.replication.connection import Connection
from homeworld.replication.sidecar import StreamId

SAVE_SECONDS = 1.0
_ROUNDS = ""  # in the place of a table's name


@dataclass(frozen=True, slots=True)
class Round:
    """One set of snapshots.

    :param begun_at: unix seconds.
    :param sources: source shard to the exact position that both sides show.
    :param targets: target shard to a position of its server of which its snapshot shows everything.
    """

    number: int
    begun_at: float
    sources: Mapping[str, str]
    targets: Mapping[str, str]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """Of one table. ``rows``: round to rows of ranges that were equal in it."""

    gaps: tuple[Span, ...] = EVERYTHING
    rows: Mapping[int, int] = field(default_factory=dict[int, int])


class Record:
    """The record of one verification.

    :param connection: to the first target; nothing else uses it.
    :param stream: from the first source shard to the first target.
    """

    def __init__(self, connection: Connection, stream: StreamId, epoch: int, verify_id: str) -> None:
        self._connection = connection
        self._stream = stream
        self._epoch = epoch
        self._id = verify_id
        self._saved = 0.0

    def load(self) -> tuple[tuple[Round, ...], dict[str, Kept]]:
        """The rounds so far, and what they left of each table."""
        found = sidecar.compared(self._connection, self._stream, self._id)
        rounds = tuple(Round(**each) for each in json.loads(found.pop(_ROUNDS, "[]")))
        return rounds, {name: _from_text(text) for name, text in found.items()} if rounds else {}

    def begin(
        self, rounds: Sequence[Round], tables: Sequence[str], kept: Mapping[str, Kept]
    ) -> dict[str, Kept]:
        """Begin a round, the last of ``rounds``, with what is kept of ``tables``.

        :returns: what it begins with: a table that lost its record meanwhile, or has none, is all open.
        :raises FencedError: a newer mover owns the stream.
        """
        made: dict[str, Kept] = {}
        told = json.dumps([_round_to_json(each) for each in rounds])
        self._connection.execute("START TRANSACTION")
        try:
            sidecar.begin_comparison(self._connection, self._stream, self._epoch, self._id, kept)
            for name in tables:
                made[name] = kept.get(name, Kept())
                if name not in kept or not self._save(name, made[name]):
                    made[name] = Kept()
                    self._add(name, _to_text(made[name]))
            self._add(_ROUNDS, told)
            self._connection.execute("COMMIT")
        except BaseException:
            if not self._connection.closed:
                self._connection.execute("ROLLBACK")
            raise
        return made

    def save(self, table: str, kept: Kept, *, now: bool) -> bool:
        """Keep what is left of a table, about once a second or ``now``; false: it counts no more."""
        if not now and time.monotonic() - self._saved < SAVE_SECONDS:
            return True
        self._saved = time.monotonic()
        return self._save(table, kept)

    def _save(self, table: str, kept: Kept) -> bool:
        return sidecar.save_compared(
            self._connection, self._stream, self._epoch, self._id, table, _to_text(kept)
        )

    def _add(self, table: str, text: str) -> None:
        sidecar.add_compared(self._connection, self._stream, self._epoch, self._id, table, text)


def with_rows(kept: Kept, number: int, gaps: Sequence[Span], rows: int) -> Kept:
    """What is left when round ``number`` has found ``rows`` more rows equal."""
    known = kept.rows.get(number, 0)
    return replace(kept, gaps=tuple(gaps), rows={**kept.rows, number: known + rows} if rows else kept.rows)


def _round_to_json(one: Round) -> dict[str, Any]:
    return {
        "number": one.number,
        "begun_at": one.begun_at,
        "sources": dict(one.sources),
        "targets": dict(one.targets),
        "note": one.note,
    }


def _to_text(kept: Kept) -> str:
    return json.dumps({"gaps": spans_to_text(kept.gaps), "rows": dict(kept.rows)})


def _from_text(text: str) -> Kept:
    raw = json.loads(text)
    return Kept(spans_from_text(raw["gaps"]), {int(number): rows for number, rows in raw["rows"].items()})
