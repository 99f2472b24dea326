"""Stores for unit tests: ``store`` is once SQLite and once PostgreSQL, ``sqlite_store`` the former only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from homeworld.store.store import Store
from tests.support import postgres
from tests.support.api import ServedApi
from tests.support.stores import PostgresStores, SqliteStores, TestClock


@pytest.fixture
def clock() -> TestClock:
    """The time of the store under test."""
    return TestClock()


@pytest.fixture(scope="session")
def sqlite_stores(tmp_path_factory: pytest.TempPathFactory) -> SqliteStores:
    """Makes SQLite stores."""
    return SqliteStores(tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="session")
def postgres_stores() -> Iterator[PostgresStores]:
    """Makes PostgreSQL stores, in a cluster of this session's own."""
    if postgres.programs() is None:
        pytest.skip("PostgreSQL is not installed")
    cluster = postgres.Postgres()
    stores = PostgresStores(cluster.url("postgres"))
    yield stores
    stores.close()
    cluster.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, clock: TestClock) -> Iterator[Store]:
    """An empty store, once of each kind."""
    stores: SqliteStores | PostgresStores
    stores = request.getfixturevalue("sqlite_stores" if request.param == "sqlite" else "postgres_stores")
    with stores.fresh(clock) as made:
        yield made


@pytest.fixture
def sqlite_store(sqlite_stores: SqliteStores, clock: TestClock) -> Iterator[Store]:
    """An empty SQLite store."""
    with sqlite_stores.fresh(clock) as made:
        yield made


@pytest.fixture(scope="session")
def served_api() -> Iterator[ServedApi]:
    """The API server of this session."""
    served = ServedApi()
    yield served
    served.close()
