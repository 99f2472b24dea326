"""A private PostgreSQL for tests, from the system's package, in a temporary folder.

It listens on a unix socket only, so that it needs no port; it runs without fsync, because its data does not
outlive the test. initdb refuses root: as root everything runs as the package's own user.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

_USERS = ("postgres", "nobody")
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "150",
    "autovacuum": "off",
}
# As an installation has it: what is committed outlives the machine, and tables are looked after.
_DURABLE = {
    **_SETTINGS,
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "128MB",
    "autovacuum": "on",
}


def programs() -> Path | None:
    """The folder with initdb and pg_ctl of the newest installed version, if any."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    return found[-1].parent if found else None


class Postgres:
    """A running cluster. ``url(name)`` is a database in it; close it at the end.

    :param durable: with the settings of an installation, for measuring.
    """

    def __init__(self, *, durable: bool = False) -> None:
        bin_folder = programs()
        if bin_folder is None:
            raise RuntimeError("PostgreSQL is not installed")
        self._bin = bin_folder
        self._folder = Path(tempfile.mkdtemp(prefix="hw-pg-"))
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            user = next(name for name in _USERS if _known(name))
            shutil.chown(self._folder, user)
            self._as_user = ["setpriv", f"--reuid={user}", "--init-groups", "--"]
        self._run(
            "initdb", "-D", self._data, "-U", "homeworld", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"
        )
        options = " ".join(
            f"-c {name}='{value}'" for name, value in (_DURABLE if durable else _SETTINGS).items()
        )
        options += f" -k {self._folder}"
        self._run("pg_ctl", "-D", self._data, "-l", self._folder / "log", "-w", "-o", options, "start")

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def data_folder(self) -> Path:
        """Where the cluster keeps its data, and the pid of its first process."""
        return self._data

    def url(self, database: str) -> str:
        """The URL of a database of this cluster."""
        return f"postgresql://homeworld@/{database}?host={self._folder}"

    def close(self) -> None:
        """Stop the cluster and remove its folder."""
        self._run("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")
        shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: str | Path) -> None:
        command = [*self._as_user, str(self._bin / program), *map(str, arguments)]
        # pg_ctl leaves the server with its output open: a pipe would never end.
        done = subprocess.run(
            command,
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=60,
        )
        if done.returncode:
            log = self._folder / "log"
            raise RuntimeError(f"{program} failed: {log.read_text() if log.exists() else 'no log'}")


def _known(user: str) -> bool:
    return subprocess.run(["id", user], capture_output=True, check=False).returncode == 0
