"""The installation's etcd, as far as homeworld asks it: whether it serves, and to forget a topology, or locks
whose owners are dead.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Callable
from contextlib import closing

from homeworld.engines.vitess.certificates import Identity
from homeworld.model.errors import UnavailableError

_NAMED_LOCKS = "internal/named_locks"


def _under(root: str) -> dict[str, str]:
    """The range of all keys under a path."""
    begin = f"{root}/".encode()
    end = begin[:-1] + bytes([begin[-1] + 1])
    return {"key": base64.b64encode(begin).decode(), "range_end": base64.b64encode(end).decode()}


class Etcd:
    """etcd at a loopback port.

    :param identity: our certificate; it takes nobody without.
    """

    def __init__(self, port: int, identity: Identity) -> None:
        self._port = port
        self._identity = identity

    def healthy(self, timeout_seconds: float = 2.0) -> bool:
        """Whether it serves now."""
        try:
            return json.loads(self._ask("GET", "/health", b"", timeout_seconds)).get("health") == "true"
        except (UnavailableError, ValueError):
            return False

    def delete_under(self, root: str, timeout_seconds: float = 10.0) -> None:
        """Delete everything under a path; nothing there is fine.

        :param root: without a slash at its end.
        :raises UnavailableError: it does not answer.
        """
        self._ask("POST", "/v3/kv/deleterange", json.dumps(_under(root)).encode(), timeout_seconds)

    def forget_locks(
        self, root: str, whose: Callable[[str], bool], keyspace: str = "", timeout_seconds: float = 10.0
    ) -> list[str]:
        """Delete the locks by name under a topology that processes have left which are dead: Vitess lets them
        stand for a day.

        :param root: the global topology's. ``whose``: whether an action's locks are to go: ``vdiff`` is a
            tablet's, the others are vtctld's. ``keyspace``: only those on its workflows.
        :returns: what they locked.
        :raises UnavailableError: it does not answer.
        """
        prefix = f"{root}/{_NAMED_LOCKS}" + (f"/{keyspace}" if keyspace else "")
        answer = self._ask("POST", "/v3/kv/range", json.dumps(_under(prefix)).encode(), timeout_seconds)
        gone: list[str] = []
        for found in json.loads(answer).get("kvs", ()):
            try:
                action = json.loads(base64.b64decode(found.get("value", ""))).get("Action", "")
            except ValueError:
                continue  # no lock
            if whose(str(action)):
                body = json.dumps({"key": found["key"]}).encode()
                self._ask("POST", "/v3/kv/deleterange", body, timeout_seconds)
                gone.append(base64.b64decode(found["key"]).decode().removeprefix(f"{prefix}/"))
        return gone

    def _ask(self, method: str, path: str, body: bytes, timeout_seconds: float) -> bytes:
        context = ssl.create_default_context(cafile=str(self._identity.ca))
        context.load_cert_chain(self._identity.certificate, self._identity.key)
        try:
            with closing(
                http.client.HTTPSConnection("127.0.0.1", self._port, timeout=timeout_seconds, context=context)
            ) as connection:
                connection.request(method, path, body or None)
                answer = connection.getresponse()
                text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(f"etcd at port {self._port} does not answer: {error}") from error
        if answer.status != http.client.OK:
            raise UnavailableError(f"etcd answers {answer.status} to {path}: {text[:200]!r}")
        return text
