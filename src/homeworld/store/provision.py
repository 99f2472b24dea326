"""Asking for and asking away whole resources: what belongs together is written together.

Invariants: a database comes with its default branch, and a branch with the keyspaces of its parent; nothing
is asked away while a workflow needs it; what is asked away takes everything below it along, out of the API's
sight at once. Nothing here touches a server: the executor finds the states.
"""

from __future__ import annotations

from homeworld.model.engines import EngineKind
from homeworld.model.errors import InvalidError
from homeworld.model.states.lifecycle import LifeTrigger, life_row
from homeworld.model.topology import Flavor
from homeworld.store.branches import Branch
from homeworld.store.databases import Database
from homeworld.store.keyspaces import Keyspace
from homeworld.store.store import Store, Transaction

DEFAULT_BRANCH = "main"
_BUSY = "workflow {} is not over; cancel or complete it first"


def bootstrap(store: Store, organization: str, region: str, region_name: str) -> None:
    """Make sure that there is an organization and a region to ask for things in. Idempotent.

    :param region: the region's slug.
    """
    with store.write() as tx:
        tx.organizations.ensure(organization)
        tx.regions.ensure(region, display_name=region_name, provider="Homeworld", location=region_name)


def create_database(
    tx: Transaction,
    organization_id: str,
    name: str,
    flavor: Flavor,
    *,
    engine: EngineKind = EngineKind.LOCAL,
    region_id: str | None = None,
    cluster_size: str = "",
    replicas: int = 0,
    notes: str = "",
    actor_id: str | None = None,
) -> Database:
    """A pending database with its production branch ``main`` and a default keyspace of the database's name.

    :raises InvalidError: the name is not valid or taken.
    """
    region_id = region_id or tx.regions.default().id
    database = tx.databases.create(
        organization_id,
        name,
        region_id,
        flavor,
        engine=engine,
        cluster_size=cluster_size,
        replicas=replicas,
        notes=notes,
        actor_id=actor_id,
    )
    branch = tx.branches.create(
        database.id,
        DEFAULT_BRANCH,
        region_id,
        production=True,
        is_default=True,
        cluster_size=cluster_size,
        actor_id=actor_id,
    )
    tx.keyspaces.create(
        branch.id,
        name,
        is_default=True,
        replicas=replicas,
        cluster_size=cluster_size,
        actor_id=actor_id,
    )
    return database


def create_branch(
    tx: Transaction,
    database: Database,
    name: str,
    *,
    parent: Branch | None = None,
    region_id: str | None = None,
    cluster_size: str = "",
    deletion_protected: bool = False,
    actor_id: str | None = None,
) -> Branch:
    """A pending development branch with the keyspaces, replicas, vschemas and routing rules of its parent.

    :param parent: by default the database's default branch.
    :raises InvalidError: the name is not valid or taken.
    """
    parent = parent or tx.branches.default(database.id)
    branch = tx.branches.create(
        database.id,
        name,
        region_id or parent.region_id,
        parent_branch_id=parent.id,
        cluster_size=cluster_size or parent.cluster_size,
        deletion_protected=deletion_protected,
        actor_id=actor_id,
    )
    for keyspace in tx.keyspaces.of_branch(parent.id):
        tx.keyspaces.create(
            branch.id,
            keyspace.name,
            shards=keyspace.shard_count,
            sharded=keyspace.sharded,
            is_default=keyspace.is_default,
            replicas=keyspace.replicas - keyspace.extra_replicas,
            extra_replicas=keyspace.extra_replicas,
            cluster_size=keyspace.cluster_size,
            vschema=keyspace.vschema,
            actor_id=actor_id,
        )
    rules = tx.routes.rules(parent.id)
    if rules:
        tx.routes.replace_rules(branch.id, rules)
    return branch


def delete_database(tx: Transaction, database: Database, *, actor_id: str | None = None) -> None:
    """Ask a database away with all its branches.

    :raises InvalidError: it is protected, or a workflow needs it.
    """
    if database.deletion_protected:
        raise InvalidError("deletion protection is enabled for this database")
    branches = tx.branches.of_database(database.id)
    for workflow in tx.workflows.active_on([branch.id for branch in branches]).values():
        raise InvalidError(_BUSY.format(workflow.number))
    for branch in branches:
        _delete_branch(tx, branch, actor_id)
    tx.webhooks.delete_all(database.id)
    row = life_row(database.state, LifeTrigger.DELETE)
    tx.databases.transition(database.id, database.state, row, actor_id=actor_id)


def family(tx: Transaction, branch: Branch) -> list[Branch]:
    """The branch, the live branches made from it, and those made from them."""
    found = [branch]
    for one in found:
        found.extend(tx.branches.children(one.id))
    return found


def delete_branch(
    tx: Transaction, branch: Branch, *, descendants: bool = False, actor_id: str | None = None
) -> list[Branch]:
    """Ask a branch away with its keyspaces and passwords.

    :param descendants: also the branches made from it, and those made from them.
    :returns: all that are asked away.
    :raises InvalidError: it is the default branch, protected, has children, or a workflow needs it.
    """
    doomed = family(tx, branch)
    if len(doomed) > 1 and not descendants:
        children = ", ".join(child.name for child in tx.branches.children(branch.id))
        raise InvalidError(f"branch {branch.name} has child branches: {children}")
    for one in doomed:
        if one.is_default:
            raise InvalidError("the default branch cannot be deleted")
        if one.deletion_protected:
            raise InvalidError(f"deletion protection is enabled for branch {one.name}")
    for workflow in tx.workflows.active_on([one.id for one in doomed]).values():
        raise InvalidError(_BUSY.format(workflow.number))
    for one in doomed:
        _delete_branch(tx, one, actor_id)
    return doomed


def _delete_branch(tx: Transaction, branch: Branch, actor_id: str | None) -> None:
    for keyspace in tx.keyspaces.of_branch(branch.id):
        _delete_keyspace(tx, keyspace, actor_id)
    tx.passwords.delete_all(branch.id)
    row = life_row(branch.state, LifeTrigger.DELETE)
    tx.branches.transition(branch.id, branch.state, row, actor_id=actor_id)


def delete_keyspace(tx: Transaction, keyspace: Keyspace, *, actor_id: str | None = None) -> None:
    """Ask a keyspace away with its tables.

    :raises InvalidError: it is the default keyspace, a routing rule leads to it, or a workflow needs it.
    """
    if keyspace.is_default:
        raise InvalidError("the default keyspace cannot be deleted")
    active = tx.workflows.active_on([keyspace.branch_id]).get(keyspace.branch_id)
    if active is not None and keyspace.id in {
        active.source_keyspace_id,
        active.target_keyspace_id,
        active.global_keyspace_id,
    }:
        raise InvalidError(_BUSY.format(active.number))
    for source, target in tx.routes.rules(keyspace.branch_id).items():
        if target.split(".", 1)[0] == keyspace.name:
            raise InvalidError(f"a routing rule leads from {source} to {target}")
    _delete_keyspace(tx, keyspace, actor_id)


def _delete_keyspace(tx: Transaction, keyspace: Keyspace, actor_id: str | None) -> None:
    row = life_row(keyspace.state, LifeTrigger.DELETE)
    tx.keyspaces.transition(keyspace.id, keyspace.state, row, actor_id=actor_id)
