"""Each state by each trigger of the workflow's machine, and what must never be possible in it."""

from __future__ import annotations

from itertools import product

import pytest

from homeworld.model.errors import TransitionRefusedError
from homeworld.model.machine import Kind, Machine, Transition
from homeworld.model.states.move_tables import (
    FORWARD,
    GUARDS,
    MOVE_TABLES,
    REVERSE,
    ROWS,
    STOPPABLE,
    TERMINAL,
    WORKING,
    Facts,
    State,
    Trigger,
)

S, T = State, Trigger
BOTH = (False, True)


def all_facts() -> list[Facts]:
    """Every combination of facts that the store can hold."""
    return [
        Facts(replicas, primaries, verified, interrupted, may_retry, lag_low, different)
        for replicas, primaries, verified, interrupted, may_retry, lag_low, different in product(
            BOTH, BOTH, BOTH, (None, *WORKING), BOTH, BOTH, BOTH
        )
        if (replicas or not primaries) and not (verified and different)
    ]


FACTS = all_facts()


def targets(state: State, trigger: Trigger) -> set[State]:
    return {row.to for row in ROWS if row.source is state and row.trigger is trigger}


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("trigger", list(Trigger))
def test_each_state_and_trigger_has_one_answer_under_all_facts(state: State, trigger: Trigger) -> None:
    for facts in FACTS:
        allowed = [
            row
            for row in ROWS
            if row.source is state and row.trigger is trigger and all(map(facts.holds, row.guard_names))
        ]
        assert len(allowed) <= 1, f"{facts} allows {allowed}"
        if allowed:
            assert MOVE_TABLES.take(state, trigger, facts.holds) is allowed[0]
            continue
        with pytest.raises(TransitionRefusedError) as refusal:
            MOVE_TABLES.take(state, trigger, facts.holds)
        assert refusal.value.facts == {"state": state, "trigger": trigger}
        sentences = refusal.value.message.split("; ")
        assert len(sentences) == len(set(sentences)), "a refusal does not repeat itself"


# What the published actions may lead to, written down once more by hand: (state, action) to states.
ASKED: dict[tuple[State, Trigger], set[State]] = {
    (S.RUNNING, T.VERIFY_DATA): {S.VERIFYING_DATA},
    (S.VERIFIED_DATA, T.VERIFY_DATA): {S.VERIFYING_DATA},
    (S.RUNNING, T.SWITCH_REPLICAS): {S.SWITCHING_REPLICAS},
    (S.VERIFIED_DATA, T.SWITCH_REPLICAS): {S.SWITCHING_REPLICAS},
    (S.RUNNING, T.SWITCH_PRIMARIES): {S.SWITCHING_PRIMARIES},
    (S.VERIFIED_DATA, T.SWITCH_PRIMARIES): {S.SWITCHING_PRIMARIES},
    (S.SWITCHED_REPLICAS, T.SWITCH_PRIMARIES): {S.SWITCHING_PRIMARIES},
    (S.SWITCHED_REPLICAS, T.REVERSE_TRAFFIC): {S.REVERSING_TRAFFIC},
    (S.SWITCHED_PRIMARIES, T.REVERSE_TRAFFIC): {S.REVERSING_TRAFFIC},
    (S.SWITCHED_PRIMARIES, T.CUTOVER): {S.CUTTING_OVER},
    (S.REVERSED_CUTOVER, T.CUTOVER): {S.CUTOVER},
    (S.CUTOVER, T.REVERSE_CUTOVER): {S.REVERSED_CUTOVER},
    (S.CUTOVER, T.COMPLETE): {S.COMPLETED},
    (S.REVERSED_CUTOVER, T.COMPLETE): {S.COMPLETED},
    (S.PENDING, T.CANCEL): {S.CANCELLING},
    (S.COPYING, T.CANCEL): {S.CANCELLING},
    (S.RUNNING, T.CANCEL): {S.CANCELLING},
    (S.VERIFYING_DATA, T.CANCEL): {S.CANCELLING},
    (S.VERIFIED_DATA, T.CANCEL): {S.CANCELLING},
    (S.SWITCHED_REPLICAS, T.CANCEL): {S.REVERSING_TRAFFIC_FOR_CANCEL},
    (S.SWITCHED_PRIMARIES, T.CANCEL): {S.REVERSING_TRAFFIC_FOR_CANCEL},
    (S.STOPPED, T.CANCEL): {S.CANCELLING, S.REVERSING_TRAFFIC_FOR_CANCEL},
    (S.ERROR, T.CANCEL): {S.CANCELLING, S.REVERSING_TRAFFIC_FOR_CANCEL},
    (S.STOPPED, T.RETRY): set(STOPPABLE),
    (S.ERROR, T.RETRY): set(WORKING),
    # by no published action of their own
    (S.COPYING, T.STOP): {S.STOPPED},
    (S.RUNNING, T.STOP): {S.STOPPED},
    (S.VERIFYING_DATA, T.STOP): {S.STOPPED},
    (S.VERIFIED_DATA, T.STOP): {S.STOPPED},
    (S.SWITCHED_REPLICAS, T.STOP): {S.STOPPED},
    (S.VERIFYING_DATA, T.STOP_VERIFICATION): {S.RUNNING},
}
UNPUBLISHED = {T.STOP, T.STOP_VERIFICATION}


def test_actions_are_possible_exactly_where_they_are_published() -> None:
    found = {(row.source, row.trigger) for row in ROWS if row.kind is Kind.ASKED}
    assert found == set(ASKED)
    for (state, action), to in ASKED.items():
        assert targets(state, action) == to


def test_kinds_do_not_mix() -> None:
    kinds: dict[Trigger, set[Kind]] = {}
    for row in ROWS:
        kinds.setdefault(row.trigger, set()).add(row.kind)
    assert all(len(kind) == 1 for kind in kinds.values())
    assert set(kinds) == set(Trigger)


def test_stamps_follow_the_published_fields() -> None:
    for row in ROWS:
        if row.trigger in UNPUBLISHED:
            assert row.stamps == ()  # the journal says who asked; there is no field for it
        elif row.kind is Kind.ASKED:
            assert any(stamp.endswith("_by") for stamp in row.stamps), row
        else:
            assert not any(stamp.endswith("_by") for stamp in row.stamps), row


def test_what_is_over_stays_over() -> None:
    assert {S.COMPLETED, S.CANCELLED} == TERMINAL
    for state in TERMINAL:
        for trigger in Trigger:
            with pytest.raises(TransitionRefusedError):
                MOVE_TABLES.take(state, trigger, lambda _guard: True)


def test_every_state_can_be_reached_and_left() -> None:
    reached, frontier = {S.PENDING}, [S.PENDING]
    while frontier:
        state = frontier.pop()
        new = {row.to for row in ROWS if row.source is state} - reached
        reached |= new
        frontier += new
    assert reached == set(State)
    for state in set(State) - TERMINAL:
        ends, frontier = set[State](), [state]
        while frontier:
            current = frontier.pop()
            new = {row.to for row in ROWS if row.source is current} - ends
            ends |= new
            frontier += new
        assert ends & TERMINAL, f"{state} leads nowhere"


def test_no_cancel_once_a_cutover_has_begun() -> None:
    for state in (S.CUTTING_OVER, S.CUTOVER, S.REVERSED_CUTOVER):
        assert T.CANCEL not in MOVE_TABLES.triggers_from(state, Kind.ASKED)
    facts = Facts(True, True, interrupted=S.CUTTING_OVER, may_retry=True)
    with pytest.raises(TransitionRefusedError, match="drop the source tables"):
        MOVE_TABLES.take(S.ERROR, T.CANCEL, facts.holds)
    assert MOVE_TABLES.take(S.ERROR, T.RETRY, facts.holds).to is S.CUTTING_OVER


@pytest.mark.parametrize("state", [S.STOPPED, S.ERROR])
def test_cancel_takes_traffic_back_first_where_any_was_switched(state: State) -> None:
    for facts in FACTS:
        if facts.interrupted is S.CUTTING_OVER:
            continue
        to = MOVE_TABLES.take(state, T.CANCEL, facts.holds).to
        switched = facts.replicas_switched or facts.primaries_switched
        assert to is (S.REVERSING_TRAFFIC_FOR_CANCEL if switched else S.CANCELLING)


def test_a_switch_that_was_not_in_time_returns_to_where_it_was_asked() -> None:
    returns = {
        S.RUNNING: Facts(),
        S.VERIFIED_DATA: Facts(verified=True),
        S.SWITCHED_REPLICAS: Facts(replicas_switched=True, verified=True),
    }
    for state, facts in returns.items():
        assert MOVE_TABLES.take(S.SWITCHING_PRIMARIES, T.NOT_IN_TIME, facts.holds).to is state
    committed = Facts(True, True, verified=True)
    with pytest.raises(TransitionRefusedError, match="primary traffic is on the target"):
        MOVE_TABLES.take(S.SWITCHING_PRIMARIES, T.NOT_IN_TIME, committed.holds)


@pytest.mark.parametrize("state", [S.REVERSING_TRAFFIC, S.REVERSING_TRAFFIC_FOR_CANCEL])
def test_a_way_back_that_was_not_in_time_leaves_traffic_where_it_is(state: State) -> None:
    primaries, replicas = Facts(True, True), Facts(replicas_switched=True)
    assert MOVE_TABLES.take(state, T.NOT_IN_TIME, primaries.holds).to is S.SWITCHED_PRIMARIES
    assert MOVE_TABLES.take(state, T.NOT_IN_TIME, replicas.holds).to is S.SWITCHED_REPLICAS
    with pytest.raises(TransitionRefusedError):
        MOVE_TABLES.take(state, T.NOT_IN_TIME, Facts().holds)


def test_lag_holds_switches_back() -> None:
    for state in (S.RUNNING, S.VERIFIED_DATA):
        for action in (T.SWITCH_REPLICAS, T.SWITCH_PRIMARIES):
            with pytest.raises(TransitionRefusedError, match="replication lag"):
                MOVE_TABLES.take(state, action, Facts().holds)
            assert MOVE_TABLES.take(state, action, Facts(lag_low=True).holds).to is not state


def test_data_that_was_found_to_differ_holds_switches_back() -> None:
    asked = [(S.RUNNING, T.SWITCH_REPLICAS), (S.RUNNING, T.SWITCH_PRIMARIES)]
    for state, action in (*asked, (S.SWITCHED_REPLICAS, T.SWITCH_PRIMARIES)):
        with pytest.raises(TransitionRefusedError, match="found differences; verify the data again"):
            MOVE_TABLES.take(state, action, Facts(lag_low=True, different=True).holds)
    for action in (T.VERIFY_DATA, T.CANCEL):
        assert MOVE_TABLES.take(S.RUNNING, action, Facts(different=True).holds)


def test_retry_returns_to_exactly_the_interrupted_state() -> None:
    for source, states in ((S.ERROR, WORKING), (S.STOPPED, STOPPABLE)):
        for state in states:
            facts = Facts(interrupted=state, may_retry=True)
            assert MOVE_TABLES.take(source, T.RETRY, facts.holds).to is state
            with pytest.raises(TransitionRefusedError, match="retrying cannot mend this"):
                MOVE_TABLES.take(source, T.RETRY, Facts(interrupted=state).holds)


def test_streams_have_one_direction_a_state() -> None:
    assert not set(FORWARD) & set(REVERSE)
    assert set(STOPPABLE) == set(FORWARD) | set(REVERSE)
    assert {row.source for row in ROWS if row.trigger is T.DDL_SEEN} == set(STOPPABLE)
    assert {row.source for row in ROWS if row.trigger is T.FAILED} == set(WORKING)


def test_every_guard_is_used_and_known_to_the_facts() -> None:
    used = {name for row in ROWS for name in row.guard_names}
    assert used == set(GUARDS)
    for name in GUARDS:
        assert isinstance(Facts().holds(name), bool)
    with pytest.raises(KeyError):
        Facts().holds("no such guard")


def test_the_machine_refuses_a_broken_table() -> None:
    row = Transition(S.PENDING, T.STARTED, S.COMPLETED, Kind.OBSERVED, "a&nonsense")
    rest = frozenset(set(State) - {S.PENDING})
    with pytest.raises(ValueError, match="unknown guard 'nonsense'"):
        Machine("broken", State, (row,), rest, {"a": "a"})
    plain = Transition(S.PENDING, T.STARTED, S.COMPLETED, Kind.OBSERVED)
    with pytest.raises(ValueError, match="two rows"):
        Machine("broken", State, (plain, plain), rest, {})
    with pytest.raises(ValueError, match="must be either left by a row or terminal"):
        Machine("broken", State, (plain,), frozenset({S.COMPLETED}), {})
