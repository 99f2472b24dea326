"""An API with a shop in its store, and who asks it."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from homeworld.api.calls import Settings
from homeworld.model.engines import NO_VITESS, EngineKind
from homeworld.store.store import Store
from tests.support.api import ServedApi, StatedInspection, StatedPlacements, StatedPreconditions, client_of
from tests.support.stores import Shop, TestClock, make_shop

ORG = "/v1/organizations/acme"
DB = f"{ORG}/databases/shop"
BRANCH = f"{DB}/branches/main"


@dataclass
class Desk:
    """An API with a shop in its store; ``published`` counts the changes that gateways were to hear of."""

    store: Store
    clock: TestClock
    shop: Shop
    served: ServedApi
    http: httpx.Client
    placements: StatedPlacements
    inspection: StatedInspection
    published: list[int] = field(default_factory=list[int])


@contextmanager
def open_desk(
    store: Store,
    clock: TestClock,
    served_api: ServedApi,
    *,
    engine: EngineKind = EngineKind.LOCAL,
    missing: Mapping[EngineKind, str] = NO_VITESS,
) -> Generator[Desk]:
    """The API of ``store``, in which a shop is made.

    :param engine: of databases that ask for none. ``missing``: those that cannot be had.
    """
    with store.write() as tx:
        shop = make_shop(tx)
    published: list[int] = []
    placements, inspection = StatedPlacements(), StatedInspection()
    settings = Settings(
        StatedPreconditions(),
        placements,
        inspection,
        gateway_address="127.0.0.1:3306",
        http_address="db.test:443",
        routes_changed=lambda: published.append(1),
        engine=engine,
        missing_engines=lambda: missing,
    )
    served_api.use(store, settings)
    with client_of(served_api, store, shop.organization) as http:
        yield Desk(store, clock, shop, served_api, http, placements, inspection, published)


def refused(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an answer that is an error in the API's shape."""
    told = answer.json()
    assert set(told) == {"code", "message"}
    return answer.status_code, told["code"]
