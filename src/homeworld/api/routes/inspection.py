"""What a branch's servers tell: schemas, differences, faults, connections, infrastructure.

Servers are asked through the settings' Inspection port, between transactions and never in one. What people
may end is their own: connections of gateways' accounts, by what they were seen to be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Query
from fastapi.responses import JSONResponse

from homeworld.api.calls import Api, ApiDep, Call, Caller, CallerDep, InBranch, Path
from homeworld.api.errors import described
from homeworld.api.listing import Routes
from homeworld.api.pages import Listing, PageDep, listing
from homeworld.api.routes.databases import checked_term
from homeworld.api.schemas.inspection import (
    ActionAnswer,
    ActionOut,
    ConnectionsOut,
    DefinitionsOut,
    FaultOut,
    InfrastructureOut,
    InstanceOut,
    KillProcess,
    PodOut,
    ProcesslistAnswer,
    ProcesslistOut,
    TopologyOut,
    connection_id,
    digest,
    query_id,
    show_connection,
    show_definitions,
    show_differences,
    show_process,
    transaction_id,
)
from homeworld.model import vschema
from homeworld.model.errors import ForbiddenError, InvalidError, NotFoundError, UnavailableError
from homeworld.model.inspection import Definition, ServerConnection
from homeworld.model.states.lifecycle import Life
from homeworld.model.topology import TabletType
from homeworld.schema.lint import lint
from homeworld.schema.texts import differences
from homeworld.store.gateways import MEMBER
from homeworld.store.keyspaces import Keyspace, Shard
from homeworld.store.pages import Page

router = Routes(tags=["Database branches"])

_BRANCH = "/organizations/{organization}/databases/{database}/branches/{branch}"
_CONNECTIONS = _BRANCH + "/connections"
_WARMING_SECONDS = "1"
KeyspaceQuery = Annotated[str, Query(description="Which keyspace; needed where there are several")]
ShardQuery = Annotated[str, Query(description="Which shard; needed where there are several")]


# -- schemas -------------------------------------------------------------------------------------------------


@router.get(_BRANCH + "/schema", operation_id="get_branch_schema")
def get_branch_schema(
    api: ApiDep, caller: CallerDep, path: InBranch, keyspace: KeyspaceQuery = "", namespace: str = ""
) -> DefinitionsOut:
    """The definitions of the branch's tables and views, as its servers show them."""
    if namespace:
        raise InvalidError("namespaces are of PostgreSQL; name a keyspace")
    with api.read(caller, "get_branch_schema", path) as call:
        asked = _keyspaces(call, call.branch.id, checked_term(keyspace, "keyspace"))
    return show_definitions(_definitions(api, asked))


@router.get(_BRANCH + "/diff", operation_id="get_branch_diff")
def get_branch_diff(api: ApiDep, caller: CallerDep, path: InBranch) -> DefinitionsOut:
    """What the branch's definitions have that its parent's have not (``+``), and the other way (``-``)."""
    with api.read(caller, "get_branch_diff", path) as call:
        parent_id = call.branch.parent_branch_id
        parent = call.tx.branches.get(parent_id) if parent_id else None
        if parent is None or parent.deleted_at is not None:
            raise InvalidError(f"branch {call.branch.name} has no parent branch to compare it with")
        theirs = _keyspaces(call, parent.id)
        ours = _keyspaces(call, call.branch.id)
    before, after = _by_keyspace(_definitions(api, theirs)), _by_keyspace(_definitions(api, ours))
    found = {
        (name, table): text
        for name in {*before, *after}
        for table, text in differences(before.get(name, {}), after.get(name, {})).items()
    }
    return show_differences(found)


@router.post(_BRANCH + "/refresh-schema", operation_id="refresh_branch_schema", status_code=204)
def refresh_branch_schema(api: ApiDep, caller: CallerDep, path: InBranch) -> None:
    """Read the schemas of the branch's servers now; where they have changed since, the branch says when."""
    with api.read(caller, "refresh_branch_schema", path) as call:
        asked = _keyspaces(call, call.branch.id)
    definitions = _definitions(api, asked)
    now = digest(definitions)
    with api.write(caller, "refresh_branch_schema", path) as call:
        branch = call.branch
        if branch.schema_digest != now:
            tables = sum(not one.view for one in definitions)
            call.tx.branches.update(
                branch.id, schema_digest=now, table_count=tables, schema_last_updated_at=call.now
            )
        call.audit("branch.schema_refreshed", "branch", branch.id, branch.name)


@router.get(_BRANCH + "/schema/lint", operation_id="lint_branch_schema")
def lint_branch_schema(api: ApiDep, caller: CallerDep, path: InBranch, page: PageDep) -> Listing[FaultOut]:
    """What is wrong with the branch's tables, or with what its vschemas say of them."""
    with api.read(caller, "lint_branch_schema", path) as call:
        asked = _keyspaces(call, call.branch.id)
        foreign_keys = call.database.foreign_keys_enabled
    faults = [
        fault
        for keyspace in asked
        for fault in lint(
            api.settings.inspection.facts(keyspace.id),
            vschema.parse(keyspace.vschema),
            keyspace=keyspace.name,
            foreign_keys=foreign_keys,
        )
    ]
    first = (page.number - 1) * page.size
    shown = faults[first : first + page.size]
    found = Page(tuple(shown), page.number, page.size, has_next=len(faults) > first + page.size)
    return listing(caller, found, [FaultOut.of(fault) for fault in shown])


def _keyspaces(call: Call, branch_id: str, name: str = "") -> list[Keyspace]:
    """The branch's keyspaces, or the one of that name.

    :raises NotFoundError: there is none of that name.
    :raises UnavailableError: one is not ready yet.
    """
    found = [call.tx.keyspaces.by_name(branch_id, name)] if name else call.tx.keyspaces.of_branch(branch_id)
    for keyspace in found:
        if keyspace.state is not Life.READY:
            raise UnavailableError(f"keyspace {keyspace.name} is not ready yet")
    return list(found)


def _definitions(api: Api, keyspaces: list[Keyspace]) -> list[Definition]:
    return [one for keyspace in keyspaces for one in api.settings.inspection.definitions(keyspace.id)]


def _by_keyspace(definitions: list[Definition]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for one in definitions:
        found.setdefault(one.keyspace, {})[one.name] = one.sql
    return found


# -- connections ---------------------------------------------------------------------------------------------


class _AmbiguousError(InvalidError):
    """Several could be meant.

    :param available: ``keyspaces`` or ``shards``, and their names.
    """

    def __init__(self, message: str, **available: list[str]) -> None:
        super().__init__(message)
        self.available = available


Ended = Literal["connection", "query", "transaction"]
_IDS: Mapping[Ended, Callable[[str, ServerConnection], str | None]] = {
    "connection": connection_id,
    "query": query_id,
    "transaction": transaction_id,
}


@dataclass(frozen=True, slots=True)
class _Target:
    """A shard's primary."""

    keyspace: str
    shard: str
    server_id: str


def _target(call: Call, keyspace: str, shard: str) -> _Target:
    """The shard that is meant.

    :raises InvalidError: none of that name, or several could be meant.
    :raises UnavailableError: it has no server yet.
    """
    keyspaces = {one.name: one for one in call.tx.keyspaces.of_branch(call.branch.id)}
    names = sorted(keyspaces)
    if keyspace and keyspace not in keyspaces:
        raise _AmbiguousError(f"keyspace {keyspace} does not exist", keyspaces=names)
    if not keyspace and len(names) != 1:
        raise _AmbiguousError("there are several keyspaces; name one", keyspaces=names)
    chosen = keyspaces[keyspace or names[0]]
    shards = {one.name: one for one in call.tx.keyspaces.shards(chosen.id)}
    if shard and shard not in shards:
        raise _AmbiguousError(f"keyspace {chosen.name} has no shard {shard}", shards=list(shards))
    if not shard and len(shards) != 1:
        raise _AmbiguousError(f"keyspace {chosen.name} has several shards; name one", shards=list(shards))
    found: Shard = shards[shard or next(iter(shards))]
    if chosen.state is not Life.READY or found.primary_server_id is None:
        raise UnavailableError(f"keyspace {chosen.name} is not ready yet")
    return _Target(chosen.name, found.name, found.primary_server_id)


def _answered(ask: Callable[[], ConnectionsOut]) -> ConnectionsOut | JSONResponse:
    """The answer; with names where several could be meant; with a time where it is not ready."""
    try:
        return ask()
    except _AmbiguousError as error:
        told = {"code": error.code, "message": error.message, "available": error.available}
        return JSONResponse(told, error.http_status)
    except UnavailableError as error:
        told = {"code": error.code, "message": error.message}
        return JSONResponse(told, error.http_status, {"Retry-After": _WARMING_SECONDS})


@router.get(
    _CONNECTIONS,
    operation_id="list_branch_connections",
    response_model=ConnectionsOut,
    responses={503: described("Not ready yet; Retry-After says when to ask again")},
)
def list_branch_connections(
    api: ApiDep, caller: CallerDep, path: InBranch, keyspace: KeyspaceQuery = "", shard: ShardQuery = ""
) -> ConnectionsOut | JSONResponse:
    """The connections of a shard's primary."""

    def ask() -> ConnectionsOut:
        with api.read(caller, "list_branch_connections", path) as call:
            target = _target(call, keyspace, shard)
            now = call.now
        instance = InstanceOut(id=target.server_id, role="primary")
        seen: list[ServerConnection] = []
        try:
            seen = list(api.settings.inspection.connections(target.server_id))
        except UnavailableError as error:
            instance.error = error.message
        return ConnectionsOut(
            captured_at=now,
            instances=[instance],
            topology=TopologyOut(keyspace=target.keyspace, shard=target.shard, tablet=target.server_id),
            data=[show_connection(target.server_id, one, now) for one in seen],
        )

    return _answered(ask)


@router.delete(_CONNECTIONS + "/{kind}/{id}", operation_id="end_branch_connection")
def end_branch_connection(
    api: ApiDep,
    caller: CallerDep,
    path: InBranch,
    kind: Ended,
    id: str,  # noqa: A002 - the path parameter's name
    keyspace: str = "",
    shard: str = "",
) -> ActionOut:
    """End a connection whatever it is at (``connection``), if it is still in that transaction
    (``transaction``), or only the statement that it is at, if it still is (``query``).
    """
    return _end(api, caller, path, "end_branch_connection", keyspace, shard, _IDS[kind], id, kind)


@router.get(_BRANCH + "/processlist", operation_id="get_branch_processlist")
def get_branch_processlist(
    api: ApiDep, caller: CallerDep, path: InBranch, keyspace: KeyspaceQuery = "", shard: ShardQuery = ""
) -> ProcesslistAnswer:
    """The process list of a shard's primary."""
    with api.read(caller, "get_branch_processlist", path) as call:
        target = _target(call, keyspace, shard)
    seen = api.settings.inspection.connections(target.server_id)
    return ProcesslistAnswer(
        data=ProcesslistOut(
            keyspace=target.keyspace,
            shard=target.shard,
            tablet=target.server_id,
            processes=[show_process(one) for one in seen],
        )
    )


@router.post(_BRANCH + "/processlist/kill", operation_id="kill_branch_process")
def kill_branch_process(api: ApiDep, caller: CallerDep, path: InBranch, body: KillProcess) -> ActionAnswer:
    """End a connection, or the statement that it is at, by its number."""

    def numbered(_server_id: str, one: ServerConnection) -> str:
        return str(one.number)

    done = _end(
        api, caller, path, "kill_branch_process", body.keyspace, body.shard, numbered, str(body.id), body.kind
    )
    return ActionAnswer(data=done)


def _end(
    api: Api,
    caller: Caller,
    path: Path,
    operation: str,
    keyspace: str,
    shard: str,
    id_of: Callable[[str, ServerConnection], str | None],
    wanted: str,
    kind: Ended,
) -> ActionOut:
    """End what has the id, if it is still there and somebody's own.

    :raises NotFoundError: it is not there (any more).
    :raises ForbiddenError: it is homeworld's own.
    """
    inspection = api.settings.inspection

    def found() -> ServerConnection:
        seen = inspection.connections(target.server_id)
        one = next((one for one in seen if id_of(target.server_id, one) == wanted), None)
        if one is None:
            raise NotFoundError(f"there is no such {kind} any more; list the connections again")
        if one.ours:
            raise ForbiddenError(f"connection {one.number} is homeworld's own")
        return one

    with api.read(caller, operation, path) as call:
        target = _target(call, keyspace, shard) if keyspace or "-" not in wanted else _named_by(call, wanted)
    one = found()
    with api.write(caller, operation, path) as call:
        # Written before it is done: what dies in between has told of more than it did, never of less.
        call.audit(
            f"branch.{kind}_killed",
            "branch",
            call.branch.id,
            call.branch.name,
            server=target.server_id,
            connection=one.number,
        )
    # A gateway's connection may be at another client's statement by now: the entry has waited for its turn.
    found()
    inspection.kill(target.server_id, one.number, query=kind == "query")
    return ActionOut(
        keyspace=target.keyspace, shard=target.shard, tablet=target.server_id, id=one.number, kind=kind
    )


def _named_by(call: Call, wanted: str) -> _Target:
    """The shard whose primary an id names.

    :raises NotFoundError: none of this branch.
    """
    server_id = wanted.partition("-")[0]
    keyspaces = {one.id: one.name for one in call.tx.keyspaces.of_branch(call.branch.id)}
    for shard in call.tx.keyspaces.shards_of(list(keyspaces)):
        if shard.primary_server_id == server_id:
            return _Target(keyspaces[shard.keyspace_id], shard.name, server_id)
    raise NotFoundError


# -- infrastructure ------------------------------------------------------------------------------------------


@router.get(_BRANCH + "/infrastructure", operation_id="get_branch_infrastructure")
def get_branch_infrastructure(api: ApiDep, caller: CallerDep, path: InBranch) -> InfrastructureOut:
    """Every process that serves the branch: its servers, from each shard's view, and the gateways."""
    with api.read(caller, "get_branch_infrastructure", path) as call:
        branch = call.branch
        keyspaces = {one.id: one for one in call.tx.keyspaces.of_branch(branch.id)}
        shards = call.tx.keyspaces.shards_of(list(keyspaces))
        servers = {one.id: one for one in call.tx.servers.of_branch(branch.id)}
        cell = call.tx.regions.by_ids([branch.region_id])[branch.region_id].slug
        gateways = call.tx.gateways.all()
    seen = {server_id: _seen(api, server_id) for server_id in servers}
    pods: list[PodOut] = []
    for shard in shards:
        keyspace = keyspaces[shard.keyspace_id]
        for server_id in (shard.primary_server_id, *shard.replica_server_ids):
            if server_id is None or server_id not in servers:
                continue
            ready, restarts = seen[server_id]
            pods.append(
                PodOut(
                    name=server_id,
                    status="Running" if ready else "Pending",
                    component="vttablet",
                    ready="1/1" if ready else "0/1",
                    restart_count=restarts,
                    created_at=servers[server_id].created_at,
                    cell=cell,
                    size=keyspace.cluster_size,
                    keyspace=keyspace.name,
                    shard=shard.name,
                    tablet_type=TabletType.PRIMARY
                    if server_id == shard.primary_server_id
                    else TabletType.REPLICA,
                )
            )
    pods += [
        PodOut(
            name=gateway.id,
            status="Running" if gateway.state == MEMBER else "Pending",
            component="vtgate",
            ready="1/1" if gateway.state == MEMBER else "0/1",
            restart_count=0,
            created_at=gateway.entered_at,
            cell=cell,
            size=branch.gateway_size,
        )
        for gateway in gateways
    ]
    ready = branch.state is Life.READY and all(each for each, _ in seen.values())
    return InfrastructureOut(ready=ready, pods=pods)


def _seen(api: Api, server_id: str) -> tuple[bool, int]:
    """Whether a server accepts and, as a replica, follows; and how often it was started again."""
    try:
        status = api.settings.inspection.status(server_id)
        return status.accepting and not status.replication_error, api.settings.inspection.restarts(server_id)
    except (NotFoundError, UnavailableError):
        return False, 0  # it is only being made
