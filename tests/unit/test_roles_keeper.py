"""Who looks after the servers: also where the store is silent, or a record cannot be read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
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


def test_a_name_is_claimed_by_one_whoever_lets_it_go(tmp_path: Path) -> None:
    theirs, ours = NamedLocks(tmp_path), NamedLocks(tmp_path)
    release = theirs.claim("rules", 0.0)
    for locks in (theirs, ours):  # also not twice by the same thread
        with pytest.raises(UnavailableError, match="at work on rules"):
            locks.claim("rules", 0.05)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(release).result(10)
    again = ours.claim("rules", 0.0)
    release()  # let go already: it is nobody else's that it closes
    with pytest.raises(UnavailableError):
        theirs.claim("rules", 0.0)
    again()


def test_a_claim_ends_with_its_process_whatever_that_has_begun(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys; from pathlib import Path; from homeworld.engines.locks import NamedLocks\n"
        "NamedLocks(Path(sys.argv[1])).claim('rules', 0.0)\n"
        "child = subprocess.Popen(['sleep', '60'], close_fds=False)\n"
        "print(child.pid, flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    ours = NamedLocks(tmp_path)
    try:
        with pytest.raises(UnavailableError):
            ours.claim("rules", 0.0)
        process.kill()
        process.wait(10)
        ours.claim("rules", 5.0)()
    finally:
        os.kill(child, signal.SIGKILL)
        process.communicate()
