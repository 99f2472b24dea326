"""What servers tell, as clients read it: definitions, differences, faults, connections, infrastructure.

Ids of queries and transactions name what was seen, not only where: whoever ends one by its id ends that one
or nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from homeworld.api.schemas.common import Body
from homeworld.api.schemas.databases import Name
from homeworld.model.inspection import Definition, ServerConnection
from homeworld.model.topology import TabletType
from homeworld.schema.lint import Fault
from homeworld.schema.texts import definition_html, diff_html

DOCS = "https://vitess.io/docs/reference/features/vschema/"
_IDLE = frozenset({"Sleep", "Daemon", "Binlog Dump", "Binlog Dump GTID"})


class DefinitionOut(BaseModel):
    """A table's definition or difference. ``keyspace`` is beyond the published fields."""

    name: str
    html: str
    raw: str
    keyspace: str


class DefinitionsOut(BaseModel):
    """All of them."""

    data: list[DefinitionOut]


def show_definitions(definitions: Iterable[Definition]) -> DefinitionsOut:
    """Definitions as published."""
    return DefinitionsOut(
        data=[
            DefinitionOut(name=one.name, html=definition_html(one.sql), raw=one.sql, keyspace=one.keyspace)
            for one in definitions
        ]
    )


def show_differences(differences: Mapping[tuple[str, str], str]) -> DefinitionsOut:
    """Differences by (keyspace, table)."""
    return DefinitionsOut(
        data=[
            DefinitionOut(name=name, html=diff_html(text), raw=text, keyspace=keyspace)
            for (keyspace, name), text in sorted(differences.items())
        ]
    )


def digest(definitions: Iterable[Definition]) -> str:
    """Changes when a definition does."""
    told = sorted((one.keyspace, one.name, one.sql) for one in definitions)
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


class FaultOut(BaseModel):
    """Something that is wrong with a table or a vschema; what does not concern it is empty."""

    lint_error: str
    subject_type: str
    keyspace_name: str
    table_name: str
    error_description: str
    docs_url: str = DOCS
    column_name: str
    foreign_key_column_names: Sequence[str]
    auto_increment_column_names: Sequence[str]
    charset_name: str
    engine_name: str
    vindex_name: str
    json_path: str = ""
    check_constraint_name: str = ""
    enum_value: str = ""
    partitioning_type: str
    partition_name: str = ""

    @classmethod
    def of(cls, fault: Fault) -> FaultOut:
        """The fault as published."""
        return cls(
            lint_error=fault.error,
            subject_type=fault.subject,
            keyspace_name=fault.keyspace,
            table_name=fault.table,
            error_description=fault.description,
            column_name=fault.column,
            foreign_key_column_names=fault.foreign_key_columns,
            auto_increment_column_names=fault.auto_increment_columns,
            charset_name=fault.charset,
            engine_name=fault.engine,
            vindex_name=fault.vindex,
            partitioning_type=fault.partitioning,
        )


# -- connections ---------------------------------------------------------------------------------------------


class InstanceOut(BaseModel):
    """A server that was asked."""

    id: str
    role: str
    error: str = ""


class TopologyOut(BaseModel):
    """Which shard was asked, and on which server."""

    keyspace: str
    shard: str
    tablet: str


class ConnectionOut(BaseModel):
    """A connection of a server, in the words of clients that know two kinds of databases."""

    pid: int
    instance: str
    datname: str
    usename: str
    application_name: str
    client_addr: str
    state: str
    wait_event_type: str
    wait_event: str
    backend_type: str
    xact_start: datetime | None
    query_start: datetime | None
    connection_id: str | None
    transaction_id: str | None
    query_id: str | None
    duration_ms: int
    blocked_by: list[int]
    query_text: str


class ConnectionsOut(BaseModel):
    """All connections of a shard's primary at one moment."""

    database_kind: Literal["mysql"] = "mysql"
    captured_at: datetime
    instances: list[InstanceOut]
    topology: TopologyOut
    data: list[ConnectionOut]


def show_connection(server_id: str, one: ServerConnection, now: datetime) -> ConnectionOut:
    """A connection as clients read it. What is homeworld's own has no ids: nobody may end it."""
    active = one.command not in _IDLE and bool(one.text)
    began = now - timedelta(seconds=one.seconds)
    return ConnectionOut(
        pid=one.number,
        instance=server_id,
        datname=one.schema,
        usename=one.user,
        application_name="homeworld" if one.ours else "",
        client_addr=one.host,
        state=one.command,
        wait_event_type="Lock" if one.waits_for_lock else "",
        wait_event=one.state,
        backend_type="internal" if one.ours else "client backend",
        xact_start=one.transaction_began,
        query_start=began if active else None,
        connection_id=None if one.ours else connection_id(server_id, one),
        transaction_id=None if one.ours else transaction_id(server_id, one),
        query_id=None if one.ours else query_id(server_id, one),
        duration_ms=int(one.seconds * 1000),
        blocked_by=list(one.blocked_by),
        query_text=one.text,
    )


def connection_id(server_id: str, one: ServerConnection) -> str:
    """The id by which a connection is ended."""
    return f"{server_id}-{one.number}"


def transaction_id(server_id: str, one: ServerConnection) -> str | None:
    """The id by which a connection is ended if it is still in this transaction; None: it is in none."""
    if one.transaction_began is None:
        return None
    return f"{server_id}-{one.number}-{int(one.transaction_began.timestamp())}"


def query_id(server_id: str, one: ServerConnection) -> str | None:
    """The id by which a statement is ended if the connection is still at it; None: it is at none."""
    if one.command in _IDLE or not one.text:
        return None
    told = f"{one.transaction_began}{one.text}".encode()
    return f"{server_id}-{one.number}-{hashlib.sha256(told).hexdigest()[:12]}"


class ActionOut(BaseModel):
    """What was ended."""

    success: bool = True
    keyspace: str
    shard: str
    tablet: str
    id: int
    kind: Literal["connection", "query", "transaction"]


class ProcessOut(BaseModel):
    """A row of a server's process list."""

    id: int
    user: str
    host: str
    db: str
    command: str
    time: int
    state: str
    info: str


class ProcesslistOut(BaseModel):
    """The process list of a shard's primary."""

    keyspace: str
    shard: str
    tablet: str
    processes: list[ProcessOut]


class ProcesslistAnswer(BaseModel):
    """The same in the envelope that clients read."""

    data: ProcesslistOut


class ActionAnswer(BaseModel):
    """What was ended, in the envelope that clients read."""

    data: ActionOut


def show_process(one: ServerConnection) -> ProcessOut:
    """A row as clients read it."""
    return ProcessOut(
        id=one.number,
        user=one.user,
        host=one.host,
        db=one.schema,
        command=one.command,
        time=int(one.seconds),
        state=one.state,
        info=one.text,
    )


class KillProcess(Body):
    """The body of kill_branch_process."""

    keyspace: Name = ""
    shard: Name = ""
    id: Annotated[int, Field(ge=1, le=2**63 - 1)]
    kind: Literal["connection", "query"] = "connection"


# -- infrastructure ------------------------------------------------------------------------------------------


class PodOut(BaseModel):
    """A process: a server, seen from a shard that it holds, or a gateway."""

    name: str
    status: str
    component: Literal["vttablet", "vtgate"]
    ready: str
    restart_count: int
    created_at: datetime | None
    cell: str
    size: str
    keyspace: str | None = None
    shard: str | None = None
    tablet_type: TabletType | None = None


class InfrastructureOut(BaseModel):
    """Every process that serves a branch."""

    type: Literal["VitessInfrastructure"] = "VitessInfrastructure"
    ready: bool
    pods: list[PodOut]
