"""A small world for workflow steps: servers, movers and gateways in memory that keep the ports' contracts.

Rows are written by a client that follows the routes which its gateway last got, waits where a gateway holds
or a server has the tables locked, and remembers what was acknowledged. Movers copy and follow logs like
binlogs: what a mover writes is in the log of the side it writes to. Invariant of every test: what was
acknowledged is in the end on the side that owns writes.
"""
# ruff: noqa: ARG002 - fakes keep the signatures of their Protocols, also where they need less

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from homeworld.model.errors import DeadlineExceededError, FencedError, NotFoundError, UnavailableError
from homeworld.model.movers import (
    MoverProgress,
    MoverSpec,
    Phase,
    TableVerification,
    ThrottleLimits,
    Verification,
)
from homeworld.model.ports import MoveWish, ServerStatus
from homeworld.model.routing import Closing, HoldRequest, RoutingSnapshot
from homeworld.model.sizes import Host, ServerSize
from homeworld.model.tables import Column, Index, Table
from homeworld.model.topology import BackendRole, Endpoint, Flavor, ShardPlace, TabletType
from homeworld.replication.ddl import TargetForm
from homeworld.workflows.move_tables.tools import IdColumn, VitessStream

PRIMARY = Index("PRIMARY", True, ("id",), False)


def make_table(name: str) -> Table:
    column = Column("id", "bigint", "bigint", False, False, "", "", False, True, False)
    return Table(name, (column,), (PRIMARY,), PRIMARY, "InnoDB", f"CREATE TABLE `{name}` (…)", 0, 0)


Key = tuple[str, str]  # keyspace, table


@dataclass
class Sidecar:
    """What a stream remembers where its rows are."""

    epoch: int
    position: int | None = None
    copied: bool = False


@dataclass
class World:
    """Everything that outlives a process of homeworld."""

    branch_id: str
    rows: dict[Key, dict[int, str]] = field(default_factory=dict[Key, dict[int, str]])
    logs: dict[str, list[tuple[str, int, str | None]]] = field(
        default_factory=dict[str, list[tuple[str, int, str | None]]]
    )
    sidecars: dict[Key, Sidecar] = field(default_factory=dict[Key, "Sidecar"])
    sequences: dict[str, int] = field(default_factory=dict[str, int])
    counters: dict[Key, int] = field(default_factory=dict[Key, int])
    locked: set[str] = field(default_factory=set[str])
    acknowledged: dict[Key, str] = field(default_factory=dict[Key, str])
    written: int = 0
    calls: list[str] = field(default_factory=list[str])

    def apply(self, keyspace: str, table: str, key: int, value: str) -> None:
        self.rows[keyspace, table][key] = value
        self.logs.setdefault(keyspace, []).append((table, key, value))

    def largest(self, keyspace: str, table: str) -> int:
        return max([self.counters.get((keyspace, table), 0), *self.rows[keyspace, table]], default=0)


class FakeGateways:
    """Gateways as one; they may outlive the executor's process or die with it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rules: dict[str, str] = {}
        self.holds: dict[str, HoldRequest] = {}
        self.stuck = False
        self.stuck_for: frozenset[TabletType] = frozenset()
        """Of which nothing under way comes to an end."""
        self.asked: list[HoldRequest] = []
        self.fresh = True
        self.taken = ""
        self.closed: frozenset[tuple[str, str]] = frozenset()

    def publish(self, snapshot: RoutingSnapshot) -> None:
        branch = snapshot.branches[self.world.branch_id]
        self.take(branch.rules, branch.closing)

    def take(self, rules: Mapping[str, str], closing: Closing | None) -> None:
        self.world.calls.append("publish")
        held = {hold.subject for hold in self.holds.values()}
        if closing is None:
            self.rules, self.taken, self.closed = dict(rules), "", frozenset()
        elif closing.subject == self.taken or closing.subject in held or self.fresh:
            self.rules = dict(rules)
            if self.taken != closing.subject:
                self.taken, self.closed = closing.subject, closing.tables
        else:
            before = {**rules, **closing.before}
            self.rules = {name: to for name, to in before.items() if to}
        self.fresh = False

    def restart(self) -> None:
        """Another process, which has been told nothing yet."""
        self.holds.clear()
        self.rules, self.taken, self.closed, self.fresh = {}, "", frozenset(), True

    def hold(self, request: HoldRequest) -> None:
        self.asked.append(request)
        if self.stuck or self.stuck_for & request.tablet_types:
            raise DeadlineExceededError("transactions under way did not end in time")
        self.holds = {known: hold for known, hold in self.holds.items() if hold.subject != request.subject}
        self.holds[request.hold_id] = request

    def release(self, hold_id: str) -> None:
        self.holds.pop(hold_id, None)

    def open(self, subject: str) -> None:
        assert self.taken in ("", subject), "opened before it was taken"
        self.closed = frozenset()

    def is_held(self, hold_id: str) -> bool:
        return hold_id in self.holds

    def expire(self) -> None:
        """Every hold's own deadline passes."""
        self.holds.clear()

    def holding(self, table: tuple[str, str]) -> bool:
        """Whether writes to the table wait."""
        return any(
            TabletType.PRIMARY in hold.tablet_types and table in hold.tables for hold in self.holds.values()
        )

    def write(self, name: str, value: str) -> bool:
        """A client's INSERT of a new row or UPDATE of an old one; False: it waits."""
        keyspace, _, table = self.rules.get(name, name).partition(".")
        if self.holding((keyspace, table)):
            return False
        if (keyspace, table) in self.closed:
            return False
        world = self.world
        if keyspace in world.locked:
            return False
        if (keyspace, table) not in world.rows:
            raise NotFoundError(f"table {keyspace}.{table} does not exist")
        return self.carry_out(keyspace, table, value)

    def carry_out(self, keyspace: str, table: str, value: str) -> bool:
        """A row of an id that the side gives."""
        world = self.world
        world.written += 1
        sequence = world.sequences.get(f"{table}_seq")
        if keyspace.endswith("_sharded") and sequence is not None:
            key = sequence
            world.sequences[f"{table}_seq"] = sequence + 1
        else:
            key = world.largest(keyspace, table) + 1
            world.counters[keyspace, table] = key
        assert key not in world.rows[keyspace, table], f"id {key} was given out twice"
        world.apply(keyspace, table, key, value)
        world.acknowledged[table, str(key)] = value
        return True


class FakeMover:
    """One direction. Works only when it is looked at, so that a test decides when time passes."""

    def __init__(self, world: World, spec: MoverSpec) -> None:
        self.world = world
        self.spec = spec
        self.limits = spec.limits
        self.stopped = False
        self.verification: Verification | None = None
        self.fault: MoverProgress | None = None
        self.passed = 0
        self.origin, self.to = spec.sources[0].keyspace, spec.targets[0].keyspace
        known = world.sidecars.setdefault((spec.workflow_id, spec.direction), Sidecar(0))
        if known.epoch > spec.epoch:
            raise FencedError(f"epoch {known.epoch} has taken over")
        known.epoch = spec.epoch
        if known.position is None:
            start = next(iter(spec.start_positions.values()), None)
            assert spec.copy_rows or start is not None, "a stream that copies nothing needs a position"
            known.position = int(start) if start is not None else len(world.logs.get(self.origin, []))
            known.copied = not spec.copy_rows

    @property
    def sidecar(self) -> Sidecar:
        known = self.world.sidecars.get((self.spec.workflow_id, self.spec.direction))
        if known is None or known.epoch != self.spec.epoch:
            raise FencedError("another epoch has taken over")
        return known

    def pump(self) -> None:
        if self.stopped:
            return
        world, known = self.world, self.sidecar
        tables = {placement.table for placement in self.spec.placements}
        if not known.copied:
            for table in tables:
                for key, value in world.rows[self.origin, table].items():
                    world.apply(self.to, table, key, value)
            known.copied = True
        log = world.logs.setdefault(self.origin, [])
        position = known.position or 0
        for table, key, value in log[position:]:
            if table in tables and value is not None:
                world.apply(self.to, table, key, value)
        known.position = len(log)

    def progress(self) -> MoverProgress:
        if self.fault is not None:
            return self.fault
        self.pump()
        phase = Phase.STOPPED if self.stopped else Phase.FOLLOWING
        return MoverProgress(phase, True, (), (), 0.0, 0.0, 0.0, self.verification, passed=self.passed)

    def drain(self, positions: Mapping[str, str], timeout_seconds: float) -> None:
        self.world.calls.append(f"drain {self.spec.direction}")
        if self.fault is not None:
            raise UnavailableError(f"the mover has ended: {self.fault.error}")
        self.pump()
        if (self.sidecar.position or 0) < max(map(int, positions.values())):
            raise DeadlineExceededError("not drained in time")

    def limit(self, limits: ThrottleLimits) -> None:
        self.limits = limits

    def hurry(self, seconds: float) -> None:
        self.world.calls.append(f"hurry {self.spec.direction}")

    def verify(self, verify_id: str, *, repair: bool = False) -> None:
        self.pump()
        table = self.spec.placements[0].table
        ours, theirs = self.world.rows[self.origin, table], self.world.rows[self.to, table]
        wrong = sum(ours.get(key) != theirs.get(key) for key in ours.keys() | theirs.keys())
        found = TableVerification(table, len(ours), wrong, 0, 0, 0)
        self.verification = Verification(verify_id, "completed", len(ours), len(ours), 0.0, (found,))

    def stop(self, timeout_seconds: float) -> None:
        self.stopped = True


class FakeMovers:
    """The movers of one process."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.live: dict[Key, FakeMover] = {}

    def start(self, spec: MoverSpec) -> FakeMover:
        known = self.running(spec.workflow_id, spec.direction)
        if known is not None and known.spec.epoch == spec.epoch:
            return known
        other = {"forward": "reverse", "reverse": "forward"}[spec.direction]
        assert self.running(spec.workflow_id, other) is None, "both directions stream"
        mover = FakeMover(self.world, spec)
        self.live[spec.workflow_id, spec.direction] = mover
        return mover

    def claim(self, spec: MoverSpec) -> None:
        assert self.running(spec.workflow_id, spec.direction) is None, "a mover has the stream"
        FakeMover(self.world, spec)

    def running(self, workflow_id: str, direction: str) -> FakeMover | None:
        mover = self.live.get((workflow_id, direction))
        return None if mover is None or mover.stopped else mover


class FakeEngine:
    """Servers that always answer."""

    flavor = Flavor.MYSQL

    def __init__(self) -> None:
        self.waits: list[str] = []
        self.lagging = False

    def create_server(
        self, server_id: str, *, replica_of: str | None = None, size: ServerSize | None = None
    ) -> None: ...

    def host(self) -> Host:
        return Host(2, 8192)

    def resize_server(self, server_id: str, size: ServerSize | None) -> bool:
        return True

    def restart_server(self, server_id: str) -> None: ...

    def restarts(self, server_id: str) -> int:
        return 0

    def destroy_server(self, server_id: str) -> None: ...

    def endpoint(self, server_id: str, role: BackendRole) -> Endpoint:
        return Endpoint(server_id, Flavor.MYSQL, "127.0.0.1", 1, "", role.value, "secret")

    def create_schema(self, server_id: str, schema: str) -> None: ...

    def drop_schema(
        self, server_id: str, schema: str, confirm: Callable[[], None] = lambda: None
    ) -> None: ...

    def status(self, server_id: str) -> ServerStatus:
        return ServerStatus(server_id, True, True, 1, None, None, "")

    def wait_replica(self, server_id: str, timeout_seconds: float) -> None:
        if self.lagging:
            raise DeadlineExceededError(f"replica {server_id} lags")
        self.waits.append(server_id)


class FakeTools:
    """Tables as the world's rows: all shards of a keyspace are one here."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.unfit = ""
        self.users: dict[str, Sequence[str]] = {}

    def describe(self, place: ShardPlace, names: Sequence[str]) -> Mapping[str, Table]:
        return {name: make_table(name) for name in names if (place.keyspace, name) in self.world.rows}

    def has_rows(self, place: ShardPlace, table: str) -> bool:
        return bool(self.world.rows[place.keyspace, table])

    def filled(self, place: ShardPlace, names: Sequence[str]) -> Sequence[str]:
        return [name for name in names if self.has_rows(place, name)]

    def make_table(self, place: ShardPlace, like: Table, form: TargetForm) -> None:
        self.world.rows.setdefault((place.keyspace, like.name), {})

    def give_numbers(self, place: ShardPlace, like: Table, column: str) -> None: ...

    def drop_tables(self, place: ShardPlace, names: Sequence[str], confirm: Callable[[], None]) -> None:
        confirm()
        for name in names:
            if name.endswith("_seq"):
                self.world.sequences.pop(name, None)
            self.world.rows.pop((place.keyspace, name), None)

    def difference(self, place: ShardPlace, table: Table, origin: str = "the source") -> str:
        return self.unfit if (place.keyspace, table.name) in self.world.rows else "it is missing"

    def references(self, place: ShardPlace, names: Sequence[str]) -> Sequence[str]:
        return self.users.get(place.keyspace, ())

    def positions(self, places: Sequence[ShardPlace]) -> Mapping[str, str]:
        return {place.shard: str(len(self.world.logs.get(place.keyspace, []))) for place in places}

    def stream_positions(self, place: ShardPlace, sidecar: str) -> Mapping[int, VitessStream]:
        return {}

    def mark_logs(self, places: Sequence[ShardPlace]) -> None:
        self.world.calls.append(f"mark {places[0].keyspace}")

    def forget_stream(
        self, workflow_id: str, direction: str, targets: Sequence[ShardPlace], epoch: int
    ) -> None:
        self.world.sidecars.pop((workflow_id, direction), None)

    def make_sequence(self, place: ShardPlace, name: str) -> None:
        self.world.sequences.setdefault(name, 1)

    def is_sequence(self, place: ShardPlace, name: str) -> bool | None:
        return True if name in self.world.sequences else None

    def largest_ids(self, places: Sequence[ShardPlace], columns: Sequence[IdColumn]) -> Mapping[str, int]:
        return {c.table: self.world.largest(places[0].keyspace, c.table) for c in columns}

    def given_by(self, place: ShardPlace, names: Sequence[str]) -> Mapping[str, int]:
        return {name: self.world.sequences[name] - 1 for name in names}

    def raise_sequences(self, place: ShardPlace, above: Mapping[str, int]) -> None:
        for name, least in above.items():
            self.world.sequences[name] = max(self.world.sequences[name], least + 1)

    def raise_auto_increments(self, places: Sequence[ShardPlace], above: Mapping[str, int]) -> None:
        for name, least in above.items():
            key = (places[0].keyspace, name)
            self.world.counters[key] = max(self.world.counters.get(key, 0), least)

    def end_strangers(
        self,
        places: Sequence[ShardPlace],
        users: frozenset[str],
        known: Callable[[], frozenset[tuple[str, int]]],
        seconds: float,
    ) -> None: ...

    def end_fences(self, places: Sequence[ShardPlace], tables: Sequence[str]) -> None: ...

    def end_blocked(self, places: Sequence[ShardPlace], tables: Sequence[str]) -> None:
        assert places[0].keyspace in self.world.locked, "only what waits for our own locks"
        self.world.calls.append(f"end blocked {places[0].keyspace}")

    def warm(self, places: Sequence[ShardPlace]) -> None: ...

    def close(self) -> None: ...


class FakePreconditions:
    """Says what it is told to say."""

    def __init__(self) -> None:
        self.found: tuple[str, ...] = ()

    def reasons(self, wish: MoveWish) -> tuple[str, ...]:
        return self.found

    def lasting(self, wish: MoveWish) -> tuple[str, ...]:
        return self.found


def make_fence(world: World) -> Any:
    """A SourceFence of this process: a lock dies with it (see ``World.locked``)."""

    @contextmanager
    def fence(
        places: Sequence[ShardPlace], tables: Sequence[str], timeout_seconds: float
    ) -> Generator[Mapping[str, str]]:
        keyspace = places[0].keyspace
        assert keyspace not in world.locked, "locked twice"
        world.locked.add(keyspace)
        try:
            yield {place.shard: str(len(world.logs.get(keyspace, []))) for place in places}
        finally:
            world.locked.discard(keyspace)

    return fence


def failed(error: str = "boom", *, retryable: bool = True) -> MoverProgress:
    """A mover's word that it failed."""
    return replace(MoverProgress(Phase.FAILED, True, (), (), 0.0, 0.0, 0.0), error=error, retryable=retryable)
