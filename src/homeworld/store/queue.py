"""What the executor has to look at: every resource whose state asks for work.

Every commit is a hint to look again, so it is one statement, put together once for each kind of store.

Invariant: the answer depends on states alone, so that work that a crash interrupted is found again without
anybody having to remember it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
    Select,
    String,
    Table,
    TextClause,
    cast,
    false,
    literal_column,
    or_,
    select,
    type_coerce,
    union_all,
)

from homeworld.model.states.engine_changes import UNFINISHED as CHANGING
from homeworld.model.states.lifecycle import Life
from homeworld.model.states.move_tables import WORKING, State
from homeworld.model.states.reparenting import UNFINISHED as REPARENTING
from homeworld.model.states.resizing import UNFINISHED
from homeworld.store.followings import at_work
from homeworld.store.tables import engines, maintenance, reparents, resizes, resources, routing
from homeworld.store.tables import workflows as workflow_tables
from homeworld.store.tables.maintenance import WindowState
from homeworld.store.work import Work

# Deletions before creations: a name that is asked for again waits for the old one to be gone.
UNSETTLED = (Life.DELETING, Life.PENDING)
# A stopped workflow is looked at too: whether its tables fit again is seen, not told.
WATCHED = (*WORKING, State.STOPPED)
_NOTHING_ELSE = false()
_texts: dict[str, str] = {}  # by dialect


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A resource to look at; ``kind`` is database, branch, cluster (of a branch, whose id it has), keyspace,
    resize, gateway_resize, reparent, engine_change, workflow or maintenance (an open window).
    """

    kind: str
    id: str
    state: str

    @property
    def lease(self) -> str:
        """The resource name for Leases."""
        return f"{self.kind}:{self.id}"


class Queue:
    """The work queue within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def resources_with_work(self) -> tuple[WorkItem, ...]:
        """Databases, branches and keyspaces that are pending or being deleted, clusters that do not have what
        is stored (with the version that each is to have: where that grows it is looked at anew at once),
        resizes, reparents and changes of engine that are not over, workflows in a state where something is
        under way, a stream runs, or what the state asks is not settled, and open maintenance windows. Oldest
        change first within a kind.
        """
        dialect = self._work.connection.dialect
        text = _texts.get(dialect.name)
        if text is None:
            compiled = _everything().compile(dialect=dialect, compile_kwargs={"literal_binds": True})
            text = _texts[dialect.name] = str(compiled)
        return tuple(WorkItem(row[1], row[2], row[3]) for row in self._work.connection.exec_driver_sql(text))


def _everything() -> Select[Any]:
    """Rank and kind, id and state of all of it, in order."""
    tables: list[tuple[str, Table, tuple[str, ...], ColumnElement[bool] | TextClause]] = [
        ("database", resources.databases, UNSETTLED, _NOTHING_ELSE),
        ("branch", resources.branches, UNSETTLED, _NOTHING_ELSE),
        ("keyspace", resources.keyspaces, UNSETTLED, _NOTHING_ELSE),
        ("resize", resizes.keyspace_resizes, tuple(UNFINISHED), _NOTHING_ELSE),
        ("gateway_resize", resizes.gateway_resizes, tuple(UNFINISHED), _NOTHING_ELSE),
        ("reparent", reparents.reparents, tuple(REPARENTING), _NOTHING_ELSE),
        ("engine_change", engines.engine_changes, tuple(CHANGING), _NOTHING_ELSE),
        ("workflow", workflow_tables.workflows, WATCHED, workflow_tables.UNSETTLED),
        ("maintenance", maintenance.maintenance_windows, (WindowState.OPEN,), _NOTHING_ELSE),
    ]
    rank = {kind: str(number) for number, (kind, *_) in enumerate(tables)} | {"cluster": "2.5"}

    def head(kind: str) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
        return literal_column(rank[kind], Float).label("rank"), literal_column(f"'{kind}'", String).label(
            "kind"
        )

    branch, routes = resources.branches, routing.branch_routing
    clusters = [
        query.with_only_columns(
            *head("cluster"), branch.c.id, cast(routes.c.version, String).label("state"), branch.c.updated_at,
            maintain_column_froms=True,
        )
        for query in at_work()
    ]  # fmt: skip
    all_of_it = union_all(
        *(
            select(
                *head(kind), table.c.id, type_coerce(table.c.state, String).label("state"), table.c.updated_at
            ).where(or_(table.c.state.in_(states), also))
            for kind, table, states, also in tables
        ),
        *clusters,
    ).subquery()
    return select(all_of_it).order_by(all_of_it.c.rank, all_of_it.c.updated_at, all_of_it.c.id)
