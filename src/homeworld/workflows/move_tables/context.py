"""What steps work with: the ports, the workflow as stored, both sides, and this process's fleeting things.

Invariants: everything a step writes to the store is bound to the lease; what only lives in this process
(hold, locks, positions read under them) stands in :class:`Hand` and nowhere else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import cast

from homeworld.model import vschema as vschemas
from homeworld.model.clusters import ClusterMoves, ClusterStream, RuleSetter, SwitchedClusters
from homeworld.model.errors import HomeworldError, InvalidError, UnavailableError
from homeworld.model.movers import MoverSpec, Placement, ReplicaPlace, ThrottleLimits
from homeworld.model.ports import Engine, Gateways, Mover, Movers, MoveWish, SourceFence
from homeworld.model.routing_rules import TrafficPhase, rules_for
from homeworld.model.topology import BackendRole, Endpoint, ShardPlace
from homeworld.store.journal import StepStatus
from homeworld.store.keyspaces import Keyspace, Shard
from homeworld.store.store import Store, Transaction
from homeworld.store.workflows import Workflow
from homeworld.workflows.leases import Lease
from homeworld.workflows.move_tables.decide import FORWARD_STREAM, REVERSE_STREAM
from homeworld.workflows.move_tables.rules import baseline
from homeworld.workflows.move_tables.tools import Tools
from homeworld.workflows.move_tables.vitess_sequences import use_up
from homeworld.workflows.steps import Run

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VitessPorts:
    """What a workflow of a database on Vitess acts on besides.

    :param followed: called with a branch's id and a check; returns once the branch's cluster is what is
        stored, but for routing rules. The check is called while it waits, and raises where waiting is over.
    :param use_up: called with a vtgate and sequences, whose tablets then give no id that they had in hand.
    """

    clusters: SwitchedClusters
    moves: ClusterMoves
    followed: Callable[[str, Callable[[], None]], None]
    use_up: Callable[[Endpoint, Sequence[tuple[str, str]]], None] = use_up


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything outside that a workflow acts on.

    :param publish: reads the routes from the store and returns once every gateway serves them.
    :param tools: makes the tools of one workflow; it closes them.
    :param vitess: for a database on Vitess; None: on servers alone.
    """

    store: Store
    engine: Engine
    gateways: Gateways
    movers: Movers
    fence: SourceFence
    publish: Callable[[], None]
    tools: Callable[[], Tools]
    vitess: VitessPorts | None = None


@dataclass(slots=True)
class Hand:
    """What this process holds for a workflow; gone with the process.

    :param movers: the movers started here, by direction, until they are stopped.
    :param limits: what each direction's mover was told last of how to give way.
    :param servers: the primaries that each direction's mover works on.
    :param touched: fleeting steps of the open run that were begun here, and ``done`` those that are done.
    :param spent: seconds that each step which was performed here took, the newest time it was.
    :param broken: the hold was not unbroken from the origin's last write to the publication.
    :param attempts: how many holds were tried; each has an id of its own.
    :param look_seconds: how long the newest look at what uses the tables took.
    :param moved: where a switch is Vitess's: it has begun this run's before, or ended it, so nothing is asked
        any more that could hold it up.
    :param called: there: it was asked for the switch since it was last looked at.
    :param told: there: the rules that it has set by the switch, until they are written down.
    :param setter: on Vitess: sets its rules, once everything else is ready.
    :param streams: on Vitess: those of the way that traffic is about to take.
    :param switching: where a switch is Vitess's: it is moving writes at this moment, and the hold has to
        outlast that.
    :param held_until: monotonic time at which the gateways release the hold by themselves, at the earliest.
    :param finals: the quiet side's final positions, read under the locks.
    :param starts: where the opposite stream will start on the other side.
    :param stops: the newest ``finals``, kept after the locks are gone.
    """

    tools: Tools
    movers: dict[str, Mover] = field(default_factory=dict[str, Mover])
    limits: dict[str, ThrottleLimits] = field(default_factory=dict[str, ThrottleLimits])
    servers: dict[str, tuple[str | None, ...]] = field(default_factory=dict[str, tuple[str | None, ...]])
    touched: set[str] = field(default_factory=set[str])
    done: set[str] = field(default_factory=set[str])
    spent: dict[str, float] = field(default_factory=dict[str, float])
    locks: ExitStack = field(default_factory=ExitStack)
    hold_id: str = ""
    attempts: int = 0
    broken: bool = False
    moved: bool = False
    called: bool = False
    told: Mapping[str, str] | None = None
    setter: RuleSetter | None = None
    streams: tuple[ClusterStream, ...] = ()
    switching: bool = False
    look_seconds: float = 0.0
    held_until: float = 0.0
    finals: Mapping[str, str] = field(default_factory=dict[str, str])
    starts: Mapping[str, str] = field(default_factory=dict[str, str])
    stops: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def holding(self) -> bool:
        """Whether there is a hold or a lock to let go."""
        return bool(self.hold_id or self.finals)

    def remaining(self) -> float:
        """Seconds for which the hold surely lasts."""
        return self.held_until - time.monotonic()

    def unlock(self) -> None:
        """Let the source's locks go."""
        self.finals = {}
        locks, self.locks = self.locks, ExitStack()
        locks.close()

    def leave_rules(self) -> None:
        """Let others set rules in Vitess."""
        setter, self.setter = self.setter, None
        if setter is not None:
            setter.close()

    def drop(self, gateways: Gateways) -> None:
        """Let everything go, whatever fails: what cannot be let go now ends by its own deadline, or with its
        connection.
        """
        self.touched.clear()
        self.done.clear()
        self.broken = False
        hold_id, self.hold_id = self.hold_id, ""
        released = [lambda: gateways.release(hold_id)] if hold_id else []
        for act in (self.unlock, *released, self.leave_rules, self.tools.close):
            try:
                act()
            except HomeworldError as error:
                _log.warning("letting go: %s", error)
            except Exception:  # noqa: BLE001 - the rest has to go, too
                _log.exception("letting go")


@dataclass(frozen=True, slots=True)
class Side:
    """One keyspace of the move, with its shards in order of their key ranges."""

    keyspace: Keyspace
    shards: tuple[Shard, ...]

    @property
    def name(self) -> str:
        """The keyspace's name."""
        return self.keyspace.name

    @property
    def replicas(self) -> tuple[str, ...]:
        """The ids of all replica servers, each once."""
        return tuple(dict.fromkeys(server for shard in self.shards for server in shard.replica_server_ids))

    @property
    def vschema(self) -> vschemas.VSchema:
        """The keyspace's vschema."""
        return vschemas.parse(self.keyspace.vschema)

    def places(self, engine: Engine, role: BackendRole) -> tuple[ShardPlace, ...]:
        """Each shard's primary, reached as ``role``.

        :raises UnavailableError: a shard has no server.
        """
        places: list[ShardPlace] = []
        for shard in self.shards:
            if shard.primary_server_id is None:
                raise UnavailableError(f"shard {self.name}/{shard.name} has no server yet")
            endpoint = engine.endpoint(shard.primary_server_id, role)
            places.append(ShardPlace(self.name, shard.name, shard.schema_name, endpoint))
        return tuple(places)

    def replica_places(self, engine: Engine, role: BackendRole) -> tuple[ReplicaPlace, ...]:
        """Each replica server once, reached as ``role``."""
        found = {
            server: ReplicaPlace(shard.primary_server_id, engine.endpoint(server, role))
            for shard in self.shards
            if shard.primary_server_id is not None
            for server in shard.replica_server_ids
        }
        return tuple(found.values())


def placements(side: Side, tables: Sequence[str]) -> tuple[Placement, ...]:
    """How rows find their shard on ``side``.

    :raises InvalidError: a table has no primary vindex there.
    """
    if not side.keyspace.sharded:
        return tuple(Placement(table) for table in tables)
    vschema = side.vschema
    found: list[Placement] = []
    for table in tables:
        entry = vschema.tables.get(table)
        if entry is None or entry.primary is None:
            raise InvalidError(f"table {table} has no primary vindex in keyspace {side.name}")
        vindex = vschema.vindexes[entry.primary.name]
        found.append(Placement(table, vindex.type, entry.primary.columns, vindex.params))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Way:
    """A direction in which primary traffic is about to move.

    :param stream: the direction of the mover that has kept ``to`` current.
    """

    stream: str
    opposite: str
    origin: Side
    to: Side


class Context:
    """One workflow under one lease, for one step after another.

    :param run: the open run, None between runs.
    :param limits: how its movers give way.
    """

    def __init__(
        self, ports: Ports, lease: Lease, hand: Hand, workflow: Workflow, tables: tuple[str, ...],
        source: Side, target: Side, globals_: Side | None, run: Run | None,
        limits: ThrottleLimits,
    ) -> None:  # fmt: skip
        self.limits = limits
        self.ports = ports
        self.lease = lease
        self.hand = hand
        self.workflow = workflow
        self.tables = tables
        self.source = source
        self.target = target
        self.globals = globals_
        self.run = run

    @property
    def tools(self) -> Tools:
        """The tools on servers."""
        return self.hand.tools

    def way(self, stream: str) -> Way:
        """The way along ``stream``: forward from source to target, reverse back."""
        if stream == FORWARD_STREAM:
            return Way(FORWARD_STREAM, REVERSE_STREAM, self.source, self.target)
        return Way(REVERSE_STREAM, FORWARD_STREAM, self.target, self.source)

    def owner(self, side: Side) -> tuple[ShardPlace, ...]:
        """The side's shards as the servers' owner."""
        return side.places(self.ports.engine, BackendRole.OWNER)

    def keyspace(self, name: str) -> Side:
        """Another keyspace of the branch.

        :raises NotFoundError: there is none of that name.
        """
        with self.ports.store.read() as tx:
            keyspace = tx.keyspaces.by_name(self.workflow.branch_id, name)
            return Side(keyspace, tx.keyspaces.shards(keyspace.id))

    def wish(self) -> MoveWish:
        """The move, as preconditions take it."""
        workflow = self.workflow
        return MoveWish(
            workflow.branch_id,
            workflow.source_keyspace_id,
            workflow.target_keyspace_id,
            workflow.global_keyspace_id,
            self.tables,
            workflow.id,
        )

    # -- the store -------------------------------------------------------------------------------------------

    @contextmanager
    def write(self) -> Generator[Transaction]:
        """A transaction bound to the lease; afterwards ``workflow`` is as it is stored then.

        :raises FencedError: the lease is lost.
        """
        with self.ports.store.write() as tx:
            self.lease.require(tx)
            yield tx
            workflow = tx.workflows.get(self.workflow.id)
        self.workflow = workflow

    def confirm(self) -> None:
        """Go on only as the newest owner, as the store says now: before what no token of ours can refuse.

        :raises FencedError: the lease is lost, or somebody has a newer one.
        :raises UnavailableError: the store does not say.
        """
        self.lease.confirm(self.ports.store)

    @contextmanager
    def commit(self, step: str) -> Generator[Transaction]:
        """The transaction of the run's commit point, in which the journal learns that it happened."""
        with self.write() as tx:
            yield tx
            self.record(tx, step, StepStatus.DONE)

    def record(self, tx: Transaction, step: str, status: StepStatus, note: str = "") -> None:
        """Write where a step of the open run is, with what went wrong or else how long it took here."""
        if self.run is None:
            raise RuntimeError(f"step {step} outside a run")  # a fault of this program
        data: dict[str, object] | None = {"error": note} if note else None
        if status is StepStatus.DONE and step in self.hand.spent:
            data = {"seconds": round(self.hand.spent[step], 4)}
        tx.journal.record_step(self.workflow.id, self.run.key, step, status, data)

    def set_facts(self, tx: Transaction, **changes: object) -> None:
        """Change single facts beside the columns; None removes one."""
        facts = {**tx.workflows.get(self.workflow.id).facts, **changes}
        tx.workflows.update(self.workflow.id, facts={k: v for k, v in facts.items() if v is not None})

    def listed(self, fact: str) -> tuple[str, ...]:
        """A fact that is a list of names."""
        value = self.workflow.facts.get(fact, [])
        return tuple(str(name) for name in cast("list[object]", value))

    # -- routes ----------------------------------------------------------------------------------------------

    def rules(self, tx: Transaction, phase: TrafficPhase) -> dict[str, str]:
        """The branch's whole rules for a phase: this workflow's own, and all others as they stand now."""
        before = baseline(
            self.workflow.rules_before or {},
            tx.routes.rules(self.workflow.branch_id),
            self.tables,
            self.source.name,
            self.target.name,
        )
        return rules_for(phase, self.tables, self.source.name, self.target.name, before)

    def route(self, tx: Transaction, phase: TrafficPhase) -> None:
        """Store the rules of a phase."""
        tx.routes.replace_rules(self.workflow.branch_id, self.rules(tx, phase))

    def route_closed(self, tx: Transaction, phase: TrafficPhase) -> None:
        """Store the rules of a phase that moves primary traffic: nobody is served by them before this run has
        opened the tables.
        """
        tx.routes.move_rules(self.workflow.branch_id, self.rules(tx, phase), self.subject, self.both_sides)

    @property
    def both_sides(self) -> list[tuple[str, str]]:
        """The tables on both sides, as (keyspace, table)."""
        return [(side.name, table) for side in (self.source, self.target) for table in self.tables]

    @property
    def subject(self) -> str:
        """The open run's name among all runs, for gateways."""
        if self.run is None:
            raise RuntimeError("no run is open")  # a fault of this program
        return f"{self.workflow.id}-{self.run.number}"

    def edit_vschema(
        self, tx: Transaction, side: Side, edit: Callable[[vschemas.VSchema], vschemas.VSchema]
    ) -> None:
        """Change a keyspace's vschema as it stands now."""
        known = vschemas.parse(tx.keyspaces.get(side.keyspace.id).vschema)
        edited = edit(known)
        if edited != known:
            tx.keyspaces.update(side.keyspace.id, vschema=edited.render())

    # -- streams ---------------------------------------------------------------------------------------------

    def live_mover(self, stream: str) -> Mover | None:
        """The mover of a direction that this process started; one that ended by itself can still say why."""
        return self.hand.movers.get(stream) or self.ports.movers.running(self.workflow.id, stream)

    def stop_mover(self, stream: str, timeout_seconds: float) -> None:
        """Stop the direction's mover, if there is one; nothing of it writes any more."""
        mover = self.live_mover(stream)
        if mover is not None:
            mover.stop(timeout_seconds)
            self.hand.movers.pop(stream, None)

    def mover(self, stream: str) -> Mover:
        """The live mover of a direction.

        :raises UnavailableError: there is none.
        """
        mover = self.live_mover(stream)
        if mover is None:
            raise UnavailableError(f"the {stream} stream is not running")
        return mover

    def claim_stream(self, stream: str) -> None:
        """Have the direction's stream begin here under a new epoch, without a mover: no row is written."""
        with self.write() as tx:
            tx.workflows.update(self.workflow.id, epoch=self.workflow.epoch + 1)
        self.ports.movers.claim(self._spec(stream))

    def start_mover(self, stream: str) -> Mover:
        """Start the direction's mover under a new epoch. A verification made before stands no more."""
        with self.write() as tx:
            tx.workflows.update(self.workflow.id, epoch=self.workflow.epoch + 1, verified=False)
        mover = self.hand.movers[stream] = self.ports.movers.start(self._spec(stream))
        self.hand.limits[stream] = self.limits
        self.hand.servers[stream] = self._primaries()
        return mover

    def _primaries(self) -> tuple[str | None, ...]:
        return tuple(shard.primary_server_id for side in (self.source, self.target) for shard in side.shards)

    def stop_moved(self, timeout_seconds: float) -> None:
        """Stop the movers whose servers are not the shards' primaries any more, as after a failover; they are
        started anew where the state asks for them.
        """
        for stream, servers in tuple(self.hand.servers.items()):
            if stream in self.hand.movers and servers != self._primaries():
                _log.warning("workflow %s: the %s stream's servers have changed", self.workflow.id, stream)
                self.stop_mover(stream, timeout_seconds)

    def tell_limits(self) -> None:
        """Let each live mover know how to give way, where that has changed."""
        for stream in (FORWARD_STREAM, REVERSE_STREAM):
            mover = self.live_mover(stream)
            if mover is not None and self.hand.limits.get(stream) != self.limits:
                mover.limit(self.limits)
                self.hand.limits[stream] = self.limits

    def _spec(self, stream: str) -> MoverSpec:
        way, workflow = self.way(stream), self.workflow
        forward = stream == FORWARD_STREAM
        starts = workflow.forward_positions if forward else workflow.reverse_positions
        return MoverSpec(
            workflow_id=workflow.id,
            direction=stream,
            epoch=workflow.epoch,
            flavor=self.ports.engine.flavor,
            sources=way.origin.places(self.ports.engine, BackendRole.MOVER),
            targets=way.to.places(self.ports.engine, BackendRole.MOVER),
            placements=placements(way.to, self.tables),
            # Once traffic has come back, the copy is long done: only following, from where it came back.
            copy_rows=forward and not starts,
            start_positions=dict(starts),
            defer_secondary_keys=workflow.defer_secondary_keys and forward and not starts,
            on_ddl=workflow.on_ddl,
            limits=self.limits,
            source_replicas=way.origin.replica_places(self.ports.engine, BackendRole.MOVER),
            target_replicas=way.to.replica_places(self.ports.engine, BackendRole.MOVER),
        )

    # -- fleeting things -------------------------------------------------------------------------------------

    def release_hold(self) -> None:
        """Let held statements go on. Where that fails the hold is still known, for the next try."""
        if self.hand.hold_id:
            self.ports.gateways.release(self.hand.hold_id)
            self.hand.hold_id = ""

    def let_go(self) -> None:
        """Drop everything that only lives in this process, whatever fails."""
        self.hand.drop(self.ports.gateways)
