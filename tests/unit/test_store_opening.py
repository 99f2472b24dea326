"""Opening a store: together with others, on what is not there, and after a writer was killed."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from homeworld.api.calls import Settings
from homeworld.model.errors import NotFoundError, UnavailableError
from homeworld.store.engine import SystemClock, open_engine
from homeworld.store.store import Store
from tests.support.api import ServedApi, StatedPreconditions
from tests.support.stores import PostgresStores


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database in which nothing is."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'new.db'}"
        return
    stores: PostgresStores = request.getfixturevalue("postgres_stores")
    with stores.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CREATE DATABASE opened"))
        yield stores.engine.url.set(database="opened").render_as_string(hide_password=False)
        connection.execute(text("DROP DATABASE opened WITH (FORCE)"))


def test_those_that_start_together_migrate_once(empty_url: str) -> None:
    barrier = threading.Barrier(4)

    def start(number: int) -> Store:
        barrier.wait()
        store = Store.open(empty_url)
        with store.write() as tx:
            tx.organizations.ensure(f"o{number}")
        return store

    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(start, range(4)))
    with stores[0].read() as tx:
        assert [tx.organizations.by_name(f"o{number}").name for number in range(4)] == [
            "o0",
            "o1",
            "o2",
            "o3",
        ]
    for store in stores:
        store.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://127.0.0.1/x"])
def test_what_cannot_hold_a_control_plane_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="SQLite file or in PostgreSQL"):
        open_engine(url)


def test_every_sqlite_connection_is_durable_and_strict(sqlite_store: Store) -> None:
    def pragma(name: str) -> object:
        with sqlite_store.read() as tx:
            return tx.work.connection.execute(text(f"PRAGMA {name}")).scalar_one()

    assert [pragma(name) for name in ("journal_mode", "synchronous", "foreign_keys")] == ["wal", 2, 1]


NOWHERE = "postgresql://nobody@127.0.0.1:1/nowhere"


def test_a_database_that_does_not_answer_is_unavailable(served_api: ServedApi) -> None:
    with pytest.raises(UnavailableError):
        Store.open(NOWHERE)
    store = Store(open_engine(NOWHERE), SystemClock())
    served_api.use(store, Settings(StatedPreconditions()))
    for path in ("/healthz", "/v1/organizations"):
        answer = httpx.get(
            f"{served_api.url}{path}", headers={"Authorization": "x:y"}, timeout=60, trust_env=False
        )
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert "127.0.0.1" not in answer.text
    store.close()


KILLED = """
import os, signal, sys
from homeworld.store.store import Store
store = Store.open(sys.argv[1])
with store.write() as tx:
    tx.organizations.ensure("kept")
with store.write() as tx:
    tx.organizations.ensure("lost")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_what_it_committed_and_no_lock(empty_url: str) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, empty_url], check=False, timeout=60)
    assert ended.returncode == -9
    store = Store.open(empty_url)
    with store.write() as tx:
        assert tx.organizations.by_name("kept").name == "kept"
        with pytest.raises(NotFoundError):
            tx.organizations.by_name("lost")
    store.close()
