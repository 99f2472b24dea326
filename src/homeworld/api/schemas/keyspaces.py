"""Keyspaces and vschemas as published, and the bodies that create and change them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from homeworld.api.calls import Call
from homeworld.api.schemas.common import Body
from homeworld.api.schemas.databases import Count, Name
from homeworld.api.schemas.organizations import display_size
from homeworld.model.states.lifecycle import Life
from homeworld.model.states.resizing import WAITING, Resize
from homeworld.store.keyspaces import Keyspace
from homeworld.store.resizes import KeyspaceResize


class CreateKeyspace(Body):
    """The body of create_keyspace."""

    name: Name
    cluster_size: Annotated[str, Field(max_length=64)] = ""
    extra_replicas: Count = 0
    shards: Annotated[int, Field(ge=1, le=256)] = 1


class DurabilityIn(Body):
    """How many replicas must have a transaction."""

    strategy: Literal["available", "lag", "always"] | None = None


class FlagsIn(Body):
    """Options of data movement."""

    optimize_inserts: bool | None = None
    allow_no_blob_binlog_row_image: bool | None = None
    vplayer_batching: bool | None = None


class UpdateKeyspace(Body):
    """The body of update_keyspace."""

    replication_durability_constraints: DurabilityIn | None = None
    vreplication_flags: FlagsIn | None = None


class UpdateVSchema(Body):
    """The body of update_keyspace_vschema: the vschema as JSON text."""

    vschema: str


class UpdateRoutingRules(Body):
    """The body of update_branch_routing_rules: Vitess routing rules as JSON text."""

    routing_rules: str


class DurabilityOut(BaseModel):
    """How many replicas must have a transaction."""

    strategy: str | None


class FlagsOut(BaseModel):
    """Options of data movement."""

    optimize_inserts: bool
    allow_no_blob_binlog_row_image: bool
    vplayer_batching: bool


class ReadOnlyRegionOut(BaseModel):
    """A keyspace's replicas in another region."""

    region: str
    cluster_name: str
    cluster_display_name: str
    replicas: int


class KeyspaceOut(BaseModel):
    """A keyspace. ``error``, ``deleted_at`` and ``read_only_regions`` are beyond the published fields."""

    id: str
    name: str
    shards: int
    sharded: bool
    replicas: int
    extra_replicas: int
    created_at: datetime
    updated_at: datetime
    cluster_name: str
    cluster_display_name: str
    resizing: bool
    resize_in_progress: bool
    resize_pending: bool
    config_change_in_progress: bool = False
    ready: bool
    metal: bool = False
    default: bool
    imported: bool = False
    vector_pool_allocation: float | None = None
    node_ttl_strategy: str = "node_ttl_off"
    replication_durability_constraints: DurabilityOut
    vreplication_flags: FlagsOut
    mysqld_options: dict[str, str] = Field(default_factory=dict)
    vttablet_options: dict[str, str] = Field(default_factory=dict)
    read_only_regions: list[ReadOnlyRegionOut] = Field(default_factory=list[ReadOnlyRegionOut])
    error: str
    deleted_at: datetime | None


def show_keyspaces(call: Call, keyspaces: Sequence[Keyspace]) -> list[KeyspaceOut]:
    """Keyspaces as published, in one query however many there are."""
    unfinished = call.tx.resizes.unfinished([keyspace.id for keyspace in keyspaces])
    return [show_keyspace(keyspace, unfinished.get(keyspace.id, ())) for keyspace in keyspaces]


def show_keyspace(keyspace: Keyspace, unfinished: Sequence[KeyspaceResize] = ()) -> KeyspaceOut:
    """A keyspace as published.

    :param unfinished: its resizes that are not over.
    """
    return KeyspaceOut(
        id=keyspace.id,
        name=keyspace.name,
        shards=keyspace.shard_count,
        sharded=keyspace.sharded,
        replicas=keyspace.replicas,
        extra_replicas=keyspace.extra_replicas,
        created_at=keyspace.created_at,
        updated_at=keyspace.updated_at,
        cluster_name=keyspace.cluster_size,
        cluster_display_name=display_size(keyspace.cluster_size),
        resizing=any(resize.state is Resize.RESIZING for resize in unfinished),
        resize_in_progress=bool(unfinished),
        resize_pending=any(resize.state in WAITING for resize in unfinished),
        ready=keyspace.state is Life.READY,
        default=keyspace.is_default,
        replication_durability_constraints=DurabilityOut(strategy=keyspace.durability_strategy),
        vreplication_flags=FlagsOut(
            optimize_inserts=keyspace.optimize_inserts,
            allow_no_blob_binlog_row_image=keyspace.allow_no_blob_binlog_row_image,
            vplayer_batching=keyspace.vplayer_batching,
        ),
        error=keyspace.error,
        deleted_at=keyspace.deleted_at,
    )


class RawOut(BaseModel):
    """A JSON document as text, and the same as HTML."""

    raw: str
    html: str

    @classmethod
    def of(cls, document: Mapping[str, object]) -> RawOut:
        """The document, indented."""
        raw = json.dumps(document, indent=2, ensure_ascii=False)
        return cls(raw=raw, html=f"<pre>{escape(raw)}</pre>")
