"""A sample of tests.fuzz.verify: random tables, each damaged again and again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from homeworld.model.topology import Flavor
from tests.fuzz.verify import play
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers
WORLDS = 10


def test_random_damage_is_found_and_nothing_else(
    flavor: Flavor, shared_server: Callable[[Flavor], TestServer]
) -> None:
    for seed in range(WORLDS):
        play(shared_server(flavor), seed)
