"""Builds the programs of Vitess and etcd from their pinned modules: ``homeworld engine install vitess``.

Needs nothing but Python and Go, so that ``scripts/get-vitess`` can run this file by itself. ``module/go.mod``
and ``module/etcd/go.mod`` name the versions, their ``go.sum`` what each module must consist of. Invariant:
the folder of a version is there whole, with the stamp of what it was built from, or not at all; building
again what is there is a no-op.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

MODULE = Path(__file__).with_name("module")
_VITESS = "vitess.io/vitess/go/cmd/"
# What is built, by module: programs and their packages.
PROGRAMS = {
    MODULE: {name: _VITESS + name for name in ("vtctld", "vtctldclient", "vtgate", "vttablet")},
    MODULE / "etcd": {"etcd": "go.etcd.io/etcd/server/v3"},
}
NAMES = tuple(name for programs in PROGRAMS.values() for name in programs)
_STAMP = "built-from"
_GO_FOLDERS = ("/usr/local/go/bin", "/usr/lib/go/bin")


class NotBuiltError(Exception):
    """The programs cannot be had here; the message says why and what to do."""


def _pinned(module: Path, name: str) -> str:
    line = rf"^(?:require|\t)\s*{re.escape(name)} (v\S+)"
    found = re.search(line, (module / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise NotBuiltError(f"{module / 'go.mod'} pins no {name}")
    return found[1]


def vitess_version() -> str:
    """The version of Vitess that is built, as its makers write it: module ``v0.23.3`` is ``23.0.3``."""
    _, major, patch = _pinned(MODULE, "vitess.io/vitess").removeprefix("v").split(".")
    return f"{major}.0.{patch}"


def etcd_version() -> str:
    """The version of etcd that is built, as ``3.6.16``."""
    return _pinned(MODULE / "etcd", "go.etcd.io/etcd/server/v3").removeprefix("v")


def cache_folder() -> Path:
    """Where homeworld keeps what it builds: ``HOMEWORLD_CACHE``, else ``~/.cache/homeworld``."""
    return Path(os.environ.get("HOMEWORLD_CACHE") or "~/.cache/homeworld").expanduser()


def bin_folder(cache: Path | None = None) -> Path:
    """Where the programs of the pinned version are, or will be."""
    return (cache or cache_folder()) / f"vitess-{vitess_version()}" / "bin"


def built_from() -> str:
    """Changes with whatever the programs are built from."""
    digest = hashlib.sha256()
    for module in PROGRAMS:
        for name in ("go.mod", "go.sum"):
            digest.update((module / name).read_bytes())
    return digest.hexdigest()


def is_built(cache: Path | None = None) -> bool:
    """Whether every program is there, built from what is pinned now."""
    folder = bin_folder(cache)
    try:
        stamp = (folder / _STAMP).read_text().strip()
    except FileNotFoundError:
        return False
    return stamp == built_from() and all(os.access(folder / name, os.X_OK) for name in NAMES)


def install(say: Callable[[str], None], cache: Path | None = None, timeout_seconds: float = 3600.0) -> Path:
    """Build what is missing; the folder of the programs.

    :param say: told what is done, a line at a time.
    :raises NotBuiltError: there is no Go, or it could not build them in time.
    """
    root = cache or cache_folder()
    folder = bin_folder(root)
    if is_built(root):
        return folder
    go = _go()
    root.mkdir(parents=True, exist_ok=True)
    # Two at once: the second waits, and finds the first one's work.
    with _alone(root / ".get-vitess.lock"):
        if is_built(root):
            return folder
        what = f"Vitess {vitess_version()} and etcd {etcd_version()}"
        say(f"building {what} from source (5 to 30 minutes, once)")
        with tempfile.TemporaryDirectory(prefix=".vitess-", dir=root) as scratch:
            made = Path(scratch) / "bin"
            made.mkdir()
            for module, programs in PROGRAMS.items():
                say(f"building {', '.join(programs)}")
                _build(go, module, programs, made, timeout_seconds)
            (made / _STAMP).write_text(built_from() + "\n")
            made.chmod(0o755)
            if folder.exists():
                folder.rename(Path(scratch) / "before")
            folder.parent.mkdir(exist_ok=True)
            made.rename(folder)
        say(f"{what} are in {folder}")
    return folder


def _go() -> str:
    path = os.pathsep.join([os.environ.get("PATH", ""), *_GO_FOLDERS])
    go = shutil.which("go", path=path)
    if go is None:
        raise NotBuiltError(
            "there is no Go on this machine; install Go 1.25.7 or newer, or put the programs of Vitess "
            f"{vitess_version()} and etcd ({', '.join(NAMES)}) on PATH"
        )
    return go


def _build(go: str, module: Path, programs: dict[str, str], into: Path, timeout_seconds: float) -> None:
    for name, package in programs.items():
        _run([go, "build", "-trimpath", "-mod=readonly", "-buildvcs=false", "-ldflags=-s -w", "-o",
              str(into / name), package], module, timeout_seconds)  # fmt: skip
        (into / name).chmod(0o755)


def _run(command: Sequence[str], folder: Path, timeout_seconds: float) -> None:
    environment = {**os.environ, "CGO_ENABLED": "0"}
    try:
        done = subprocess.run(  # noqa: S603 - go, by its path, with arguments of ours
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotBuiltError(
            f"building {command[-1]} was not done within {timeout_seconds:g} s; running this again goes on"
        ) from None
    if done.returncode != 0:
        raise NotBuiltError(
            f"{command[-1]} could not be built: {' | '.join(done.stdout.strip().splitlines()[-5:])}"
        )


@contextmanager
def _alone(lock: Path) -> Generator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    """``scripts/get-vitess``: prints the folder of the programs, or nothing where they cannot be had."""

    def say(text: str) -> None:
        sys.stderr.write(f"get-vitess: {text}\n")

    try:
        folder = install(say, timeout_seconds=float(os.environ.get("HOMEWORLD_BUILD_SECONDS", "3600")))
    except NotBuiltError as error:
        say(f"{error}; tests that need Vitess are skipped")
        return 0
    sys.stdout.write(f"{folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
