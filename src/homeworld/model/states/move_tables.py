"""The MoveTables workflow's machine.

Theory of operation. The *phase* is one of the nineteen published states and the only thing that a trigger
looks at together with guards. Four small facts stand beside it and are stored with it: whether replica
traffic is switched, whether primary traffic is switched, when the data was verified (None: never or
stale), and which state an error or a stop interrupted. A working state (copying, switching_…, cutting_over,
reversing_…, cancelling, verifying_data) is left only by what the executor observes; a resting state
(running, verified_data, switched_…, cutover, reversed_cutover, stopped, error) mostly by what a user asks.

Where a user's wish meets work in progress, the work wins: there is no row, so the wish is refused and
nothing has changed. Cancelling is refused from cutover on, because the source tables are gone.
"""

from __future__ import annotations

from enum import StrEnum

from homeworld.model.machine import Kind, Machine, Transition


class State(StrEnum):
    """The published workflow states."""

    PENDING = "pending"
    COPYING = "copying"
    RUNNING = "running"
    STOPPED = "stopped"
    VERIFYING_DATA = "verifying_data"
    VERIFIED_DATA = "verified_data"
    SWITCHING_REPLICAS = "switching_replicas"
    SWITCHED_REPLICAS = "switched_replicas"
    SWITCHING_PRIMARIES = "switching_primaries"
    SWITCHED_PRIMARIES = "switched_primaries"
    REVERSING_TRAFFIC = "reversing_traffic"
    REVERSING_TRAFFIC_FOR_CANCEL = "reversing_traffic_for_cancel"
    CUTTING_OVER = "cutting_over"
    CUTOVER = "cutover"
    REVERSED_CUTOVER = "reversed_cutover"
    COMPLETED = "completed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    ERROR = "error"


class Trigger(StrEnum):
    """Asked triggers carry the name of their API action; the others are what the executor saw."""

    # asked
    VERIFY_DATA = "verify-data"
    SWITCH_REPLICAS = "switch-replicas"
    SWITCH_PRIMARIES = "switch-primaries"
    REVERSE_TRAFFIC = "reverse-traffic"
    CUTOVER = "cutover"
    REVERSE_CUTOVER = "reverse-cutover"
    COMPLETE = "complete"
    CANCEL = "cancel"
    RETRY = "retry"
    # observed
    STARTED = "started"
    COPIED = "copied"
    EQUAL = "equal"
    DIFFERENT = "different"
    DONE = "done"
    NOT_IN_TIME = "not-in-time"
    DDL_SEEN = "ddl-seen"
    FAILED = "failed"


_S = State
_T = Trigger

GUARDS: dict[str, str] = {
    "lag_low": "the workflow's replication lag is above the limit; try again when it has caught up",
    "replicas_switched": "replica traffic was switched before this step",
    "replicas_not_switched": "replica traffic is already switched",
    "was_verified": "the data had been verified before",
    "was_not_verified": "the data had not been verified before",
    "traffic_on_source": "traffic is on the target",
    "traffic_switched": "traffic is on the source",
    "may_cancel": "the source tables are gone; a workflow cannot be cancelled from cutover on",
    "may_retry": "this error cannot be retried; cancel the workflow and create it anew",
    # which state did the error or the stop interrupt?
    "interrupted:pending": "another state was interrupted",
    "interrupted:copying": "another state was interrupted",
    "interrupted:running": "another state was interrupted",
    "interrupted:verified_data": "another state was interrupted",
    "interrupted:verifying_data": "another state was interrupted",
    "interrupted:switching_replicas": "another state was interrupted",
    "interrupted:switched_replicas": "another state was interrupted",
    "interrupted:switching_primaries": "another state was interrupted",
    "interrupted:switched_primaries": "another state was interrupted",
    "interrupted:reversing_traffic": "another state was interrupted",
    "interrupted:reversing_traffic_for_cancel": "another state was interrupted",
    "interrupted:cutting_over": "another state was interrupted",
    "interrupted:cancelling": "another state was interrupted",
}

# States in which the executor has work under way or streams running: any of them can fail.
WORKING = (
    _S.PENDING,
    _S.COPYING,
    _S.RUNNING,
    _S.VERIFYING_DATA,
    _S.VERIFIED_DATA,
    _S.SWITCHING_REPLICAS,
    _S.SWITCHED_REPLICAS,
    _S.SWITCHING_PRIMARIES,
    _S.SWITCHED_PRIMARIES,
    _S.REVERSING_TRAFFIC,
    _S.REVERSING_TRAFFIC_FOR_CANCEL,
    _S.CUTTING_OVER,
    _S.CANCELLING,
)
# States in which a stream follows the binlog and may meet a schema change.
FOLLOWING = (
    _S.COPYING,
    _S.RUNNING,
    _S.VERIFYING_DATA,
    _S.VERIFIED_DATA,
    _S.SWITCHED_REPLICAS,
    _S.SWITCHED_PRIMARIES,
)
STOPPABLE = FOLLOWING


def _asked(
    source: State, trigger: Trigger, to: State, guard: str = "", stamps: tuple[str, ...] = ()
) -> Transition[State, Trigger]:
    return Transition(source, trigger, to, Kind.ASKED, guard, stamps)


def _seen(
    source: State, trigger: Trigger, to: State, guard: str = "", stamps: tuple[str, ...] = ()
) -> Transition[State, Trigger]:
    return Transition(source, trigger, to, Kind.OBSERVED, guard, stamps)


ROWS: tuple[Transition[State, Trigger], ...] = (
    _seen(_S.PENDING, _T.STARTED, _S.COPYING, stamps=("started_at",)),
    _seen(_S.COPYING, _T.COPIED, _S.RUNNING, stamps=("data_copy_completed_at",)),
    # verification
    *(
        _asked(state, _T.VERIFY_DATA, _S.VERIFYING_DATA, stamps=("verify_data_by",))
        for state in (_S.RUNNING, _S.VERIFIED_DATA)
    ),
    _seen(_S.VERIFYING_DATA, _T.EQUAL, _S.VERIFIED_DATA, stamps=("verify_data_at",)),
    _seen(_S.VERIFYING_DATA, _T.DIFFERENT, _S.RUNNING),
    # replica traffic
    *(
        _asked(state, _T.SWITCH_REPLICAS, _S.SWITCHING_REPLICAS, "lag_low", ("switch_replicas_by",))
        for state in (_S.RUNNING, _S.VERIFIED_DATA)
    ),
    _seen(_S.SWITCHING_REPLICAS, _T.DONE, _S.SWITCHED_REPLICAS, stamps=("switch_replicas_at",)),
    _seen(_S.SWITCHING_REPLICAS, _T.NOT_IN_TIME, _S.VERIFIED_DATA, "was_verified"),
    _seen(_S.SWITCHING_REPLICAS, _T.NOT_IN_TIME, _S.RUNNING, "was_not_verified"),
    # primary traffic
    *(
        _asked(state, _T.SWITCH_PRIMARIES, _S.SWITCHING_PRIMARIES, "lag_low", ("switch_primaries_by",))
        for state in (_S.RUNNING, _S.VERIFIED_DATA, _S.SWITCHED_REPLICAS)
    ),
    _seen(_S.SWITCHING_PRIMARIES, _T.DONE, _S.SWITCHED_PRIMARIES, stamps=("switch_primaries_at",)),
    _seen(_S.SWITCHING_PRIMARIES, _T.NOT_IN_TIME, _S.SWITCHED_REPLICAS, "replicas_switched"),
    _seen(_S.SWITCHING_PRIMARIES, _T.NOT_IN_TIME, _S.VERIFIED_DATA, "was_verified"),
    _seen(_S.SWITCHING_PRIMARIES, _T.NOT_IN_TIME, _S.RUNNING, "was_not_verified"),
    # the way back
    *(
        _asked(state, _T.REVERSE_TRAFFIC, _S.REVERSING_TRAFFIC, stamps=("reversed_by",))
        for state in (_S.SWITCHED_REPLICAS, _S.SWITCHED_PRIMARIES)
    ),
    _seen(_S.REVERSING_TRAFFIC, _T.DONE, _S.RUNNING, stamps=("reversed_at",)),
    _seen(_S.REVERSING_TRAFFIC, _T.NOT_IN_TIME, _S.SWITCHED_PRIMARIES, "traffic_switched"),
    _seen(_S.REVERSING_TRAFFIC, _T.NOT_IN_TIME, _S.SWITCHED_REPLICAS, "traffic_on_source"),
    # the end
    _asked(_S.SWITCHED_PRIMARIES, _T.CUTOVER, _S.CUTTING_OVER, stamps=("cutover_by",)),
    _seen(_S.CUTTING_OVER, _T.DONE, _S.CUTOVER, stamps=("cutover_at",)),
    _asked(_S.CUTOVER, _T.REVERSE_CUTOVER, _S.REVERSED_CUTOVER, stamps=("reversed_cutover_by",)),
    _asked(_S.REVERSED_CUTOVER, _T.CUTOVER, _S.CUTOVER, stamps=("cutover_by", "cutover_at")),
    *(
        _asked(state, _T.COMPLETE, _S.COMPLETED, stamps=("completed_by", "completed_at"))
        for state in (_S.CUTOVER, _S.REVERSED_CUTOVER)
    ),
    # giving up
    *(
        _asked(state, _T.CANCEL, _S.CANCELLING, stamps=("cancelled_by",))
        for state in (_S.PENDING, _S.COPYING, _S.RUNNING, _S.VERIFYING_DATA, _S.VERIFIED_DATA)
    ),
    *(
        _asked(state, _T.CANCEL, _S.REVERSING_TRAFFIC_FOR_CANCEL, stamps=("cancelled_by",))
        for state in (_S.SWITCHED_REPLICAS, _S.SWITCHED_PRIMARIES)
    ),
    *(
        row
        for state in (_S.STOPPED, _S.ERROR)
        for row in (
            _asked(state, _T.CANCEL, _S.CANCELLING, "traffic_on_source", ("cancelled_by",)),
            _asked(state, _T.CANCEL, _S.REVERSING_TRAFFIC_FOR_CANCEL, "traffic_switched", ("cancelled_by",)),
        )
    ),
    _seen(_S.REVERSING_TRAFFIC_FOR_CANCEL, _T.DONE, _S.CANCELLING),
    _seen(_S.CANCELLING, _T.DONE, _S.CANCELLED, stamps=("cancelled_at",)),
    # trouble
    *(_seen(state, _T.DDL_SEEN, _S.STOPPED) for state in STOPPABLE),
    *(_seen(state, _T.FAILED, _S.ERROR) for state in WORKING),
    *(
        _asked(_S.ERROR, _T.RETRY, state, f"interrupted:{state}", ("retried_by", "retried_at"))
        for state in WORKING
    ),
    *(
        _asked(_S.STOPPED, _T.RETRY, state, f"interrupted:{state}", ("retried_by", "retried_at"))
        for state in STOPPABLE
    ),
)

TERMINAL: frozenset[State] = frozenset({_S.COMPLETED, _S.CANCELLED})

MOVE_TABLES: Machine[State, Trigger] = Machine("workflow", State, ROWS, TERMINAL, GUARDS)
