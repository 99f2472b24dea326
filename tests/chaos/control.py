"""The controller's side of the gates: the socket on which workers say where they are and wait to be let on.

Each process says hello once it serves. Where there are several workers all of them are armed, and the first
that arrives at a gate is the one that the run is about: the others are disarmed. Knows no fault and no
server. The invariant: whoever waits here has a deadline, so a worker that dies or never arrives is an outcome
and not a hang.
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
News = tuple[int, dict[str, Any]]


class NotInTimeError(AssertionError):
    """Something that was waited for did not come."""


class Control:
    """Listens at ``path``."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(8)
        self._known: dict[int, socket.socket] = {}
        self._all: list[socket.socket] = []
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        threading.Thread(target=self._accept, name="control", daemon=True).start()

    def close(self) -> None:
        """Stop listening; whoever waits goes on."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        self._listener.close()
        for one in self._all:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def hello(self, pid: int, seconds: float, alive: Callable[[], bool]) -> None:
        """Return once that process serves."""
        deadline = time.monotonic() + seconds
        while pid not in self._known:
            assert alive(), "a process of homeworld has ended while it started"
            assert time.monotonic() < deadline, f"a process of homeworld does not serve within {seconds:g} s"
            time.sleep(0.01)

    def arm(self, workers: Sequence[int], armed: Sequence[Armed]) -> None:
        """Set all gates of these workers anew; returns once they know."""
        self._news = queue.SimpleQueue()
        for pid in workers:
            self._say(pid, arm=[[plan, step, moment.value, act] for plan, step, moment, act in armed])
        for _ in workers:
            self._wait("armed", 60.0, lambda: True)

    def arrived(self, workers: Sequence[int], seconds: float, alive: Callable[[], bool]) -> int:
        """The pid of the worker that waits at an armed gate, once one does; the others are disarmed."""
        pid = self._wait("at", seconds, alive)
        for other in workers:
            if other != pid:
                self._say(other, arm=[])
        return pid

    def go_on(self, pid: int) -> None:
        """Let it on."""
        self._say(pid, go=True)

    def _say(self, pid: int, **message: Any) -> None:
        self._known[pid].sendall(json.dumps(message).encode() + b"\n")

    def _wait(self, word: str, seconds: float, alive: Callable[[], bool]) -> int:
        deadline = time.monotonic() + seconds
        while True:
            try:
                pid, message = self._news.get(timeout=0.1)
            except queue.Empty:
                if not alive():
                    raise NotInTimeError(f"waited for {word!r}: a worker has ended") from None
                if time.monotonic() > deadline:
                    raise NotInTimeError(f"waited for {word!r}: not within {seconds:g} s") from None
                continue
            if word in message:
                return pid

    def _accept(self) -> None:
        while True:
            try:
                made, _ = self._listener.accept()
            except OSError:
                return  # closed
            self._all.append(made)
            threading.Thread(target=self._listen, args=(made,), daemon=True).start()

    def _listen(self, made: socket.socket) -> None:
        pid = 0
        try:
            with made.makefile("rb") as lines:
                for line in lines:
                    message = json.loads(line)
                    if "hello" in message:
                        pid = int(message["hello"])
                        self._known[pid] = made
                    self._news.put((pid, message))
        except OSError:
            return  # it was killed
