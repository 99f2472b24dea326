"""One real Vitess cluster for the session; skipped with a reason where there is no Vitess or no MySQL.

``HOMEWORLD_REQUIRE_VITESS=1`` makes that an error. Tests leave the cluster as they found it: following
``vitess.spec``, with rows of their own gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SMALL
from tests.support.vitess import VitessWorld, begin

SECONDS = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever comes first waits for the cluster, which takes its time on a busy machine."""
    for item in items:
        if item.path.parent.name == "vitess" and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SECONDS))


@pytest.fixture(scope="session")
def vitess(server_root: Path) -> Iterator[VitessWorld]:
    """A LocalEngine with three servers and a branch's cluster: ``shop`` with a replica, ``customer`` in two
    shards (see ``tests/support/vitess.py``).
    """
    yield from begin(server_root / "vitess", SMALL)
