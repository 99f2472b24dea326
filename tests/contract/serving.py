"""Serves an API of its own for programs that try everything: a fresh store with a shop that comes back.

    python -m tests.contract.serving READY-FILE DESCRIPTION-FILE [SECONDS]

The ready file has ``url`` and ``token`` (ID:TOKEN), the other one the API's own description; beside it, named
``.toml``, are settings for schemathesis. What is deleted is made again, so that paths go on leading
somewhere. Ends with SIGTERM, or after the seconds.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Table

from homeworld.api.app import create_app
from homeworld.api.calls import Settings
from homeworld.api.scopes import ALL_ACCESSES
from homeworld.model.errors import HomeworldError
from homeworld.model.maintenance import Rhythm, Unit
from homeworld.model.states.lifecycle import Life
from homeworld.roles.ground import listen, write_private
from homeworld.roles.serving import ApiServer
from homeworld.store.pages import PageRequest
from homeworld.store.store import Store, Transaction
from homeworld.store.tables import maintenance, resources, webhooks
from homeworld.store.usage import UsedHour
from tests.support.api import StatedInspection, StatedPlacements, StatedPreconditions
from tests.support.stores import make_shop

SETTINGS = Path(__file__).resolve().parents[2] / "scripts" / "contract-venvs" / "schemathesis.toml"


@dataclass
class Kept:
    """What stays, whatever is deleted or renamed: rows by their ids, as they are to be."""

    rows: list[tuple[Table, str, dict[str, object]]] = field(
        default_factory=list[tuple[Table, str, dict[str, object]]]
    )
    ids: dict[str, str] = field(default_factory=dict[str, str])

    def add(self, table: Table, row_id: str, **values: object) -> None:
        """Keep a row."""
        self.rows.append((table, row_id, {"deleted_at": None, **values}))

    def put(self, tx: Transaction) -> None:
        """Let everything be again as it is to be, and what was asked for be there, as an executor does."""
        for table in (resources.databases, resources.branches, resources.keyspaces):
            tx.work.change(table, table.c.state, Life.PENDING, {"state": Life.READY})
        for table, row_id, values in self.rows:
            tx.work.change(table, table.c.id, row_id, values)


def make(tx: Transaction) -> Kept:
    """A shop with one of everything."""
    kept, shop = Kept(), make_shop(tx)
    ready: dict[str, object] = {"state": Life.READY}
    kept.add(resources.databases, shop.database.id, name="shop", deletion_protected=False, **ready)
    dev = tx.branches.create(shop.database.id, "dev", shop.region.id)
    for branch in (shop.branch, dev):
        kept.add(resources.branches, branch.id, name=branch.name, deletion_protected=False, **ready)
    for keyspace in (shop.source, shop.target):
        kept.add(resources.keyspaces, keyspace.id, name=keyspace.name, **ready)
    password, _ = tx.passwords.create(shop.branch.id)
    kept.add(resources.passwords, password.id)
    webhook = tx.webhooks.create(shop.database.id, "https://example.com/hook", events=["branch.ready"])
    kept.add(webhooks.webhooks, webhook.id)
    rhythm = Rhythm(Unit.WEEK, 1, 0, 0, 0, tx.work.now.date())
    schedule = tx.maintenance.create(shop.database.id, rhythm=rhythm)
    kept.add(maintenance.maintenance_schedules, schedule.id)
    tx.workflows.create(shop.database.id, shop.branch.id, "move", shop.source.id, shop.target.id, ["orders"])
    server = tx.servers.of_branch(shop.branch.id)[0]
    hour = tx.work.now.replace(minute=0, second=0, microsecond=0)
    tx.usage.count([UsedHour(server.id, shop.branch.id, hour, 10**9, 50_000_000, 1)])
    (invoice,) = tx.usage.invoices(shop.organization.id, PageRequest()).items
    kept.ids = {
        "passwords": password.id,
        "webhooks": webhook.id,
        "maintenance-schedules": schedule.id,
        "invoices": invoice.id,
    }
    return kept


def settings_for(described: Mapping[str, Any], ids: Mapping[str, str]) -> str:
    """Further settings of schemathesis: which id leads to something in which operation."""
    lines: list[str] = []
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            found = [ids[part] for part in path.split("/") if part in ids]
            if "{id}" in path and found:
                lines += [
                    "[[operations]]",
                    f'include-operation-id = "{operation["operationId"]}"',
                    f'parameters = {{ id = "{found[0]}" }}',
                    f"# {method.upper()} {path}",
                    "",
                ]
    return "\n".join(lines)


def main(ready_file: str, described: str, seconds: str = "0") -> int:
    """Serve."""
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: ending.set())
    with tempfile.TemporaryDirectory() as folder, listen(0, "--port") as listener:
        store = Store.open(f"sqlite:///{folder}/contract.db")
        with store.write() as tx:
            kept = make(tx)
            organization = tx.organizations.by_name("acme")
            token, secret = tx.tokens.create(organization.id, "contract")
            tx.tokens.grant(token.id, "organization", organization.id, ALL_ACCESSES)
        app = create_app(store, Settings(StatedPreconditions(), StatedPlacements(), StatedInspection()))
        Path(described).write_text(json.dumps(app.openapi()))
        Path(described).with_suffix(".toml").write_text(
            SETTINGS.read_text() + "\n" + settings_for(app.openapi(), kept.ids)
        )
        server = ApiServer(app, listener)
        server.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        write_private(Path(ready_file), json.dumps({"url": url, "token": f"{token.id}:{secret}"}))
        left = float(seconds) or float("inf")
        while not ending.wait(0.25) and left > 0:
            left -= 0.25
            try:
                with store.write() as tx:
                    kept.put(tx)
                    # A token that deletes itself would end the run.
                    tx.tokens.grant(token.id, "organization", organization.id, ALL_ACCESSES)
            except HomeworldError as error:
                print(f"not kept: {error}", file=sys.stderr)
        server.stop(5)
        store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
