"""Carries a maintenance window out, one act at a time, under the window's lease.

Theory of operation: each tick reads the window, asks ``decide`` and performs what it says, so nothing but the
ids of what is done has to be remembered. Clients wait in the gateways while their server is away.

Invariant: no act begins after the window's end, without the lease, or while a workflow of the branch moves
traffic; a server is noted as done only once it accepts again and, as a replica, has caught up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from homeworld.model.errors import (
    DeadlineExceededError,
    FencedError,
    HomeworldError,
    NotFoundError,
    UnavailableError,
)
from homeworld.model.maintenance import Action
from homeworld.model.names import new_id
from homeworld.model.ports import Engine, Gateways
from homeworld.model.routing import EVERY_TABLE, HoldRequest
from homeworld.model.states.lifecycle import Life
from homeworld.model.states.move_tables import MOVING_TRAFFIC
from homeworld.model.states.reparenting import Reparent
from homeworld.model.states.resizing import Resize
from homeworld.model.topology import TabletType
from homeworld.store.branches import Server
from homeworld.store.maintenance import KIND, ServerFacts, Window
from homeworld.store.store import Store
from homeworld.store.tables.maintenance import WindowState
from homeworld.workflows.clusters.following import await_serving
from homeworld.workflows.failover import Promotes, promote
from homeworld.workflows.leases import Lease
from homeworld.workflows.maintenance.decide import Promote, Restart, decide
from homeworld.workflows.steps import Rest
from homeworld.workflows.trouble import Troubles

DRAIN_SECONDS = 10.0
HOLD_SECONDS = 120.0
CATCH_UP_SECONDS = 60.0
WAIT_SECONDS = 0.5
LOOK_SECONDS = 15.0
_EVERYTHING = frozenset({TabletType.PRIMARY, TabletType.REPLICA, TabletType.RDONLY})
_PRIMARY = frozenset({TabletType.PRIMARY})
_log = logging.getLogger(__name__)


@runtime_checkable
class Restarts(Engine, Promotes, Protocol):
    """An engine whose servers can be restarted."""

    @property
    def version(self) -> str:
        """Of the installed server program."""
        ...

    def running_version(self, server_id: str) -> str:
        """Of the program that the server runs.

        :raises UnavailableError: it does not answer.
        """
        ...

    def restart_server(self, server_id: str) -> None:
        """Shut it down, start it with the installed program; returns once it accepts."""
        ...

    def storage_bytes(self, server_id: str) -> int:
        """What its data take."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """What maintenance acts on.

    :param publish: reads the routes from the store and returns once every gateway serves them.
    """

    store: Store
    engine: Restarts
    gateways: Gateways
    publish: Callable[[], None]


class Maintenance:
    """The handler of windows."""

    kind = KIND

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._troubles: dict[str, Troubles] = {}
        # So that a replica that does not catch up is waited for, and not restarted again and again.
        self._restarted: set[tuple[str, str]] = set()

    def tick(self, resource_id: str, lease: Lease) -> Rest | None:
        """One act.

        :raises FencedError: the lease is lost.
        """
        troubles = self._troubles.setdefault(resource_id, Troubles())
        with self._ports.store.read() as tx:
            window, now = tx.maintenance.window(resource_id), tx.work.now
            servers = tx.maintenance.servers(window.database_id)
        if window.state is WindowState.FINISHED:
            return Rest(WAIT_SECONDS, keep=False)
        if now >= window.ends_at:
            return self._finish(
                window, lease, window.error or "the window ended before all servers were restarted"
            )
        if troubles.waiting:
            return Rest(WAIT_SECONDS)
        try:
            act = decide(servers, window.done, self._wanting(window, servers))
            if act is None:
                return self._finish(window, lease, "")
            server = next(server for server in servers if server.id == act.server_id)
            if why := self._in_the_way(server):
                self._tell(window, lease, f"waits for {why}")
                return Rest(WAIT_SECONDS)
            if isinstance(act, Promote):
                self._promote(act, server, lease)
            else:
                self._restart(act, server, window, lease)
        except FencedError:
            raise
        except HomeworldError as error:
            _log.warning("%s: %s", lease.resource, error)
            troubles.add(error.message)
            self._tell(window, lease, error.message)
            return Rest(WAIT_SECONDS)
        troubles.clear()
        return None

    def lost(self, resource_id: str) -> None:
        """Nothing of a window goes on by itself."""

    def loosen(self, resource_id: str) -> None:
        """Holds end with the act that they belong to."""

    def let_go(self, resource_id: str) -> None:
        """Forget what was tried."""
        self._troubles.pop(resource_id, None)
        self._restarted = {known for known in self._restarted if known[0] != resource_id}

    # -- acts ------------------------------------------------------------------------------------------------

    def _wanting(self, window: Window, servers: Sequence[Server]) -> set[str]:
        if window.action is Action.RESTART:
            return {server.id for server in servers}
        engine = self._ports.engine
        return {
            server.id
            for server in servers
            if server.id not in window.done and engine.running_version(server.id) != engine.version
        }

    def _restart(self, act: Restart, server: Server, window: Window, lease: Lease) -> None:
        engine, store = self._ports.engine, self._ports.store
        types = _EVERYTHING if act.primary else _EVERYTHING - _PRIMARY
        if (window.id, server.id) not in self._restarted:
            with self._held(server, types):
                self._require_nothing_in_the_way(server)
                lease.confirm(store)
                engine.restart_server(server.id)
                self._restarted.add((window.id, server.id))
                await_serving(store, server.branch_id, check=lease.check, anew=True)
        if server.replica_of is not None:
            engine.wait_replica(server.id, CATCH_UP_SECONDS)
        # A port that was taken meanwhile is another one now: gateways have to hear of it.
        with store.write() as tx:
            lease.require(tx)
            tx.routes.bump(server.branch_id)
            tx.maintenance.did(window, server.id)
        self._ports.publish()
        self._saw(server.id)

    def _saw(self, server_id: str) -> None:
        """Let schedules tell what is pending now; the next hourly look does it where this cannot."""
        engine = self._ports.engine
        try:
            storage = engine.storage_bytes(server_id)
            with self._ports.store.write() as tx:
                now = tx.work.now
                tx.maintenance.saw(ServerFacts(server_id, engine.version, engine.version, storage, now))
        except (HomeworldError, OSError) as error:
            _log.warning("server %s was restarted and not looked at: %s", server_id, error)

    def _promote(self, act: Promote, server: Server, lease: Lease) -> None:
        self._ports.engine.wait_replica(act.server_id, CATCH_UP_SECONDS)
        with self._held(server, _PRIMARY):
            self._require_nothing_in_the_way(server)
            lease.confirm(self._ports.store)
            promote(self._ports.store, self._ports.engine, self._ports.publish, act.server_id)

    def _require_nothing_in_the_way(self, server: Server) -> None:
        """Right before an act: what was waited for until then may have taken a minute.

        :raises UnavailableError: something has begun on the branch meanwhile.
        """
        if why := self._in_the_way(server):
            raise UnavailableError(f"waits for {why}")

    @contextmanager
    def _held(self, server: Server, types: frozenset[TabletType]) -> Generator[None]:
        """Statements of these types that go to keyspaces of the server wait, and none is under way."""
        tables = self._everything(server)
        if not tables:
            yield
            return
        gateways = self._ports.gateways
        hold = HoldRequest(new_id(), server.branch_id, tables, types, DRAIN_SECONDS, HOLD_SECONDS)
        gateways.hold(hold)
        try:
            if not gateways.is_held(hold.hold_id):
                raise DeadlineExceededError("statements were not held for long enough")
            yield
        except BaseException:
            # A primary that is one in the store and not in the gateways: who is let go now would write to the
            # former one and fail. Whoever publishes next ends the old routes, and the hold ends by itself.
            if not self._unpublished(server):
                gateways.release(hold.hold_id)
            raise
        gateways.release(hold.hold_id)

    def _unpublished(self, server: Server) -> bool:
        try:
            with self._ports.store.read() as tx:
                return tx.servers.get(server.id).replica_of != server.replica_of
        except UnavailableError:
            return False

    def _everything(self, server: Server) -> frozenset[tuple[str, str]]:
        """All tables of every keyspace that has a shard on the server."""
        with self._ports.store.read() as tx:
            return frozenset(
                (keyspace.name, EVERY_TABLE)
                for keyspace in tx.keyspaces.of_branch(server.branch_id)
                if keyspace.state is Life.READY
                for shard in tx.keyspaces.shards(keyspace.id)
                if server.id in {shard.primary_server_id, *shard.replica_server_ids}
            )

    def _in_the_way(self, server: Server) -> str:
        """What works on the branch's servers right now, so that nothing can be restarted; empty: nothing."""
        with self._ports.store.read() as tx:
            active = tx.workflows.active_on([server.branch_id]).get(server.branch_id)
            resizes = tx.resizes.ahead(server.branch_id)
            reparent = tx.reparents.unfinished([server.branch_id]).get(server.branch_id)
        if active is not None and active.state in MOVING_TRAFFIC:
            return f"workflow {active.number}, which moves traffic"
        if any(resize.state is Resize.RESIZING for resize in resizes):
            return "a resize"
        return "a reparent" if reparent is not None and reparent.state is Reparent.RUNNING else ""

    # -- the window ------------------------------------------------------------------------------------------

    def _finish(self, window: Window, lease: Lease, error: str) -> Rest:
        with self._ports.store.write() as tx:
            lease.require(tx)
            tx.maintenance.finish(window, error)
        return Rest(WAIT_SECONDS, keep=False)

    def _tell(self, window: Window, lease: Lease, error: str) -> None:
        if window.error == error:
            return
        with self._ports.store.write() as tx:
            lease.require(tx)
            tx.maintenance.tell(window, error)


class Opening:
    """The errand that opens windows when their time has come."""

    resource = "maintenance"
    on_commit = False

    def __init__(self, store: Store, wake: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self.wake = wake

    def turn(self, lease: Lease) -> float:
        """Open what is due; seconds until the next look.

        :raises FencedError: the lease is lost.
        """
        with self._store.read() as tx:
            due = tx.maintenance.due()
        for schedule in due:
            with self._store.write() as tx:
                lease.require(tx)
                try:
                    now = tx.maintenance.get(schedule.database_id, schedule.id)
                except NotFoundError:
                    continue
                if now == schedule and tx.maintenance.open_one(schedule.database_id) is None:
                    tx.maintenance.open_due(schedule)
        return LOOK_SECONDS

    def stop(self, seconds: float) -> None:
        """Nothing is under way."""
