"""Who a shard's primary is, and asking for another one: reparents, servers by alias, shard records.

Invariant: a reparent is asked for in one transaction with its audit entry; everything else is the executor's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query

from homeworld.api.calls import Api, ApiDep, Call, Caller, CallerDep, Id, InBranch, Path
from homeworld.api.listing import Routes
from homeworld.api.schemas.reparents import (
    AliasOut,
    AskReparent,
    EnvelopedOut,
    KeyRangeOut,
    RefreshedOut,
    RefreshShard,
    ReparentOut,
    ShardOut,
    ShardRecordOut,
    TabletGroupOut,
    TabletOut,
    alias_of,
    show_reparent,
)
from homeworld.model.errors import InvalidError, NotFoundError, UnavailableError
from homeworld.model.ports import ServerStatus
from homeworld.model.states.lifecycle import Life
from homeworld.model.topology import TabletType
from homeworld.store.branches import Server
from homeworld.store.keyspaces import Keyspace, Shard
from homeworld.store.reparents import ReparentRecord

router = Routes(tags=["vtctld"])

BRANCH = "/organizations/{organization}/databases/{database}/branches/{branch}"
_PLANNED = BRANCH + "/planned-reparent"
_SHARD = BRANCH + "/vtctld/shard"
_TYPES = (TabletType.PRIMARY, TabletType.REPLICA, TabletType.RDONLY)


def cell_of(call: Call) -> str:
    """The branch's cell: its region."""
    return call.tx.regions.by_ids([call.branch.region_id])[call.branch.region_id].slug


def shard_named(call: Call, keyspace: str, shard: str) -> tuple[Keyspace, Shard]:
    """The branch's shard of these names.

    :raises NotFoundError: there is none; the message says which there are.
    """
    keyspaces = {one.name: one for one in call.tx.keyspaces.of_branch(call.branch.id)}
    found = keyspaces.get(keyspace)
    if found is None:
        raise NotFoundError(f"there is no keyspace {keyspace}; there are {', '.join(sorted(keyspaces))}")
    shards = {one.name: one for one in call.tx.keyspaces.shards(found.id)}
    if shard not in shards:
        raise NotFoundError(f"keyspace {keyspace} has no shard {shard}; it has {', '.join(shards)}")
    return found, shards[shard]


def server_named(call: Call, alias: str) -> Server:
    """The branch's server of that alias.

    :raises NotFoundError: there is none.
    """
    cell, _, server_id = alias.strip().rpartition("-")
    for server in call.tx.servers.of_branch(call.branch.id):
        if server.id == server_id and cell in ("", cell_of(call)):
            return server
    raise NotFoundError(
        f"there is no tablet {alias} on branch {call.branch.name}; list-tablets says which are"
    )


@router.post(_PLANNED, operation_id="create_planned_reparent", status_code=201)
def create_planned_reparent(api: ApiDep, caller: CallerDep, path: InBranch, body: AskReparent) -> ReparentOut:
    """Ask for another primary of a shard, without losing anything or failing a client. All shards on the same
    server get it. Poll it until it is completed.
    """
    return _ask(api, caller, path, "create_planned_reparent", body, emergency=False)


@router.post(BRANCH + "/emergency-reparent", operation_id="create_emergency_reparent", status_code=201)
def create_emergency_reparent(
    api: ApiDep, caller: CallerDep, path: InBranch, body: AskReparent
) -> ReparentOut:
    """Ask for another primary of a shard whose primary is dead or hangs: it is killed where it does not
    answer, and what it had not sent to any replica is lost. Poll it as a planned one. This is homeworld's
    own.
    """
    return _ask(api, caller, path, "create_emergency_reparent", body, emergency=True)


def _ask(
    api: Api, caller: Caller, path: Path, operation: str, body: AskReparent, *, emergency: bool
) -> ReparentOut:
    with api.write(caller, operation, path) as call:
        call.require_own_servers("primaries are chosen")
        keyspace, shard = shard_named(call, body.keyspace, body.shard)
        if keyspace.state is not Life.READY or shard.primary_server_id is None:
            raise InvalidError(f"keyspace {keyspace.name} is not ready yet")
        heir = _heir(call, shard, body.new_primary)
        why = "" if emergency else call.tx.reparents.in_the_way(call.branch.id)
        if why:
            raise InvalidError(f"{why}; ask again when that is over")
        reparent = call.tx.reparents.ask(
            call.branch.id, shard, heir=heir, emergency=emergency, actor_id=call.actor_id
        )
        call.audit(
            "branch.emergency_reparent_requested" if emergency else "branch.planned_reparent_requested",
            "branch",
            call.branch.id,
            call.branch.name,
            keyspace=keyspace.name,
            shard=shard.name,
            former=shard.primary_server_id,
            new_primary=heir or "",
        )
        return show_reparent(call, reparent, cell_of(call))


def _heir(call: Call, shard: Shard, alias: str | None) -> str | None:
    """The replica that is asked for; the primary itself, for whoever asks twice."""
    if alias is None:
        if not shard.replica_server_ids:
            raise InvalidError(
                f"shard {shard.name} has no replica that could take over; resize the keyspace with "
                "extra_replicas to have one"
            )
        return None
    server = server_named(call, alias)
    if server.id not in (shard.primary_server_id, *shard.replica_server_ids):
        raise InvalidError(
            f"tablet {alias} cannot take over shard {shard.name}: "
            + (server.barred or "it is no replica of the shard's primary")
        )
    return server.id


@router.get(_PLANNED + "/{id}", operation_id="get_planned_reparent")
def get_planned_reparent(api: ApiDep, caller: CallerDep, path: InBranch, reparent_id: Id) -> ReparentOut:
    """How a reparent goes, planned or in an emergency."""
    with api.read(caller, "get_planned_reparent", path) as call:
        found: ReparentRecord = call.tx.reparents.of_branch(call.branch.id, reparent_id)
        return show_reparent(call, found, cell_of(call))


# -- servers -------------------------------------------------------------------------------------------------


@router.get(BRANCH + "/tablets", operation_id="list_branch_tablets")
def list_branch_tablets(
    api: ApiDep,
    caller: CallerDep,
    path: InBranch,
    keyspace: Annotated[str, Query(max_length=255)] = "",
    shard: Annotated[str, Query(max_length=255, description="Needs keyspace")] = "",
    tablet_type: Annotated[str, Query(max_length=255, description="primary or replica")] = "",
    tablet_alias: Annotated[
        str, Query(max_length=2000, description="Aliases with commas between; the others do not count then")
    ] = "",
) -> list[TabletGroupOut]:
    """The branch's servers by keyspace, shard and type; one that has several shards is told with each."""
    aliases = {alias.strip() for alias in tablet_alias.split(",") if alias.strip()}
    wanted_type = tablet_type.lower()
    with api.read(caller, "list_branch_tablets", path) as call:
        if shard and not keyspace and not aliases:
            raise InvalidError("shard needs keyspace")
        if wanted_type and wanted_type not in _TYPES:
            raise InvalidError(f"tablet_type is one of {', '.join(_TYPES)}")
        cell = cell_of(call)
        servers = call.tx.servers.of_branch(call.branch.id)
        keyspaces = {one.id: one for one in call.tx.keyspaces.of_branch(call.branch.id)}
        shards = call.tx.keyspaces.shards_of(list(keyspaces))
        chosen = {server_named(call, alias).id for alias in aliases}
        if keyspace and not aliases:
            if shard:
                shard_named(call, keyspace, shard)
            elif keyspace not in {one.name for one in keyspaces.values()}:
                raise NotFoundError(f"there is no keyspace {keyspace}")
    statuses = {server.id: _status(api, server.id) for server in servers}
    groups: list[TabletGroupOut] = []
    for one in shards:
        name = keyspaces[one.keyspace_id].name
        if not aliases and (keyspace not in ("", name) or shard not in ("", one.name)):
            continue
        for kind, members in _members(one, servers):
            shown = [
                _tablet(cell, kind, server, statuses[server.id])
                for server in members
                if (server.id in chosen if aliases else wanted_type in ("", kind))
            ]
            if shown:
                groups.append(TabletGroupOut(type=kind, keyspace=name, shard=one.name, tablets=shown))
    return groups


def _members(shard: Shard, servers: Sequence[Server]) -> list[tuple[TabletType, list[Server]]]:
    by_id = {server.id: server for server in servers}
    primary = by_id.get(shard.primary_server_id or "")
    replicas = [by_id[one] for one in shard.replica_server_ids if one in by_id]
    # Those that may not serve are told, too: somebody has to look at them.
    barred = [one for one in servers if one.barred and primary and one.replica_of == primary.id]
    return [(TabletType.PRIMARY, [primary] if primary else []), (TabletType.REPLICA, [*replicas, *barred])]


def _status(api: Api, server_id: str) -> ServerStatus | None:
    try:
        return api.settings.inspection.status(server_id)
    except (NotFoundError, UnavailableError):
        return None  # it is only being made, or nobody here can ask


def _tablet(cell: str, kind: TabletType, server: Server, status: ServerStatus | None) -> TabletOut:
    error = server.barred
    if not error and (status is None or not status.accepting):
        error = "it does not answer"
    if not error and status is not None:
        error = status.replication_error
    return TabletOut(
        alias=alias_of(cell, server.id),
        role=kind,
        cell=cell,
        serving=not server.barred and status is not None and status.accepting,
        lag_seconds=None if status is None or kind is TabletType.PRIMARY else status.replica_lag_seconds,
        error=error,
    )


# -- shards --------------------------------------------------------------------------------------------------


@router.get(_SHARD, operation_id="get_vtctld_shard")
def get_vtctld_shard(
    api: ApiDep,
    caller: CallerDep,
    path: InBranch,
    keyspace: Annotated[str, Query(max_length=255)] = "",
    shard: Annotated[str, Query(max_length=255)] = "",
) -> EnvelopedOut[ShardOut]:
    """A shard's record."""
    with api.read(caller, "get_vtctld_shard", path) as call:
        if not keyspace or not shard:
            raise InvalidError("name the keyspace and the shard")
        _, found = shard_named(call, keyspace, shard)
        cell = cell_of(call)
        primary = found.primary_server_id
        since = call.tx.reparents.promoted_at(primary) if primary else None
    status = _status(api, primary) if primary else None
    start, dash, end = found.name.partition("-")
    record = ShardRecordOut(
        primary_alias=AliasOut(cell=cell, uid=primary) if primary else None,
        primary_term_start_time=since,
        key_range=KeyRangeOut(start=start, end=end) if dash and (start or end) else None,
        tablet_controls=[],
        is_primary_serving=status is not None and status.accepting,
    )
    return EnvelopedOut(data=ShardOut(keyspace=keyspace, name=found.name, shard=record))


@router.post(_SHARD + "/refresh-state", operation_id="refresh_vtctld_shard_state")
def refresh_vtctld_shard_state(
    api: ApiDep, caller: CallerDep, path: InBranch, body: RefreshShard
) -> EnvelopedOut[RefreshedOut]:
    """Let every gateway read anew where the shard's servers are; returns once those that
    answer have.
    """
    with api.write(caller, "refresh_vtctld_shard_state", path) as call:
        shard_named(call, body.keyspace, body.shard)
        cell = cell_of(call)
        unknown = [one for one in body.cells or () if one != cell]
        if unknown:
            raise InvalidError(f"there is no cell {', '.join(unknown)}; there is {cell}")
        version = call.tx.routes.bump(call.branch.id)
        call.audit(
            "branch.shard_refreshed",
            "branch",
            call.branch.id,
            call.branch.name,
            keyspace=body.keyspace,
            shard=body.shard,
        )
    api.tell_gateways()
    return EnvelopedOut(data=RefreshedOut(routes_version=version))
