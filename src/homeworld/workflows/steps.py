"""Steps, plans, and what to do next in one: pure values and one pure function.

A *plan* is an ordered list of steps with at most one commit point. A *run* is one pass through a plan, which
may outlive processes. This module performs nothing and knows no resource.

Invariants: before the commit point a failed run is undone in reverse order, after it the run only goes
forward; an interruption is not a failure; a *fleeting* step's effect dies with its process, so its being
touched or done is only ever remembered in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Generic, TypeVar

C = TypeVar("C")


class Sort(StrEnum):
    """How a step's effect lasts."""

    DURABLE = "durable"
    FLEETING = "fleeting"
    COMMIT = "commit"


def nothing(_context: object) -> None:
    """The undo of a step whose effect harms nobody where it is left."""


def unseen(_context: object) -> str:
    """The verify of a step whose success is itself the proof."""
    return ""


@dataclass(frozen=True, slots=True)
class Step(Generic[C]):
    """One act.

    :param name: unique in its plan, at most 64 characters.
    :param perform: does it, again where it was done already; raises where it cannot.
    :param undo: takes it back, also where it was only half done or never.
    :param verify: looks at the world after ``perform``; what is wrong, or the empty string.
    """

    name: str
    perform: Callable[[C], None]
    undo: Callable[[C], None] = nothing
    verify: Callable[[C], str] = unseen
    sort: Sort = Sort.DURABLE


@dataclass(frozen=True, slots=True)
class Plan(Generic[C]):
    """The steps of one transition.

    :param forward_only: the commit point lies before the first step (an asked transition was it).
    :raises ValueError: two steps share a name, or there are two commit points.
    """

    name: str
    steps: tuple[Step[C], ...]
    forward_only: bool = False

    def __post_init__(self) -> None:
        names = [step.name for step in self.steps]
        commits = [step.name for step in self.steps if step.sort is Sort.COMMIT]
        if len(set(names)) != len(names) or len(commits) > (0 if self.forward_only else 1):
            raise ValueError(f"plan {self.name}: names must differ and the commit point is one")

    def step(self, name: str) -> Step[C]:
        """The step of that name.

        :raises KeyError: there is none.
        """
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)

    @property
    def commit(self) -> str:
        """The name of the commit point, or the empty string."""
        return next((step.name for step in self.steps if step.sort is Sort.COMMIT), "")

    def ahead(self, run: Run) -> tuple[Step[C], ...]:
        """The steps that may still have to be done: once committed, none of those before the commit point,
        whether or not anybody remembers them.
        """
        if self.commit and self.commit in run.done:
            at = [step.name for step in self.steps].index(self.commit)
            return self.steps[at:]
        return self.steps


@dataclass(frozen=True, slots=True)
class Run:
    """One pass through a plan, as it stands.

    :param number: counts a resource's runs; with the plan's name it is the journal's key.
    :param failure: why the run is being undone; empty while it goes forward.
    :param state: the resource's state when the run was begun.
    :param touched: steps begun and not undone.
    :param done: steps finished and not undone.
    """

    plan: str
    number: int
    failure: str = ""
    state: str = ""
    touched: frozenset[str] = field(default_factory=frozenset[str])
    done: frozenset[str] = field(default_factory=frozenset[str])

    @property
    def key(self) -> str:
        """The name under which the journal keeps this run."""
        return f"{self.plan}:{self.number}"

    def committed(self, plan: Plan[C]) -> bool:
        """Whether only forward is left."""
        return plan.forward_only or (plan.commit in self.done)

    def begin(self, step: str) -> Run:
        """The run after ``step`` was begun."""
        return replace(self, touched=self.touched | {step})

    def finish(self, step: str) -> Run:
        """The run after ``step`` was finished."""
        return replace(self, touched=self.touched | {step}, done=self.done | {step})

    def undo(self, step: str) -> Run:
        """The run after ``step`` was undone."""
        return replace(self, touched=self.touched - {step}, done=self.done - {step})

    def survive(self, plan: Plan[C]) -> Run:
        """The run as another process finds it: fleeting steps are forgotten."""
        kept = {step.name for step in plan.steps if step.sort is not Sort.FLEETING}
        return replace(self, touched=self.touched & kept, done=self.done & kept)


@dataclass(frozen=True, slots=True)
class Perform:
    """Begin or repeat this step."""

    step: str


@dataclass(frozen=True, slots=True)
class Undo:
    """Take this step back."""

    step: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Every step is done."""


@dataclass(frozen=True, slots=True)
class Undone:
    """Everything is taken back; ``failure`` says why."""

    failure: str


Move = Perform | Undo | Finished | Undone


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing to do for about this long. ``keep`` is whether the lease is still needed."""

    seconds: float
    keep: bool = True


def next_move(plan: Plan[C], run: Run) -> Move:
    """What to do next in ``run``. Pure and total.

    >>> plan = Plan[None]("p", (Step("a", nothing), Step("b", nothing)))
    >>> next_move(plan, Run("p", 1).finish("a"))
    Perform(step='b')
    >>> next_move(plan, Run("p", 1, failure="no").finish("a"))
    Undo(step='a')
    """
    if run.failure and not run.committed(plan):
        for step in reversed(plan.steps):
            if step.name in run.touched:
                return Undo(step.name)
        return Undone(run.failure)
    for step in plan.ahead(run):
        if step.name not in run.done:
            return Perform(step.name)
    return Finished()
