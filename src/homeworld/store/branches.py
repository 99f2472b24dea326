"""Branches, and the servers that they stand on.

Invariant: a database has one default branch among its live ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict, Unpack

from sqlalchemy import Integer, Select, func, select, update
from sqlalchemy.exc import IntegrityError

from homeworld.model.engines import MAKES_SERVERS
from homeworld.model.errors import InvalidError, NotFoundError
from homeworld.model.machine import Transition
from homeworld.model.names import check_resource_name, new_id
from homeworld.model.sizes import DEFAULT_SIZE
from homeworld.model.states.lifecycle import Life, LifeTrigger
from homeworld.model.topology import Flavor
from homeworld.store.journal import Journal
from homeworld.store.outbox import Outbox
from homeworld.store.pages import Page, PageRequest, fetch_counted_page
from homeworld.store.routing import Routes
from homeworld.store.tables import resources
from homeworld.store.work import Work

KIND = "branch"


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch as stored. ``error`` says why it is still pending, if it is; ``table_count`` is of when its
    servers' schemas were last read.
    """

    id: str
    database_id: str
    name: str
    region_id: str
    parent_branch_id: str | None
    state: Life
    error: str
    cluster_size: str
    gateway_size: str
    production: bool
    is_default: bool
    safe_migrations: bool
    deletion_protected: bool
    schema_digest: str
    table_count: int
    schema_last_updated_at: datetime | None
    actor_id: str | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


class BranchFields(TypedDict, total=False):
    """What may be changed beside the state."""

    name: str
    error: str
    cluster_size: str
    gateway_size: str
    production: bool
    is_default: bool
    safe_migrations: bool
    deletion_protected: bool
    schema_digest: str
    table_count: int
    schema_last_updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class Server:
    """A managed MySQL server; ``replica_of`` is None on a primary. Only the engine knows its address.

    :param barred: why no shard may name it, although it is a replica; empty: shards may.
    """

    id: str
    branch_id: str
    replica_of: str | None
    flavor: Flavor
    state: Life
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    barred: str


@dataclass(frozen=True, slots=True)
class BranchTotals:
    """What the published branch object counts."""

    keyspaces: int = 0
    shards: int = 0
    sharded: bool = False
    replicas: int = 0


class Branches:
    """Branches within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._journal = Journal(work)

    def create(
        self,
        database_id: str,
        name: str,
        region_id: str,
        *,
        parent_branch_id: str | None = None,
        production: bool = False,
        is_default: bool = False,
        cluster_size: str = "",
        deletion_protected: bool = False,
        branch_id: str | None = None,
        actor_id: str | None = None,
    ) -> Branch:
        """A new pending branch without keyspaces (see store.provision for all of it).

        :param branch_id: its id, where something of it was written down before; None: a new one.
        :raises InvalidError: the name is not valid or taken.
        """
        made = Branch(
            id=branch_id or new_id(),
            database_id=database_id,
            name=check_resource_name(name, "branch"),
            region_id=region_id,
            parent_branch_id=parent_branch_id,
            state=Life.PENDING,
            error="",
            cluster_size=cluster_size,
            gateway_size=DEFAULT_SIZE,
            production=production,
            is_default=is_default,
            safe_migrations=False,
            deletion_protected=deletion_protected,
            schema_digest="",
            table_count=0,
            schema_last_updated_at=None,
            actor_id=actor_id,
            created_at=self._work.now,
            updated_at=self._work.now,
            deleted_at=None,
        )
        try:
            self._work.add(resources.branches, {field: getattr(made, field) for field in made.__slots__})
        except IntegrityError as error:
            raise InvalidError(f"a branch named {name} already exists") from error
        self._journal.born(
            KIND, made.id, made.state, actor_id=actor_id, payload={"name": name, "database_id": database_id}
        )
        Routes(self._work).bump(made.id)
        return made

    def get(self, branch_id: str) -> Branch:
        """The branch in whatever state.

        :raises NotFoundError: no such id.
        """
        table = resources.branches
        return self._work.only(select(table).where(table.c.id == branch_id), Branch)

    def by_ids(self, ids: Iterable[str | None]) -> Mapping[str, Branch]:
        """Branches by id in whatever state."""
        return self._work.by_key(resources.branches, ids, Branch)

    def by_name(self, database_id: str, name: str) -> Branch:
        """The live branch of that name.

        :raises NotFoundError: no such branch.
        """
        table = resources.branches
        return self._work.only(self._live(database_id).where(table.c.name == name), Branch)

    def named(self, database_id: str, named: str) -> Branch:
        """The live branch of that name, or else of that id: paths may have either, and a name goes first.

        :raises NotFoundError: no such branch.
        """
        try:
            return self.by_name(database_id, named)
        except NotFoundError:
            return self._work.only(self._live(database_id).where(resources.branches.c.id == named), Branch)

    def default(self, database_id: str) -> Branch:
        """The database's default branch.

        :raises NotFoundError: it has none.
        """
        table = resources.branches
        return self._work.only(self._live(database_id).where(table.c.is_default), Branch)

    def of_database(self, database_id: str) -> tuple[Branch, ...]:
        """All live branches, by name."""
        return self._work.all(self._live(database_id).order_by(resources.branches.c.name), Branch)

    def undead(self, database_id: str) -> tuple[Branch, ...]:
        """The database's branches that are not gone: live ones and those being deleted, by name."""
        table = resources.branches
        query = (
            select(table)
            .where(table.c.database_id == database_id, table.c.state != Life.DELETED)
            .order_by(table.c.name, table.c.created_at)
        )
        return self._work.all(query, Branch)

    def children(self, branch_id: str) -> tuple[Branch, ...]:
        """The live branches made from this one, by name."""
        table = resources.branches
        query = (
            select(table)
            .where(table.c.parent_branch_id == branch_id, table.c.deleted_at.is_(None))
            .order_by(table.c.name)
        )
        return self._work.all(query, Branch)

    def page(
        self,
        database_id: str,
        request: PageRequest,
        q: str = "",
        *,
        production: bool | None = None,
        safe_migrations: bool | None = None,
        order: str = "",
    ) -> Page[Branch]:
        """Live branches.

        :param q: keeps those whose name contains it.
        :param order: by the time when they were made, ``asc`` or ``desc``; empty: by name.
        """
        table = resources.branches
        query = self._live(database_id)
        if order:
            keys = (table.c.created_at, table.c.id)
            query = query.order_by(*(key.desc() if order == "desc" else key for key in keys))
        else:
            query = query.order_by(table.c.name)
        if q:
            query = query.where(table.c.name.icontains(q, autoescape=True))
        if production is not None:
            query = query.where(table.c.production == production)
        if safe_migrations is not None:
            query = query.where(table.c.safe_migrations == safe_migrations)
        return fetch_counted_page(self._work.connection, query, request, Branch)

    @staticmethod
    def _live(database_id: str) -> Select[tuple[object, ...]]:
        table = resources.branches
        return select(table).where(table.c.database_id == database_id, table.c.deleted_at.is_(None))

    def update(self, branch_id: str, **fields: Unpack[BranchFields]) -> Branch:
        """Change settings; gateways hear of a new name or size.

        :raises InvalidError: the new name is not valid or taken, or another branch is the default.
        """
        table = resources.branches
        if "name" in fields:
            check_resource_name(fields["name"], "branch")
        try:
            self._work.change(table, table.c.id, branch_id, {**fields, "updated_at": self._work.now})
        except IntegrityError as error:
            raise InvalidError(f"a branch named {fields.get('name')} already exists") from error
        if "name" in fields or "gateway_size" in fields:
            Routes(self._work).bump(branch_id)
        return self.get(branch_id)

    def transition(
        self,
        branch_id: str,
        expected: Life,
        row: Transition[Life, LifeTrigger],
        *,
        actor_id: str | None = None,
        why: str = "",
        **fields: Unpack[BranchFields],
    ) -> Branch:
        """Take a row of LIFECYCLE; gateways hear of it.

        :raises ConflictError: the branch is not in ``expected`` any more.
        """
        self._journal.move(
            KIND,
            resources.branches,
            branch_id,
            expected,
            row,
            actor_id=actor_id,
            why=why,
            fields=dict(fields),
            payload={},
        )
        Routes(self._work).bump(branch_id)
        return self.get(branch_id)

    def totals(self, ids: Iterable[str]) -> Mapping[str, BranchTotals]:
        """The counts of several branches in one query; branches without keyspaces are left out."""
        keyspace = resources.keyspaces
        rows = self._work.connection.execute(
            select(
                keyspace.c.branch_id,
                func.count().label("keyspaces"),
                func.sum(keyspace.c.shard_count).label("shards"),
                func.max(func.cast(keyspace.c.sharded, Integer)).label("sharded"),
                func.max(keyspace.c.replicas).label("replicas"),
            )
            .where(keyspace.c.branch_id.in_(list(ids)), keyspace.c.deleted_at.is_(None))
            .group_by(keyspace.c.branch_id)
        )
        return {
            row.branch_id: BranchTotals(row.keyspaces, row.shards, bool(row.sharded), row.replicas)
            for row in rows
        }


class Servers:
    """The servers of branches within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._journal = Journal(work)

    def create(
        self, branch_id: str, flavor: Flavor, *, replica_of: str | None = None, server_id: str | None = None
    ) -> Server:
        """Note a server that is about to be made."""
        made = Server(
            server_id or new_id(),
            branch_id,
            replica_of,
            flavor,
            Life.PENDING,
            self._work.now,
            self._work.now,
            None,
            "",
        )
        self._work.add(resources.servers, {field: getattr(made, field) for field in made.__slots__})
        self._journal.born("server", made.id, made.state, actor_id=None, payload={"branch_id": branch_id})
        return made

    def get(self, server_id: str) -> Server:
        """The server in whatever state.

        :raises NotFoundError: no such id.
        """
        table = resources.servers
        return self._work.only(select(table).where(table.c.id == server_id), Server)

    def promote(self, server_id: str, *, barred: str = "") -> None:
        """A replica has become the primary of its former primary: shards are found there from now on, and
        gateways hear of it. No-op where it is a primary already.

        :param barred: why the former primary may not be a replica of shards; empty: it is one from now on.
        """
        server = self.get(server_id)
        former = server.replica_of
        if former is None:
            return
        table, shards, now = resources.servers, resources.shards, self._work.now
        run = self._work.connection.execute
        run(update(table).where(table.c.id == server_id).values(replica_of=None, barred="", updated_at=now))
        run(update(table).where(table.c.replica_of == former).values(replica_of=server_id, updated_at=now))
        values = {"replica_of": server_id, "barred": barred, "updated_at": now}
        self._work.change(table, table.c.id, former, values)
        rows = run(select(shards).where(shards.c.primary_server_id == former)).mappings().all()
        for row in rows:
            # Not every shard of a server need list each of its replicas.
            replicas = [former if each == server_id else each for each in row["replica_server_ids"]]
            if barred:
                replicas = [each for each in replicas if each != former]
            changed = {"primary_server_id": server_id, "replica_server_ids": replicas, "updated_at": now}
            self._work.change(shards, shards.c.id, row["id"], changed)
        Outbox(self._work).emit(
            "branch.primary_promoted", KIND, server.branch_id, {"server_id": server_id, "former": former}
        )
        Routes(self._work).bump(server.branch_id)

    def follow(self, server_id: str, primary_id: str | None) -> None:
        """Note which server one of a cluster of others follows now; None: it is a primary. The shards that
        stand on it are the caller's to place.
        """
        if self.get(server_id).replica_of != primary_id:
            values = {"replica_of": primary_id, "updated_at": self._work.now}
            self._work.change(resources.servers, resources.servers.c.id, server_id, values)

    def tell_barred(self, server_id: str, why: str) -> None:
        """Say why a server that is barred already is so."""
        table = resources.servers
        if self.get(server_id).barred not in ("", why):
            self._work.change(table, table.c.id, server_id, {"barred": why, "updated_at": self._work.now})

    def admit(self, server_id: str) -> None:
        """A barred server follows its primary: it is a replica of that one's shards again, and gateways hear
        of it. No-op where it is none any more, or not barred.
        """
        server = self.get(server_id)
        if not server.barred or server.state is not Life.READY:
            return
        table, shards, now = resources.servers, resources.shards, self._work.now
        self._work.change(table, table.c.id, server_id, {"barred": "", "updated_at": now})
        rows = self._work.connection.execute(
            select(shards).where(shards.c.primary_server_id == server.replica_of)
        ).mappings()
        for row in rows.all():
            if server_id not in row["replica_server_ids"]:
                values = {"replica_server_ids": [*row["replica_server_ids"], server_id], "updated_at": now}
                self._work.change(shards, shards.c.id, row["id"], values)
        Routes(self._work).bump(server.branch_id)

    def of_branch(self, branch_id: str) -> tuple[Server, ...]:
        """The branch's servers that are not gone, oldest first."""
        table = resources.servers
        query = (
            select(table)
            .where(table.c.branch_id == branch_id, table.c.state != Life.DELETED)
            .order_by(table.c.created_at, table.c.id)
        )
        return self._work.all(query, Server)

    def by_ids(self, ids: Iterable[str | None]) -> Mapping[str, Server]:
        """Servers by id in whatever state."""
        return self._work.by_key(resources.servers, ids, Server)

    def replicas(self, after: str, limit: int) -> tuple[Server, ...]:
        """Ready replicas of all branches in the order of their ids, from the one behind ``after`` on."""
        table = resources.servers
        query = (
            select(table)
            .where(table.c.id > after, table.c.replica_of.is_not(None), table.c.state == Life.READY)
            .order_by(table.c.id)
            .limit(limit)
        )
        return self._work.all(query, Server)

    def own(self) -> tuple[Server, ...]:
        """Every server of homeworld's own that is not gone, of all branches: none that others run."""
        table, branch, database = resources.servers, resources.branches, resources.databases
        query = (
            select(table)
            .join(branch, branch.c.id == table.c.branch_id)
            .join(database, database.c.id == branch.c.database_id)
            .where(table.c.state != Life.DELETED, database.c.engine.in_(MAKES_SERVERS))
            .order_by(table.c.created_at, table.c.id)
        )
        return self._work.all(query, Server)

    def transition(
        self,
        server_id: str,
        expected: Life,
        row: Transition[Life, LifeTrigger],
        *,
        actor_id: str | None = None,
        why: str = "",
    ) -> Server:
        """Take a row of LIFECYCLE; gateways hear of it.

        :raises ConflictError: the server is not in ``expected`` any more.
        """
        self._journal.move(
            "server",
            resources.servers,
            server_id,
            expected,
            row,
            actor_id=actor_id,
            why=why,
            fields={},
            payload={},
        )
        moved = self.get(server_id)
        Routes(self._work).bump(moved.branch_id)
        return moved
