"""Serves an API of its own for programs that try everything: a fresh store with a shop that comes back.

    python -m tests.contract.serving READY-FILE [SECONDS]

The ready file has ``url`` and ``token`` (ID:TOKEN). What is deleted is made again, so that paths go on
leading somewhere. Ends with SIGTERM, or after the seconds.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import threading
from pathlib import Path

from homeworld.api.app import create_app
from homeworld.api.calls import Settings
from homeworld.api.scopes import ALL_ACCESSES
from homeworld.model.errors import HomeworldError, NotFoundError
from homeworld.roles.ground import ApiServer, listen, write_private
from homeworld.store.store import Store, Transaction
from homeworld.store.usage import UsedHour
from tests.support.api import StatedPlacements, StatedPreconditions
from tests.support.stores import Shop, make_shop


def keep(tx: Transaction) -> None:
    """Make what is gone again."""
    organization = tx.organizations.ensure("acme")
    try:
        tx.databases.by_name(organization.id, "shop")
        return
    except NotFoundError:
        shop = make_shop(tx)
    _fill(tx, shop)


def _fill(tx: Transaction, shop: Shop) -> None:
    branch = tx.branches.create(shop.database.id, "dev", shop.region.id)
    for target in (shop.branch, branch):
        tx.passwords.create(target.id)
    tx.workflows.create(shop.database.id, shop.branch.id, "move", shop.source.id, shop.target.id, ["orders"])
    tx.webhooks.create(shop.database.id, "https://example.com/hook", events=["branch.ready"])
    server = tx.servers.of_branch(shop.branch.id)[0]
    hour = tx.work.now.replace(minute=0, second=0, microsecond=0)
    tx.usage.count([UsedHour(server.id, shop.branch.id, hour, 10**9, 50_000_000, 1)])


def main(ready_file: str, seconds: str = "0") -> int:
    """Serve."""
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: ending.set())
    with tempfile.TemporaryDirectory() as folder, listen(0, "--port") as listener:
        store = Store.open(f"sqlite:///{folder}/contract.db")
        with store.write() as tx:
            keep(tx)
            organization = tx.organizations.by_name("acme")
            token, secret = tx.tokens.create(organization.id, "contract")
            tx.tokens.grant(token.id, "organization", organization.id, ALL_ACCESSES)
        server = ApiServer(create_app(store, Settings(StatedPreconditions(), StatedPlacements())), listener)
        server.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        write_private(Path(ready_file), json.dumps({"url": url, "token": f"{token.id}:{secret}"}))
        left = float(seconds) or float("inf")
        while not ending.wait(0.25) and left > 0:
            left -= 0.25
            try:
                with store.write() as tx:
                    keep(tx)
                    # A token that deletes itself would end the run.
                    tx.tokens.grant(token.id, "organization", organization.id, ALL_ACCESSES)
            except HomeworldError as error:
                print(f"not kept: {error}", file=sys.stderr)
        server.stop(5)
        store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
