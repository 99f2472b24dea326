"""Events that others are to hear of, written in the transaction that made them true.

Invariant: sequence numbers grow in commit order without a reader ever seeing a later one first (writers are
one at a time), so a consumer that remembers the last number it handled misses nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select

from homeworld.store.tables import journal
from homeworld.store.work import Work

MOST_FORGOTTEN = 5_000


@dataclass(frozen=True, slots=True)
class Event:
    """One event, such as ``workflow.running`` or ``routing.changed``."""

    seq: int
    event: str
    resource_kind: str
    resource_id: str
    payload: Mapping[str, object]
    at: datetime


class Outbox:
    """The outbox within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def emit(self, event: str, kind: str, resource_id: str, payload: Mapping[str, object]) -> None:
        """Write an event. The payload is JSON and holds no secret."""
        self._work.add(
            journal.outbox,
            {
                "event": event,
                "resource_kind": kind,
                "resource_id": resource_id,
                "payload": dict(payload),
                "at": self._work.now,
            },
        )

    def after(self, seq: int, limit: int = 100) -> tuple[Event, ...]:
        """Events with a greater number, oldest first."""
        table = journal.outbox
        return self._work.all(
            select(table).where(table.c.seq > seq).order_by(table.c.seq).limit(limit), Event
        )

    def named(self, names: Collection[str], seq: int, upto: int, limit: int) -> tuple[Event, ...]:
        """Events of these names with a greater number, up to one, oldest first."""
        table = journal.outbox
        wanted = (table.c.seq > seq, table.c.seq <= upto, table.c.event.in_(names))
        return self._work.all(select(table).where(*wanted).order_by(table.c.seq).limit(limit), Event)

    def forget(self, before: datetime, upto: int) -> int:
        """Delete the oldest of the events that are of before that time and have numbers up to ``upto``, but
        never the newest of all; how many. At most MOST_FORGOTTEN, so that nobody waits long.
        """
        table = journal.outbox
        known = table.c.seq <= min(upto, self.last() - 1)
        # The first by number, whatever their time: those that stay are not read through.
        oldest = select(table.c.seq, table.c.at).where(known).order_by(table.c.seq).limit(MOST_FORGOTTEN)
        first = oldest.subquery()
        end = self._work.connection.execute(
            select(func.max(first.c.seq)).where(first.c.at < before)
        ).scalar_one()
        if end is None:
            return 0
        gone = delete(table).where(known, table.c.seq <= end, table.c.at < before)
        return self._work.connection.execute(gone).rowcount

    def last(self) -> int:
        """The greatest number so far; 0 if there is none."""
        return self._work.connection.execute(
            select(func.coalesce(func.max(journal.outbox.c.seq), 0))
        ).scalar_one()

    def cursor(self, consumer: str) -> int:
        """How far a consumer has come; 0 if it never was here."""
        table = journal.outbox_cursors
        found = self._work.connection.execute(
            select(table.c.seq).where(table.c.consumer == consumer)
        ).scalar_one_or_none()
        return found or 0

    def advance(self, consumer: str, seq: int) -> None:
        """Remember that a consumer has handled everything up to ``seq``. Never goes back."""
        table = journal.outbox_cursors
        before = self.cursor(consumer)
        if seq <= before:
            return
        if not self._work.change(table, table.c.consumer, consumer, {"seq": seq}):
            self._work.add(table, {"consumer": consumer, "seq": seq})
