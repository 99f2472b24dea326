"""A ``homeworld up`` of one's own, as a child process: for the demo and for anyone who tests against it.

The child's servers outlive it by design, so :meth:`Installation.destroy` asks for them to be stopped
(``homeworld down``) before the folder goes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any


class InstallationError(Exception):
    """homeworld did not come up."""


@dataclass(slots=True)
class Installation:
    """One data directory and the process that serves it.

    :param options: further options of ``homeworld up``.
    """

    data_dir: Path
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict[str, str])
    process: subprocess.Popen[bytes] | None = None
    ready: dict[str, Any] = field(default_factory=dict[str, Any])
    _log: IO[bytes] | None = None

    @property
    def ready_file(self) -> Path:
        """Where ``up`` writes what clients need to know."""
        return self.data_dir / "ready.json"

    @property
    def log_file(self) -> Path:
        """What ``up`` prints."""
        return self.data_dir / "homeworld.log"

    def start(self, timeout_seconds: float = 120.0) -> dict[str, Any]:
        """Start and wait until everything serves; returns the ready file's object.

        :raises InstallationError: it ended or did not serve in time; the message has its last words.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.ready_file.unlink(missing_ok=True)
        self._log = self.log_file.open("ab")
        self.process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "homeworld.main", "up", "--data-dir", str(self.data_dir),
             "--ready-file", str(self.ready_file), *self.options],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT,
            # Whoever has an installation of their own asks it as often as they like.
            env={"HOMEWORLD_REQUESTS_PER_MINUTE": "0", **os.environ, **self.environment},
        )  # fmt: skip
        deadline = time.monotonic() + timeout_seconds
        while not self.ready_file.exists():
            if self.process.poll() is not None:
                raise InstallationError(
                    f"homeworld ended with {self.process.returncode}: {self.last_words()}"
                )
            if time.monotonic() > deadline:
                self.kill()
                raise InstallationError(
                    f"homeworld did not serve in {timeout_seconds} s: {self.last_words()}"
                )
            time.sleep(0.02)
        self.ready = json.loads(self.ready_file.read_text())
        return self.ready

    def last_words(self) -> str:
        """The end of the log."""
        return self.log_file.read_text(errors="replace")[-2000:].strip()

    def stop(self, timeout_seconds: float = 60.0) -> int:
        """SIGTERM and wait until it has ended in order, its MySQL servers too; returns the exit code.

        :raises InstallationError: it did not stop in time (it is killed then).
        """
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise InstallationError(f"homeworld did not stop within {timeout_seconds} s") from None
        self._forget()
        return code

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self._forget()

    def destroy(self) -> None:
        """Stop the process, then the MySQL servers of the data directory."""
        try:
            self.stop()
        finally:
            subprocess.run(  # noqa: S603 - our own program
                [sys.executable, "-m", "homeworld.main", "down", "--data-dir", str(self.data_dir)],
                check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=60,
            )  # fmt: skip

    def _forget(self) -> None:
        self.process = None
        if self._log is not None:
            self._log.close()
            self._log = None
