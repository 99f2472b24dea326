"""What events are about, as the API shows it: the bodies that webhooks are sent.

Invariant: a resource in an event is what GET answers for it, with its ``type`` beside, and the names that
GET's path has and its answer has not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from pydantic import BaseModel

from homeworld.api.calls import Call, Caller, Settings
from homeworld.api.schemas.branches import show_branches
from homeworld.api.schemas.databases import show_databases
from homeworld.api.schemas.keyspaces import show_keyspaces
from homeworld.api.schemas.resizes import show_keyspace_resizes
from homeworld.api.schemas.workflows import show_workflow
from homeworld.api.scopes import Scope
from homeworld.model.webhooks import Subject
from homeworld.store.databases import Database
from homeworld.store.store import Transaction

Shown = Mapping[str, object]
"""A resource in JSON values."""


def _branch(call: Call, branch_id: str) -> Shown:
    return _plain(show_branches(call, [call.tx.branches.get(branch_id)])[0])


def _database(call: Call, _database_id: str) -> Shown:
    return _plain(show_databases(call, [call.database])[0])


def _keyspace(call: Call, keyspace_id: str) -> Shown:
    keyspace = call.tx.keyspaces.get(keyspace_id)
    shown = _plain(show_keyspaces(call, [keyspace])[0])
    return {**shown, "branch_name": call.tx.branches.get(keyspace.branch_id).name}


def _resize(call: Call, resize_id: str) -> Shown:
    resize = call.tx.resizes.get(resize_id)
    shown = _plain(show_keyspace_resizes(call, [resize])[0])
    return {
        **shown,
        "branch_name": call.tx.branches.get(resize.branch_id).name,
        "keyspace_name": call.tx.keyspaces.get(resize.keyspace_id).name,
    }


def _workflow(call: Call, workflow_id: str) -> Shown:
    return _plain(show_workflow(call, call.tx.workflows.get(workflow_id)))


def _plain(shown: BaseModel) -> Shown:
    return shown.model_dump(mode="json")


def _of_branch(tx: Transaction, branch_id: str) -> str:
    return tx.branches.get(branch_id).database_id


def _itself(_tx: Transaction, database_id: str) -> str:
    return database_id


def _of_keyspace(tx: Transaction, keyspace_id: str) -> str:
    return _of_branch(tx, tx.keyspaces.get(keyspace_id).branch_id)


def _of_resize(tx: Transaction, resize_id: str) -> str:
    return _of_branch(tx, tx.resizes.get(resize_id).branch_id)


def _of_workflow(tx: Transaction, workflow_id: str) -> str:
    return tx.workflows.get(workflow_id).database_id


# The outbox's kind of resource to: its type, the database it belongs to, how it is shown.
KINDS: Mapping[str, tuple[str, Callable[[Transaction, str], str], Callable[[Call, str], Shown]]] = {
    "branch": ("Branch", _of_branch, _branch),
    "database": ("Database", _itself, _database),
    "keyspace": ("Keyspace", _of_keyspace, _keyspace),
    "resize": ("KeyspaceResizeRequest", _of_resize, _resize),
    "workflow": ("Workflow", _of_workflow, _workflow),
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
    shown = show(within, resource_id)
    return Subject(within.organization.name, database.name, {"id": shown["id"], "type": named, **shown})
