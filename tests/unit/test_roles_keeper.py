"""Who looks after the servers: also where the store is silent, or a record cannot be read."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from homeworld.engines.locks import NamedLocks
from homeworld.model.errors import InvalidError, UnavailableError
from homeworld.roles import keeper
from homeworld.roles.keeper import EngineKeeper
from homeworld.store.store import Store


class Servers:
    """An engine of no server, whose start may fail."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.looked = threading.Event()

    def start_all(self) -> dict[str, str]:
        if self.error is not None:
            raise self.error
        return {}

    def list_servers(self) -> list[str]:
        self.looked.set()
        return []


def test_a_record_that_cannot_be_read_keeps_no_server_from_being_watched(sqlite_store: Store) -> None:
    servers: Any = Servers(InvalidError("server.json cannot be understood"))
    one = EngineKeeper(sqlite_store, servers, "one")
    one.start()
    assert servers.looked.wait(30)
    one.stop(10.0)
    assert one.failure is None


class Silent:
    """A store that never answers."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.answers = threading.Event()

    @contextmanager
    def write(self) -> Generator[None]:
        self.asked.set()
        self.answers.wait(60)
        raise UnavailableError
        yield


def test_a_store_that_does_not_answer_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "ANSWER_SECONDS", 0.2)
    store: Any = Silent()
    servers: Any = Servers()
    one = EngineKeeper(store, servers, "one")
    with pytest.raises(UnavailableError, match="does not say"):
        one.start()
    store.answers.set()
    one.stop(10.0)


def test_a_lock_that_is_not_given_is_not_waited_for_without_end(tmp_path: Path) -> None:
    theirs, ours = NamedLocks(tmp_path), NamedLocks(tmp_path, 0.2)
    with theirs.hold("a"):
        with pytest.raises(UnavailableError, match="at work on a"), ours.hold("a"):
            pass
        with ours.attempt("a") as taken:
            assert not taken
        with ours.hold("b"), ours.hold("b"):
            pass
    with ours.hold("a"), theirs.attempt("a") as taken:
        assert not taken
