"""Resizes of keyspaces, server by server: replicas first, then the primary.

Theory of operation. What a server takes while it runs is set at once; for the rest it is restarted while the
gateways hold every statement that would go to it, so that clients wait and none fails. Each step begins from
what the store and the servers say, so it may be repeated after any death.

Invariants: of a branch one resize is under way; a replica is served only once it has caught up, and ended
only once no gateway serves it; a server's size is on disk before it is in force.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from homeworld.model.errors import ConflictError, UnavailableError
from homeworld.model.names import new_id
from homeworld.model.ports import Gateways
from homeworld.model.routing import EVERY_TABLE, HoldRequest
from homeworld.model.sizes import ServerSize, given
from homeworld.model.states.lifecycle import Life, LifeTrigger, life_row
from homeworld.model.states.move_tables import MOVING_TRAFFIC
from homeworld.model.states.resizing import Resize, ResizeTrigger, resize_row
from homeworld.model.topology import TabletType
from homeworld.store.branches import Server
from homeworld.store.keyspaces import Keyspace, Shard
from homeworld.store.maintenance import Window
from homeworld.store.resizes import FIRST_STEP, KeyspaceResize
from homeworld.store.store import Transaction
from homeworld.workflows.clusters.following import await_serving
from homeworld.workflows.leases import Lease
from homeworld.workflows.provisioning.following import settled
from homeworld.workflows.provisioning.keyspaces import end_server
from homeworld.workflows.provisioning.ports import Ports
from homeworld.workflows.provisioning.runner import WAIT_SECONDS, NotYetError, Runner
from homeworld.workflows.resizing.servers import Layout
from homeworld.workflows.steps import Plan, Rest, Step

DRAIN_SECONDS = 5.0
HOLD_SECONDS = 40.0
"""Longer than a server's orderly end and its start take; and no longer than clients should wait for a worker
that died in between, whose hold nobody else can let go.
"""
CATCH_UP_SECONDS = 60.0
WINDOW_SECONDS = 1.0
_WAITS = "waits for the open maintenance window, which ends at {} or once all is done"


@dataclass(slots=True)
class Context:
    """One resize under its lease."""

    ports: Ports
    gateways: Gateways
    lease: Lease
    resize: KeyspaceResize
    keyspace: Keyspace

    def layout(self) -> Layout:
        """The branch as it stands, with the keyspace as it is to be."""
        with self.ports.store.read() as tx:
            return read_layout(tx, self.resize.branch_id).after(self.resize)


def read_layout(tx: Transaction, branch_id: str) -> Layout:
    """A branch's keyspaces, shards and servers."""
    keyspaces = tx.keyspaces.undead(branch_id)
    shards = tx.keyspaces.shards_of([keyspace.id for keyspace in keyspaces])
    return Layout(keyspaces, shards, tx.servers.of_branch(branch_id))


def _moving(tx: Transaction, branch_id: str) -> bool:
    """Whether primaries or traffic of the branch are being moved: a resize waits for that."""
    workflow = tx.workflows.active_on([branch_id]).get(branch_id)
    traffic = workflow is not None and workflow.state in MOVING_TRAFFIC
    return traffic or bool(tx.reparents.unfinished([branch_id]))


def _open_window(tx: Transaction, branch_id: str) -> Window | None:
    """The open maintenance window of the branch's database: it restarts and promotes servers one by one."""
    return tx.maintenance.open_one(tx.branches.get(branch_id).database_id)


class KeyspaceResizes:
    """The handler of keyspaces' resizes."""

    kind = "resize"

    def __init__(self, ports: Ports, gateways: Gateways) -> None:
        self._ports = ports
        self._gateways = gateways
        self._runner = Runner(ports.store, self._tell)

    def tick(self, resource_id: str, lease: Lease) -> Rest | None:
        """One step.

        :raises FencedError: the lease is lost.
        """
        with self._ports.store.read() as tx:
            resize = tx.resizes.get(resource_id)
            keyspace = tx.keyspaces.get(resize.keyspace_id)
        if resize.state in (Resize.COMPLETED, Resize.CANCELED):
            return Rest(1.0, keep=False)
        context = Context(self._ports, self._gateways, lease, resize, keyspace)
        if keyspace.deleted_at is not None or resize.giving_up:
            if resize.state is Resize.RESIZING:
                end_leftovers(context)
            return self._take(resize, ResizeTrigger.GONE, lease)
        if resize.state is not Resize.RESIZING:
            return self._forward(resize, lease)
        return self._runner.act(RESIZE, context, resource_id, lease)

    def _forward(self, resize: KeyspaceResize, lease: Lease) -> Rest | None:
        """Let a resize that waits come nearer, if it is its turn."""
        with self._ports.store.read() as tx:
            keyspace = tx.keyspaces.get(resize.keyspace_id)
            ahead = tx.resizes.ahead(resize.branch_id, resize)
            moving = _moving(tx, resize.branch_id)
            window = _open_window(tx, resize.branch_id)
        if ahead or keyspace.state is not Life.READY:
            return Rest(WAIT_SECONDS, keep=False)
        if resize.state is Resize.QUEUED:
            return self._take(resize, ResizeTrigger.ADMIT, lease)
        if moving:
            return Rest(WAIT_SECONDS, keep=False)
        if window is not None:
            self._tell(resize.id, _WAITS.format(window.ends_at.isoformat(timespec="seconds")))
            return Rest(WINDOW_SECONDS)
        return self._take(resize, ResizeTrigger.BEGIN, lease)

    def _take(self, resize: KeyspaceResize, trigger: ResizeTrigger, lease: Lease) -> Rest | None:
        row = resize_row(resize.state, trigger)
        try:
            with self._ports.store.write() as tx:
                lease.require(tx)
                begins = trigger is ResizeTrigger.BEGIN
                if begins and (_moving(tx, resize.branch_id) or _open_window(tx, resize.branch_id)):
                    return Rest(WAIT_SECONDS, keep=False)  # that has begun just now
                error = "" if trigger is ResizeTrigger.BEGIN else resize.error
                tx.resizes.transition(resize.id, resize.state, row, error=error)
                if trigger is ResizeTrigger.BEGIN:
                    for shard in tx.keyspaces.shards(resize.keyspace_id):
                        tx.resizes.roll_out(shard.id, "pending")
        except ConflictError:
            return Rest(WAIT_SECONDS, keep=False)  # it was taken back, or another one has begun
        return None if row.to in (Resize.PENDING, Resize.RESIZING) else Rest(1.0, keep=False)

    def lost(self, resource_id: str) -> None:
        """Nothing of a resize runs in this process."""

    def loosen(self, resource_id: str) -> None:
        """What a step holds it lets go of itself."""

    def let_go(self, resource_id: str) -> None:
        """Forget its failures."""
        self._runner.forget(resource_id)

    def _tell(self, resource_id: str, error: str) -> None:
        with self._ports.store.write() as tx:
            tx.resizes.tell(resource_id, error)


# -- replicas ------------------------------------------------------------------------------------------------


def make_replicas(context: Context) -> None:
    """Make what is missing, and wait until it has caught up."""
    for primary_id in context.layout().primaries_of(context.keyspace.id):
        with context.ports.store.write() as tx:
            context.lease.require(tx)
            layout = read_layout(tx, context.resize.branch_id).after(context.resize)
            primary = tx.servers.get(primary_id)
            for _ in range(layout.missing(primary_id)):
                tx.servers.create(primary.branch_id, primary.flavor, replica_of=primary_id)
        for server in context.layout().replicas_of(primary_id):
            if server.state is not Life.PENDING:
                continue
            context.lease.check()
            size = _wanted(context, context.layout(), primary_id)
            context.ports.engine.create_server(server.id, replica_of=primary_id, size=size)
            context.ports.engine.wait_replica(server.id, CATCH_UP_SECONDS)
            with context.ports.store.write() as tx:
                context.lease.require(tx)
                if tx.servers.get(server.id).state is Life.PENDING:
                    tx.servers.transition(server.id, Life.PENDING, life_row(Life.PENDING, LifeTrigger.MADE))


def serve_replicas(context: Context) -> None:
    """From now on gateways read from the replicas that were made."""
    with context.ports.store.write() as tx:
        context.lease.require(tx)
        if tx.resizes.get(context.resize.id).giving_up:
            raise NotYetError("it was given up")
        layout = read_layout(tx, context.resize.branch_id).after(context.resize)
        for shard in layout.shards_of(context.keyspace.id):
            _place(tx, shard, layout)
    context.ports.publish()


def _place(tx: Transaction, shard: Shard, layout: Layout) -> None:
    """Have the shard served by every ready replica of its primary."""
    if shard.primary_server_id is None:
        return
    ready = [
        server.id
        for server in layout.replicas_of(shard.primary_server_id)
        if server.state is Life.READY and not server.barred
    ]
    if ready != list(shard.replica_server_ids):
        tx.keyspaces.place(shard.id, shard.primary_server_id, ready)


def leave_replicas(context: Context) -> None:
    """No gateway reads from the replicas that nobody wants any more, and nothing is under way there."""
    with context.ports.store.read() as tx:
        layout = read_layout(tx, context.resize.branch_id).after(context.resize)
    primaries = [p for p in layout.primaries_of(context.keyspace.id) if layout.leaving(p)]
    if not primaries:
        return
    with hold(context, layout, primaries, frozenset({TabletType.REPLICA, TabletType.RDONLY})):
        with context.ports.store.write() as tx:
            context.lease.require(tx)
            # Anew: a server may have been replaced, let in or taken by another keyspace meanwhile.
            layout = read_layout(tx, context.resize.branch_id).after(context.resize)
            if [p for p in layout.primaries_of(context.keyspace.id) if layout.leaving(p)] != primaries:
                raise NotYetError("a shard has another primary by now")
            doomed = {server.id for primary_id in primaries for server in layout.leaving(primary_id)}
            for shard in layout.shards:
                kept = [each for each in shard.replica_server_ids if each not in doomed]
                if shard.primary_server_id is not None and len(kept) < len(shard.replica_server_ids):
                    tx.keyspaces.place(shard.id, shard.primary_server_id, kept)
            # Nobody takes them for theirs from here on.
            for server_id in doomed:
                server = tx.servers.get(server_id)
                if server.state is not Life.DELETING:
                    row = life_row(server.state, LifeTrigger.DELETE)
                    tx.servers.transition(server_id, server.state, row)
        context.ports.publish()


def end_replicas(context: Context) -> None:
    """Destroy the replicas that no gateway and no cluster serves any more.

    :raises NotYetError: the branch's cluster has them yet.
    """
    with context.ports.store.read() as tx:
        serves = tx.followings.serves(context.resize.branch_id)
    if serves:
        settled(context.ports.store, context.resize.branch_id)
    primaries = set(context.layout().primaries_of(context.keyspace.id))
    with context.ports.store.read() as tx:
        servers = tx.servers.of_branch(context.resize.branch_id)
    for server in servers:
        if server.state is Life.DELETING and server.replica_of in primaries:
            end_server(context.ports, context.lease, server)


def end_leftovers(context: Context) -> None:
    """The keyspace was asked away meanwhile, or the resize: what was made for it and serves nobody goes."""
    layout = context.layout()
    placed = {server_id for shard in layout.shards for server_id in shard.replica_server_ids}
    primaries = set(layout.primaries_of(context.keyspace.id))
    for server in layout.servers:
        # One that is barred may have rows that nobody else has: it is not ours to end.
        unused = server.id not in placed and not server.barred
        if server.replica_of in primaries and (server.state is Life.DELETING or unused):
            end_server(context.ports, context.lease, server)


# -- sizes ---------------------------------------------------------------------------------------------------


def size_servers(context: Context) -> None:
    """Give each shard's servers their size, one at a time, the primary last.

    :raises NotYetError: a workflow of the branch moves traffic right now.
    """
    for shard in context.layout().shards_of(context.keyspace.id):
        if shard.primary_server_id is None:
            continue
        _roll_out(context, shard, "in_progress")
        layout = context.layout()
        for server in (*layout.replicas_of(shard.primary_server_id), _server(layout, shard)):
            context.lease.check()
            # Anew for each: another may have been promoted meanwhile.
            now = context.layout()
            known = next((one for one in now.servers if one.id == server.id), None)
            if known is not None and known.state is Life.READY and not known.barred:
                size = _wanted(context, now, known.replica_of or known.id)
                _size_server(context, now, known, size)
        _roll_out(context, shard, "complete")


def _server(layout: Layout, shard: Shard) -> Server:
    return next(server for server in layout.servers if server.id == shard.primary_server_id)


def _wanted(context: Context, layout: Layout, primary_id: str) -> ServerSize | None:
    return given(layout.size_of(primary_id), context.ports.engine.host())


def _roll_out(context: Context, shard: Shard, state: str) -> None:
    with context.ports.store.write() as tx:
        context.lease.require(tx)
        known = tx.resizes.rollouts([shard.id]).get(shard.id)
        if known is None or known.state not in (state, "complete"):
            tx.resizes.roll_out(shard.id, state)


def _size_server(context: Context, layout: Layout, server: Server, size: ServerSize | None) -> None:
    if context.ports.engine.resize_server(server.id, size):
        return
    with context.ports.store.read() as tx:
        workflow = tx.workflows.active_on([server.branch_id]).get(server.branch_id)
    if workflow is not None and workflow.state in MOVING_TRAFFIC:
        raise NotYetError(f"workflow {workflow.number} moves traffic")
    primary_id = server.replica_of or server.id
    types = {TabletType.REPLICA, TabletType.RDONLY}
    if server.replica_of is None:
        # Without replicas a primary serves their readers, too.
        types = {TabletType.PRIMARY, *(() if layout.replicas_of(primary_id) else types)}
    with hold(context, layout, [primary_id], frozenset(types)):
        context.ports.engine.restart_server(server.id)
        await_serving(context.ports.store, server.branch_id, check=context.lease.check, anew=True)
    if not context.ports.engine.resize_server(server.id, size):
        raise UnavailableError(f"server {server.id} has not its size after its restart; its log says more")


@contextmanager
def hold(
    context: Context, layout: Layout, primaries: list[str], tablet_types: frozenset[TabletType]
) -> Generator[None]:
    """Keep clients' statements from the servers of these primaries; they wait, and go on when this is left.

    :raises DeadlineExceededError: transactions there did not end in time; nothing waits any more.
    """
    keyspaces = {keyspace.name for primary_id in primaries for keyspace in layout.on_primary(primary_id)}
    request = HoldRequest(
        hold_id=f"resize-{context.resize.id}-{new_id()}",
        branch_id=context.resize.branch_id,
        tables=frozenset((name, EVERY_TABLE) for name in keyspaces),
        tablet_types=tablet_types,
        drain_seconds=DRAIN_SECONDS,
        hold_seconds=HOLD_SECONDS,
    )
    context.gateways.hold(request)
    try:
        yield
    finally:
        context.gateways.release(request.hold_id)


def be_done(context: Context) -> None:
    """From now on the keyspace is told as it was asked to be."""
    with context.ports.store.write() as tx:
        context.lease.require(tx)
        resize = tx.resizes.get(context.resize.id)
        if resize.state is Resize.RESIZING:
            keyspace = tx.keyspaces.update(
                resize.keyspace_id,
                cluster_size=resize.cluster_size,
                replicas=resize.replicas,
                extra_replicas=resize.extra_replicas,
            )
            if keyspace.is_default:
                tx.branches.update(resize.branch_id, cluster_size=resize.cluster_size)
            row = resize_row(Resize.RESIZING, ResizeTrigger.DONE)
            tx.resizes.transition(resize.id, Resize.RESIZING, row, error="")


RESIZE: Plan[Context] = Plan(
    "resize",
    (
        Step(FIRST_STEP, make_replicas),
        Step("serve replicas", serve_replicas),
        Step("size servers", size_servers),
        Step("leave replicas", leave_replicas),
        Step("end replicas", end_replicas),
        Step("be done", be_done),
    ),
    forward_only=True,
)
