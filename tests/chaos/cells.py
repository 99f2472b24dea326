"""The cells of the fault matrix: each step of each plan, each moment of it, each fault. Pure.

They are enumerated from the code's own plans, so a step that is added there is in the matrix at once. Knows
no server and no time. The invariant: the same seed and the same plans give the same cells in the same order.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from homeworld.workflows.move_tables.decide import START
from homeworld.workflows.move_tables.plans import all_plans
from homeworld.workflows.steps import Plan, Sort


class Moment(StrEnum):
    """Where in a step a fault strikes.

    BEFORE it is performed; DURING it, some milliseconds after it began; in the MIDDLE, when it was performed
    and is not recorded yet; AFTER, when it is recorded. The same of its undo.
    """

    BEFORE = "before"
    DURING = "during"
    MIDDLE = "middle"
    AFTER = "after"
    UNDO_BEFORE = "undo-before"
    UNDO_DURING = "undo-during"
    UNDO_MIDDLE = "undo-middle"
    UNDO_AFTER = "undo-after"


FORWARD = (Moment.BEFORE, Moment.DURING, Moment.MIDDLE, Moment.AFTER)
BACK = (Moment.UNDO_BEFORE, Moment.UNDO_DURING, Moment.UNDO_MIDDLE, Moment.UNDO_AFTER)

# States in which streams run and no plan does; the fault strikes while they do.
STREAMS = "streams"
COPYING = "copying"
FOLLOWING = "following"
VERIFYING = "verifying"
REPLICAS = "replicas switched"
FOLLOWING_BACK = "following back"
STATES = (COPYING, FOLLOWING, VERIFYING, REPLICAS, FOLLOWING_BACK)


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One place in the matrix. ``seed`` decides whatever else a run chooses."""

    plan: str
    step: str
    moment: Moment
    fault: str
    seed: int

    @property
    def undoing(self) -> bool:
        """Whether the fault strikes while the step is taken back."""
        return self.moment in BACK

    def __str__(self) -> str:
        return f"{self.plan}/{self.step}/{self.moment}/{self.fault}/{self.seed}"

    @classmethod
    def parse(cls, text: str) -> Cell:
        """The cell of what ``str`` gave.

        :raises ValueError: it is not one.
        """
        plan, step, moment, fault, seed = text.split("/")
        return cls(plan, step, Moment(moment), fault, int(seed))


@dataclass(frozen=True, slots=True)
class Place:
    """A step of a plan with the moments that it has."""

    plan: str
    step: str
    moments: tuple[Moment, ...]


class _Nothing:
    """Preconditions that are never asked: plans are only looked at."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"asked for {name}")


def plans() -> Mapping[str, Plan[Any]]:
    """The code's plans."""
    return all_plans(_Nothing())  # type: ignore[arg-type]


def undone(plan: Plan[Any]) -> tuple[str, ...]:
    """The steps that a run which fails as late as it can takes back."""
    if plan.forward_only:
        return ()
    names = [step.name for step in plan.steps]
    if plan.commit:
        return tuple(names[: names.index(plan.commit)])
    return tuple(names)


def fails_at(plan: Plan[Any]) -> tuple[str, Moment]:
    """Where a run is made to fail so that all of :func:`undone` is taken back."""
    if plan.commit:
        return plan.commit, Moment.BEFORE
    assert plan.name == START, f"plan {plan.name} has neither a commit nor is it known how it fails"
    return plan.steps[-1].name, Moment.MIDDLE


def places() -> tuple[Place, ...]:
    """All steps of all plans, and the states between them."""
    found: list[Place] = []
    for plan in plans().values():
        back = undone(plan)
        for step in plan.steps:
            moments = (*FORWARD, *(BACK if step.name in back else ()))
            found.append(Place(plan.name, step.name, moments))
    found += (Place(STREAMS, state, (Moment.DURING,)) for state in STATES)
    return tuple(found)


def is_fleeting(plan: str, step: str) -> bool:
    """Whether the step's effect dies with its process."""
    return plans()[plan].step(step).sort is Sort.FLEETING


def choose(count: int, seed: int, faults: Sequence[str], weights: Mapping[str, int]) -> list[Cell]:
    """``count`` cells, spread as evenly as possible over steps, moments and faults.

    :param weights: how many ordinary runs one with this fault stands for; 1 where it is not named.
    """
    chance = random.Random(seed)
    everything = places()
    steps: Counter[Place] = Counter()
    used: Counter[str] = Counter()
    pairs: Counter[tuple[Place, str]] = Counter()
    moments: Counter[tuple[Place, Moment]] = Counter()
    cells: list[Cell] = []
    for _ in range(count):
        place = min(everything, key=lambda one: (steps[one], chance.random()))
        fault = min(faults, key=lambda one: (pairs[place, one], used[one], chance.random()))
        # The faults' own counts are what keeps them even; a pair comes again only when all have been.
        moment = min(place.moments, key=lambda one: (moments[place, one], chance.random()))
        steps[place] += 1
        used[fault] += weights.get(fault, 1)
        pairs[place, fault] += 1
        moments[place, moment] += 1
        cells.append(Cell(place.plan, place.step, moment, fault, chance.randrange(10_000)))
    return cells
