"""Branches as published, and the bodies that create and change them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from homeworld.api.calls import Call
from homeworld.api.schemas.common import ActorOut, Body, RegionOut, ResourceOut
from homeworld.api.schemas.databases import Name
from homeworld.model.states.lifecycle import Life
from homeworld.store.branches import Branch, BranchTotals


class CreateBranch(Body):
    """The body of create_branch. Backups do not exist here, so what would restore one is refused."""

    name: Name
    deletion_protected: bool = False
    parent_branch: Name | None = None
    region: Name | None = None
    cluster_size: Name = ""
    backup_id: Name | None = None
    restore_point: Name | None = None
    seed_data: Name | None = None
    keyspace_cluster_sizes: Annotated[list[object], Field(max_length=1000)] = Field(
        default_factory=list[object]
    )
    storage: dict[str, object] | None = None
    major_version: Name | None = None
    create_database_if_missing: bool = False
    kind: Name = "mysql"


class UpdateBranch(Body):
    """The body of update_branch."""

    new_name: Name | None = None
    deletion_protected: bool | None = None


class UpdateCluster(Body):
    """The body of update_branch_cluster_config."""

    cluster_size: Annotated[str, Field(max_length=64)]


class UpdateSafeMigrations(Body):
    """The body of update_safe_migrations."""

    safe_migrations: bool


class BranchOut(BaseModel):
    """A branch. ``error`` is beyond the published fields: why it is not ready yet, if there is a reason."""

    id: str
    name: str
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    restore_checklist_completed_at: datetime | None = None
    schema_last_updated_at: datetime | None
    kind: str = "mysql"
    mysql_address: str
    mysql_edge_address: str
    state: str
    direct_vtgate: bool = False
    vtgate_size: str
    vtgate_name: str | None
    vtgate_count: int
    vtgate_autoscaling: bool = False
    vtgate_max_count: int | None = None
    vtgate_target_cpu_utilization: int | None = None
    cluster_name: str
    cluster_iops: int | None = None
    ready: bool
    schema_ready: bool
    metal: bool = False
    production: bool
    safe_migrations: bool
    deletion_protected: bool
    sharded: bool
    shard_count: int
    keyspace_count: int
    stale_schema: bool = False
    actor: ActorOut | None
    restored_from_branch: ResourceOut | None = None
    private_edge_connectivity: bool = False
    has_replicas: bool
    has_read_only_replicas: bool = False
    html_url: str
    url: str
    region: RegionOut
    parent_branch: str | None
    vtgate_options: dict[str, str] = Field(default_factory=dict)
    error: str


def gateway_count(call: Call) -> int:
    """How many gateways there are: all of them serve every branch. Where there is one only, in the process of
    everything else, nobody writes it down.
    """
    return max(1, len(call.tx.gateways.all()))


def show_branches(call: Call, branches: Sequence[Branch]) -> list[BranchOut]:
    """Branches as published, in five queries however many there are."""
    gateways = gateway_count(call)
    totals = call.tx.branches.totals([branch.id for branch in branches])
    regions = call.tx.regions.by_ids([branch.region_id for branch in branches])
    parents = call.tx.branches.by_ids([branch.parent_branch_id for branch in branches])
    actors = call.actors(branch.actor_id for branch in branches)
    address = call.settings.gateway_address
    shown: list[BranchOut] = []
    for branch in branches:
        total = totals.get(branch.id, BranchTotals())
        parent = parents.get(branch.parent_branch_id or "")
        shown.append(
            BranchOut(
                id=branch.id,
                name=branch.name,
                created_at=branch.created_at,
                updated_at=branch.updated_at,
                deleted_at=branch.deleted_at,
                schema_last_updated_at=branch.schema_last_updated_at,
                mysql_address=address,
                mysql_edge_address=address,
                state=branch.state if branch.state is Life.READY else Life.PENDING,
                vtgate_size=branch.gateway_size,
                vtgate_name=branch.gateway_size,
                vtgate_count=gateways,
                cluster_name=branch.cluster_size,
                ready=branch.state is Life.READY,
                schema_ready=branch.state is Life.READY,
                production=branch.production,
                safe_migrations=branch.safe_migrations,
                deletion_protected=branch.deletion_protected,
                sharded=total.sharded,
                shard_count=total.shards,
                keyspace_count=total.keyspaces,
                actor=ActorOut.maybe(actors, branch.actor_id),
                has_replicas=total.replicas > 0,
                html_url=call.html_url(call.database.name, branch.name),
                url=call.api_url("databases", call.database.name, "branches", branch.name),
                region=RegionOut.of(regions[branch.region_id]),
                parent_branch=parent.name if parent else None,
                error=branch.error,
            )
        )
    return shown
