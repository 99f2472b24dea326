"""What Vitess asks of a move besides: a small world that meets it all, with one thing wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from homeworld.model.engines import EngineKind
from homeworld.model.vschema import parse
from homeworld.workflows.move_tables.preconditions.vitess import RULE
from homeworld.workflows.move_tables.preconditions.world import World
from tests.unit.test_workflow_preconditions import VSCHEMA, good


def on_vitess(vschema: dict[str, Any] | None = None) -> World:
    return replace(good(vschema=vschema), engine=EngineKind.VITESS)


def reasons(world: World) -> list[str]:
    return list(RULE.check(world))


def test_what_is_well_is_taken_on_either_engine() -> None:
    assert reasons(on_vitess()) == []
    assert reasons(good()) == []


def entry(**told: Any) -> dict[str, Any]:
    vindexes = {**VSCHEMA["vindexes"], "both": {"type": "multicol", "params": {"column_count": "2"}}}
    return {**VSCHEMA, "vindexes": vindexes, "tables": {"orders": told}}


@pytest.mark.parametrize(
    ("vschema", "says"),
    [
        (entry(type="reference"), "table orders is a reference table of shop_sharded"),
        (
            entry(column_vindexes=[{"columns": ["id", "customer"], "name": "both"}]),
            "the primary vindex both of table orders has several columns",
        ),
    ],
    ids=["reference", "several-columns"],
)
def test_tables_that_vitess_cannot_place_are_refused(vschema: dict[str, Any], says: str) -> None:
    (reason,) = reasons(on_vitess(vschema))
    assert says in reason
    assert reasons(good(vschema=vschema)) == [], "that is another engine's business"


def test_names_that_its_commands_take_apart_are_refused() -> None:
    (reason,) = reasons(replace(on_vitess(), tables=("a,b",)))
    assert "takes no name with ," in reason


def test_a_sharded_source_is_refused() -> None:
    world = on_vitess()
    source = replace(world.source, sharded=True, vschema=parse(VSCHEMA))
    (reason,) = reasons(replace(world, source=source))
    assert "keyspace shop is sharded" in reason
    assert reasons(replace(world, source=source, engine=EngineKind.LOCAL)) == []


def test_rules_that_would_stay_behind_are_refused() -> None:
    rules = {"old.orders": "shop.orders", "shop.orders": "shop.orders", "orders@replica": "shop.orders"}
    (reason,) = reasons(replace(on_vitess(), rules=rules))
    assert "the routing rule of old.orders leads to shop.orders" in reason
