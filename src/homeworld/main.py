"""The composition root: the only file that knows every room. ``homeworld up`` runs all roles in one process.

Order of starting: lock and ports (so that what cannot work fails at once, with one line), the store, the
servers, the gateway with the routes as stored, the executor, the API; only then the ready file. Order
of stopping is the reverse. An orderly end stops the MySQL servers too; they survive any other end and are
found again.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
import uvicorn
from fastapi import FastAPI

from homeworld.api.app import create_app
from homeworld.api.calls import Settings as ApiSettings
from homeworld.cli.demo.command import demo
from homeworld.cli.workflow import app as workflow_app
from homeworld.engines.local import LocalEngine
from homeworld.engines.watcher import Watcher
from homeworld.gateway.router import Router
from homeworld.gateway.server import Gateway
from homeworld.gateway.tls import context_for, make_certificates
from homeworld.model.errors import HomeworldError, InvalidError, UnavailableError
from homeworld.model.names import new_id, new_secret
from homeworld.model.topology import BackendRole
from homeworld.replication.fence import TableFence
from homeworld.replication.mover_process import MoverProcesses
from homeworld.store.provision import bootstrap
from homeworld.store.routing import Routing
from homeworld.store.store import Store
from homeworld.store.tokens import PREFIX
from homeworld.workflows.assemble import make_executor, make_placements, make_preconditions
from homeworld.workflows.placements import altering
from homeworld.workflows.provisioning.ports import Placement

STOP_SECONDS = 10.0
_log = logging.getLogger("homeworld")
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command()(demo)
app.add_typer(workflow_app, name="workflow")


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``up`` was asked for."""

    data_dir: Path
    api_port: int
    gateway_port: int
    mysqld: Path | None
    placement: Placement
    replicas: int
    organization: str
    ready_file: Path | None


@contextmanager
def data_dir_lock(data_dir: Path) -> Generator[None]:
    """Own the data directory while the block runs; the kernel frees it when the process dies.

    :raises InvalidError: another homeworld uses it, or it cannot be made.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        data_dir.chmod(0o700)  # what is in it is for its owner only, whoever made the folder
        file = (data_dir / "lock").open("a+")
    except OSError as error:
        raise InvalidError(f"the data directory {data_dir} cannot be used: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidError(
                f"the data directory {data_dir} is in use by another homeworld; stop that one or name another"
            ) from None
        yield


def listen(port: int, option: str) -> socket.socket:
    """A listening socket on loopback.

    :param port: 0 takes any free one.
    :raises InvalidError: the port is taken.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise InvalidError(
            f"port {port} cannot be had ({error.strerror}); name another with {option}, or 0 for a free one"
        ) from None
    return listener


def write_private(path: Path, text: str) -> None:
    """Write a file whole or not at all, readable by its owner only."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def own_token(store: Store, settings: Settings) -> tuple[str, str]:
    """The installation's own service token (id, secret), made at the first start.

    The store keeps a hash only. The plain text lies in the data directory for its owner's eyes, so that each
    start can tell it in the ready file; it is written first, so that a death in between leaves no token that
    nobody knows.
    """
    keep = settings.data_dir / "service-token.json"
    if not keep.exists():
        write_private(keep, json.dumps({"id": new_id(), "token": PREFIX + new_secret()}))
    kept = json.loads(keep.read_text())
    token_id, secret = str(kept["id"]), str(kept["token"])
    with store.write() as tx:
        organization = tx.organizations.ensure(settings.organization)
        if not tx.actors.by_ids([token_id]):
            tx.tokens.create(organization.id, "homeworld up", token_id=token_id, secret=secret)
            tx.tokens.grant_all(token_id, organization.id)
    return token_id, secret


def free_port(port: int, option: str) -> int:
    """``port``, known to be free a moment ago; 0 stays 0.

    :raises InvalidError: the port is taken.
    """
    if port:
        listen(port, option).close()
    return port


class ApiServer:
    """uvicorn on a socket that is already listening, in a thread of its own."""

    def __init__(self, api: FastAPI, listener: socket.socket) -> None:
        config = uvicorn.Config(
            api, log_config=None, lifespan="off", access_log=False, server_header=False,
            timeout_graceful_shutdown=2,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name="api", daemon=True
        )

    def start(self) -> None:
        """Return once requests are answered.

        :raises UnavailableError: it ended instead.
        """
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise UnavailableError("the API did not start; the log says why")
            time.sleep(0.01)

    @property
    def alive(self) -> bool:
        """Whether it still answers."""
        return self._thread.is_alive()

    def stop(self, timeout_seconds: float) -> None:
        """Answer what was asked and end; what has not ended in time ends with the process."""
        self._server.should_exit = True
        self._thread.join(timeout_seconds)
        if self.alive:
            _log.warning("the API did not end within %.1f s", timeout_seconds)


class Homeworld:
    """All roles of one installation in this process.

    :param stack: what was begun; leaving it ends everything in order.
    """

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self.settings = settings
        self._stack = stack
        self._deadline: float | None = None

    def start(self) -> dict[str, object]:
        """Start everything; returns what clients need to know, once everything serves.

        :raises HomeworldError: something cannot start; the message says what to do.
        """
        settings, stack = self.settings, self._stack
        stack.enter_context(data_dir_lock(settings.data_dir))
        api_socket = stack.enter_context(listen(settings.api_port, "--api-port"))
        gateway_port = free_port(settings.gateway_port, "--gateway-port")

        engine = LocalEngine(settings.data_dir, settings.mysqld)
        store = Store.open(f"sqlite:///{settings.data_dir / 'homeworld.db'}")
        stack.callback(store.close)
        bootstrap(store, settings.organization, "local", "This machine")
        token_id, token = own_token(store, settings)

        failures = engine.start_all()
        stack.callback(self._stop_servers, engine)
        for server_id, why in failures.items():
            _log.error("server %s did not start and is tried again: %s", server_id, why)
        watcher = Watcher(engine)
        watcher.start()
        stack.callback(lambda: watcher.stop(self._left()))

        ca_file, certificate, key = make_certificates(settings.data_dir / "tls", ("localhost", "127.0.0.1"))

        def publish() -> None:
            gateway.publish(routing.snapshot())

        def routes_changed() -> None:
            try:
                publish()
            except HomeworldError as error:  # the executor publishes what is not served yet
                _log.warning("the routes could not be published at once: %s", error)

        def alter_vschema(branch_id: str, keyspace: str, text: str, base_text: str) -> None:
            altering(store, placements, publish)(branch_id, keyspace, text, base_text)

        gateway = Gateway(
            router_factory=Router,
            port=gateway_port,
            tls=context_for(certificate, key),
            on_alter_vschema=alter_vschema,
        )
        routing = Routing(
            store,
            lambda server_id: engine.endpoint(server_id, BackendRole.READER),
            lambda _branch_id: engine.credentials(),
        )
        placements = make_placements(store, engine, gateway, publish)
        self._gateway = gateway
        gateway.start(routing.snapshot())
        stack.callback(lambda: gateway.stop(self._left() / 3))
        movers = MoverProcesses()
        stack.callback(movers.close)
        executor = make_executor(
            store, engine, gateway, movers, TableFence(), publish,
            # The data directory's lock says that the process before is dead: its leases are ours at once.
            owner=f"up:{socket.gethostname()[:40]}", placement=settings.placement,
        )  # fmt: skip
        self._executor = executor
        executor.start()
        stack.callback(lambda: executor.stop(self._left() / 2))

        api = create_app(
            store,
            ApiSettings(
                preconditions=make_preconditions(store, engine),
                placements=placements,
                flavor=engine.flavor,
                gateway_address=f"127.0.0.1:{gateway.port}",
                routes_changed=routes_changed,
                replicas=settings.replicas,
            ),
        )
        server = ApiServer(api, api_socket)
        self._api = server
        server.start()
        stack.callback(lambda: server.stop(self._left() / 2))
        return {
            "api_url": f"http://127.0.0.1:{api_socket.getsockname()[1]}",
            "gateway_host": "127.0.0.1",
            "gateway_port": gateway.port,
            "ca_file": str(ca_file),
            "organization": settings.organization,
            "service_token_id": token_id,
            "service_token": token,
            "flavor": engine.flavor.value,
            "server_version": engine.version,
        }

    def check(self) -> None:
        """Raise where a part of this program has failed for good.

        :raises HomeworldError: the executor met a fault of its own, or the API or the gateway is gone.
        """
        if not self._gateway.alive:
            raise HomeworldError(
                f"the gateway has ended by itself: {self._gateway.failure!r}; the log says more"
            )
        if not self._api.alive:
            raise HomeworldError("the API has ended by itself; the log says more")
        failure = self._executor.failure
        if failure is not None:
            raise HomeworldError(f"the executor failed: {failure!r}; the log says more")

    def _left(self) -> float:
        """Seconds that are left for ending; they begin to count when it is asked first."""
        if self._deadline is None:
            self._deadline = time.monotonic() + STOP_SECONDS - 1.0
        return max(0.1, self._deadline - time.monotonic())

    def _stop_servers(self, engine: LocalEngine) -> None:
        killed = engine.stop_all(self._left())
        for server_id in killed:
            _log.warning(
                "server %s did not end in time and was killed; it recovers at its next start", server_id
            )


@app.command()
def up(
    data_dir: Annotated[Path, typer.Option(help="Everything homeworld keeps.")] = Path("~/.homeworld"),
    api_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free port.")] = 8080,
    gateway_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free port.")] = 3306,
    mysqld: Annotated[Path | None, typer.Option(help="The mysqld or mariadbd for new servers.")] = None,
    placement: Annotated[
        Placement, typer.Option(help="One server a branch, or one a shard.")
    ] = Placement.SHARED,
    replicas: Annotated[int, typer.Option(min=0, max=5, help="Replicas of each primary.")] = 1,
    organization: Annotated[
        str, typer.Option(help="The organization that is made at the first start.")
    ] = "homeworld",
    ready_file: Annotated[Path | None, typer.Option(help="Written once everything serves.")] = None,
) -> None:
    """Run the whole platform on this machine until SIGTERM or Ctrl-C."""
    settings = Settings(
        data_dir.expanduser().absolute(), api_port, gateway_port, mysqld, placement, replicas, organization,
        ready_file,
    )  # fmt: skip
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        with ExitStack() as stack:
            homeworld = Homeworld(settings, stack)
            ready = homeworld.start()
            _log.info("serving: API at %s, MySQL at 127.0.0.1:%s", ready["api_url"], ready["gateway_port"])
            if ready_file is not None:
                write_private(ready_file, json.dumps(ready, indent=2) + "\n")
            while not stopping.wait(0.5):
                homeworld.check()
    except HomeworldError as error:
        typer.echo(f"homeworld: {error.message}", err=True)
        raise typer.Exit(1) from None


@app.command()
def down(
    data_dir: Annotated[Path, typer.Option(help="The data directory of ``up``.")] = Path("~/.homeworld"),
) -> None:
    """Stop the MySQL servers that a killed homeworld left running."""
    folder = data_dir.expanduser().absolute()
    try:
        with data_dir_lock(folder):
            LocalEngine(folder).stop_all()
    except HomeworldError as error:
        typer.echo(f"homeworld: {error.message}", err=True)
        raise typer.Exit(1) from None


def main() -> None:
    """The ``homeworld`` command."""
    app()


if __name__ == "__main__":
    main()
