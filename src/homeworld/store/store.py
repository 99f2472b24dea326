"""The store: transactions over everything the control plane remembers.

    with store.write() as tx:
        tx.workflows.transition(workflow_id, State.SWITCHING_PRIMARIES, row, primaries_switched=True)
        tx.routes.replace_rules(branch_id, rules)

Invariant: what one ``with`` block writes is one transaction: all of it or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cached_property
from typing import Self

from sqlalchemy import Engine

from homeworld.model.ports import Clock
from homeworld.store.audit import Audit
from homeworld.store.branches import Branches, Servers
from homeworld.store.databases import Databases
from homeworld.store.engine import SystemClock, open_engine, reading, touching, writing
from homeworld.store.engine_changes import EngineChanges
from homeworld.store.followings import Followings
from homeworld.store.gateway_resizes import GatewayResizes
from homeworld.store.gateways import Gateways
from homeworld.store.journal import Journal
from homeworld.store.keyspaces import Keyspaces
from homeworld.store.leases import Leases
from homeworld.store.maintenance import Maintenance
from homeworld.store.members import Members
from homeworld.store.members_invitations import Invitations
from homeworld.store.migrate import upgrade
from homeworld.store.oauth import Applications
from homeworld.store.oauth_devices import Devices
from homeworld.store.oauth_tokens import OAuthTokens
from homeworld.store.operations import Operations
from homeworld.store.outbox import Outbox
from homeworld.store.passwords import Passwords
from homeworld.store.progress import Progress
from homeworld.store.queue import Queue
from homeworld.store.reparents import Reparents
from homeworld.store.resizes import KeyspaceResizes
from homeworld.store.routing import Routes
from homeworld.store.teams import Teams
from homeworld.store.tenants import Actors, Organizations, Regions
from homeworld.store.tokens import ServiceTokens
from homeworld.store.usage import Usage
from homeworld.store.users import Users
from homeworld.store.users_sessions import Sessions
from homeworld.store.webhooks import Webhooks
from homeworld.store.work import Work
from homeworld.store.workflows import Workflows


class Transaction:
    """All repositories over one transaction. Use it only inside its ``with`` block."""

    def __init__(self, work: Work) -> None:
        self.work = work

    @cached_property
    def organizations(self) -> Organizations:
        """Organizations."""
        return Organizations(self.work)

    @cached_property
    def actors(self) -> Actors:
        """Users, tokens and homeworld itself, as who did what."""
        return Actors(self.work)

    @cached_property
    def regions(self) -> Regions:
        """Regions."""
        return Regions(self.work)

    @cached_property
    def tokens(self) -> ServiceTokens:
        """Service tokens."""
        return ServiceTokens(self.work)

    @cached_property
    def users(self) -> Users:
        """Users and their rights."""
        return Users(self.work)

    @cached_property
    def sessions(self) -> Sessions:
        """Browsers that somebody logged in with."""
        return Sessions(self.work)

    @cached_property
    def members(self) -> Members:
        """Who belongs to an organization."""
        return Members(self.work)

    @cached_property
    def invitations(self) -> Invitations:
        """Invitations."""
        return Invitations(self.work)

    @cached_property
    def teams(self) -> Teams:
        """Teams."""
        return Teams(self.work)

    @cached_property
    def applications(self) -> Applications:
        """OAuth applications."""
        return Applications(self.work)

    @cached_property
    def devices(self) -> Devices:
        """Devices that wait for their user."""
        return Devices(self.work)

    @cached_property
    def oauth_tokens(self) -> OAuthTokens:
        """OAuth tokens."""
        return OAuthTokens(self.work)

    @cached_property
    def audit(self) -> Audit:
        """The audit log, to read."""
        return Audit(self.work)

    @cached_property
    def databases(self) -> Databases:
        """Databases."""
        return Databases(self.work)

    @cached_property
    def branches(self) -> Branches:
        """Branches."""
        return Branches(self.work)

    @cached_property
    def servers(self) -> Servers:
        """Managed servers."""
        return Servers(self.work)

    @cached_property
    def keyspaces(self) -> Keyspaces:
        """Keyspaces and shards."""
        return Keyspaces(self.work)

    @cached_property
    def resizes(self) -> KeyspaceResizes:
        """Resizes of keyspaces."""
        return KeyspaceResizes(self.work)

    @cached_property
    def gateway_resizes(self) -> GatewayResizes:
        """Resizes of branches' gateways."""
        return GatewayResizes(self.work)

    @cached_property
    def reparents(self) -> Reparents:
        """Reparents of shards."""
        return Reparents(self.work)

    @cached_property
    def engine_changes(self) -> EngineChanges:
        """Changes of databases' engines."""
        return EngineChanges(self.work)

    @cached_property
    def followings(self) -> Followings:
        """How far clusters follow."""
        return Followings(self.work)

    @cached_property
    def passwords(self) -> Passwords:
        """Branch passwords."""
        return Passwords(self.work)

    @cached_property
    def workflows(self) -> Workflows:
        """Workflows."""
        return Workflows(self.work)

    @cached_property
    def progress(self) -> Progress:
        """What is told of workflows."""
        return Progress(self.work)

    @cached_property
    def journal(self) -> Journal:
        """Transitions, steps, audit log."""
        return Journal(self.work)

    @cached_property
    def operations(self) -> Operations:
        """What clients wait for."""
        return Operations(self.work)

    @cached_property
    def leases(self) -> Leases:
        """Who works on what."""
        return Leases(self.work)

    @cached_property
    def outbox(self) -> Outbox:
        """Events."""
        return Outbox(self.work)

    @cached_property
    def routes(self) -> Routes:
        """Routing rules and versions."""
        return Routes(self.work)

    @cached_property
    def gateways(self) -> Gateways:
        """Gateways, their leases and holds."""
        return Gateways(self.work)

    @cached_property
    def webhooks(self) -> Webhooks:
        """Webhooks and their deliveries."""
        return Webhooks(self.work)

    @cached_property
    def maintenance(self) -> Maintenance:
        """Maintenance schedules and windows, and what was seen of servers."""
        return Maintenance(self.work)

    @cached_property
    def usage(self) -> Usage:
        """What was used, and invoices of it."""
        return Usage(self.work)

    @cached_property
    def queue(self) -> Queue:
        """What asks for work."""
        return Queue(self.work)


class Store:
    """The control plane's memory. Safe among threads and processes."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._listeners: list[Callable[[], None]] = []

    @classmethod
    def open(cls, url: str, clock: Clock | None = None) -> Self:
        """Open ``sqlite:///path`` or ``postgresql://…`` and bring its schema up to date.

        :raises UnavailableError: the database does not answer.
        """
        engine = open_engine(url)
        upgrade(engine)
        return cls(engine, clock or SystemClock())

    @property
    def engine(self) -> Engine:
        """The engine, for migrations and tests."""
        return self._engine

    @contextmanager
    def read(self) -> Generator[Transaction]:
        """A consistent view of everything. Writing in it is an error.

        :raises UnavailableError: the database does not answer.
        """
        with reading(self._engine) as connection:
            yield Transaction(Work(connection, self._clock.now()))

    @contextmanager
    def write(self) -> Generator[Transaction]:
        """One atomic change; commits when the block ends, nothing is kept if it raises.

        Keep it short and do no I/O in it: writers wait for each other.

        :raises UnavailableError: the database does not answer.
        :raises ConflictError: the state is another one by now, or a constraint refused.
        """
        with writing(self._engine) as connection:
            yield Transaction(Work(connection, self._clock.now()))
        for listener in self._listeners:
            listener()

    @contextmanager
    def touch(self) -> Generator[Transaction]:
        """A small change of one row that must not wait for other writers: a lease's renewal.

        :raises UnavailableError: the database does not answer.
        """
        with touching(self._engine) as connection:
            yield Transaction(Work(connection, self._clock.now()))

    def listen(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after each commit of this process: a hint to look at once instead of at the next
        poll. It must return at once and not raise.
        """
        self._listeners.append(listener)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()
