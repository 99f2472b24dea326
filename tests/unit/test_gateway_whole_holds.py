"""Holds on all of a keyspace: everything that goes there waits, whether or not it names tables."""

from __future__ import annotations

import pytest

from homeworld.gateway.hold import Hold, Touch
from homeworld.gateway.plan import Footprint, Verb
from homeworld.model.routing import EVERY_TABLE, HoldRequest
from homeworld.model.topology import TabletType

PRIMARY, REPLICA = frozenset({TabletType.PRIMARY}), frozenset({TabletType.REPLICA})


def whole(keyspace: str) -> Hold:
    return Hold(HoldRequest("h", "b", frozenset({(keyspace, EVERY_TABLE)}), PRIMARY, 1.0, 1.0))


@pytest.mark.parametrize("verb", [Verb.SELECT, Verb.SHOW, Verb.SET, Verb.INSERT, Verb.DDL, Verb.CALL])
@pytest.mark.parametrize("tables", [frozenset[tuple[str, str]](), frozenset({("ks", "t")})])
def test_all_that_goes_to_the_keyspace_waits(verb: Verb, tables: frozenset[tuple[str, str]]) -> None:
    touch = Touch(Footprint(verb, tables), PRIMARY, frozenset({"ks"}))
    assert whole("ks").matches(touch)
    assert not whole("other").matches(touch)
    assert not whole("ks").matches(Touch(touch.footprint, REPLICA, touch.keyspaces))


def test_a_table_that_is_held_holds_no_other() -> None:
    hold = Hold(HoldRequest("h", "b", frozenset({("ks", "t")}), PRIMARY, 1.0, 1.0))
    assert not hold.matches(Touch(Footprint(Verb.SELECT), PRIMARY, frozenset({"ks"})))
