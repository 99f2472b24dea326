"""Asking a branch's vtctld, through the client that comes with it.

Answers are JSON on standard output; logs go elsewhere. Errors come as text with a gRPC code, which is all
that tells apart what was refused, what is not there and what may go better later. Knows no clusters.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from homeworld.model.errors import (
    ConflictError,
    DeadlineExceededError,
    HomeworldError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)

_log = logging.getLogger(__name__)
_CODE = re.compile(r"rpc error: code = (\w+) desc = (.*)", re.DOTALL)
_ABSENT = ("node doesn't exist", "no such workflow", "doesn't exist, check if the keyspace is initialized")
_PRESENT = ("node already exists",)
_LATE = ("context deadline exceeded", "DeadlineExceeded", "deadline exceeded")
_AWAY = (
    "connection refused", "connection error", "Unavailable", "no healthy tablet", "transport is closing",
    "etcdserver: ", "EOF", "no leader", "is not serving", "server is shutting down",
)  # fmt: skip
# For its input and to do its work, as long as a hold lasts: afterwards it does nothing any more.
_WAITS_SECONDS = 20.0
# How much longer than the client itself may take.
_GRACE_SECONDS = 5.0


def error_of(stderr: str, what: str) -> HomeworldError:
    """What the client's complaint means.

    :param what: the command, for the message.
    """
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    text = next((line for line in reversed(lines) if "rpc error" in line or line.startswith("Error")), "")
    text = text or (lines[-1] if lines else "it said nothing")
    found = _CODE.search(text)
    code, words = (found[1], found[2]) if found else ("Unknown", text)
    message = f"Vitess's {what}: {words.strip()}"
    if code == "DeadlineExceeded" or any(sign in words for sign in _LATE):
        return DeadlineExceededError(message)
    if code == "NotFound" or any(sign in words for sign in _ABSENT):
        return NotFoundError(message)
    if code == "AlreadyExists" or any(sign in words for sign in _PRESENT):
        return ConflictError(message)
    if code in {"Unavailable", "Canceled", "Aborted"} or any(sign in words for sign in _AWAY):
        return UnavailableError(message)
    return InvalidError(message)


def json_in(stdout: str) -> Any:
    """The first JSON in an answer; some commands print a line before it, or after. None where there is none,
    and for an empty list of Vitess's.
    """
    for start in sorted(at for at in (stdout.find("{"), stdout.find("[")) if at >= 0):
        try:
            value, _ = json.JSONDecoder().raw_decode(stdout, start)
        except ValueError:
            continue
        return value
    return None


def json_of(stdout: str) -> Any:
    """The JSON in an answer that has to have some; None for an empty list of Vitess's.

    :raises HomeworldError: there is none.
    """
    value = json_in(stdout)
    if value is None and stdout.strip() != "null":
        raise HomeworldError(f"Vitess answered without JSON: {stdout[:200]!r}")
    return value


class Waiting:
    """A command that was started and waits for the JSON that it is to be given: a process takes 50 ms to come
    up, which nobody has to wait for then. Where nobody gives it any, also because this process has died, it
    reads none and does nothing.
    """

    def __init__(self, process: subprocess.Popen[str], what: str) -> None:
        self.process = process
        self._what = what

    @property
    def alive(self) -> bool:
        """Whether it still waits."""
        return self.process.poll() is None

    def give(self, content: object, timeout_seconds: float) -> None:
        """Give it the JSON, and wait until it has done its work.

        :raises DeadlineExceededError: not in time; it may have been done all the same.
        :raises HomeworldError: as of :meth:`Vtctldclient.run`.
        """
        try:
            _, stderr = self.process.communicate(json.dumps(content), timeout=max(0.5, timeout_seconds))
        except subprocess.TimeoutExpired:
            self.abandon()
            raise DeadlineExceededError(
                f"Vitess's {self._what} did not answer within {timeout_seconds:g} s"
            ) from None
        if self.process.returncode != 0:
            raise error_of(stderr, self._what)

    def abandon(self) -> None:
        """End it, whatever it does. Before its input ends: it must never take that for what it was to get."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


class Vtctldclient:
    """The client of one vtctld.

    :param command: the command line for a timeout in seconds, up to the vtctld command.
    :param scratch: a folder for files that are too long for a command line.
    """

    def __init__(self, command: Callable[[float], tuple[str, ...]], scratch: Path) -> None:
        self._command = command
        self._scratch = scratch

    def run(self, *arguments: str, timeout_seconds: float = 30.0) -> str:
        """Run a command; what it printed.

        :raises DeadlineExceededError: not in time; it may have been done all the same.
        :raises UnavailableError: vtctld, or what it asks, does not answer.
        :raises NotFoundError: what it names is not there. :raises ConflictError: it is there already.
        :raises InvalidError: Vitess refuses, in its words.
        """
        timeout = max(0.5, timeout_seconds)
        command = [*self._command(timeout), *arguments]
        what = _what(arguments)
        try:
            done = subprocess.run(  # noqa: S603 - a program of ours, by its path
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout + _GRACE_SECONDS,
                env=self._environment(),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DeadlineExceededError(f"Vitess's {what} did not answer within {timeout:g} s") from None
        except OSError as error:
            raise UnavailableError(f"{command[0]} cannot be run: {error}") from error
        if done.returncode != 0:
            raise error_of(done.stderr, what)
        return done.stdout

    def json(self, *arguments: str, timeout_seconds: float = 30.0) -> Any:
        """Run a command and read the JSON that it printed, without what is at its default.

        :raises HomeworldError: as of :meth:`run`.
        """
        return json_of(self.run("--compact", *arguments, timeout_seconds=timeout_seconds))

    def run_with_file(
        self, flag: str, content: object, *arguments: str, timeout_seconds: float = 30.0
    ) -> str:
        """Run a command that reads JSON from a file.

        :param flag: that names the file, as ``--vschema-file``.
        """
        with tempfile.NamedTemporaryFile("w", suffix=".json", dir=self._scratch) as file:
            json.dump(content, file)
            file.flush()
            return self.run(*arguments, f"{flag}={file.name}", timeout_seconds=timeout_seconds)

    def begin_with_input(self, flag: str, *arguments: str) -> Waiting:
        """Start a command that reads JSON from a file, and let it wait for that.

        :param flag: that names the file, as ``--rules-file``.
        :raises UnavailableError: the program cannot be run.
        """
        command = [*self._command(_WAITS_SECONDS), *arguments, f"{flag}=/dev/stdin"]
        try:
            process = subprocess.Popen(  # noqa: S603 - a program of ours, by its path
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=self._environment(),
            )
        except OSError as error:
            raise UnavailableError(f"{command[0]} cannot be run: {error}") from error
        return Waiting(process, _what(arguments))

    def _environment(self) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin", "HOME": str(self._scratch), "TZ": "UTC"}


def _what(arguments: tuple[str, ...]) -> str:
    return " ".join(part for part in arguments[:3] if not part.startswith("-"))
