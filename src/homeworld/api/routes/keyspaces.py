"""Keyspaces and their vschemas."""

from __future__ import annotations

from homeworld.api.calls import ApiDep, CallerDep, InBranch, InKeyspace
from homeworld.api.listing import Routes
from homeworld.api.pages import Listing, PageDep, listing
from homeworld.api.schemas.keyspaces import (
    CreateKeyspace,
    KeyspaceOut,
    RawOut,
    UpdateKeyspace,
    UpdateVSchema,
    show_keyspaces,
)
from homeworld.model import vschema
from homeworld.model.sizes import checked_size
from homeworld.store import provision
from homeworld.store.keyspaces import KeyspaceFields
from homeworld.store.vschemas import judge_vschema, replace_vschema

router = Routes(tags=["Database branch keyspaces"])

_ALL = "/organizations/{organization}/databases/{database}/branches/{branch}/keyspaces"
_ONE = _ALL + "/{keyspace}"


@router.get(_ALL, operation_id="list_keyspaces")
def list_keyspaces(api: ApiDep, caller: CallerDep, path: InBranch, page: PageDep) -> Listing[KeyspaceOut]:
    """The branch's keyspaces, by name."""
    with api.read(caller, "list_keyspaces", path) as call:
        found = call.tx.keyspaces.page(call.branch.id, page)
        return listing(caller, found, show_keyspaces(call, found.items))


@router.post(_ALL, operation_id="create_keyspace")
def create_keyspace(api: ApiDep, caller: CallerDep, path: InBranch, body: CreateKeyspace) -> KeyspaceOut:
    """Ask for a keyspace; more than one shard makes it a sharded one."""
    with api.write(caller, "create_keyspace", path) as call:
        call.require_own_servers("keyspaces are made")
        keyspace = call.tx.keyspaces.create(
            call.branch.id,
            body.name,
            shards=body.shards,
            replicas=call.database.replicas,
            extra_replicas=body.extra_replicas,
            cluster_size=checked_size(body.cluster_size, call.branch.cluster_size),
            actor_id=call.actor_id,
        )
        call.audit("keyspace.created", "keyspace", keyspace.id, keyspace.name)
        return show_keyspaces(call, [keyspace])[0]


@router.get(_ONE, operation_id="get_keyspace")
def get_keyspace(api: ApiDep, caller: CallerDep, path: InKeyspace) -> KeyspaceOut:
    """A keyspace."""
    with api.read(caller, "get_keyspace", path) as call:
        return show_keyspaces(call, [call.keyspace])[0]


@router.patch(_ONE, operation_id="update_keyspace")
def update_keyspace(api: ApiDep, caller: CallerDep, path: InKeyspace, body: UpdateKeyspace) -> KeyspaceOut:
    """Change a keyspace's settings."""
    fields = KeyspaceFields()
    if body.replication_durability_constraints is not None:
        fields["durability_strategy"] = body.replication_durability_constraints.strategy
    if body.vreplication_flags is not None:
        flags = body.vreplication_flags.model_dump(exclude_none=True)
        fields.update(KeyspaceFields(**flags))
    with api.write(caller, "update_keyspace", path) as call:
        keyspace = call.tx.keyspaces.update(call.keyspace.id, **fields) if fields else call.keyspace
        call.audit("keyspace.updated", "keyspace", keyspace.id, keyspace.name, fields=dict(fields))
        return show_keyspaces(call, [keyspace])[0]


@router.delete(_ONE, operation_id="delete_keyspace", status_code=204)
def delete_keyspace(api: ApiDep, caller: CallerDep, path: InKeyspace) -> None:
    """Ask a keyspace away with its tables."""
    with api.write(caller, "delete_keyspace", path) as call:
        call.require_own_servers("keyspaces are dropped")
        provision.delete_keyspace(call.tx, call.keyspace, actor_id=call.actor_id)
        call.audit("keyspace.deleted", "keyspace", call.keyspace.id, call.keyspace.name)
    api.tell_gateways()


@router.get(_ONE + "/vschema", operation_id="get_keyspace_vschema", tags=["Keyspace VSchemas"])
def get_keyspace_vschema(api: ApiDep, caller: CallerDep, path: InKeyspace) -> RawOut:
    """The keyspace's vschema as JSON text."""
    with api.read(caller, "get_keyspace_vschema", path) as call:
        return RawOut.of(call.keyspace.vschema)


@router.patch(_ONE + "/vschema", operation_id="update_keyspace_vschema", tags=["Keyspace VSchemas"])
def update_keyspace_vschema(api: ApiDep, caller: CallerDep, path: InKeyspace, body: UpdateVSchema) -> RawOut:
    """Replace the keyspace's vschema; refused where the gateway could not honour it, or would look for rows
    that are there on other shards.
    """
    parsed = vschema.parse(body.vschema)
    with api.read(caller, "update_keyspace_vschema", path) as call:
        judged = judge_vschema(call.tx, call.keyspace, parsed)
    api.settings.placements.check(judged.keyspace_id, judged.wanted.render())
    still = api.settings.placements.still(judged.keyspace_id, judged.tables)
    with still, api.write(caller, "update_keyspace_vschema", path) as call:
        keyspace = call.keyspace
        changed = replace_vschema(call.tx, keyspace, judged)
        call.audit("keyspace.vschema_updated", "keyspace", keyspace.id, keyspace.name)
        shown = RawOut.of(changed.vschema)
    api.tell_gateways()
    return shown
