"""What provisioning works with, and how shards are spread over servers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from homeworld.model.ports import Engine
from homeworld.store.store import Store


class Placement(StrEnum):
    """How shards are spread over servers: one server for all of a branch, or one for each shard."""

    SHARED = "shared"
    DEDICATED = "dedicated"


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything outside that provisioning acts on.

    :param publish: reads the routes from the store and returns once every gateway serves them.
    """

    store: Store
    engine: Engine
    publish: Callable[[], None]
    placement: Placement
