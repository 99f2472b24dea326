"""Processes of Vitess and etcd: started for another user where this one is root, found again, ended.

As MySQL servers they live in sessions of their own and outlive homeworld. One is known by an argument that
names its own folder, and it is the right one where its whole command line is as it should be now: whatever
changes that (a program, a port, a certificate) shows there, so nothing else needs to be remembered.
"""

from __future__ import annotations

import os
import pwd
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from homeworld.engines import process
from homeworld.engines.vitess.arguments import Folder
from homeworld.model.errors import InvalidError

_USER = "nobody"
_LOG_TAIL = 16384


@dataclass(frozen=True, slots=True)
class Wanted:
    """A process that there has to be.

    :param name: for people.
    :param mark: the argument by which it is known.
    :param files: those that it reads, by name; they are in its folder, and only it reads them.
    """

    name: str
    command: tuple[str, ...]
    mark: str
    folder: Folder
    files: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)


class Act(StrEnum):
    """What a wanted process needs."""

    NOTHING = ""
    START = "start"
    RESTART = "restart"


def decide(wanted: Sequence[str], running: Sequence[str] | None) -> Act:
    """What to do.

    :param running: the command line of the process that runs; None: none does. Empty, or that of the program
        that changes users: it is becoming another program at this moment.
    """
    if running is None:
        return Act.START
    if not running or tuple(running) == tuple(wanted) or tuple(running[-len(wanted) :]) == tuple(wanted):
        return Act.NOTHING
    return Act.RESTART


class Runner:
    """Starts and ends processes as the user who may run them."""

    def __init__(self) -> None:
        self._prefix: tuple[str, ...] = ()
        self._owner: tuple[int, int] | None = None
        if os.geteuid() == 0:
            setpriv = shutil.which("setpriv")
            if setpriv is None:
                raise InvalidError(
                    "Vitess runs nothing as root, and setpriv (of the package util-linux) is not on PATH to "
                    "run it as another user; install it, or run homeworld as a user of its own"
                )
            user = pwd.getpwnam(_USER)
            self._owner = (user.pw_uid, user.pw_gid)
            self._prefix = (
                setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups",
                "--no-new-privs", "--",
            )  # fmt: skip

    @property
    def other_user(self) -> bool:
        """Whether processes run as somebody else than this one."""
        return self._owner is not None

    def share(self, *paths: Path) -> None:
        """Let whoever runs the processes read these files and folders of ours."""
        if self._owner is not None:
            for path in paths:
                os.chown(path, -1, self._owner[1])
                path.chmod(0o750 if path.is_dir() else 0o640)

    def _hand_over(self, folder: Path) -> None:
        """A folder that the process writes into; its parent is ours alone to change."""
        folder.mkdir(exist_ok=True, mode=0o700)
        if self._owner is not None:
            os.chown(folder, *self._owner)

    def pid(self, wanted: Wanted) -> int | None:
        """Its process, if it runs."""
        return process.find(wanted.mark, wanted.folder.pid)

    def look(self, wanted: Wanted) -> Act:
        """What it needs now."""
        pid = self.pid(wanted)
        return decide(wanted.command, None if pid is None else process.arguments_of(pid))

    def ensure(
        self, wanted: Wanted, end_seconds: float = 10.0, *, before: Callable[[], None] | None = None
    ) -> bool:
        """Start it where it does not run as it should; returns at once.

        :param before: what is done once the one before has ended and none is begun yet.
        :returns: whether it was started.
        :raises UnavailableError: it could not be started, or the one before does not end.
        """
        act = self.look(wanted)
        if act is Act.NOTHING:
            return False
        if act is Act.RESTART:
            self.end(wanted, end_seconds)
        if before is not None:
            before()
        folder = wanted.folder
        folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.share(folder.path)
        for theirs in (folder.work, folder.own_logs):
            self._hand_over(theirs)
        for name, text in wanted.files.items():
            self._write(folder.path / name, text)
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder.work),
            "TZ": "UTC",
            "VTDATAROOT": str(folder.work),
        }
        command = (*self._prefix, *wanted.command)
        process.launch(command, environment, wanted.folder.pid, wanted.folder.log)
        return True

    def terminate(self, wanted: Wanted) -> None:
        """Ask it to end, without waiting."""
        pid = self.pid(wanted)
        if pid is not None:
            process.terminate(pid, wanted.mark)

    def end(self, wanted: Wanted, timeout_seconds: float) -> bool:
        """End it, kill it after the time.

        :returns: whether it ended by itself, or did not run.
        """
        pid = self.pid(wanted)
        return pid is None or process.end(pid, wanted.mark, timeout_seconds)

    def end_all(self, wanted: Sequence[Wanted], timeout_seconds: float) -> list[str]:
        """End them at once; the names of those that had to be killed."""
        for one in wanted:
            self.terminate(one)
        deadline = time.monotonic() + timeout_seconds
        return [one.name for one in wanted if not self.end(one, max(0.01, deadline - time.monotonic()))]

    def _write(self, path: Path, text: str) -> None:
        scratch = path.with_name(f".{path.name}.new")
        scratch.unlink(missing_ok=True)
        handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(text)
        self.share(scratch)
        scratch.replace(path)


def last_words(folder: Folder) -> str:
    """What a process printed last, in one line; nothing where it has printed nothing."""
    try:
        with folder.log.open("rb") as file:
            file.seek(max(0, folder.log.stat().st_size - _LOG_TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return "no log"
    # Go prints all its stacks after a fatal line.
    fatal = [line for line in lines if line.startswith(("F", "panic:", "fatal error:", "E"))]
    return " | ".join(line.strip() for line in (fatal or lines)[-2:])[:1000] or "an empty log"
