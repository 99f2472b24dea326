"""The controller's side of the gates: the socket on which a worker says where it is and waits to be let on.

One worker at a time. Knows no fault and no server. The invariant: whoever waits here has a deadline, so a
worker that dies or never arrives is an outcome and not a hang.
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.cells import Moment

Armed = tuple[str, str, Moment, str]


class NotInTimeError(AssertionError):
    """Something that was waited for did not come."""


class Control:
    """Listens at ``path``."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(4)
        self._worker: socket.socket | None = None
        self._news: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._accept, name="control", daemon=True).start()

    def close(self) -> None:
        """Stop listening; a worker that waits goes on."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        self._listener.close()
        self._drop()

    def _drop(self) -> None:
        if self._worker is not None:
            with contextlib.suppress(OSError):
                self._worker.shutdown(socket.SHUT_RDWR)
            self._worker.close()
            self._worker = None

    def forget(self) -> None:
        """What earlier workers said is of no interest any more."""
        self._news = queue.SimpleQueue()

    def hello(self, seconds: float, alive: Callable[[], bool]) -> None:
        """Return once a new worker serves."""
        self._wait("hello", seconds, alive)

    def arm(self, armed: Sequence[Armed]) -> None:
        """Set all gates anew; returns once the worker knows."""
        self._say(arm=[[plan, step, moment.value, act] for plan, step, moment, act in armed])
        self._wait("armed", 20.0, lambda: True)

    def arrived(self, seconds: float, alive: Callable[[], bool], over: Callable[[], str]) -> None:
        """Return once the worker waits at an armed gate.

        :param over: says why it will not come any more, or the empty string.
        """
        self._wait("at", seconds, alive, over)

    def go_on(self) -> None:
        """Let it on."""
        self._say(go=True)

    def _say(self, **message: Any) -> None:
        assert self._worker is not None, "no worker is connected"
        self._worker.sendall(json.dumps(message).encode() + b"\n")

    def _wait(
        self, word: str, seconds: float, alive: Callable[[], bool], over: Callable[[], str] = lambda: ""
    ) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                message = self._news.get(timeout=0.1)
            except queue.Empty:
                reason = over() if alive() else "the worker has ended"
                if time.monotonic() > deadline:
                    reason = reason or f"not within {seconds:g} s"
                if reason:
                    raise NotInTimeError(f"waited for {word!r}: {reason}") from None
                continue
            if word in message:
                return

    def _accept(self) -> None:
        while True:
            try:
                worker, _ = self._listener.accept()
            except OSError:
                return  # closed
            self._drop()
            self._worker = worker
            threading.Thread(target=self._listen, args=(self._worker,), daemon=True).start()

    def _listen(self, worker: socket.socket) -> None:
        try:
            with worker.makefile("rb") as lines:
                for line in lines:
                    self._news.put(json.loads(line))
        except OSError:
            return  # it was killed
