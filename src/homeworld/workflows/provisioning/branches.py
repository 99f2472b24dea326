"""Branches and databases: ready when what belongs to them is, gone when all of it is gone.

Invariant: a branch's servers end only after its keyspaces and its cluster are gone and no gateway is told of
it.
"""

from __future__ import annotations

from dataclasses import dataclass

from homeworld.model.states.lifecycle import Life, LifeTrigger, life_row
from homeworld.store.branches import Branch
from homeworld.store.databases import Database
from homeworld.workflows.leases import Lease
from homeworld.workflows.provisioning.following import settled
from homeworld.workflows.provisioning.keyspaces import end_server
from homeworld.workflows.provisioning.ports import Ports
from homeworld.workflows.provisioning.runner import NotYetError, Runner
from homeworld.workflows.steps import Plan, Rest, Step


@dataclass(slots=True)
class BranchContext:
    """One branch under its lease."""

    ports: Ports
    lease: Lease
    branch: Branch


@dataclass(slots=True)
class DatabaseContext:
    """One database under its lease."""

    ports: Ports
    lease: Lease
    database: Database


class Branches:
    """The handler of branches."""

    kind = "branch"

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._runner = Runner(ports.store, self._tell)

    def tick(self, resource_id: str, lease: Lease) -> Rest | None:
        """One step of making or unmaking.

        :raises FencedError: the lease is lost.
        """
        with self._ports.store.read() as tx:
            branch = tx.branches.get(resource_id)
        plan = {Life.PENDING: MAKE_BRANCH, Life.DELETING: UNMAKE_BRANCH}.get(branch.state)
        if plan is None:
            return Rest(1.0, keep=False)
        return self._runner.act(plan, BranchContext(self._ports, lease, branch), resource_id, lease)

    def lost(self, resource_id: str) -> None:
        """Nothing of a branch runs in this process."""

    def loosen(self, resource_id: str) -> None:
        """Nobody waits for what is done here."""

    def let_go(self, resource_id: str) -> None:
        """Forget its failures."""
        self._runner.forget(resource_id)

    def _tell(self, resource_id: str, error: str) -> None:
        with self._ports.store.write() as tx:
            if tx.branches.get(resource_id).error != error:
                tx.branches.update(resource_id, error=error)


class Databases:
    """The handler of databases."""

    kind = "database"

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._runner = Runner(ports.store, self._tell)

    def tick(self, resource_id: str, lease: Lease) -> Rest | None:
        """One step of making or unmaking.

        :raises FencedError: the lease is lost.
        """
        with self._ports.store.read() as tx:
            database = tx.databases.get(resource_id)
        plan = {Life.PENDING: MAKE_DATABASE, Life.DELETING: UNMAKE_DATABASE}.get(database.state)
        if plan is None:
            return Rest(1.0, keep=False)
        return self._runner.act(plan, DatabaseContext(self._ports, lease, database), resource_id, lease)

    def lost(self, resource_id: str) -> None:
        """Nothing of a database runs in this process."""

    def loosen(self, resource_id: str) -> None:
        """Nobody waits for what is done here."""

    def let_go(self, resource_id: str) -> None:
        """Forget its failures."""
        self._runner.forget(resource_id)

    def _tell(self, resource_id: str, error: str) -> None:
        with self._ports.store.write() as tx:
            if tx.databases.get(resource_id).error != error:
                tx.databases.update(resource_id, error=error)


# -- branches ------------------------------------------------------------------------------------------------


def await_keyspaces(context: BranchContext) -> None:
    """Every keyspace of the branch is ready.

    :raises NotYetError: one is not.
    """
    with context.ports.store.read() as tx:
        keyspaces = tx.keyspaces.of_branch(context.branch.id)
    waiting = [keyspace for keyspace in keyspaces if keyspace.state is not Life.READY]
    if waiting or not keyspaces:
        error = next((f"keyspace {k.name}: {k.error}" for k in waiting if k.error), "")
        if error != context.branch.error:
            with context.ports.store.write() as tx:
                context.lease.require(tx)
                tx.branches.update(context.branch.id, error=error)
        raise NotYetError


def become_ready(context: BranchContext) -> None:
    """From now on the branch is served."""
    with context.ports.store.write() as tx:
        context.lease.require(tx)
        if tx.branches.get(context.branch.id).state is Life.PENDING:
            row = life_row(Life.PENDING, LifeTrigger.MADE)
            tx.branches.transition(context.branch.id, Life.PENDING, row, error="")
    context.ports.publish()


def publish(context: BranchContext) -> None:
    """No gateway serves it any more."""
    context.ports.publish()


def await_end_of_keyspaces(context: BranchContext) -> None:
    """Every keyspace of the branch is gone.

    :raises NotYetError: one is not.
    """
    with context.ports.store.read() as tx:
        if tx.keyspaces.undead(context.branch.id):
            raise NotYetError


def await_end_of_cluster(context: BranchContext) -> None:
    """No process of the branch's cluster is left, if it ever had one.

    :raises NotYetError: one may be.
    """
    settled(context.ports.store, context.branch.id)


def end_servers(context: BranchContext) -> None:
    """Destroy the branch's servers, replicas first."""
    with context.ports.store.read() as tx:
        servers = tx.servers.of_branch(context.branch.id)
    for server in sorted(servers, key=lambda server: server.replica_of is None):
        end_server(context.ports, context.lease, server)


def be_gone(context: BranchContext) -> None:
    """It is over."""
    with context.ports.store.write() as tx:
        context.lease.require(tx)
        if tx.branches.get(context.branch.id).state is Life.DELETING:
            row = life_row(Life.DELETING, LifeTrigger.GONE)
            tx.branches.transition(context.branch.id, Life.DELETING, row, error="")


MAKE_BRANCH: Plan[BranchContext] = Plan(
    "make",
    (
        Step("await keyspaces", await_keyspaces),
        Step("become ready", become_ready),
    ),
    forward_only=True,
)
UNMAKE_BRANCH: Plan[BranchContext] = Plan(
    "unmake",
    (
        Step("publish", publish),
        Step("await the end of keyspaces", await_end_of_keyspaces),
        Step("await the end of the cluster", await_end_of_cluster),
        Step("end servers", end_servers),
        Step("be gone", be_gone),
    ),
    forward_only=True,
)


# -- databases -----------------------------------------------------------------------------------------------


def database_ready(context: DatabaseContext) -> None:
    """Ready when the default branch is.

    :raises NotYetError: it is not.
    """
    with context.ports.store.write() as tx:
        context.lease.require(tx)
        branch = tx.branches.default(context.database.id)
        if branch.error != context.database.error:
            tx.databases.update(context.database.id, error=branch.error)
        if branch.state is Life.READY and tx.databases.get(context.database.id).state is Life.PENDING:
            row = life_row(Life.PENDING, LifeTrigger.MADE)
            tx.databases.transition(context.database.id, Life.PENDING, row, error="")
    if branch.state is not Life.READY:
        raise NotYetError


def database_gone(context: DatabaseContext) -> None:
    """Gone when all branches are.

    :raises NotYetError: one is not.
    """
    with context.ports.store.write() as tx:
        context.lease.require(tx)
        gone = not tx.branches.undead(context.database.id)
        if gone and tx.databases.get(context.database.id).state is Life.DELETING:
            row = life_row(Life.DELETING, LifeTrigger.GONE)
            tx.databases.transition(context.database.id, Life.DELETING, row, error="")
    if not gone:
        raise NotYetError


MAKE_DATABASE: Plan[DatabaseContext] = Plan(
    "make", (Step("become ready", database_ready),), forward_only=True
)
UNMAKE_DATABASE: Plan[DatabaseContext] = Plan("unmake", (Step("be gone", database_gone),), forward_only=True)
