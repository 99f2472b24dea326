"""Which server program there is, and what it is.

Finds MySQL 8.0.27 to 9.x or MariaDB 10.6+ and reads its flavour and version from ``--version``. Knows nothing
of data directories or running servers. A program that cannot be used is refused here, in one line.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from homeworld.model.errors import InvalidError
from homeworld.model.topology import Flavor

# Where packages put servers that are not on every user's PATH.
_SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/libexec", "/usr/local/mysql/bin", "/usr/bin")
_NAMES = ("mysqld", "mariadbd")
_VERSION = re.compile(r"\bVer (\d+)\.(\d+)\.(\d+)")
# MySQL 8.0.27: replication statements (8.0.23), option names (8.0.26) and ordered commits by default.
OLDEST = {Flavor.MYSQL: (8, 0, 27), Flavor.MARIADB: (10, 6, 0)}
NEWEST_MYSQL_SERIES = 9
_HINT = "install MariaDB 10.6+ or MySQL 8.0.27-9.x, or name a server program with --mysqld"


@dataclass(frozen=True, slots=True)
class Binary:
    """One server program. ``path`` may be a wrapper that runs the real one."""

    path: Path
    flavor: Flavor
    version: tuple[int, int, int]

    @property
    def version_text(self) -> str:
        """``9.7.4``"""
        return ".".join(str(part) for part in self.version)

    def companion(self, *names: str) -> Path:
        """A program of the same installation, by the first of ``names`` that is there.

        :raises InvalidError: none is; the message names the first.
        """
        here = self.path.parent
        for folder in (here, here.parent / "bin", here.parent / "scripts"):
            for name in names:
                if os.access(folder / name, os.X_OK):
                    return folder / name
        for name in names:
            if found := shutil.which(name):
                return Path(found)
        raise InvalidError(
            f"{names[0]} is not beside {self.path} nor on PATH; it belongs to the same package"
        )


def parse_version(text: str, path: Path) -> Binary:
    """Read what ``mysqld --version`` printed.

    :raises InvalidError: it is neither MySQL nor MariaDB, or a version that is not supported.
    """
    found = _VERSION.search(text)
    if found is None:
        raise InvalidError(
            f"{path} does not look like a MySQL or MariaDB server: --version says {text[:80]!r}"
        )
    version = (int(found[1]), int(found[2]), int(found[3]))
    flavor = Flavor.MARIADB if "mariadb" in text.lower() else Flavor.MYSQL
    binary = Binary(path, flavor, version)
    too_new = flavor is Flavor.MYSQL and version[0] > NEWEST_MYSQL_SERIES
    if version < OLDEST[flavor] or too_new:
        raise InvalidError(f"{path} is {flavor.value} {binary.version_text}, which is not supported; {_HINT}")
    return binary


def inspect(path: Path) -> Binary:
    """Run ``path --version`` and say what it is.

    :raises InvalidError: it is not there, cannot be run, or is not supported.
    """
    if not path.is_file():
        raise InvalidError(f"there is no server program at {path}; {_HINT}")
    if not os.access(path, os.X_OK):
        raise InvalidError(f"{path} may not be executed by this user")
    # Absolute but not resolved: which program a wrapper runs can depend on the name it is called by.
    absolute = path.absolute()
    try:
        done = subprocess.run(  # noqa: S603 - running the program that the user named is the point
            [str(absolute), "--no-defaults", "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InvalidError(f"{path} cannot be run: {error}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise InvalidError(f"{path} --version failed: {said[-1] if said else f'exit code {done.returncode}'}")
    return parse_version(done.stdout, absolute)


def find(explicit: Path | None = None) -> Binary:
    """The server program to use: ``explicit`` if given, else the first supported one of this machine.

    :raises InvalidError: there is none; the message says what was looked at and what to do.
    """
    if explicit is not None:
        return inspect(explicit.expanduser())
    folders = [*os.environ.get("PATH", "").split(os.pathsep), *_SYSTEM_FOLDERS]
    refused: list[str] = []
    tried: set[Path] = set()
    for name in _NAMES:
        for folder in folders:
            candidate = Path(folder or ".") / name
            if not os.access(candidate, os.X_OK) or not candidate.is_file() or candidate.resolve() in tried:
                continue
            tried.add(candidate.resolve())
            try:
                return inspect(candidate)
            except InvalidError as error:
                refused.append(error.message)
    raise InvalidError(refused[0] if refused else f"no MySQL or MariaDB server on PATH; {_HINT}")
