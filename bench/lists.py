"""A control plane's store with much in each of its lists, made in seconds.

Of each kind one is made as users make it; the others are its row, written again under new ids and with
whatever has to be one's own. Invariant: every list that is returned has as many entries as were asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Table, func, insert, select, update

from bench.stores import DATABASE, ORGANIZATION, SHARDED
from homeworld.model.maintenance import Rhythm, Unit
from homeworld.model.names import new_id
from homeworld.model.states.resizing import Resize
from homeworld.store.store import Store, Transaction
from homeworld.store.tables import access, journal, maintenance, resizes, resources, tenants, usage, webhooks
from homeworld.store.tables.maintenance import WindowState
from homeworld.store.usage import Metric, month_of

Change = Callable[[int], object]
#: The list with cursors in the place of pages.
CURSORS = "audit log"
#: Sorted after the teams of the list: what a team shows has all its members in it.
CROWD = "zz-crowd"


def digest(number: int) -> bytes:
    """Something in the place of a secret's digest."""
    return number.to_bytes(32, "big")


def fill(url: str, count: int) -> Mapping[str, str]:
    """Put ``count`` entries into each list of a store that ``populate`` made with as many branches.

    :returns: the path of each list, by its name.
    """
    store = Store.open(url)
    with store.write() as tx:
        paths = {**_organization(tx, count), **_access(tx, count), **_database(tx, count)}
    store.close()
    return paths


def _again(tx: Transaction, table: Table, row_id: str, count: int, **changes: Change) -> list[str]:
    """Write a row again until there are ``count`` of it; all their ids."""
    row = dict(tx.work.connection.execute(select(table).where(table.c.id == row_id)).mappings().one())
    made = [
        {**row, "id": new_id(), **{name: change(number) for name, change in changes.items()}}
        for number in range(2, count + 1)
    ]
    if made:
        tx.work.connection.execute(insert(table), made)
    return [row_id, *(str(one["id"]) for one in made)]


def _organization(tx: Transaction, count: int) -> dict[str, str]:
    at = f"/v1/organizations/{ORGANIZATION}"
    organization = tx.organizations.by_name(ORGANIZATION)
    branches = tx.work.connection.execute(select(resources.branches.c.id)).scalars().all()
    token, _ = tx.tokens.create(organization.id, "one of many")
    _again(tx, tenants.service_tokens, token.id, count, token_sha256=digest)
    logged, target = new_id(), ("service_token", token.id, "one of many")
    tx.journal.audit(organization.id, token.id, "service_token.created", target, audit_id=logged)
    _again(tx, journal.audit_log, logged, count)
    start, end = month_of(tx.work.now)
    invoice, line = new_id(), new_id()
    times = {"created_at": start, "updated_at": start}
    month = {"organization_id": organization.id, "period_start": start, "period_end": end, "amount": 1}
    tx.work.add(usage.invoices, {"id": invoice, **month, **times})
    used = {"branch_id": branches[0], "metric": Metric.SERVER_HOURS, "quantity": 1, "amount": 1}
    tx.work.add(usage.invoice_lines, {"id": line, "invoice_id": invoice, **used, **times})
    _again(tx, usage.invoice_lines, line, count, branch_id=lambda number: branches[number - 1])
    return {
        "service tokens": f"{at}/service-tokens",
        CURSORS: f"{at}/audit-log",
        "line items": f"{at}/invoices/{invoice}/line-items",
    }


def _access(tx: Transaction, count: int) -> dict[str, str]:
    at = f"/v1/organizations/{ORGANIZATION}"
    organization = tx.organizations.by_name(ORGANIZATION)
    first = tx.users.add("one@example.com", "One")
    tx.members.add(organization.id, first.id, "member")
    run = tx.work.connection.execute
    actor = dict(run(select(tenants.actors).where(tenants.actors.c.id == first.id)).mappings().one())
    user = dict(run(select(access.users).where(access.users.c.id == first.id)).mappings().one())
    ids = [new_id() for _ in range(2, count + 1)]
    for table, row in ((tenants.actors, actor), (access.users, user)):
        more: list[dict[str, Any]] = [{**row, "id": own} for own in ids]
        if table is access.users:
            for number, one in enumerate(more, 2):
                one["email"] = f"{number}@example.com"
        if more:
            run(insert(table), more)
    membership = tx.members.get(organization.id, first.id)
    _again(tx, access.memberships, membership.id, count, user_id=lambda number: ids[number - 2])
    team = tx.teams.create(organization.id, "team 000001", None, first.id)
    _again(
        tx, access.teams, team.id, count, name=lambda number: f"team {number:06d}",
        slug=lambda number: f"team-{number:06d}",
    )  # fmt: skip
    crowd = tx.teams.create(organization.id, CROWD, None, first.id)
    belongs = tx.teams.add_member(crowd, first.id, first.id)
    _again(tx, access.team_members, belongs.id, count, user_id=lambda number: ids[number - 2])
    invited, _ = tx.invitations.create(organization.id, "guest@example.com", "member", first.id)
    _again(tx, access.invitations, invited.id, count, secret_sha256=digest)
    application, _ = tx.applications.create(
        organization.id, "an app", "https://example.com", "https://example.com", []
    )
    _again(tx, access.oauth_applications, application.id, count, client_id=lambda number: f"client-{number}")
    issued = tx.oauth_tokens.issue(first.id, application.client_id, application_id=application.id, scopes=[])
    _again(
        tx, access.oauth_tokens, issued.token.id, count, access_sha256=digest, refresh_sha256=digest,
    )  # fmt: skip
    return {
        "members": f"{at}/members",
        "teams": f"{at}/teams",
        "team members": f"{at}/teams/{crowd.slug}/members",
        "invitations": f"{at}/invitations",
        "OAuth applications": f"{at}/oauth-applications",
        "OAuth tokens": f"{at}/oauth-applications/{application.id}/tokens",
    }


def _database(tx: Transaction, count: int) -> dict[str, str]:
    at = f"/v1/organizations/{ORGANIZATION}/databases/{DATABASE}"
    database = tx.databases.by_name(tx.organizations.by_name(ORGANIZATION).id, DATABASE)
    main = tx.branches.default(database.id)
    keyspace = tx.keyspaces.by_name(main.id, SHARDED)
    run, now = tx.work.connection.execute, tx.work.now
    webhook = tx.webhooks.create(database.id, "https://example.com/hook")
    _again(tx, webhooks.webhooks, webhook.id, count)
    rhythm = Rhythm(Unit.WEEK, 1, 0, 0, 0, now.date())
    schedule = tx.maintenance.create(database.id, rhythm=rhythm, enabled=False)
    _again(tx, maintenance.maintenance_schedules, schedule.id, count)
    window = tx.maintenance.open(schedule)
    over: dict[str, object] = {"state": WindowState.FINISHED, "finished_at": now}
    run(update(maintenance.maintenance_windows).values(over))
    _again(tx, maintenance.maintenance_windows, window.id, count)
    done: dict[str, object] = {"state": Resize.COMPLETED, "completed_at": now}
    resize = tx.resizes.ask(keyspace, extra_replicas=1)
    run(update(resizes.keyspace_resizes).values(done))
    _again(tx, resizes.keyspace_resizes, resize.id, count)
    gateways = tx.gateway_resizes.ask(main, "VTG_10")
    if gateways is None:
        raise ValueError("a branch has a size of gateways already that nobody gave it")
    run(update(resizes.gateway_resizes).values(done))
    _again(tx, resizes.gateway_resizes, gateways.id, count)
    password, _ = tx.passwords.create(main.id)
    _again(tx, resources.passwords, password.id, count, username=lambda number: f"user-{number}")
    made = run(select(func.count()).select_from(resources.passwords)).scalar_one()
    if made != count:
        raise ValueError(f"{made} passwords, not {count}")
    return {
        "webhooks": f"{at}/webhooks",
        "maintenance schedules": f"{at}/maintenance-schedules",
        "maintenance windows": f"{at}/maintenance-schedules/{schedule.id}/windows",
        "resizes of a keyspace": f"{at}/branches/main/keyspaces/{SHARDED}/resizes",
        "resizes of gateways": f"{at}/branches/main/resizes",
        "passwords of a branch": f"{at}/branches/main/passwords",
        "passwords of a database": f"{at}/passwords",
    }
