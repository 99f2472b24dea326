"""Resizes and roll-outs as published, and the bodies that ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from homeworld.api.calls import Call
from homeworld.api.schemas.branches import gateway_count
from homeworld.api.schemas.common import ActorOut, Body
from homeworld.api.schemas.databases import Count, Name
from homeworld.api.schemas.organizations import display_size
from homeworld.model.states.resizing import Resize
from homeworld.store.gateway_resizes import GatewayResize
from homeworld.store.keyspaces import Keyspace
from homeworld.store.resizes import KeyspaceResize

Percent = Annotated[int, Field(ge=0, le=100)]


class ResizeKeyspace(Body):
    """The body of update_keyspace_resize_request."""

    cluster_size: Annotated[str, Field(max_length=64)] | None = None
    extra_replicas: Count | None = None
    vector_pool_allocation: Percent | None = None


class ResizeGateways(Body):
    """The body of update_branch_resize_request."""

    vtgate_size: Annotated[str, Field(max_length=64)] | None = None
    vtgate_count: Annotated[int, Field(ge=0, le=1000)] | None = None
    vtgate_max_count: Annotated[int, Field(ge=0, le=1000)] | None = None
    vtgate_autoscaling: bool | None = None
    vtgate_target_cpu_utilization: Percent | None = None


class KeyspaceResizeOut(BaseModel):
    """A keyspace's resize. ``error`` is beyond the published fields: why it does not go on, if so."""

    id: str
    state: Resize
    started_at: datetime | None
    completed_at: datetime | None
    created_at: datetime
    updated_at: datetime
    extra_replicas: int
    vector_pool_allocation: int = 0
    previous_vector_pool_allocation: int = 0
    cluster_name: str
    cluster_display_name: str
    previous_cluster_name: str
    previous_cluster_display_name: str
    replicas: int
    previous_replicas: int
    actor: ActorOut
    error: str


def show_keyspace_resizes(call: Call, resizes: Sequence[KeyspaceResize]) -> list[KeyspaceResizeOut]:
    """Resizes as published, in one query however many there are."""
    actors = call.actors(resize.actor_id for resize in resizes)
    return [
        KeyspaceResizeOut(
            id=resize.id,
            state=resize.state,
            started_at=resize.started_at,
            completed_at=resize.completed_at,
            created_at=resize.created_at,
            updated_at=resize.updated_at,
            extra_replicas=resize.extra_replicas,
            cluster_name=resize.cluster_size,
            cluster_display_name=display_size(resize.cluster_size),
            previous_cluster_name=resize.previous_cluster_size,
            previous_cluster_display_name=display_size(resize.previous_cluster_size),
            replicas=resize.replicas,
            previous_replicas=resize.previous_replicas,
            actor=ActorOut.of(actors, resize.actor_id),
            error=resize.error,
        )
        for resize in resizes
    ]


class BranchResizeOut(BaseModel):
    """A resize of a branch's gateways. Their number is what runs, and is not scaled by itself."""

    id: str
    type: str = "BranchResizeRequest"
    state: Resize
    started_at: datetime | None
    completed_at: datetime | None
    created_at: datetime
    updated_at: datetime
    vtgate_size: str
    previous_vtgate_size: str
    vtgate_count: int
    previous_vtgate_count: int
    vtgate_max_count: int
    previous_vtgate_max_count: int
    vtgate_autoscaling: bool = False
    previous_vtgate_autoscaling: bool = False
    vtgate_target_cpu_utilization: int = 0
    previous_vtgate_target_cpu_utilization: int = 0
    vtgate_name: str
    vtgate_display_name: str
    previous_vtgate_name: str
    previous_vtgate_display_name: str
    actor: ActorOut
    error: str


def show_branch_resizes(call: Call, resizes: Sequence[GatewayResize]) -> list[BranchResizeOut]:
    """Resizes as published, in two queries however many there are."""
    actors = call.actors(resize.actor_id for resize in resizes)
    count = gateway_count(call)
    return [
        BranchResizeOut(
            id=resize.id,
            state=resize.state,
            started_at=resize.started_at,
            completed_at=resize.completed_at,
            created_at=resize.created_at,
            updated_at=resize.updated_at,
            vtgate_size=resize.size,
            previous_vtgate_size=resize.previous_size,
            vtgate_count=count,
            previous_vtgate_count=count,
            vtgate_max_count=count,
            previous_vtgate_max_count=count,
            vtgate_name=resize.size,
            vtgate_display_name=display_size(resize.size),
            previous_vtgate_name=resize.previous_size,
            previous_vtgate_display_name=display_size(resize.previous_size),
            actor=ActorOut.of(actors, resize.actor_id),
            error=resize.error,
        )
        for resize in resizes
    ]


RolloutState = Literal["pending", "in_progress", "complete"]


class ShardRolloutOut(BaseModel):
    """A shard's newest roll-out; until it had another, that is its making."""

    type: str = "BranchInfrastructureKeyspaceShard"
    name: str
    state: RolloutState
    last_rollout_started_at: datetime
    last_rollout_finished_at: datetime


class RolloutOut(BaseModel):
    """A keyspace's newest roll-out."""

    type: str = "BranchInfrastructureKeyspace"
    name: str
    state: RolloutState
    shards: list[ShardRolloutOut]


def show_rollout(call: Call, keyspace: Keyspace) -> RolloutOut:
    """How far it is, shard by shard."""
    shards = call.tx.keyspaces.shards(keyspace.id)
    known = call.tx.resizes.rollouts([shard.id for shard in shards])
    shown: list[ShardRolloutOut] = []
    for shard in shards:
        rollout = known.get(shard.id)
        state = rollout.state if rollout else ("complete" if shard.primary_server_id else "pending")
        started = (rollout.started_at if rollout else None) or shard.created_at
        finished = (rollout.finished_at if rollout else None) or shard.updated_at
        shown.append(
            ShardRolloutOut(
                name=shard.name,
                state=_state(state),
                last_rollout_started_at=started,
                last_rollout_finished_at=finished,
            )
        )
    states = {one.state for one in shown}
    whole: RolloutState = shown[0].state if len(states) == 1 else "in_progress"
    return RolloutOut(name=keyspace.name, state=whole, shards=shown)


def _state(text: str) -> RolloutState:
    if text == "pending":
        return "pending"
    return "complete" if text == "complete" else "in_progress"


class ReadOnlyRegionIn(Body):
    """Replicas of a keyspace in another region."""

    region: Name
    cluster_size: Annotated[str, Field(max_length=64)] = ""
    replicas: Count | None = None


class UpdateReadOnlyRegions(Body):
    """The body of update_keyspace_read_only_regions: all of them."""

    read_only_regions: Annotated[list[ReadOnlyRegionIn], Field(max_length=100)]
