"""What the steps of a reparent work with: the ports, the reparent as stored, and what this process holds of
it.

Invariant: what only lives in this process (the hold) stands in :class:`Hand` and nowhere else; everything
that is written to the store is bound to the lease.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from homeworld.model.errors import HomeworldError, InvalidError
from homeworld.model.ports import Gateways
from homeworld.model.routing import EVERY_TABLE, HoldRequest
from homeworld.model.states.lifecycle import Life
from homeworld.model.topology import TabletType
from homeworld.store.branches import Server
from homeworld.store.reparents import ReparentRecord
from homeworld.store.store import Store, Transaction
from homeworld.workflows.failover import PromotingEngine
from homeworld.workflows.leases import Lease

HOLD_SECONDS = 40.0
"""After this long gateways let go by themselves. Longer than it takes another executor to take over from one
that died (its lease and some) and to publish; no longer than clients should wait where nobody does.
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """What reparents act on.

    :param publish: reads the routes from the store and returns once every gateway serves them.
    """

    store: Store
    engine: PromotingEngine
    gateways: Gateways
    publish: Callable[[], None]


@dataclass(slots=True)
class Hand:
    """What this process holds of a reparent, under one lease.

    :param touched: steps of the try under way that were begun here and die with the process; ``done``: those
        that are done.
    :param holds: how many holds were tried, so that each has an id of its own.
    """

    token: int
    hold_id: str = ""
    holds: int = 0
    touched: set[str] = field(default_factory=set[str])
    done: set[str] = field(default_factory=set[str])


class Context:
    """One reparent under one lease.

    :param heir: who takes the primary's place; empty until that is chosen.
    """

    def __init__(self, ports: Ports, lease: Lease, hand: Hand, reparent: ReparentRecord) -> None:
        self.ports = ports
        self.lease = lease
        self.hand = hand
        self.reparent = reparent

    @property
    def heir(self) -> str:
        """The chosen replica.

        :raises InvalidError: none was chosen yet.
        """
        if self.reparent.heir_server_id is None:
            raise InvalidError("no replica was chosen yet")
        return self.reparent.heir_server_id

    @property
    def former(self) -> str:
        """The primary when it was asked for."""
        return self.reparent.former_server_id

    @contextmanager
    def write(self) -> Generator[Transaction]:
        """A transaction bound to the lease.

        :raises FencedError: the lease is lost.
        """
        with self.ports.store.write() as tx:
            self.lease.require(tx)
            yield tx

    def replicas(self) -> list[Server]:
        """The primary's replicas that may take its place, as the store has them."""
        with self.ports.store.read() as tx:
            servers = tx.servers.of_branch(self.reparent.branch_id)
        return [
            server
            for server in servers
            if server.replica_of == self.former and server.state is Life.READY and not server.barred
        ]

    # -- the hold --------------------------------------------------------------------------------------------

    def hold(self, drain_seconds: float) -> None:
        """Statements to the primary's keyspaces wait, and none is under way. A hold that an earlier owner
        left ends, with no gap between the two.

        :raises DeadlineExceededError: transactions did not end in time; nothing waits any more.
        :raises FencedError: a later owner holds.
        """
        tables = self._everything()
        if not tables:
            return
        self.hand.holds += 1
        turn = (self.lease.token, self.hand.holds)
        self.hand.hold_id = f"{self._subject}-{turn[0]}-{turn[1]}"
        try:
            self.ports.gateways.hold(
                HoldRequest(
                    hold_id=self.hand.hold_id,
                    branch_id=self.reparent.branch_id,
                    tables=tables,
                    tablet_types=frozenset({TabletType.PRIMARY}),
                    drain_seconds=drain_seconds,
                    hold_seconds=HOLD_SECONDS,
                    subject=self._subject,
                    turn=turn,
                )
            )
        except HomeworldError:
            self.hand.hold_id = ""  # who failed to hold has let go of it
            raise

    @property
    def held(self) -> bool:
        """Whether the hold is in force everywhere, or there is nothing to hold."""
        return not self._everything() or (
            bool(self.hand.hold_id) and self.ports.gateways.is_held(self.hand.hold_id)
        )

    def release(self) -> None:
        """Let held statements go on. Where that fails the hold is still known, for the next try."""
        if self.hand.hold_id:
            self.ports.gateways.release(self.hand.hold_id)
            self.hand.hold_id = ""

    @property
    def _subject(self) -> str:
        return f"reparent-{self.reparent.id}"

    def _everything(self) -> frozenset[tuple[str, str]]:
        """All tables of every keyspace that has a shard on the former primary or, by now, on the heir."""
        servers = {self.former, self.reparent.heir_server_id}
        with self.ports.store.read() as tx:
            return frozenset(
                (keyspace.name, EVERY_TABLE)
                for keyspace in tx.keyspaces.of_branch(self.reparent.branch_id)
                if keyspace.state is Life.READY
                for shard in tx.keyspaces.shards(keyspace.id)
                if shard.primary_server_id in servers
            )
