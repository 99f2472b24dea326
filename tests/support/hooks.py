"""A process that does the errand of webhooks over a store, as a worker does.

python -m tests.support.hooks STORE-URL OWNER
"""

from __future__ import annotations

import sys
import time

from homeworld.api.calls import Settings
from homeworld.api.event_subjects import EventSubjects
from homeworld.model.addresses import Reach, parse_networks
from homeworld.roles.errands import Errands
from homeworld.store.store import Store
from homeworld.webhooks.dispatcher import Dispatcher
from homeworld.webhooks.retries import Retries
from homeworld.webhooks.sending import Post
from tests.support.api import StatedPreconditions

LOOPBACK = "127.0.0.0/8,::1/128"


def dispatcher(store: Store, *, seconds: float = 9.0, retries: Retries | None = None) -> Dispatcher:
    """The errand over a store; loopback may be reached."""
    subjects = EventSubjects(Settings(StatedPreconditions()), "http://api.example")
    post = Post(Reach(parse_networks(LOOPBACK)), seconds=seconds)
    return Dispatcher(store, subjects, post, retries=retries or Retries())


def main(url: str, owner: str) -> None:
    """Run until killed."""
    store = Store.open(url)
    errands = Errands(store, owner, [dispatcher(store)])
    errands.start()
    while errands.failure is None:
        time.sleep(0.1)


if __name__ == "__main__":
    main(*sys.argv[1:])
