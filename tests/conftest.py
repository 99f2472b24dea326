"""Fixtures that many tests share: real servers of both flavours.

``HOMEWORLD_TEST_FLAVORS=mariadb`` narrows the flavours; ``HOMEWORLD_REQUIRE_MYSQL=1`` makes a missing MySQL
an error instead of a skip.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homeworld.engines.local import LocalEngine
from homeworld.model.topology import Flavor
from tests.support import mysqld
from tests.support.warden import guard

ServerFactory = Callable[..., mysqld.TestServer]

_wanted = os.environ.get("HOMEWORLD_TEST_FLAVORS", "mariadb,mysql").split(",")
FLAVORS = [flavor for flavor in (Flavor.MARIADB, Flavor.MYSQL) if flavor.value in _wanted]


def _have(flavor: Flavor) -> None:
    if mysqld.binary(flavor) is not None:
        return
    if flavor is Flavor.MYSQL and not os.environ.get("HOMEWORLD_REQUIRE_MYSQL"):
        pytest.skip("no MySQL here: scripts/get-mysql-9.7 makes one")
    pytest.fail(f"no {flavor.value} server program on this machine")


@pytest.fixture(params=FLAVORS, ids=[flavor.value for flavor in FLAVORS], scope="session")
def flavor(request: pytest.FixtureRequest) -> Flavor:
    """Runs the test once for each flavour."""
    chosen = Flavor(request.param)
    _have(chosen)
    return chosen


@pytest.fixture
def server_factory(flavor: Flavor, tmp_path: Path) -> Iterator[ServerFactory]:
    """``server_factory("line-for-my-cnf=1", …)`` starts a server of this test's own; all end with it."""
    started: list[mysqld.TestServer] = []

    def start(*options: str) -> mysqld.TestServer:
        server = mysqld.start_server(flavor, tmp_path, *options)
        started.append(server)
        return server

    yield start
    for server in started:
        server.close()


@pytest.fixture(scope="session")
def engine_root(flavor: Flavor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of the flavour's LocalEngine in this session: its template is made once."""
    folder = tmp_path_factory.mktemp(f"engine-{flavor.value}")
    guard(folder)
    return folder


@pytest.fixture
def engine(engine_root: Path, flavor: Flavor) -> Iterator[LocalEngine]:
    """A LocalEngine without servers; what a test makes with it is destroyed after it."""
    made = LocalEngine(engine_root, mysqld.binary(flavor), buffer_pool_mb=32, start_timeout_seconds=60)
    yield made
    for server_id in made.list_servers():
        made.destroy_server(server_id)


@pytest.fixture
def server(server_factory: ServerFactory) -> mysqld.TestServer:
    """A fresh server of this test's own: free to kill, to reconfigure and to fill."""
    return server_factory()


@pytest.fixture(scope="session")
def shared_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[Flavor], mysqld.TestServer]]:
    """``shared_server(flavor)`` is one server for the whole session, for tests that only make schemas of
    their own and leave the server's settings alone.
    """
    started: dict[Flavor, mysqld.TestServer] = {}

    def get(flavor: Flavor) -> mysqld.TestServer:
        _have(flavor)
        if flavor not in started:
            started[flavor] = mysqld.start_server(flavor, tmp_path_factory.mktemp("shared"))
        return started[flavor]

    yield get
    for server in started.values():
        server.close()
