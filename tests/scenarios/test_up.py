"""``homeworld up`` as a person meets it: what it refuses and how, how it ends, and what survives it."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeworld.cli.installation import Installation
from tests.support.platform import Platform


def up(*options: str) -> subprocess.CompletedProcess[str]:
    """``homeworld up`` that is expected to refuse."""
    return subprocess.run(
        [sys.executable, "-m", "homeworld.main", "up", *options],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def only_line(result: subprocess.CompletedProcess[str]) -> str:
    """What a refusal says: one line, and nothing else."""
    assert result.returncode == 1
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert result.stdout == ""
    return lines[0]


@pytest.fixture
def installation(server_folder: Path) -> Iterator[Installation]:
    made = Installation(
        server_folder / "homeworld", ("--api-port", "0", "--gateway-port", "0", "--replicas", "0")
    )
    try:
        made.start()
        yield made
    finally:
        made.destroy()


PORTS = ("--api-port", "--gateway-port", "--http-port", "--http-plain-port")


@pytest.mark.parametrize("option", PORTS)
def test_a_port_that_is_taken_is_named(server_folder: Path, option: str) -> None:
    others = [word for other in PORTS if other != option for word in (other, "0")]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = only_line(up("--data-dir", str(server_folder / "d"), option, port, *others))
    assert port in said
    assert option in said


def test_a_missing_mysqld_is_named(server_folder: Path) -> None:
    missing = server_folder / "nowhere" / "mysqld"
    ports = ("--api-port", "0", "--gateway-port", "0")
    said = only_line(up("--data-dir", str(server_folder / "d"), "--mysqld", str(missing), *ports))
    assert str(missing) in said


def test_a_data_directory_that_cannot_be_made_is_named(server_folder: Path) -> None:
    (server_folder / "file").write_text("not a folder")
    folder = server_folder / "file" / "d"
    said = only_line(up("--data-dir", str(folder), "--api-port", "0", "--gateway-port", "0"))
    assert str(folder) in said


@pytest.mark.scenario
def test_one_data_directory_has_one_homeworld(installation: Installation) -> None:
    ports = ("--api-port", "0", "--gateway-port", "0")
    said = only_line(up("--data-dir", str(installation.data_dir), *ports))
    assert "in use by another homeworld" in said


@pytest.mark.scenario
def test_the_ready_file_says_where_everything_is_and_only_to_its_owner(installation: Installation) -> None:
    file = installation.ready_file
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    ready = json.loads(file.read_text())
    assert ready.keys() >= {
        "api_url", "gateway_host", "gateway_port", "http_port", "ca_file", "organization", "service_token_id",
        "service_token",
    }  # fmt: skip
    assert Path(ready["ca_file"]).read_text().startswith("-----BEGIN CERTIFICATE-----")
    log = installation.log_file.read_text()
    assert ready["service_token"] not in log


@pytest.mark.scenario
def test_servers_end_with_an_orderly_stop_and_survive_any_other(server_folder: Path) -> None:
    platform = Platform(server_folder / "homeworld", None, 0)
    try:
        platform.start()
        platform.make_database()
        with platform.login().connect("shop") as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE t (id INT PRIMARY KEY)")
            cursor.execute("INSERT INTO t VALUES (7)")
            connection.commit()
        (pid,) = server_pids(platform.installation.data_dir)
        token = platform.installation.ready["service_token"]
        platform.installation.kill()
        os.kill(pid, 0)  # still there
        platform.start()
        assert server_pids(platform.installation.data_dir) == {pid}, "found again, not started anew"
        assert platform.installation.ready["service_token"] == token
        with platform.login().connect("shop") as connection, connection.cursor() as cursor:
            cursor.execute("SELECT id FROM t")
            assert cursor.fetchall() == ((7,),)
        assert platform.installation.stop(timeout_seconds=30) == 0
        deadline = time.monotonic() + 60
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < deadline, "the server did not end with homeworld"
            time.sleep(0.05)
    finally:
        platform.installation.destroy()


# ``homeworld up`` whose gateway meets a fault of its own as soon as a file exists.
FAILING_GATEWAY = """
import pathlib, sys
from homeworld.gateway.server import Gateway
from homeworld.main import main

file, as_usual = pathlib.Path(sys.argv.pop(1)), Gateway._housekeeping

def housekeeping(self):
    if file.exists():
        raise RuntimeError("nobody expected this")
    as_usual(self)

Gateway._housekeeping = housekeeping
main()
"""


@pytest.mark.scenario
def test_a_gateway_that_ends_by_itself_ends_all(server_folder: Path) -> None:
    fault, ready = server_folder / "fault", server_folder / "ready.json"
    process = subprocess.Popen(
        [sys.executable, "-c", FAILING_GATEWAY, str(fault), "up", "--data-dir", str(server_folder / "d"),
         "--api-port", "0", "--gateway-port", "0", "--ready-file", str(ready)],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not ready.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        fault.touch()
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1
    last = said.strip().splitlines()[-1]
    assert last.startswith("homeworld: the gateway has ended by itself")
    assert "nobody expected this" in last


def server_pids(data_dir: Path) -> set[int]:
    return {int(path.read_text().split()[0]) for path in (data_dir / "servers").glob("*/pid")}
