"""What every process of an installation stands on: the data directory, ports, files, its first start.

Invariants: one ``homeworld up`` has a data directory for itself, or any number of roles share it; what is
made at the first start is made once, whoever comes first; what is secret is written for its owner only.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from homeworld.engines.locks import NamedLocks
from homeworld.gateway.tls import make_certificates
from homeworld.model.errors import InvalidError
from homeworld.model.names import new_id, new_secret
from homeworld.store.provision import bootstrap
from homeworld.store.store import Store
from homeworld.store.tokens import PREFIX

_log = logging.getLogger("homeworld")
_FIRST_START = ".first-start"
SETTLE_SECONDS = 5.0
"""For what is asked of a workflow to be in force before the API answers."""
HTTP_PORT = 8443
"""Of the data plane over HTTPS; 443 is for root only."""


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


def http_listeners(
    stack: ExitStack, http_port: int | None, plain_port: int | None, gateway_port: int
) -> tuple[socket.socket, socket.socket | None]:
    """Where the data plane is served over HTTPS, and in the clear where that is asked for.

    :param http_port: None: 8443, or any free one where the gateway's is free to choose, too.
    :param plain_port: None: nowhere.
    :raises InvalidError: a port is taken.
    """
    if http_port is None:
        http_port = HTTP_PORT if gateway_port else 0
    tls = stack.enter_context(listen(http_port, "--http-port"))
    if plain_port is None:
        return tls, None
    return tls, stack.enter_context(listen(plain_port, "--http-plain-port"))


def http_told(tls: socket.socket, plain: socket.socket | None) -> dict[str, object]:
    """What a ready file says of :func:`http_listeners`."""
    ports: dict[str, object] = {"http_port": tls.getsockname()[1]}
    if plain is not None:
        ports["http_plain_port"] = plain.getsockname()[1]
    return ports


def free_port(port: int, option: str) -> int:
    """``port``, known to be free a moment ago; 0 stays 0.

    :raises InvalidError: the port is taken.
    """
    if port:
        listen(port, option).close()
    return port


def write_private(path: Path, text: str) -> None:
    """Write a file whole or not at all, readable by its owner only."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


@contextmanager
def first_start(data_dir: Path) -> Generator[None]:
    """While the block runs no other process of this data directory makes what is made once."""
    with NamedLocks(data_dir / "locks").hold(_FIRST_START):
        yield


def begin(store: Store, data_dir: Path, organization: str) -> tuple[str, str]:
    """Make what the store and the data directory have to have; the installation's token (id, secret)."""
    with first_start(data_dir):
        bootstrap(store, organization, "local", "This machine")
        return own_token(store, data_dir, organization)


def own_token(store: Store, data_dir: Path, organization: str) -> tuple[str, str]:
    """The installation's own service token (id, secret), made at the first start. It has every access there
    is, also those that came with a newer version: it could not give to others what it has not.

    The store keeps a hash only. The plain text lies in the data directory for its owner's eyes, so that each
    start can tell it in the ready file; it is written first, so that a death in between leaves no token that
    nobody knows.
    """
    keep = data_dir / "service-token.json"
    if not keep.exists():
        write_private(keep, json.dumps({"id": new_id(), "token": PREFIX + new_secret()}))
    kept = json.loads(keep.read_text())
    token_id, secret = str(kept["id"]), str(kept["token"])
    with store.write() as tx:
        found = tx.organizations.ensure(organization)
        if not tx.actors.by_ids([token_id]):
            tx.tokens.create(found.id, "homeworld up", token_id=token_id, secret=secret)
        tx.tokens.grant_all(token_id, found.id)
    return token_id, secret


def certificates(data_dir: Path) -> tuple[Path, Path, Path]:
    """The gateway's CA certificate, its own certificate and key; made at the first start."""
    with first_start(data_dir):
        return make_certificates(data_dir / "tls", ("localhost", "127.0.0.1"))


class Ending:
    """How much time is left for an orderly end; it begins to count when it is asked first."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline: float | None = None

    def left(self) -> float:
        """Seconds."""
        if self._deadline is None:
            self._deadline = time.monotonic() + self._seconds
        return max(0.1, self._deadline - time.monotonic())
