"""Keyspaces: where their shards go, their servers and schemas, and how all of it ends.

Invariants: a server or a place is written into the store before it is made, so that a death never leaves a
server that nobody knows of; a schema is dropped only when no gateway is told of it any more, and no cluster
has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from homeworld.model.engines import CAPABILITIES
from homeworld.model.errors import NotFoundError
from homeworld.model.sizes import ClusterSize, given, largest
from homeworld.model.states.lifecycle import Life, LifeTrigger, life_row
from homeworld.model.states.resizing import Resize
from homeworld.model.topology import BackendRole, ShardPlace
from homeworld.store.branches import Branch, Server
from homeworld.store.keyspaces import Keyspace, Shard
from homeworld.store.store import Transaction
from homeworld.workflows.leases import Lease
from homeworld.workflows.provisioning.copying import copy_definitions
from homeworld.workflows.provisioning.following import settled
from homeworld.workflows.provisioning.ports import Placement, Ports
from homeworld.workflows.provisioning.runner import NotYetError, Runner
from homeworld.workflows.steps import Plan, Rest, Step


@dataclass(slots=True)
class Context:
    """One keyspace under its lease."""

    ports: Ports
    lease: Lease
    keyspace: Keyspace
    branch: Branch

    def shards(self) -> tuple[Shard, ...]:
        """The shards as they are placed now."""
        with self.ports.store.read() as tx:
            return tx.keyspaces.shards(self.keyspace.id)

    def placement(self, tx: Transaction) -> Placement:
        """How the keyspace's shards are spread, as far as the database's engine leaves a choice."""
        database = tx.databases.get(self.branch.database_id)
        shared = CAPABILITIES[database.engine].shards_share_servers
        return self.ports.placement if shared else Placement.DEDICATED


class Keyspaces:
    """The handler of keyspaces."""

    kind = "keyspace"

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._runner = Runner(ports.store, self._tell)

    def tick(self, resource_id: str, lease: Lease) -> Rest | None:
        """One step of making or unmaking.

        :raises FencedError: the lease is lost.
        """
        with self._ports.store.read() as tx:
            keyspace = tx.keyspaces.get(resource_id)
            branch = tx.branches.get(keyspace.branch_id)
        context = Context(self._ports, lease, keyspace, branch)
        plan = {Life.PENDING: MAKE, Life.DELETING: UNMAKE}.get(keyspace.state)
        if plan is None:
            return Rest(1.0, keep=False)
        return self._runner.act(plan, context, resource_id, lease)

    def lost(self, resource_id: str) -> None:
        """Nothing of a keyspace runs in this process."""

    def loosen(self, resource_id: str) -> None:
        """Nobody waits for what is done here."""

    def let_go(self, resource_id: str) -> None:
        """Forget its failures."""
        self._runner.forget(resource_id)

    def _tell(self, resource_id: str, error: str) -> None:
        with self._ports.store.write() as tx:
            if tx.keyspaces.get(resource_id).error != error:
                tx.keyspaces.update(resource_id, error=error)


# -- making --------------------------------------------------------------------------------------------------


def choose_places(context: Context) -> None:
    """Decide which servers hold the shards; servers that have to be made are noted as pending."""
    keyspace, branch = context.keyspace, context.branch
    with context.ports.store.write() as tx:
        context.lease.require(tx)
        database = tx.databases.get(branch.database_id)
        # Read once: a keyspace may have hundreds of shards, and no other writer is at work meanwhile.
        there = [s for s in tx.servers.of_branch(branch.id) if s.state in (Life.PENDING, Life.READY)]
        shared = next((server for server in there if server.replica_of is None), None)
        replicas: dict[str, list[Server]] = {}
        for server in there:
            replicas.setdefault(server.replica_of or "", []).append(server)
        chosen: dict[str, tuple[str, list[str]]] = {}
        for shard in tx.keyspaces.shards(keyspace.id):
            if shard.primary_server_id is not None:
                continue
            if context.placement(tx) is Placement.DEDICATED:
                primary = tx.servers.create(branch.id, database.flavor)
            else:
                shared = primary = shared or tx.servers.create(branch.id, database.flavor)
            beside = replicas.setdefault(primary.id, [])
            for _ in range(keyspace.replicas - len(beside)):
                beside.append(tx.servers.create(branch.id, database.flavor, replica_of=primary.id))
            chosen[shard.id] = primary.id, [server.id for server in beside if not server.barred]
        tx.keyspaces.place_all(keyspace.id, chosen)


def make_servers(context: Context) -> None:
    """Bring up every server that the shards stand on, primaries first."""
    sizes = _sizes(context)
    for server in _servers_of(context):
        if server.state is Life.READY:
            continue
        context.lease.check()
        size = given(sizes.get(server.replica_of or server.id), context.ports.engine.host())
        context.ports.engine.create_server(server.id, replica_of=server.replica_of, size=size)
        with context.ports.store.write() as tx:
            context.lease.require(tx)
            if tx.servers.get(server.id).state is Life.PENDING:
                tx.servers.transition(server.id, Life.PENDING, life_row(Life.PENDING, LifeTrigger.MADE))


def _sizes(context: Context) -> dict[str, ClusterSize | None]:
    """What each of the branch's primaries and its replicas are to be, for all keyspaces that stand there."""
    with context.ports.store.read() as tx:
        keyspaces = {keyspace.id: keyspace for keyspace in tx.keyspaces.undead(context.branch.id)}
        shards = tx.keyspaces.shards_of(list(keyspaces))
    asked: dict[str, set[str]] = {}
    for shard in shards:
        if shard.primary_server_id is not None:
            asked.setdefault(shard.primary_server_id, set()).add(keyspaces[shard.keyspace_id].cluster_size)
    return {primary_id: largest(names) for primary_id, names in asked.items()}


def size_servers(context: Context) -> None:
    """Servers that were there before grow with a larger keyspace, as far as they can while they run; what is
    left comes with their next start.
    """
    sizes = _sizes(context)
    for server in _servers_of(context):
        size = sizes.get(server.replica_of or server.id)
        if size is not None:
            context.ports.engine.resize_server(server.id, given(size, context.ports.engine.host()))


def _servers_of(context: Context) -> list[Server]:
    ids: dict[str, None] = {}
    for shard in context.shards():
        ids.update(dict.fromkeys([shard.primary_server_id or "", *shard.replica_server_ids]))
    with context.ports.store.read() as tx:
        found = tx.servers.by_ids(ids)
    servers = [found[server_id] for server_id in ids if server_id]
    return sorted(servers, key=lambda server: server.replica_of is not None)


def servers_run(context: Context) -> str:
    """Whether every server accepts."""
    down = [s.id for s in _servers_of(context) if not context.ports.engine.status(s.id).accepting]
    return f"not accepting: {', '.join(down)}" if down else ""


def make_schemas(context: Context) -> None:
    """Make each shard's schema on its primary."""
    for shard in context.shards():
        context.ports.engine.create_schema(shard.primary_server_id or "", shard.schema_name)


def copy_from_parent(context: Context) -> None:
    """A keyspace that came with its branch has the parent's tables and views, without rows."""
    keyspace, branch = context.keyspace, context.branch
    if branch.parent_branch_id is None or keyspace.created_at != branch.created_at:
        return
    with context.ports.store.read() as tx:
        try:
            parent = tx.keyspaces.by_name(branch.parent_branch_id, keyspace.name)
        except NotFoundError:
            return
        theirs = tx.keyspaces.shards(parent.id)
    if parent.state is not Life.READY:
        raise NotYetError(f"keyspace {parent.name} of the parent branch is not ready")
    sources, targets = (
        places(context.ports, parent, theirs),
        places(context.ports, keyspace, context.shards()),
    )
    for source, target in zip(sources, targets, strict=True):
        context.lease.check()
        copy_definitions(source, target, parent.vschema)


def places(ports: Ports, keyspace: Keyspace, shards: Sequence[Shard]) -> list[ShardPlace]:
    """Each shard as the servers' owner sees it."""
    return [
        ShardPlace(
            keyspace.name,
            shard.name,
            shard.schema_name,
            ports.engine.endpoint(shard.primary_server_id or "", BackendRole.OWNER),
        )
        for shard in shards
    ]


def join_cluster(context: Context) -> None:
    """Where the branch has a cluster, that has the keyspace before anybody is told of it.

    :raises NotYetError: it has it not yet.
    """
    with context.ports.store.read() as tx:
        if not tx.followings.serves(context.branch.id):
            return
        joined = context.keyspace.id in tx.followings.get(context.branch.id).joining
    if not joined:
        with context.ports.store.write() as tx:
            context.lease.require(tx)
            tx.followings.join(context.branch.id, context.keyspace.id)
    settled(context.ports.store, context.branch.id)


def become_ready(context: Context) -> None:
    """From now on the keyspace is served."""
    with context.ports.store.write() as tx:
        context.lease.require(tx)
        if tx.keyspaces.get(context.keyspace.id).state is Life.PENDING:
            row = life_row(Life.PENDING, LifeTrigger.MADE)
            tx.keyspaces.transition(context.keyspace.id, Life.PENDING, row, error="")
    context.ports.publish()


MAKE: Plan[Context] = Plan(
    "make",
    (
        Step("choose places", choose_places),
        Step("make servers", make_servers, verify=servers_run),
        Step("size servers", size_servers),
        Step("make schemas", make_schemas),
        Step("copy from the parent", copy_from_parent),
        Step("join the cluster", join_cluster),
        Step("become ready", become_ready),
    ),
    forward_only=True,
)


# -- unmaking ------------------------------------------------------------------------------------------------


def publish(context: Context) -> None:
    """No gateway serves it any more."""
    context.ports.publish()


def await_resizes(context: Context) -> None:
    """No resize of the keyspace is at work on its servers.

    :raises NotYetError: one is.
    """
    with context.ports.store.read() as tx:
        unfinished = tx.resizes.unfinished([context.keyspace.id]).get(context.keyspace.id, ())
    if any(resize.state is Resize.RESIZING for resize in unfinished):
        raise NotYetError("a resize of the keyspace is at work on its servers")


def leave_cluster(context: Context) -> None:
    """No cluster has the keyspace any more.

    :raises NotYetError: one has.
    """
    with context.ports.store.read() as tx:
        serves = tx.followings.serves(context.branch.id)
    if serves:
        settled(context.ports.store, context.branch.id)


def drop_schemas(context: Context) -> None:
    """Drop each shard's schema, unless its server goes as a whole."""
    for shard in context.shards():
        if shard.primary_server_id is None:
            continue
        with context.ports.store.read() as tx:
            server = tx.servers.get(shard.primary_server_id)
            alone = context.placement(tx) is Placement.DEDICATED and not _others(tx, context, server)
        if server.state is Life.READY and context.branch.state is not Life.DELETING and not alone:
            context.ports.engine.drop_schema(
                server.id, shard.schema_name, lambda: context.lease.confirm(context.ports.store)
            )


def _others(tx: Transaction, context: Context, server: Server) -> bool:
    """Whether another keyspace stands on the server."""
    return tx.keyspaces.stands_on(server.id, context.keyspace.id)


def end_servers(context: Context) -> None:
    """Servers of its own end with the keyspace, replicas first."""
    with context.ports.store.read() as tx:
        if context.placement(tx) is not Placement.DEDICATED:
            return
    for server in (*_barred(context), *reversed(_servers_of(context))):
        with context.ports.store.read() as tx:
            primary = tx.servers.get(server.replica_of) if server.replica_of else server
            if _others(tx, context, primary):
                continue
        end_server(context.ports, context.lease, server)


def _barred(context: Context) -> list[Server]:
    """Servers that no shard names, behind the keyspace's primaries."""
    primaries = {shard.primary_server_id for shard in context.shards()}
    with context.ports.store.read() as tx:
        servers = tx.servers.of_branch(context.branch.id)
    return [server for server in servers if server.barred and server.replica_of in primaries]


def end_server(ports: Ports, lease: Lease, server: Server) -> None:
    """Destroy a server and say so."""
    if server.state in (Life.PENDING, Life.READY):
        with ports.store.write() as tx:
            lease.require(tx)
            server = tx.servers.transition(
                server.id, server.state, life_row(server.state, LifeTrigger.DELETE)
            )
    if server.state is Life.DELETING:
        lease.check()
        ports.engine.destroy_server(server.id)
        with ports.store.write() as tx:
            lease.require(tx)
            tx.servers.transition(server.id, Life.DELETING, life_row(Life.DELETING, LifeTrigger.GONE))


def be_gone(context: Context) -> None:
    """It is over; its places are free."""
    with context.ports.store.write() as tx:
        context.lease.require(tx)
        if tx.keyspaces.get(context.keyspace.id).state is Life.DELETING:
            row = life_row(Life.DELETING, LifeTrigger.GONE)
            tx.keyspaces.transition(context.keyspace.id, Life.DELETING, row, error="")


UNMAKE: Plan[Context] = Plan(
    "unmake",
    (
        Step("publish", publish),
        Step("await resizes", await_resizes),
        Step("leave the cluster", leave_cluster),
        Step("drop schemas", drop_schemas),
        Step("end servers", end_servers),
        Step("be gone", be_gone),
    ),
    forward_only=True,
)
