"""Passwords as published, and the bodies that create and change them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from homeworld.api.calls import Call
from homeworld.api.schemas.common import ActorOut, Body, RegionOut
from homeworld.api.schemas.databases import Name
from homeworld.model.errors import InvalidError
from homeworld.model.topology import BackendRole
from homeworld.store.branches import Branch
from homeworld.store.passwords import ROLES, Password

# Ten years; longer ones overflow what databases keep.
Ttl = Annotated[int, Field(ge=0, le=10 * 365 * 86400)]
Cidrs = Annotated[list[Name], Field(max_length=1000)]


class CreatePassword(Body):
    """The body of create_password. A ttl of 0 is none."""

    name: Name = ""
    role: Name = BackendRole.ADMIN.value
    replica: bool = False
    ttl: Ttl = 0
    cidrs: Cidrs = Field(default_factory=list)
    read_only_region_id: Name | None = None
    direct_vtgate: bool = False

    def backend_role(self) -> BackendRole:
        """The role.

        :raises InvalidError: none of a password's.
        """
        if self.role not in {role.value for role in ROLES}:
            raise InvalidError("role must be one of reader, writer, readwriter, admin")
        return BackendRole(self.role)


class UpdatePassword(Body):
    """The body of update_password."""

    name: Name | None = None
    cidrs: Cidrs | None = None


class PasswordBranchOut(BaseModel):
    """The branch of a password."""

    name: str
    id: str
    production: bool
    mysql_edge_address: str
    private_edge_connectivity: bool = False


class PasswordOut(BaseModel):
    """A password. ``plain_text`` is null but in the answer to its creation."""

    id: str
    name: str
    role: str
    cidrs: Sequence[str] | None
    created_at: datetime
    deleted_at: datetime | None
    expires_at: datetime | None
    last_used_at: datetime | None
    expired: bool
    direct_vtgate: bool
    direct_vtgate_addresses: Sequence[str]
    ttl_seconds: int | None
    access_host_url: str
    access_host_regional_url: str
    access_host_regional_urls: list[str] = Field(default_factory=list)
    actor: ActorOut | None
    region: RegionOut
    username: str
    plain_text: str | None = None
    replica: bool
    renewable: bool
    database_branch: PasswordBranchOut


def show_passwords(
    call: Call, passwords: Sequence[Password], plain_texts: Mapping[str, str] | None = None
) -> list[PasswordOut]:
    """Passwords as published, in four queries however many there are.

    :param plain_texts: password id to plain text, for those just created.
    """
    branches = call.tx.branches.by_ids([password.branch_id for password in passwords])
    regions = call.tx.regions.by_ids([branch.region_id for branch in branches.values()])
    actors = call.actors(password.actor_id for password in passwords)
    address = call.settings.gateway_address
    # Clients take a host without a port for one at 443.
    host = (call.settings.http_address or address).removesuffix(":443")
    # There is nothing between clients and gateways: any of them is direct.
    gateways = sorted({gateway.address for gateway in call.tx.gateways.all()}) or [address]
    return [
        PasswordOut(
            id=password.id,
            name=password.name,
            role=password.role,
            cidrs=list(password.cidrs) or None,
            created_at=password.created_at,
            deleted_at=password.deleted_at,
            expires_at=password.expires_at,
            last_used_at=password.last_used_at,
            expired=password.expires_at is not None and password.expires_at <= call.now,
            direct_vtgate=password.direct_vtgate,
            direct_vtgate_addresses=gateways if password.direct_vtgate else [],
            ttl_seconds=password.ttl_seconds,
            access_host_url=host,
            access_host_regional_url=host,
            actor=ActorOut.maybe(actors, password.actor_id),
            region=RegionOut.of(regions[branches[password.branch_id].region_id]),
            username=password.username,
            plain_text=(plain_texts or {}).get(password.id),
            replica=password.replica,
            renewable=password.renewable,
            database_branch=_branch(branches[password.branch_id], address),
        )
        for password in passwords
    ]


def _branch(branch: Branch, address: str) -> PasswordBranchOut:
    return PasswordBranchOut(
        name=branch.name, id=branch.id, production=branch.production, mysql_edge_address=address
    )
