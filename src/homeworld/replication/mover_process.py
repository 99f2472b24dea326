"""Movers in processes of their own, so that copying takes no time from gateways and api in this one.

The owner's side is :class:`MoverProcesses` (ports.Movers); the other side is :func:`main`, run as
``python -m homeworld.replication.mover_process``. They speak JSON, a line each way: the spec and calls in,
progress and answers out. Secrets go through the pipe only.

Invariant: a mover's process does not outlive its owner: the kernel kills it with the owner's process, and the
end of its input ends it too. What it had not committed then does not exist.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import IO, Any

from homeworld.model.errors import (
    DeadlineExceededError,
    FencedError,
    HomeworldError,
    UnavailableError,
)
from homeworld.model.movers import MoverProgress, MoverSpec, Phase, ThrottleLimits
from homeworld.replication.assembly import assemble
from homeworld.replication.codec import (
    Json,
    error_from_json,
    error_to_json,
    limits_from_json,
    limits_to_json,
    progress_from_json,
    progress_to_json,
    spec_from_json,
    spec_to_json,
)
from homeworld.replication.copier import AIM_BYTES
from homeworld.replication.mover import RunningMover

START_SECONDS = 120.0
TELL_SECONDS = 0.25
_GRACE_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1
_SWITCH_SECONDS = 0.0005
_COLLECT = (50_000, 20, 100)
_OVER = frozenset({Phase.STOPPED, Phase.DDL, Phase.FAILED})
_UNKNOWN = MoverProgress(Phase.STARTING, False, (), (), 0.0, 0.0, 0.0)


class ProcessMover:
    """A mover in a child process (ports.Mover). Made by :class:`MoverProcesses`."""

    def __init__(self, spec: MoverSpec, process: subprocess.Popen[bytes]) -> None:
        self.spec = spec
        self._process = process
        self._lock = threading.Lock()
        self._progress = _UNKNOWN
        self._calls: dict[int, Future[None]] = {}
        # Never used again: an answer that comes late must not be taken for a later call's.
        self._numbers = itertools.count(1)
        self._started: Future[None] = Future()
        self._stopped = False
        self._reader = threading.Thread(target=self._listen, name=f"mover {process.pid}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the child runs."""
        return self._process.poll() is None

    def begin(self, chunk_bytes: int) -> None:
        """Hand the spec over and wait until the mover has claimed its streams.

        :raises HomeworldError: as RunningMover.start; the child is gone then.
        """
        try:
            self._say({"spec": spec_to_json(self.spec), "chunk_bytes": chunk_bytes})
            self._started.result(START_SECONDS)
        except TimeoutError:
            self._kill()
            raise DeadlineExceededError("the mover did not start in time") from None
        except BaseException:
            self._kill()
            raise

    def progress(self) -> MoverProgress:
        """The newest state that the child told."""
        with self._lock:
            known = self._progress
        if self.alive or known.phase in _OVER:
            return known
        self._reader.join(_GRACE_SECONDS)
        with self._lock:
            known = self._progress
        if known.phase in _OVER:
            return known
        if self._stopped:
            return replace(known, phase=Phase.STOPPED)
        died = f"the mover's process ended ({self._process.returncode})"
        return replace(known, phase=Phase.FAILED, error=died, retryable=True)

    def drain(self, positions: Mapping[str, str], timeout_seconds: float) -> None:
        """Return once every target has applied everything up to ``positions``.

        :raises DeadlineExceededError: not within the time.
        """
        wait = timeout_seconds + _GRACE_SECONDS
        self._call({"drain": dict(positions), "timeout": timeout_seconds}, wait)

    def verify(self, verify_id: str, *, repair: bool = False) -> None:
        """Begin comparing both sides."""
        self._call({"verify": verify_id, "repair": repair}, START_SECONDS)

    def limit(self, limits: ThrottleLimits) -> None:
        """Give way by these limits from now on. It is said, and not waited for."""
        with contextlib.suppress(UnavailableError):  # it has ended: nothing is to be slowed
            self._say({"limit": limits_to_json(limits)})

    def hurry(self, seconds: float) -> None:
        """Hold no applying back for so long."""
        with contextlib.suppress(UnavailableError):
            self._say({"hurry": seconds})

    def stop(self, timeout_seconds: float) -> None:
        """Stop; the child is killed where it has not ended in time."""
        self._stopped = True
        with contextlib.suppress(HomeworldError):  # it has ended already
            self._say({"stop": timeout_seconds})
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_seconds)
        self._kill()

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(_GRACE_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _call(self, message: Json, wait_seconds: float) -> None:
        answer: Future[None] = Future()
        with self._lock:
            number = next(self._numbers)
            self._calls[number] = answer
        try:
            self._say({**message, "call": number})
            answer.result(wait_seconds)
        except TimeoutError:
            raise DeadlineExceededError("the mover's process did not answer in time") from None
        finally:
            with self._lock:
                del self._calls[number]

    def _say(self, message: Json) -> None:
        pipe = self._process.stdin
        try:
            if pipe is not None:
                with self._lock:
                    pipe.write(json.dumps(message).encode() + b"\n")
                    pipe.flush()
        except (OSError, ValueError) as error:
            raise UnavailableError("the mover's process has ended") from error

    def _listen(self) -> None:
        pipe = self._process.stdout
        for line in pipe or ():
            self._hear(json.loads(line))
        gone = UnavailableError("the mover's process has ended")
        with self._lock:
            waiting = [self._started, *self._calls.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(gone)

    def _hear(self, message: Json) -> None:
        if "progress" in message:
            progress = progress_from_json(message["progress"])
            with self._lock:
                self._progress = progress
        error = error_from_json(message["error"]) if message.get("error") else None
        future = self._started if "started" in message else None
        if "answer" in message:
            with self._lock:
                future = self._calls.get(message["answer"])
        if future is None:
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


class MoverProcesses:
    """ports.Movers: each mover in a child process of this one.

    :param chunk_bytes: as RunningMover's.
    """

    def __init__(self, chunk_bytes: int = AIM_BYTES) -> None:
        self._chunk_bytes = chunk_bytes
        self._lock = threading.Lock()
        self._movers: dict[tuple[str, str], ProcessMover] = {}
        self._starting: dict[tuple[str, str], threading.Lock] = {}
        # The kernel's death signal follows the thread that made the child, so one thread makes all and stays.
        self._nursery = ThreadPoolExecutor(1, "movers")

    def start(self, spec: MoverSpec) -> ProcessMover:
        """Start, or return the one that runs with the same epoch.

        :raises FencedError: a newer epoch has the streams, here or in the sidecar.
        :raises PreconditionsFailedError: the tables cannot be moved as they are.
        :raises UnavailableError: a server cannot be reached.
        """
        name = (spec.workflow_id, spec.direction)
        with self._lock:
            starting = self._starting.setdefault(name, threading.Lock())
        with starting:
            with self._lock:
                known = self._movers.get(name)
            if known is not None and known.alive:
                if known.spec.epoch > spec.epoch:
                    raise FencedError(f"epoch {known.spec.epoch} runs here already", epoch=spec.epoch)
                if known.spec.epoch == spec.epoch:
                    return known
            if known is not None:
                known.stop(_GRACE_SECONDS)
            mover = ProcessMover(spec, self._nursery.submit(_spawn).result())
            mover.begin(self._chunk_bytes)
            with self._lock:
                self._movers[name] = mover
            return mover

    def claim(self, spec: MoverSpec) -> None:
        """Check and claim as :meth:`start` does, and run nothing. It is quick, so it needs no child.

        :raises HomeworldError: as start.
        """
        for follower in assemble(spec, threading.Event()).followers.values():
            follower.appliers.close()

    def running(self, workflow_id: str, direction: str) -> ProcessMover | None:
        """The live mover, if any."""
        with self._lock:
            known = self._movers.get((workflow_id, direction))
        return known if known is not None and known.alive else None

    def close(self) -> None:
        """Stop all movers."""
        with self._lock:
            movers = list(self._movers.values())
            self._movers.clear()
        for mover in movers:
            mover.stop(_GRACE_SECONDS)
        self._nursery.shutdown()


def _spawn() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "homeworld.replication.mover_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # a terminal's Ctrl-C is its owner's to deal with
    )


class _Child:
    """The child's side."""

    def __init__(self, incoming: IO[bytes], outgoing: IO[bytes]) -> None:
        self._in = incoming
        self._out = outgoing
        self._lock = threading.Lock()

    def run(self) -> None:
        told: Json = json.loads(self._in.readline())
        mover = RunningMover(spec_from_json(told["spec"]), chunk_bytes=told["chunk_bytes"])
        try:
            mover.start()
        except HomeworldError as error:
            self._say({"started": False, "error": error_to_json(error)})
            return
        self._say({"started": True, "progress": progress_to_json(mover.progress())})
        threading.Thread(target=self._listen, args=(mover,), name="calls", daemon=True).start()
        self._tell(mover)

    def _tell(self, mover: RunningMover) -> None:
        """Tell what is new until the mover has ended."""
        last: Any = None
        over = False
        while not over:
            over = mover.news(TELL_SECONDS)
            with self._lock:  # read and told at once: none comes behind what an answer has told since
                news = progress_to_json(mover.progress())
                if news != last:
                    self._write({"progress": news})
                    last = news

    def _listen(self, mover: RunningMover) -> None:
        for line in self._in:
            message: Json = json.loads(line)
            if "limit" in message:
                mover.limit(limits_from_json(message["limit"]))
            elif "hurry" in message:
                mover.hurry(message["hurry"])
            else:
                self._begin(mover, message)
        os._exit(3)  # the owner is gone; nothing more is to be written

    def _begin(self, mover: RunningMover, message: Json) -> None:
        threading.Thread(target=self._perform, args=(mover, message), daemon=True).start()

    def _perform(self, mover: RunningMover, message: Json) -> None:
        error: Json | None = None
        try:
            if "drain" in message:
                mover.drain(message["drain"], message["timeout"])
            elif "verify" in message:
                mover.verify(message["verify"], repair=message["repair"])
            elif "stop" in message:
                mover.stop(message["stop"])
        except HomeworldError as found:
            error = error_to_json(found)
        if "call" in message:
            self._say({"answer": message["call"], "error": error}, mover)

    def _say(self, message: Json, of: RunningMover | None = None) -> None:
        """Tell the owner.

        :param of: whose progress goes with it. Read under the lock: none is told behind a newer one.
        """
        with self._lock:
            if of is not None:
                message = {**message, "progress": progress_to_json(of.progress())}
            self._write(message)

    def _write(self, message: Json) -> None:
        self._out.write(json.dumps(message).encode() + b"\n")
        self._out.flush()


def main() -> None:
    """Run the mover whose spec comes first on standard input, until it ends or the input does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # A thread whose server waits for rows gets its turn soon from one that works on its own: within the usual
    # 5 ms that one reads thousands.
    sys.setswitchinterval(_SWITCH_SECONDS)
    # Rows are tuples of bytes, made and dropped by the hundred thousand: no cycles, and nothing to look for.
    gc.freeze()
    gc.set_threshold(*_COLLECT)
    # Nothing but the protocol may get into the pipe: whatever else prints goes to standard error.
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _Child(sys.stdin.buffer, outgoing).run()
    outgoing.flush()
    os._exit(0)  # daemon threads may still sit in a read


if __name__ == "__main__":
    main()
