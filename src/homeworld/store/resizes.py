"""Resizes of keyspaces, and each shard's roll-out.

Invariants: of a keyspace at most one resize waits, and asking again changes that one; of a branch at most one
is under way, and they begin in the order in which they were first asked for. Knows no server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict, Unpack

from sqlalchemy import select, update

from homeworld.model.errors import InvalidError
from homeworld.model.machine import Transition
from homeworld.model.names import new_id
from homeworld.model.states.resizing import UNFINISHED, WAITING, Resize, ResizeTrigger, resize_row
from homeworld.store.keyspaces import Keyspace
from homeworld.store.pages import Page, PageRequest
from homeworld.store.resize_rows import ResizeRows
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


class KeyspaceResizes(ResizeRows[KeyspaceResize]):
    """Resizes of keyspaces within one transaction; of what keyspace."""

    def __init__(self, work: Work) -> None:
        table = resizes.keyspace_resizes
        super().__init__(work, KIND, table, table.c.keyspace_id, KeyspaceResize)

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
                waiting.id,
                {
                    "cluster_size": size,
                    "extra_replicas": extra_replicas,
                    "replicas": included + extra_replicas,
                },
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
        return self._make(
            made,
            made.state,
            actor_id,
            keyspace_id=keyspace.id,
            cluster_size=size,
            replicas=made.replicas,
        )

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
        since, until = completed
        wanted = [table.c.completed_at >= since] if since is not None else []
        if until is not None:
            wanted.append(table.c.completed_at <= until)
        return self._page(keyspace_id, request, *wanted)

    def wanted_sizes(self, keyspaces: Sequence[Keyspace]) -> Mapping[str, str]:
        """Which size each keyspace is to have once all its resizes are done, by its id; in one query."""
        unfinished = self.unfinished([keyspace.id for keyspace in keyspaces])
        return {
            keyspace.id: unfinished[keyspace.id][-1].cluster_size
            if keyspace.id in unfinished
            else keyspace.cluster_size
            for keyspace in keyspaces
        }

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
        resize = self._move(resize_id, expected, row, actor_id, fields)
        if row.to is Resize.CANCELED:
            self._taken_back(resize, begun=expected is Resize.RESIZING)
        return resize

    def _taken_back(self, resize: KeyspaceResize, *, begun: bool) -> None:
        """What was told of the resize ahead of its end is as before: the branch's size where it is of the
        default keyspace, and its shards' roll-outs where it had begun.
        """
        keyspace, branch, table = resources.keyspaces, resources.branches, resizes.shard_rollouts
        row = self._work.connection.execute(
            select(keyspace.c.cluster_size, keyspace.c.is_default).where(keyspace.c.id == resize.keyspace_id)
        ).one()
        if row.is_default:
            left = self.unfinished([resize.keyspace_id]).get(resize.keyspace_id, ())
            size = left[-1].cluster_size if left else row.cluster_size
            self._work.change(
                branch, branch.c.id, resize.branch_id, {"cluster_size": size, "updated_at": self._work.now}
            )
        if not begun:
            return
        shards = select(resources.shards.c.id).where(resources.shards.c.keyspace_id == resize.keyspace_id)
        self._work.connection.execute(
            update(table)
            .where(table.c.shard_id.in_(shards), table.c.state != "complete")
            .values(state="complete", finished_at=self._work.now)
        )

    def cancel(self, keyspace: Keyspace, actor_id: str | None = None) -> KeyspaceResize:
        """Take back the resize that waits, or let one go that has begun and cannot make its replicas.

        :raises InvalidError: none waits, and what has begun goes on.
        """
        unfinished = self.unfinished([keyspace.id]).get(keyspace.id, ())
        for one in unfinished:
            if one.state in WAITING:
                row = resize_row(one.state, ResizeTrigger.CANCEL)
                return self.transition(one.id, one.state, row, actor_id=actor_id, error="")
        for one in unfinished:
            if one.error and self.may_give_up(one.id):
                return self._change(one.id, {"giving_up": True})
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
