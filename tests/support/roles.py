"""An installation of several processes: any number of APIs, workers and gateways over one real PostgreSQL.

    roles = Roles(folder, mysqld=binary(flavor), replicas=0)
    roles.start(api=2, worker=2, gateway=3)
    roles.processes["gateway"][1].kill()        # kill -9; .restart() brings it back on the same port
    roles.processes["worker"][0].stop()         # SIGSTOP; .cont() wakes it
    roles.processes["api"][0].terminate()       # SIGTERM: an orderly end
    roles.close()

:class:`RolesPlatform` drives a move through it, as ``Platform`` does through ``homeworld up``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import pymysql

from homeworld.client import HomeworldClient
from tests.support.bank import Login
from tests.support.platform import Platform
from tests.support.postgres import Postgres

API, WORKER, GATEWAY = "api", "worker", "gateway"


class Process:
    """One role's process. ``ready`` is what its ready file says; ports stay the same over restarts."""

    def __init__(self, role: str, number: int, data_dir: Path, store: str, options: Iterable[str]) -> None:
        self.role = role
        self.number = number
        self.ready: dict[str, Any] = {}
        self.ready_file = data_dir / f"ready-{role}-{number}.json"
        self.log_file = data_dir / f"{role}-{number}.log"
        self._store = store
        self._data_dir = data_dir
        self._options = list(options)
        self._pinned: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def launch(self) -> None:
        """Start; :meth:`wait_ready` returns once it serves."""
        assert self._process is None, f"{self} runs"
        self.ready_file.unlink(missing_ok=True)
        self._log = self.log_file.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "homeworld.main", self.role, "--data-dir", str(self._data_dir),
             "--ready-file", str(self.ready_file), *(self._pinned or self._options)],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT,
            env={"HOMEWORLD_REQUESTS_PER_MINUTE": "0", **os.environ, "HOMEWORLD_STORE": self._store},
        )  # fmt: skip

    def wait_ready(self, seconds: float = 240.0) -> None:
        """Return once it serves."""
        deadline = time.monotonic() + seconds
        while not self.ready_file.exists():
            assert self._process is not None, f"{self} was not started"
            assert self._process.poll() is None, f"{self} ended: {self.last_words()}"
            assert time.monotonic() < deadline, f"{self} does not serve: {self.last_words()}"
            time.sleep(0.02)
        self.ready = json.loads(self.ready_file.read_text())
        if not self._pinned:
            self._pinned = self._pin()

    def _pin(self) -> list[str]:
        options = list(self._options)
        for option, port in (
            ("--api-port", str(self.ready.get("api_url", "")).rpartition(":")[2]),
            ("--gateway-port", str(self.ready.get("gateway_port", ""))),
            ("--http-port", str(self.ready.get("http_port", ""))),
        ):
            if option in options:
                options[options.index(option) + 1] = port
        return options

    @property
    def pid(self) -> int:
        """Its pid; it must run."""
        assert self._process is not None, f"{self} does not run"
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs, stopped or not."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL, also where it is stopped; returns once it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._forget()

    def stop(self) -> None:
        """SIGSTOP: it does nothing until :meth:`cont`."""
        os.kill(self.pid, signal.SIGSTOP)

    def cont(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def terminate(self, seconds: float = 60.0) -> int:
        """SIGTERM: an orderly end; the exit code."""
        assert self._process is not None, f"{self} does not run"
        self._process.terminate()
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self} did not end in order: {self.last_words()}") from None
        self._forget()
        return code

    def restart(self) -> None:
        """Start anew (killing what still runs), on the same ports; returns once it serves."""
        self.kill()
        self.launch()
        self.wait_ready()

    def last_words(self) -> str:
        """The end of its log."""
        return self.log_file.read_text(errors="replace")[-2000:].strip() if self.log_file.exists() else ""

    def __str__(self) -> str:
        return f"{self.role} {self.number}"

    def _forget(self) -> None:
        self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None


class Roles:
    """All processes of one installation.

    :param data_dir: the installation's; short, for there are unix sockets in it.
    :param replicas: of each primary.
    :param worker_options: further options of workers, as ``("--placement", "dedicated")``.
    :param postgres: where the store is; None: a cluster of its own, which ends with :meth:`close`.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        mysqld: Path | None = None,
        replicas: int = 0,
        worker_options: Iterable[str] = (),
        postgres: Postgres | None = None,
        database: str = "postgres",
    ) -> None:
        self.data_dir = data_dir
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._own = None if postgres is not None else Postgres()
        self.postgres = postgres or self._own
        assert self.postgres is not None
        self.store = self.postgres.url(database)
        self.processes: dict[str, list[Process]] = {API: [], WORKER: [], GATEWAY: []}
        self._mysqld = ["--mysqld", str(mysqld)] if mysqld is not None else []
        self._replicas = replicas
        self._worker_options = list(worker_options)

    def start(self, api: int = 2, worker: int = 2, gateway: int = 3) -> None:
        """Start that many of each, all at once; returns once all serve."""
        self.launch(WORKER, worker)
        self.launch(GATEWAY, gateway)
        self.launch(API, api)
        for process in self.all():
            process.wait_ready()

    def launch(self, role: str, count: int = 1) -> None:
        """Start more of a role, without waiting."""
        options = {
            API: ["--api-port", "0", "--replicas", str(self._replicas)],
            WORKER: self._worker_options,
            GATEWAY: ["--gateway-port", "0", "--http-port", "0"],
        }[role]
        for _ in range(count):
            several = self.processes[role]
            process = Process(role, len(several), self.data_dir, self.store, [*options, *self._mysqld])
            several.append(process)
            process.launch()

    def all(self) -> list[Process]:
        """Every process."""
        return [process for several in self.processes.values() for process in several]

    def api_url(self, number: int = 0) -> str:
        """Where an API answers."""
        return str(self.processes[API][number].ready["api_url"])

    @property
    def gateway_ports(self) -> list[int]:
        """Where the gateways serve clients, by their numbers."""
        return [int(process.ready["gateway_port"]) for process in self.processes[GATEWAY]]

    @property
    def token(self) -> tuple[str, str]:
        """The installation's service token: id and secret."""
        ready = self.processes[API][0].ready
        return str(ready["service_token_id"]), str(ready["service_token"])

    @property
    def organization(self) -> str:
        """The organization of the first start."""
        return str(self.processes[API][0].ready["organization"])

    def client(self, number: int = 0) -> HomeworldClient:
        """A client of one API."""
        return HomeworldClient(self.api_url(number), *self.token)

    def close(self) -> None:
        """End everything: the processes, the MySQL servers, the PostgreSQL."""
        try:
            for process in self.all():
                process.kill()
            subprocess.run(
                [sys.executable, "-m", "homeworld.main", "down", "--data-dir", str(self.data_dir)],
                check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=60,
            )  # fmt: skip
        finally:
            if self._own is not None:
                self._own.close()


class RolesPlatform(Platform):
    """A database and a move over several processes. ``api`` is the number of the API that is asked."""

    def __init__(self, roles: Roles, database: str = "shop") -> None:
        self.DATABASE = database
        self.TARGET = f"{database}_sharded"
        self.roles = roles
        self.api = 0
        self.number = 0
        self.organization = ""
        self._password: tuple[str, str] = ("", "")

    def start(self) -> None:
        """Take what the roles say; they run."""
        self.organization = self.roles.organization

    @property
    def client(self) -> HomeworldClient:
        """A client of the API that is asked."""
        return self.roles.client(self.api)

    def login(self, role: str = "admin") -> Login:
        """A password of the branch, through the first gateway."""
        return self.logins(role)[0]

    def logins(self, role: str = "admin") -> list[Login]:
        """One password of the branch, through each gateway, once all of them know it."""
        made = self.client.create_password(
            self.organization, self.DATABASE, "main", name=f"test-{role}-{time.monotonic_ns()}", role=role
        )
        found = [
            Login("127.0.0.1", port, made["username"], made["plain_text"])
            for port in self.roles.gateway_ports
        ]
        for login in found:
            self.until("the password", lambda login=login: _enters(login, self.DATABASE))
        return found


def _enters(login: Login, schema: str) -> bool:
    try:
        login.connect(schema).close()
    except pymysql.MySQLError:
        return False
    return True
