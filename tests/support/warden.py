"""Ends the servers of a test run that was itself killed.

A child process waits on a pipe for folder names. When the pipe closes, because the test process ended in
whatever way (kill -9 too), it kills every process whose command line names one of those folders, and deletes
the folders it was told to. The invariant: no database server outlives the test process that made its folder,
and nothing stays behind in memory.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

_CHILD = r"""
import os, shutil, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
lines = [line.rstrip("\n") for line in sys.stdin]
folders = [line[1:].encode() for line in lines]
for pid in filter(str.isdigit, os.listdir("/proc")):
    if int(pid) == os.getpid():
        continue
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            line = file.read()
        if any(folder + b"/" in line for folder in folders):
            os.kill(int(pid), signal.SIGKILL)
    except OSError:
        continue
for line in lines:
    if line[0] == "-":
        shutil.rmtree(line[1:], ignore_errors=True)
"""

_lock = threading.Lock()
_child: subprocess.Popen[str] | None = None


def guard(folder: Path, *, delete: bool = False) -> None:
    """Every process that names ``folder`` (absolute) on its command line ends with this test process, and the
    folder too where ``delete``.
    """
    global _child  # noqa: PLW0603 - one child for the whole test process
    with _lock:
        if _child is None:
            _child = subprocess.Popen(
                [sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, text=True, start_new_session=True
            )
        assert _child.stdin is not None
        _child.stdin.write(f"{'-' if delete else '='}{folder}\n")
        _child.stdin.flush()
