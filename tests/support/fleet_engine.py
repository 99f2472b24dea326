"""An engine without servers: it keeps the whole contract of ``model.ports.Engine`` in memory, and what
LocalEngine has beyond it (promotions, restarts, what the watcher and the meter ask).

The control plane cannot tell it from LocalEngine, but for that nobody listens at its endpoints.
``tests/servers/test_engine_contract.py`` holds both to the same assertions. A transaction is a number: a
primary's ``position`` grows with :meth:`FleetEngine.commit`, a replica has all of its primary's unless it was
silent or dead. Invariants: acts on one server are one at a time; what a server has is lost with
:meth:`FleetEngine.destroy_server` only.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from homeworld.engines.accounts import user_of
from homeworld.engines.replicas import Mended
from homeworld.model.errors import (
    DeadlineExceededError,
    HomeworldError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from homeworld.model.names import SERVER_SCHEMAS, fits_schema
from homeworld.model.ports import ServerStatus
from homeworld.model.sizes import Host, ServerSize
from homeworld.model.topology import BackendRole, Endpoint, Flavor
from tests.support.fleet_weather import Fault, Latency, Weather

FOLLOWS_NOBODY = "it follows nobody yet"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z", re.ASCII)
_VERSIONS = {Flavor.MARIADB: "10.11.0", Flavor.MYSQL: "9.7.0"}
_EMPTY_BYTES = 120 * 2**20


@dataclass(slots=True)
class _Server:
    """A server as it is. ``pid`` is None where its process does not run; ``seen`` is until when its faults
    have come about.
    """

    id: str
    replica_of: str | None
    size: ServerSize | None
    seen: float
    pid: int | None = None
    starts: int = 0
    silent_until: float = 0.0
    follows: bool = False
    position: int = 0
    schemas: set[str] = field(default_factory=set[str])
    lock: threading.RLock = field(default_factory=threading.RLock)


class FleetEngine:
    """Implements ``model.ports.Engine``, ``workflows.failover.Promotes``, ``engines.watcher.Watched``.

    :param clock: seconds; what :class:`Weather` and :attr:`began` are told by.
    :param sleep: how latencies pass.
    """

    def __init__(
        self,
        flavor: Flavor = Flavor.MARIADB,
        *,
        latency: Latency = Latency(),  # noqa: B008 - frozen
        weather: Weather = Weather(),  # noqa: B008 - frozen
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.flavor = flavor
        self.latency = latency
        self.weather = weather
        #: When a server was asked for first, by the clock.
        self.began: dict[str, float] = {}
        #: Whether servers that are asked for from now on do not come up, until :meth:`relent`.
        self.refusing = False
        self._refused: set[str] = set()
        self._clock = clock
        self._sleep = sleep
        self._guard = threading.Lock()
        self._servers: dict[str, _Server] = {}
        self._held_down: set[str] = set()
        self._last_pid = 1000
        self._credentials = {role: (user_of(role), f"of {role}") for role in BackendRole}

    # -- as its tests and benches see it ---------------------------------------------------------------------

    def adopt(self, servers: Iterable[tuple[str, str | None, Iterable[str]]]) -> None:
        """Have servers that run already, as an engine that was started anew finds them: (id, its primary's
        id, schemas).
        """
        for server_id, replica_of, schemas in servers:
            server = _Server(server_id, replica_of, None, self._clock(), follows=replica_of is not None)
            server.schemas.update(schemas)
            self._servers[server_id] = server
            self._run(server)

    def kill(self, server_id: str) -> None:
        """Let a server's process die."""
        self._get(server_id).pid = None

    def silence(self, server_id: str, seconds: float) -> None:
        """Let a server answer nobody for so long."""
        self._get(server_id).silent_until = self._clock() + seconds

    def commit(self, server_id: str, transactions: int = 1) -> None:
        """Commit something on a primary; its replicas that follow and are well have it at once."""
        server = self._accepting(server_id)
        server.position += transactions
        for other in self._followers(server_id):
            if other.follows and self._accepts(other):
                other.position = server.position

    def schemas(self, server_id: str) -> frozenset[str]:
        """The schemas of keyspaces that a server has; a replica's are its primary's."""
        server = self._get(server_id)
        if server.replica_of is not None:
            return self.schemas(server.replica_of)
        return frozenset(server.schemas)

    def relent(self) -> None:
        """Let everything come up again."""
        self.refusing = False
        self._refused.clear()

    @property
    def version(self) -> str:
        """See ``LocalEngine``."""
        return _VERSIONS[self.flavor]

    def credentials(self) -> Mapping[BackendRole, tuple[str, str]]:
        """See ``LocalEngine``."""
        return self._credentials

    # -- the Engine protocol ---------------------------------------------------------------------------------

    def create_server(
        self, server_id: str, *, replica_of: str | None = None, size: ServerSize | None = None
    ) -> None:
        """See ``model.ports.Engine``."""
        self.began.setdefault(server_id, self._clock())
        server = self._intend(server_id, replica_of, size)
        with server.lock:
            self._bring_up(server)
            self._follow(server)

    def _intend(self, server_id: str, replica_of: str | None, size: ServerSize | None) -> _Server:
        if not _ID.match(server_id):
            raise InvalidError(f"{server_id!r} cannot be the id of a server")
        with self._guard:
            known = self._servers.get(server_id)
            if known is not None:
                if known.replica_of != replica_of:
                    part = f"a replica of {known.replica_of}" if known.replica_of else "a primary"
                    raise InvalidError(f"server {server_id} exists already as {part}")
                return known
            if replica_of is not None and self._get(replica_of).replica_of is not None:
                raise InvalidError(f"{replica_of} is a replica itself; only primaries have replicas")
            if self.refusing:
                self._refused.add(server_id)
            made = self._servers[server_id] = _Server(server_id, replica_of, size, self._clock())
            return made

    def destroy_server(self, server_id: str) -> None:
        """See ``model.ports.Engine``."""
        self._servers.pop(server_id, None)
        self._held_down.discard(server_id)
        self._refused.discard(server_id)

    def host(self) -> Host:
        """A machine on which nothing is scarce."""
        return Host(cpus=64, memory_mb=512 * 1024)

    def resize_server(self, server_id: str, size: ServerSize | None) -> bool:
        """See ``model.ports.Engine``; every size is in force at once."""
        server = self._get(server_id)
        with server.lock:
            server.size = size  # first, as LocalEngine: its next start has it
            self._accepting(server_id)
        return True

    def restart_server(self, server_id: str) -> None:
        """See ``model.ports.Engine``."""
        server = self._get(server_id)
        with server.lock:
            self._held_down.discard(server_id)
            server.pid, server.silent_until = None, 0.0
            self._bring_up(server)
            self._follow(server)

    def restarts(self, server_id: str) -> int:
        """See ``model.ports.Engine``."""
        return max(0, self._get(server_id).starts - 1)

    def endpoint(self, server_id: str, role: BackendRole) -> Endpoint:
        """See ``model.ports.Engine``. Nobody listens there."""
        self._get(server_id)
        user, password = self._credentials[role]
        socket = f"/nowhere/homeworld/servers/{server_id}/mysql.sock"
        return Endpoint(server_id, self.flavor, "127.0.0.1", 1, socket, user, password)

    def create_schema(self, server_id: str, schema: str) -> None:
        """See ``model.ports.Engine``."""
        self._check_schema(server_id, schema)
        with self._get(server_id).lock:
            self._accepting(server_id).schemas.add(schema)

    def drop_schema(self, server_id: str, schema: str, confirm: Callable[[], None] = lambda: None) -> None:
        """See ``model.ports.Engine``."""
        self._check_schema(server_id, schema)
        with self._get(server_id).lock:
            server = self._accepting(server_id)
            confirm()
            server.schemas.discard(schema)

    def status(self, server_id: str) -> ServerStatus:
        """See ``model.ports.Engine``."""
        server = self._get(server_id)
        self._pass(self.latency.look)
        accepting, error, lag = self._accepts(server), "", None
        if server.replica_of is not None:
            if server.pid is None:
                error = "the server does not run"
            elif not accepting:
                error = f"server {server_id} does not answer"
            elif not server.follows:
                error = FOLLOWS_NOBODY
            else:
                lag = 0.0
        running = server.pid is not None
        return ServerStatus(server_id, running, accepting, server.pid, server.replica_of, lag, error)

    def wait_replica(self, server_id: str, timeout_seconds: float) -> None:
        """See ``model.ports.Engine``."""
        server = self._get(server_id)
        if server.replica_of is None:
            raise InvalidError(f"server {server_id} is no replica")
        primary = self._accepting(server.replica_of)
        self._accepting(server_id)
        if not server.follows:
            self._pass(timeout_seconds)
            raise DeadlineExceededError(f"{server_id} has not caught up in {timeout_seconds:g} s")
        server.position = max(server.position, primary.position)

    # -- promotions ------------------------------------------------------------------------------------------

    def promote(self, server_id: str, *, accept_loss: bool = False, timeout_seconds: float = 30.0) -> None:
        """See ``LocalEngine.promote``; it does not break off half way."""
        heir = self._get(server_id)
        if heir.replica_of is None:
            return
        former = self._get(heir.replica_of)
        others = [other for other in self._followers(former.id) if other is not heir]
        with ExitStack() as stack:
            for one in sorted((heir, former, *others), key=lambda each: each.id):
                stack.enter_context(one.lock)
            self._accepting(server_id)
            if self._accepts(former):
                self.wait_replica(server_id, timeout_seconds)
            elif not accept_loss:
                raise UnavailableError(
                    f"{former.id} does not answer, so nobody knows whether {server_id} has all of it"
                )
            else:
                former.pid = None
                for other in others:
                    if self._accepting(other.id).position > heir.position:
                        raise InvalidError(f"replica {other.id} has more; promote that one")
            heir.replica_of, heir.follows = None, False
            heir.schemas, former.schemas = former.schemas, set()
            for other in (former, *others):
                other.replica_of, other.follows = server_id, False
        self._held_down.discard(former.id)
        for other in others:
            self.mend_replica(other.id)

    def is_primary(self, server_id: str) -> bool:
        """See ``LocalEngine``."""
        server = self._servers.get(server_id)
        return server is not None and server.replica_of is None

    def furthest(self, server_ids: Sequence[str], timeout_seconds: float = 10.0) -> str:
        """See ``LocalEngine``."""
        del timeout_seconds
        asked = [self._get(server_id) for server_id in server_ids]
        answering = [server for server in asked if self._accepts(server)]
        if not answering:
            raise UnavailableError(f"of the replicas {', '.join(server_ids)} none answers")
        return max(answering, key=lambda server: server.position).id

    def follows(self, server_id: str) -> str:
        """See ``LocalEngine``."""
        server = self._get(server_id)
        if server.replica_of is None:
            return "it is a primary"
        try:
            self._follow(server)
        except HomeworldError as error:
            return error.message
        return ""

    def unsettled(self, server_id: str) -> bool:
        """No promotion breaks off here."""
        self._get(server_id)
        return False

    def settle(self, server_id: str) -> str:
        """Nothing is to be settled."""
        self._get(server_id)
        return ""

    # -- all servers -----------------------------------------------------------------------------------------

    def list_servers(self) -> list[str]:
        """See ``LocalEngine``."""
        with self._guard:
            return sorted(self._servers)

    def replicas_of(self, server_id: str) -> list[str]:
        """See ``LocalEngine``."""
        return sorted(server.id for server in self._followers(server_id))

    def start_server(self, server_id: str) -> None:
        """See ``LocalEngine``."""
        server = self._get(server_id)
        with server.lock:
            self._held_down.discard(server_id)
            self._bring_up(server)
            self._follow(server)

    def stop_server(self, server_id: str, timeout_seconds: float = 30.0) -> None:
        """See ``LocalEngine``."""
        del timeout_seconds
        server = self._get(server_id)
        with server.lock:
            self._held_down.add(server_id)
            server.pid = None

    def start_all(self) -> dict[str, str]:
        """See ``LocalEngine``."""
        failures: dict[str, str] = {}
        for server_id in sorted(self.list_servers(), key=lambda each: not self.is_primary(each)):
            try:
                self.start_server(server_id)
            except HomeworldError as error:
                failures[server_id] = error.message
        return failures

    def stop_all(self, timeout_seconds: float = 30.0) -> list[str]:
        """See ``LocalEngine``."""
        for server_id in self.list_servers():
            self.stop_server(server_id, timeout_seconds)
        return []

    # -- for the watcher and the meter -----------------------------------------------------------------------

    def revive(self, server_id: str) -> bool:
        """See ``LocalEngine``."""
        server = self._servers.get(server_id)
        if server is None or server_id in self._held_down or server.pid is not None or not server.starts:
            return False
        self._run(server)
        return True

    def mend_replica(self, server_id: str) -> Mended:
        """See ``LocalEngine``."""
        return self._follow(self._get(server_id))

    def held_down(self, server_id: str) -> bool:
        """See ``LocalEngine``."""
        return server_id in self._held_down

    def last_words(self, server_id: str) -> str:
        """See ``LocalEngine``."""
        return f"server {server_id} has said nothing"

    def running_version(self, server_id: str) -> str:
        """See ``LocalEngine``."""
        self._accepting(server_id)
        return self.version

    def storage_bytes(self, server_id: str) -> int:
        """See ``LocalEngine``."""
        return _EMPTY_BYTES if server_id in self._servers else 0

    # -- beneath ---------------------------------------------------------------------------------------------

    def _get(self, server_id: str) -> _Server:
        """The server, with what has happened to it up to now.

        :raises NotFoundError: there is none.
        """
        server = self._servers.get(server_id)
        if server is None:
            raise NotFoundError(f"no server {server_id!r} in this fleet")
        if self.weather.every_seconds:
            now = self._clock()
            for moment, fault in self.weather.faults(server_id, server.seen, now):
                if fault is Fault.DEATH:
                    server.pid = None
                else:
                    server.silent_until = moment + self.weather.silent_seconds
            server.seen = now
        return server

    def _accepts(self, server: _Server) -> bool:
        return server.pid is not None and self._clock() >= server.silent_until

    def _accepting(self, server_id: str) -> _Server:
        """The server, asked something.

        :raises UnavailableError: it does not answer.
        """
        server = self._get(server_id)
        self._pass(self.latency.act)
        if not self._accepts(server):
            raise UnavailableError(f"server {server_id} does not answer")
        return server

    def _bring_up(self, server: _Server) -> None:
        if server.id in self._refused:
            raise UnavailableError(f"server {server.id} does not accept after 0 s")
        if server.pid is None:
            self._run(server)
            self._pass(self.latency.start)
        self._accepting(server.id)

    def _run(self, server: _Server) -> None:
        with self._guard:
            self._last_pid += 1
            server.pid = self._last_pid
        server.starts += 1

    def _follow(self, server: _Server) -> Mended:
        if server.replica_of is None:
            return Mended.NOTHING
        primary = self._accepting(server.replica_of)
        self._accepting(server.id)
        if server.position > primary.position and not server.follows:
            raise InvalidError(f"server {server.id} has transactions of its own")
        was, server.follows = server.follows, True
        server.position = primary.position
        return Mended.NOTHING if was else Mended.ATTACHED

    def _followers(self, server_id: str) -> list[_Server]:
        with self._guard:
            return [server for server in self._servers.values() if server.replica_of == server_id]

    def _check_schema(self, server_id: str, schema: str) -> None:
        if schema.lower() in SERVER_SCHEMAS:
            raise InvalidError(f"the schema name {schema!r} belongs to the server")
        if not fits_schema(schema):
            raise InvalidError(f"the schema name {schema!r} is too long to give rights on it")
        replica_of = self._get(server_id).replica_of
        if replica_of is not None:
            raise InvalidError(f"{server_id} is a replica; schemas are made on its primary {replica_of}")

    def _pass(self, seconds: float) -> None:
        if seconds:
            self._sleep(seconds)
