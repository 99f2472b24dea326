"""What gateways serve: rules, versions, and the snapshot made of everything.

Invariants: the global version only grows, in commit order; whatever changes what a gateway would see of a
branch (rules, keyspaces, shards, servers, passwords, the branch itself) bumps it in the same transaction, so
a snapshot's version stands for exactly its contents; a closing is stored together with the rules that it is
about. Knows no server's address: those are asked of ``endpoints`` when a branch is read.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import func, select

from homeworld.model.engines import ON_VITESS
from homeworld.model.errors import NotFoundError
from homeworld.model.routing import (
    Account,
    BranchRoutes,
    Closing,
    KeyspaceRoute,
    Moving,
    RoutingSnapshot,
    ShardRoute,
)
from homeworld.model.sizes import gateway_size_named
from homeworld.model.states.lifecycle import Life
from homeworld.model.topology import BackendRole, Endpoint, Flavor
from homeworld.store.outbox import Outbox
from homeworld.store.tables import resources, routing
from homeworld.store.work import Work

if TYPE_CHECKING:
    from homeworld.store.databases import Database
    from homeworld.store.keyspaces import Keyspace
    from homeworld.store.store import Store, Transaction

_COUNTER = "routing"
#: Of so many branches everything is read by one query of each kind.
_AT_ONCE = 200
_log = logging.getLogger(__name__)

Endpoints = Callable[[str], Endpoint]
Vtgates = Callable[[str], Endpoint | None]
Credentials = Callable[[str], Mapping[BackendRole, tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class StoredRules:
    """What is stored of one branch's rules; see :class:`~homeworld.model.routing.BranchRoutes`."""

    rules: Mapping[str, str]
    closing: Closing | None = None
    moving: Moving | None = None


_NO_RULES = StoredRules({})


class Routes:
    """Rules and versions within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def version(self) -> int:
        """The global version; 0 before anything was stored."""
        table = routing.counters
        found = self._work.connection.execute(
            select(table.c.value).where(table.c.name == _COUNTER)
        ).scalar_one_or_none()
        return found or 0

    def rules(self, branch_id: str) -> Mapping[str, str]:
        """The branch's routing rules: ``t`` or ``ks.t`` (also with ``@replica``, ``@rdonly``) to ``ks.t``."""
        table = routing.branch_routing
        found = self._work.connection.execute(
            select(table.c.rules).where(table.c.branch_id == branch_id)
        ).scalar_one_or_none()
        return found or {}

    def replace_rules(self, branch_id: str, rules: Mapping[str, str]) -> int:
        """Set all rules of a branch; the new global version. A closing stays as it is."""
        return self._set(branch_id, {"rules": dict(rules)})

    def move_rules(
        self, branch_id: str, rules: Mapping[str, str], subject: str, tables: Iterable[tuple[str, str]]
    ) -> int:
        """Set all rules of a branch, closed: no gateway serves those that change before ``tables`` are held
        there, nor the tables before ``subject`` is opened. The new global version.

        Called in the transaction of the state's change, this is the commit point of a switch.
        """
        now = self.rules(branch_id)
        before = {name: now.get(name, "") for name in {*now, *rules} if now.get(name) != rules.get(name)}
        closing = {"subject": subject, "tables": sorted(map(list, tables)), "before": before}
        return self._set(branch_id, {"rules": dict(rules), "closing": closing})

    def closing(self, branch_id: str) -> Closing | None:
        """The branch's closing, if a switch has not opened its tables yet."""
        table = routing.branch_routing
        return _closing(
            self._work.connection.execute(
                select(table.c.closing).where(table.c.branch_id == branch_id)
            ).scalar_one_or_none()
        )

    def forget_closing(self, branch_id: str, subject: str) -> None:
        """Every gateway has the subject's rules and has opened its tables."""
        closing = self.closing(branch_id)
        if closing is not None and closing.subject == subject:
            self._set(branch_id, {"closing": None})

    def guard(self, branch_id: str, tables: Iterable[tuple[str, str]]) -> None:
        """From now on gateways serve primary statements on these tables under a living lease only. A no-op
        where they do already.

        :param tables: physical (keyspace, table) names on both sides.
        """
        known = self.moving(branch_id)
        if known is None or known.tables != frozenset(tables):
            listed = sorted(map(list, tables))
            self._set(branch_id, {"moving": listed, "moving_since": self.version() + 1})

    def unguard(self, branch_id: str) -> None:
        """The branch's workflow is over."""
        if self.moving(branch_id) is not None:
            self._set(branch_id, {"moving": None, "moving_since": None})

    def moving(self, branch_id: str) -> Moving | None:
        """What is guarded in the branch, if anything."""
        table = routing.branch_routing
        found = self._work.connection.execute(
            select(table.c.moving, table.c.moving_since).where(table.c.branch_id == branch_id)
        ).first()
        return None if found is None else _moving(found.moving, found.moving_since)

    def stored(self, branch_ids: Sequence[str]) -> Mapping[str, StoredRules]:
        """What is stored of several branches' rules, in one query."""
        table = routing.branch_routing
        rows = self._work.connection.execute(select(table).where(table.c.branch_id.in_(branch_ids)))
        return {
            row.branch_id: StoredRules(
                row.rules, _closing(row.closing), _moving(row.moving, row.moving_since)
            )
            for row in rows
        }

    def moving_since(self) -> int:
        """The version that told of the newest guarded tables; 0 where nothing is guarded. A gateway that
        serves it or a newer one knows of all of them.
        """
        query = select(func.max(routing.branch_routing.c.moving_since))
        return int(self._work.connection.execute(query).scalar_one_or_none() or 0)

    def _set(self, branch_id: str, values: Mapping[str, object]) -> int:
        version = self.bump(branch_id)
        table = routing.branch_routing
        self._work.change(table, table.c.branch_id, branch_id, values)
        return version

    def bump(self, branch_id: str) -> int:
        """Say that gateways must read the branch anew; the new global version."""
        counters, table = routing.counters, routing.branch_routing
        version = self.version() + 1
        if not self._work.change(counters, counters.c.name, _COUNTER, {"value": version}):
            self._work.add(counters, {"name": _COUNTER, "value": version})
        if not self._work.change(table, table.c.branch_id, branch_id, {"version": version}):
            self._work.add(table, {"branch_id": branch_id, "rules": {}, "version": version})
        Outbox(self._work).emit("routing.changed", "branch", branch_id, {"version": version})
        return version

    def changed_since(self, version: int) -> Mapping[str, int]:
        """Branches that were bumped after ``version``, with their own versions."""
        table = routing.branch_routing
        rows = self._work.connection.execute(
            select(table.c.branch_id, table.c.version).where(table.c.version > version)
        )
        return {row.branch_id: row.version for row in rows}


def _closing(found: Any) -> Closing | None:
    if found is None:
        return None
    stored = cast("dict[str, Any]", found)
    return Closing(stored["subject"], _tables(stored["tables"]), stored["before"])


def _moving(found: Any, since: Any) -> Moving | None:
    return None if found is None else Moving(_tables(found), int(since))


def _tables(found: Any) -> frozenset[tuple[str, str]]:
    listed = cast("list[list[str]]", found)
    return frozenset((str(keyspace), str(name)) for keyspace, name in listed)


@dataclass(frozen=True, slots=True)
class _Read:
    """One branch as read: None where it serves nothing."""

    routes: BranchRoutes | None
    accounts: tuple[Account, ...]


class Routing:
    """Builds snapshots, reading only the branches that changed since the last one. Safe among threads.

    :param endpoints: server id to its address; the account in it does not matter.
    :param credentials: branch id to the backend account of each role.
    :param vtgates: branch id to its vtgate's address, without an account; asked for branches whose database
        runs on Vitess only. None, or NotFoundError: it has none, and nothing of the branch is served by
        anybody else instead.
    """

    def __init__(
        self,
        store: Store,
        endpoints: Endpoints,
        credentials: Credentials,
        vtgates: Vtgates = lambda _branch_id: None,
    ) -> None:
        self._store = store
        self._endpoints = endpoints
        self._credentials = credentials
        self._vtgates = vtgates
        self._lock = threading.Lock()
        self._version = 0
        self._branches: dict[str, BranchRoutes] = {}
        self._accounts: dict[str, tuple[Account, ...]] = {}

    def version(self) -> int:
        """The stored global version; cheap, for pollers."""
        with self._store.read() as tx:
            return tx.routes.version()

    def snapshot(self) -> RoutingSnapshot:
        """Everything as it is stored now."""
        with self._lock:
            found: dict[str, _Read] = {}
            with self._store.read() as tx:
                version = tx.routes.version()
                changed = tx.routes.changed_since(self._version)
                ids = list(changed)
                for begin in range(0, len(ids), _AT_ONCE):
                    reading = _Reading(tx, self._endpoints, self._credentials, self._vtgate)
                    found |= reading.read(ids[begin : begin + _AT_ONCE], changed)
            for branch_id, read in found.items():
                self._branches.pop(branch_id, None)
                self._accounts.pop(branch_id, None)
                if read.routes is not None:
                    self._branches[branch_id] = read.routes
                    self._accounts[branch_id] = read.accounts
            for branch_id, routes in self._branches.items():
                # A vtgate that was begun anew may have another address, of which no version tells.
                if routes.vtgate is not None and branch_id not in found:
                    vtgate = self._vtgate(branch_id)
                    if vtgate != routes.vtgate:  # the same object is what gateways need not compare
                        self._branches[branch_id] = replace(routes, vtgate=vtgate)
            self._version = version
            accounts = {a.username: a for several in self._accounts.values() for a in several}
            return RoutingSnapshot(version, dict(self._branches), accounts)

    def _vtgate(self, branch_id: str) -> Endpoint:
        """The branch's vtgate; where it has none, one that nobody can connect to."""
        try:
            found = self._vtgates(branch_id)
        except NotFoundError:
            found = None
        if found is None:
            _log.warning("branch %s has no vtgate: its statements cannot be served", branch_id)
            found = Endpoint("", Flavor.MYSQL, "", 0, "", "", "")
        return replace(found, server_id=f"vtgate-{branch_id}", vtgate=True)


class _Reading:
    """Several branches, read by one query of each kind however many they are."""

    def __init__(
        self,
        tx: Transaction,
        endpoints: Endpoints,
        credentials: Credentials,
        vtgate: Callable[[str], Endpoint],
    ) -> None:
        self._tx = tx
        self._ask = endpoints
        self._credentials = credentials
        self._vtgate = vtgate
        self._asked: dict[str, Endpoint | None] = {}

    def read(self, branch_ids: Sequence[str], versions: Mapping[str, int]) -> dict[str, _Read]:
        """All of each branch.

        :param versions: each branch's own.
        """
        tx = self._tx
        found = tx.branches.by_ids(branch_ids)
        ready = [branch for branch in found.values() if branch.state is Life.READY]
        served = [branch.id for branch in ready]
        databases = tx.databases.by_ids(branch.database_id for branch in ready)
        names = self._names(databases.values())
        keyspaces = tx.keyspaces.of_branches(served)
        routed = self._keyspaces([each for several in keyspaces.values() for each in several])
        rules, accounts = tx.routes.stored(served), self._passwords(served)
        read = {branch_id: _Read(None, ()) for branch_id in branch_ids}
        for branch in ready:
            database, stored = databases[branch.database_id], rules.get(branch.id, _NO_RULES)
            own = {each.name: routed[each.id] for each in keyspaces.get(branch.id, ()) if each.id in routed}
            default = next((each.name for each in keyspaces.get(branch.id, ()) if each.is_default), "")
            size = gateway_size_named(branch.gateway_size)
            routes = BranchRoutes(
                branch_id=branch.id,
                organization=names[database.organization_id],
                database=database.name,
                branch=branch.name,
                flavor=database.flavor,
                version=versions[branch.id],
                keyspaces=own,
                rules=stored.rules,
                default_keyspace=default if default in own else "",
                credentials=self._credentials(branch.id),
                closing=stored.closing,
                moving=stored.moving,
                most_clients=size.most_clients if size else 0,
                vtgate=self._vtgate(branch.id) if database.engine in ON_VITESS else None,
            )
            read[branch.id] = _Read(routes, tuple(accounts.get(branch.id, ())))
        return read

    def _names(self, databases: Iterable[Database]) -> Mapping[str, str]:
        """The names of the databases' organizations, by id."""
        ids = {database.organization_id for database in databases}
        return {each.id: each.name for each in self._tx.organizations.by_ids(ids).values()}

    def _keyspaces(self, keyspaces: Sequence[Keyspace]) -> dict[str, KeyspaceRoute]:
        """The ready ones, by id."""
        ready = [keyspace for keyspace in keyspaces if keyspace.state is Life.READY]
        shards: dict[str, list[ShardRoute]] = {}
        for shard in self._tx.keyspaces.shards_of([keyspace.id for keyspace in ready]):
            if shard.primary_server_id is None:
                continue
            replicas = [self._endpoint(server_id) for server_id in shard.replica_server_ids]
            primary = self._endpoint(shard.primary_server_id)
            if primary is not None:
                shards.setdefault(shard.keyspace_id, []).append(
                    ShardRoute(
                        shard.name, shard.schema_name, primary, tuple(r for r in replicas if r is not None)
                    )
                )
        # A keyspace of which a shard is missing would answer with a part of its rows: it is left out.
        return {
            k.id: KeyspaceRoute(k.name, k.sharded, k.vschema, tuple(shards[k.id]))
            for k in ready
            if len(shards.get(k.id, [])) == k.shard_count
        }

    def _endpoint(self, server_id: str) -> Endpoint | None:
        if server_id not in self._asked:
            try:
                self._asked[server_id] = self._ask(server_id)
            except NotFoundError:
                _log.warning("server %s is placed but the engine does not know it", server_id)
                self._asked[server_id] = None
        return self._asked[server_id]

    def _passwords(self, branch_ids: Sequence[str]) -> Mapping[str, list[Account]]:
        table = resources.passwords
        rows = self._tx.work.connection.execute(
            select(table).where(table.c.branch_id.in_(branch_ids), table.c.deleted_at.is_(None))
        )
        found: dict[str, list[Account]] = {}
        for row in rows:
            account = Account(
                username=row.username,
                branch_id=row.branch_id,
                role=BackendRole(row.role),
                sha1_twice=row.sha1_twice,
                sha256_twice=row.sha256_twice,
                cidrs=tuple(row.cidrs),
                expires_at=row.expires_at,
                replica=row.replica,
            )
            found.setdefault(row.branch_id, []).append(account)
        return found
