"""A control plane's store with many branches and workflows, made in seconds.

One branch is made as users make it; the others are its rows, written again under new ids, because asking for
ten thousand one by one takes minutes. Invariant: every copy is a whole branch, such as the first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Table, func, insert, select, update

from homeworld.model.names import new_id
from homeworld.model.states.lifecycle import Life, LifeTrigger, life_row
from homeworld.model.topology import Flavor
from homeworld.store import provision
from homeworld.store.store import Store, Transaction
from homeworld.store.tables import journal, resources, routing, workflows

ORGANIZATION = "bench"
DATABASE = "bench"
SHARDED = "sharded"
_MADE = life_row(Life.PENDING, LifeTrigger.MADE)
# Parents first: what a row refers to is copied before it.
_TABLES = (
    resources.branches,
    resources.keyspaces,
    resources.shards,
    workflows.workflows,
    workflows.workflow_tables,
    routing.branch_routing,
    journal.transitions,
    journal.outbox,
)


def branch_name(number: int) -> str:
    """The name of one of the branches, from 1; names are in the order of numbers."""
    return f"branch-{number:06d}"


def populate(url: str, count: int) -> str:
    """Fill a new store with ``count`` ready branches, each with a workflow that is not over, beside ``main``.

    :returns: the value of the Authorization header that may read it.
    """
    store = Store.open(url)
    provision.bootstrap(store, ORGANIZATION, "local", "Local")
    with store.write() as tx:
        organization = tx.organizations.by_name(ORGANIZATION)
        token, secret = tx.tokens.create(organization.id, "bench")
        tx.tokens.grant_all(token.id, organization.id)
        database = provision.create_database(tx, organization.id, DATABASE, Flavor.MARIADB)
        main = tx.branches.default(database.id)
        tx.keyspaces.create(main.id, SHARDED, shards=2)
        tx.databases.transition(database.id, Life.PENDING, _MADE)
        pattern = provision.create_branch(tx, database, branch_name(1), parent=main)
        for branch in (main, pattern):
            _make_ready(tx, branch.id)
        keyspaces = {keyspace.name: keyspace.id for keyspace in tx.keyspaces.of_branch(pattern.id)}
        tx.workflows.create(
            database.id, pattern.id, "move", keyspaces[DATABASE], keyspaces[SHARDED], ["one", "two"]
        )
        _multiply(tx, pattern.id, count)
        tx.work.connection.execute(
            update(resources.databases).values(
                last_workflow_number=select(func.max(workflows.workflows.c.number)).scalar_subquery()
            )
        )
    store.close()
    return f"{token.id}:{secret}"


def _make_ready(tx: Transaction, branch_id: str) -> None:
    tx.branches.transition(branch_id, Life.PENDING, _MADE)
    for keyspace in tx.keyspaces.of_branch(branch_id):
        tx.keyspaces.transition(keyspace.id, Life.PENDING, _MADE)


def _multiply(tx: Transaction, branch_id: str, count: int) -> None:
    """Write the branch's rows again until there are ``count`` of it."""
    copies = _Copies([{branch_id: new_id()} for _ in range(2, count + 1)])
    for table in _TABLES:
        rows = [dict(row) for row in tx.work.connection.execute(select(table)).mappings()]
        made = copies.of(table, [row for row in rows if copies.known(row)])
        if made:
            tx.work.connection.execute(insert(table), made)


@dataclass(slots=True)
class _Copies:
    """For each copy, the pattern's ids and its own in their place."""

    ids: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    def known(self, row: dict[str, Any]) -> bool:
        """Whether the row is the pattern's: it names one of its ids."""
        return bool(self.ids) and any(
            isinstance(value, str) and value in self.ids[0] for value in row.values()
        )

    def of(self, table: Table, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows of all copies."""
        return [
            self._again(table, row, ids, number) for row in rows for number, ids in enumerate(self.ids, 2)
        ]

    @staticmethod
    def _again(table: Table, row: dict[str, Any], ids: dict[str, str], number: int) -> dict[str, Any]:
        own = row.get("id")
        if isinstance(own, str):
            ids.setdefault(own, new_id())
        made = {
            name: ids.get(value, value) if isinstance(value, str) else value for name, value in row.items()
        }
        if table is resources.branches:
            made["name"] = branch_name(number)
        if table is workflows.workflows:
            made["number"] = number
        for counted in ("id", "seq"):
            if isinstance(made.get(counted), int):
                del made[counted]  # the database counts
        return made
