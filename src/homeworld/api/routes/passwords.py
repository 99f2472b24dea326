"""Branch passwords: list, create, get, change, renew, delete."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query

from homeworld.api.calls import Api, ApiDep, Caller, CallerDep, Id, InBranch, InDatabase, Path
from homeworld.api.listing import Routes
from homeworld.api.pages import CountedListing, Listing, PageDep, counted_listing, listing
from homeworld.api.routes.databases import checked_term
from homeworld.api.schemas.passwords import CreatePassword, PasswordOut, UpdatePassword, show_passwords
from homeworld.model.errors import InvalidError
from homeworld.store.passwords import PasswordFields

router = Routes(tags=["Database branch passwords"])

_DATABASE = "/organizations/{organization}/databases/{database}"
_ALL = _DATABASE + "/branches/{branch}/passwords"
_ONE = _ALL + "/{id}"


@router.get(_ALL, operation_id="list_passwords")
def list_passwords(
    api: ApiDep,
    caller: CallerDep,
    path: InBranch,
    page: PageDep,
    q: Annotated[str, Query()] = "",
    status: Annotated[Literal["active", "expired", ""], Query()] = "",
    read_only_region_id: Annotated[str, Query()] = "",
) -> CountedListing[PasswordOut]:
    """The branch's passwords, newest first."""
    if read_only_region_id:
        raise InvalidError("there are no read-only regions here")
    expired = None if not status else status == "expired"
    with api.read(caller, "list_passwords", path) as call:
        found = call.tx.passwords.page(call.branch.id, page, checked_term(q), expired)
        return counted_listing(caller, found, show_passwords(call, found.items))


@router.get(_DATABASE + "/passwords", operation_id="list_database_passwords")
def list_database_passwords(
    api: ApiDep, caller: CallerDep, path: InDatabase, page: PageDep
) -> Listing[PasswordOut]:
    """The passwords of all branches, newest first."""
    with api.read(caller, "list_database_passwords", path) as call:
        found = call.tx.passwords.page_of_database(call.database.id, page)
        return listing(caller, found, show_passwords(call, found.items))


@router.post(_ALL, operation_id="create_password", status_code=201)
def create_password(
    api: ApiDep, caller: CallerDep, path: InBranch, body: CreatePassword | None = None
) -> PasswordOut:
    """A new password. The plain text is in this answer only; gateways know it when it arrives."""
    asked = body or CreatePassword()
    role = asked.backend_role()
    if asked.read_only_region_id:
        raise InvalidError("there are no read-only regions here")
    with api.write(caller, "create_password", path) as call:
        call.require(production=call.branch.production, role=role)
        password, plain = call.tx.passwords.create(
            call.branch.id,
            name=asked.name,
            role=role,
            ttl_seconds=asked.ttl or None,
            cidrs=asked.cidrs,
            replica=asked.replica,
            direct_vtgate=asked.direct_vtgate,
            actor_id=call.actor_id,
        )
        call.audit("password.created", "password", password.id, password.name, role=role)
        shown = show_passwords(call, [password], {password.id: plain})[0]
    api.tell_gateways()
    return shown


@router.get(_ONE, operation_id="get_password")
def get_password(api: ApiDep, caller: CallerDep, path: InBranch, password_id: Id) -> PasswordOut:
    """A password without its plain text."""
    with api.read(caller, "get_password", path) as call:
        return show_passwords(call, [call.tx.passwords.get(call.branch.id, password_id)])[0]


@router.patch(_ONE, operation_id="update_password")
def update_password(
    api: ApiDep,
    caller: CallerDep,
    path: InBranch,
    password_id: Id,
    body: UpdatePassword,
) -> PasswordOut:
    """Change the name or the networks."""
    fields = PasswordFields()
    if body.name is not None:
        fields["name"] = body.name
    if body.cidrs is not None:
        fields["cidrs"] = body.cidrs
    with api.write(caller, "update_password", path) as call:
        password = call.tx.passwords.get(call.branch.id, password_id)
        call.require(production=call.branch.production, role=password.role)
        password = call.tx.passwords.update(password, **fields)
        call.audit("password.updated", "password", password.id, password.name)
        shown = show_passwords(call, [password])[0]
    api.tell_gateways()
    return shown


@router.post(_ONE + "/renew", operation_id="renew_password")
def renew_password(api: ApiDep, caller: CallerDep, path: InBranch, password_id: Id) -> PasswordOut:
    """Count the password's ttl from now on."""
    with api.write(caller, "renew_password", path) as call:
        password = call.tx.passwords.get(call.branch.id, password_id)
        call.require(production=call.branch.production, role=password.role)
        password = call.tx.passwords.renew(password)
        call.audit("password.renewed", "password", password.id, password.name)
        shown = show_passwords(call, [password])[0]
    api.tell_gateways()
    return shown


@router.delete(_ONE, operation_id="delete_password", status_code=204)
def delete_password(api: ApiDep, caller: CallerDep, path: InBranch, password_id: Id) -> None:
    """Take a password away; its sessions end."""
    _delete(api, caller, path, password_id)
    api.tell_gateways()


def _delete(api: Api, caller: Caller, path: Path, password_id: str) -> None:
    with api.write(caller, "delete_password", path) as call:
        password = call.tx.passwords.get(call.branch.id, password_id)
        call.require(production=call.branch.production, role=password.role)
        call.tx.passwords.delete(password)
        call.audit("password.deleted", "password", password.id, password.name)
