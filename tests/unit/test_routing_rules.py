from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeworld.model.errors import InvalidError
from homeworld.model.routing_rules import TrafficPhase, check, look_up, parse, render, rules_for
from homeworld.model.topology import TabletType

PRIMARY, REPLICA, RDONLY = TabletType.PRIMARY, TabletType.REPLICA, TabletType.RDONLY


def led(rules: dict[str, str], name: str, tablet_type: TabletType) -> str:
    keyspace, _, table = name.rpartition(".")
    found = look_up(rules, keyspace, table, tablet_type)
    return ".".join(found) if found else name


@pytest.mark.parametrize(
    ("phase", "primary", "replica"),
    [
        (TrafficPhase.SOURCE, "src.t", "src.t"),
        (TrafficPhase.REPLICAS, "src.t", "tgt.t"),
        (TrafficPhase.TARGET, "tgt.t", "tgt.t"),
    ],
)
def test_every_name_of_a_moving_table_leads_to_one_place(
    phase: TrafficPhase, primary: str, replica: str
) -> None:
    rules = rules_for(phase, ["t"], "src", "tgt", {"other": "src.other"})
    for name in ("t", "src.t", "tgt.t"):
        assert led(rules, name, PRIMARY) == primary
        assert led(rules, name, REPLICA) == replica
        assert led(rules, name, RDONLY) == replica
    assert led(rules, "other", PRIMARY) == "src.other"
    check(rules, {"src": {"t", "other"}, "tgt": {"t"}})


def test_cutover_and_cancel_leave_the_rules_as_they_were() -> None:
    before = {"other": "src.other", "x@replica": "tgt.x"}
    assert rules_for(TrafficPhase.CUTOVER, ["t"], "src", "tgt", before) == before
    assert rules_for(TrafficPhase.CANCELLED, ["t"], "src", "tgt", before) == before


def test_rules_that_an_earlier_workflow_left_go_on_following_the_table() -> None:
    before = {"a.t": "b.t", "t": "b.t"}  # moved from a to b once; applications still say a.t
    running = rules_for(TrafficPhase.SOURCE, ["t"], "b", "c", before)
    replicas = rules_for(TrafficPhase.REPLICAS, ["t"], "b", "c", before)
    switched = rules_for(TrafficPhase.TARGET, ["t"], "b", "c", before)
    cutover = rules_for(TrafficPhase.CUTOVER, ["t"], "b", "c", before)
    assert [led(rules, "a.t", PRIMARY) for rules in (running, replicas, switched, cutover)] == [
        "b.t", "b.t", "c.t", "c.t",
    ]  # fmt: skip
    assert [led(rules, "a.t", REPLICA) for rules in (running, replicas, switched, cutover)] == [
        "b.t", "c.t", "c.t", "c.t",
    ]  # fmt: skip
    assert cutover == {"a.t": "c.t", "t": "c.t"}
    assert rules_for(TrafficPhase.CANCELLED, ["t"], "b", "c", before) == before


def test_after_moving_there_and_back_the_target_keeps_its_own_name() -> None:
    before = rules_for(TrafficPhase.TARGET, ["t"], "a", "b", {})  # reversed cutover, then completed
    back = rules_for(TrafficPhase.CUTOVER, ["t"], "b", "a", before)
    for name in ("t", "a.t"):
        assert led(back, name, PRIMARY) == "a.t"
    check(back)


def test_vitess_json_in_and_out() -> None:
    given = {
        "rules": [
            {"from_table": "t", "to_tables": ["a.t"]},
            {"from_table": "t@replica", "to_tables": ["b.t"]},
        ]
    }
    assert parse(given) == {"t": "a.t", "t@replica": "b.t"}
    assert render(parse(json.dumps(given))) == given
    assert parse({}) == {}
    assert parse({"rules": [{"fromTable": "t", "toTables": ["a.t"]}]}) == {"t": "a.t"}


def rule(name: object, *to: object) -> dict[str, Any]:
    return {"from_table": name, "to_tables": list(to)}


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ([rule("t")], "has no targets"),
        ([rule("t", "a.t", "b.t")], "more than one target"),
        ([rule("t", "a.t"), rule("t", "b.t")], "more than one rule"),
        ([rule("t", "t2")], "must be qualified"),
        ([rule("t", "a.t@replica")], "must be qualified"),
        ([rule("t@master", "a.t")], "unknown tablet type"),
        ([rule("a.b.c", "a.t")], "must be written"),
        ([rule(".t", "a.t")], "must be written"),
        ([rule("", "a.t")], "needs from_table"),
        ([rule("t", 5)], "must be text"),
        ([rule("a.t", "b.t"), rule("b.t", "a.t")], "circle"),
        ([rule("t", "a.t"), rule("a.t", "b.t")], "from where another rule leads"),
        ([rule("t@replica", "a.t"), rule("a.t@replica", "b.t")], "from where another rule leads"),
        (["t"], "must be an object"),
        ("t", "must be a list"),
    ],
)
def test_rules_that_could_not_be_followed_are_refused(rules: Any, says: str) -> None:
    with pytest.raises(InvalidError, match=says):
        parse({"rules": rules})


@pytest.mark.parametrize("text", ["{", "[]", '{"x": 1}'])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        parse(text)


def test_rules_are_held_against_what_exists() -> None:
    rules = {"t": "a.t"}
    check(rules, {"a": ["t"]})
    check(rules, {"a": None})
    with pytest.raises(InvalidError, match="keyspace 'a' not found"):
        check(rules, {"b": ["t"]})
    with pytest.raises(InvalidError, match=r"table 'a\.t' not found"):
        check(rules, {"a": ["x"]})


_KEYSPACES = st.sampled_from(["a", "b", "c"])


@given(
    moves=st.lists(st.tuples(_KEYSPACES, _KEYSPACES, st.sampled_from(list(TrafficPhase))), max_size=5),
)
def test_any_history_of_moves_ends_with_every_name_leading_to_where_the_table_is(
    moves: list[tuple[str, str, TrafficPhase]],
) -> None:
    place = "a"
    rules: dict[str, str] = {}
    for _, target, phase in moves:
        source = place
        if source == target:
            continue
        before = rules
        for step in (TrafficPhase.SOURCE, TrafficPhase.REPLICAS, TrafficPhase.TARGET):
            now = rules_for(step, ["t"], source, target, before)
            check(now)
            at = target if step is TrafficPhase.TARGET else source
            assert {led(now, name, PRIMARY) for name in ("t", f"{source}.t", f"{target}.t")} == {f"{at}.t"}
        if phase is TrafficPhase.CANCELLED:
            rules = rules_for(phase, ["t"], source, target, before)
        else:
            kept = TrafficPhase.CUTOVER if phase is TrafficPhase.CUTOVER else TrafficPhase.TARGET
            rules = rules_for(kept, ["t"], source, target, before)
            place = target
        check(rules)
        for name in rules:
            bare, _, suffix = name.partition("@")
            assert led(rules, bare, TabletType(suffix) if suffix else PRIMARY) == f"{place}.t"
