"""A store with thousands of branches, made of one database that was made as users make it.

The pattern's rows are written again under new ids, with everything that its making left in the journal, the
outbox and the leases, because to ask for ten thousand branches takes an hour. Invariant: every copy is a
whole database with all its branches, such as the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Table, insert, select

from homeworld.model.names import new_id
from homeworld.store.store import Store
from homeworld.store.tables import journal, resources, routing

Rows = Mapping[Table, list[dict[str, Any]]]
#: Parents first: what a row refers to is written before it.
TABLES = (
    resources.databases,
    resources.branches,
    resources.servers,
    resources.keyspaces,
    resources.shards,
    resources.passwords,
    routing.branch_routing,
    journal.transitions,
    journal.steps,
    journal.leases,
    journal.outbox,
    journal.audit_log,
)
#: References to rows of the same table.
_OWN_PARENTS = ("parent_branch_id", "replica_of")
#: Databases a transaction: nobody else waits for its lock.
_AT_ONCE = 5


def database_name(number: int) -> str:
    """The name of one of the databases, from 1; names are in the order of numbers."""
    return f"fleet-{number:06d}"


def read(store: Store, database_id: str) -> Rows:
    """All rows that are a database's, its branches' and so on."""
    known = {database_id}
    found: dict[Table, list[dict[str, Any]]] = {}
    with store.read() as tx:
        for table in TABLES:
            rows = [dict(row) for row in tx.work.connection.execute(select(table)).mappings()]
            own = [row for row in rows if any(_tail(value) in known for value in row.values())]
            known.update(row["id"] for row in own if isinstance(row.get("id"), str))
            found[table] = sorted(
                own, key=lambda row: any(row.get(name) is not None for name in _OWN_PARENTS)
            )
    return found


def multiply(store: Store, pattern: Rows, first: int, last: int) -> None:
    """Write the databases with the numbers from ``first`` to ``last``."""
    for begin in range(first, last + 1, _AT_ONCE):
        numbers = range(begin, min(begin + _AT_ONCE, last + 1))
        ids: list[dict[str, str]] = [{} for _ in numbers]
        for known in ids:
            for rows in pattern.values():
                known.update((row["id"], new_id()) for row in rows if isinstance(row.get("id"), str))
        with store.write() as tx:
            for table, rows in pattern.items():
                made = [
                    _again(table, row, known, number)
                    for row in rows
                    for known, number in zip(ids, numbers, strict=True)
                ]
                if made:
                    tx.work.connection.execute(insert(table), made)


def _tail(value: object) -> str:
    """What may be an id in it: ``keyspace:abc`` names the resource of a lease."""
    return value.rpartition(":")[2] if isinstance(value, str) else ""


def _again(table: Table, row: dict[str, Any], ids: dict[str, str], number: int) -> dict[str, Any]:
    made = {name: _renamed(value, ids) for name, value in row.items()}
    if table is resources.databases:
        made["name"] = database_name(number)
    if table is resources.passwords:
        made["username"] = new_id() + new_id()
    for counted in ("id", "seq"):
        if isinstance(made.get(counted), int):
            del made[counted]  # the database counts
    return made


def _renamed(value: Any, ids: dict[str, str]) -> Any:
    if isinstance(value, str):
        head, colon, tail = value.rpartition(":")
        return f"{head}{colon}{ids[tail]}" if tail in ids else value
    if isinstance(value, list):
        return [_renamed(each, ids) for each in value]  # pyright: ignore[reportUnknownVariableType]
    return value
