"""Databases as published, and the bodies that create and change them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from homeworld.api.calls import Call
from homeworld.api.schemas.common import Body, RegionOut
from homeworld.model.engines import EngineKind
from homeworld.model.states.lifecycle import Life
from homeworld.model.states.resizing import WAITING, Resize
from homeworld.model.topology import Flavor
from homeworld.store.databases import Database

Name = Annotated[str, Field(max_length=255)]
Count = Annotated[int, Field(ge=0, le=16)]


class CreateDatabase(Body):
    """The body of create_database. ``flavor`` and ``engine`` are homeworld's own additions."""

    name: Name
    region: Name | None = None
    cluster_size: Annotated[str, Field(max_length=64)] = ""
    replicas: Count | None = None
    kind: Name = "mysql"
    major_version: Name | None = None
    storage: dict[str, object] | None = None
    notes: Annotated[str, Field(max_length=65_536)] = ""
    flavor: Flavor | None = None
    engine: EngineKind | None = None


class UpdateDatabase(Body):
    """The body of update_database_settings."""

    new_name: Name | None = None
    automatic_migrations: bool | None = None
    migration_framework: Annotated[str, Field(max_length=64)] | None = None
    migration_table_name: Annotated[str, Field(max_length=64)] | None = None
    require_approval_for_deploy: bool | None = None
    restrict_branch_region: bool | None = None
    allow_data_branching: bool | None = None
    allow_foreign_key_constraints: bool | None = None
    insights_raw_queries: bool | None = None
    deletion_protected: bool | None = None
    production_branch_web_console: bool | None = None
    default_branch: Name | None = None


class DatabaseOut(BaseModel):
    """A database. ``notes``, ``flavor``, ``engine`` and ``error`` (why it is not ready yet, if there is a
    reason) are beyond the published fields; ``issues_count`` tells clients that know only those that there is
    one.
    """

    id: str
    url: str
    branches_url: str
    branches_count: int
    open_schema_recommendations_count: int = 0
    development_branches_count: int
    production_branches_count: int
    issues_count: int
    multiple_admins_required_for_deletion: bool = False
    ready: bool
    at_backup_restore_branches_limit: bool = False
    at_development_branch_usage_limit: bool = False
    data_import: None = None
    region: RegionOut
    html_url: str
    name: str
    state: str
    sharded: bool
    default_branch_shard_count: int
    default_branch_read_only_regions_count: int = 0
    default_branch_table_count: int
    default_branch: str
    require_approval_for_deploy: bool
    deletion_protected: bool
    resizing: bool
    resize_queued: bool
    config_changing: bool = False
    config_change_queued: bool = False
    allow_data_branching: bool
    foreign_keys_enabled: bool
    automatic_migrations: bool | None
    restrict_branch_region: bool
    insights_raw_queries: bool
    plan: str = "self_hosted"
    insights_enabled: bool = False
    production_branch_web_console: bool
    migration_table_name: str | None
    migration_framework: str | None
    created_at: datetime
    updated_at: datetime
    schema_last_updated_at: datetime | None
    kind: str = "mysql"
    notes: str
    flavor: Flavor
    engine: EngineKind
    error: str


def show_databases(call: Call, databases: Sequence[Database]) -> list[DatabaseOut]:
    """Databases as published, in five queries however many there are."""
    resizes = call.tx.resizes.states_in([database.id for database in databases])
    totals = call.tx.databases.totals([database.id for database in databases])
    regions = call.tx.regions.by_ids([database.region_id for database in databases])
    return [
        DatabaseOut(
            id=database.id,
            url=call.api_url("databases", database.name),
            branches_url=call.api_url("databases", database.name, "branches"),
            branches_count=totals[database.id].branches,
            development_branches_count=totals[database.id].branches - totals[database.id].production_branches,
            production_branches_count=totals[database.id].production_branches,
            issues_count=totals[database.id].issues,
            ready=database.state is Life.READY,
            region=RegionOut.of(regions[database.region_id]),
            html_url=call.html_url(database.name),
            name=database.name,
            state=database.state,
            sharded=totals[database.id].sharded,
            default_branch_shard_count=totals[database.id].default_branch_shards,
            default_branch=totals[database.id].default_branch,
            default_branch_table_count=totals[database.id].default_branch_tables,
            schema_last_updated_at=totals[database.id].schema_last_updated_at,
            require_approval_for_deploy=database.require_approval_for_deploy,
            deletion_protected=database.deletion_protected,
            resizing=Resize.RESIZING in resizes.get(database.id, ()),
            resize_queued=not resizes.get(database.id, frozenset()).isdisjoint(WAITING),
            allow_data_branching=database.allow_data_branching,
            foreign_keys_enabled=database.foreign_keys_enabled,
            automatic_migrations=database.automatic_migrations,
            restrict_branch_region=database.restrict_branch_region,
            insights_raw_queries=database.insights_raw_queries,
            production_branch_web_console=database.production_branch_web_console,
            migration_table_name=database.migration_table_name,
            migration_framework=database.migration_framework,
            created_at=database.created_at,
            updated_at=database.updated_at,
            notes=database.notes,
            flavor=database.flavor,
            engine=database.engine,
            error=database.error,
        )
        for database in databases
    ]
