"""The vocabulary between a workflow and the data path: what to move, how far it is, what was compared.

Positions are opaque strings (a GTID set in the server's own form); only replication reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from homeworld.model.topology import Endpoint, Flavor, ShardPlace


class OnDdl(StrEnum):
    """What a stream does when the source's schema changes: the published values."""

    IGNORE = "IGNORE"
    STOP = "STOP"
    EXEC = "EXEC"
    EXEC_IGNORE = "EXEC_IGNORE"


@dataclass(frozen=True, slots=True)
class Placement:
    """How rows of one table find their target shard.

    :param table: name on both sides.
    :param vindex_type: registered vindex function (``xxhash``, ``hash`` …); empty: the target is unsharded.
    :param vindex_columns: the columns the vindex reads, in order.
    :param vindex_params: the vindex's own parameters from the vschema.
    """

    table: str
    vindex_type: str = ""
    vindex_columns: tuple[str, ...] = ()
    vindex_params: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class ThrottleLimits:
    """Above what copying (and a little, applying) gives way to others; None: whatever is measured.

    :param replica_lag_seconds: of any replica of a shard of either side.
    :param source_threads_running: Threads_running of a source server.
    :param source_history_length: InnoDB's history list length of a source server.
    :param ratio: percent of the time that work rests in any case, 0 to 95.
    """

    replica_lag_seconds: float | None = 5.0
    source_threads_running: int | None = 100
    source_history_length: int | None = 1_000_000
    ratio: int = 0


@dataclass(frozen=True, slots=True)
class ReplicaPlace:
    """A replica of a server on which a shard's primary is."""

    primary_id: str
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class MoverSpec:
    """One direction of one workflow: from the source shards' tables to the target shards'.

    :param workflow_id: names the workflow's rows in the sidecar schema ``_homeworld`` on each target.
    :param direction: ``forward`` or ``reverse``.
    :param epoch: grows with each owner; a mover whose epoch is not the newest in the sidecar raises
        FencedError instead of writing.
    :param copy_rows: copy existing rows first (forward); False: only follow from ``start_positions``.
    :param start_positions: source shard name to position; used only where the sidecar has none yet.
    :param limits: what the mover begins with.
    """

    workflow_id: str
    direction: str
    epoch: int
    flavor: Flavor
    sources: tuple[ShardPlace, ...]
    targets: tuple[ShardPlace, ...]
    placements: tuple[Placement, ...]
    copy_rows: bool
    start_positions: Mapping[str, str]
    defer_secondary_keys: bool
    on_ddl: OnDdl
    copy_threads: int = 2
    max_lag_seconds: float = 10.0
    limits: ThrottleLimits = ThrottleLimits()
    source_replicas: tuple[ReplicaPlace, ...] = ()
    target_replicas: tuple[ReplicaPlace, ...] = ()


class Phase(StrEnum):
    """What a mover is doing."""

    STARTING = "starting"
    COPYING = "copying"
    INDEXING = "indexing"
    FOLLOWING = "following"
    STOPPED = "stopped"
    DDL = "ddl"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class TableProgress:
    """Rows of one table; ``rows_total`` is the server's estimate until the copy has passed the end."""

    table: str
    rows_copied: int
    rows_total: int


@dataclass(frozen=True, slots=True)
class StreamProgress:
    """One stream: one source shard to one target shard.

    :param throttled_by: what waits and for what, as ``copy: …`` or ``apply: …``; empty: nothing does.
    :param unmeasured: a figure that a limit wants and nobody knows, and why; empty: there is none.
    """

    source_shard: str
    target_shard: str
    position: str
    rows_copied: int
    events_applied: int
    lag_seconds: float
    throttled_by: str = ""
    unmeasured: str = ""


@dataclass(frozen=True, slots=True)
class RowDifference:
    """One row that differs: its key as text by column, and the row on each side (None: missing).

    :param shard: where it was found: a target shard, or a source shard where no target has it.
    :param columns: those that differ, where both sides have the row.
    :param owner: the target shard that it belongs to; empty: no shard does.
    :param condition: the SQL condition that finds it.
    """

    kind: str  # extra_source | extra_target | mismatched | wrong_shard
    shard: str
    key: Mapping[str, str]
    source: Mapping[str, str | None] | None
    target: Mapping[str, str | None] | None
    columns: tuple[str, ...] = ()
    owner: str = ""
    condition: str = ""


@dataclass(frozen=True, slots=True)
class TableVerification:
    """What comparing one table said. ``differences`` holds a sample; the counts are complete.

    :param rows_total: the server's estimate until the table is compared to its end.
    :param state: pending, started, completed or error.
    """

    table: str
    rows_compared: int
    mismatched: int
    extra_source: int
    extra_target: int
    wrong_shard: int
    differences: tuple[RowDifference, ...] = ()
    rows_total: int = 0
    state: str = "completed"

    @property
    def different(self) -> bool:
        """Something differed."""
        return bool(self.mismatched or self.extra_source or self.extra_target or self.wrong_shard)


@dataclass(frozen=True, slots=True)
class VerificationRound:
    """One set of snapshots of both sides at one position of each source; a resumed verification has several.

    :param begun_at: unix seconds.
    :param positions: source shard to the position at which both sides were read.
    :param rows_compared: rows of ranges that were equal in it and count.
    :param note: what it could not take over from the rounds before, and why; empty: nothing.
    """

    number: int
    begun_at: float
    positions: Mapping[str, str]
    rows_compared: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Verification:
    """A verification under way or done. ``state`` is pending, started, completed or error."""

    verify_id: str
    state: str
    rows_compared: int
    rows_total: int
    eta_seconds: float
    tables: tuple[TableVerification, ...] = ()
    error: str = ""
    rows_per_second: float = 0.0
    rounds: tuple[VerificationRound, ...] = ()

    @property
    def equal(self) -> bool:
        """Every table was compared to its end and nothing differed."""
        return (
            self.state == "completed"
            and bool(self.tables)
            and all(table.state == "completed" and not table.different for table in self.tables)
        )


@dataclass(frozen=True, slots=True)
class MoverProgress:
    """All that a mover tells. ``error`` and ``ddl`` are empty unless the phase is FAILED or DDL.

    :param copied: every row is copied, deferred keys are built, only following is left.
    :param outage: the error is that a server does not answer.
    :param retryable: whether a new mover from the same sidecar rows may go on after FAILED or DDL.
    :param emptied: after DDL: tables that have to be empty on the targets before a new mover goes on.
    :param passed: how many schema statements it went on behind; whatever was verified before one is stale.
    :param ddl_at: on Vitess, after DDL: where the streams stand that have come to the statement.
    """

    phase: Phase
    copied: bool
    tables: tuple[TableProgress, ...]
    streams: tuple[StreamProgress, ...]
    lag_seconds: float
    rows_per_second: float
    eta_seconds: float
    verification: Verification | None = None
    ddl: str = ""
    error: str = ""
    retryable: bool = True
    emptied: tuple[str, ...] = ()
    passed: int = 0
    outage: bool = False
    ddl_at: str = ""
