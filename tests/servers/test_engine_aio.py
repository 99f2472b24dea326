"""Where the kernel's asynchronous I/O is used up, servers start all the same; and each takes little of it."""

from __future__ import annotations

import logging
import platform
from pathlib import Path

import pytest

from homeworld.engines.local import LocalEngine
from homeworld.model.topology import Flavor
from tests.support.engines import owner
from tests.support.mysqld import binary
from tests.support.no_aio import IO_SETUP, without_aio
from tests.support.warden import guard

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(platform.machine() not in IO_SETUP, reason="the filter is for other machines"),
]


def test_a_server_starts_without_native_aio_and_the_log_says_so(
    flavor: Flavor, server_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    real = binary(flavor)
    assert real is not None
    root = server_root / f"no-aio-{flavor.value}"
    guard(root)
    engine = LocalEngine(root, without_aio(real, tmp_path), 32)
    try:
        with caplog.at_level(logging.WARNING):
            engine.create_server("one")
        assert owner(engine, "one", "SELECT @@innodb_read_io_threads, @@innodb_write_io_threads") == [(2, 2)]
        assert owner(engine, "one", "SELECT @@innodb_use_native_aio") == [(0,)]
        # MariaDB does it by itself; MySQL ends and is started again.
        told = [record for record in caplog.records if "asynchronous I/O" in record.message]
        assert len(told) == (flavor is Flavor.MYSQL)
    finally:
        engine.stop_all(0)
