"""Databases.

Invariant: a live database's name is its organization's only one; workflow numbers count from 1 without being
given twice, because the counter is the database's own row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict, Unpack

from sqlalchemy import Integer, Select, func, select
from sqlalchemy.exc import IntegrityError

from homeworld.model.engines import EngineKind
from homeworld.model.errors import InvalidError, NotFoundError
from homeworld.model.machine import Transition
from homeworld.model.names import check_schema_resource_name, new_id
from homeworld.model.states.lifecycle import Life, LifeTrigger
from homeworld.model.topology import Flavor
from homeworld.store.journal import Journal
from homeworld.store.pages import Page, PageRequest, fetch_counted_page
from homeworld.store.routing import Routes
from homeworld.store.tables import resources
from homeworld.store.work import Work

KIND = "database"


@dataclass(frozen=True, slots=True)
class Database:
    """A database as stored. ``error`` says why it is still pending, if it is; ``throttler_ratios`` how many
    percent of the time work on a keyspace of that name rests.
    """

    id: str
    organization_id: str
    name: str
    region_id: str
    flavor: Flavor
    engine: EngineKind
    state: Life
    error: str
    notes: str
    cluster_size: str
    replicas: int
    automatic_migrations: bool | None
    migration_framework: str | None
    migration_table_name: str | None
    require_approval_for_deploy: bool
    restrict_branch_region: bool
    allow_data_branching: bool
    foreign_keys_enabled: bool
    insights_raw_queries: bool
    production_branch_web_console: bool
    deletion_protected: bool
    last_workflow_number: int
    throttler_ratios: Mapping[str, int]
    throttler_configs: Mapping[str, object]
    actor_id: str | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


class DatabaseFields(TypedDict, total=False):
    """What may be changed beside the state."""

    name: str
    engine: EngineKind
    error: str
    notes: str
    automatic_migrations: bool | None
    migration_framework: str | None
    migration_table_name: str | None
    require_approval_for_deploy: bool
    restrict_branch_region: bool
    allow_data_branching: bool
    foreign_keys_enabled: bool
    insights_raw_queries: bool
    production_branch_web_console: bool
    deletion_protected: bool
    throttler_ratios: Mapping[str, int]
    throttler_configs: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class DatabaseTotals:
    """What the published database object counts. ``issues``: keyspaces with an error; tables of the default
    branch as they were when its schema was last read.
    """

    branches: int
    production_branches: int
    default_branch: str
    default_branch_shards: int
    sharded: bool
    issues: int = 0
    default_branch_tables: int = 0
    schema_last_updated_at: datetime | None = None


class Databases:
    """Databases within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._journal = Journal(work)

    def create(
        self,
        organization_id: str,
        name: str,
        region_id: str,
        flavor: Flavor,
        *,
        engine: EngineKind = EngineKind.LOCAL,
        cluster_size: str = "",
        replicas: int = 0,
        notes: str = "",
        actor_id: str | None = None,
    ) -> Database:
        """A new pending database, without branches (see store.provision for all of it).

        :raises InvalidError: the name is not valid or taken.
        """
        made = Database(
            id=new_id(),
            organization_id=organization_id,
            name=check_schema_resource_name(name, "database"),
            region_id=region_id,
            flavor=flavor,
            engine=engine,
            state=Life.PENDING,
            error="",
            notes=notes,
            cluster_size=cluster_size,
            replicas=replicas,
            automatic_migrations=None,
            migration_framework=None,
            migration_table_name=None,
            require_approval_for_deploy=False,
            restrict_branch_region=False,
            allow_data_branching=False,
            foreign_keys_enabled=False,
            insights_raw_queries=False,
            production_branch_web_console=False,
            deletion_protected=False,
            last_workflow_number=0,
            throttler_ratios={},
            throttler_configs={},
            actor_id=actor_id,
            created_at=self._work.now,
            updated_at=self._work.now,
            deleted_at=None,
        )
        try:
            self._work.add(resources.databases, {field: getattr(made, field) for field in made.__slots__})
        except IntegrityError as error:
            raise InvalidError(f"a database named {name} already exists") from error
        self._journal.born(KIND, made.id, made.state, actor_id=actor_id, payload={"name": name})
        return made

    def get(self, database_id: str) -> Database:
        """The database in whatever state.

        :raises NotFoundError: no such id.
        """
        table = resources.databases
        return self._work.only(select(table).where(table.c.id == database_id), Database)

    def by_name(self, organization_id: str, name: str) -> Database:
        """The live database of that name.

        :raises NotFoundError: no such database.
        """
        table = resources.databases
        return self._work.only(self._live(organization_id).where(table.c.name == name), Database)

    def named(self, organization_id: str, named: str) -> Database:
        """The live database of that name, or else of that id: paths may have either, and a name goes first.

        :raises NotFoundError: no such database.
        """
        try:
            return self.by_name(organization_id, named)
        except NotFoundError:
            of_id = self._live(organization_id).where(resources.databases.c.id == named)
            return self._work.only(of_id, Database)

    def by_ids(self, ids: Iterable[str | None]) -> Mapping[str, Database]:
        """Databases by id in whatever state."""
        return self._work.by_key(resources.databases, ids, Database)

    def page(
        self, organization_id: str, request: PageRequest, q: str = "", only: Iterable[str] | None = None
    ) -> Page[Database]:
        """Live databases by name; ``q`` keeps those whose name contains it, ``only`` those of these ids."""
        table = resources.databases
        query = self._live(organization_id).order_by(table.c.name)
        if only is not None:
            query = query.where(table.c.id.in_(list(only)))
        if q:
            query = query.where(table.c.name.icontains(q, autoescape=True))
        return fetch_counted_page(self._work.connection, query, request, Database)

    @staticmethod
    def _live(organization_id: str) -> Select[tuple[object, ...]]:
        table = resources.databases
        return select(table).where(table.c.organization_id == organization_id, table.c.deleted_at.is_(None))

    def update(self, database_id: str, **fields: Unpack[DatabaseFields]) -> Database:
        """Change settings; gateways hear of a new name or engine.

        :raises InvalidError: the new name is not valid or taken.
        """
        table = resources.databases
        if "name" in fields:
            check_schema_resource_name(fields["name"], "database")
        try:
            self._work.change(table, table.c.id, database_id, {**fields, "updated_at": self._work.now})
        except IntegrityError as error:
            raise InvalidError(f"a database named {fields.get('name')} already exists") from error
        if "name" in fields or "engine" in fields:
            branch = resources.branches
            live = select(branch.c.id).where(
                branch.c.database_id == database_id, branch.c.deleted_at.is_(None)
            )
            for branch_id in self._work.connection.execute(live).scalars().all():
                Routes(self._work).bump(branch_id)
        return self.get(database_id)

    def transition(
        self,
        database_id: str,
        expected: Life,
        row: Transition[Life, LifeTrigger],
        *,
        actor_id: str | None = None,
        why: str = "",
        **fields: Unpack[DatabaseFields],
    ) -> Database:
        """Take a row of LIFECYCLE.

        :raises ConflictError: the database is not in ``expected`` any more.
        """
        self._journal.move(
            KIND,
            resources.databases,
            database_id,
            expected,
            row,
            actor_id=actor_id,
            why=why,
            fields=dict(fields),
            payload={},
        )
        return self.get(database_id)

    def next_workflow_number(self, database_id: str) -> int:
        """The next number, counting from 1; never given again."""
        table = resources.databases
        self._work.change(
            table, table.c.id, database_id, {"last_workflow_number": table.c.last_workflow_number + 1}
        )
        return self.get(database_id).last_workflow_number

    def totals(self, ids: Iterable[str]) -> Mapping[str, DatabaseTotals]:
        """The counts of several databases in three queries."""
        wanted = list(ids)
        branch, keyspace = resources.branches, resources.keyspaces
        counts = dict.fromkeys(wanted, 0)
        production = dict.fromkeys(wanted, 0)
        for row in self._work.connection.execute(
            select(branch.c.database_id, branch.c.production, func.count().label("branches"))
            .where(branch.c.database_id.in_(wanted), branch.c.deleted_at.is_(None))
            .group_by(branch.c.database_id, branch.c.production)
        ):
            counts[row.database_id] += row.branches
            production[row.database_id] += row.branches if row.production else 0
        defaults = {
            row.database_id: row
            for row in self._work.connection.execute(
                select(
                    branch.c.database_id,
                    branch.c.name,
                    branch.c.table_count,
                    branch.c.schema_last_updated_at,
                    func.coalesce(func.sum(keyspace.c.shard_count), 0).label("shards"),
                    func.max(func.cast(keyspace.c.sharded, Integer)).label("sharded"),
                )
                .outerjoin_from(
                    branch,
                    keyspace,
                    (keyspace.c.branch_id == branch.c.id) & keyspace.c.deleted_at.is_(None),
                )
                .where(branch.c.database_id.in_(wanted), branch.c.is_default, branch.c.deleted_at.is_(None))
                .group_by(
                    branch.c.database_id,
                    branch.c.name,
                    branch.c.table_count,
                    branch.c.schema_last_updated_at,
                )
            )
        }
        issues = {
            row.database_id: row.issues
            for row in self._work.connection.execute(
                select(branch.c.database_id, func.count().label("issues"))
                .join_from(branch, keyspace, keyspace.c.branch_id == branch.c.id)
                .where(
                    branch.c.database_id.in_(wanted),
                    branch.c.deleted_at.is_(None),
                    keyspace.c.deleted_at.is_(None),
                    keyspace.c.error != "",
                )
                .group_by(branch.c.database_id)
            )
        }
        found: dict[str, DatabaseTotals] = {}
        for database_id in wanted:
            default = defaults.get(database_id)
            found[database_id] = DatabaseTotals(
                branches=counts[database_id],
                production_branches=production[database_id],
                default_branch=default.name if default else "",
                default_branch_shards=default.shards if default else 0,
                sharded=bool(default.sharded) if default else False,
                issues=issues.get(database_id, 0),
                default_branch_tables=default.table_count if default else 0,
                schema_last_updated_at=default.schema_last_updated_at if default else None,
            )
        return found
