"""decide(): total, in step with the machine, and safe against an interruption after any action.

The world below is a model: it does to itself what the handler does to servers and store. After every action
the test assumes that the process dies there (streams and fleeting steps are gone) and solves again from that
world: the end has to be the same. Then it lets each step fail instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, cast

import pytest

from homeworld.model.errors import TransitionRefusedError
from homeworld.model.movers import Phase
from homeworld.model.ports import MoveWish
from homeworld.model.states.move_tables import FORWARD, MOVE_TABLES, Facts, State, Trigger
from homeworld.workflows.move_tables import decide as d
from homeworld.workflows.move_tables.plans import all_plans
from homeworld.workflows.steps import Perform, Plan, Rest, Run, Sort, Undo, next_move

S, T = State, Trigger


class NoReasons:
    def reasons(self, wish: MoveWish) -> tuple[str, ...]:
        assert wish
        return ()

    def lasting(self, wish: MoveWish) -> tuple[str, ...]:
        return self.reasons(wish)


PLANS = cast("dict[str, Plan[object]]", all_plans(NoReasons()))
FOLLOWING = d.Stream(Phase.FOLLOWING, copied=True)

# What each commit point changes.
COMMITS: dict[str, Callable[[Facts], Facts]] = {
    d.SWITCH_REPLICAS: lambda facts: replace(facts, replicas_switched=True),
    d.SWITCH_PRIMARIES: lambda facts: replace(facts, replicas_switched=True, primaries_switched=True),
    d.REVERSE_REPLICAS: lambda facts: replace(facts, replicas_switched=False),
    d.REVERSE_PRIMARIES: lambda facts: replace(facts, replicas_switched=False, primaries_switched=False),
    d.CUT_OVER: lambda facts: facts,
}


@dataclass(frozen=True)
class World:
    seen: d.Seen
    number: int = 0

    def die(self) -> World:
        """What another process finds."""
        run = self.seen.run
        return replace(
            self,
            seen=replace(
                self.seen,
                run=run.survive(PLANS[run.plan]) if run else None,
                forward=None,
                reverse=None,
                stream_trouble=d.Trouble(),
                step_trouble=d.Trouble(),
            ),
        )

    def change(self, **changes: Any) -> World:
        return replace(self, seen=replace(self.seen, **changes))

    def step(self, name: str) -> World:
        """Perform a step of the open run."""
        run = self.seen.run
        assert run is not None
        world = self.change(run=run.finish(name))
        if PLANS[run.plan].step(name).sort is Sort.COMMIT:
            world = world.change(facts=COMMITS[run.plan](self.seen.facts))
        if name in (d.STOP_STREAM, "stop the streams"):
            world = world.change(forward=None, reverse=None)
        return world

    def fail(self, name: str) -> World:
        """A step of the open run raises, as the handler takes it."""
        run = self.seen.run
        assert run is not None
        if run.committed(PLANS[run.plan]):
            trouble = self.seen.step_trouble
            return self.change(run=run.begin(name), step_trouble=d.Trouble(trouble.count + 1, False, "boom"))
        return self.change(run=replace(run.begin(name), failure="boom"))

    def take(self, action: d.Take) -> World:
        seen = self.seen
        row = MOVE_TABLES.take(seen.state, action.trigger, seen.facts.holds)
        interrupted = seen.state if row.to in (S.ERROR, S.STOPPED) else None
        verified = action.trigger is T.EQUAL or (seen.facts.verified and row.to is not S.RUNNING)
        return self.change(
            state=row.to,
            run=None if action.close else seen.run,
            settled=row.to in (S.CUTOVER, S.CANCELLED),
            facts=replace(seen.facts, verified=verified, interrupted=interrupted, may_retry=action.may_retry),
            step_trouble=d.Trouble(),
        )

    def apply(self, action: d.Action) -> World:
        match action:
            case d.Begin(plan):
                run = Run(plan, self.number + 1, state=self.seen.state)
                return replace(self.change(run=run, step_trouble=d.Trouble()), number=self.number + 1)
            case d.Go(move=Perform(name)):
                return self.step(name)
            case d.Go(move=Undo(name)):
                assert self.seen.run is not None
                return self.change(run=self.seen.run.undo(name))
            case d.Take():
                return self.take(action)
            case d.StartStream(direction):
                facts = replace(self.seen.facts, verified=False)
                assert self.seen.forward is None
                assert self.seen.reverse is None, "one direction at a time"
                return self.change(facts=facts, **{direction: FOLLOWING})
            case d.StopStream(direction):
                return self.change(**{direction: None})
            case d.Compare():
                compared = d.Compared("v", "completed", True, "")
                return self.change(verify_id="v", forward=replace(FOLLOWING, compared=compared))
            case d.Settle():
                return self.change(run=None, settled=True)
            case d.Abandon():
                return self.change(run=None)
            case d.Fail(reason):
                assert self.seen.run is not None
                return self.change(run=replace(self.seen.run, failure=reason))
            case _:
                raise AssertionError(f"unexpected {action}")

    def ask(self, trigger: Trigger) -> World:
        """What the API does."""
        row = MOVE_TABLES.take(self.seen.state, trigger, replace(self.seen.facts, lag_low=True).holds)
        return self.change(state=row.to, settled=False)


def decide(world: World) -> d.Action:
    return d.decide(world.seen, PLANS)


def rests(world: World) -> bool:
    return isinstance(decide(world), Rest)


def solve(world: World) -> list[World]:
    """All worlds up to where there is nothing to do."""
    worlds = [world]
    while not rests(world):
        world = world.apply(decide(world))
        worlds.append(world)
        assert len(worlds) < 200, "it never rests"
    return worlds


def essence(world: World) -> tuple[object, ...]:
    """What must not depend on interruptions. Verification goes stale with a restarted stream; that may."""
    seen = world.seen
    facts = seen.facts
    return seen.state, facts.replicas_switched, facts.primaries_switched, seen.settled, seen.run


def begin(state: State, **facts: Any) -> World:
    return World(d.Seen(state, Facts(**facts)))


# (start, what it ends in undisturbed)
WAYS: dict[str, tuple[World, State]] = {
    "start": (begin(S.PENDING), S.RUNNING),
    "verify": (begin(S.VERIFYING_DATA), S.VERIFIED_DATA),
    "switch replicas": (begin(S.SWITCHING_REPLICAS), S.SWITCHED_REPLICAS),
    "switch primaries": (begin(S.SWITCHING_PRIMARIES), S.SWITCHED_PRIMARIES),
    "switch primaries after replicas": (
        begin(S.SWITCHING_PRIMARIES, replicas_switched=True), S.SWITCHED_PRIMARIES,
    ),
    "reverse replicas": (begin(S.REVERSING_TRAFFIC, replicas_switched=True), S.RUNNING),
    "reverse primaries": (
        begin(S.REVERSING_TRAFFIC, replicas_switched=True, primaries_switched=True), S.RUNNING,
    ),
    "reverse nothing": (begin(S.REVERSING_TRAFFIC), S.RUNNING),
    "cut over": (begin(S.CUTTING_OVER, replicas_switched=True, primaries_switched=True), S.CUTOVER),
    "cancel": (begin(S.CANCELLING), S.CANCELLED),
    "cancel from switched primaries": (
        begin(S.REVERSING_TRAFFIC_FOR_CANCEL, replicas_switched=True, primaries_switched=True), S.CANCELLED,
    ),
    "cancel from switched replicas": (
        begin(S.REVERSING_TRAFFIC_FOR_CANCEL, replicas_switched=True), S.CANCELLED,
    ),
    "settle": (
        begin(S.REVERSED_CUTOVER, replicas_switched=True, primaries_switched=True), S.REVERSED_CUTOVER,
    ),
    "settle completed": (begin(S.COMPLETED, replicas_switched=True, primaries_switched=True), S.COMPLETED),
}  # fmt: skip
each_way = pytest.mark.parametrize("way", WAYS)


@each_way
def test_it_ends_where_it_should(way: str) -> None:
    world, end = WAYS[way]
    assert solve(world)[-1].seen.state is end


@each_way
def test_dying_anywhere_changes_nothing_of_the_end(way: str) -> None:
    """Interrupt after every action, and once more after every action of the recovery."""
    world, _ = WAYS[way]
    straight = solve(world)
    end = essence(straight[-1])
    for once in straight:
        recovery = solve(once.die())
        assert essence(recovery[-1]) == end
        for twice in recovery:
            assert essence(solve(twice.die())[-1]) == end


@each_way
def test_a_death_in_the_middle_of_a_step_changes_nothing_of_the_end(way: str) -> None:
    world, _ = WAYS[way]
    straight = solve(world)
    for at in straight:
        action = decide(at)
        if isinstance(action, d.Go) and at.seen.run is not None:
            begun = at.change(run=at.seen.run.begin(action.move.step))
            assert essence(solve(begun.die())[-1]) == essence(straight[-1])


def origin_of(world: World) -> State:
    """Where a switch that fails before its commit has to come back to."""
    facts = world.seen.facts
    match world.seen.state:
        case S.PENDING:
            return S.ERROR
        case S.SWITCHING_PRIMARIES | S.SWITCHING_REPLICAS:
            if facts.replicas_switched:
                return S.SWITCHED_REPLICAS
            return S.VERIFIED_DATA if facts.verified else S.RUNNING
        case _:
            return S.SWITCHED_PRIMARIES if facts.primaries_switched else S.SWITCHED_REPLICAS


@each_way
def test_each_step_that_fails_is_undone_before_the_commit_and_repeated_after(way: str) -> None:
    world, end = WAYS[way]
    for at in solve(world):
        action = decide(at)
        run = at.seen.run
        if not (isinstance(action, d.Go) and isinstance(action.move, Perform)) or run is None:
            continue
        committed = run.committed(PLANS[run.plan])
        failed = at.fail(action.move.step)
        after = solve(failed)
        assert after[-1].seen.state is (end if committed else origin_of(at))
        if committed:
            continue
        assert after[-1].seen.run is None
        facts = after[-1].seen.facts
        assert facts.replicas_switched == at.seen.facts.replicas_switched
        assert facts.primaries_switched == at.seen.facts.primaries_switched
        undone = [a.move.step for w in after if isinstance(a := decide(w), d.Go)]
        assert undone == [s.name for s in reversed(PLANS[run.plan].steps) if s.name in run.touched | {
            action.move.step
        }]  # fmt: skip
        for dead in after[:-1]:  # dying while undoing: it goes on undoing
            assert solve(dead.die())[-1].seen.state is after[-1].seen.state


@each_way
def test_a_step_that_never_succeeds_after_the_commit_ends_in_an_error_that_can_be_retried(way: str) -> None:
    world, end = WAYS[way]
    for at in solve(world):
        action, run = decide(at), at.seen.run
        if not isinstance(action, d.Go) or run is None or not run.committed(PLANS[run.plan]):
            continue
        for _ in range(d.FAILURES):
            at = at.fail(action.move.step)  # noqa: PLW2901 - it fails again and again
        if at.seen.state in d.SETTLING:
            assert isinstance(decide(at), d.Go), "a resting state has no error; it is tried for ever"
            continue
        stuck = at.apply(decide(at))
        assert stuck.seen.state is S.ERROR
        assert stuck.seen.facts.may_retry
        assert stuck.seen.run is not None
        assert solve(stuck.die().ask(T.RETRY))[-1].seen.state is end


def test_a_committed_switch_is_finished_before_an_error_is_cancelled() -> None:
    for name in ("switch primaries", "reverse primaries"):
        world, _ = WAYS[name]
        for at in solve(world):
            run = at.seen.run
            if run is None or not run.committed(PLANS[run.plan]):
                continue
            error = at.take(d.Take(T.FAILED, "boom", may_retry=True, close=False))
            solved = solve(error.die().ask(T.CANCEL))
            performed = [a.move.step for w in solved if isinstance(a := decide(w), d.Go)]
            assert performed[0] == "publish", performed
            assert solved[-1].seen.state is S.CANCELLED


def test_cancelling_drops_the_run_that_was_under_way() -> None:
    for at in solve(begin(S.PENDING)):
        if at.seen.state in (S.PENDING, S.COPYING):
            solved = solve(at.ask(T.CANCEL))
            assert solved[-1].seen.state is S.CANCELLED
            assert solved[-1].seen.forward is None


def test_a_new_resting_state_is_settled_even_where_the_old_one_was_half_settled() -> None:
    for at in solve(begin(S.REVERSED_CUTOVER, replicas_switched=True, primaries_switched=True)):
        solved = solve(at.ask(T.CUTOVER))
        assert solved[-1].seen.settled
        assert solved[-1].seen.state is S.CUTOVER
        began = [w for w in solved if w.seen.run is not None and w.seen.run.state == S.CUTOVER]
        assert began, "the rules of the new state are put in force by a run of its own"


def test_a_stream_that_meets_ddl_stops_the_workflow_or_fails_the_switch() -> None:
    ddl = d.Stream(Phase.DDL, copied=True, ddl="ALTER TABLE t")
    for state in FORWARD:
        action = d.decide(d.Seen(state, Facts(), forward=ddl), PLANS)
        assert action == d.Take(T.DDL_SEEN, "ALTER TABLE t")
    run = Run(d.SWITCH_PRIMARIES, 1, state=S.SWITCHING_PRIMARIES)
    action = d.decide(d.Seen(S.SWITCHING_PRIMARIES, Facts(), run=run, forward=ddl), PLANS)
    assert action == d.Fail("ALTER TABLE t")


def test_ddl_that_changed_rows_unseen_leaves_only_copying_anew_or_going_on_without_a_way_back() -> None:
    ddl = d.Stream(Phase.DDL, copied=True, ddl="TRUNCATE t", retryable=False)
    for state in FORWARD:
        action = d.decide(d.Seen(state, Facts(), forward=ddl), PLANS)
        assert action == d.Take(T.DDL_SEEN, f"TRUNCATE t; {d.COPY_ANEW}", may_restart=True)
    switched = d.Seen(S.SWITCHED_PRIMARIES, Facts(True, True), reverse=ddl)
    told = f"TRUNCATE t; {d.NO_WAY_BACK}"
    assert d.decide(switched, PLANS) == d.Take(T.DDL_SEEN, told, may_retry=True, no_way_back=True)
    lost = replace(switched, no_way_back=told)
    assert d.decide(lost, PLANS) == d.StopStream("reverse")
    assert d.decide(replace(lost, reverse=None), PLANS) == Rest(d.FOLLOW_SECONDS)
    for state, plan in ((S.REVERSING_TRAFFIC, d.REVERSE_PRIMARIES), (S.CUTTING_OVER, d.CUT_OVER)):
        seen = replace(lost, state=state, reverse=None, run=Run(plan, 1, state=state))
        action = d.decide(seen, PLANS)
        assert action == (d.Fail(told) if plan == d.REVERSE_PRIMARIES else d.Go(Perform("check the source")))


def test_replica_reads_come_back_whatever_the_stream_met() -> None:
    ddl = d.Stream(Phase.DDL, copied=True, ddl="TRUNCATE t", retryable=False)
    state = S.REVERSING_TRAFFIC_FOR_CANCEL
    for forward in (None, ddl):
        run = Run(d.REVERSE_REPLICAS, 1, state=state)
        action = d.decide(d.Seen(state, Facts(replicas_switched=True), run=run, forward=forward), PLANS)
        assert action == d.Go(Perform("wait for replicas"))


def test_what_was_verified_before_a_passed_statement_is_stale() -> None:
    stream = replace(FOLLOWING, passed=2, compared=d.Compared("v", "completed", True, ""))
    seen = d.Seen(S.VERIFYING_DATA, Facts(), verify_id="v", forward=stream)
    assert d.decide(replace(seen, verify_passed=2), PLANS) == d.Take(T.EQUAL, "")
    assert d.decide(replace(seen, verify_passed=1), PLANS) == d.Compare()
    for state in (S.VERIFIED_DATA, S.SWITCHED_REPLICAS):
        verified = replace(seen, state=state, facts=Facts(verified=True))
        assert d.decide(verified, PLANS) == d.Outdate()
        assert d.decide(replace(verified, verify_passed=2), PLANS) == Rest(d.FOLLOW_SECONDS)


def test_a_failing_stream_is_restarted_and_given_up_after_some_failures() -> None:
    failed = d.Stream(Phase.FAILED, error="lost connection")
    hopeless = d.Stream(Phase.FAILED, error="purged", retryable=False)
    seen = d.Seen(S.RUNNING, Facts(), forward=failed)
    assert d.decide(seen, PLANS) == d.StopStream("forward", "lost connection")
    out = replace(seen, forward=replace(failed, outage=True))
    assert d.decide(out, PLANS) == d.StopStream("forward", "lost connection", outage=True)
    assert d.decide(replace(seen, forward=None), PLANS) == d.StartStream("forward")
    pausing = replace(seen, forward=None, stream_trouble=d.Trouble(1, True, "x"))
    assert isinstance(d.decide(pausing, PLANS), Rest)
    over = replace(seen, forward=None, stream_trouble=d.Trouble(d.FAILURES, False, "x"))
    assert d.decide(over, PLANS) == d.Take(T.FAILED, "x", may_retry=True)
    assert d.decide(replace(seen, forward=hopeless), PLANS) == d.Take(T.FAILED, "purged", may_restart=True)


def test_verification_reports_what_it_found() -> None:
    def after(state: str, equal: bool) -> d.Action:
        stream = replace(FOLLOWING, compared=d.Compared("v", state, equal, "3 rows differ"))
        return d.decide(d.Seen(S.VERIFYING_DATA, Facts(), verify_id="v", forward=stream), PLANS)

    assert after("completed", equal=True) == d.Take(T.EQUAL, "3 rows differ")
    assert after("completed", equal=False) == d.Take(T.DIFFERENT, "3 rows differ")
    assert after("error", equal=False) == d.Take(T.NOT_IN_TIME, "3 rows differ")
    assert isinstance(after("started", equal=False), Rest)
    # Differences that were found before it broke off hold switches back, too.
    broken = d.Compared("v", "error", equal=False, summary="2 rows differ", different=True)
    seen = d.Seen(S.VERIFYING_DATA, Facts(), verify_id="v", forward=replace(FOLLOWING, compared=broken))
    assert d.decide(seen, PLANS) == d.Take(T.DIFFERENT, "2 rows differ")


def test_a_comparison_that_nobody_asks_for_ends_with_its_mover() -> None:
    stream = replace(FOLLOWING, compared=d.Compared("v", "started", False, ""))
    stopped = d.Seen(S.RUNNING, Facts(), forward=stream)
    assert d.decide(stopped, PLANS) == d.StopStream(d.FORWARD_STREAM)
    # Asked for anew before anybody had looked: the old one ends first.
    again = d.Seen(S.VERIFYING_DATA, Facts(), verify_id="w", forward=stream)
    assert d.decide(again, PLANS) == d.StopStream(d.FORWARD_STREAM)
    assert d.decide(replace(again, verify_id="v"), PLANS) == Rest(d.SOON_SECONDS)
    assert d.decide(replace(again, forward=FOLLOWING), PLANS) == d.Compare("w")
    ended = replace(FOLLOWING, compared=d.Compared("v", "completed", True, ""))
    assert d.decide(replace(stopped, forward=ended), PLANS) == Rest(d.FOLLOW_SECONDS)


def test_a_verification_is_gone_on_with_by_a_later_stream() -> None:
    seen = d.Seen(S.VERIFYING_DATA, Facts(), verify_id="v", forward=FOLLOWING)
    assert d.decide(seen, PLANS) == d.Compare("v")
    for state in ("completed", "error"):
        stale = replace(FOLLOWING, passed=1, compared=d.Compared("v", state, equal=True, summary=""))
        # A schema statement came in between: not what was compared goes on, all begins anew.
        assert d.decide(replace(seen, forward=stale), PLANS) == d.Compare()


def test_a_stream_that_has_just_started_is_not_asked_to_compare() -> None:
    starting = d.Stream(Phase.COPYING)
    seen = d.Seen(S.VERIFYING_DATA, Facts(), forward=starting)
    assert d.decide(seen, PLANS) == Rest(d.SOON_SECONDS)
    assert d.decide(replace(seen, forward=FOLLOWING), PLANS) == d.Compare()


def test_copying_ends_when_copied_and_close_behind() -> None:
    def after(stream: d.Stream) -> d.Action:
        return d.decide(d.Seen(S.COPYING, Facts(), forward=stream), PLANS)

    assert after(FOLLOWING) == d.Take(T.COPIED)
    assert isinstance(after(replace(FOLLOWING, lag_seconds=60.0)), Rest)
    assert isinstance(after(replace(FOLLOWING, copied=False)), Rest)


def test_an_error_holds_and_runs_nothing() -> None:
    seen = d.Seen(S.ERROR, Facts(interrupted=S.RUNNING), forward=FOLLOWING)
    assert d.decide(seen, PLANS, holding=True) == d.LetGo()
    assert d.decide(seen, PLANS) == d.StopStream("forward")
    assert d.decide(replace(seen, forward=None), PLANS) == Rest(d.IDLE_SECONDS, keep=False)
    assert d.decide(replace(seen, state=S.STOPPED, forward=None), PLANS) == d.CompareSchemas()


STREAMS = [
    None, FOLLOWING, *(d.Stream(phase, error="e", ddl="d") for phase in Phase),
    d.Stream(Phase.FAILED, error="e", retryable=False),
    *(replace(FOLLOWING, compared=d.Compared(v, s, s == "completed", "")) for v in ("v", "w")
      for s in ("started", "completed", "error")),
]  # fmt: skip


def runs_of(state: State) -> list[Run | None]:
    """Every run that can be open in a state: of its own plan, or a committed one of an earlier state."""
    runs: list[Run | None] = [None]
    for plan in PLANS.values():
        run = Run(plan.name, 1, state=state)
        at: list[Run] = []
        for step in plan.steps:
            at += [run, run.begin(step.name), replace(run.begin(step.name), failure="f")]
            run = run.finish(step.name)
        runs += [*at, run, *(one.survive(plan) for one in at)]
    return list(dict.fromkeys(runs))


def possible(state: State, facts: Facts, run: Run | None) -> bool:
    """Whether the store's invariants let a world be like this."""
    committed = run is not None and PLANS[run.plan].commit in run.done
    if run is not None and committed:
        changed = COMMITS[run.plan](facts)
        if changed != facts:
            return False
    own = d.plan_for(d.Seen(state, facts))
    if state is S.SWITCHING_PRIMARIES:
        return facts.primaries_switched == (run is not None and run.plan == own and committed)
    if state is S.SWITCHING_REPLICAS:
        moved = run is not None and run.plan == own and committed
        return not facts.primaries_switched and facts.replicas_switched == moved
    if run is None or committed:
        return True
    if state in (S.REVERSING_TRAFFIC, S.REVERSING_TRAFFIC_FOR_CANCEL):
        return run.plan not in (d.REVERSE_PRIMARIES, d.REVERSE_REPLICAS) or run.plan == own
    return True


@pytest.mark.parametrize("state", list(State))
def test_it_is_total_and_takes_only_what_the_machine_allows(state: State) -> None:
    answered = 0
    verified = state in (S.SWITCHING_PRIMARIES, S.SWITCHING_REPLICAS, S.VERIFIED_DATA)
    for run, (replicas, primaries), trouble in product(
        runs_of(state), ((False, False), (True, False), (True, True)),
        (d.Trouble(), d.Trouble(1, True, "t"), d.Trouble(d.FAILURES, False, "t")),
    ):  # fmt: skip
        facts = Facts(replicas, primaries, verified)
        if not possible(state, facts, run):
            continue
        for forward in STREAMS if run is None else STREAMS[:4]:
            reverse = FOLLOWING if forward is None and primaries else None
            seen = d.Seen(state, facts, run, False, "v", forward, reverse, trouble, trouble)
            action = d.decide(seen, PLANS)
            answered += 1
            if isinstance(action, d.Take):
                try:
                    MOVE_TABLES.take(state, action.trigger, facts.holds)
                except TransitionRefusedError as refusal:
                    pytest.fail(f"{seen}: {action} is refused: {refusal}")
    assert answered > 50


def test_the_commit_point_is_what_divides_undo_from_forward() -> None:
    for plan in PLANS.values():
        run = Run(plan.name, 1)
        for step in plan.steps:
            failed = replace(run, failure="f")
            move = next_move(plan, failed)
            assert isinstance(move, Perform) == run.committed(plan)
            run = run.finish(step.name)


def test_steps_under_the_hold_write_nothing_but_the_commit() -> None:
    for name in (d.SWITCH_PRIMARIES, d.REVERSE_PRIMARIES):
        names = [step.name for step in PLANS[name].steps]
        held = PLANS[name].steps[names.index("hold") : names.index("unfence") + 1]
        assert [step.name for step in held if step.sort is not Sort.FLEETING] == ["commit"]
        assert names.index("commit") < names.index("publish") < names.index("release")
        assert names.index("release") < names.index(d.STOP_STREAM) < names.index("unfence")
