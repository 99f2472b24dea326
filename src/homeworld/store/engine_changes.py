"""Changes of engine: which database is to be whose, and how far that is.

Invariants: of a database at most one is unfinished; a state changes only by a row of ENGINE_CHANGES; a
database becomes another engine's only in a transaction that finds nothing else at work on it, and its
clusters as they are to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from homeworld.model.engines import EngineKind
from homeworld.model.errors import InvalidError
from homeworld.model.names import new_id
from homeworld.model.states.engine_changes import UNFINISHED, EngineChange, EngineTrigger, engine_row
from homeworld.model.states.lifecycle import Life
from homeworld.store.branches import Branches
from homeworld.store.databases import Databases
from homeworld.store.journal import Journal
from homeworld.store.keyspaces import Keyspaces
from homeworld.store.maintenance import Maintenance
from homeworld.store.reparents import Reparents
from homeworld.store.resizes import KeyspaceResizes
from homeworld.store.routing import Routes
from homeworld.store.tables import engines
from homeworld.store.work import Work
from homeworld.store.workflows import Workflows

KIND = "engine_change"
TIMEOUT_SECONDS = 600


@dataclass(frozen=True, slots=True)
class EngineChangeRecord:
    """A change of engine as stored.

    :param error: why it failed; before that, why it does not go on, if it does not.
    :param timeout: seconds from the asking after which it is given up, unless it counts already.
    """

    id: str
    database_id: str
    engine: EngineKind
    state: EngineChange
    error: str
    timeout: int
    actor_id: str | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None


class EngineChanges:
    """Changes of engine within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._journal = Journal(work)

    def ask(self, database_id: str, engine: EngineKind, *, actor_id: str | None = None) -> EngineChangeRecord:
        """Ask for one.

        :raises InvalidError: another one of the database is not over.
        """
        now = self._work.now
        made = EngineChangeRecord(
            id=new_id(),
            database_id=database_id,
            engine=engine,
            state=EngineChange.PENDING,
            error="",
            timeout=TIMEOUT_SECONDS,
            actor_id=actor_id,
            created_at=now,
            updated_at=now,
            started_at=None,
            completed_at=None,
        )
        try:
            self._work.add(engines.engine_changes, {field: getattr(made, field) for field in made.__slots__})
        except IntegrityError as error:
            raise InvalidError("another change of the database's engine is not over; wait for it") from error
        payload = {"database_id": database_id, "engine": engine.value}
        self._journal.born(KIND, made.id, made.state, actor_id=actor_id, payload=payload)
        return made

    def get(self, change_id: str) -> EngineChangeRecord:
        """The change in whatever state.

        :raises NotFoundError: no such id.
        """
        table = engines.engine_changes
        return self._work.only(select(table).where(table.c.id == change_id), EngineChangeRecord)

    def of_database(self, database_id: str, change_id: str) -> EngineChangeRecord:
        """The database's change of that id.

        :raises NotFoundError: it has none of that id.
        """
        table = engines.engine_changes
        query = select(table).where(table.c.id == change_id, table.c.database_id == database_id)
        return self._work.only(query, EngineChangeRecord)

    def unfinished(self, database_ids: Iterable[str]) -> Mapping[str, EngineChangeRecord]:
        """The one that is not over, by database."""
        table = engines.engine_changes
        query = select(table).where(
            table.c.database_id.in_(list(database_ids)), table.c.state.in_(UNFINISHED)
        )
        return {one.database_id: one for one in self._work.all(query, EngineChangeRecord)}

    def in_the_way(self, database_id: str) -> str:
        """What is at work on the database, so that it cannot change its engine now; empty: nothing."""
        database = Databases(self._work).get(database_id)
        if database.state is not Life.READY:
            return f"the database is {database.state}"
        branches = Branches(self._work).undead(database_id)
        for branch in branches:
            if branch.state is not Life.READY:
                return f"branch {branch.name} is {branch.state}"
            for keyspace in Keyspaces(self._work).undead(branch.id):
                if keyspace.state is not Life.READY:
                    return f"keyspace {keyspace.name} of branch {branch.name} is {keyspace.state}"
            if KeyspaceResizes(self._work).ahead(branch.id):
                return f"a resize of branch {branch.name} is not over"
        ids = [branch.id for branch in branches]
        names = {branch.id: branch.name for branch in branches}
        for branch_id, workflow in Workflows(self._work).active_on(ids).items():
            return f"workflow {workflow.number} on branch {names[branch_id]} is not over"
        for branch_id in Reparents(self._work).unfinished(ids):
            return f"a reparent of branch {names[branch_id]} is not over"
        if Maintenance(self._work).open_one(database_id) is not None:
            return "a maintenance window of the database is open"
        return ""

    def tell(self, change_id: str, error: str) -> None:
        """Say why it does not go on; empty: it does."""
        if self.get(change_id).error != error:
            table = engines.engine_changes
            values = {"error": error, "updated_at": self._work.now}
            self._work.change(table, table.c.id, change_id, values)

    def transition(
        self, change_id: str, expected: EngineChange, trigger: EngineTrigger, *, error: str = ""
    ) -> EngineChangeRecord:
        """Take a row of ENGINE_CHANGES. With it clusters are to be made or to end: the executor hears of it.

        :raises ConflictError: it is not in ``expected`` any more.
        """
        row = engine_row(expected, trigger)
        self._journal.move(
            KIND,
            engines.engine_changes,
            change_id,
            expected,
            row,
            actor_id=None,
            why=error,
            fields={"error": error},
            payload={},
        )
        now = self.get(change_id)
        for branch in Branches(self._work).of_database(now.database_id):
            Routes(self._work).bump(branch.id)
        return now
