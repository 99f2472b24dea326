"""Servers that tests of moves share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from homeworld.model.topology import Flavor
from tests.support import mysqld

SMALL = ("loose-innodb-redo-log-capacity=32M", "loose-innodb-log-file-size=32M", "innodb-autoinc-lock-mode=2")


@pytest.fixture(scope="session")
def trio(flavor: Flavor, server_root: Path) -> Iterator[list[mysqld.TestServer]]:
    """Three running servers of the flavour, for the whole session; a test that kills one starts it again.

    Each test makes schemas of its own (tests.support.moves.make_move).
    """
    servers: list[mysqld.TestServer] = []
    try:
        servers.extend(mysqld.start_server(flavor, server_root, *SMALL) for _ in range(3))
        yield servers
    finally:
        for server in servers:
            server.close()
