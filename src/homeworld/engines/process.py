"""Server processes: starting them so that they outlive this process, finding them again, ending them.

A process is known by an exact argument on its command line, never by its pid alone: a pid can be reused, the
path of a process's own file cannot mean anything else. A MySQL server is known by its ``--defaults-file=``;
others (``known_by`` as a string) by another argument with a path. So one whose pid was never written
down, because homeworld died right after starting it, is found all the same. Knows no SQL.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from homeworld.model.errors import UnavailableError

_PROC = Path("/proc")
_LOG_LIMIT = 16 * 1024 * 1024
# Nobody waits for a killed process longer than this; it can only be stuck in the kernel (a dying disk).
_KILL_SECONDS = 30.0
# "Starting MariaDB 10.11.6 … as process 7", "mysqld (mysqld 9.7.0) starting as process 7"
_STARTS = re.compile(r"^.*[Ss]tarting .*\bas process \d+", re.MULTILINE)
# So MySQL ends where the kernel has some asynchronous requests left, but too few. Where there are none at all
# it goes on without them, as MariaDB does in either case.
_NO_AIO = "Cannot initialize AIO sub-system"
# Pids that this process started and has not yet seen dead.
_children: set[int] = set()


def marker(known_by: Path | str) -> str:
    """The command line argument by which a process is known: a server's by the path of its config file, any
    other's is the argument itself.
    """
    return known_by if isinstance(known_by, str) else f"--defaults-file={known_by}"


def runs(pid: int, known_by: Path | str) -> bool:
    """Whether ``pid`` is alive now and is the process known by that."""
    if pid in _children:
        # A dead child stays in the process table until it is waited for. Only our own are: another part of
        # this process may be waiting for a child that happens to have this pid.
        try:
            ended, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            ended = pid
        if ended == pid:
            _children.discard(pid)
            return False
    line = _command_line(pid)
    if line:
        return os.fsencode(marker(known_by)) in line.split(b"\0")
    # No command line: it is becoming another program at this moment (a wrapper does), or it is ending and has
    # still its files and ports, or it has ended, or the pid now belongs to a thread of the kernel.
    return line is not None and _is_between_programs(pid)


def _command_line(pid: int) -> bytes | None:
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def _is_between_programs(pid: int) -> bool:
    try:
        facts = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # pid (name) state parent …; the name may itself have brackets. Parent 2 is the kernel's thread maker.
    state, parent = facts.rpartition(")")[2].split()[:2]
    return parent != "2" and (state not in "ZX" or pid in _children)


def arguments_of(pid: int) -> tuple[str, ...]:
    """The command line that a process was started with; empty where it has ended."""
    line = _command_line(pid) or b""
    return tuple(os.fsdecode(part) for part in line.split(b"\0")[:-1])


def find(known_by: Path | str, pid_file: Path) -> int | None:
    """The pid of the running process known by that: by ``pid_file``, else by a look at all processes."""
    try:
        pid = int(pid_file.read_text())
    except (FileNotFoundError, ValueError):
        pid = 0
    if pid > 0 and runs(pid, known_by):
        return pid
    wanted = os.fsencode(marker(known_by))
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and wanted in (_command_line(int(entry.name)) or b"").split(b"\0"):
            return int(entry.name)
    return None


def spawn(program: Path, arguments: Sequence[str], config: Path, pid_file: Path, log: Path) -> int:
    """Start the server in a session of its own, output appended to ``log``; its pid, also in ``pid_file``.

    Returns at once; whether it comes up is to be asked of the server.

    :raises UnavailableError: the program could not be started at all.
    """
    # MYSQL_* variables (MYSQL_HOME, MYSQL_TCP_PORT …) would change what the server reads.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MYSQL")}
    return launch([str(program), marker(config), *arguments], environment, pid_file, log)


def launch(command: Sequence[str], environment: Mapping[str, str], pid_file: Path, log: Path) -> int:
    """Start a process in a session of its own, output appended to ``log``; its pid, also in ``pid_file``.

    Returns at once. The command names its program by its path.

    :raises UnavailableError: the program could not be started at all.
    """
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > _LOG_LIMIT:
            log.replace(log.with_suffix(".1.log"))
    try:
        pid = os.posix_spawn(
            command[0],
            list(command),
            dict(environment),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGTERM),
        )
    except OSError as error:
        raise UnavailableError(f"{command[0]} could not be started: {error}") from error
    _children.add(pid)
    pid_file.write_text(f"{pid}\n")
    return pid


def end(pid: int, known_by: Path | str, timeout_seconds: float) -> bool:
    """Ask the process to shut down and wait; kill it where it has not within the time.

    :returns: whether it ended by itself. Zero or less kills at once.
    :raises UnavailableError: even a killed process did not go away.
    """
    if timeout_seconds > 0:
        _signal(pid, known_by, signal.SIGTERM)
        if _gone(pid, known_by, timeout_seconds):
            return True
    _signal(pid, known_by, signal.SIGKILL)
    if not _gone(pid, known_by, _KILL_SECONDS):
        raise UnavailableError(f"process {pid} does not end although it was killed")
    return False


def terminate(pid: int, known_by: Path | str) -> None:
    """Ask the process to shut down, without waiting."""
    _signal(pid, known_by, signal.SIGTERM)


def _signal(pid: int, known_by: Path | str, number: signal.Signals) -> None:
    # Between the check and the signal the pid could only be reused if it died and the kernel's whole pid
    # range went round once; a pidfd closes even that gap.
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            if runs(pid, known_by):
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def _gone(pid: int, known_by: Path | str, timeout_seconds: float) -> bool:
    deadline = time.monotonic() + timeout_seconds
    pause = 0.005
    while runs(pid, known_by):
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
    return True


def _since_start(log: Path) -> str | None:
    """The log since the server's last start; None: there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 65536))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return None
    return text[max((found.start() for found in _STARTS.finditer(text)), default=0) :]


def lacked_aio(log: Path) -> bool:
    """Whether the server's last start failed because it could not have native asynchronous I/O."""
    return _NO_AIO in (_since_start(log) or "")


def last_words(log: Path) -> str:
    """What a server's log says went wrong since its last start: its first errors and the last."""
    text = _since_start(log)
    if text is None:
        return "no log"
    lines = text.splitlines()
    errors = [line for line in lines if "[ERROR]" in line] or [
        line for line in lines if "error" in line.lower()
    ]
    # The first names the cause, the last how it ended.
    chosen = [*errors[:2], *errors[2:][-1:]] or lines[-3:]
    return " | ".join(line.strip() for line in chosen) or "an empty log"
