"""The world of the modules about clients: making it takes longer than any test with it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeworld.model.topology import Flavor
from tests.support.client_world import ClientWorld


@pytest.fixture(scope="module")
def world(flavor: Flavor, server_root: Path) -> Iterator[ClientWorld]:
    """One for each module and flavour, gone with its last test: other modules run beside and after it."""
    folder = Path(tempfile.mkdtemp(prefix=f"clients-{flavor.value}-", dir=server_root))
    made = ClientWorld(folder, flavor)
    try:
        made.open()
        yield made
    finally:
        made.close()
