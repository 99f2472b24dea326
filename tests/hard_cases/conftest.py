"""Servers for a session, one pair a flavour; what a hard case found goes into the report."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from homeworld.model.topology import Flavor
from tests import conftest
from tests.hard_cases.cases import MARK, Outcome
from tests.support import mysqld

FAILED = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def pair(flavor: Flavor, server_root: Path) -> Iterator[list[mysqld.TestServer]]:
    """Two running servers of the flavour; each test makes schemas of its own and puts settings back."""
    servers: list[mysqld.TestServer] = []
    try:
        servers.extend(mysqld.start_server(flavor, server_root, *conftest.SMALL) for _ in range(2))
        yield servers
    finally:
        for server in servers:
            server.close()


@pytest.fixture
def outcome(
    request: pytest.FixtureRequest, flavor: Flavor, record_property: Callable[[str, object], None]
) -> Iterator[Outcome]:
    """Where the test tells what it found."""
    made = Outcome()
    yield made
    # A test that failed has told nothing that counts.
    if request.node.stash.get(FAILED, False):
        return
    record_property(f"{MARK}:{flavor.value}", made.report(request.node))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call":
        item.stash[FAILED] = report.failed
    return report
