"""Every plan of a MoveTables workflow, by name."""

from __future__ import annotations

from collections.abc import Mapping

from homeworld.model.ports import Preconditions
from homeworld.workflows.move_tables import steps_end, steps_start, steps_switch
from homeworld.workflows.move_tables.context import Context
from homeworld.workflows.steps import Plan


def all_plans(preconditions: Preconditions) -> Mapping[str, Plan[Context]]:
    """The plans that :mod:`homeworld.workflows.move_tables.decide` names."""
    plans = (
        steps_start.start_plan(preconditions),
        steps_switch.switch_replicas_plan(preconditions),
        steps_switch.switch_primaries_plan(preconditions),
        steps_switch.reverse_replicas_plan(),
        steps_switch.reverse_primaries_plan(),
        steps_end.cut_over_plan(),
        steps_end.cancel_plan(),
        steps_end.settle_plan(),
    )
    return {plan.name: plan for plan in plans}
