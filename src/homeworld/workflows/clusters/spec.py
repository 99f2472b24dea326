"""What a branch's cluster has to be, from its rows. Pure.

Invariant: a keyspace is in it only while its servers and schemas exist: from when it has joined, or is ready,
until it is asked away.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict

from homeworld.model.clusters import ClusterKeyspace, ClusterShard, ClusterSpec
from homeworld.model.states.lifecycle import Life
from homeworld.store.branches import Branch
from homeworld.store.keyspaces import Keyspace, Shard

_DIGEST_BYTES = 15


def cluster_spec(
    branch: Branch, keyspaces: Sequence[Keyspace], shards: Sequence[Shard], joining: Collection[str] = ()
) -> ClusterSpec:
    """What the branch's cluster has to be.

    :param shards: of all these keyspaces, each keyspace's in key order.
    :param joining: ids of pending keyspaces whose servers and schemas exist.
    """
    found: list[ClusterKeyspace] = []
    for keyspace in sorted(keyspaces, key=lambda one: one.name):
        belongs = keyspace.state is Life.READY or (keyspace.state is Life.PENDING and keyspace.id in joining)
        placed = [
            ClusterShard(one.name, one.schema_name, one.primary_server_id, tuple(one.replica_server_ids))
            for one in shards
            if one.keyspace_id == keyspace.id and one.primary_server_id is not None
        ]
        if belongs and len(placed) == keyspace.shard_count:
            found.append(
                ClusterKeyspace(keyspace.name, keyspace.sharded, dict(keyspace.vschema), tuple(placed))
            )
    return ClusterSpec(branch.id, tuple(found))


def spec_digest(spec: ClusterSpec) -> str:
    """The same for specs that say the same, and for no others."""
    return _digest(asdict(spec))


def rules_digest(rules: Mapping[str, str]) -> str:
    """The same for the same rules only."""
    return _digest(dict(rules))


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()
