"""Keyspaces and routing rules in the words that Vitess's own clients print."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel

from homeworld.api.calls import Call
from homeworld.store.keyspaces import Keyspace


class KeyspaceRecordOut(BaseModel):
    """What is known of a keyspace."""

    keyspace_type: str = "NORMAL"


class KeyspaceListedOut(BaseModel):
    """A keyspace. ``sharded`` and ``shards`` are beyond what others tell."""

    name: str
    keyspace: KeyspaceRecordOut
    sharded: bool
    shards: Sequence[str]


class KeyspacesOut(BaseModel):
    """Keyspaces, by name."""

    keyspaces: Sequence[KeyspaceListedOut]


class RoutingRuleOut(BaseModel):
    """Where a name leads."""

    from_table: str
    to_tables: Sequence[str]


class RoutingRulesOut(BaseModel):
    """Routing rules, by name."""

    rules: Sequence[RoutingRuleOut]


def show_keyspaces(call: Call, keyspaces: Sequence[Keyspace]) -> KeyspacesOut:
    """Keyspaces with their shards."""
    shards: dict[str, list[str]] = {}
    for shard in call.tx.keyspaces.shards_of([keyspace.id for keyspace in keyspaces]):
        shards.setdefault(shard.keyspace_id, []).append(shard.name)
    return KeyspacesOut(
        keyspaces=[
            KeyspaceListedOut(
                name=keyspace.name,
                keyspace=KeyspaceRecordOut(),
                sharded=keyspace.sharded,
                shards=shards.get(keyspace.id, []),
            )
            for keyspace in keyspaces
        ]
    )
