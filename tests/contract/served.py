"""The walk over an API of its own: a fresh store, no executor, and states set by hand."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import update

from homeworld.api.calls import Settings
from homeworld.model.states.lifecycle import Life
from homeworld.store.provision import bootstrap
from homeworld.store.store import Store
from homeworld.store.tables.resources import branches, databases, keyspaces
from homeworld.store.tables.workflows import workflows
from homeworld.store.usage import UsedHour
from tests.contract.check import Check, Published, Report
from tests.support.api import ServedApi, StatedInspection, StatedPlacements, StatedPreconditions, client_of

ORGANIZATION = "acme"


def check_own(published: Published, folder: Path) -> Report:
    """Serve the API over a new store in ``folder`` and walk through all of it."""
    store = Store.open(f"sqlite:///{folder / 'contract.db'}")
    bootstrap(store, ORGANIZATION, "local", "Local")
    with store.read() as tx:
        organization = tx.organizations.by_name(ORGANIZATION)
    served = ServedApi()
    try:
        served.use(store, Settings(StatedPreconditions(), StatedPlacements(), StatedInspection()))
        with client_of(served, store, organization) as http:
            people = StoredPeople(store, organization.id)
            check = Check(published, http, ORGANIZATION, _put_in_state(store), people=people)
            check.make_invoice = _make_invoice(store)
            return check.run()
    finally:
        served.close()
        store.close()


class StoredPeople:
    """People made in the store, for the walk."""

    def __init__(self, store: Store, organization_id: str) -> None:
        self._store = store
        self._organization_id = organization_id

    def member(self) -> str:
        """See :class:`~tests.contract.check.People`."""
        with self._store.write() as tx:
            user = tx.users.add("contract@example.com")
            tx.members.add(self._organization_id, user.id, "member")
        return user.id

    def code(self, application_id: str, user_id: str, redirect_uri: str) -> str:
        """See :class:`~tests.contract.check.People`."""
        with self._store.write() as tx:
            return tx.oauth_tokens.allow(application_id, user_id, redirect_uri, ["user:read_user"], None)

    def token(self, user_id: str) -> str:
        """See :class:`~tests.contract.check.People`."""
        with self._store.write() as tx:
            return tx.oauth_tokens.issue(user_id, "contract", application_id=None, scopes=None).access


def _put_in_state(store: Store):  # noqa: ANN202 - Check's own type
    def put(state: str, number: int, _database: str) -> None:
        with store.write() as tx:
            run = tx.work.connection.execute
            if state == "ready":
                for table in (databases, branches, keyspaces):
                    run(update(table).where(table.c.state == Life.PENDING).values(state=Life.READY))
                return
            run(
                update(workflows)
                .where(workflows.c.number == number)
                .values(
                    state=state,
                    replicas_switched=state in {"switched_replicas", "switched_primaries"},
                    primaries_switched=state == "switched_primaries",
                    interrupted_state="running" if state == "error" else None,
                    may_retry=state == "error",
                    lag_seconds=0.0,
                    lag_told_at=tx.work.now,
                )
            )

    return put


def _make_invoice(store: Store):  # noqa: ANN202 - Check's own type
    def make(database: str) -> None:
        with store.write() as tx:
            organization = tx.organizations.by_name(ORGANIZATION)
            found = tx.databases.by_name(organization.id, database)
            branch = tx.branches.default(found.id)
            server = tx.servers.create(branch.id, found.flavor)
            hour = tx.work.now.replace(minute=0, second=0, microsecond=0)
            tx.usage.count([UsedHour(server.id, branch.id, hour, 10**9, 50_000_000, 1)])

    return make
