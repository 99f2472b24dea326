"""The API served for real: uvicorn in a thread on a free loopback port, one for many tests.

Each test gets its own store: the served app finds its store anew with every request.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager

import httpx
import uvicorn
from fastapi import FastAPI

from homeworld.api.app import create_app
from homeworld.api.calls import Api, Settings
from homeworld.api.scopes import ALL_ACCESSES
from homeworld.model.errors import InvalidError, UnavailableError
from homeworld.model.inspection import Definition, ServerConnection, TableFacts
from homeworld.model.ports import MoveWish, ServerStatus
from homeworld.model.sizes import Host
from homeworld.store.store import Store
from homeworld.store.tenants import Organization


class StatedPreconditions:
    """Preconditions as a test states them; remembers what was asked."""

    def __init__(self) -> None:
        self.against: tuple[str, ...] = ()
        self.asked: list[MoveWish] = []

    def reasons(self, wish: MoveWish) -> tuple[str, ...]:
        """What the test stated."""
        self.asked.append(wish)
        return self.against

    def lasting(self, wish: MoveWish) -> tuple[str, ...]:
        """The same."""
        return self.reasons(wish)


class StatedPlacements:
    """Placements as a test states them: which tables have rows; remembers what was asked."""

    def __init__(self, *filled: str) -> None:
        self.filled = set(filled)
        self.asked: list[tuple[str, ...]] = []
        self.judged: list[tuple[str, Mapping[str, object]]] = []
        self.refusal = ""

    @contextmanager
    def still(self, keyspace_id: str, tables: Sequence[str]) -> Generator[None]:
        """See ports.Placements."""
        self.asked.append(tuple(tables))
        found = self.filled & set(tables)
        if found:
            raise InvalidError(f"keyspace {keyspace_id}: rows in {sorted(found)}")
        yield

    def check(self, keyspace_id: str, vschema: Mapping[str, object]) -> None:
        """See ports.Placements."""
        if self.refusal:
            raise InvalidError(self.refusal)
        self.judged.append((keyspace_id, vschema))


class StatedInspection:
    """Servers as a test states them: what keyspaces have, who is connected; remembers what was ended."""

    def __init__(self) -> None:
        self.tables: dict[str, list[Definition]] = {}
        self.found: dict[str, list[TableFacts]] = {}
        self.connected: list[ServerConnection] = []
        self.silent = False
        self.ended: list[tuple[str, int, bool]] = []

    def host(self) -> Host:
        """A small machine."""
        return Host(cpus=2, memory_mb=8192)

    def status(self, server_id: str) -> ServerStatus:
        """It accepts."""
        self._answer()
        return ServerStatus(server_id, True, True, 1, None, None, "")

    def restarts(self, server_id: str) -> int:
        """As many as its id is long."""
        return len(server_id)

    def definitions(self, keyspace_id: str) -> Sequence[Definition]:
        """What the test stated."""
        self._answer()
        return self.tables.get(keyspace_id, [])

    def facts(self, keyspace_id: str) -> Sequence[TableFacts]:
        """What the test stated."""
        self._answer()
        return self.found.get(keyspace_id, [])

    def connections(self, server_id: str) -> Sequence[ServerConnection]:  # noqa: ARG002 - the port's signature
        """What the test stated, on every server."""
        self._answer()
        return self.connected

    def kill(self, server_id: str, number: int, *, query: bool) -> None:
        """Remember it."""
        self.ended.append((server_id, number, query))

    def _answer(self) -> None:
        if self.silent:
            raise UnavailableError("the server does not answer")


class ServedApi:
    """A running API server. ``use`` gives it the store of the test at hand."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._app: FastAPI | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def use(self, store: Store, settings: Settings) -> None:
        """Serve this store from now on."""
        if self._app is None:
            self._app = create_app(store, settings)
            self._start(self._app)
        self._app.state.api = Api(store, settings)

    def _start(self, app: FastAPI) -> None:
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}, name="api under test"
        )
        self._thread.start()
        deadline = time.monotonic() + 30
        while not self._server.started:
            if time.monotonic() > deadline:
                raise TimeoutError("the API did not start")
            time.sleep(0.01)

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join()
        self._listener.close()


@contextmanager
def client_of(
    served: ServedApi, store: Store, organization: Organization, accesses: Iterable[str] = ALL_ACCESSES
) -> Generator[httpx.Client]:
    """An HTTP client with a token of the organization that holds these accesses on it."""
    with store.write() as tx:
        token, secret = tx.tokens.create(organization.id, "tests")
        tx.tokens.grant(token.id, "organization", organization.id, accesses)
    headers = {"Authorization": f"{token.id}:{secret}"}
    with httpx.Client(base_url=served.url, headers=headers, timeout=30, trust_env=False) as client:
        yield client
