"""The audit log as published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from pydantic import BaseModel

from homeworld.api.calls import Call
from homeworld.store.audit import AuditEntry, AuditPage
from homeworld.store.tenants import Actor

_ACTORS = {"user": "User", "service_token": "ServiceToken", "system": "System"}
# What is published under another name than that of its kind here.
_TYPES = {"branch": "DatabaseBranch", "password": "DatabaseBranchPassword"}


class AuditEntryOut(BaseModel):
    """Who did what to what. What was changed is both the auditable and the target."""

    id: str
    type: str = "AuditLogEvent"
    actor_id: str | None
    actor_type: str | None
    actor_display_name: str
    auditable_id: str | None
    auditable_type: str | None
    auditable_display_name: str
    target_id: str | None
    target_type: str | None
    target_display_name: str | None
    location: str | None = None
    audit_action: str
    action: str
    remote_ip: str | None
    created_at: datetime
    updated_at: datetime
    metadata: Mapping[str, object] | None


class AuditListing(BaseModel):
    """A part of the audit log, newest first. ``cursor_end`` is what older ones start after."""

    type: str = "list"
    has_next: bool
    has_prev: bool
    cursor_start: str | None
    cursor_end: str | None
    data: Sequence[AuditEntryOut]


def _type(kind: str) -> str:
    return _TYPES.get(kind) or "".join(word.capitalize() for word in kind.split("_"))


def show_audit(call: Call, page: AuditPage) -> AuditListing:
    """Entries as published, in two queries however many there are."""
    actors = call.actors(entry.actor_id for entry in page.entries)
    return AuditListing(
        has_next=page.has_next,
        has_prev=page.has_prev,
        cursor_start=page.entries[0].id if page.entries else None,
        cursor_end=page.entries[-1].id if page.entries else None,
        data=[_entry(entry, actors) for entry in page.entries],
    )


def _entry(entry: AuditEntry, actors: Mapping[str, Actor]) -> AuditEntryOut:
    actor = actors.get(entry.actor_id or "")
    return AuditEntryOut(
        id=entry.id,
        actor_id=entry.actor_id,
        actor_type=_ACTORS[actor.kind if actor else "system"],
        actor_display_name=actor.display_name if actor else "Homeworld",
        auditable_id=entry.target_id,
        auditable_type=_type(entry.target_kind),
        auditable_display_name=entry.target_name,
        target_id=entry.target_id,
        target_type=_type(entry.target_kind),
        target_display_name=entry.target_name,
        audit_action=entry.action,
        action=entry.action.rpartition(".")[2],
        remote_ip=entry.remote_ip or None,
        created_at=entry.created_at,
        updated_at=entry.created_at,
        metadata=entry.metadata,
    )
