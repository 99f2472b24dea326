"""Fresh stores for tests, made fast: migrated once, then copied (SQLite) or emptied (PostgreSQL)."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine, text

from homeworld.model.states.lifecycle import Life, LifeTrigger, life_row
from homeworld.model.topology import Flavor
from homeworld.store import engine as store_engine
from homeworld.store.branches import Branch
from homeworld.store.databases import Database
from homeworld.store.engine import open_engine
from homeworld.store.keyspaces import Keyspace
from homeworld.store.migrate import upgrade
from homeworld.store.store import Store, Transaction
from homeworld.store.tables import metadata
from homeworld.store.tenants import Organization, Region

# A machine that pauses must not end a test's transaction, nor its wait for one.
store_engine.IDLE_SECONDS, store_engine.LOCK_SECONDS = 60, 120


@dataclass
class TestClock:
    """A clock that stands still until it is told to go on."""

    __test__ = False
    at: datetime = field(default_factory=lambda: datetime(2026, 3, 1, 12, 0, tzinfo=UTC))

    def now(self) -> datetime:
        """The time as set."""
        return self.at

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.at += timedelta(seconds=seconds)


class SqliteStores:
    """Stores in files of their own, copied from one that was migrated."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._template = folder / "template.db"
        self._count = 0
        engine = open_engine(f"sqlite:///{self._template}")
        upgrade(engine)
        engine.dispose()

    @contextmanager
    def fresh(self, clock: TestClock) -> Generator[Store]:
        """An empty store."""
        self._count += 1
        path = self._folder / f"store-{self._count}.db"
        shutil.copy(self._template, path)
        store = Store(open_engine(f"sqlite:///{path}"), clock)
        yield store
        store.close()
        for left in self._folder.glob(f"{path.name}*"):
            left.unlink()


_DELETES = 40  # between two truncations: nobody takes away what deleted rows leave
_EMPTY = """
DO $$
DECLARE name text; filled boolean;
BEGIN
  FOR name IN
    SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'
  LOOP
    EXECUTE format('SELECT EXISTS(SELECT 1 FROM %I)', name) INTO filled;
    IF filled THEN EXECUTE format('DELETE FROM %I', name); END IF;
  END LOOP;
  FOR name IN
    SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' AND last_value IS NOT NULL
  LOOP
    EXECUTE format('ALTER SEQUENCE %I RESTART', name);
  END LOOP;
END $$
"""


class PostgresStores:
    """One database, emptied for every test: truncating all would take a fifth of a second each time."""

    def __init__(self, url: str) -> None:
        self._count = 0
        self._engine = open_engine(url)
        upgrade(self._engine)

    @property
    def engine(self) -> Engine:
        """The engine of the database."""
        return self._engine

    @contextmanager
    def fresh(self, clock: TestClock) -> Generator[Store]:
        """An empty store."""
        self._count += 1
        with self._engine.begin() as connection:
            if self._count % _DELETES:
                # Whoever a test has left writes first: rows that nobody sees yet would be the next one's.
                connection.execute(text(f"SELECT pg_advisory_xact_lock({store_engine.WRITER_LOCK})"))
                connection.execute(text("SET LOCAL session_replication_role = replica"))  # keys in any order
                connection.execute(text(_EMPTY))
            else:
                names = ", ".join(metadata.tables)
                connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))
        yield Store(self._engine, clock)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()


@dataclass(frozen=True)
class Shop:
    """A database as most tests want it: a ready production branch with two ready keyspaces."""

    organization: Organization
    region: Region
    database: Database
    branch: Branch
    source: Keyspace
    target: Keyspace


def make_shop(tx: Transaction, name: str = "shop", *, flavor: Flavor = Flavor.MYSQL) -> Shop:
    """An unsharded keyspace named as the database, and ``<name>_sharded`` of two shards."""
    made = life_row(Life.PENDING, LifeTrigger.MADE)
    organization = tx.organizations.ensure("acme")
    region = tx.regions.ensure("local", display_name="Local", provider="Homeworld", location="Here")
    database = tx.databases.create(organization.id, name, region.id, flavor)
    branch = tx.branches.create(database.id, "main", region.id, production=True, is_default=True)
    tx.branches.update(branch.id, safe_migrations=True)
    source = tx.keyspaces.create(branch.id, name, is_default=True)
    target = tx.keyspaces.create(branch.id, f"{name}_sharded", shards=2)
    primary = tx.servers.create(branch.id, flavor)
    replica = tx.servers.create(branch.id, flavor, replica_of=primary.id)
    for keyspace in (source, target):
        for shard in tx.keyspaces.shards(keyspace.id):
            tx.keyspaces.place(shard.id, primary.id, [replica.id])
        tx.keyspaces.transition(keyspace.id, Life.PENDING, made)
    for server in (primary, replica):
        tx.servers.transition(server.id, Life.PENDING, made)
    branch = tx.branches.transition(branch.id, Life.PENDING, made)
    database = tx.databases.transition(database.id, Life.PENDING, made)
    return Shop(
        organization,
        region,
        database,
        branch,
        tx.keyspaces.get(source.id),
        tx.keyspaces.get(target.id),
    )
