"""The fault matrix itself: it has every step, it chooses evenly, and its judge is no easy one."""

from __future__ import annotations

from collections import Counter

import pytest

from homeworld.model.states.move_tables import MOVE_TABLES, WORKING, State
from homeworld.workflows.move_tables.decide import Seen, plan_for
from homeworld.workflows.steps import Sort
from tests.chaos import cells, faults, owners
from tests.chaos.cells import Cell, Moment
from tests.chaos.ledger import Ledger
from tests.chaos.owners import Work
from tests.chaos.run import routes_of
from tests.support.bank import OPENING_BALANCE

S = State


def test_every_step_of_every_plan_is_in_it_with_every_moment() -> None:
    places = {(place.plan, place.step): place.moments for place in cells.places()}
    steps = {(plan.name, step.name) for plan in cells.plans().values() for step in plan.steps}
    assert {place for place in places if place[0] != cells.STREAMS} == steps
    for plan in cells.plans().values():
        before_commit = True
        for step in plan.steps:
            before_commit &= step.sort is not Sort.COMMIT and not plan.forward_only
            moments = cells.FORWARD + (cells.BACK if before_commit else ())
            assert places[plan.name, step.name] == moments


def test_every_plan_of_every_state_is_walked_to() -> None:
    """A plan that a state asks for and no route leads through would be a hole in the matrix."""
    for name in cells.plans():
        cell = Cell(name, "any", Moment.BEFORE, "kill-worker", 1)
        for route in routes_of(cell):
            state = route.before[-1] if route.before else None
            if route.ask is None:
                assert (name, state) == ("start", None)
                continue
            rows = [row for row in MOVE_TABLES.rows if row.source is state and row.trigger is route.ask]
            # The facts decide which plan it is on a way back; the rest is said by the state alone.
            assert any(row.to in WORKING or plan_for(_seen(row.to)) == name for row in rows), (name, route)


def _seen(state: State) -> Seen:
    from homeworld.model.states.move_tables import Facts

    return Seen(state, Facts())


def test_the_choice_is_even_and_repeatable() -> None:
    names = list(faults.KINDS)
    chosen = cells.choose(3 * len(cells.places()), 5, names, {})
    assert chosen == cells.choose(3 * len(cells.places()), 5, names, {})
    assert chosen != cells.choose(3 * len(cells.places()), 6, names, {})
    steps = Counter((cell.plan, cell.step) for cell in chosen)
    assert set(steps.values()) == {3}
    used = Counter(cell.fault for cell in chosen)
    assert set(used) == set(names)
    assert max(used.values()) - min(used.values()) <= 2
    assert max(Counter((cell.plan, cell.step, cell.fault) for cell in chosen).values()) == 1
    assert all(Cell.parse(str(cell)) == cell for cell in chosen)


def test_slow_faults_are_chosen_less_often() -> None:
    names = list(faults.KINDS)
    used = Counter(cell.fault for cell in cells.choose(400, 1, names, faults.WEIGHTS))
    assert used["disk-source"] * 2 < used["kill-worker"]


def _ledger() -> Ledger:
    ledger = Ledger([[1, 2]], {-1: (1, 2, 10)})
    ledger.rows = {1: (1, 2, 5), 2: (2, 1, 7)}
    ledger.gone = {2}
    return ledger


GOOD = [(-1, 1, 2, 10), (1, 1, 2, 5)]
BALANCES = [(1, OPENING_BALANCE - 15), (2, OPENING_BALANCE + 15)]


def test_the_audit_finds_nothing_where_all_is_well() -> None:
    assert _ledger().audit(GOOD, BALANCES) == []


@pytest.mark.parametrize(
    ("transfers", "accounts", "said"),
    [
        (GOOD[1:], [(1, OPENING_BALANCE - 5), (2, OPENING_BALANCE + 5)], "-1 was acknowledged once"),
        (GOOD[:1], [(1, OPENING_BALANCE - 10), (2, OPENING_BALANCE + 10)], "transfer 1 was acknowledged"),
        ([*GOOD, GOOD[1]], BALANCES, "transfer 1 was acknowledged once and is there 2 times"),
        ([*GOOD, (2, 2, 1, 7)], [(1, OPENING_BALANCE - 8), (2, OPENING_BALANCE + 8)], "was returned"),
        ([*GOOD, (9, 1, 1, 0)], BALANCES, "transfer 9 was never acknowledged"),
        ([GOOD[0], (1, 1, 2, 6)], BALANCES, "transfer 1 is"),
        (GOOD, [(1, OPENING_BALANCE), (2, OPENING_BALANCE + 15)], "balances do not fit"),
        (GOOD, BALANCES[:1], "1 accounts where 2 are expected"),
        (GOOD, [*BALANCES, BALANCES[0]], "3 accounts where 2 are expected"),
    ],
)  # fmt: skip
def test_the_audit_finds(
    transfers: list[tuple[int, ...]], accounts: list[tuple[int, int]], said: str
) -> None:
    assert said in "; ".join(_ledger().audit(transfers, accounts))


def test_a_doubtful_commit_may_be_there_once_or_not() -> None:
    ledger = _ledger()
    ledger.doubt = {3: (1, 2, 1)}
    assert ledger.audit(GOOD, BALANCES) == []
    there = [(1, OPENING_BALANCE - 16), (2, OPENING_BALANCE + 16)]
    assert ledger.audit([*GOOD, (3, 1, 2, 1)], there) == []
    assert ledger.audit([*GOOD, (3, 1, 2, 1)], BALANCES) != [], "half a transaction"
    assert ledger.audit([*GOOD, (3, 1, 2, 1), (3, 1, 2, 1)], there) != []


def _works(*spans: tuple[float, float]) -> list[Work]:
    return [Work(number, False, *span) for number, span in enumerate(spans)]


def _sides(works: list[Work], *target: int) -> dict[str, list[tuple[int, bool]]]:
    return {
        "source": [work.key for number, work in enumerate(works) if number not in target],
        "target": [work.key for number, work in enumerate(works) if number in target],
    }


def test_ownership_is_told_from_binlogs() -> None:
    works = _works((0, 1), (2, 3), (4, 5), (6, 7))
    assert owners.judge(works, (), _sides(works), 0) == []
    assert owners.judge(works, (), _sides(works, 2, 3), 1) == []
    assert owners.judge(works, (), _sides(works, 1, 2), 2) == []
    assert "at least 2 times" in owners.judge(works, (), _sides(works, 1, 2), 1)[0]
    assert "at least 3 times" in owners.judge(works, (), _sides(works, 1, 3), 1)[0]
    assert "at least 1 times" in owners.judge(works, (), _sides(works, 3), 0)[0]


def test_commits_at_the_same_time_may_have_been_in_either_order() -> None:
    works = _works((0, 10), (1, 2), (3, 4), (0, 10))
    assert owners.judge(works, (), _sides(works, 0, 2), 1) == []
    assert owners.judge(works, (), _sides(works, 1, 3), 2) == []


def test_a_commit_is_in_one_binlog_once() -> None:
    works = _works((0, 1))
    twice = {"source": [(0, False)], "target": [(0, False)]}
    assert "1 times in the source's binlog, 1 in the target's" in owners.judge(works, (), twice, 1)[0]
    assert owners.judge(works, (), {"source": [], "target": []}, 0)
    stray = {"source": [(0, False), (7, False)], "target": []}
    assert "transfer 7" in owners.judge(works, (), stray, 0)[0]
    assert owners.judge(works, (7,), stray, 0) == []


def test_the_texts_of_clients_are_told_from_those_of_movers() -> None:
    client = owners.CLIENTS
    for text in (
        "INSERT INTO transfers (ref, source, target, amount, note, `id`) VALUES (2000079, 1, 2, 84, 'n', 28)",
        "# INSERT INTO transfers (ref, source, target, amount, note) VALUES (2000079, 1, 2, 3, 'x')",
        "# DELETE FROM transfers WHERE ref = 2000079 AND source = 4",
    ):
        matched = client.match(text)
        assert matched is not None
        assert matched[2] == "2000079"
    for text in (
        "# LOAD DATA LOCAL INFILE 'rows' REPLACE INTO TABLE `shop_80-`.`transfers` CHARACTER SET binary",
        "INSERT INTO `shop`.transfers SELECT * FROM chaos_template.transfers",
        "DELETE FROM `shop`.`transfers` WHERE `id` = 4",
    ):
        assert client.match(text) is None
