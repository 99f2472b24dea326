"""What events are about, as the API shows it: the bodies that webhooks are sent.

Invariant: a resource in an event is what GET answers for it, with its published ``type`` beside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from pydantic import BaseModel

from homeworld.api.calls import Call, Caller, Settings
from homeworld.api.schemas.branches import show_branches
from homeworld.api.schemas.databases import show_databases
from homeworld.api.scopes import Scope
from homeworld.model.webhooks import Subject
from homeworld.store.databases import Database
from homeworld.store.store import Transaction


def _branch(call: Call, branch_id: str) -> BaseModel:
    return show_branches(call, [call.tx.branches.get(branch_id)])[0]


def _database(call: Call, _database_id: str) -> BaseModel:
    return show_databases(call, [call.database])[0]


def _of_branch(tx: Transaction, branch_id: str) -> str:
    return tx.branches.get(branch_id).database_id


def _itself(_tx: Transaction, database_id: str) -> str:
    return database_id


# The outbox's kind of resource to: its published type, the database it belongs to, how it is shown.
KINDS: Mapping[str, tuple[str, Callable[[Transaction, str], str], Callable[[Call, str], BaseModel]]] = {
    "branch": ("Branch", _of_branch, _branch),
    "database": ("Database", _itself, _database),
}


class EventSubjects:
    """Implements the ``Subjects`` of webhooks.

    :param base_url: of the API, for the links in what is shown.
    """

    def __init__(self, settings: Settings, base_url: str) -> None:
        self._settings = settings
        self._caller = Caller("", base_url.rstrip("/"), "", "", "")

    def database_of(self, tx: Transaction, kind: str, resource_id: str) -> str | None:
        """See ``webhooks.dispatcher.Subjects``."""
        known = KINDS.get(kind)
        return None if known is None else known[1](tx, resource_id)

    def show(self, tx: Transaction, kind: str, resource_id: str) -> Subject:
        """See ``webhooks.dispatcher.Subjects``."""
        database = tx.databases.get(KINDS[kind][1](tx, resource_id))
        organization = tx.organizations.get(database.organization_id)
        call = Call(tx, self._caller, self._settings, Scope(), organization_=organization)
        return show_in(call, database, kind, resource_id)


def show_in(call: Call, database: Database, kind: str, resource_id: str) -> Subject:
    """A resource of a database, within a call."""
    within = replace(call, database_=database)
    named, _, show = KINDS[kind]
    shown = show(within, resource_id).model_dump(mode="json")
    return Subject(within.organization.name, database.name, {"id": shown["id"], "type": named, **shown})
