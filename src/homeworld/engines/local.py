"""LocalEngine: MySQL or MariaDB servers as processes of this host.

Servers live in sessions of their own and outlive this process; what is on disk under the data directory is
the truth, and a new LocalEngine on the same directory finds everything again. Every act on one server holds
that server's lock, begins from what is really there, and can be called again after it failed or died midway.
Knows no keyspaces or branches: the caller names servers and schemas. Several processes may use one data
directory at the same time; at most one of them has a watcher, or what one stops on purpose the other starts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path

from homeworld.engines import limits, process, replicas, sizing
from homeworld.engines.accounts import user_of
from homeworld.engines.config import Sizes
from homeworld.engines.flavors import grant_statements, rules, schema_pattern
from homeworld.engines.fleet import Fleet
from homeworld.engines.layout import PORTS, Record
from homeworld.engines.locks import NamedLocks
from homeworld.engines.promotion import Promotions
from homeworld.engines.usage import storage_bytes
from homeworld.engines.watcher import Watcher, WatchEvent
from homeworld.model.errors import HomeworldError, InvalidError, NotFoundError, UnavailableError
from homeworld.model.names import SERVER_SCHEMAS, fits_schema, grant_pattern, quote
from homeworld.model.ports import ServerStatus
from homeworld.model.sizes import Host, ServerSize
from homeworld.model.topology import BackendRole, Endpoint, Flavor

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_DROP_SECONDS = 120
_BUSY_SECONDS = 3.0  # for whoever is at work on a server, where something else waits as well
_FOLLOWS_NOBODY = "it follows nobody yet"


class LocalEngine:
    """Implements ``model.ports.Engine`` on this host.

    :param data_dir: holds everything; made where absent.
    :param mysqld: the server program for new servers; None: the first supported one of this machine.
    :param buffer_pool_mb: InnoDB's buffer pool of each server, in MiB.
    :param sizes: further settings of each server; ``buffer_pool_mb`` wins over its own.
    :param ports: loopback ports to choose from.
    :param start_timeout_seconds: how long a server may take until it accepts; recovery after a crash counts.
    :raises InvalidError: no supported server program, or the installation's passwords are lost.
    """

    def __init__(
        self,
        data_dir: Path,
        mysqld: Path | None = None,
        buffer_pool_mb: int = 128,
        *,
        sizes: Sizes | None = None,
        ports: range = PORTS,
        start_timeout_seconds: float = 120.0,
    ) -> None:
        chosen = replace(sizes or Sizes(), buffer_pool_mb=buffer_pool_mb)
        self._fleet = Fleet(data_dir, mysqld, chosen, ports, start_timeout_seconds)
        self._layout = self._fleet.layout
        self.flavor: Flavor = self._fleet.binary.flavor
        self._locks = NamedLocks(self._layout.locks)
        self._promotions = Promotions(self._fleet, self._locks)
        self._held_down: set[str] = set()

    @property
    def version(self) -> str:
        """The version of the server program that new servers run, as ``9.7.4``."""
        return self._fleet.binary.version_text

    def credentials(self) -> Mapping[BackendRole, tuple[str, str]]:
        """User name and password of each role, the same on every server of the installation."""
        passwords = self._fleet.accounts.passwords
        return {role: (user_of(role), passwords[role]) for role in BackendRole}

    # -- the Engine protocol ---------------------------------------------------------------------------------

    def create_server(
        self, server_id: str, *, replica_of: str | None = None, size: ServerSize | None = None
    ) -> None:
        """Make, start and secure a server; returns once it accepts.

        :param replica_of: the id of a server that exists and accepts; this one becomes its read-only replica.
        :param size: of a new one; None: as the installation's configuration has it. One that exists keeps its
            own.
        :raises InvalidError: it exists in another part, or the primary's binlogs are no longer complete.
        :raises UnavailableError: it did not come up in time; calling again goes on.
        """
        # A new record is written under the primary's lock too: a promotion changes those of its followers.
        known = server_id in self._layout.ids()
        names = {server_id} if known else {server_id, replica_of or server_id}
        with ExitStack() as stack:
            for name in sorted(names):
                stack.enter_context(self._lock(name))
            self._fleet.intend(server_id, replica_of, size)
        with self._lock(server_id):
            self._fleet.bring_up(self._layout.read(server_id))
            if replica_of is not None:
                self._follow(self._layout.read(server_id))

    def destroy_server(self, server_id: str) -> None:
        """Kill the server and delete its data. Unknown ids are fine."""
        with self._lock(server_id):
            self._fleet.destroy(server_id)
            self._held_down.discard(server_id)

    def endpoint(self, server_id: str, role: BackendRole) -> Endpoint:
        """How to reach the server as that role's account. The port can change when a server is started anew
        and something else has taken it; the socket never does.

        :raises NotFoundError: no such server.
        """
        return self._fleet.endpoint(self._layout.read(server_id), role)

    def host(self) -> Host:
        """What this machine has."""
        return replace(limits.host(), own_pool_mb=self._fleet.default_size().buffer_pool_mb)

    def resize_server(self, server_id: str, size: ServerSize | None) -> bool:
        """Give the server this size from now on, also after any restart; None: the installation's own.

        :returns: whether it is in force; False: a restart is needed for some of it.
        :raises NotFoundError: no such server.
        :raises UnavailableError: it does not answer, or is not done in time; calling again goes on.
        """
        with self._lock(server_id):
            record = self._layout.read(server_id)
            if record.size != size:
                # First: what dies from here on finds the new size at its next start.
                record = replace(record, size=size)
                self._layout.write(record)
            with self._fleet.owner(server_id) as owner:
                waiting = sizing.resize(owner, size or self._fleet.default_size())
            self._fleet.keep_cpus(record)
        if waiting:
            _log.info("server %s takes %s with a restart only", server_id, ", ".join(waiting))
        return not waiting

    def restarts(self, server_id: str) -> int:
        """How often the server's process was started again after its first start.

        :raises NotFoundError: no such server.
        """
        return max(0, self._layout.read(server_id).starts - 1)

    def create_schema(self, server_id: str, schema: str) -> None:
        """Create a schema (utf8mb4) and give the roles their rights on it, here and on all replicas.

        :raises InvalidError: the server is a replica, or the name belongs to the server itself.
        """
        with self._lock(server_id):
            self._check_schema(server_id, schema)
            with self._fleet.owner(server_id) as owner:
                owner.run(f"CREATE DATABASE IF NOT EXISTS {quote(schema)} CHARACTER SET utf8mb4")
                for statement in grant_statements(schema):
                    owner.run(statement)

    def drop_schema(self, server_id: str, schema: str, confirm: Callable[[], None] = lambda: None) -> None:
        """Drop the schema and the rights on it. An unknown schema is fine.

        :param confirm: asked right before, while nobody else can be at work on the server; it may raise.
        :raises InvalidError: the server is a replica, or the name belongs to the server itself.
        """
        pattern = schema_pattern(schema)
        with self._lock(server_id):
            self._check_schema(server_id, schema)
            with self._fleet.owner(server_id, _DROP_SECONDS) as owner:
                # Behind a transaction that never ends this gives up before the connection does.
                owner.run(f"SET SESSION lock_wait_timeout = {_DROP_SECONDS // 2}")
                confirm()
                owner.run(f"DROP DATABASE IF EXISTS {quote(schema)}")
                for row in owner.run(
                    "SELECT User, Host FROM mysql.db WHERE Db = %s", (grant_pattern(schema),)
                ):
                    owner.run(f"REVOKE ALL PRIVILEGES ON {pattern}.* FROM %s@%s", (row["User"], row["Host"]))

    def status(self, server_id: str) -> ServerStatus:
        """Look at one server now. Never waits for a lock, so it answers while the server is being started.

        :raises NotFoundError: no such server.
        """
        record = self._layout.read(server_id)
        pid = self._fleet.pid(server_id)
        accepting, lag, error = False, None, ""
        if pid is not None:
            try:
                with self._fleet.owner(server_id, _LOOK_SECONDS) as owner:
                    accepting = owner.value("SELECT 1") == 1
                    if record.replica_of is not None:
                        state = replicas.read(owner, rules(record.flavor))
                        error = _FOLLOWS_NOBODY if state is None else state.error
                        lag = None if state is None or error else state.lag_seconds
            except UnavailableError as failure:
                error = failure.message if record.replica_of is not None else ""
        elif record.replica_of is not None:
            error = "the server does not run"
        return ServerStatus(server_id, pid is not None, accepting, pid, record.replica_of, lag, error)

    def wait_replica(self, server_id: str, timeout_seconds: float) -> None:
        """Return once the replica has applied all that its primary had committed at the time of the call.

        :raises InvalidError: the server is no replica.
        :raises DeadlineExceededError: it had not within the time.
        :raises UnavailableError: one of the two does not answer.
        """
        record = self._layout.read(server_id)
        if record.replica_of is None:
            raise InvalidError(f"server {server_id} is no replica")
        with self._fleet.owner(record.replica_of) as primary, self._fleet.owner(server_id) as replica:
            replicas.wait(primary, replica, rules(record.flavor), timeout_seconds)

    def promote(self, server_id: str, *, accept_loss: bool = False, timeout_seconds: float = 30.0) -> None:
        """Make a replica the primary of its former primary and of its other replicas.

        The former primary is fenced first: it takes no write any more, now or after any restart, and follows
        the new one where it has nothing that the new one lacks. What breaks off, by an error or because the
        process dies, is taken back or finished by the watcher, or by the next call.

        :param accept_loss: where the former primary does not answer it is killed, and what it had not sent is
            given up; otherwise nothing is lost.
        :raises UnavailableError: a server does not answer, so that something would be lost.
        :raises DeadlineExceededError: the replica did not catch up in time, or the primary has tables locked;
            it takes writes again.
        :raises InvalidError: another replica has more, or follows another primary by now.
        """
        former = self._layout.read(server_id).replica_of
        self._promotions.promote(server_id, timeout_seconds, accept_loss=accept_loss)
        if former is not None:
            self._held_down.discard(former)
        for other in self.replicas_of(server_id):
            try:
                self.mend_replica(other)
            except HomeworldError as error:  # the watcher goes on with it, and reports it
                _log.warning("server %s does not follow %s yet: %s", other, server_id, error.message)

    def is_primary(self, server_id: str) -> bool:
        """Whether the server exists and follows nobody; one that was promoted takes writes by now."""
        try:
            return self._layout.read(server_id).replica_of is None
        except NotFoundError:
            return False

    def furthest(self, server_ids: Sequence[str], timeout_seconds: float = 10.0) -> str:
        """The replica that has everything which any of these has received. Fetching stops on all of them
        until they are connected anew, by the watcher if by nobody else. One that does not answer is left out.

        :raises UnavailableError: none answers, or none has it all.
        """
        return self._promotions.furthest(server_ids, timeout_seconds)

    def follows(self, server_id: str) -> str:
        """Try to let a replica follow its primary; why it does not, or the empty string where it does. One
        that was told to has nothing that its primary lacks, however late it is.

        :raises NotFoundError: no such server.
        """
        record = self._layout.read(server_id)
        if record.replica_of is None:
            return "it is a primary"
        try:
            with self._locks.attempt(server_id, _BUSY_SECONDS) as ours:
                if not ours:
                    return "somebody is at work on it"
                self._follow(self._layout.read(server_id))
        except HomeworldError as error:
            return error.message
        status = self.status(server_id)
        if not status.running:
            return "its process does not run"
        if not status.accepting:
            return "it does not answer"
        return _FOLLOWS_NOBODY if status.replication_error == _FOLLOWS_NOBODY else ""

    # -- all servers -----------------------------------------------------------------------------------------

    def list_servers(self) -> list[str]:
        """The ids of all servers, sorted."""
        return self._layout.ids()

    def replicas_of(self, server_id: str) -> list[str]:
        """The ids of a server's replicas, sorted."""
        return [record.server_id for record in self._layout.records() if record.replica_of == server_id]

    def start_server(self, server_id: str) -> None:
        """Start a server that exists; returns once it accepts (a replica: and follows its primary).

        :raises NotFoundError: no such server.
        :raises UnavailableError: it did not come up in time; calling again goes on.
        """
        with self._lock(server_id):
            self._held_down.discard(server_id)
            record = self._layout.read(server_id)
            self._fleet.bring_up(record)
            if record.replica_of is not None:
                self._follow(self._layout.read(server_id))

    def stop_server(self, server_id: str, timeout_seconds: float = 30.0) -> None:
        """Shut a server down, kill it where it has not ended within the time. The watcher leaves it so.

        :raises NotFoundError: no such server.
        """
        with self._lock(server_id):
            self._layout.read(server_id)
            self._held_down.add(server_id)
            self._fleet.end(server_id, timeout_seconds)

    def restart_server(self, server_id: str, timeout_seconds: float = 60.0) -> None:
        """Shut a server down and start it with the installed program and the present configuration; returns
        once it accepts (a replica: and follows its primary). Calling again restarts it again. The watcher
        waits for the server's lock meanwhile, in whatever process it is.

        :param timeout_seconds: for the shutdown; then it is killed, and recovers at the start.
        :raises NotFoundError: no such server.
        :raises UnavailableError: it did not come up in time; the watcher goes on with it.
        """
        with self._lock(server_id):
            record = self._layout.read(server_id)
            self._held_down.discard(server_id)
            self._fleet.end(server_id, timeout_seconds)
            self._fleet.bring_up(record)
            self._layout.write(replace(self._layout.read(server_id), version=self.version))
            if record.replica_of is not None:
                self._follow(self._layout.read(server_id))

    def running_version(self, server_id: str) -> str:
        """The version of the program that the server runs, as ``9.7.4``.

        :raises UnavailableError: it does not answer.
        """
        with self._fleet.owner(server_id, _LOOK_SECONDS) as owner:
            return str(owner.value("SELECT VERSION()")).partition("-")[0]

    def storage_bytes(self, server_id: str) -> int:
        """What the server's data take on disk; files that go away meanwhile do not count."""
        return storage_bytes(self._layout.place(server_id).data)

    def start_all(self) -> dict[str, str]:
        """Start all servers at once, primaries before their replicas.

        :returns: what did not start, and why. Empty: everything runs.
        """
        records = sorted(self._layout.records(), key=lambda record: record.replica_of is not None)
        failures: dict[str, str] = {}
        for record in records:
            try:
                self._held_down.discard(record.server_id)
                with self._lock(record.server_id):
                    # As it is by now: it may have been promoted, or replaced, while its lock was waited for.
                    now = self._layout.read(record.server_id)
                    self._fleet.ensure_data(now)
                    self._fleet.ensure_process(now)
            except HomeworldError as error:
                failures[record.server_id] = error.message
        for record in records:
            if record.server_id in failures:
                continue
            try:
                self.start_server(record.server_id)
            except HomeworldError as error:
                failures[record.server_id] = error.message
        for record in records:
            try:
                # Before anybody is served: who takes writes is who is said to.
                self._promotions.settle(record.server_id)
            except HomeworldError as error:
                failures[record.server_id] = error.message
        return failures

    def stop_all(self, timeout_seconds: float = 30.0) -> list[str]:
        """Shut all servers down at once.

        :returns: the ids of those that had to be killed because they did not end in time.
        """
        deadline = time.monotonic() + timeout_seconds
        server_ids = self._layout.ids()
        for server_id in server_ids:
            self._held_down.add(server_id)
            self._fleet.terminate(server_id)
        return [
            server_id
            for server_id in server_ids
            if not self._fleet.end(server_id, max(0.01, deadline - time.monotonic()))
        ]

    def watch(
        self, *, interval_seconds: float = 1.0, report: Callable[[WatchEvent], None] | None = None
    ) -> Watcher:
        """Start a watcher over all servers of this engine; the caller stops it (before ``stop_all``)."""
        watcher = Watcher(self, interval_seconds=interval_seconds, report=report)
        watcher.start()
        return watcher

    # -- for the watcher -------------------------------------------------------------------------------------

    def revive(self, server_id: str) -> bool:
        """Start the process of a server that died, without waiting for it to accept.

        :returns: False where there was nothing to do: it runs, was stopped on purpose, is gone, or another
            thread is at work on it.
        :raises UnavailableError: it could not be started.
        :raises InvalidError: its data are gone.
        """
        with self._locks.attempt(server_id) as ours:
            return ours and self._revive(server_id)

    def _revive(self, server_id: str) -> bool:
        try:
            record = self._layout.read(server_id)
            if server_id in self._held_down or self._fleet.pid(server_id) is not None:
                return False
            if not record.accounts and not self._layout.place(server_id).data.exists():
                return False  # its making was interrupted; whoever wanted it calls create_server again
            self._fleet.ensure_data(record)
            self._fleet.ensure_process(record)
            return True
        except NotFoundError:
            return False

    def mend_replica(self, server_id: str) -> replicas.Mended:
        """Bring a replica back to following its primary where that is safe: connect it to the primary's new
        port, start stopped threads. It is never made to skip anything.

        :raises HomeworldError: it cannot be done now; the message says why.
        """
        with self._locks.attempt(server_id) as ours:
            return self._follow(self._layout.read(server_id)) if ours else replicas.Mended.NOTHING

    def unsettled(self, server_id: str) -> bool:
        """Whether a replica of this server is being promoted, or was and it broke off.

        :raises NotFoundError: no such server.
        """
        return self._promotions.unsettled(server_id)

    def settle(self, server_id: str) -> str:
        """Take back or finish a promotion in this server's place that broke off; what was done, in one line.
        Empty: there is none, or somebody is at work on it.

        :raises HomeworldError: it cannot be done now.
        """
        return self._promotions.settle(server_id)

    def held_down(self, server_id: str) -> bool:
        """Whether the server was stopped on purpose by this object."""
        return server_id in self._held_down

    def last_words(self, server_id: str) -> str:
        """The newest error lines of the server's log, for a report."""
        return process.last_words(self._layout.place(server_id).log)

    def _follow(self, record: Record) -> replicas.Mended:
        if record.replica_of is None:
            return replicas.Mended.NOTHING
        primary = self._layout.read(record.replica_of)
        if record.promoting or (primary.promoting == record.server_id and primary.replica_of is not None):
            return replicas.Mended.NOTHING  # one takes the place of the other, which is settled first
        with self._fleet.owner(primary.server_id) as source, self._fleet.owner(record.server_id) as replica:
            return replicas.follow(
                source, replica, rules(record.flavor), primary.port, self._fleet.accounts, primary.promoted_at
            )

    def _check_schema(self, server_id: str, schema: str) -> None:
        if schema.lower() in SERVER_SCHEMAS:
            raise InvalidError(f"the schema name {schema!r} belongs to the server")
        if not fits_schema(schema):
            raise InvalidError(f"the schema name {schema!r} is too long to give rights on it")
        record = self._layout.read(server_id)
        if record.replica_of is not None:
            raise InvalidError(
                f"{server_id} is a replica; schemas are made on its primary {record.replica_of}"
            )

    def _lock(self, server_id: str) -> AbstractContextManager[None]:
        return self._locks.hold(server_id)
