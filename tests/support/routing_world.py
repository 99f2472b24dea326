"""Routes and known tables made up for tests of the router: no server, nothing to clean up."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from homeworld.gateway.plan import ColumnSpec, MadeValues, SessionView, Target
from homeworld.gateway.router import Router
from homeworld.model.routing import BranchRoutes, KeyspaceRoute, ShardRoute
from homeworld.model.tables import Column
from homeworld.model.topology import Endpoint, Flavor, TabletType

_TEXT = {"char", "varchar", "text", "tinytext", "mediumtext", "longtext", "enum", "set"}
_BYTES = {"binary", "varbinary", "blob"}


def column(name: str, told: str) -> Column:
    """A column as ``bigint unsigned``, ``varchar(20) collate utf8mb4_bin``, ``bigint auto_increment`` …"""
    text, _, collation = told.partition(" collate ")
    type_ = re.split(r"[ (]", text, maxsplit=1)[0]
    charset = "binary" if type_ in _BYTES else "utf8mb4" if type_ in _TEXT else ""
    if collation:
        charset = collation.partition("_")[0]
    return Column(
        name=name,
        type=type_,
        column_type=text.replace(" auto_increment", "").replace(" generated", "").replace(" invisible", ""),
        unsigned="unsigned" in text,
        nullable="not null" not in text,
        charset=charset,
        collation=(collation or "utf8mb4_0900_ai_ci") if charset not in {"", "binary"} else charset,
        generated="generated" in text,
        auto_increment="auto_increment" in text,
        invisible="invisible" in text,
    )


@dataclass
class KnownTables:
    """A SchemaView: keyspace to table to columns."""

    known: Mapping[str, Mapping[str, Mapping[str, str]]]
    views: Mapping[tuple[str, str], frozenset[str]] = field(
        default_factory=dict[tuple[str, str], frozenset[str]]
    )
    version: int = 1
    unique: Mapping[tuple[str, str], tuple[tuple[str, ...], ...]] = field(
        default_factory=dict[tuple[str, str], tuple[tuple[str, ...], ...]]
    )
    made: Mapping[tuple[str, str], MadeValues] = field(default_factory=dict[tuple[str, str], MadeValues])

    def tables(self, keyspace: str) -> frozenset[str] | None:
        found = self.known.get(keyspace)
        return None if found is None else frozenset(found)

    def columns(self, keyspace: str, table: str) -> tuple[ColumnSpec, ...] | None:
        found = self.known.get(keyspace, {}).get(table)
        return None if found is None else tuple(ColumnSpec(name) for name in found)

    def table_columns(self, keyspace: str, table: str) -> tuple[Column, ...] | None:
        found = self.known.get(keyspace, {}).get(table)
        return None if found is None else tuple(column(name, told) for name, told in found.items())

    def unique_keys(self, keyspace: str, table: str) -> tuple[tuple[str, ...], ...] | None:
        return self.unique.get((keyspace, table), ())

    def made_values(self, keyspace: str, table: str) -> MadeValues | None:
        return self.made.get((keyspace, table))

    def beneath(self, keyspace: str, table: str) -> frozenset[str] | None:
        return self.views.get((keyspace, table))


def endpoint(name: str) -> Endpoint:
    return Endpoint(name, Flavor.MYSQL, "127.0.0.1", 3306, "", "user", "password")


def keyspace(name: str, vschema: Mapping[str, Any] | None = None, *shards: str) -> KeyspaceRoute:
    sharded = bool(shards)
    routes = tuple(
        ShardRoute(shard, f"{name}_{shard.replace('-', '_')}", endpoint(f"{name}{shard}"), ())
        for shard in shards
    ) or (ShardRoute("-", name, endpoint(name), (endpoint(f"{name}r"),)),)
    return KeyspaceRoute(
        name, sharded, {"sharded": sharded, **(vschema or {})} if sharded else vschema or {}, routes
    )


def branch(
    *keyspaces: KeyspaceRoute, rules: Mapping[str, str] | None = None, database: str = "shop"
) -> BranchRoutes:
    return BranchRoutes(
        branch_id="b1",
        organization="acme",
        database=database,
        branch="main",
        flavor=Flavor.MYSQL,
        version=1,
        keyspaces={one.name: one for one in keyspaces},
        rules=rules or {},
        default_keyspace=keyspaces[0].name,
        credentials={},
    )


def view(target: Target | None = None, **facts: Any) -> SessionView:
    """A session's view; anything may be said otherwise by name."""
    plain = SessionView(target=target or Target(), in_transaction=False, role="admin", replica_only=False)
    return replace(plain, **facts)


REPLICA = Target(tablet_type=TabletType.REPLICA)


def router(
    routes: BranchRoutes, known: Mapping[str, Mapping[str, Mapping[str, str]]] | None = None
) -> Router:
    return Router(routes, KnownTables(known or {}))
