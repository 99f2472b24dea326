"""The API's HTTP server."""

from __future__ import annotations

import logging
import socket
import threading
import time

import uvicorn
from fastapi import FastAPI

from homeworld.model.errors import UnavailableError

_log = logging.getLogger("homeworld")


class ApiServer:
    """uvicorn on a socket that is already listening, in a thread of its own."""

    def __init__(self, api: FastAPI, listener: socket.socket, *, behind_proxy: bool = False) -> None:
        """:param behind_proxy: take the word of a proxy on this machine for who its clients are. Without one
        every client on this machine could say to be whoever they like, and limits and audit log believe it.
        """
        config = uvicorn.Config(
            api, log_config=None, lifespan="off", access_log=False, server_header=False,
            timeout_graceful_shutdown=2, proxy_headers=behind_proxy, forwarded_allow_ips="127.0.0.1",
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
