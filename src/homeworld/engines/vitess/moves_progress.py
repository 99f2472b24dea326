"""How far the streams of a direction are, from what Vitess prints and what its tablets publish: pure.

The command tells rows and lag late (rows every half minute, lag in seconds since a stream was last heard of);
a tablet's own variables have them live, since its process began. Invariant: a phase comes from Vitess's
records alone, so that figures which are missing never change a decision.
"""

from __future__ import annotations

from collections.abc import Mapping

from homeworld.engines.vitess import moves_look as look
from homeworld.engines.vitess.answers import object_of
from homeworld.engines.vitess.moves_look import VMove, VStream
from homeworld.model.clusters import HANDED_OVER, ClusterMove
from homeworld.model.movers import MoverProgress, Phase, StreamProgress, TableProgress, Verification

ROWS = "VReplicationTableCopyRowCounts"
LAGS = "VReplicationLagSeconds"
UNKNOWN_LAG_SECONDS = 3600.0  # of a stream that is not told of while it copies


def progress_of(
    move: ClusterMove,
    found: VMove,
    live: Mapping[str, Mapping[str, object]],
    *,
    reverse: bool,
    verification: Verification | None,
) -> MoverProgress:
    """Everything put together; ``rows_total`` is 0 everywhere, since the source alone knows it.

    :param live: each target tablet's variables by its alias; nothing where they cannot be had.
    """
    phase = look.phase_of(found.streams)
    over = all(stream.handed_over for stream in found.streams)
    lags = [_lag(move, stream, found, live, over=over, reverse=reverse) for stream in found.streams]
    failed = phase is Phase.FAILED
    error = look.error_of(found.streams)
    return MoverProgress(
        phase=phase,
        copied=all(stream.copied for stream in found.streams),
        tables=tuple(
            TableProgress(table, rows, 0) for table, rows in _rows(move, found, live, reverse=reverse).items()
        ),
        streams=tuple(
            StreamProgress(
                source_shard=stream.source_shard,
                target_shard=stream.shard,
                position=stream.position,
                rows_copied=stream.rows_copied,
                events_applied=0,
                lag_seconds=lag,
                throttled_by=stream.throttled,
                # Vitess goes on by itself after an error that it does not call final.
                unmeasured=HANDED_OVER
                if stream.handed_over
                else ("" if failed else look.error_of((stream,))),
            )
            for stream, lag in zip(found.streams, lags, strict=True)
        ),
        lag_seconds=max(lags),
        rows_per_second=0.0,
        eta_seconds=0.0,
        verification=verification,
        ddl="; ".join(dict.fromkeys(look.ddl_of(stream) for stream in found.streams))
        if phase is Phase.DDL
        else "",
        ddl_at="; ".join(
            f"{stream.source_shard} to {stream.shard}: {stream.position}"
            for stream in found.streams
            if look.ddl_of(stream)
        )
        if phase is Phase.DDL
        else "",
        error=error if failed else "",
    )


def _lag(
    move: ClusterMove,
    stream: VStream,
    found: VMove,
    live: Mapping[str, Mapping[str, object]],
    *,
    over: bool,
    reverse: bool,
) -> float:
    if over:
        return 0.0
    lags = look.live_lags(object_of(live.get(stream.tablet, {}).get(LAGS)), move, reverse=reverse)
    if stream.number in lags and stream.copied and stream.state != "Error":
        return lags[stream.number]
    return UNKNOWN_LAG_SECONDS if found.lag_seconds is None else found.lag_seconds


def _rows(
    move: ClusterMove, found: VMove, live: Mapping[str, Mapping[str, object]], *, reverse: bool
) -> dict[str, int]:
    """Rows copied by table. Without a tablet's variables they are only known of all tables together."""
    rows = dict.fromkeys(move.tables, 0)
    for told in live.values():
        for table, count in look.live_rows(object_of(told.get(ROWS)), move, reverse=reverse).items():
            rows[table] += count
    known = sum(stream.rows_copied for stream in found.streams)
    if not any(rows.values()) and known:
        # Those under way have the rest of what is known; of one table it is exact.
        copying = [table for table in move.tables if any(table in stream.copying for stream in found.streams)]
        rows[(copying or list(move.tables))[0]] = known
    return rows
