"""Databases: list, create, get, change, delete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import Query

from homeworld.api.calls import ApiDep, Call, CallerDep, InDatabase, InOrganization, Settings
from homeworld.api.listing import Routes
from homeworld.api.pages import CountedListing, Listing, PageDep, counted_listing, listing
from homeworld.api.schemas.common import RegionOut
from homeworld.api.schemas.databases import CreateDatabase, DatabaseOut, UpdateDatabase, show_databases
from homeworld.model.engines import EngineKind, refusal
from homeworld.model.errors import InvalidError, NotFoundError
from homeworld.model.sizes import checked_size
from homeworld.model.topology import Flavor
from homeworld.store import provision
from homeworld.store.databases import DatabaseFields
from homeworld.store.pages import Page
from homeworld.store.tenants import Region

router = Routes(tags=["Databases"])

_ALL = "/organizations/{organization}/databases"
_ONE = _ALL + "/{database}"
# Nothing that is searched for is longer; SQLite fails at terms of tens of thousands of characters.
_LONGEST_TERM = 1000
_SEES_ALL = frozenset({"read_databases"})


@router.get(_ALL, operation_id="list_databases")
def list_databases(
    api: ApiDep, caller: CallerDep, path: InOrganization, page: PageDep, q: Annotated[str, Query()] = ""
) -> CountedListing[DatabaseOut]:
    """The databases that the token may see, by name."""
    with api.read(caller, "list_databases", path) as call:
        held = call.bearer.accesses
        wide = not held.get(call.organization.id, frozenset()).isdisjoint(call.scope.accesses)
        only = None if wide else held
        found = call.tx.databases.page(call.organization.id, page, checked_term(q), only)
        return counted_listing(caller, found, show_databases(call, found.items))


@router.post(_ALL, operation_id="create_database", status_code=201)
def create_database(
    api: ApiDep, caller: CallerDep, path: InOrganization, body: CreateDatabase
) -> DatabaseOut:
    """Ask for a database with its production branch and default keyspace."""
    if body.kind != "mysql":
        raise InvalidError("only databases of kind mysql can be created here")
    refuse_postgresql(body.major_version, body.storage)
    flavor = body.flavor or api.settings.flavor
    engine = engine_for(api.settings, flavor, body.engine)
    with api.write(caller, "create_database", path) as call:
        database = provision.create_database(
            call.tx,
            call.organization.id,
            body.name,
            flavor,
            engine=engine,
            region_id=region_named(call, body.region).id if body.region else None,
            cluster_size=checked_size(body.cluster_size),
            replicas=api.settings.replicas if body.replicas is None else body.replicas,
            notes=body.notes,
            actor_id=call.actor_id,
        )
        call.created_database(database.id)
        call.audit("database.created", "database", database.id, database.name)
        return show_databases(call, [database])[0]


@router.get(_ONE, operation_id="get_database")
def get_database(api: ApiDep, caller: CallerDep, path: InDatabase) -> DatabaseOut:
    """A database."""
    with api.read(caller, "get_database", path) as call:
        return show_databases(call, [call.database])[0]


@router.patch(_ONE, operation_id="update_database_settings")
def update_database_settings(
    api: ApiDep, caller: CallerDep, path: InDatabase, body: UpdateDatabase
) -> DatabaseOut:
    """Change settings."""
    given = body.model_dump(exclude_none=True)
    renamed = {"new_name": "name", "allow_foreign_key_constraints": "foreign_keys_enabled"}
    default_branch = given.pop("default_branch", None)
    fields = DatabaseFields(**{renamed.get(name, name): value for name, value in given.items()})
    with api.write(caller, "update_database_settings", path) as call:
        database = call.tx.databases.update(call.database.id, **fields) if fields else call.database
        if default_branch is not None:
            _set_default_branch(call, default_branch)
        asked = body.model_dump(exclude_none=True)
        call.audit("database.updated", "database", database.id, database.name, fields=asked)
        shown = show_databases(call, [database])[0]
    api.tell_gateways()
    return shown


def _set_default_branch(call: Call, name: str) -> None:
    try:
        branch = call.tx.branches.by_name(call.database.id, name)
    except NotFoundError:
        raise InvalidError(f"branch {name} does not exist") from None
    if not branch.production:
        raise InvalidError(f"branch {name} is not a production branch; promote it first")
    before = call.tx.branches.default(call.database.id)
    if before.id != branch.id:
        call.tx.branches.update(before.id, is_default=False)
        call.tx.branches.update(branch.id, is_default=True)


@router.delete(_ONE, operation_id="delete_database", status_code=204)
def delete_database(api: ApiDep, caller: CallerDep, path: InDatabase) -> None:
    """Ask a database away with everything in it."""
    with api.write(caller, "delete_database", path) as call:
        provision.delete_database(call.tx, call.database, actor_id=call.actor_id)
        call.audit("database.deleted", "database", call.database.id, call.database.name)
    api.tell_gateways()


@router.get(_ONE + "/regions", operation_id="list_database_regions")
def list_database_regions(
    api: ApiDep, caller: CallerDep, path: InDatabase, page: PageDep
) -> Listing[RegionOut]:
    """Where the database's branches can run."""
    with api.read(caller, "list_database_regions", path) as call:
        found = call.tx.regions.page(page)
        return listing(caller, found, [RegionOut.of(region) for region in found.items])


@router.get(_ONE + "/read-only-regions", operation_id="list_read_only_regions")
def list_read_only_regions(
    api: ApiDep, caller: CallerDep, path: InDatabase, page: PageDep
) -> Listing[RegionOut]:
    """Read-only regions do not exist here: the list is empty."""
    with api.read(caller, "list_read_only_regions", path):
        empty: Page[Region] = Page((), page.number, page.size, has_next=False)
        return listing(caller, empty, [])


def refuse_postgresql(major_version: str | None, storage: Mapping[str, object] | None) -> None:
    """Hold what only databases of another kind, or of another host, have.

    :raises InvalidError: some of it is given.
    """
    if major_version:
        raise InvalidError("major_version is for PostgreSQL; leave it out")
    if any(value is not None for value in (storage or {}).values()):
        raise InvalidError("storage has no limits here: servers take what the host's disk has; leave it out")


def engine_for(settings: Settings, flavor: Flavor, asked: EngineKind | None) -> EngineKind:
    """The engine of a new database.

    :param asked: None: the installation's own.
    :raises InvalidError: it cannot be had here, or not on these servers.
    """
    engine = asked or settings.engine
    missing: Mapping[EngineKind, str] = settings.missing_engines() if engine is EngineKind.VITESS else {}
    if why := refusal(engine, flavor, missing):
        raise InvalidError(why)
    return engine


def region_named(call: Call, slug: str) -> Region:
    """The region.

    :raises InvalidError: no such region.
    """
    try:
        return call.tx.regions.by_slug(slug)
    except NotFoundError:
        raise InvalidError(f"region {slug} does not exist") from None


def checked_term(q: str, name: str = "q") -> str:
    """A search term.

    :raises InvalidError: it has characters that cannot be searched for.
    """
    if "\0" in q or len(q) > _LONGEST_TERM:
        raise InvalidError(f"{name} must not have NUL characters, and at most {_LONGEST_TERM} of others")
    return q
