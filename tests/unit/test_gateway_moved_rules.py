"""What two versions of routes say: which copies have come to be served, what has to be read anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from homeworld.gateway.moved import concerned, counterparts, newly_served
from homeworld.model.routing import BranchRoutes
from homeworld.model.routing_rules import TrafficPhase as Phase
from homeworld.model.routing_rules import rules_for
from homeworld.model.topology import TabletType
from tests.support.routing_world import branch, keyspace

BEFORE = {"u": "other.u"}
WORLD = branch(keyspace("main"), keyspace("target"), keyspace("other"))
REPLICAS = frozenset({TabletType.REPLICA, TabletType.RDONLY})
ALL = frozenset(TabletType)


def at(phase: Phase | None) -> BranchRoutes:
    rules: Mapping[str, str] = BEFORE
    if phase is not None:
        rules = rules_for(phase, ["t"], "main", "target", BEFORE)
    return replace(WORLD, rules=rules)


@pytest.mark.parametrize(
    ("old", "new", "served", "types"),
    [
        (None, Phase.SOURCE, "", ()),
        (Phase.SOURCE, Phase.REPLICAS, "target", REPLICAS),
        (Phase.REPLICAS, Phase.SOURCE, "main", REPLICAS),
        (Phase.REPLICAS, Phase.TARGET, "target", {TabletType.PRIMARY}),
        (Phase.SOURCE, Phase.TARGET, "target", ALL),
        (Phase.TARGET, Phase.SOURCE, "main", ALL),
        (Phase.CUTOVER, Phase.TARGET, "", ()),
        (Phase.TARGET, Phase.TARGET, "", ()),
    ],
)
def test_who_was_a_copy_and_is_served_now(
    old: Phase | None, new: Phase, served: str, types: frozenset[TabletType]
) -> None:
    wanted = {(tablet_type, served, "t") for tablet_type in types}
    assert newly_served(at(old), at(new)) == wanted


def test_what_has_to_be_read_anew() -> None:
    assert concerned(at(Phase.SOURCE), at(Phase.SOURCE)) == {}
    assert concerned(at(Phase.SOURCE), at(Phase.TARGET)) == {"main": {"t"}, "target": {"t"}}
    assert concerned(at(Phase.SOURCE), at(Phase.CANCELLED)) == {"main": {"t"}, "target": {"t"}}
    listing = keyspace("target", {"tables": {"t": {}}})
    listed = replace(at(Phase.SOURCE), keyspaces={**WORLD.keyspaces, "target": listing})
    assert concerned(at(Phase.SOURCE), listed) == {"target": {""}}
    gone = replace(WORLD, rules={}, keyspaces={"main": WORLD.keyspaces["main"]})
    assert concerned(at(Phase.SOURCE), gone) == {"main": {"t"}}


def test_between_whom_traffic_may_be_about_to_move() -> None:
    assert counterparts(at(Phase.SOURCE), {("main", "t")}) == {"main", "target"}
    assert counterparts(at(Phase.TARGET), {("target", "t")}) == {"main", "target"}
    assert counterparts(at(None), {("main", "t")}) == {"main"}
    assert counterparts(at(None), {("gone", "t")}) == set()
