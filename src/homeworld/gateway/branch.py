"""What all sessions of one branch share in a gateway: routes, router, known tables, holds.

Replaced piece by piece when a newer snapshot is published; sessions read it anew for each statement. Knows no
socket and no client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from homeworld.gateway.hold import OPAQUE, Hold, Holds, HoldState, Touch
from homeworld.gateway.moved import Served, newly_served
from homeworld.gateway.plan import Destination, Footprint, Pass, RouterPort, SessionView, Target
from homeworld.gateway.tracker import SchemaTracker
from homeworld.gateway.vtgate import served_type, target_name
from homeworld.model.errors import NotFoundError, ServerError, UnavailableError
from homeworld.model.routing import BranchRoutes, HoldRequest, ShardRoute
from homeworld.model.topology import BackendRole, Endpoint, TabletType

if TYPE_CHECKING:
    from homeworld.gateway.session import Session

_MOST_VIEWS = 1_000
_MOST_HEADS = 5_000
_OFTEN = 3
_BEFORE_NUMBER = (b" ", b"=", b"<", b">", b"(", b",")

RouterFactory = Callable[[BranchRoutes, SchemaTracker], RouterPort]
"""Makes the router of a branch at one version of its routes."""


class Lease(Protocol):
    """Whether this gateway may serve what moves."""

    def live(self) -> bool:
        """Whether it may now; cheap."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where a destination is: a server as one account, and the schema there."""

    endpoint: Endpoint
    schema: str


class Branch:
    """One branch as this gateway serves it.

    ``draining`` says whether sessions have to tell when they have come to an end of something. ``turn`` grows
    whenever some table comes to be served where it was not before.

    ``guard`` is the lease under which primary statements on moving tables may be sent; None where nothing
    moves, or where nobody moves anything without this gateway. ``epoch`` grows when what was admitted before
    may not be sent any more.
    """

    def __init__(
        self,
        routes: BranchRoutes,
        make_router: RouterFactory,
        holds: Holds | None = None,
        lease: Lease | None = None,
    ) -> None:
        self._make_router = make_router
        self._lease = lease
        self._lapses: set[str] = set()
        self.routes = routes
        self.guard = lease if routes.moving else None
        self.epoch = 0
        self.tracker = SchemaTracker()
        self.router = make_router(routes, self.tracker)
        self.holds = Holds() if holds is None else holds
        self.draining = False
        self.turn = 0
        self._came: dict[Served, list[int]] = {}
        self._closed = routes.closing.tables if routes.closing else frozenset[tuple[str, str]]()
        self.sessions: set[Session] = set()
        self._views: dict[SessionView, SessionView] = {}
        self._heads: dict[tuple[bytes, Target, bool], int | Pass | None] = {}
        self._heads_version = -1
        self._places: dict[tuple[Destination, BackendRole, int], Place] = {}

    def check_room(self) -> None:
        """Hold one session more against what the branch's size gives it of each gateway.

        :raises ServerError: too many connections.
        """
        most = self.routes.most_clients
        if most and len(self.sessions) >= most:
            raise ServerError(
                1040, "08004", f"Too many connections: the branch's gateways take {most} at once"
            )

    def router_for(self, routes: BranchRoutes) -> RouterPort:
        """A router for newer routes, not used yet."""
        return self._make_router(routes, self.tracker)

    def replace_routes(self, routes: BranchRoutes, router: RouterPort) -> None:
        """Serve newer routes from now on, through the router made for them."""
        self._come(newly_served(self.routes, routes))
        if routes.closing is not None:
            self._closed = routes.closing.tables
        self.router = router
        self.routes = routes
        self.guard = self._lease if routes.moving else None
        self._heads.clear()
        self._views.clear()
        self._places.clear()
        self.tracker.keep_only(frozenset(routes.keyspaces))
        self.tracker.forget_missing()

    def blocks(self, touch: Touch, *, under_way: bool) -> Hold | None:
        """The hold for which a statement has to wait, if any: also for the lease to live again.

        :param under_way: the session has an open transaction with statements on servers.
        """
        if self.guard is not None and not self.guard.live():
            self.lapse()
        return self.holds.blocks(touch, under_way=under_way) if self.holds else None

    def may_send(self, touch: Touch, epoch: int) -> bool:
        """Whether a statement that was admitted in an epoch may be sent now.

        Asked once its connections are there. Then a connection over which it is sent was there while the
        lease lived, and whoever goes on without this gateway ends it first.
        """
        if epoch != self.epoch:
            return False
        if self.guard is None or self.guard.live():
            return True
        self.lapse()
        lapses = [self.holds.get(hold_id) for hold_id in self._lapses]
        return not any(hold is not None and hold.matches(touch) for hold in lapses)

    def lapse(self) -> None:
        """The lease has ended: primary statements on what moves wait until :meth:`resumed`."""
        moving = self.routes.moving
        if moving is None:
            return
        primaries = frozenset({TabletType.PRIMARY})
        request = HoldRequest(
            f"lapse {moving.since}", self.routes.branch_id, moving.tables, primaries, 0.0, 0.0
        )
        if self.holds.get(request.hold_id) is None:
            self.holds.begin(request).state = HoldState.HELD
            self._lapses.add(request.hold_id)
            for session in self.sessions:
                session.unready_all()

    def resumed(self) -> None:
        """The lease lives: what waited for it is planned anew."""
        ended = [self.holds.end(hold_id) for hold_id in self._lapses]
        self._lapses.clear()
        for hold in ended:
            if hold is not None:
                waiters, hold.waiters = hold.waiters, []
                for wake in waiters:
                    wake()

    def look(self) -> None:
        """Called every now and then: a lease that ended while it was being renewed lives again, and nobody
        has seen that it had ended.
        """
        if self._lapses and (self.guard is None or self.guard.live()):
            self.resumed()

    def opened(self) -> None:
        """The closed tables are about to be opened: what was left behind has been carried over by now."""
        self._come((TabletType.PRIMARY, *table) for table in self._closed)

    def _come(self, tables: Iterable[Served]) -> None:
        came = list(tables)
        if came:
            self.turn += 1
            for table in came:
                self._came.setdefault(table, []).append(self.turn)

    def came_since(self, turn: int, footprint: Footprint, destination: Destination) -> Mapping[str, int]:
        """Keyspaces where tables that a statement touches at the destination came to be served after
        ``turn``, with the turn of the last one. A statement that may touch tables which it does not name
        touches all of the keyspace.
        """
        tablet_type, keyspace = destination.tablet_type, destination.keyspace
        found: dict[str, int] = {}
        if footprint.tables:
            met = ((at, self._came.get((tablet_type, at, table))) for at, table in footprint.tables)
        elif footprint.verb in OPAQUE:
            met = (
                (at, turns)
                for (where, at, _), turns in self._came.items()
                if (where, at) == (tablet_type, keyspace)
            )
        else:
            return found
        for at, turns in met:
            if turns and turns[-1] > turn:
                found[at] = max(turns[-1], found.get(at, 0))
        return found

    def may_have_begun(self, touches: Iterable[tuple[Touch, int]], keyspace: str, turn: int) -> bool:
        """Whether a transaction over a vtgate may have a part on a shard of the keyspace that began before
        ``turn``, when a table came to be served there. vtgate begins a part with the first statement that
        needs the shard. It may be by new rules a moment before this gateway is: a table that came to the
        keyspace after it was touched counts as touched there right before it came.

        :param touches: what the transaction has touched, and in which turn first.
        """
        for touch, at in touches:
            tables = touch.footprint.tables
            somewhere = not tables or touch.footprint.anywhere
            there = somewhere or keyspace in touch.aimed or any(name == keyspace for name, _ in tables)
            if there and at < turn:
                return True
            for tablet_type in touch.tablet_types:
                for _, table in tables:
                    came = self._came.get((tablet_type, keyspace, table), ())
                    if any(at < then < turn for then in came):
                        return True
        return False

    def view_of(self, view: SessionView) -> SessionView:
        """``view``, or the equal one that another session has: a router looks things up once for each."""
        if len(self._views) >= _MOST_VIEWS:
            self._views.clear()
        return self._views.setdefault(view, view)

    def passes(self, head: bytes, plan: Pass, view: SessionView) -> bool:
        """Whether every statement that is ``head`` and a number is handed through as ``plan`` is. The router
        is asked as for a prepared statement, once a head has come up often enough to be worth it.
        """
        if self._heads_version != self.tracker.version or len(self._heads) >= _MOST_HEADS:
            self._heads.clear()
            self._heads_version = self.tracker.version
        key = (head, view.target, view.replica_only)
        known = self._heads.get(key, 0)
        if isinstance(known, int):
            if known < _OFTEN or head[-1:] not in _BEFORE_NUMBER:
                self._heads[key] = known + 1
                return False
            known = self._heads[key] = self._passing(head + b"?", view)
        return (
            known is not None and known.destination == plan.destination and known.footprint == plan.footprint
        )

    def _passing(self, sql: bytes, view: SessionView) -> Pass | None:
        prepared = self.router.plan_prepared(sql, view)
        passes = prepared.fixed and isinstance(prepared.plan, Pass) and prepared.plan.sql == sql
        return prepared.plan if passes and isinstance(prepared.plan, Pass) else None

    def shard(self, keyspace: str, shard: str) -> ShardRoute:
        """A shard's route.

        :raises NotFoundError: the keyspace or shard is not in the routes.
        """
        route = self.routes.keyspaces.get(keyspace)
        if route is None:
            raise NotFoundError(f"VT05003: unknown database '{keyspace}' in vschema")
        for candidate in route.shards:
            if candidate.name == shard or not shard:
                return candidate
        raise NotFoundError(f"keyspace {keyspace} has no shard {shard}")

    def place(self, destination: Destination, role: BackendRole, pick: int) -> Place:
        """Where to send for ``destination`` as ``role``.

        :param pick: a session's own number, which spreads sessions over replicas. A shard without replicas
            serves its replica reads from its primary.
        :raises NotFoundError: no such shard.
        :raises UnavailableError: the branch has no account for the role, or no vtgate.
        """
        turn = pick % self.copies(destination)
        key = (destination, role, turn)
        found = self._places.get(key)
        if found is None:
            endpoint, schema = self._found(destination, turn)
            found = self._places[key] = Place(self._as_role(endpoint, role), schema)
        return found

    def _found(self, destination: Destination, turn: int) -> tuple[Endpoint, str]:
        if destination.vtgate:
            endpoint = self.routes.vtgate
            if endpoint is None or not (endpoint.socket or endpoint.port):
                raise UnavailableError("the branch's vtgate does not run yet; try again")
            # All that a session does goes over one connection, whatever it is aimed at: a transaction over
            # keyspaces is one of vtgate's.
            return endpoint, target_name(destination)
        route = self.shard(destination.keyspace, destination.shard)
        primary = destination.tablet_type is TabletType.PRIMARY or not route.replicas
        return route.primary if primary else route.replicas[turn], route.schema

    def copies(self, destination: Destination) -> int:
        """How many servers can serve the destination.

        :raises NotFoundError: no such shard.
        """
        if destination.vtgate or destination.tablet_type is TabletType.PRIMARY:
            return 1
        return max(1, len(self.shard(destination.keyspace, destination.shard).replicas))

    def _as_role(self, endpoint: Endpoint, role: BackendRole) -> Endpoint:
        account = self.routes.credentials.get(role)
        if account is None:
            raise UnavailableError(f"the branch has no {role} account")
        return replace(endpoint, user=account[0], password=account[1])

    def somewhere(self, target: Target, *, replica_only: bool) -> Destination:
        """A destination for what any server can answer: the target's keyspace, or the default one.

        :raises UnavailableError: the branch has no keyspace.
        """
        routes = self.routes
        keyspace = routes.keyspaces.get(target.keyspace or routes.default_keyspace)
        if keyspace is None:
            keyspace = next(iter(routes.keyspaces.values()), None)
        if keyspace is None or not keyspace.shards:
            raise UnavailableError("the branch has no keyspace yet")
        if routes.vtgate is None:
            return Destination(keyspace.name, target.shard or keyspace.shards[0].name, target.tablet_type)
        asked = TabletType.REPLICA if replica_only else target.tablet_type
        return Destination(
            keyspace.name, target.shard, served_type(routes, keyspace.name, asked), vtgate=True
        )

    def shards_of(self, keyspace: str) -> Iterable[ShardRoute]:
        """The keyspace's shards; none where it is unknown."""
        route = self.routes.keyspaces.get(keyspace)
        return route.shards if route else ()
