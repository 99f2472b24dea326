"""Performs and undoes steps of the open run, and writes down where it is.

Invariants: a durable step is recorded before and after it is performed, the commit point by its own
transaction and nothing else; a step that fails before the commit marks the run as failed, one that fails
after it is tried again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from homeworld.model.engines import EngineKind
from homeworld.model.errors import FencedError, HomeworldError, UnavailableError
from homeworld.model.states.move_tables import State
from homeworld.store.journal import StepStatus
from homeworld.store.store import Transaction
from homeworld.workflows.move_tables import decide as d
from homeworld.workflows.move_tables.context import Context, Hand, Ports
from homeworld.workflows.move_tables.look import RUN, RUNS, look, run_fact
from homeworld.workflows.steps import Plan, Run, Sort, Step
from homeworld.workflows.trouble import Troubles

_log = logging.getLogger(__name__)

UNKNOWN_SECONDS = 0.2  # between questions whether a commit took place


@dataclass(slots=True)
class Memory:
    """What this process remembers of one workflow, under one lease and no longer: whoever had the lease in
    between may have begun another run, whose steps have the same names.

    :param token: the lease's.
    :param engine: what the workflow's database runs on.
    """

    hand: Hand
    token: int
    engine: EngineKind = EngineKind.LOCAL
    stream: Troubles = field(default_factory=Troubles)
    step: Troubles = field(default_factory=Troubles)
    state: State | None = None


def sentence(error: BaseException) -> str:
    """What to tell of an error."""
    return str(error) or type(error).__name__


class Performer:
    """Acts on the open run of whichever workflow's context it is given."""

    def __init__(self, ports: Ports, plans: Mapping[str, Plan[Context]]) -> None:
        self._ports = ports
        self._plans = plans

    @staticmethod
    def begin(context: Context, memory: Memory, plan: str) -> None:
        """Open a run."""
        memory.step.clear()
        memory.hand.touched.clear()
        memory.hand.done.clear()
        memory.hand.spent.clear()
        number = int(cast("int", context.workflow.facts.get(RUNS, 0))) + 1
        run = Run(plan, number, state=context.workflow.state)
        with context.write() as tx:
            context.set_facts(tx, **{RUN: run_fact(run), RUNS: number})

    def close(self, context: Context, memory: Memory, tx: Transaction) -> None:
        """Forget the run; its fleeting steps, and how long the commit took, are noted now, for people, where
        that costs no client a wait.
        """
        if context.run is None:
            return
        for step in self._plans[context.run.plan].steps:
            timed = step.sort is Sort.COMMIT and step.name in memory.hand.spent
            if timed or step.name in memory.hand.done:
                context.record(tx, step.name, StepStatus.DONE)
        context.set_facts(tx, **{RUN: None})
        told = ", ".join(f"{name} {seconds * 1000:.1f}" for name, seconds in memory.hand.spent.items())
        _log.info("workflow %s: %s took, in ms: %s", context.workflow.id, context.run.plan, told)

    def _step(self, context: Context, name: str) -> tuple[Step[Context], Run, bool]:
        run = context.run
        if run is None:
            raise RuntimeError(f"step {name} without a run")  # a fault of this program
        plan = self._plans[run.plan]
        return plan.step(name), run, run.committed(plan)

    def perform(self, context: Context, memory: Memory, name: str) -> bool:
        """Perform one step; whether to decide again without reading the store anew.

        :raises FencedError: the lease is lost.
        """
        step, run, committed = self._step(context, name)
        if step.sort is Sort.DURABLE:
            with context.write() as tx:
                context.record(tx, name, StepStatus.STARTED)
        else:
            memory.hand.touched.add(name)
        context.run = run.begin(name)
        begun = time.monotonic()
        try:
            step.perform(context)
            if wrong := step.verify(context):
                raise UnavailableError(f"{name}: {wrong}")
        except FencedError:
            context.lease.check()
            self._failed(context, memory, step, "a newer owner of the stream exists", committed=committed)
            return False
        except Exception as error:  # noqa: BLE001 - whatever a step raises has to lead to its undo
            if not isinstance(error, HomeworldError):
                _log.exception("workflow %s: step %r", context.workflow.id, name)
            if step.sort is Sort.COMMIT:
                committed = self._did_commit(context, memory, name)
            if isinstance(error, UnavailableError) and (committed or run.plan == d.START):
                # Nobody waits under a hold here: what does not answer now is asked again.
                _log.warning("workflow %s: step %r: %s", context.workflow.id, name, error)
                memory.step.add(sentence(error), outage=True)
                self._tell_error(context, sentence(error))
                return False
            self._failed(context, memory, step, sentence(error), committed=committed)
            return False
        memory.step.clear()
        memory.hand.spent[name] = time.monotonic() - begun
        context.run = context.run.finish(name)
        if step.sort is Sort.FLEETING:
            memory.hand.done.add(name)
            return True
        if step.sort is Sort.DURABLE:
            with context.write() as tx:
                context.record(tx, name, StepStatus.DONE)
            return False
        memory.hand.touched.discard(name)
        return True

    def _did_commit(self, context: Context, memory: Memory, name: str) -> bool:
        """Whether a commit whose answer was an error took place: asked until the store says so.

        The locks stay for as long as the hold does, so that meanwhile nobody can write to the origin.

        :raises UnavailableError: the store did not say; whoever takes over will ask it again.
        """
        while True:
            context.lease.check()
            try:
                now = look(self._ports, context.lease, memory.hand, context.workflow.id)
            except UnavailableError:
                if memory.hand.remaining() <= 0:
                    raise
                time.sleep(UNKNOWN_SECONDS)
                continue
            context.workflow = now.workflow
            memory.hand.touched.discard(name)
            run = now.run
            context.run = run
            return run is not None and name in run.done

    def _failed(
        self, context: Context, memory: Memory, step: Step[Context], reason: str, *, committed: bool
    ) -> None:
        _log.warning("workflow %s: step %r: %s", context.workflow.id, step.name, reason)
        if committed:
            memory.step.add(reason)
        with context.write() as tx:
            if step.sort is Sort.DURABLE:
                context.record(tx, step.name, StepStatus.FAILED, reason)
            tx.workflows.update(context.workflow.id, workflow_errors=reason)
            if not committed:
                self._mark_failed(context, tx, reason)

    @staticmethod
    def _tell_error(context: Context, reason: str) -> None:
        if context.workflow.workflow_errors != reason:
            with context.write() as tx:
                tx.workflows.update(context.workflow.id, workflow_errors=reason)

    def fail(self, context: Context, reason: str) -> None:
        """Mark the open run as failed."""
        with context.write() as tx:
            self._mark_failed(context, tx, reason)

    @staticmethod
    def _mark_failed(context: Context, tx: Transaction, reason: str) -> None:
        if context.run is not None:
            context.set_facts(tx, **{RUN: run_fact(replace(context.run, failure=reason or "it failed"))})

    def undo(self, context: Context, memory: Memory, name: str) -> None:
        """Take one step back; where that fails it is tried again.

        :raises FencedError: the lease is lost.
        """
        step, _run, _ = self._step(context, name)
        durable = step.sort is Sort.DURABLE
        if durable:
            with context.write() as tx:
                context.record(tx, name, StepStatus.UNDOING)
        try:
            step.undo(context)
        except FencedError:
            raise
        except Exception as error:  # noqa: BLE001 - it is tried again, and in the end a person is told
            if not isinstance(error, HomeworldError):
                _log.exception("workflow %s: undo of step %r", context.workflow.id, name)
            memory.step.add(f"undoing {name}: {sentence(error)}")
            return
        memory.step.clear()
        memory.hand.touched.discard(name)
        memory.hand.done.discard(name)
        if durable:
            with context.write() as tx:
                context.record(tx, name, StepStatus.UNDONE)
