"""The MoveTables workflow's machine.

Theory of operation. The *phase* is one of the nineteen published states and, together with guards, the only
thing that a trigger looks at. A few small facts stand beside it and are stored with it (:class:`Facts`):
whether replica traffic is switched, whether primary traffic is switched, whether the data is verified, or was
found to differ, which state an error or a stop interrupted, and from where a switch was asked. A working
state (copying, switching_…, cutting_over, reversing_…, cancelling, verifying_data) is left only by what the
executor observes; a resting state (running, verified_data, switched_…, cutover, reversed_cutover, stopped,
error) mostly by what a user asks.

Where a user's wish meets work in progress, the work wins: there is no row, so the wish is refused and
nothing has changed. The exceptions are cancelling before traffic moved (pending, copying, verifying_data),
stopping (copying, verifying_data) and stopping a verification: their work can be dropped, or left for later,
at any point. Cancelling is refused once a cutover has begun, also from an error, because from then on rows
exist on the target only. A switch that was *not in time* goes back to where it was asked from; a switch that
has committed cannot be not in time any more.

Invariant: a row, its guard and its stamps are all there is to know of a transition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
    # asked, but by no published action of their own
    STOP = "stop"
    STOP_VERIFICATION = "stop-verification"
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

#: In these a workflow has its own holds, locks and positions on its servers: one that ends would set it back.
MOVING_TRAFFIC = frozenset(
    {
        _S.SWITCHING_REPLICAS,
        _S.SWITCHING_PRIMARIES,
        _S.REVERSING_TRAFFIC,
        _S.REVERSING_TRAFFIC_FOR_CANCEL,
        _S.CUTTING_OVER,
        _S.CANCELLING,
    }
)
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
# States in which the forward stream, or the reverse stream, follows the binlog.
FORWARD = (_S.COPYING, _S.RUNNING, _S.VERIFYING_DATA, _S.VERIFIED_DATA, _S.SWITCHED_REPLICAS)
REVERSE = (_S.SWITCHED_PRIMARIES,)
# States in which a stream may meet a schema change and stop for it.
STOPPABLE = (*FORWARD, *REVERSE)

SWITCHABLE = "not_different&lag_low"

GUARDS: dict[str, str] = {
    "not_different": "the last verification found differences; verify the data again once they are mended, "
    "or cancel the workflow",
    "lag_low": "the workflow's replication lag is above the limit; try again when it has caught up",
    "traffic_on_source": "traffic is on the target",
    "traffic_switched": "traffic is on the source",
    "primaries_switched": "primary traffic is on the source",
    "primaries_on_source": "primary traffic is on the target",
    "tables_kept": "a cutover has begun to drop the source tables; the workflow cannot be cancelled any more",
    "may_retry": "retrying cannot mend this; see the workflow's errors",
    **{f"interrupted:{state}": "another state was interrupted" for state in WORKING},
    "from:switched_replicas": "the switch was asked from another state",
    "from:verified_data": "the switch was asked from another state",
    "from:running": "the switch was asked from another state",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What guards read.

    :param verified: the data was compared and found equal since the streams last changed direction.
    :param different: the last comparison that came to its end found differences.
    :param interrupted: the state that an error or a stop interrupted.
    :param lag_low: whether the stream is known, just now, to be close behind.
    """

    replicas_switched: bool = False
    primaries_switched: bool = False
    verified: bool = False
    interrupted: State | None = None
    may_retry: bool = False
    lag_low: bool = False
    different: bool = False

    def holds(self, guard: str) -> bool:
        """Evaluate one guard by name.

        :raises KeyError: no such guard.
        """
        name, _, state = guard.partition(":")
        if name == "interrupted":
            return self.interrupted is not None and self.interrupted == state
        return _PREDICATES[guard](self)


def _origin(facts: Facts) -> State:
    """Where a switch of primaries that did not commit came from. Its facts have not changed since."""
    if facts.replicas_switched:
        return _S.SWITCHED_REPLICAS
    return _S.VERIFIED_DATA if facts.verified else _S.RUNNING


_PREDICATES: dict[str, Callable[[Facts], bool]] = {
    "not_different": lambda facts: not facts.different,
    "lag_low": lambda facts: facts.lag_low,
    "traffic_on_source": lambda facts: not facts.replicas_switched and not facts.primaries_switched,
    "traffic_switched": lambda facts: facts.replicas_switched or facts.primaries_switched,
    "primaries_switched": lambda facts: facts.primaries_switched,
    "primaries_on_source": lambda facts: not facts.primaries_switched,
    "tables_kept": lambda facts: facts.interrupted is not _S.CUTTING_OVER,
    "may_retry": lambda facts: facts.may_retry,
    "from:switched_replicas": lambda facts: _origin(facts) is _S.SWITCHED_REPLICAS,
    "from:verified_data": lambda facts: _origin(facts) is _S.VERIFIED_DATA,
    "from:running": lambda facts: _origin(facts) is _S.RUNNING,
}


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
    _seen(_S.VERIFYING_DATA, _T.NOT_IN_TIME, _S.RUNNING),
    _asked(_S.VERIFYING_DATA, _T.STOP_VERIFICATION, _S.RUNNING),
    # replica traffic
    *(
        _asked(state, _T.SWITCH_REPLICAS, _S.SWITCHING_REPLICAS, SWITCHABLE, ("switch_replicas_by",))
        for state in (_S.RUNNING, _S.VERIFIED_DATA)
    ),
    _seen(_S.SWITCHING_REPLICAS, _T.DONE, _S.SWITCHED_REPLICAS, stamps=("switch_replicas_at",)),
    _seen(_S.SWITCHING_REPLICAS, _T.NOT_IN_TIME, _S.VERIFIED_DATA, "from:verified_data"),
    _seen(_S.SWITCHING_REPLICAS, _T.NOT_IN_TIME, _S.RUNNING, "from:running"),
    # primary traffic
    *(
        _asked(state, _T.SWITCH_PRIMARIES, _S.SWITCHING_PRIMARIES, SWITCHABLE, ("switch_primaries_by",))
        for state in (_S.RUNNING, _S.VERIFIED_DATA, _S.SWITCHED_REPLICAS)
    ),
    _seen(_S.SWITCHING_PRIMARIES, _T.DONE, _S.SWITCHED_PRIMARIES, stamps=("switch_primaries_at",)),
    *(
        _seen(_S.SWITCHING_PRIMARIES, _T.NOT_IN_TIME, state, f"primaries_on_source&from:{state}")
        for state in (_S.SWITCHED_REPLICAS, _S.VERIFIED_DATA, _S.RUNNING)
    ),
    # the way back
    *(
        _asked(state, _T.REVERSE_TRAFFIC, _S.REVERSING_TRAFFIC, stamps=("reversed_by",))
        for state in (_S.SWITCHED_REPLICAS, _S.SWITCHED_PRIMARIES)
    ),
    _seen(_S.REVERSING_TRAFFIC, _T.DONE, _S.RUNNING, stamps=("reversed_at",)),
    _seen(_S.REVERSING_TRAFFIC_FOR_CANCEL, _T.DONE, _S.CANCELLING),
    *(
        row
        for state in (_S.REVERSING_TRAFFIC, _S.REVERSING_TRAFFIC_FOR_CANCEL)
        for row in (
            _seen(state, _T.NOT_IN_TIME, _S.SWITCHED_PRIMARIES, "primaries_switched"),
            _seen(state, _T.NOT_IN_TIME, _S.SWITCHED_REPLICAS, "primaries_on_source&traffic_switched"),
        )
    ),
    # the end
    _asked(_S.SWITCHED_PRIMARIES, _T.CUTOVER, _S.CUTTING_OVER, stamps=("cutover_by",)),
    _seen(_S.CUTTING_OVER, _T.DONE, _S.CUTOVER, stamps=("cutover_at",)),
    _seen(_S.CUTTING_OVER, _T.NOT_IN_TIME, _S.SWITCHED_PRIMARIES),
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
        _asked(state, _T.CANCEL, to, f"tables_kept&{guard}", ("cancelled_by",))
        for state in (_S.STOPPED, _S.ERROR)
        for to, guard in (
            (_S.CANCELLING, "traffic_on_source"),
            (_S.REVERSING_TRAFFIC_FOR_CANCEL, "traffic_switched"),
        )
    ),
    _seen(_S.CANCELLING, _T.DONE, _S.CANCELLED, stamps=("cancelled_at",)),
    # standing still; retry goes on
    *(_asked(state, _T.STOP, _S.STOPPED) for state in FORWARD),
    # trouble
    *(_seen(state, _T.DDL_SEEN, _S.STOPPED) for state in STOPPABLE),
    *(_seen(state, _T.FAILED, _S.ERROR) for state in WORKING),
    *(
        _asked(source, _T.RETRY, state, f"may_retry&interrupted:{state}", ("retried_by", "retried_at"))
        for source, states in ((_S.ERROR, WORKING), (_S.STOPPED, STOPPABLE))
        for state in states
    ),
)

TERMINAL: frozenset[State] = frozenset({_S.COMPLETED, _S.CANCELLED})

MOVE_TABLES: Machine[State, Trigger] = Machine("workflow", State, ROWS, TERMINAL, GUARDS)
