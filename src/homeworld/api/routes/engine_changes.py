"""Taking a running database over into another engine. homeworld's own.

Invariant: a change is asked for in one transaction with its audit entry; everything else is the executor's.
"""

from __future__ import annotations

from collections.abc import Mapping

from homeworld.api.calls import ApiDep, CallerDep, Id, InDatabase
from homeworld.api.listing import Routes
from homeworld.api.schemas.engine_changes import AskEngineChange, EngineChangeOut, show_engine_change
from homeworld.model.engines import EngineKind, refusal
from homeworld.model.errors import InvalidError

router = Routes(tags=["Databases"])

_ALL = "/organizations/{organization}/databases/{database}/engine-changes"


@router.post(_ALL, operation_id="create_engine_change", status_code=201)
def create_engine_change(
    api: ApiDep, caller: CallerDep, path: InDatabase, body: AskEngineChange
) -> EngineChangeOut:
    """Ask for a running database to be taken into Vitess, in place: no row moves, and clients wait for a
    moment instead of failing. Poll it until it is completed. This is homeworld's own.
    """
    with api.read(caller, "create_engine_change", path):
        pass  # nobody else learns what is installed here
    wanted = body.engine is EngineKind.VITESS
    missing: Mapping[EngineKind, str] = api.settings.missing_engines() if wanted else {}
    with api.write(caller, "create_engine_change", path) as call:
        database = call.database
        if body.engine is database.engine:
            raise InvalidError(f"database {database.name} is {body.engine} already")
        if body.engine is not EngineKind.VITESS or database.engine is not EngineKind.LOCAL:
            raise InvalidError(
                f"a database goes from local to vitess only, not to {body.engine}; make one of that engine "
                "and copy the data"
            )
        if why := refusal(body.engine, database.flavor, missing):
            raise InvalidError(why)
        if why := call.tx.engine_changes.in_the_way(database.id):
            raise InvalidError(f"{why}; ask again when that is over")
        change = call.tx.engine_changes.ask(database.id, body.engine, actor_id=call.actor_id)
        call.audit(
            "database.engine_change_requested", "database", database.id, database.name, engine=body.engine
        )
        return show_engine_change(change)


@router.get(_ALL + "/{id}", operation_id="get_engine_change")
def get_engine_change(api: ApiDep, caller: CallerDep, path: InDatabase, change_id: Id) -> EngineChangeOut:
    """How a change of engine goes. This is homeworld's own."""
    with api.read(caller, "get_engine_change", path) as call:
        return show_engine_change(call.tx.engine_changes.of_database(call.database.id, change_id))
