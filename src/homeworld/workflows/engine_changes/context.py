"""What the steps of a change of engine work with: the ports, the change as stored, and what this process
holds of it.

Invariant: what only lives in this process (the holds) stands in :class:`Hand` and nowhere else; everything
that is written to the store is bound to the lease.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from homeworld.model.clusters import Clusters
from homeworld.model.engines import CAPABILITIES
from homeworld.model.errors import HomeworldError
from homeworld.model.ports import Engine, Gateways
from homeworld.model.routing import EVERY_TABLE, HoldRequest
from homeworld.model.topology import BackendRole, Endpoint, ShardPlace, TabletType
from homeworld.store.branches import Branch
from homeworld.store.databases import Database
from homeworld.store.engine_changes import EngineChangeRecord
from homeworld.store.keyspaces import Keyspace, Shard
from homeworld.store.store import Store, Transaction
from homeworld.workflows.engine_changes.looking import Sight
from homeworld.workflows.leases import Lease

HOLD_SECONDS = 40.0
"""After this long gateways let go by themselves. Longer than it takes another executor to take over from one
that died (its lease and some) and to publish; no longer than clients should wait where nobody does.
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """What changes of engine act on.

    :param publish: reads the routes from the store and returns once every gateway serves them.
    """

    store: Store
    engine: Engine
    gateways: Gateways
    clusters: Clusters
    sight: Sight
    publish: Callable[[], None]


@dataclass(slots=True)
class Hand:
    """What this process holds of a change, under one lease.

    :param touched: steps of the try under way that were begun here and die with the process; ``done``: those
        that are done.
    :param holds: ids of the holds in force, by branch; ``tries``: how often it was held, so that each hold
        has an id of its own.
    :param looked: what vtgate was asked for, by the keyspace's id.
    """

    token: int
    holds: dict[str, str] = field(default_factory=dict[str, str])
    tries: int = 0
    touched: set[str] = field(default_factory=set[str])
    done: set[str] = field(default_factory=set[str])
    looked: dict[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])


@dataclass(frozen=True, slots=True)
class Holding:
    """A keyspace of the database with its branch and shards."""

    branch: Branch
    keyspace: Keyspace
    shards: Sequence[Shard]


class Context:
    """One change under one lease."""

    def __init__(
        self, ports: Ports, lease: Lease, hand: Hand, change: EngineChangeRecord, database: Database
    ) -> None:
        self.ports = ports
        self.lease = lease
        self.hand = hand
        self.change = change
        self.database = database

    @property
    def committed(self) -> bool:
        """Whether the database was the wanted engine's when this was read."""
        return self.database.engine is self.change.engine

    @contextmanager
    def write(self) -> Generator[Transaction]:
        """A transaction bound to the lease.

        :raises FencedError: the lease is lost.
        """
        with self.ports.store.write() as tx:
            self.lease.require(tx)
            yield tx

    def branches(self) -> tuple[Branch, ...]:
        """The database's live branches."""
        with self.ports.store.read() as tx:
            return tx.branches.of_database(self.database.id)

    def holdings(self) -> list[Holding]:
        """Every keyspace of every branch."""
        with self.ports.store.read() as tx:
            return [
                Holding(branch, keyspace, tx.keyspaces.shards(keyspace.id))
                for branch in tx.branches.of_database(self.database.id)
                for keyspace in tx.keyspaces.of_branch(branch.id)
            ]

    def places(self, holding: Holding) -> list[ShardPlace]:
        """The keyspace's shards as the servers' owner sees them."""
        return [
            ShardPlace(
                holding.keyspace.name,
                shard.name,
                shard.schema_name,
                self.ports.engine.endpoint(shard.primary_server_id or "", BackendRole.OWNER),
            )
            for shard in holding.shards
        ]

    def vtgate(self, holding: Holding) -> Endpoint:
        """The branch's vtgate, as an account that may read everything.

        :raises NotFoundError: there is none.
        """
        server_id = holding.shards[0].primary_server_id or ""
        account = self.ports.engine.endpoint(server_id, BackendRole.ADMIN)
        at = self.ports.clusters.vtgate(holding.branch.id)
        return replace(at, user=account.user, password=account.password)

    def flavor_fits(self) -> bool:
        """Whether the wanted engine stands on the database's servers."""
        return self.database.flavor in CAPABILITIES[self.change.engine].flavors

    # -- the holds -------------------------------------------------------------------------------------------

    def hold(self, drain_seconds: float) -> None:
        """Statements of all branches wait, and none is under way. Holds that an earlier owner left end, with
        no gap between.

        :raises DeadlineExceededError: transactions did not end in time; nothing waits any more.
        :raises FencedError: a later owner holds.
        """
        self.hand.tries += 1
        turn = (self.lease.token, self.hand.tries)
        try:
            for branch_id, tables in self._everything().items():
                subject = f"engine-{self.change.id}-{branch_id}"
                hold_id = f"{subject}-{turn[0]}-{turn[1]}"
                self.ports.gateways.hold(
                    HoldRequest(
                        hold_id=hold_id,
                        branch_id=branch_id,
                        tables=tables,
                        tablet_types=frozenset({TabletType.PRIMARY}),
                        drain_seconds=drain_seconds,
                        hold_seconds=HOLD_SECONDS,
                        subject=subject,
                        turn=turn,
                    )
                )
                self.hand.holds[branch_id] = hold_id
        except HomeworldError:
            self.release()
            raise

    @property
    def held(self) -> bool:
        """Whether every branch is held everywhere."""
        return all(
            branch_id in self.hand.holds and self.ports.gateways.is_held(self.hand.holds[branch_id])
            for branch_id in self._everything()
        )

    def release(self) -> None:
        """Let held statements go on. Where that fails the hold is still known, for the next try."""
        for branch_id, hold_id in list(self.hand.holds.items()):
            self.ports.gateways.release(hold_id)
            del self.hand.holds[branch_id]

    def _everything(self) -> Mapping[str, frozenset[tuple[str, str]]]:
        found: dict[str, set[tuple[str, str]]] = {}
        for holding in self.holdings():
            found.setdefault(holding.branch.id, set()).add((holding.keyspace.name, EVERY_TABLE))
        return {branch_id: frozenset(tables) for branch_id, tables in found.items()}
