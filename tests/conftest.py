"""Fixtures that many tests share: real servers of both flavours.

``HOMEWORLD_TEST_FLAVORS=mariadb`` narrows the flavours; ``HOMEWORLD_REQUIRE_MYSQL=1`` makes a missing MySQL
an error instead of a skip.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from homeworld.engines import local
from homeworld.engines.config import Sizes
from homeworld.engines.local import LocalEngine
from homeworld.model.topology import Flavor
from tests.support import mysqld
from tests.support.warden import guard

# A server in memory takes about 150 MB with these; a test has three or four at most. Each would take two
# thousand of the kernel's few slots for native AIO, which several test runs at once use up.
SMALL = (
    "loose-innodb-redo-log-capacity=32M",
    "loose-innodb-log-file-size=32M",
    "innodb-use-native-aio=0",
)
MEMORY_NEEDED = 2 * 1024**3
ServerFactory = Callable[..., mysqld.TestServer]

# Tests ask as often as they need to; what is allowed a minute has tests of its own.
os.environ.setdefault("HOMEWORLD_REQUESTS_PER_MINUTE", "0")
MINUTES = frozenset(
    {
        "test_kill", "test_reparent", "test_ledger", "test_roles", "test_gateway_moved_ends", "test_hooks",
        "test_terraform", "test_access", "test_verifier_resume", "test_sample", "test_mover", "test_pscale",
        "test_workflow_walk", "test_maintenance", "test_go_sdk", "test_pscale_resources", "test_clients",
        "test_edge_clients", "test_clients_drivers", "test_up", "test_ddl_matrix", "test_resizes",
        "test_long_life",
    }
)  # fmt: skip
# Beside servers and other tests an example may take any time.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
_wanted = os.environ.get("HOMEWORLD_TEST_FLAVORS", "mariadb,mysql").split(",")
FLAVORS = [flavor for flavor in (Flavor.MARIADB, Flavor.MYSQL) if flavor.value in _wanted]


def _have(flavor: Flavor) -> None:
    if mysqld.binary(flavor) is not None:
        return
    if flavor is Flavor.MYSQL and not os.environ.get("HOMEWORLD_REQUIRE_MYSQL"):
        pytest.skip("no MySQL here: scripts/get-mysql-9.7 makes one")
    pytest.fail(f"no {flavor.value} server program on this machine")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is too long for ``make test``; ``make test-long`` (``HOMEWORLD_LONG=1``) runs all.

    What takes minutes comes first: a file is one process's, and at the end nobody waits for a long one.
    """
    items.sort(key=lambda item: item.path.stem not in MINUTES)
    # Clusters of Vitess have a run of their own: make test-vitess.
    asked = any("tests/vitess" in str(argument) for argument in config.args)
    left = [item for item in items if item.path.parent.name == "vitess" and not asked]
    if not os.environ.get("HOMEWORLD_LONG"):
        left += [item for item in items if _is_long(item) and item not in left]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in set(left)]


def _is_long(item: pytest.Item) -> bool:
    if item.get_closest_marker("long"):
        return True
    one = item.get_closest_marker("one_flavor")
    callspec = getattr(item, "callspec", None)
    if one is None or callspec is None or len(FLAVORS) == 1:
        return False
    return callspec.params.get("flavor", one.args[0]) is not one.args[0]


@pytest.fixture(params=FLAVORS, ids=[flavor.value for flavor in FLAVORS], scope="session")
def flavor(request: pytest.FixtureRequest) -> Flavor:
    """Runs the test once for each flavour."""
    chosen = Flavor(request.param)
    _have(chosen)
    return chosen


@pytest.fixture
def server_factory(flavor: Flavor, server_root: Path) -> Iterator[ServerFactory]:
    """``server_factory("line-for-my-cnf=1", …)`` starts a server of this test's own; all end with it."""
    started: list[mysqld.TestServer] = []

    def start(*options: str) -> mysqld.TestServer:
        server = mysqld.start_server(flavor, server_root, *SMALL, *options)
        started.append(server)
        return server

    yield start
    for server in started:
        server.close()


@pytest.fixture(scope="session")
def server_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where servers keep their data: in memory where there is room, because deleting a server's files from a
    disk can take longer than all a test does with it. ``HOMEWORLD_TEST_DISK=1`` uses the disk.
    """
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free >= MEMORY_NEEDED
    if not roomy or os.environ.get("HOMEWORLD_TEST_DISK"):
        yield tmp_path_factory.mktemp("servers")
        return
    folder = Path(tempfile.mkdtemp(prefix="homeworld-test-", dir=memory))
    guard(folder, delete=True)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def server_folder(server_root: Path) -> Path:
    """A folder of a test's own for what keeps servers."""
    return Path(tempfile.mkdtemp(prefix="t-", dir=server_root))


@pytest.fixture(scope="session")
def engine_root(flavor: Flavor, server_root: Path) -> Path:
    """The data directory of the flavour's LocalEngine in this session: its template is made once."""
    folder = server_root / f"engine-{flavor.value}"
    if not folder.exists():  # the fixture is made anew whenever the flavour changes
        folder.mkdir()
        guard(folder)
    return folder


@pytest.fixture
def engine(engine_root: Path, flavor: Flavor, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalEngine]:
    """A LocalEngine without servers; what a test makes with it is destroyed after it."""
    monkeypatch.setattr(local, "_LOOK_SECONDS", 20.0)  # a busy machine's servers may take more than a second
    made = LocalEngine(
        engine_root, mysqld.binary(flavor), 32, ports=mysqld.ENGINE_PORTS, sizes=Sizes(options=SMALL),
        start_timeout_seconds=60,
    )  # fmt: skip
    yield made
    for server_id in made.list_servers():
        made.destroy_server(server_id)


@pytest.fixture
def server(server_factory: ServerFactory) -> mysqld.TestServer:
    """A fresh server of this test's own: free to kill, to reconfigure and to fill."""
    return server_factory()


@pytest.fixture(scope="session")
def shared_server(server_root: Path) -> Iterator[Callable[[Flavor], mysqld.TestServer]]:
    """``shared_server(flavor)`` is one server for the whole session, for tests that only make schemas of
    their own and leave the server's settings alone.
    """
    started: dict[Flavor, mysqld.TestServer] = {}

    def get(flavor: Flavor) -> mysqld.TestServer:
        _have(flavor)
        if flavor not in started:
            started[flavor] = mysqld.start_server(flavor, server_root, *SMALL)
        return started[flavor]

    yield get
    for server in started.values():
        server.close()
