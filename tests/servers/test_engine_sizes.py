"""Servers that are given a size: while they run, through restarts, and where only a restart does it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from homeworld.engines.config import Sizes
from homeworld.engines.limits import host
from homeworld.engines.local import LocalEngine
from homeworld.model.errors import NotFoundError
from homeworld.model.sizes import ServerSize
from homeworld.model.topology import Flavor
from tests.conftest import SMALL
from tests.support.engines import owner, pid_of
from tests.support.mysqld import binary

pytestmark = pytest.mark.servers

MIB = 1024 * 1024
LARGE = ServerSize(buffer_pool_mb=256, max_connections=600, tmp_table_mb=32, cpus=1)
SETTINGS = "SELECT @@innodb_buffer_pool_size, @@max_connections, @@tmp_table_size, @@max_heap_table_size"
OWN = (32 * MIB, 500, 16 * MIB, 16 * MIB)


def settings(engine: LocalEngine, server_id: str) -> tuple[int, ...]:
    return owner(engine, server_id, SETTINGS)[0]


def cpus_of_threads(pid: int) -> set[int]:
    found: set[int] = set()
    for one in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            found.add(len(os.sched_getaffinity(int(one.name))))
    return found


def test_a_running_server_grows_and_shrinks(engine: LocalEngine) -> None:
    engine.create_server("one")
    pid, everything = pid_of(engine, "one"), host().cpus
    assert settings(engine, "one") == OWN
    assert engine.resize_server("one", LARGE)
    assert settings(engine, "one") == (256 * MIB, 600, 32 * MIB, 32 * MIB)
    assert cpus_of_threads(pid) == {1}
    assert engine.resize_server("one", LARGE), "again"
    assert pid_of(engine, "one") == pid, "without a restart"
    engine.restart_server("one")
    assert pid_of(engine, "one") != pid
    assert settings(engine, "one") == (256 * MIB, 600, 32 * MIB, 32 * MIB)
    assert cpus_of_threads(pid_of(engine, "one")) == {1}
    assert engine.restarts("one") == 1
    assert engine.resize_server("one", None)
    # A MySQL that was started with a larger pool changes it in steps of 128 MiB.
    step = 32 if engine.flavor is Flavor.MARIADB else 128
    assert settings(engine, "one") == (step * MIB, *OWN[1:])
    assert cpus_of_threads(pid_of(engine, "one")) == {everything}
    with pytest.raises(NotFoundError):
        engine.resize_server("never_there", LARGE)


def test_a_new_server_begins_with_its_size_and_keeps_it(engine: LocalEngine) -> None:
    engine.create_server("one", size=LARGE)
    assert settings(engine, "one")[0] == 256 * MIB
    engine.create_server("one")
    assert settings(engine, "one")[:2] == (256 * MIB, 600)
    engine.create_server("r", replica_of="one", size=LARGE)
    engine.restart_server("r")
    engine.wait_replica("r", 30)
    assert owner(engine, "r", "SELECT @@read_only") == [(1,)]
    assert engine.host().own_pool_mb == 32


def test_what_dies_before_it_has_its_size_comes_back_with_it(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.create_server("one")

    def die(*_arguments: object) -> tuple[str, ...]:
        os.kill(pid_of(engine, "one"), 9)
        raise ConnectionResetError

    monkeypatch.setattr("homeworld.engines.sizing.resize", die)
    with pytest.raises(ConnectionResetError):
        engine.resize_server("one", LARGE)
    monkeypatch.undo()
    engine.start_server("one")
    assert settings(engine, "one")[0] == 256 * MIB
    assert engine.resize_server("one", LARGE)


def test_a_pool_that_may_not_grow_asks_for_a_restart(engine_root: Path, flavor: Flavor) -> None:
    """As one that was started by an older version."""
    if flavor is not Flavor.MARIADB:
        pytest.skip("MySQL's pool grows as it likes")
    options = (*SMALL, "loose-innodb-buffer-pool-size-max=32M")
    engine = LocalEngine(engine_root, binary(flavor), 32, sizes=Sizes(options=options))
    try:
        engine.create_server("old")
        known = owner(engine, "old", "SHOW VARIABLES LIKE 'innodb_buffer_pool_size_max'")
        assert engine.resize_server("old", LARGE) is not bool(known)
        # Its next start is by a version that lets it grow.
        newer = LocalEngine(engine_root, binary(flavor), 32, sizes=Sizes(options=SMALL))
        newer.restart_server("old")
        assert newer.resize_server("old", LARGE)
        assert settings(newer, "old")[0] == 256 * MIB
    finally:
        engine.destroy_server("old")
