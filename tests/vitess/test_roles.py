"""Clusters under several processes of each role: one looks after them, the others use them."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pymysql
import pytest

from homeworld.engines.vitess import binaries
from homeworld.engines.vitess.cluster import home_of
from homeworld.model.errors import InvalidError
from homeworld.model.topology import Flavor
from tests.support import mysqld, postgres
from tests.support.bank import Login
from tests.support.roles import WORKER, Roles, RolesPlatform
from tests.support.warden import guard

PATIENCE_SECONDS = 600.0
pytestmark = pytest.mark.timeout(1500)  # clusters take long to come up where others are at work, too


@pytest.fixture
def roles(server_root: Path) -> Iterator[Roles]:
    found = mysqld.binary(Flavor.MYSQL)
    if found is None or postgres.programs() is None:
        pytest.skip("it needs MySQL and PostgreSQL")
    try:
        binaries.find()
    except InvalidError as error:
        pytest.skip(error.message)
    folder = server_root / "vtr"
    home = home_of(folder)
    guard(folder)
    guard(home, delete=True)
    made = Roles(folder, mysqld=found)
    try:
        made.start(api=1, worker=2, gateway=2)
        yield made
    finally:
        made.close()
        shutil.rmtree(home, ignore_errors=True)


def count(login: Login) -> int:
    with closing(login.connect("shop", autocommit=True)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM things")
        return int(cursor.fetchall()[0][0])


def serves(login: Login) -> bool:
    try:
        return count(login) == 2
    except pymysql.MySQLError:
        return False


def vtgates(home: Path) -> list[int]:
    """The pids of the vtgates of an installation."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            program, _, rest = line.partition(b"\0")
            if b"vtgate" in program and os.fsencode(home) in rest:
                found.append(int(entry.name))
    return found


def test_a_cluster_is_made_used_and_looked_after_by_processes_of_their_own(roles: Roles) -> None:
    platform = RolesPlatform(roles)
    platform.start()
    client = platform.client
    client.create_database(platform.organization, "shop", engine="vitess")

    def ready() -> bool:
        return client.get_database(platform.organization, "shop")["state"] == "ready"

    platform.until("database", ready, PATIENCE_SECONDS)
    one, other = platform.logins()
    with closing(one.connect("shop", autocommit=True)) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE things (id INT PRIMARY KEY)")
        cursor.execute("INSERT INTO things VALUES (1), (2)")
    assert count(other) == 2

    # One of the workers looks after it, whichever that is, and another one where that is gone.
    home = home_of(roles.data_dir)
    for worker in roles.processes[WORKER]:
        (pid,) = vtgates(home)
        os.kill(pid, signal.SIGKILL)
        platform.until("another vtgate", lambda pid=pid: vtgates(home) not in ([], [pid]), PATIENCE_SECONDS)
        for login in (one, other):
            platform.until("it serves", lambda login=login: serves(login), PATIENCE_SECONDS)
        if worker is roles.processes[WORKER][0]:
            worker.kill()
    client.delete_database(platform.organization, "shop")
    platform.until("it is gone", lambda: vtgates(home) == [], PATIENCE_SECONDS)
