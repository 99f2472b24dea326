"""The Protocols through which rooms reach each other's effects. main.py connects them.

All of these are called from worker threads: they block, and each has a deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from homeworld.model.movers import MoverProgress, MoverSpec, ThrottleLimits
from homeworld.model.routing import HoldRequest, RoutingSnapshot
from homeworld.model.sizes import Host, ServerSize
from homeworld.model.topology import BackendRole, Endpoint, Flavor, ShardPlace


class Clock(Protocol):
    """Time, injected so that tests own it."""

    def now(self) -> datetime:
        """The current UTC time, aware."""
        ...


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """A managed server as it was just seen. ``replica_lag_seconds`` is None on a primary or when replication
    is broken (then ``replication_error`` says why).
    """

    server_id: str
    running: bool
    accepting: bool
    pid: int | None
    replica_of: str | None
    replica_lag_seconds: float | None
    replication_error: str


class Engine(Protocol):
    """Servers as living things. Every call is idempotent: creating what exists is a no-op."""

    flavor: Flavor

    def create_server(
        self, server_id: str, *, replica_of: str | None = None, size: ServerSize | None = None
    ) -> None:
        """Make, start and secure a server, as a replica of another where asked; returns once it accepts.

        :param size: of a new one; None: as the installation's configuration has it.
        :raises UnavailableError: it did not come up in time; calling again goes on.
        """
        ...

    def destroy_server(self, server_id: str) -> None:
        """Stop the server and delete its data. Unknown ids are fine."""
        ...

    def host(self) -> Host:
        """What the machine has that servers run on."""
        ...

    def resize_server(self, server_id: str, size: ServerSize | None) -> bool:
        """Give the server this size (None: the installation's own); whether it is in force without a restart.

        :raises UnavailableError: it does not answer, or is not done in time; calling again goes on.
        """
        ...

    def restart_server(self, server_id: str) -> None:
        """Shut the server down in order and start it; returns once it accepts."""
        ...

    def restarts(self, server_id: str) -> int:
        """How often its process was started again after its first start.

        :raises NotFoundError: no such server.
        """
        ...

    def endpoint(self, server_id: str, role: BackendRole) -> Endpoint:
        """How to reach the server as that role's account.

        :raises NotFoundError: no such server.
        """
        ...

    def create_schema(self, server_id: str, schema: str) -> None:
        """Create a MySQL schema on a primary (utf8mb4) and grant the gateway roles their rights on it."""
        ...

    def drop_schema(self, server_id: str, schema: str, confirm: Callable[[], None] = lambda: None) -> None:
        """Drop the schema and the grants on it.

        :param confirm: asked right before, while no other process can be at work on the server; raises where
            the schema is not the caller's to drop any more.
        """
        ...

    def status(self, server_id: str) -> ServerStatus:
        """Look at one server now (within about a second)."""
        ...

    def wait_replica(self, server_id: str, timeout_seconds: float) -> None:
        """Return once the replica has applied all that its primary had committed at the time of the call.

        :raises DeadlineExceededError: it had not within the time.
        """
        ...


class Gateways(Protocol):
    """All live gateways as one."""

    def publish(self, snapshot: RoutingSnapshot) -> None:
        """Return once every gateway serves ``snapshot`` (or a newer one). Sessions whose account is gone or
        expired are closed.

        Rules of a branch's ``closing`` are taken only by gateways that hold for it or serve nothing of the
        branch yet; the others serve what was before, and that is no error.
        """
        ...

    def hold(self, request: HoldRequest) -> None:
        """Return once no statement or transaction on the tables is under way anywhere and new ones wait. An
        earlier hold of the same subject ends, with no gap between the two.

        :raises DeadlineExceededError: transactions did not end in time; everything is released again.
        :raises FencedError: a hold of a later turn of this subject is in force.
        """
        ...

    def release(self, hold_id: str) -> None:
        """Let held statements go on, by the newest snapshot. Unknown or expired ids are fine."""
        ...

    def open(self, subject: str) -> None:
        """Return once no gateway keeps the tables of this closing closed any more, whatever it is published
        with. Only once every gateway has taken the closing's rules.
        """
        ...

    def is_held(self, hold_id: str) -> bool:
        """Whether the hold is still in force everywhere (its own deadline has not passed)."""
        ...


@runtime_checkable
class Knowing(Protocol):
    """Gateways that are processes of their own may tell which connections to servers are theirs."""

    def connections(self) -> frozenset[tuple[str, int]]:
        """The connections of every gateway that may serve what moves: server id and the server's own number.

        A connection of the gateways' accounts that was there before the call and is not among them is of a
        gateway that has ended, or that the others go on without.
        """
        ...


class Mover(Protocol):
    """A running data path for one MoverSpec."""

    def progress(self) -> MoverProgress:
        """The newest state; cheap."""
        ...

    def drain(self, positions: Mapping[str, str], timeout_seconds: float) -> None:
        """Return once every target has applied everything up to ``positions`` (source shard to position).

        :raises DeadlineExceededError: not within the time.
        """
        ...

    def verify(self, verify_id: str, *, repair: bool = False) -> None:
        """Begin comparing both sides; ``progress().verification`` tells how it goes.

        :param repair: copy the rows that differ once more, and compare them again.
        """
        ...

    def limit(self, limits: ThrottleLimits) -> None:
        """Give way by these limits from now on. Without effect on a mover that has ended."""
        ...

    def hurry(self, seconds: float) -> None:
        """Hold no applying back for so long, whatever the limits say. Without effect on an ended one."""
        ...

    def stop(self, timeout_seconds: float) -> None:
        """Stop cleanly; when this returns nothing of this mover will write again."""
        ...


class Movers(Protocol):
    """Starts movers. At most one mover a workflow and direction lives in this process."""

    def start(self, spec: MoverSpec) -> Mover:
        """Start, or return the one that runs with the same epoch.

        :raises FencedError: the sidecar knows a newer epoch.
        """
        ...

    def claim(self, spec: MoverSpec) -> None:
        """Check and claim what :meth:`start` does, so that the streams begin where the logs end now, and run
        nothing: no row of a target changes. Not while a mover of the direction lives.

        :raises FencedError: the sidecar knows a newer epoch.
        """
        ...

    def running(self, workflow_id: str, direction: str) -> Mover | None:
        """The live mover, if any."""
        ...


@runtime_checkable
class Outliving(Protocol):
    """Movers whose streams live elsewhere, and go on when nobody here looks after them."""

    def leave(self, workflow_id: str) -> None:
        """Look after the workflow's streams no more; they go on."""
        ...

    def keep_quiet(self, workflow_id: str, seconds: float) -> None:
        """Ask nobody how far the streams are for so long, and say what was said last: clients wait,
        and asking takes a while.
        """
        ...


@runtime_checkable
class Holding(Protocol):
    """What a fence gives may tell whether it still holds."""

    def holding(self) -> bool:
        """Whether every server still keeps the tables locked, asked now."""
        ...


class SourceFence(Protocol):
    """Stops every write to tables on a set of shards for a short while (LOCK TABLES … READ)."""

    def __call__(
        self, places: Sequence[ShardPlace], tables: Sequence[str], timeout_seconds: float
    ) -> AbstractContextManager[Mapping[str, str]]:
        """Enter: the tables are locked on all shards and open transactions on them have ended; gives the
        position of each shard's server at that moment (shard name to position), which may be
        :class:`Holding`. Leave: unlocked.

        :raises DeadlineExceededError: some lock was not had in time; none is held.
        :raises UnavailableError: on leaving, when a server had let go before.
        """
        ...


class Placements(Protocol):
    """Keeps tables still while the way in which their rows are placed changes."""

    def still(self, keyspace_id: str, tables: Sequence[str]) -> AbstractContextManager[None]:
        """Enter: no client's statement on the tables is under way, new ones wait, and no shard has a row of
        them. Leave: whoever plans them and every gateway serve what was stored meanwhile, then statements go
        on. Without tables nothing is asked and no statement waits.

        :raises InvalidError: a shard has rows of a table; which, and what to do.
        :raises UnavailableError: a shard does not answer, or statements on the tables do not end, so that it
            cannot be said.
        """
        ...

    def check(self, keyspace_id: str, vschema: Mapping[str, object]) -> None:
        """Ask whoever plans the keyspace's statements whether it could honour this vschema, before it is
        stored.

        :raises InvalidError: it could not; in its words.
        :raises UnavailableError: it does not say.
        """
        ...


@dataclass(frozen=True, slots=True)
class MoveWish:
    """A MoveTables workflow as it is asked for; ids are the store's.

    :param global_keyspace_id: where new sequences go; None: the source keyspace where it is unsharded.
    :param workflow_id: the workflow that asks, where it exists already; it does not stand in its own way.
    """

    branch_id: str
    source_keyspace_id: str
    target_keyspace_id: str
    global_keyspace_id: str | None
    tables: tuple[str, ...]
    workflow_id: str = ""


class Preconditions(Protocol):
    """Judges a wish against the store and the servers, before anything is made."""

    def reasons(self, wish: MoveWish) -> tuple[str, ...]:
        """Every reason why the move cannot be made safely; empty: it can.

        :raises UnavailableError: a server does not answer, so it cannot be said.
        """
        ...

    def lasting(self, wish: MoveWish) -> tuple[str, ...]:
        """Every reason why the tables' traffic cannot move (any more): what may have become untrue since the
        workflow began.

        :raises UnavailableError: a server does not answer, so it cannot be said.
        """
        ...
