"""Reparents, servers and shards in the words of the clients that ask for them.

A server's *alias* is its cell and id, as ``SHOW VITESS_TABLETS`` tells it; its id alone is understood, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, Field

from homeworld.api.calls import Call
from homeworld.api.schemas.common import Body
from homeworld.api.schemas.databases import Name
from homeworld.model.states.reparenting import Reparent
from homeworld.store.reparents import ReparentRecord

T = TypeVar("T")
Alias = Annotated[str, Field(max_length=100)]
ShardName = Annotated[str, Field(min_length=1, max_length=64)]


class EnvelopedOut(BaseModel, Generic[T]):
    """The envelope in which clients expect what they print as it is."""

    data: T


class AskReparent(Body):
    """The body of create_planned_reparent and create_emergency_reparent.

    :param new_primary: the alias of the replica that is to be the primary; without it the best one.
    """

    keyspace: Name
    shard: ShardName
    new_primary: Alias | None = None


class AliasOut(BaseModel):
    """A server's alias in its two parts."""

    cell: str
    uid: str


class ReparentTargetOut(BaseModel):
    """What was asked for. ``new_primary`` is empty until it is chosen, where nobody named one."""

    keyspace: str
    shard: str
    new_primary: str
    former_primary: str
    emergency: bool


class ReparentResultOut(BaseModel):
    """What came of it. ``former_error`` says why the former primary serves nobody, if it does not."""

    keyspace: str
    shard: str
    promoted_primary: AliasOut
    former_primary: AliasOut
    former_serves: bool
    former_error: str


class ReparentOut(BaseModel):
    """A reparent as an operation that is polled until ``completed``. ``error`` says why it failed or, before
    that, why it does not go on; ``timeout`` is after how many seconds it is given up.
    """

    id: str
    type: str = "VtctldOperation"
    action: str
    timeout: int
    created_at: datetime
    completed_at: datetime | None
    state: Reparent
    completed: bool
    metadata: ReparentTargetOut
    result: ReparentResultOut | None
    error: str


def alias_of(cell: str, server_id: str | None) -> str:
    """A server's alias; empty where there is no server.

    >>> alias_of("local", "4u0ddqksdhzj")
    'local-4u0ddqksdhzj'
    """
    return f"{cell}-{server_id}" if server_id else ""


def show_reparent(call: Call, reparent: ReparentRecord, cell: str) -> ReparentOut:
    """A reparent of the call's branch as it stands."""
    shard = call.tx.keyspaces.shard(reparent.shard_id)
    keyspace = call.tx.keyspaces.get(shard.keyspace_id).name
    result = None
    if reparent.state is Reparent.COMPLETED and reparent.heir_server_id is not None:
        former = call.tx.servers.get(reparent.former_server_id)
        result = ReparentResultOut(
            keyspace=keyspace,
            shard=shard.name,
            promoted_primary=AliasOut(cell=cell, uid=reparent.heir_server_id),
            former_primary=AliasOut(cell=cell, uid=former.id),
            former_serves=not former.barred and former.deleted_at is None,
            former_error=former.barred,
        )
    return ReparentOut(
        id=reparent.id,
        action="emergency_reparent_shard" if reparent.emergency else "planned_reparent_shard",
        timeout=reparent.timeout,
        created_at=reparent.created_at,
        completed_at=reparent.completed_at,
        state=reparent.state,
        completed=reparent.state in (Reparent.COMPLETED, Reparent.FAILED),
        metadata=ReparentTargetOut(
            keyspace=keyspace,
            shard=shard.name,
            new_primary=alias_of(cell, reparent.heir_server_id),
            former_primary=alias_of(cell, reparent.former_server_id),
            emergency=reparent.emergency,
        ),
        result=result,
        error=reparent.error,
    )


class TabletOut(BaseModel):
    """A server from a shard's view. Whether it serves, how late it is (seconds; null: not known, or a
    primary) and what is wrong with it are beyond what clients read.
    """

    alias: str
    role: str
    cell: str
    serving: bool
    lag_seconds: float | None
    error: str


class TabletGroupOut(BaseModel):
    """A shard's servers of one type."""

    type: str
    keyspace: str
    shard: str
    tablets: Sequence[TabletOut]


class KeyRangeOut(BaseModel):
    """A shard's keys: from ``start`` on, before ``end``; empty: without a bound."""

    start: str
    end: str


class TabletControlOut(BaseModel):
    """Never: servers here refuse no table, gateways send by rules."""

    tablet_type: str
    cells: Sequence[str]
    denied_tables: Sequence[str]


class ShardRecordOut(BaseModel):
    """What is known of a shard. ``primary_term_start_time`` is when a reparent made its primary one; null: it
    always was, or was made one by a maintenance window.
    """

    primary_alias: AliasOut | None
    primary_term_start_time: datetime | None
    key_range: KeyRangeOut | None
    tablet_controls: Sequence[TabletControlOut]
    is_primary_serving: bool


class ShardOut(BaseModel):
    """A shard and its record."""

    keyspace: str
    name: str
    shard: ShardRecordOut


class RefreshShard(Body):
    """The body of refresh_vtctld_shard_state."""

    keyspace: Name
    shard: ShardName
    cells: Annotated[list[str], Field(max_length=100)] | None = None


class RefreshedOut(BaseModel):
    """The version of the routes that gateways were told to take. One that does not answer takes it later."""

    routes_version: int
