"""What a MoveTables workflow needs next: one pure, total function.

It gets plain values (:class:`Seen`) and gives one :class:`Action`; it asks nothing, changes nothing and knows
no clock: pauses come in as facts. The handler performs the action, looks again and asks again, so an
interruption after any action loses nothing but what :mod:`homeworld.workflows.steps` calls fleeting.

Invariants: an open run that has committed is finished before anything else, whatever the state has become; a
run that has not committed and does not belong to the state is abandoned; at most one direction streams.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from homeworld.model.movers import Phase
from homeworld.model.states.move_tables import FORWARD, REVERSE, WORKING, Facts, State, Trigger
from homeworld.workflows.steps import Finished, Move, Perform, Plan, Rest, Run, Undo, Undone, next_move

LAG_LOW_SECONDS = 5.0
FAILURES = 5
FOLLOW_SECONDS = 1.0
SOON_SECONDS = 0.25  # where something is about to end
IDLE_SECONDS = 5.0

START = "start"
SWITCH_REPLICAS = "switch-replicas"
SWITCH_PRIMARIES = "switch-primaries"
REVERSE_REPLICAS = "reverse-replicas"
REVERSE_PRIMARIES = "reverse-primaries"
CUT_OVER = "cut-over"
CANCEL = "cancel"
SETTLE = "settle"

FORWARD_STREAM = "forward"
REVERSE_STREAM = "reverse"

# The direction that has to stream until a plan's commit point, or until the step that stops it. Replica reads
# come back to the source without one: its replicas depend on no stream.
STREAM_OF: Mapping[str, str] = {
    SWITCH_REPLICAS: FORWARD_STREAM,
    SWITCH_PRIMARIES: FORWARD_STREAM,
    REVERSE_PRIMARIES: REVERSE_STREAM,
    CUT_OVER: REVERSE_STREAM,
}
STOP_STREAM = "stop the stream"

COPY_ANEW = (
    "to go on would leave other rows on the target than on the source. Cancel this workflow and create it "
    "anew: only a new copy has the same rows"
)
NO_WAY_BACK = (
    "the source's tables cannot follow any more, so traffic cannot come back to them. Retry goes on without "
    "the way back; then cut over"
)

# What workflow_errors says of a stream for as long as it does not run; the reason follows.
NOT_RUNNING = "the {} stream does not run and is tried again: "

SETTLING = (State.CUTOVER, State.REVERSED_CUTOVER, State.COMPLETED)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Failures in a row of one thing, and whether the pause after the newest is still on.

    :param count: those that count; an outage does only where it has lasted for long.
    :param tries: all of them.
    """

    count: int = 0
    waiting: bool = False
    reason: str = ""
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Compared:
    """A verification as a stream tells of it. ``different``: it found something, whether or not it ended."""

    verify_id: str
    state: str
    equal: bool
    summary: str
    different: bool = False

    @property
    def under_way(self) -> bool:
        """Whether it has not come to its end."""
        return self.state not in ("completed", "error")


@dataclass(frozen=True, slots=True)
class Stream:
    """A live mover, as far as decisions go."""

    phase: Phase
    copied: bool = False
    lag_seconds: float = 0.0
    error: str = ""
    ddl: str = ""
    retryable: bool = True
    emptied: tuple[str, ...] = ()
    passed: int = 0
    outage: bool = False
    compared: Compared | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything a decision depends on, read at one moment by the lease's holder.

    :param settled: what the resting state asks of routes is done.
    :param verify_id: the verification that counts, if any; ``verify_passed``: how many schema statements the
        stream had passed when it began.
    :param no_way_back: why the reverse stream can never go on; empty: it can.
    """

    state: State
    facts: Facts
    run: Run | None = None
    settled: bool = False
    verify_id: str = ""
    forward: Stream | None = None
    reverse: Stream | None = None
    stream_trouble: Trouble = Trouble()
    step_trouble: Trouble = Trouble()
    verify_passed: int = 0
    no_way_back: str = ""

    def stream(self, direction: str) -> Stream | None:
        """The live stream of that direction."""
        return self.forward if direction == FORWARD_STREAM else self.reverse


@dataclass(frozen=True, slots=True)
class Begin:
    """Open a run of this plan."""

    plan: str


@dataclass(frozen=True, slots=True)
class Go:
    """Perform or undo one step of the open run."""

    move: Perform | Undo


@dataclass(frozen=True, slots=True)
class Fail:
    """Mark the open run as failed: from now on it is undone."""

    reason: str


@dataclass(frozen=True, slots=True)
class Abandon:
    """Close the open run without a transition: it has nothing left to do, or the state has moved away."""


@dataclass(frozen=True, slots=True)
class Take:
    """Take the transition of this trigger, closing the open run where ``close`` says so.

    :param emptied: tables that have to be empty where the stream leads before it may go on.
    :param no_way_back: the reverse stream can never go on.
    """

    trigger: Trigger
    why: str = ""
    may_retry: bool = False
    may_restart: bool = False
    close: bool = True
    emptied: tuple[str, ...] = ()
    no_way_back: bool = False


@dataclass(frozen=True, slots=True)
class Settle:
    """Close the open run and note that the state's rules are in force."""


@dataclass(frozen=True, slots=True)
class StartStream:
    """Start the mover of this direction under a new epoch."""

    direction: str


@dataclass(frozen=True, slots=True)
class StopStream:
    """Stop the mover of this direction; ``trouble`` is what was wrong with it, if anything, and ``outage``
    whether that was a server that does not answer.
    """

    direction: str
    trouble: str = ""
    outage: bool = False


@dataclass(frozen=True, slots=True)
class Compare:
    """Begin a verification under a new id, or go on with one that an earlier stream began.

    :param verify_id: that one's; empty: a new one.
    """

    verify_id: str = ""


@dataclass(frozen=True, slots=True)
class Outdate:
    """The verification says nothing any more of the data as it is now."""


@dataclass(frozen=True, slots=True)
class CompareSchemas:
    """Look whether the other side's tables fit again, tell, and rest."""


@dataclass(frozen=True, slots=True)
class LetGo:
    """Drop what only lives in this process (holds, locks): nobody works on the run now."""


StreamAction = StartStream | StopStream | Compare | Outdate | CompareSchemas
Action = Begin | Go | Fail | Abandon | Take | Settle | StreamAction | LetGo | Rest


def decide(seen: Seen, plans: Mapping[str, Plan[object]], *, holding: bool = False) -> Action:
    """The one next action.

    :param plans: every plan by name.
    :param holding: whether this process has locks or holds of the workflow.
    """
    if seen.state in (State.ERROR, State.STOPPED):
        return _halted(seen, holding=holding)
    if seen.run is not None:
        return _run(seen, seen.run, plans[seen.run.plan])
    plan = plan_for(seen)
    if plan:
        return Begin(plan)
    if seen.state in (State.REVERSING_TRAFFIC, State.REVERSING_TRAFFIC_FOR_CANCEL):
        return Take(Trigger.DONE)  # there is nothing left to reverse
    if seen.state in FORWARD or seen.state in REVERSE:
        return _follow(seen)
    return _stop_any(seen) or Rest(IDLE_SECONDS, keep=False)


def plan_for(seen: Seen) -> str:
    """The plan whose run the state asks for, or the empty string."""
    state, facts = seen.state, seen.facts
    if state in (State.REVERSING_TRAFFIC, State.REVERSING_TRAFFIC_FOR_CANCEL):
        if facts.primaries_switched:
            return REVERSE_PRIMARIES
        return REVERSE_REPLICAS if facts.replicas_switched else ""
    if state in SETTLING:
        return "" if seen.settled else SETTLE
    return {
        State.PENDING: START,
        State.SWITCHING_REPLICAS: SWITCH_REPLICAS,
        State.SWITCHING_PRIMARIES: SWITCH_PRIMARIES,
        State.CUTTING_OVER: CUT_OVER,
        State.CANCELLING: CANCEL,
    }.get(state, "")


def _belongs(seen: Seen, run: Run) -> bool:
    if run.plan == SETTLE:
        return seen.state in SETTLING and run.state == seen.state and not seen.settled
    if run.plan in (REVERSE_PRIMARIES, REVERSE_REPLICAS):
        return seen.state in (State.REVERSING_TRAFFIC, State.REVERSING_TRAFFIC_FOR_CANCEL)
    return run.plan == plan_for(Seen(seen.state, Facts()))


def _run(seen: Seen, run: Run, plan: Plan[object]) -> Action:
    committed = run.committed(plan)
    belongs = _belongs(seen, run)
    if not belongs and (not committed or run.plan == SETTLE):
        return Abandon()
    if not committed and not run.failure:
        first = _stream_for(seen, run)
        if first is not None:
            return first
    trouble = seen.step_trouble
    if trouble.count >= FAILURES and seen.state in WORKING:
        return Take(Trigger.FAILED, trouble.reason, may_retry=True, close=False)
    if trouble.waiting:
        return Rest(FOLLOW_SECONDS)
    move: Move = next_move(plan, run)
    match move:
        case Perform() | Undo():
            return Go(move)
        case Finished():
            if not belongs:
                return Abandon()
            if seen.state in SETTLING:
                return Settle()
            return Take(Trigger.STARTED if run.plan == START else Trigger.DONE)
        case Undone(failure):
            if run.plan == START:
                return Take(Trigger.FAILED, failure, may_retry=True)
            return Take(Trigger.NOT_IN_TIME, failure)


def _stream_for(seen: Seen, run: Run) -> Action | None:
    """What has to be done first so that the stream which this uncommitted run relies on is alive."""
    direction = STREAM_OF.get(run.plan, "")
    if not direction or STOP_STREAM in run.done:
        return None
    if direction == REVERSE_STREAM and seen.no_way_back:
        return None if run.plan == CUT_OVER else Fail(seen.no_way_back)
    stream, trouble = seen.stream(direction), seen.stream_trouble
    if stream is None:
        if trouble.count >= FAILURES:
            return Fail(trouble.reason)
        return Rest(FOLLOW_SECONDS) if trouble.waiting else StartStream(direction)
    if stream.phase is Phase.DDL:
        return Fail(stream.ddl)
    if stream.phase in (Phase.FAILED, Phase.STOPPED):
        return Fail(stream.error) if not stream.retryable else _stop_failed(direction, stream)
    return None


def _stop_failed(direction: str, stream: Stream) -> StopStream:
    return StopStream(direction, _wrong(stream), outage=stream.outage)


def _wrong(stream: Stream) -> str:
    return stream.error or "the stream stopped by itself"


def _stop_any(seen: Seen) -> Action | None:
    for direction in (FORWARD_STREAM, REVERSE_STREAM):
        if seen.stream(direction) is not None:
            return StopStream(direction)
    return None


def _halted(seen: Seen, *, holding: bool) -> Action:
    if holding:
        return LetGo()
    stop = _stop_any(seen)
    if stop is not None:
        return stop
    return CompareSchemas() if seen.state is State.STOPPED else Rest(IDLE_SECONDS, keep=False)


def _follow(seen: Seen) -> Action:
    direction, other = (
        (FORWARD_STREAM, REVERSE_STREAM) if seen.state in FORWARD else (REVERSE_STREAM, FORWARD_STREAM)
    )
    if seen.stream(other) is not None:
        return StopStream(other)
    stream, trouble = seen.stream(direction), seen.stream_trouble
    if direction == REVERSE_STREAM and seen.no_way_back:
        return Rest(FOLLOW_SECONDS) if stream is None else StopStream(direction)
    if trouble.count >= FAILURES:
        return Take(Trigger.FAILED, trouble.reason, may_retry=True)
    if seen.state is State.VERIFYING_DATA and stream is None and trouble.tries >= FAILURES:
        # Whoever asked learns it now, however long the outage will be waited for.
        return Take(Trigger.NOT_IN_TIME, f"the data could not be verified: {trouble.reason}")
    if stream is None:
        return Rest(FOLLOW_SECONDS) if trouble.waiting else StartStream(direction)
    if stream.phase is Phase.DDL:
        return _met_ddl(direction, stream)
    if stream.phase is Phase.FAILED and not stream.retryable:
        return Take(Trigger.FAILED, _wrong(stream), may_restart=True)
    if stream.phase in (Phase.FAILED, Phase.STOPPED):
        return _stop_failed(direction, stream)
    if seen.state is State.COPYING and stream.copied and stream.lag_seconds <= LAG_LOW_SECONDS:
        return Take(Trigger.COPIED)
    if seen.facts.verified and stream.passed != seen.verify_passed:
        return Outdate()
    compared = stream.compared
    if compared is not None and compared.under_way and compared.verify_id != seen.verify_id:
        # Nobody asks for it any more; it ends with its mover, and only then can another begin.
        return StopStream(direction)
    if seen.state is State.VERIFYING_DATA:
        return _verifying(seen, stream)
    return Rest(SOON_SECONDS if seen.state is State.COPYING else FOLLOW_SECONDS)


def _met_ddl(direction: str, stream: Stream) -> Action:
    if stream.retryable:
        return Take(Trigger.DDL_SEEN, stream.ddl, emptied=stream.emptied)
    if direction == FORWARD_STREAM:
        return Take(Trigger.DDL_SEEN, f"{stream.ddl}; {COPY_ANEW}", may_restart=True)
    return Take(Trigger.DDL_SEEN, f"{stream.ddl}; {NO_WAY_BACK}", may_retry=True, no_way_back=True)


def _verifying(seen: Seen, stream: Stream) -> Action:
    if stream.phase is not Phase.FOLLOWING or not stream.copied:
        return Rest(SOON_SECONDS)  # just started: it has nothing to compare yet
    compared = stream.compared
    if compared is None or not seen.verify_id or compared.verify_id != seen.verify_id:
        return Compare(seen.verify_id)
    if compared.state in ("completed", "error") and stream.passed != seen.verify_passed:
        return Compare()  # a schema statement was passed meanwhile: that says nothing of what is there now
    if compared.state == "error":
        # What it found before is there all the same.
        return Take(Trigger.DIFFERENT if compared.different else Trigger.NOT_IN_TIME, compared.summary)
    if compared.state == "completed":
        return Take(Trigger.EQUAL if compared.equal else Trigger.DIFFERENT, compared.summary)
    return Rest(SOON_SECONDS)
