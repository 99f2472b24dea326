"""Makes workers and movers by fork from a process that has imported everything already.

Starting Python and importing the product costs more than most faults last, and a run starts several
processes. The nursery itself has one thread and does nothing but fork; it ends when its input does. What a
child becomes is said by a line of JSON over a unix socket, with the file descriptors that are to be its input
and output.

A mover made here is no child of the worker, so the kernel does not kill it with the worker as it does in the
product: it ends by the end of its input, a moment later. That is the harder case, and the same invariant
holds.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

_PR_SET_NAME = 15
MOVER = "chaos-mover"


class Forked:
    """A process made by a nursery, as ``subprocess.Popen`` for whoever asked for it."""

    def __init__(self, pid: int, stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.returncode: int | None = None
        self._lock = threading.Lock()  # several threads ask, as they may ask a Popen
        try:
            self._handle: int | None = os.pidfd_open(pid)
        except ProcessLookupError:
            self._over()

    def _over(self) -> None:
        # The nursery reaps its children, so nobody else learns how they ended.
        self._handle = None
        self.returncode = -signal.SIGKILL

    def poll(self) -> int | None:
        """None while it runs."""
        with self._lock:
            if self._handle is not None and select.select([self._handle], [], [], 0)[0]:
                os.close(self._handle)
                self._over()
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Until it has ended.

        :raises subprocess.TimeoutExpired: not in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("forked", timeout or 0.0)
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        """As ``os.kill``; nothing where it has ended."""
        self.poll()
        with self._lock:
            if self._handle is not None:
                signal.pidfd_send_signal(self._handle, number)

    def kill(self) -> None:
        """kill -9."""
        self.send_signal(signal.SIGKILL)


def ask(path: str, what: dict[str, Any], descriptors: list[int]) -> int:
    """Have the nursery at ``path`` fork; the child's pid."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [json.dumps(what).encode()], descriptors)
        return int(connection.recv(64))


def spawn_mover(path: str) -> Forked:
    """A mover's process, as ``mover_process._spawn`` gives one."""
    ours_out, theirs_in = os.pipe()[::-1]
    theirs_out_r, theirs_out_w = os.pipe()
    try:
        pid = ask(path, {"become": "mover"}, [theirs_in, theirs_out_w])
    finally:
        os.close(theirs_in)
        os.close(theirs_out_w)
    return Forked(pid, os.fdopen(ours_out, "wb"), os.fdopen(theirs_out_r, "rb"))


class Nursery:
    """The controller's handle. ``offset`` is the file by which its children's clock is off."""

    def __init__(self, path: Path, log: Path, mysqld: str, offset: Path) -> None:
        self.path = str(path)
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.nursery", self.path, mysqld, str(offset)],
                stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        deadline = time.monotonic() + 120
        while not path.exists():
            assert self._process.poll() is None, "the nursery has ended"
            assert time.monotonic() < deadline, "the nursery does not begin"
            time.sleep(0.02)

    def make(self, become: str, config: Path, log: Path, port: int) -> Forked:
        """A process that is all roles, a worker, a gateway or the API."""
        with log.open("ab") as out:
            told = {"become": become, "config": str(config), "port": port}
            pid = ask(self.path, told, [out.fileno()])
        return Forked(pid)

    def movers(self) -> list[int]:
        """The pids of the movers that live."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        found: list[int] = []
        for pid in children.split():
            try:
                if Path(f"/proc/{pid}/comm").read_text().strip() == MOVER:
                    found.append(int(pid))
            except FileNotFoundError:
                continue
        return found

    def close(self) -> None:
        """End it; its children are killed by whoever holds them, or by the end of their input."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def _become(what: dict[str, Any], descriptors: list[int]) -> None:
    from tests.chaos import deadlines, roles, worker

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    faulthandler.register(signal.SIGUSR1)  # where every thread is goes to the log, for whoever asks
    if what["become"] != "mover":
        os.dup2(descriptors[0], 1)
        os.dup2(descriptors[0], 2)
        config = json.loads(Path(what["config"]).read_text())
        match what["become"]:
            case "all":
                worker.main(config, what["port"])
            case "worker":
                roles.run_worker(config)
            case "gateway":
                roles.run_gateway(config, what["port"])
            case "api":
                roles.run_api(config, what["port"])
            case _:
                raise ValueError(what["become"])
    else:
        ctypes.CDLL(None).prctl(_PR_SET_NAME, MOVER.encode(), 0, 0, 0)
        os.dup2(descriptors[0], 0)
        os.dup2(descriptors[1], 1)
        for descriptor in descriptors:
            os.close(descriptor)
        sys.stdin = os.fdopen(0, "r", closefd=False)
        deadlines.shorten_mover()
        deadlines.run_mover()


def main(path: str, mysqld: str, offset: str) -> None:
    """Import everything, listen at ``path``, fork."""
    import functools

    from homeworld.engines import binary
    from tests.chaos import clock, deadlines, roles, worker

    assert worker.main is not None
    assert roles.run_worker is not None
    assert deadlines.run_mover is not None
    clock.install(Path(offset))
    # What the program says of its version does not change while the runs last.
    binary.inspect = functools.cache(binary.inspect)
    binary.inspect(Path(mysqld))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    draft = path + ".new"
    listener.bind(draft)
    listener.listen(16)
    Path(draft).rename(path)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listener.accept()
        data, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 4)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                listener.close()
                connection.close()
                _become(json.loads(data), descriptors)
                status = 0
            except SystemExit as ended:
                status = int(str(ended.code or 0))
            except BaseException:  # noqa: BLE001 - its last words, whatever it is
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        for descriptor in descriptors:
            os.close(descriptor)
        connection.sendall(str(pid).encode())
        connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
