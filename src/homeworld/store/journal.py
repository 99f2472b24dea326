"""Transitions and steps: what happened, in the order in which it was committed.

Invariant: a state changes only through :meth:`Journal.move`, which compares, sets, stamps, writes the journal
row and the outbox event in one transaction. Knows machines only as rows of data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Table, insert, select, update

from homeworld.model.errors import ConflictError
from homeworld.model.machine import Kind, Transition
from homeworld.store.outbox import Outbox
from homeworld.store.tables import journal
from homeworld.store.work import Work


@dataclass(frozen=True, slots=True)
class TransitionRecord:
    """One transition taken. ``actor_id`` is None where homeworld itself acted."""

    id: int
    resource_kind: str
    resource_id: str
    from_state: str
    to_state: str
    trigger: str
    actor_id: str | None
    why: str
    at: datetime


class StepStatus(StrEnum):
    """How far a step is. ``failed`` means it raised and was not undone."""

    STARTED = "started"
    DONE = "done"
    UNDOING = "undoing"
    UNDONE = "undone"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step of one run. ``data`` is what the step wants to find again after a crash."""

    resource_id: str
    run: str
    step: str
    ordinal: int
    status: StepStatus
    attempts: int
    data: Mapping[str, object]
    started_at: datetime
    updated_at: datetime


def _step(status: str, **columns: Any) -> StepRecord:
    return StepRecord(status=StepStatus(status), **columns)


class Journal:
    """The journal within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def move(
        self,
        kind: str,
        table: Table,
        resource_id: str,
        expected: StrEnum,
        row: Transition[Any, Any],
        *,
        actor_id: str | None,
        why: str,
        fields: Mapping[str, object],
        payload: Mapping[str, object],
    ) -> None:
        """Take ``row``: compare-and-set of the state, stamps, ``fields``, journal, outbox event ``kind.to``.

        :raises ConflictError: the resource is not in ``expected`` any more; nothing has changed.
        """
        values: dict[str, object] = {"state": row.to, "updated_at": self._work.now}
        if row.kind is Kind.ASKED and "asked" in table.c:
            values["asked"] = row.trigger.value
        for stamp in row.stamps:
            values[stamp] = self._work.now if stamp.endswith("_at") else actor_id
        values |= fields
        changed = self._work.connection.execute(
            update(table).where(table.c.id == resource_id, table.c.state == expected).values(values)
        ).rowcount
        if changed != 1:
            raise ConflictError(f"the {kind} is not {expected} any more", kind=kind, id=resource_id)
        self._note(kind, resource_id, expected, row.to, row.trigger, actor_id, why)
        self._outbox().emit(f"{kind}.{row.to}", kind, resource_id, {**payload, "from": expected.value})

    def born(
        self,
        kind: str,
        resource_id: str,
        state: StrEnum,
        *,
        actor_id: str | None,
        payload: Mapping[str, object],
    ) -> None:
        """Note that a resource was created in ``state``."""
        self._note(kind, resource_id, None, state, "create", actor_id, "")
        self._outbox().emit(f"{kind}.created", kind, resource_id, payload)

    def _outbox(self) -> Outbox:
        return Outbox(self._work)

    def _note(
        self,
        kind: str,
        resource_id: str,
        source: StrEnum | None,
        to: StrEnum,
        trigger: StrEnum | str,
        actor_id: str | None,
        why: str,
    ) -> None:
        self._work.add(
            journal.transitions,
            {
                "resource_kind": kind,
                "resource_id": resource_id,
                "from_state": source.value if source else "",
                "to_state": to.value,
                "trigger": str(trigger),
                "actor_id": actor_id,
                "why": why,
                "at": self._work.now,
            },
        )

    def transitions(self, kind: str, resource_id: str) -> tuple[TransitionRecord, ...]:
        """All transitions of a resource, oldest first."""
        table = journal.transitions
        query = (
            select(table)
            .where(table.c.resource_kind == kind, table.c.resource_id == resource_id)
            .order_by(table.c.id)
        )
        return self._work.all(query, TransitionRecord)

    def steps(self, resource_id: str, run: str) -> tuple[StepRecord, ...]:
        """The steps of a run in the order in which they were first started."""
        table = journal.steps
        query = (
            select(table)
            .where(table.c.resource_id == resource_id, table.c.run == run)
            .order_by(table.c.ordinal)
        )
        return self._work.all(query, _step)

    def record_step(
        self,
        resource_id: str,
        run: str,
        step: str,
        status: StepStatus,
        data: Mapping[str, object] | None = None,
    ) -> StepRecord:
        """Write where a step is. ``started`` counts an attempt; ``data`` replaces what stood there, None
        keeps it.
        """
        table = journal.steps
        known = self.steps(resource_id, run)
        before = next((record for record in known if record.step == step), None)
        now = self._work.now
        if before is None:
            record = StepRecord(resource_id, run, step, len(known), status, 1, dict(data or {}), now, now)
            self._work.add(
                table,
                {
                    "resource_id": resource_id,
                    "run": run,
                    "step": step,
                    "ordinal": record.ordinal,
                    "status": status.value,
                    "attempts": 1,
                    "data": record.data,
                    "started_at": now,
                    "updated_at": now,
                },
            )
            return record
        attempts = before.attempts + (status is StepStatus.STARTED)
        kept = before.data if data is None else dict(data)
        self._work.connection.execute(
            update(table)
            .where(table.c.resource_id == resource_id, table.c.run == run, table.c.step == step)
            .values(status=status.value, attempts=attempts, data=kept, updated_at=now)
        )
        return StepRecord(
            resource_id, run, step, before.ordinal, status, attempts, kept, before.started_at, now
        )

    def audit(
        self,
        organization_id: str,
        actor_id: str | None,
        action: str,
        target: tuple[str, str, str],
        *,
        audit_id: str,
        remote_ip: str = "",
        metadata: Mapping[str, object] | None = None,
    ) -> None:
        """Write an audit entry; ``target`` is (kind, id, name). Never pass a secret in ``metadata``."""
        kind, target_id, name = target
        self._work.connection.execute(
            insert(journal.audit_log).values(
                id=audit_id,
                organization_id=organization_id,
                actor_id=actor_id,
                action=action,
                target_kind=kind,
                target_id=target_id,
                target_name=name,
                remote_ip=remote_ip,
                metadata=dict(metadata or {}),
                created_at=self._work.now,
            )
        )
