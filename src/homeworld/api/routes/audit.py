"""The audit log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query

from homeworld.api.calls import ApiDep, CallerDep, InOrganization
from homeworld.api.listing import Routes
from homeworld.api.schemas.audit import AuditListing, show_audit
from homeworld.model.errors import InvalidError

router = Routes(tags=["Organizations"])

_MOST = 100
_MOST_FILTERS = 50
_FILTERS = ("audit_action", "actor_id")


@router.get("/organizations/{organization}/audit-log", operation_id="list_audit_logs")
def list_audit_logs(
    api: ApiDep,
    caller: CallerDep,
    path: InOrganization,
    starting_after: Annotated[str, Query(description="Older than this entry")] = "",
    ending_before: Annotated[str, Query(description="Newer than this entry")] = "",
    limit: Annotated[int, Query(ge=0, description="At most 100; 0: the default")] = 25,
    filters: Annotated[
        list[str] | None,
        Query(
            alias="filters[]", description="audit_action:NAME or actor_id:ID; several of a kind: any of them"
        ),
    ] = None,
) -> AuditListing:
    """What was changed in the organization, newest first."""
    if starting_after and ending_before:
        raise InvalidError("give starting_after or ending_before, not both")
    asked = _asked(filters or ())
    with api.read(caller, "list_audit_logs", path) as call:
        page = call.tx.audit.page(
            call.organization.id,
            limit=min(limit or 25, _MOST),
            after=starting_after or None,
            before=ending_before or None,
            actions=asked["audit_action"],
            actor_ids=asked["actor_id"],
        )
        return show_audit(call, page)


def _asked(filters: Sequence[str]) -> dict[str, list[str]]:
    asked: dict[str, list[str]] = {kind: [] for kind in _FILTERS}
    if len(filters) > _MOST_FILTERS:
        raise InvalidError(f"at most {_MOST_FILTERS} filters[] can be given at once")
    for text in filters:
        kind, _, value = text.partition(":")
        if kind not in _FILTERS or not value or "\0" in value:
            raise InvalidError(
                f"filters[] {text[:60]!r} is not understood; "
                "give audit_action:NAME, such as audit_action:branch.created, or actor_id:ID"
            )
        asked[kind].append(value)
    return asked
