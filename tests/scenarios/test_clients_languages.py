"""Node's mysql2 and Go's go-sql-driver, unmodified, against ``homeworld up`` with routing rules in force.

Each is fetched once by its own package manager, in an exact version, and kept in the cache; where the tool is
missing, or the package cannot be had, the test is skipped with the reason.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.client_world import ClientWorld
from tests.support.mysqld import CACHE

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(300)]

PROGRAMS = Path(__file__).with_name("programs")
MYSQL2 = "3.24.6"
GO_DRIVER = "v1.9.3"


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on this machine")
    return found


def made(command: list[str], folder: Path) -> None:
    """Run a step that may need the network; skip where it fails."""
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"{' '.join(command[:3])} failed: {(done.stdout + done.stderr)[-300:]}")


def works(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90, check=False
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stdout + done.stderr


@pytest.fixture(scope="session")
def node_folder() -> Path:
    """A folder with mysql2 in it."""
    node, npm = tool("node"), tool("npm")
    assert node
    folder = CACHE / "clients" / f"mysql2-{MYSQL2}"
    if not (folder / "node_modules" / "mysql2" / "package.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true}')
        made([npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", f"mysql2@{MYSQL2}"], folder)
    return folder


@pytest.fixture(scope="session")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go program, built."""
    go = tool("go")
    folder = tmp_path_factory.mktemp("gosql")
    shutil.copy(PROGRAMS / "gosql" / "main.go", folder)
    (folder / "go.mod").write_text(
        f"module client\n\ngo 1.22\n\nrequire github.com/go-sql-driver/mysql {GO_DRIVER}\n"
    )
    made([go, "mod", "tidy"], folder)
    made([go, "build", "-o", "client", "."], folder)
    return folder / "client"


def test_mysql2(world: ClientWorld, node_folder: Path) -> None:
    script = node_folder / "client.js"
    shutil.copy(PROGRAMS / "mysql2.js", script)
    login = world.admin
    settings = {
        "host": login.host, "port": login.port, "user": login.user, "password": login.password,
        "ca": world.ca_file,
    }  # fmt: skip
    works([tool("node"), str(script), json.dumps(settings)], node_folder)


def test_go_sql_driver(world: ClientWorld, go_program: Path) -> None:
    login = world.admin
    works(
        [str(go_program), f"{login.host}:{login.port}", login.user, login.password, world.ca_file],
        go_program.parent,
    )
