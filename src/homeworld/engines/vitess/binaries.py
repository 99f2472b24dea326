"""Which programs of Vitess there are, and what they can stand on.

Looks on PATH first, then where ``install`` builds them; all of one version, or none. What that version cannot
do is refused here, before anything is made. Knows nothing of clusters or running processes.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from homeworld.engines.vitess import install
from homeworld.model.errors import InvalidError
from homeworld.model.topology import Flavor

NAMES = install.NAMES
HINT = "run 'homeworld engine install vitess', which needs Go, or put the programs of Vitess and etcd on PATH"
# The commands and flags that are used here are of these.
OLDEST, NEWEST_SERIES = (23, 0, 0), 23
# Vitess 23 takes a server that says anything else for MySQL 5.7 and asks it what it does not know.
_MYSQL_SERIES = (8, 9)
_OLDEST_MYSQL = (8, 0, 27)
_VITESS_VERSION = re.compile(r"\bVersion: (\d+)\.(\d+)\.(\d+)")
_ETCD_VERSION = re.compile(r"etcd Version: (\d+)\.(\d+)\.(\d+)")
_OLDEST_ETCD = (3, 4, 0)


@dataclass(frozen=True, slots=True)
class Binaries:
    """The programs of one version of Vitess, and etcd.

    :param paths: of each of ``NAMES``.
    :param version: of Vitess. ``etcd_version``: of etcd.
    """

    paths: Mapping[str, Path]
    version: tuple[int, int, int]
    etcd_version: tuple[int, int, int]

    @property
    def version_text(self) -> str:
        """``23.0.3``"""
        return ".".join(str(part) for part in self.version)

    def refusal(self, flavor: Flavor, server_version: str) -> str:
        """Why these programs cannot stand on such servers, in one sentence; empty: they can.

        :param server_version: as ``9.7.4``.
        """
        if flavor is not Flavor.MYSQL:
            return f"Vitess stands on MySQL only, and the servers here are {flavor.value} {server_version}"
        version = tuple(int(part) for part in re.findall(r"\d+", server_version)[:3])
        if version < _OLDEST_MYSQL or version[0] not in _MYSQL_SERIES:
            return (
                f"Vitess {self.version_text} stands on MySQL 8.0.27 to 9.x, and the servers here are MySQL "
                + server_version
            )
        return ""


def find() -> Binaries:
    """The programs to use: those on PATH, else those that ``install`` has built.

    :raises InvalidError: some are missing, do not run, or are of a version that is not supported.
    """
    candidates = [_on_path(), _in(install.bin_folder())]
    best = max(candidates, key=len)
    if missing := [name for name in NAMES if name not in best]:
        what = "Vitess is not installed" if len(missing) == len(NAMES) else f"{', '.join(missing)} is missing"
        raise InvalidError(f"{what}; {HINT}")
    vitess = {name: _version(best[name], _VITESS_VERSION) for name in NAMES if name != "etcd"}
    version = vitess["vttablet"]
    if len(set(vitess.values())) > 1:
        raise InvalidError(
            f"the programs of Vitess beside {best['vttablet']} are of different versions: {vitess}"
        )
    if version < OLDEST or version[0] > NEWEST_SERIES:
        text = ".".join(str(part) for part in version)
        raise InvalidError(
            f"{best['vttablet']} is Vitess {text}, and only {NEWEST_SERIES} is supported; {HINT}"
        )
    etcd = _version(best["etcd"], _ETCD_VERSION)
    if etcd < _OLDEST_ETCD:
        raise InvalidError(f"{best['etcd']} is older than etcd 3.4; {HINT}")
    return Binaries(best, version, etcd)


def client() -> Path:
    """The vtctldclient to use, which is all that a cluster of others needs here.

    :raises InvalidError: there is none, or one of a version that is not supported.
    """
    name = "vtctldclient"
    paths = [path for path in (_on_path().get(name), _in(install.bin_folder()).get(name)) if path]
    told = ""
    for path in paths:
        version = _version(path, _VITESS_VERSION)
        if version >= OLDEST and version[0] <= NEWEST_SERIES:
            return path
        told = f"{path} is of Vitess {'.'.join(map(str, version))}, and only {NEWEST_SERIES} is supported"
    raise InvalidError(f"{told or 'vtctldclient is not installed'}; {HINT}")


def _on_path() -> dict[str, Path]:
    found = {name: shutil.which(name) for name in NAMES}
    return {name: Path(path).absolute() for name, path in found.items() if path is not None}


def _in(folder: Path) -> dict[str, Path]:
    return {name: folder / name for name in NAMES if os.access(folder / name, os.X_OK)}


def _version(path: Path, pattern: re.Pattern[str]) -> tuple[int, int, int]:
    try:
        done = subprocess.run(  # noqa: S603 - the program that was just found
            [str(path), "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InvalidError(f"{path} cannot be run: {error}") from error
    found = pattern.search(done.stdout + done.stderr)
    if found is None:
        raise InvalidError(f"{path} --version does not say which version it is: {done.stdout[:80]!r}")
    return int(found[1]), int(found[2]), int(found[3])


def linked(binaries: Binaries, folder: Path) -> Mapping[str, Path]:
    """The programs where another user can run them: linked, else copied, once each build.

    A user's cache is closed to others. Each build has a folder, which is there whole or not at all; what
    still runs from an older one goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    facts = {name: path.stat() for name, path in sorted(binaries.paths.items())}
    # What is built anew has another time.
    text = "".join(f"{name}:{fact.st_mtime_ns}:{fact.st_size}\n" for name, fact in facts.items())
    target = folder / hashlib.sha256(text.encode()).hexdigest()[:12]
    if not target.is_dir():
        scratch = folder / f".new-{secrets.token_hex(4)}"
        scratch.mkdir()
        for name, source in binaries.paths.items():
            try:
                os.link(source.resolve(), scratch / name)
            except OSError:  # another file system
                shutil.copy2(source, scratch / name)
        scratch.chmod(0o755)
        scratch.rename(target)
    for other in folder.iterdir():
        if other != target:
            shutil.rmtree(other)
    return {name: target / name for name in binaries.paths}
