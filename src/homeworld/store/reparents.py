"""Reparents: who was asked to take the place of whose primary, and how far that is.

Invariants: of a branch at most one is unfinished; a state changes only by a row of REPARENTS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from homeworld.model.errors import InvalidError
from homeworld.model.names import new_id
from homeworld.model.states.move_tables import MOVING_TRAFFIC
from homeworld.model.states.reparenting import UNFINISHED, Reparent, ReparentTrigger, reparent_row
from homeworld.model.states.resizing import Resize
from homeworld.store.branches import Branches
from homeworld.store.journal import Journal
from homeworld.store.keyspaces import Shard
from homeworld.store.maintenance import Maintenance
from homeworld.store.resizes import KeyspaceResizes
from homeworld.store.tables import reparents
from homeworld.store.work import Work
from homeworld.store.workflows import Workflows

KIND = "reparent"
TIMEOUT_SECONDS = 120


@dataclass(frozen=True, slots=True)
class ReparentRecord:
    """A reparent as stored.

    :param error: why it failed; before that, why it does not go on, if it does not.
    :param former_server_id: the shard's primary when it was asked for.
    :param heir_server_id: who takes its place; None until it was chosen.
    :param heir_asked: whether that one was asked for and no other will do.
    :param timeout: seconds from the asking after which it is given up, unless it counts already.
    """

    id: str
    branch_id: str
    shard_id: str
    state: Reparent
    error: str
    emergency: bool
    former_server_id: str
    heir_server_id: str | None
    heir_asked: bool
    timeout: int
    actor_id: str | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None


class Reparents:
    """Reparents within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._journal = Journal(work)

    def ask(
        self,
        branch_id: str,
        shard: Shard,
        *,
        heir: str | None = None,
        emergency: bool = False,
        actor_id: str | None = None,
    ) -> ReparentRecord:
        """Ask for one.

        :param heir: the replica that is to be the primary; None: the best one.
        :raises InvalidError: the shard has no primary yet, or another one of the branch is not over.
        """
        if shard.primary_server_id is None:
            raise InvalidError(f"shard {shard.name} has no server yet")
        now = self._work.now
        made = ReparentRecord(
            id=new_id(),
            branch_id=branch_id,
            shard_id=shard.id,
            state=Reparent.PENDING,
            error="",
            emergency=emergency,
            former_server_id=shard.primary_server_id,
            heir_server_id=heir,
            heir_asked=heir is not None,
            timeout=TIMEOUT_SECONDS,
            actor_id=actor_id,
            created_at=now,
            updated_at=now,
            started_at=None,
            completed_at=None,
        )
        try:
            self._work.add(reparents.reparents, {field: getattr(made, field) for field in made.__slots__})
        except IntegrityError as error:
            raise InvalidError("another reparent of the branch is not over; ask again when it is") from error
        payload = {"branch_id": branch_id, "shard_id": shard.id, "emergency": emergency}
        self._journal.born(KIND, made.id, made.state, actor_id=actor_id, payload=payload)
        return made

    def get(self, reparent_id: str) -> ReparentRecord:
        """The reparent in whatever state.

        :raises NotFoundError: no such id.
        """
        table = reparents.reparents
        return self._work.only(select(table).where(table.c.id == reparent_id), ReparentRecord)

    def of_branch(self, branch_id: str, reparent_id: str) -> ReparentRecord:
        """The branch's reparent of that id.

        :raises NotFoundError: it has none of that id.
        """
        table = reparents.reparents
        query = select(table).where(table.c.id == reparent_id, table.c.branch_id == branch_id)
        return self._work.only(query, ReparentRecord)

    def unfinished(self, branch_ids: Iterable[str]) -> Mapping[str, ReparentRecord]:
        """The one that is not over, by branch."""
        table = reparents.reparents
        query = select(table).where(table.c.branch_id.in_(list(branch_ids)), table.c.state.in_(UNFINISHED))
        return {one.branch_id: one for one in self._work.all(query, ReparentRecord)}

    def promoted_at(self, server_id: str) -> datetime | None:
        """When the newest reparent made the server a primary; None: none did."""
        table = reparents.reparents
        query = (
            select(table)
            .where(table.c.heir_server_id == server_id, table.c.state == Reparent.COMPLETED)
            .order_by(table.c.completed_at.desc(), table.c.id)
        )
        found = self._work.first(query, ReparentRecord)
        return found.completed_at if found else None

    def in_the_way(self, branch_id: str) -> str:
        """What of the branch moves traffic or restarts servers right now, so that no planned one may begin;
        empty: nothing.
        """
        active = Workflows(self._work).active_on([branch_id]).get(branch_id)
        if active is not None and active.state in MOVING_TRAFFIC:
            return f"workflow {active.number} moves traffic ({active.state})"
        if any(resize.state is Resize.RESIZING for resize in KeyspaceResizes(self._work).ahead(branch_id)):
            return "a resize of the branch's servers is under way"
        database_id = Branches(self._work).get(branch_id).database_id
        if Maintenance(self._work).open_one(database_id) is not None:
            return "a maintenance window of the database is open"
        return ""

    def choose(self, reparent_id: str, heir: str) -> None:
        """Note who takes the primary's place."""
        self._change(reparent_id, heir_server_id=heir)

    def tell(self, reparent_id: str, error: str) -> None:
        """Say why it does not go on; empty: it does."""
        if self.get(reparent_id).error != error:
            self._change(reparent_id, error=error)

    def _change(self, reparent_id: str, **values: object) -> None:
        table = reparents.reparents
        self._work.change(table, table.c.id, reparent_id, {**values, "updated_at": self._work.now})

    def transition(
        self, reparent_id: str, expected: Reparent, trigger: ReparentTrigger, *, error: str = ""
    ) -> ReparentRecord:
        """Take a row of REPARENTS.

        :raises ConflictError: it is not in ``expected`` any more.
        """
        row = reparent_row(expected, trigger)
        self._journal.move(
            KIND,
            reparents.reparents,
            reparent_id,
            expected,
            row,
            actor_id=None,
            why=error,
            fields={"error": error},
            payload={},
        )
        return self.get(reparent_id)
