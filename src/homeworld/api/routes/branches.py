"""Branches: list, create, get, change, delete, promote, safe migrations, routing rules."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query

from homeworld.api.calls import Api, ApiDep, Call, Caller, CallerDep, InBranch, InDatabase, Path
from homeworld.api.listing import Routes
from homeworld.api.pages import CountedListing, PageDep, counted_listing
from homeworld.api.routes.databases import checked_term, engine_for, refuse_postgresql, region_named
from homeworld.api.schemas.branches import (
    BranchOut,
    CreateBranch,
    UpdateBranch,
    UpdateCluster,
    UpdateSafeMigrations,
    show_branches,
)
from homeworld.api.schemas.keyspaces import RawOut, UpdateRoutingRules
from homeworld.model import routing_rules
from homeworld.model.errors import InvalidError, NotFoundError
from homeworld.model.sizes import checked_size
from homeworld.store import provision
from homeworld.store.branches import BranchFields
from homeworld.store.databases import Database

router = Routes(tags=["Database branches"])

_ALL = "/organizations/{organization}/databases/{database}/branches"
_ONE = _ALL + "/{branch}"


@router.get(_ALL, operation_id="list_branches")
def list_branches(
    api: ApiDep,
    caller: CallerDep,
    path: InDatabase,
    page: PageDep,
    q: Annotated[str, Query()] = "",
    production: Annotated[bool | None, Query()] = None,
    safe_migrations: Annotated[bool | None, Query()] = None,
    order: Annotated[Literal["asc", "desc", ""], Query(description="By the time of their creation")] = "",
) -> CountedListing[BranchOut]:
    """The database's branches, by name unless another order is asked for."""
    with api.read(caller, "list_branches", path) as call:
        found = call.tx.branches.page(
            call.database.id,
            page,
            checked_term(q),
            production=production,
            safe_migrations=safe_migrations,
            order=order,
        )
        return counted_listing(caller, found, show_branches(call, found.items))


@router.post(_ALL, operation_id="create_branch", status_code=201)
def create_branch(api: ApiDep, caller: CallerDep, path: InDatabase, body: CreateBranch) -> BranchOut:
    """Ask for a development branch with the keyspaces of its parent."""
    if body.backup_id or body.restore_point or body.seed_data:
        raise InvalidError("there are no backups here to make a branch from")
    if body.kind != "mysql":
        raise InvalidError("only branches of kind mysql can be created here")
    if body.keyspace_cluster_sizes:
        raise InvalidError(
            "keyspace_cluster_sizes goes with a backup; resize the branch's keyspaces once it is ready"
        )
    refuse_postgresql(body.major_version, body.storage)
    if body.create_database_if_missing and _is_missing(api, caller, path):
        # One transaction: what is wrong with the branch leaves no database behind.
        with api.write(caller, "create_database", Path(path.organization)) as call:
            call.database_ = _create_database(call, path.database or "", body)
            if body.name == provision.DEFAULT_BRANCH:
                return show_branches(call, [call.tx.branches.default(call.database.id)])[0]
            return _create(call, body)
    with api.write(caller, "create_branch", path) as call:
        call.require_own_servers("other branches are other clusters, which are made")
        return _create(call, body)


def _create(call: Call, body: CreateBranch) -> BranchOut:
    parent = None
    if body.parent_branch:
        try:
            parent = call.tx.branches.named(call.database.id, body.parent_branch)
        except NotFoundError:
            raise InvalidError(f"parent branch {body.parent_branch} does not exist") from None
    branch = provision.create_branch(
        call.tx,
        call.database,
        body.name,
        parent=parent,
        region_id=_region_id(call, body.region),
        cluster_size=checked_size(body.cluster_size, ""),
        deletion_protected=body.deletion_protected,
        actor_id=call.actor_id,
    )
    call.audit("branch.created", "branch", branch.id, branch.name)
    return show_branches(call, [branch])[0]


def _is_missing(api: Api, caller: Caller, path: Path) -> bool:
    """Whether there is no database of that name."""
    try:
        with api.read(caller, "create_branch", path):
            return False
    except NotFoundError:
        return True


def _create_database(call: Call, name: str, body: CreateBranch) -> Database:
    """Make the database; who made it administers it."""
    database = provision.create_database(
        call.tx,
        call.organization.id,
        name,
        call.settings.flavor,
        engine=engine_for(call.settings, call.settings.flavor, None),
        region_id=_region_named(call, body.region),
        cluster_size=checked_size(body.cluster_size),
        replicas=call.settings.replicas,
        actor_id=call.actor_id,
    )
    call.created_database(database.id)
    call.audit("database.created", "database", database.id, database.name)
    return database


def _region_named(call: Call, slug: str | None) -> str | None:
    return region_named(call, slug).id if slug else None


def _region_id(call: Call, slug: str | None) -> str | None:
    """Where a new branch goes; None: where its parent is.

    :raises InvalidError: there is no such region, or the database's branches may not be there.
    """
    if not slug:
        return None
    region = region_named(call, slug)
    if call.database.restrict_branch_region and region.id != call.database.region_id:
        raise InvalidError(
            f"the database's branches may be in its own region only, not in {slug}; leave the region out, or "
            "switch restrict_branch_region off"
        )
    return region.id


@router.get(_ONE, operation_id="get_branch")
def get_branch(api: ApiDep, caller: CallerDep, path: InBranch) -> BranchOut:
    """A branch."""
    with api.read(caller, "get_branch", path) as call:
        return show_branches(call, [call.branch])[0]


@router.patch(_ONE, operation_id="update_branch")
def update_branch(api: ApiDep, caller: CallerDep, path: InBranch, body: UpdateBranch) -> BranchOut:
    """Rename or protect a branch."""
    fields = BranchFields()
    if body.new_name is not None:
        fields["name"] = body.new_name
    if body.deletion_protected is not None:
        fields["deletion_protected"] = body.deletion_protected
    return _change(api, caller, path, "update_branch", fields)


@router.patch(_ONE + "/cluster", operation_id="update_branch_cluster_config", status_code=204)
def update_branch_cluster_config(api: ApiDep, caller: CallerDep, path: InBranch, body: UpdateCluster) -> None:
    """Another size for the branch: its keyspaces that have the branch's own size are resized with it, and new
    ones get it.
    """
    size = checked_size(body.cluster_size)
    with api.write(caller, "update_branch_cluster_config", path) as call:
        call.require_own_servers("servers get their sizes")
        branch = call.branch
        keyspaces = call.tx.keyspaces.of_branch(branch.id)
        # As they were asked to be before, also where that is not so yet.
        sizes = call.tx.resizes.wanted_sizes(keyspaces)
        own = {sizes[keyspace.id] for keyspace in keyspaces if keyspace.is_default}
        for keyspace in keyspaces:
            if sizes[keyspace.id] in own:
                call.tx.resizes.ask(keyspace, cluster_size=size, actor_id=call.actor_id)
        call.tx.branches.update(branch.id, cluster_size=size)
        call.audit("branch.cluster_updated", "branch", branch.id, branch.name, cluster_size=size)


@router.delete(_ONE, operation_id="delete_branch", status_code=204)
def delete_branch(
    api: ApiDep,
    caller: CallerDep,
    path: InBranch,
    delete_descendants: Annotated[bool, Query()] = False,
) -> None:
    """Ask a branch away with its keyspaces and passwords."""
    with api.write(caller, "delete_branch", path) as call:
        if delete_descendants:
            # Who may delete this one may not delete what was made from it and is in production by now.
            doomed = provision.family(call.tx, call.branch)
            call.require(production=any(branch.production for branch in doomed))
        for branch in provision.delete_branch(
            call.tx, call.branch, descendants=delete_descendants, actor_id=call.actor_id
        ):
            call.audit("branch.deleted", "branch", branch.id, branch.name)
    api.tell_gateways()


@router.post(_ONE + "/promote", operation_id="promote_branch")
def promote_branch(api: ApiDep, caller: CallerDep, path: InBranch) -> BranchOut:
    """Make a branch a production branch."""
    return _change(api, caller, path, "promote_branch", {"production": True})


@router.post(_ONE + "/demote", operation_id="demote_branch")
def demote_branch(api: ApiDep, caller: CallerDep, path: InBranch) -> BranchOut:
    """Make a production branch a development branch, which has no safe migrations."""
    return _change(api, caller, path, "demote_branch", {"production": False, "safe_migrations": False})


@router.post(_ONE + "/safe-migrations", operation_id="enable_safe_migrations")
def enable_safe_migrations(api: ApiDep, caller: CallerDep, path: InBranch) -> BranchOut:
    """Switch safe migrations on."""
    return _change(api, caller, path, "enable_safe_migrations", {"safe_migrations": True})


@router.put(_ONE + "/safe-migrations", operation_id="update_safe_migrations")
def update_safe_migrations(
    api: ApiDep, caller: CallerDep, path: InBranch, body: UpdateSafeMigrations
) -> BranchOut:
    """Switch safe migrations on or off."""
    return _change(api, caller, path, "update_safe_migrations", {"safe_migrations": body.safe_migrations})


@router.delete(_ONE + "/safe-migrations", operation_id="disable_safe_migrations")
def disable_safe_migrations(api: ApiDep, caller: CallerDep, path: InBranch) -> BranchOut:
    """Switch safe migrations off."""
    return _change(api, caller, path, "disable_safe_migrations", {"safe_migrations": False})


def _change(api: Api, caller: Caller, path: Path, operation: str, fields: BranchFields) -> BranchOut:
    with api.write(caller, operation, path) as call:
        if fields.get("production") is False and call.branch.is_default:
            raise InvalidError("the default branch cannot be demoted")
        if fields.get("safe_migrations") is False and call.tx.workflows.active_on([call.branch.id]):
            raise InvalidError("a workflow is not over; it needs safe migrations")
        branch = call.tx.branches.update(call.branch.id, **fields) if fields else call.branch
        call.audit("branch.updated", "branch", branch.id, branch.name, fields=dict(fields))
        shown = show_branches(call, [branch])[0]
    api.tell_gateways()
    return shown


@router.get(_ONE + "/routing-rules", operation_id="get_branch_routing_rules")
def get_branch_routing_rules(api: ApiDep, caller: CallerDep, path: InBranch) -> RawOut:
    """The branch's routing rules in Vitess's form."""
    with api.read(caller, "get_branch_routing_rules", path) as call:
        return RawOut.of(routing_rules.render(call.tx.routes.rules(call.branch.id)))


@router.patch(_ONE + "/routing-rules", operation_id="update_branch_routing_rules")
def update_branch_routing_rules(
    api: ApiDep, caller: CallerDep, path: InBranch, body: UpdateRoutingRules
) -> RawOut:
    """Replace the branch's routing rules. Not while a workflow is not over: they are its own then."""
    rules = routing_rules.parse(body.routing_rules)
    with api.write(caller, "update_branch_routing_rules", path) as call:
        if call.tx.workflows.active_on([call.branch.id]):
            raise InvalidError("a workflow is not over; it holds the branch's routing rules")
        names = [keyspace.name for keyspace in call.tx.keyspaces.of_branch(call.branch.id)]
        routing_rules.check(rules, dict.fromkeys(names))
        call.tx.routes.replace_rules(call.branch.id, rules)
        call.audit("branch.routing_rules_updated", "branch", call.branch.id, call.branch.name)
        shown = RawOut.of(routing_rules.render(rules))
    api.tell_gateways()
    return shown
