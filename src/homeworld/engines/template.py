"""Template data directories: initialised once for each server version, then copied for every new server.

A template has every account with its rights and nothing else: no binlog, no GTID, no uuid, so that all copies
begin at the same empty position and any copy can follow any other. A template is made under another name and
renamed when it is whole; its name has the digest of all that went into it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from homeworld.engines.accounts import Accounts
from homeworld.engines.binary import Binary
from homeworld.engines.flavors import rules
from homeworld.model.errors import UnavailableError
from homeworld.model.topology import Flavor

_SECONDS = 180.0
_SYNCS_AT_ONCE = 16
_ONLY_LOCAL = ("--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")
# flock is held by open files, and two threads of one process would each open their own: fine; but they would
# also both poll. One lock in front makes the second thread sleep.
_one_at_a_time = threading.Lock()


def digest(binary_flavor: Flavor, accounts: Accounts) -> str:
    """Changes when passwords or rights change: what a server copied from a template has."""
    statements = rules(binary_flavor).account_statements(accounts)
    return hashlib.sha256("\n".join(statements).encode()).hexdigest()[:16]


def ensure(binary: Binary, accounts: Accounts, folder: Path) -> Path:
    """The template data directory in ``folder``, made where it is not there. Takes seconds the first time.

    Two processes at once: the second waits for the first.

    :raises UnavailableError: the server's own initialisation failed; its words are in the message.
    """
    name = f"{binary.flavor.value}-{binary.version_text}-{digest(binary.flavor, accounts)}"
    done = folder / name
    if done.is_dir():
        return done
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(folder / f".{name}.lock"):
        if done.is_dir():
            return done
        with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as work:
            made = Path(work) / "data"
            _initialise(binary, accounts, made, Path(work))
            (made / "auto.cnf").unlink(missing_ok=True)
            made.rename(done)
    return done


def copy(template: Path, target: Path) -> None:
    """Copy the template to ``target`` (absent) so that after a crash it is either whole or absent."""
    making = target.with_name(target.name + ".new")
    if making.exists():
        shutil.rmtree(making)
    # cp shares blocks where the file system can and leaves holes as holes.
    _run(["cp", "-a", "--reflink=auto", "--sparse=always", str(template), str(making)])
    # At once, because the file system then writes its journal once for many.
    with ThreadPoolExecutor(_SYNCS_AT_ONCE) as pool:
        list(pool.map(_sync, [file for file in making.rglob("*") if file.is_file()]))
    making.rename(target)
    _sync(target.parent)


def _initialise(binary: Binary, accounts: Accounts, data: Path, work: Path) -> None:
    statements = rules(binary.flavor).account_statements(accounts)
    as_root = ["--user=root"] if os.geteuid() == 0 else []
    if binary.flavor is Flavor.MYSQL:
        script = work / "accounts.sql"
        script.touch(mode=0o600)
        script.write_text("".join(f"{statement};\n" for statement in statements))
        _run([
            str(binary.path), "--no-defaults", "--initialize-insecure", f"--datadir={data}",
            f"--init-file={script}", "--loose-innodb-redo-log-capacity=8M",
            # Where the kernel has none left this would fail.
            "--innodb-use-native-aio=OFF", *as_root,
        ])  # fmt: skip
        return
    common = ["--no-defaults", f"--datadir={data}", *as_root]
    install = binary.companion("mariadb-install-db", "mysql_install_db")
    # A small redo log here: the server makes one of the right size at its first start.
    log = "--innodb-log-file-size=4M"
    _run([str(install), *common, log, *_ONLY_LOCAL])
    # Bootstrap runs without grant tables until it is told to read them; nothing of it goes to a binlog.
    text = "".join(f"{statement};\n" for statement in ("FLUSH PRIVILEGES", *statements))
    _run([str(binary.path), *common, log, "--bootstrap"], text)


def _run(command: Sequence[str], text: str = "") -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MYSQL")}
    try:
        done = subprocess.run(  # noqa: S603 - programs of the server's own package and cp
            command, input=text, capture_output=True, text=True, errors="replace", timeout=_SECONDS,
            check=False, env=environment,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{command[0]} failed: {error}") from error
    said = f"{done.stderr}\n{done.stdout}"
    # Bootstrap goes on after a refused statement and still ends with 0.
    refused = [line for line in said.splitlines() if "ERROR" in line]
    if done.returncode != 0 or refused:
        told = " | ".join(refused or said.strip().splitlines()[-5:])
        raise UnavailableError(f"{command[0]} failed with exit code {done.returncode}: {told}")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _locked(file: Path) -> Generator[None]:
    with _one_at_a_time, file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
