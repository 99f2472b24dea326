"""The schema: migrations say what the metadata says, and each constraint holds against a try to break it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Table, text
from sqlalchemy.exc import DBAPIError

from homeworld.model.errors import ConflictError, InvalidError, NotFoundError
from homeworld.model.states.move_tables import MOVE_TABLES, State, Trigger
from homeworld.model.states.resizing import ResizeTrigger, resize_row
from homeworld.store import (
    audit,
    branches,
    databases,
    engine_changes,
    followings,
    gateway_resizes,
    gateways,
    journal,
    keyspaces,
    leases,
    maintenance,
    members,
    members_invitations,
    oauth,
    oauth_devices,
    oauth_tokens,
    outbox,
    passwords,
    progress,
    reparents,
    resizes,
    teams,
    tokens,
    usage,
    users,
    users_sessions,
    webhooks,
    workflows,
)
from homeworld.store import tenants as tenant_records
from homeworld.store.guards import guards
from homeworld.store.migrate import MIGRATIONS, newest, upgrade
from homeworld.store.store import Store, Transaction
from homeworld.store.tables import access, metadata, resources, tenants
from homeworld.store.tables import engines as engine_tables
from homeworld.store.tables import gateways as gateway_tables
from homeworld.store.tables import journal as journal_tables
from homeworld.store.tables import maintenance as maintenance_tables
from homeworld.store.tables import reparents as reparent_tables
from homeworld.store.tables import resizes as resize_tables
from homeworld.store.tables import usage as usage_tables
from homeworld.store.tables import webhooks as webhook_tables
from homeworld.store.tables import workflows as workflow_tables
from tests.support.stores import Shop, TestClock, make_shop

RECORDS: list[tuple[type[Any], Table]] = [
    (tenant_records.Organization, tenants.organizations),
    (tenant_records.Actor, tenants.actors),
    (tenant_records.Region, tenants.regions),
    (tokens.ServiceToken, tenants.service_tokens),
    (tokens.Grant, tenants.grants),
    (databases.Database, resources.databases),
    (branches.Branch, resources.branches),
    (branches.Server, resources.servers),
    (keyspaces.Keyspace, resources.keyspaces),
    (keyspaces.Shard, resources.shards),
    (passwords.Password, resources.passwords),
    (resizes.KeyspaceResize, resize_tables.keyspace_resizes),
    (resizes.ShardRollout, resize_tables.shard_rollouts),
    (gateway_resizes.GatewayResize, resize_tables.gateway_resizes),
    (reparents.ReparentRecord, reparent_tables.reparents),
    (followings.Following, engine_tables.followings),
    (engine_changes.EngineChangeRecord, engine_tables.engine_changes),
    (workflows.Workflow, workflow_tables.workflows),
    (progress.WorkflowTable, workflow_tables.workflow_tables),
    (progress.Stream, workflow_tables.workflow_streams),
    (progress.StreamLog, workflow_tables.stream_logs),
    (progress.VDiff, workflow_tables.vdiffs),
    (progress.VDiffReport, workflow_tables.vdiff_reports),
    (journal.TransitionRecord, journal_tables.transitions),
    (journal.StepRecord, journal_tables.steps),
    (leases.Lease, journal_tables.leases),
    (outbox.Event, journal_tables.outbox),
    (gateways.Member, gateway_tables.gateways),
    (webhooks.Webhook, webhook_tables.webhooks),
    (webhooks.Delivery, webhook_tables.webhook_deliveries),
    (maintenance.Schedule, maintenance_tables.maintenance_schedules),
    (maintenance.Window, maintenance_tables.maintenance_windows),
    (maintenance.ServerFacts, maintenance_tables.server_facts),
    (usage.Invoice, usage_tables.invoices),
    (usage.Line, usage_tables.invoice_lines),
    (users.User, access.users),
    (members.Membership, access.memberships),
    (members_invitations.Invitation, access.invitations),
    (teams.Team, access.teams),
    (teams.TeamMember, access.team_members),
    (oauth.Application, access.oauth_applications),
    (oauth_tokens.OAuthToken, access.oauth_tokens),
    (oauth_tokens.Code, access.oauth_codes),
    (oauth_devices.Device, access.device_codes),
    (users_sessions.SsoAttempt, access.sso_attempts),
    (audit.AuditEntry, journal_tables.audit_log),
]


def test_the_migrations_make_exactly_the_metadata(store: Store) -> None:
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_the_newest_migration_is_known_by_its_file() -> None:
    scripts = ScriptDirectory(str(MIGRATIONS))
    assert scripts.get_heads() == [newest()]
    assert all(Path(each.path).name.startswith(f"{each.revision}_") for each in scripts.walk_revisions())


def test_a_start_with_nothing_to_migrate_waits_for_nobody(store: Store) -> None:
    """Also not for whoever writes just now; and it does not read what migrates."""
    with store.write() as tx:
        tx.organizations.ensure("acme")
        upgrade(store.engine)
    code = (
        "import sys, homeworld.store.store as s; s.Store.open(sys.argv[1]).close(); "
        "print(sorted(name for name in sys.modules if name.startswith('alembic')))"
    )
    url = store.engine.url.render_as_string(hide_password=False)
    done = subprocess.run(
        [sys.executable, "-c", code, url], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "[]"


def test_migrating_twice_changes_nothing(store: Store) -> None:
    with store.write() as tx:
        tx.organizations.ensure("acme")
    upgrade(store.engine)
    with store.read() as tx:
        assert tx.organizations.by_name("acme").name == "acme"


@pytest.mark.parametrize(("record", "table"), RECORDS, ids=lambda value: getattr(value, "name", ""))
def test_a_record_has_its_tables_columns(record: type[Any], table: Table) -> None:
    assert {field.name for field in dataclasses.fields(record)} == set(table.c.keys())


def start(tx: Transaction, shop: Shop, name: str = "move") -> workflows.Workflow:
    return tx.workflows.create(
        shop.database.id, shop.branch.id, name, shop.source.id, shop.target.id, ["orders", "lines"]
    )


def test_a_branch_has_one_workflow_that_is_not_over(store: Store) -> None:
    with store.write() as tx:
        shop = make_shop(tx)
        first = start(tx, shop)
    with pytest.raises(InvalidError, match="one at a time"), store.write() as tx:
        start(tx, shop)
    for trigger in (Trigger.CANCEL, Trigger.DONE):
        with store.write() as tx:
            now = tx.workflows.get(first.id)
            row = MOVE_TABLES.take(now.state, trigger, guards(now))
            tx.workflows.transition(first.id, now.state, row)
    with store.write() as tx:
        second = start(tx, shop, "again")
        # A refused creation took no number with it.
        assert (first.number, second.number) == (1, 2)


def test_an_over_workflow_cannot_be_revived_beside_an_active_one(store: Store) -> None:
    with store.write() as tx:
        shop = make_shop(tx)
        over = start(tx, shop)
        _force(tx, "workflows", over.id, "state = 'cancelled'")
        start(tx, shop)
    with pytest.raises(ConflictError), store.write() as tx:
        _force(tx, "workflows", over.id, "state = 'running'")


BREAKS = [
    ("workflows", "source_keyspace_id = target_keyspace_id"),
    ("workflows", "state = 'nonsense'"),
    ("workflows", "state = 'error'"),
    ("workflows", "state = 'stopped', interrupted_state = NULL"),
    ("workflows", "state = 'switched_primaries'"),
    ("workflows", "state = 'switched_replicas'"),
    ("workflows", "on_ddl = 'SOMETIMES'"),
    ("workflows", "branch_id = 'nowhere'"),
    ("databases", "state = 'deleting'"),
    ("databases", "deleted_at = created_at"),
    ("databases", "flavor = 'oracle'"),
    ("branches", "state = 'deleted'"),
    ("keyspaces", "shard_count = 0"),
    ("keyspaces", "shard_count = 2"),
    ("servers", "replica_of = id"),
    ("passwords", "role = 'root'"),
    ("keyspace_resizes", "state = 'nonsense'"),
    ("gateway_resizes", "state = 'nonsense'"),
]


@pytest.mark.parametrize(("table", "change"), BREAKS, ids=[f"{t}: {c}" for t, c in BREAKS])
def test_a_constraint_refuses(store: Store, table: str, change: str) -> None:
    with store.write() as tx:
        shop = make_shop(tx)
        ids = {
            "workflows": start(tx, shop).id,
            "databases": shop.database.id,
            "branches": shop.branch.id,
            "keyspaces": shop.source.id,
            "servers": tx.servers.of_branch(shop.branch.id)[0].id,
            "passwords": tx.passwords.create(shop.branch.id)[0].id,
            "keyspace_resizes": tx.resizes.ask(shop.source, extra_replicas=1).id,
            "gateway_resizes": _asked(tx, shop).id,
        }
    with pytest.raises(ConflictError), store.write() as tx:
        _force(tx, table, ids[table], change)


def _asked(tx: Transaction, shop: Shop) -> gateway_resizes.GatewayResize:
    made = tx.gateway_resizes.ask(shop.branch, "VTG_5")
    assert made is not None
    return made


def test_of_a_branch_one_resize_is_under_way_and_of_a_keyspace_one_waits(
    store: Store, clock: TestClock
) -> None:
    with store.write() as tx:
        shop = make_shop(tx)
        first = tx.resizes.ask(shop.source, extra_replicas=1)
        again = tx.resizes.ask(shop.source, cluster_size="PS_20")
        assert (again.id, again.cluster_size, again.extra_replicas) == (first.id, "PS_20", 1)
    clock.forward(1)
    with store.write() as tx:
        second = tx.resizes.ask(shop.target, extra_replicas=2)
        assert (first.state, second.state) == ("pending", "queued")
        tx.resizes.transition(first.id, first.state, resize_row(first.state, ResizeTrigger.BEGIN))
    clock.forward(1)
    with store.write() as tx:
        third = tx.resizes.ask(shop.source, extra_replicas=0)
        assert (third.state, third.previous_cluster_size, third.previous_replicas) == ("queued", "PS_20", 1)
    with pytest.raises(ConflictError), store.write() as tx:
        _force(tx, "keyspace_resizes", second.id, "state = 'resizing'")
    with pytest.raises(ConflictError), store.write() as tx:
        _force(tx, "keyspace_resizes", first.id, "state = 'queued'")
    with store.read() as tx:
        assert [one.id for one in tx.resizes.ahead(shop.branch.id, third)] == [first.id, second.id]


def test_names_are_unique_among_the_living(store: Store) -> None:
    with store.write() as tx:
        shop = make_shop(tx)
    with pytest.raises(InvalidError, match="database named shop"), store.write() as tx:
        tx.databases.create(shop.organization.id, "shop", shop.region.id, shop.database.flavor)
    with pytest.raises(InvalidError, match="branch named main"), store.write() as tx:
        tx.branches.create(shop.database.id, "main", shop.region.id)
    with pytest.raises(InvalidError, match="keyspace named shop"), store.write() as tx:
        tx.keyspaces.create(shop.branch.id, "shop")
    with store.write() as tx:
        other = tx.databases.create(shop.organization.id, "other", shop.region.id, shop.database.flavor)
    with pytest.raises(InvalidError, match="database named shop"), store.write() as tx:
        tx.databases.update(other.id, name="shop")


def test_a_database_has_one_default_branch_and_a_branch_one_default_keyspace(store: Store) -> None:
    with store.write() as tx:
        shop = make_shop(tx)
        other = tx.branches.create(shop.database.id, "dev", shop.region.id)
    with pytest.raises(ConflictError), store.write() as tx:
        _force(tx, "branches", other.id, "is_default = (1 = 1)")
    with pytest.raises(ConflictError), store.write() as tx:
        _force(tx, "keyspaces", shop.target.id, "is_default = (1 = 1)")


def test_two_shards_never_share_a_schema_on_a_server(store: Store) -> None:
    with store.write() as tx:
        shop = make_shop(tx)
        server = tx.keyspaces.shards(shop.source.id)[0].primary_server_id
        assert server is not None
        twin = tx.keyspaces.create(shop.branch.id, "twin")
        shard = tx.keyspaces.shards(twin.id)[0]
        tx.work.connection.execute(
            text("UPDATE shards SET schema_name = 'shop' WHERE id = :id"), {"id": shard.id}
        )
    with pytest.raises(ConflictError), store.write() as tx:
        tx.keyspaces.place(shard.id, server)


def test_a_reader_cannot_write_on_postgresql_and_a_raise_keeps_nothing(store: Store) -> None:
    if store.engine.dialect.name == "postgresql":
        with pytest.raises(DBAPIError), store.read() as tx:
            tx.organizations.ensure("acme")

    def break_off() -> None:
        with store.write() as tx:
            tx.organizations.ensure("acme")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    with store.read() as tx:
        with pytest.raises(NotFoundError):
            tx.organizations.by_name("acme")
        assert tx.outbox.last() == 0


def _force(tx: Transaction, table: str, row_id: str, change: str) -> None:
    tx.work.connection.execute(text(f"UPDATE {table} SET {change} WHERE id = :id"), {"id": row_id})


def test_interrupted_is_remembered_when_a_state_breaks_off(store: Store) -> None:
    with store.write() as tx:
        shop = make_shop(tx)
        made = start(tx, shop)
        row = MOVE_TABLES.take(State.PENDING, Trigger.FAILED, guards(made))
        failed = tx.workflows.transition(made.id, State.PENDING, row, why="no room", may_retry=True)
    assert (failed.state, failed.interrupted_state) == (State.ERROR, State.PENDING)
