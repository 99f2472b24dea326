"""The audit log, read by cursor: newest first, from an entry on.

Invariant: a page costs what its rows cost, however long the log is; an entry's place never changes, so that
reading on from the last entry of a page misses none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select, tuple_

from homeworld.model.errors import InvalidError
from homeworld.store.tables.journal import audit_log
from homeworld.store.work import Work


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what to what, when, and from where. ``actor_id`` is None where homeworld itself acted."""

    id: str
    organization_id: str
    actor_id: str | None
    action: str
    target_kind: str
    target_id: str
    target_name: str
    remote_ip: str
    metadata: Mapping[str, object]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class AuditPage:
    """A part of the log, newest first."""

    entries: tuple[AuditEntry, ...]
    has_next: bool
    has_prev: bool


class Audit:
    """The audit log within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def page(
        self,
        organization_id: str,
        *,
        limit: int,
        after: str | None = None,
        before: str | None = None,
        actions: Sequence[str] = (),
        actor_ids: Sequence[str] = (),
    ) -> AuditPage:
        """At most ``limit`` entries.

        :param after: the id of an entry; what follows are older ones.
        :param before: the id of an entry; what precedes it are newer ones.
        :param actions: any of these only; none: all.
        :param actor_ids: by any of these only; none: all.
        :raises InvalidError: a cursor is no entry of this organization.
        """
        table = audit_log
        place = tuple_(table.c.created_at, table.c.id)
        query: Select[Any] = select(table).where(table.c.organization_id == organization_id)
        if actions:
            query = query.where(table.c.action.in_(actions))
        if actor_ids:
            query = query.where(table.c.actor_id.in_(actor_ids))
        if before is not None:
            query = query.where(place > self._place(organization_id, before))
            rows = self._work.all(query.order_by(table.c.created_at, table.c.id).limit(limit + 1), AuditEntry)
            return AuditPage(rows[:limit][::-1], has_next=True, has_prev=len(rows) > limit)
        if after is not None:
            query = query.where(place < self._place(organization_id, after))
        newest_first = query.order_by(table.c.created_at.desc(), table.c.id.desc())
        rows = self._work.all(newest_first.limit(limit + 1), AuditEntry)
        return AuditPage(rows[:limit], has_next=len(rows) > limit, has_prev=after is not None)

    def _place(self, organization_id: str, cursor: str) -> Any:
        table = audit_log
        query = select(table).where(table.c.id == cursor, table.c.organization_id == organization_id)
        # PostgreSQL refuses text with NUL characters.
        entry = None if "\0" in cursor else self._work.first(query, AuditEntry)
        if entry is None:
            raise InvalidError(f"{cursor[:40]!r} is not an entry of this organization's audit log")
        return tuple_(entry.created_at, entry.id)
