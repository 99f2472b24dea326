"""The world that the modules about clients share: making it takes longer than any test with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from homeworld.model.topology import Flavor
from tests.support.client_world import ClientWorld


@pytest.fixture(scope="session")
def world(flavor: Flavor, server_root: Path) -> Iterator[ClientWorld]:
    """One for each flavour."""
    folder = server_root / f"clients-{flavor.value}"
    folder.mkdir()
    made = ClientWorld(folder, flavor)
    try:
        made.open()
        yield made
    finally:
        made.close()
