"""How far each Vitess branch's cluster follows what is stored: a branch's row, and whether it is behind.

A branch has a cluster where its database's engine is Vitess, or is about to be (a change of engine that is
running). What a cluster has to be changes with the branch's routes' version; the executor lets the cluster
follow and writes down the version it has. Whoever needs the cluster to have something asks
:meth:`Followings.behind`.

Invariants: a cluster that may have a process is *standing*, from before the first one is begun until after
the last has ended; ``followed`` is never a version that the cluster was not made to have. Nobody is served
through a cluster of which nobody knows what it has (:meth:`Followings.known`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, or_, select

from homeworld.model.engines import MAKES_SERVERS, ON_VITESS
from homeworld.model.states.engine_changes import EngineChange
from homeworld.store.routing import Routes
from homeworld.store.tables import engines, resources, routing
from homeworld.store.work import Work

_NOTHING = ""


@dataclass(frozen=True, slots=True)
class Following:
    """One branch's cluster.

    :param standing: its processes may exist.
    :param followed: the routes' version that it has; 0: none, or nobody knows.
    :param digest: of what it was made to be; empty: nobody knows.
    :param joining: keyspaces that are not ready yet and belong to it already.
    :param error: why it does not follow; empty: it does, or nobody has tried.
    :param agreed: of a cluster that others run, what it and the store had alike last; None: nobody knows.
    """

    branch_id: str
    standing: bool
    followed: int
    digest: str
    joining: Sequence[str]
    error: str
    updated_at: datetime
    agreed: Mapping[str, Mapping[str, Any]] | None = None


class Followings:
    """Clusters within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def get(self, branch_id: str) -> Following:
        """The branch's; one that nobody has made yet is not standing."""
        table = engines.followings
        found = self._work.first(select(table).where(table.c.branch_id == branch_id), Following)
        none = Following(branch_id, False, 0, _NOTHING, (), _NOTHING, self._work.now)
        return found if found is not None else none

    def wanted(self, branch_id: str) -> bool:
        """Whether the branch is to have a cluster."""
        return bool(self._work.connection.execute(_wanted(branch_id)).first())

    def serves(self, branch_id: str) -> bool:
        """Whether the branch's statements go through its cluster. One that is only made for a change of
        engine serves nobody yet, and nobody has to wait for it.
        """
        branch, database = resources.branches, resources.databases
        query = (
            select(branch.c.id)
            .join(database, database.c.id == branch.c.database_id)
            .where(branch.c.id == branch_id, database.c.engine.in_(ON_VITESS))
        )
        return bool(self._work.connection.execute(query).first())

    def with_work(self) -> tuple[tuple[str, int], ...]:
        """Branches whose clusters do not have the newest routes' version, or are to end; with it."""
        run = self._work.connection.execute
        return tuple((row.id, int(row.version)) for query in at_work() for row in run(query))

    def version(self, branch_id: str) -> int:
        """The newest version of the branch's routes; 0: it has none."""
        routes = routing.branch_routing
        query = select(routes.c.version).where(routes.c.branch_id == branch_id)
        return int(self._work.connection.execute(query).scalar_one_or_none() or 0)

    def behind(self, branch_id: str) -> str | None:
        """Why the branch's cluster is not yet what is stored, or not yet gone where there is to be none;
        empty where it is only a matter of time. None: it is as it is to be, also where there is none and
        need be none.
        """
        found = self.get(branch_id)
        if self.wanted(branch_id):
            return found.error if found.followed < self.version(branch_id) else None
        return found.error if found.standing else None

    def join(self, branch_id: str, keyspace_id: str) -> None:
        """A keyspace that is not ready belongs to the cluster from now on: its servers and schemas exist."""
        found = self.get(branch_id)
        if keyspace_id not in found.joining:
            self._set(found, joining=[*found.joining, keyspace_id])
            Routes(self._work).bump(branch_id)

    def stand(self, branch_id: str) -> None:
        """Processes are about to be begun."""
        found = self.get(branch_id)
        if not found.standing:
            self._set(found, standing=True)

    def have(self, branch_id: str, version: int, digest: str) -> None:
        """The cluster has what was stored at that version. Where nobody knew before, gateways hear of it."""
        found = self.get(branch_id)
        if found.followed == 0:
            newest = self.version(branch_id)
            bumped = Routes(self._work).bump(branch_id)
            version = bumped if version == newest else version
        self._set(found, followed=version, digest=digest, error=_NOTHING)

    def tell(self, branch_id: str, error: str) -> None:
        """Say why it does not follow."""
        found = self.get(branch_id)
        if found.error != error:
            self._set(found, error=error)

    def known(self, branch_id: str) -> bool:
        """Whether somebody knows what the cluster has, be it what is stored or something before that."""
        return self.get(branch_id).followed > 0

    def doubt_all(self) -> None:
        """Nobody knows of any cluster what it has: everything was away, and is only being started."""
        for branch_id in self.standing():
            if self._foreign(branch_id):
                self.glance_again(branch_id)  # what others run was not away
            else:
                self._set(self.get(branch_id), followed=0, digest=_NOTHING)

    def _foreign(self, branch_id: str) -> bool:
        branch, database = resources.branches, resources.databases
        query = (
            select(branch.c.id)
            .join(database, database.c.id == branch.c.database_id)
            .where(branch.c.id == branch_id, database.c.engine.not_in(MAKES_SERVERS))
        )
        return self._work.connection.execute(query).first() is not None

    def look_again(self, branch_id: str, keyspaces: Iterable[str] | None = None) -> None:
        """The cluster is to be looked at again, whatever it has; it goes on serving.

        :param keyspaces: whose vschemas, in a cluster that others run, may not be what was given to it; None:
            all that was given.
        """
        found = self.get(branch_id)
        agreed = None
        if found.agreed is not None and keyspaces is not None:
            doubted = set(keyspaces)
            vschemas = {name: one for name, one in found.agreed["vschemas"].items() if name not in doubted}
            agreed = {**found.agreed, "vschemas": vschemas}
        followed = min(found.followed, self.version(branch_id) - 1)
        self._set(found, followed=followed, digest=_NOTHING, agreed=agreed)

    def glance_again(self, branch_id: str) -> None:
        """The same, with nothing in doubt of what was given."""
        found = self.get(branch_id)
        self._set(found, followed=min(found.followed, self.version(branch_id) - 1))

    def agree(self, branch_id: str, agreed: Mapping[str, Mapping[str, Any]]) -> None:
        """Note what a cluster that others run and the store have alike."""
        self._set(self.get(branch_id), agreed=agreed)

    def ended(self, branch_id: str) -> None:
        """No process of it is left."""
        self._set(
            self.get(branch_id),
            standing=False,
            followed=0,
            digest=_NOTHING,
            joining=[],
            error=_NOTHING,
            agreed=None,
        )

    def standing(self) -> tuple[str, ...]:
        """The branches whose clusters may have processes."""
        table = engines.followings
        query = select(table.c.branch_id).where(table.c.standing).order_by(table.c.branch_id)
        return tuple(self._work.connection.execute(query).scalars().all())

    def _set(self, found: Following, **values: object) -> None:
        table = engines.followings
        changed = {**values, "updated_at": self._work.now}
        if not self._work.change(table, table.c.branch_id, found.branch_id, changed):
            whole = {name: getattr(found, name) for name in found.__slots__}
            self._work.add(table, {**whole, "joining": list(found.joining), **changed})


def at_work() -> tuple[Select[Any, Any], Select[Any, Any]]:
    """The queries of branches, with their routes' version, whose clusters are behind it, or are to end."""
    table, routes, branch = engines.followings, routing.branch_routing, resources.branches
    behind = (
        select(branch.c.id, routes.c.version)
        .join_from(branch, routes, routes.c.branch_id == branch.c.id)
        .outerjoin(table, table.c.branch_id == branch.c.id)
        .where(
            branch.c.database_id.in_(_databases()),
            branch.c.deleted_at.is_(None),
            func.coalesce(table.c.followed, 0) < routes.c.version,
        )
    )
    to_end = (
        select(branch.c.id, routes.c.version)
        .join_from(table, branch, branch.c.id == table.c.branch_id)
        .join(routes, routes.c.branch_id == branch.c.id)
        .where(
            table.c.standing,
            or_(branch.c.deleted_at.is_not(None), branch.c.database_id.not_in(_databases())),
        )
    )
    return behind, to_end


def _databases() -> Select[tuple[str]]:
    """The databases whose branches are to have clusters."""
    database, change = resources.databases, engines.engine_changes
    changing = select(change.c.database_id).where(
        change.c.state == EngineChange.RUNNING, change.c.engine.in_(ON_VITESS)
    )
    return select(database.c.id).where(or_(database.c.engine.in_(ON_VITESS), database.c.id.in_(changing)))


def _wanted(branch_id: str) -> Select[tuple[str]]:
    branch = resources.branches
    return select(branch.c.id).where(
        branch.c.id == branch_id, branch.c.deleted_at.is_(None), branch.c.database_id.in_(_databases())
    )
