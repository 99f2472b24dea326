"""Resizes of keyspaces and of a branch's gateways, roll-outs, and replicas in other regions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Query, Response

from homeworld.api.calls import ApiDep, CallerDep, Id, InBranch, InKeyspace
from homeworld.api.listing import Routes
from homeworld.api.pages import Listing, PageDep, listing
from homeworld.api.routes.databases import region_named
from homeworld.api.routes.workflows import parse_period
from homeworld.api.schemas.branches import gateway_count
from homeworld.api.schemas.keyspaces import ReadOnlyRegionOut
from homeworld.api.schemas.organizations import ClusterSizeOut, show_cluster_sizes
from homeworld.api.schemas.resizes import (
    BranchResizeOut,
    KeyspaceResizeOut,
    ResizeGateways,
    ResizeKeyspace,
    RolloutOut,
    UpdateReadOnlyRegions,
    show_branch_resizes,
    show_keyspace_resizes,
    show_rollout,
)
from homeworld.model.errors import InvalidError
from homeworld.model.sizes import checked_gateway_size, checked_size

router = Routes()

_BRANCH = "/organizations/{organization}/databases/{database}/branches/{branch}"
_KEYSPACE = _BRANCH + "/keyspaces/{keyspace}"
_OF_KEYSPACE = _KEYSPACE + "/resizes"
_OF_BRANCH = _BRANCH + "/resizes"


@router.get(_OF_KEYSPACE, operation_id="list_keyspace_resize_requests", tags=["Keyspace resizes"])
def list_keyspace_resize_requests(
    api: ApiDep,
    caller: CallerDep,
    path: InKeyspace,
    page: PageDep,
    completed_at: Annotated[str, Query(description="Completed in this time: FROM..TO, RFC 3339")] = "",
) -> Listing[KeyspaceResizeOut]:
    """The keyspace's resizes, newest first."""
    period: tuple[datetime | None, datetime | None] = (None, None)
    if completed_at:
        # The published example has a colon behind the T.
        period = parse_period(completed_at.replace("T:", "T"), "completed_at")
    with api.read(caller, "list_keyspace_resize_requests", path) as call:
        found = call.tx.resizes.page(call.keyspace.id, page, period)
        return listing(caller, found, show_keyspace_resizes(call, found.items))


@router.put(_OF_KEYSPACE, operation_id="update_keyspace_resize_request", tags=["Keyspace resizes"])
def update_keyspace_resize_request(
    api: ApiDep, caller: CallerDep, path: InKeyspace, body: ResizeKeyspace
) -> KeyspaceResizeOut:
    """Ask for a resize, or change the one that has not begun."""
    if body.vector_pool_allocation:
        raise InvalidError("there are no vector indexes here to give a part of the buffer pool to")
    size = None if body.cluster_size is None else checked_size(body.cluster_size)
    with api.write(caller, "update_keyspace_resize_request", path) as call:
        call.require_own_servers("servers get their sizes and replicas")
        if size is None and body.extra_replicas is None:
            raise InvalidError("nothing to change: give cluster_size or extra_replicas")
        keyspace = call.keyspace
        resize = call.tx.resizes.ask(
            keyspace, cluster_size=size, extra_replicas=body.extra_replicas, actor_id=call.actor_id
        )
        call.audit(
            "keyspace.resize_requested",
            "keyspace",
            keyspace.id,
            keyspace.name,
            cluster_size=resize.cluster_size,
            extra_replicas=resize.extra_replicas,
        )
        return show_keyspace_resizes(call, [resize])[0]


@router.delete(
    _OF_KEYSPACE, operation_id="cancel_keyspace_resize_request", tags=["Keyspace resizes"], status_code=204
)
def cancel_keyspace_resize_request(api: ApiDep, caller: CallerDep, path: InKeyspace) -> None:
    """Take back a resize that has not begun."""
    with api.write(caller, "cancel_keyspace_resize_request", path) as call:
        call.tx.resizes.cancel(call.keyspace, actor_id=call.actor_id)
        call.audit("keyspace.resize_canceled", "keyspace", call.keyspace.id, call.keyspace.name)


@router.get(_OF_KEYSPACE + "/{id}", operation_id="get_keyspace_resize_request", tags=["Keyspace resizes"])
def get_keyspace_resize_request(
    api: ApiDep, caller: CallerDep, path: InKeyspace, resize_id: Id
) -> KeyspaceResizeOut:
    """A resize."""
    with api.read(caller, "get_keyspace_resize_request", path) as call:
        resize = call.tx.resizes.of(call.keyspace.id, resize_id)
        return show_keyspace_resizes(call, [resize])[0]


@router.get(
    _KEYSPACE + "/rollout-status",
    operation_id="get_keyspace_rollout_status",
    tags=["Database branch keyspaces"],
)
def get_keyspace_rollout_status(api: ApiDep, caller: CallerDep, path: InKeyspace) -> RolloutOut:
    """How far the newest change of the keyspace's servers is, shard by shard."""
    with api.read(caller, "get_keyspace_rollout_status", path) as call:
        return show_rollout(call, call.keyspace)


@router.put(
    _KEYSPACE + "/read-only-regions",
    operation_id="update_keyspace_read_only_regions",
    tags=["Database branch keyspaces"],
)
def update_keyspace_read_only_regions(
    api: ApiDep, caller: CallerDep, path: InKeyspace, body: UpdateReadOnlyRegions
) -> list[ReadOnlyRegionOut]:
    """Replicas in other regions: an installation runs its servers in one place, so there can be none."""
    with api.write(caller, "update_keyspace_read_only_regions", path) as call:
        for wanted in body.read_only_regions:
            region_named(call, wanted.region)
            raise InvalidError(
                f"this installation runs all servers in one place, so {call.keyspace.name} can have no "
                f"replicas in region {wanted.region}; for more of them here resize it with extra_replicas"
            )
        call.audit("keyspace.read_only_regions_updated", "keyspace", call.keyspace.id, call.keyspace.name)
    return []


# -- gateways ------------------------------------------------------------------------------------------------


@router.get(_OF_BRANCH, operation_id="list_branch_resize_requests", tags=["Branch resizes"])
def list_branch_resize_requests(
    api: ApiDep, caller: CallerDep, path: InBranch, page: PageDep
) -> Listing[BranchResizeOut]:
    """The resizes of the branch's gateways, newest first."""
    with api.read(caller, "list_branch_resize_requests", path) as call:
        found = call.tx.gateway_resizes.page(call.branch.id, page)
        return listing(caller, found, show_branch_resizes(call, found.items))


@router.put(
    _OF_BRANCH,
    operation_id="update_branch_resize_request",
    tags=["Branch resizes"],
    responses={204: {"description": "Nothing to change"}},
    response_model=BranchResizeOut,
)
def update_branch_resize_request(
    api: ApiDep, caller: CallerDep, path: InBranch, body: ResizeGateways
) -> BranchResizeOut | Response:
    """Ask for another size of the branch's gateways, or change what has not begun; 204: they have it.

    How many there are is decided by whoever starts them.
    """
    size = None if body.vtgate_size is None else checked_gateway_size(body.vtgate_size)
    if body.vtgate_autoscaling:
        raise InvalidError("gateways are not scaled by themselves here; start more with `homeworld gateway`")
    if body.vtgate_max_count or body.vtgate_target_cpu_utilization:
        raise InvalidError(
            "vtgate_max_count and vtgate_target_cpu_utilization go with autoscaling, which there is not"
        )
    with api.write(caller, "update_branch_resize_request", path) as call:
        count = gateway_count(call)
        if body.vtgate_count is not None and body.vtgate_count != count:
            raise InvalidError(
                f"{count} gateways run, for all branches; start or end some with `homeworld gateway` to have "
                f"{body.vtgate_count}"
            )
        branch = call.branch
        resize = call.tx.gateway_resizes.ask(branch, size, actor_id=call.actor_id) if size else None
        if resize is None:
            return Response(status_code=204)
        call.audit("branch.resize_requested", "branch", branch.id, branch.name, vtgate_size=resize.size)
        return show_branch_resizes(call, [resize])[0]


@router.delete(
    _OF_BRANCH, operation_id="cancel_branch_change_request", tags=["Branch resizes"], status_code=204
)
def cancel_branch_change_request(api: ApiDep, caller: CallerDep, path: InBranch) -> None:
    """Take back a resize of the branch's gateways that has not begun."""
    with api.write(caller, "cancel_branch_change_request", path) as call:
        call.tx.gateway_resizes.cancel(call.branch, actor_id=call.actor_id)
        call.audit("branch.resize_canceled", "branch", call.branch.id, call.branch.name)


@router.get(_OF_BRANCH + "/{id}", operation_id="get_branch_resize_request", tags=["Branch resizes"])
def get_branch_resize_request(
    api: ApiDep, caller: CallerDep, path: InBranch, resize_id: Id
) -> BranchResizeOut:
    """A resize of the branch's gateways."""
    with api.read(caller, "get_branch_resize_request", path) as call:
        resize = call.tx.gateway_resizes.of(call.branch.id, resize_id)
        return show_branch_resizes(call, [resize])[0]


@router.get(_BRANCH + "/cluster-size-skus", operation_id="list_branch_cluster_size_skus", tags=["Databases"])
def list_branch_cluster_size_skus(
    api: ApiDep, caller: CallerDep, path: InBranch, rates: Annotated[bool, Query()] = False
) -> list[ClusterSizeOut]:
    """The sizes that the branch and its keyspaces can have."""
    with api.read(caller, "list_branch_cluster_size_skus", path):
        pass
    return show_cluster_sizes(api.settings.inspection.host(), rates=rates)
