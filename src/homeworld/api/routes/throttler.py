"""How work gives way to others: the published ratios of a database, and the limits of one workflow.

The second is homeworld's own. Both are only stored here; the executor tells movers within a second or so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from homeworld.api.calls import ApiDep, Call, CallerDep, InDatabase
from homeworld.api.listing import Routes
from homeworld.api.routes.workflows import numbered
from homeworld.api.schemas.throttler import (
    LimitsOut,
    ThrottlerOut,
    UpdateLimits,
    UpdateThrottler,
    show_limits,
    show_throttler,
)
from homeworld.model.errors import InvalidError
from homeworld.model.throttling import UNTIL, limits_between, throttle_of
from homeworld.store.workflows import Workflow

router = Routes()

_DATABASE = "/organizations/{organization}/databases/{database}/throttler"
_WORKFLOW = "/organizations/{organization}/databases/{database}/workflows/{number}/throttler"


@router.get(_DATABASE, operation_id="get_database_throttler", tags=["Databases"])
def get_database_throttler(api: ApiDep, caller: CallerDep, path: InDatabase) -> ThrottlerOut:
    """The share of the time for which work on each keyspace rests."""
    with api.read(caller, "get_database_throttler", path) as call:
        return show_throttler(call, _keyspaces(call))


@router.patch(_DATABASE, operation_id="update_database_throttler", tags=["Databases"])
def update_database_throttler(
    api: ApiDep, caller: CallerDep, path: InDatabase, body: UpdateThrottler
) -> ThrottlerOut:
    """Change it for all keyspaces, or for those that are named."""
    with api.write(caller, "update_database_throttler", path) as call:
        names = _keyspaces(call)
        ratios = {name: ratio for name, ratio in call.database.throttler_ratios.items() if name in names}
        asked = {} if body.ratio is None else dict.fromkeys(names, body.ratio)
        for one in body.configurations or ():
            if one.keyspace_name not in names:
                raise InvalidError(f"keyspace {one.keyspace_name} does not exist")
            asked[one.keyspace_name] = one.ratio
        ratios |= asked
        configs = {
            name: {key: value for key, value in config.items() if key != UNTIL or name not in asked}
            for name, config in cast("Mapping[str, Any]", call.database.throttler_configs).items()
        }
        call.tx.databases.update(call.database.id, throttler_ratios=ratios, throttler_configs=configs)
        call.audit(
            "database.throttler_updated", "database", call.database.id, call.database.name, ratios=ratios
        )
        return show_throttler(call, names)


@router.get(_WORKFLOW, operation_id="get_workflow_throttler", tags=["Workflows"])
def get_workflow_throttler(api: ApiDep, caller: CallerDep, path: InDatabase, number: int) -> LimitsOut:
    """Above what a workflow gives way."""
    with api.read(caller, "get_workflow_throttler", path) as call:
        return _shown(call, numbered(call, number))


@router.patch(_WORKFLOW, operation_id="update_workflow_throttler", tags=["Workflows"])
def update_workflow_throttler(
    api: ApiDep, caller: CallerDep, path: InDatabase, number: int, body: UpdateLimits
) -> LimitsOut:
    """Change it, in whatever state the workflow is."""
    with api.write(caller, "update_workflow_throttler", path) as call:
        workflow = numbered(call, number)
        limits = {**workflow.limits, **body.changes()}
        workflow = call.tx.workflows.update(workflow.id, limits=limits)
        call.audit("workflow.throttler_updated", "workflow", workflow.id, workflow.name, **limits)
        return _shown(call, workflow)


def _keyspaces(call: Call) -> list[str]:
    """The names of the database's keyspaces, on whatever branch, each once."""
    return list(call.tx.keyspaces.names_in(call.database.id))


def _shown(call: Call, workflow: Workflow) -> LimitsOut:
    keyspaces = call.tx.keyspaces.by_ids((workflow.source_keyspace_id, workflow.target_keyspace_id))
    database = call.database
    sides = [
        throttle_of(one.name, database.throttler_ratios, database.throttler_configs, call.now)
        for one in keyspaces.values()
    ]
    return show_limits(limits_between(workflow.limits, *sides))
