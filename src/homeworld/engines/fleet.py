"""The servers of one data directory as processes: made, started, ended, found again.

Below LocalEngine, above processes and files. Every method begins from what is really on disk and running, so
each can be called again after it failed or the process died midway. Does no locking of its own but for the
choice of ports and ids: the caller holds the lock of the server it works on.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from homeworld.engines import accounts, binary, limits, process, template
from homeworld.engines.config import Sizes, render
from homeworld.engines.connection import Control, control
from homeworld.engines.flavors import grant_statements, rules, schema_of
from homeworld.engines.layout import (
    Layout,
    Record,
    choose_port,
    port_is_free,
    prepare_socket,
    remove_socket,
)
from homeworld.engines.locks import NamedLocks
from homeworld.model.errors import InvalidError, NotFoundError, UnavailableError
from homeworld.model.sizes import ServerSize
from homeworld.model.topology import BackendRole, Endpoint

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
# A server's id never begins with a dot: no lock of one has this name.
_ALLOCATION = ".allocation"


class Fleet:
    """The servers under ``data_dir``; parameters as of LocalEngine."""

    def __init__(
        self, data_dir: Path, mysqld: Path | None, sizes: Sizes, ports: range, start_timeout_seconds: float
    ) -> None:
        self.binary = binary.find(mysqld)
        self.layout = Layout(data_dir)
        self.layout.make()
        with NamedLocks(self.layout.locks).hold(_ALLOCATION):
            self.accounts = accounts.load(self.layout.secrets, may_create=not self.layout.ids())
        self._sizes = sizes
        self._ports = ports
        self._start_timeout = start_timeout_seconds
        self._allocation = NamedLocks(self.layout.locks)
        for leftover in self.layout.servers.glob(".gone-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def pid(self, server_id: str) -> int | None:
        """The pid of the server's process, or None."""
        place = self.layout.place(server_id)
        return process.find(place.config, place.pid)

    def endpoint(self, record: Record, role: BackendRole) -> Endpoint:
        """How to reach the server as that role."""
        return Endpoint(
            server_id=record.server_id,
            flavor=record.flavor,
            host="127.0.0.1",
            port=record.port,
            socket=record.socket,
            user=accounts.user_of(role),
            password=self.accounts.passwords[role],
        )

    @contextmanager
    def owner(self, server_id: str, timeout_seconds: float = 10.0) -> Generator[Control]:
        """A control connection as the server's administrator.

        :raises UnavailableError: it does not accept.
        """
        endpoint = self.endpoint(self.layout.read(server_id), BackendRole.OWNER)
        with control(endpoint, timeout_seconds=timeout_seconds) as connection:
            yield connection

    def intend(self, server_id: str, replica_of: str | None, size: ServerSize | None = None) -> Record:
        """The record of the server, written before anything else of it is made.

        :param size: of a new one; one that exists keeps its own.
        :raises InvalidError: it exists in another part, or cannot follow that primary.
        """
        try:
            known = self.layout.read(server_id)
        except NotFoundError:
            known = None
        if known is not None:
            if known.replica_of != replica_of:
                part = f"a replica of {known.replica_of}" if known.replica_of else "a primary"
                raise InvalidError(f"server {server_id} exists already as {part}")
            return known
        if replica_of is not None:
            primary = self.layout.read(replica_of)
            if primary.replica_of is not None:
                raise InvalidError(f"{replica_of} is a replica itself; only primaries have replicas")
            if primary.flavor is not self.binary.flavor:
                ours, theirs = self.binary.flavor.value, primary.flavor.value
                raise InvalidError(f"a {ours} server cannot follow {replica_of}, which is {theirs}")
        with self._allocation.hold(_ALLOCATION):
            others = list(self.layout.records())
            ids = {other.mysql_server_id for other in others}
            record = Record(
                server_id=server_id,
                mysql_server_id=next(n for n in _random_ids() if n not in ids),
                flavor=self.binary.flavor,
                version=self.binary.version_text,
                port=choose_port((other.port for other in others), self._ports),
                socket=self.layout.socket_for(server_id),
                replica_of=replica_of,
                accounts="",
                size=size,
            )
            self.layout.write(record)
        return record

    def bring_up(self, record: Record) -> None:
        """Make what is missing, start it, and return once it accepts and has the accounts of this version.

        :raises UnavailableError: it did not come up in time; calling again goes on.
        """
        self.ensure_data(record)
        started = self.ensure_process(record)
        try:
            self._wait_accepting(record.server_id)
        except UnavailableError:
            # What ran already may have been on its way down when it was found; then it is started once. What
            # ended for want of asynchronous I/O is started once more, without.
            again = not started or process.lacked_aio(self.layout.place(record.server_id).log)
            if not again or not self.ensure_process(record):
                raise
            self._wait_accepting(record.server_id)
        self._ensure_accounts(record.server_id)
        self.keep_cpus(record)

    def keep_cpus(self, record: Record) -> None:
        """Let the server's process run on as many CPUs as its size has."""
        pid = self.pid(record.server_id)
        if pid is not None:
            limits.keep_to(pid, record.server_id, record.size.cpus if record.size else 0)

    def ensure_data(self, record: Record) -> None:
        """Copy the template where the server has no data yet.

        :raises InvalidError: it had data once.
        """
        place = self.layout.place(record.server_id)
        if place.data.is_dir():
            return
        if record.accounts:
            # It had data once. A fresh template in its place would look like a server that lost every row.
            raise InvalidError(f"the data of server {record.server_id} is gone: {place.data} does not exist")
        source = template.ensure(self.binary, self.accounts, self.layout.templates)
        template.copy(source, place.data)

    def ensure_process(self, record: Record) -> bool:
        """Start the server's process where it does not run; returns at once.

        :returns: whether it was started.
        :raises UnavailableError: it could not be started, or its files cannot be written (a full disk).
        :raises InvalidError: the data are of the other flavour.
        """
        try:
            return self._ensure_process(record)
        except OSError as error:
            # One server's disk is no reason for anybody to leave the others alone.
            raise UnavailableError(
                f"the files of server {record.server_id} cannot be written: {error.strerror}"
            ) from error

    def _ensure_process(self, record: Record) -> bool:
        place = self.layout.place(record.server_id)
        if process.find(place.config, place.pid) is not None:
            return False
        record = self.layout.read(record.server_id)  # the caller's may be of before its size changed
        if record.flavor is not self.binary.flavor:
            raise InvalidError(
                f"the data of server {record.server_id} is {record.flavor.value} {record.version}, "
                f"but the server program is {self.binary.flavor.value} {self.binary.version_text}"
            )
        if not port_is_free(record.port):
            with self._allocation.hold(_ALLOCATION):
                taken = [other.port for other in self.layout.records()]
                record = replace(record, port=choose_port(taken, self._ports))
                self.layout.write(record)
        prepare_socket(record.socket)
        place.files.mkdir(exist_ok=True, mode=0o700)
        native_aio = not process.lacked_aio(place.log)
        if not native_aio:
            _log.warning(
                "server %s could not have native asynchronous I/O (fs.aio-max-nr may be used up); it is "
                "started without, which is slower under load: %s",
                record.server_id,
                process.last_words(place.log),
            )
        new = place.config.with_suffix(".new")
        most = limits.host().memory_mb
        new.write_text(render(record, place, self._sizes, native_aio=native_aio, most_pool_mb=most))
        new.replace(place.config)
        arguments = ["--user=root"] if os.geteuid() == 0 else []
        self.layout.write(replace(record, starts=record.starts + 1))
        pid = process.spawn(self.binary.path, arguments, place.config, place.pid, place.log)
        # At once, while it has one thread: all others come to have the same.
        limits.keep_to(pid, record.server_id, record.size.cpus if record.size else 0)
        return True

    def default_size(self) -> ServerSize:
        """What a server without a size of its own is started with, of what can change while it runs."""
        return ServerSize(self._sizes.buffer_pool_mb, self._sizes.max_connections, 16, 0)

    def _wait_accepting(self, server_id: str) -> None:
        place = self.layout.place(server_id)
        deadline = time.monotonic() + self._start_timeout
        pause = 0.02
        while True:
            try:
                with self.owner(server_id, _LOOK_SECONDS) as connection:
                    connection.run("SELECT 1")
                return
            except UnavailableError as error:
                if process.find(place.config, place.pid) is None:
                    words = process.last_words(place.log)
                    raise UnavailableError(f"server {server_id} ended while it started: {words}") from error
                if time.monotonic() >= deadline:
                    raise UnavailableError(
                        f"server {server_id} does not accept after {self._start_timeout:g} s: "
                        + process.last_words(place.log)
                    ) from error
            time.sleep(pause)
            pause = min(pause * 1.3, 0.25)

    def _ensure_accounts(self, server_id: str) -> None:
        """Give an older server the accounts and rights of this version; a new one has them already."""
        record = self.layout.read(server_id)
        wanted = template.digest(record.flavor, self.accounts)
        if record.accounts == wanted:
            return
        if record.accounts:
            rule = rules(record.flavor)
            with self.owner(server_id) as owner:
                if rule.owner_writable:
                    owner.run(rule.owner_writable)
                try:
                    # Not into the binlog: each server has its own accounts, and passwords stand in no binlog.
                    owner.run("SET SESSION sql_log_bin=0")
                    statements = rule.account_statements(self.accounts)
                    for schema in _schemas(owner):
                        statements += grant_statements(schema)
                    for statement in statements:
                        owner.run(statement)
                finally:
                    if record.replica_of is not None:
                        owner.run(rule.read_only)
        self.layout.write(replace(record, accounts=wanted))

    def end(self, server_id: str, timeout_seconds: float) -> bool:
        """Shut the server's process down, kill it after the time (at once where it is 0).

        :returns: whether it ended by itself or did not run.
        """
        place = self.layout.place(server_id)
        pid = process.find(place.config, place.pid)
        return pid is None or process.end(pid, place.config, timeout_seconds)

    def terminate(self, server_id: str) -> None:
        """Ask the server's process to shut down, without waiting."""
        place = self.layout.place(server_id)
        pid = process.find(place.config, place.pid)
        if pid is not None:
            process.terminate(pid, place.config)

    def destroy(self, server_id: str) -> None:
        """Kill the server and delete all of it. Unknown ids are fine."""
        place = self.layout.place(server_id)
        if not place.folder.exists():
            return
        self.end(server_id, 0)
        # Without a record it never ran: the process that was making it died before.
        with suppress(NotFoundError):
            remove_socket(self.layout.read(server_id).socket)
        # Renamed first: a server is there or not, also for a process that dies while deleting.
        gone = place.folder.with_name(f".gone-{server_id}-{secrets.token_hex(4)}")
        place.folder.rename(gone)
        with suppress(FileNotFoundError):  # another process that starts now deletes leftovers, too
            shutil.rmtree(gone)


def _random_ids() -> Iterator[int]:
    """MySQL's own server ids: random, so that a server made anew is never taken for its predecessor."""
    while True:
        yield 1 + secrets.randbelow(2**31 - 1)


def _schemas(owner: Control) -> list[str]:
    """The schemas of keyspaces: those on which the gateway's accounts have rights."""
    user = accounts.user_of(BackendRole.READWRITER)
    rows = owner.run("SELECT DISTINCT Db AS pattern FROM mysql.db WHERE User = %s", (user,))
    return [schema_of(str(row["pattern"])) for row in rows]
