"""Resizes of keyspaces, and each shard's roll-out.

Invariants: of a keyspace at most one resize waits, and asking again changes that one; of a branch at most one
is under way, and they begin in the order in which they were first asked for. Knows no server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict, Unpack

from sqlalchemy import select

from homeworld.model.errors import InvalidError
from homeworld.model.machine import Transition
from homeworld.model.names import new_id
from homeworld.model.states.resizing import UNFINISHED, WAITING, Resize, ResizeTrigger, resize_row
from homeworld.store.journal import Journal
from homeworld.store.keyspaces import Keyspace
from homeworld.store.pages import Page, PageRequest, fetch_page
from homeworld.store.tables import resizes, resources
from homeworld.store.work import Work

KIND = "resize"
RUN = "resize:1"
"""Under which the journal has the steps of a resize."""
FIRST_STEP = "make replicas"
"""The only one that can be taken back."""


@dataclass(frozen=True, slots=True)
class KeyspaceResize:
    """A resize as stored. ``error`` says why it does not go on, if it does not; ``giving_up``: it was asked
    to be given up after it had begun, while it still can.
    """

    id: str
    branch_id: str
    keyspace_id: str
    state: Resize
    error: str
    cluster_size: str
    previous_cluster_size: str
    replicas: int
    previous_replicas: int
    extra_replicas: int
    giving_up: bool
    actor_id: str | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None


class ResizeFields(TypedDict, total=False):
    """What may be changed beside the state."""

    error: str
    cluster_size: str
    replicas: int
    extra_replicas: int
    giving_up: bool


@dataclass(frozen=True, slots=True)
class ShardRollout:
    """How far the newest roll-out of a shard is; ``state`` is pending, in_progress or complete."""

    shard_id: str
    state: str
    started_at: datetime | None
    finished_at: datetime | None


class KeyspaceResizes:
    """Resizes of keyspaces within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._journal = Journal(work)

    def ask(
        self,
        keyspace: Keyspace,
        *,
        cluster_size: str | None = None,
        extra_replicas: int | None = None,
        actor_id: str | None = None,
    ) -> KeyspaceResize:
        """Ask for a resize, or change the one that waits. What is not given stays as it would be.

        :param cluster_size: a checked name.
        """
        unfinished = self.unfinished([keyspace.id]).get(keyspace.id, ())
        waiting = next((one for one in unfinished if one.state in WAITING), None)
        before = unfinished[-1] if unfinished else None
        size = cluster_size or (before.cluster_size if before else keyspace.cluster_size)
        included = keyspace.replicas - keyspace.extra_replicas
        if extra_replicas is None:
            extra_replicas = before.extra_replicas if before else keyspace.extra_replicas
        if waiting is not None:
            return self._change(
                waiting, cluster_size=size, extra_replicas=extra_replicas, replicas=included + extra_replicas
            )
        now = self._work.now
        made = KeyspaceResize(
            id=new_id(),
            branch_id=keyspace.branch_id,
            keyspace_id=keyspace.id,
            state=Resize.QUEUED if self.ahead(keyspace.branch_id) else Resize.PENDING,
            error="",
            cluster_size=size,
            previous_cluster_size=before.cluster_size if before else keyspace.cluster_size,
            replicas=included + extra_replicas,
            previous_replicas=before.replicas if before else keyspace.replicas,
            extra_replicas=extra_replicas,
            giving_up=False,
            actor_id=actor_id,
            created_at=now,
            updated_at=now,
            started_at=None,
            completed_at=None,
        )
        self._work.add(resizes.keyspace_resizes, {field: getattr(made, field) for field in made.__slots__})
        self._journal.born(
            KIND,
            made.id,
            made.state,
            actor_id=actor_id,
            payload={"keyspace_id": keyspace.id, "cluster_size": size, "replicas": made.replicas},
        )
        return made

    def get(self, resize_id: str) -> KeyspaceResize:
        """The resize in whatever state.

        :raises NotFoundError: no such id.
        """
        table = resizes.keyspace_resizes
        return self._work.only(select(table).where(table.c.id == resize_id), KeyspaceResize)

    def of_keyspace(self, keyspace_id: str, resize_id: str) -> KeyspaceResize:
        """The keyspace's resize of that id.

        :raises NotFoundError: it has none of that id.
        """
        table = resizes.keyspace_resizes
        query = select(table).where(table.c.id == resize_id, table.c.keyspace_id == keyspace_id)
        return self._work.only(query, KeyspaceResize)

    def page(
        self,
        keyspace_id: str,
        request: PageRequest,
        completed: tuple[datetime | None, datetime | None] = (None, None),
    ) -> Page[KeyspaceResize]:
        """The keyspace's resizes, newest first.

        :param completed: only those completed from the one moment to the other; None: without that end.
        """
        table = resizes.keyspace_resizes
        query = (
            select(table)
            .where(table.c.keyspace_id == keyspace_id)
            .order_by(table.c.created_at.desc(), table.c.id.desc())
        )
        since, until = completed
        if since is not None:
            query = query.where(table.c.completed_at >= since)
        if until is not None:
            query = query.where(table.c.completed_at <= until)
        return fetch_page(self._work.connection, query, request, KeyspaceResize)

    def unfinished(self, keyspace_ids: Iterable[str]) -> Mapping[str, Sequence[KeyspaceResize]]:
        """Those that wait or are under way, by keyspace, oldest first; in one query."""
        table = resizes.keyspace_resizes
        query = (
            select(table)
            .where(table.c.keyspace_id.in_(list(keyspace_ids)), table.c.state.in_(UNFINISHED))
            .order_by(table.c.created_at, table.c.id)
        )
        found: dict[str, list[KeyspaceResize]] = {}
        for one in self._work.all(query, KeyspaceResize):
            found.setdefault(one.keyspace_id, []).append(one)
        return found

    def states_in(self, database_ids: Iterable[str]) -> Mapping[str, frozenset[Resize]]:
        """The states of unfinished resizes of databases' live branches, by database; in one query."""
        table, branch = resizes.keyspace_resizes, resources.branches
        query = (
            select(branch.c.database_id, table.c.state)
            .join(branch, branch.c.id == table.c.branch_id)
            .where(
                branch.c.database_id.in_(list(database_ids)),
                branch.c.deleted_at.is_(None),
                table.c.state.in_(UNFINISHED),
            )
            .distinct()
        )
        found: dict[str, frozenset[Resize]] = {}
        for row in self._work.connection.execute(query):
            found[row.database_id] = found.get(row.database_id, frozenset()) | {row.state}
        return found

    def ahead(self, branch_id: str, of: KeyspaceResize | None = None) -> tuple[KeyspaceResize, ...]:
        """The branch's unfinished resizes that come before ``of``; without it, all of them. Oldest first."""
        table = resizes.keyspace_resizes
        query = (
            select(table)
            .where(table.c.branch_id == branch_id, table.c.state.in_(UNFINISHED))
            .order_by(table.c.created_at, table.c.id)
        )
        found = self._work.all(query, KeyspaceResize)
        if of is None:
            return found
        return tuple(one for one in found if (one.created_at, one.id) < (of.created_at, of.id))

    def _change(self, resize: KeyspaceResize, **fields: Unpack[ResizeFields]) -> KeyspaceResize:
        table = resizes.keyspace_resizes
        self._work.change(table, table.c.id, resize.id, {**fields, "updated_at": self._work.now})
        return self.get(resize.id)

    def tell(self, resize_id: str, error: str) -> None:
        """Say why it does not go on; empty: it does."""
        resize = self.get(resize_id)
        if resize.error != error:
            self._change(resize, error=error)

    def transition(
        self,
        resize_id: str,
        expected: Resize,
        row: Transition[Resize, ResizeTrigger],
        *,
        actor_id: str | None = None,
        **fields: Unpack[ResizeFields],
    ) -> KeyspaceResize:
        """Take a row of RESIZES.

        :raises ConflictError: it is not in ``expected`` any more, or another of the branch is under way.
        """
        self._journal.move(
            KIND,
            resizes.keyspace_resizes,
            resize_id,
            expected,
            row,
            actor_id=actor_id,
            why="",
            fields=dict(fields),
            payload={},
        )
        return self.get(resize_id)

    def cancel(self, keyspace: Keyspace, actor_id: str | None = None) -> KeyspaceResize:
        """Take back the resize that waits, or let one go that has begun and cannot make its replicas.

        :raises InvalidError: none waits, and what has begun goes on.
        """
        unfinished = self.unfinished([keyspace.id]).get(keyspace.id, ())
        for one in unfinished:
            if one.state in WAITING:
                row = resize_row(one.state, ResizeTrigger.CANCEL)
                return self.transition(one.id, one.state, row, actor_id=actor_id)
        for one in unfinished:
            if one.error and self.may_give_up(one.id):
                return self._change(one, giving_up=True)
        if unfinished:
            raise InvalidError(
                f"the resize of keyspace {keyspace.name} has begun and cannot be cancelled; "
                "ask for another one, which follows it"
            )
        raise InvalidError(f"no resize of keyspace {keyspace.name} waits")

    def may_give_up(self, resize_id: str) -> bool:
        """Whether a resize that has begun has changed nothing yet but made servers that serve nobody."""
        begun = {record.step for record in self._journal.steps(resize_id, RUN)}
        return begun <= {FIRST_STEP}

    # -- roll-outs -------------------------------------------------------------------------------------------

    def rollouts(self, shard_ids: Iterable[str]) -> Mapping[str, ShardRollout]:
        """The newest roll-out by shard; shards that had none are left out."""
        table = resizes.shard_rollouts
        query = select(table).where(table.c.shard_id.in_(list(shard_ids)))
        return {one.shard_id: one for one in self._work.all(query, ShardRollout)}

    def roll_out(self, shard_id: str, state: str) -> None:
        """Write where a shard's roll-out is; beginning and end get their times."""
        table = resizes.shard_rollouts
        values: dict[str, object] = {"state": state}
        if state == "in_progress":
            values["started_at"] = self._work.now
        elif state == "complete":
            values["finished_at"] = self._work.now
        if not self._work.change(table, table.c.shard_id, shard_id, values):
            self._work.add(table, {"shard_id": shard_id, "started_at": None, "finished_at": None, **values})
