"""Performs what :mod:`homeworld.workflows.move_tables.decide` decides, one action at a time.

It never decides itself. Invariants: every write is bound to the lease; a durable step is recorded before and
after it is performed, the commit point by its own transaction; whatever escapes an action (the lease is lost,
the store does not answer) makes this process let go of everything that it holds for the workflow.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from homeworld.model.errors import FencedError, HomeworldError, UnavailableError
from homeworld.model.movers import Phase
from homeworld.model.names import new_id
from homeworld.model.ports import Preconditions
from homeworld.model.states.move_tables import MOVE_TABLES, State, Trigger
from homeworld.store.guards import facts
from homeworld.store.journal import StepStatus
from homeworld.store.store import Transaction
from homeworld.store.workflows import WorkflowFields
from homeworld.workflows.leases import Lease
from homeworld.workflows.move_tables import decide as d
from homeworld.workflows.move_tables.context import Context, Hand, Ports
from homeworld.workflows.move_tables.look import (
    RUN,
    RUNS,
    VERIFY_ID,
    look,
    progress_of,
    run_fact,
    see,
)
from homeworld.workflows.move_tables.plans import all_plans
from homeworld.workflows.move_tables.progress import Teller
from homeworld.workflows.move_tables.steps_start import source_tables
from homeworld.workflows.move_tables.steps_switch import STOP_SECONDS
from homeworld.workflows.steps import Perform, Plan, Rest, Run, Sort, Step, Undo
from homeworld.workflows.trouble import Troubles

_log = logging.getLogger(__name__)

SCHEMA_SECONDS = 2.0  # between looks at a stopped workflow's tables
UNKNOWN_SECONDS = 0.2  # between questions whether a commit took place


@dataclass(slots=True)
class _Memory:
    """What this process remembers of one workflow."""

    hand: Hand
    stream: Troubles = field(default_factory=Troubles)
    step: Troubles = field(default_factory=Troubles)
    state: State | None = None


class MoveTables:
    """The handler of workflows. One thread at a time per workflow."""

    kind = "workflow"

    def __init__(
        self, ports: Ports, preconditions: Preconditions, plans: Mapping[str, Plan[Context]] | None = None
    ) -> None:
        """:param plans: other plans than the usual, for tests that interrupt them."""
        self._ports = ports
        self._plans: Mapping[str, Plan[Context]] = plans or all_plans(preconditions)
        self._memories: dict[str, _Memory] = {}
        self._teller = Teller()

    # -- what the executor calls -----------------------------------------------------------------------------

    def tick(self, resource_id: str, lease: Lease) -> Rest | None:
        """One action, or a chain of fleeting steps.

        :returns: how long there is nothing to do; None: ask again at once.
        :raises FencedError: the lease is lost; nothing of the workflow may run here any more.
        """
        memory = self._memories.setdefault(resource_id, _Memory(Hand(self._ports.tools())))
        context = look(self._ports, lease, memory.hand, resource_id)
        if memory.state is not context.workflow.state:
            memory.state = context.workflow.state
            memory.step.clear()
            if context.workflow.state in (State.ERROR, State.STOPPED):
                memory.stream.clear()
        while True:
            lease.check()
            memory.stream.forget_old()
            seen = see(context, memory.stream, memory.step)
            action = d.decide(seen, cast("Any", self._plans), holding=memory.hand.holding)
            rest, go_on = self._act(context, memory, action)
            if not go_on:
                return rest

    def lost(self, resource_id: str) -> None:
        """Stop the workflow's streams at once: the lease is lost. May be called while a tick is under way."""
        memory = self._memories.get(resource_id)
        for direction in (d.FORWARD_STREAM, d.REVERSE_STREAM):
            mover = memory.hand.movers.get(direction) if memory is not None else None
            mover = mover or self._ports.movers.running(resource_id, direction)
            if mover is not None:
                try:
                    mover.stop(STOP_SECONDS)
                except HomeworldError as error:  # its epoch is not the newest: it cannot write any more
                    _log.warning("workflow %s: the %s stream did not stop: %s", resource_id, direction, error)

    def loosen(self, resource_id: str) -> None:
        """Let holds and locks of the workflow go; its streams go on."""
        memory = self._memories.get(resource_id)
        if memory is not None:
            memory.hand.drop(self._ports.gateways)

    def let_go(self, resource_id: str) -> None:
        """Hold nothing and run nothing of the workflow any more. Never raises."""
        self.lost(resource_id)
        self.loosen(resource_id)
        self._memories.pop(resource_id, None)

    # -- actions ---------------------------------------------------------------------------------------------

    def _act(self, context: Context, memory: _Memory, action: d.Action) -> tuple[Rest | None, bool]:
        """Perform ``action``; a rest, and whether to decide again without reading the store anew."""
        match action:
            case d.Go(move=Perform(name)):
                return None, self._perform(context, memory, name)
            case d.Go(move=Undo(name)):
                self._undo(context, memory, name)
            case Rest():
                return self._rest(context, action), False
            case d.StartStream(direction):
                self._start_stream(context, memory, direction)
            case d.StopStream(direction, trouble):
                self._stop_stream(context, memory, direction, trouble)
            case d.Take():
                self._take(context, memory, action)
            case d.CompareSchemas():
                return self._compare_schemas(context), False
            case _:
                self._other(context, memory, action)
        return None, False

    def _other(self, context: Context, memory: _Memory, action: d.Action) -> None:
        match action:
            case d.Begin(plan):
                self._begin(context, memory, plan)
            case d.Fail(reason):
                self._fail(context, reason)
            case d.Abandon():
                context.let_go()
                with context.write() as tx:
                    context.set_facts(tx, **{RUN: None})
            case d.Settle():
                self._settle(context)
                context.let_go()
            case d.Compare():
                self._compare(context, memory)
            case d.LetGo():
                context.let_go()
            case _:
                raise TypeError(f"no way to perform {action!r}")

    def _compare(self, context: Context, memory: _Memory) -> None:
        verify_id = new_id()
        with context.write() as tx:
            tx.progress.start_verification(context.workflow.id, vdiff_id=verify_id)
            context.set_facts(tx, **{VERIFY_ID: verify_id})
        try:
            context.mover(d.FORWARD_STREAM).verify(verify_id)
        except UnavailableError as error:
            reason = f"the data could not be verified: {_sentence(error)}"
            self._take(context, memory, d.Take(Trigger.NOT_IN_TIME, reason))

    def _begin(self, context: Context, memory: _Memory, plan: str) -> None:
        memory.step.clear()
        memory.hand.touched.clear()
        memory.hand.done.clear()
        number = int(cast("int", context.workflow.facts.get(RUNS, 0))) + 1
        run = Run(plan, number, state=context.workflow.state)
        with context.write() as tx:
            context.set_facts(tx, **{RUN: run_fact(run), RUNS: number})

    def _settle(self, context: Context) -> None:
        with context.write() as tx:
            context.set_facts(tx, **{RUN: None})
            # Another state may have been asked for meanwhile: that one is not settled by this.
            if tx.workflows.get(context.workflow.id).state is context.workflow.state:
                tx.workflows.update(context.workflow.id, settled=True)

    def _take(self, context: Context, memory: _Memory, action: d.Take) -> None:
        workflow = context.workflow
        row = MOVE_TABLES.take(workflow.state, action.trigger, facts(workflow).holds)
        fields = _fields(action, row.to)
        with context.write() as tx:
            if action.close:
                self._close_run(context, memory, tx)
            self._teller.tell_verification(tx, context)
            tx.workflows.transition(workflow.id, workflow.state, row, why=action.why, **fields)
            self._teller.tell_transition(tx, context, row.to)
        _log.info("workflow %s: %s → %s %s", workflow.id, workflow.state, row.to, action.why)
        memory.step.clear()
        context.let_go()

    def _close_run(self, context: Context, memory: _Memory, tx: Transaction) -> None:
        """Forget the run; its fleeting steps are noted now, for people, where that costs no client a wait."""
        if context.run is None:
            return
        for step in self._plans[context.run.plan].steps:
            if step.name in memory.hand.done:
                context.record(tx, step.name, StepStatus.DONE)
        context.set_facts(tx, **{RUN: None})

    # -- steps -----------------------------------------------------------------------------------------------

    def _step(self, context: Context, name: str) -> tuple[Step[Context], Run, bool]:
        run = context.run
        if run is None:
            raise RuntimeError(f"step {name} without a run")  # a fault of this program
        plan = self._plans[run.plan]
        return plan.step(name), run, run.committed(plan)

    def _perform(self, context: Context, memory: _Memory, name: str) -> bool:
        step, run, committed = self._step(context, name)
        if step.sort is Sort.DURABLE:
            with context.write() as tx:
                context.record(tx, name, StepStatus.STARTED)
        else:
            memory.hand.touched.add(name)
        context.run = run.begin(name)
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
                memory.step.add(_sentence(error), outage=True)
                self._tell_error(context, _sentence(error))
                return False
            self._failed(context, memory, step, _sentence(error), committed=committed)
            return False
        memory.step.clear()
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

    def _did_commit(self, context: Context, memory: _Memory, name: str) -> bool:
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
        self, context: Context, memory: _Memory, step: Step[Context], reason: str, *, committed: bool
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

    def _fail(self, context: Context, reason: str) -> None:
        with context.write() as tx:
            self._mark_failed(context, tx, reason)

    @staticmethod
    def _mark_failed(context: Context, tx: Transaction, reason: str) -> None:
        if context.run is not None:
            context.set_facts(tx, **{RUN: run_fact(replace(context.run, failure=reason or "it failed"))})

    def _undo(self, context: Context, memory: _Memory, name: str) -> None:
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
            memory.step.add(f"undoing {name}: {_sentence(error)}")
            return
        memory.step.clear()
        memory.hand.touched.discard(name)
        memory.hand.done.discard(name)
        if durable:
            with context.write() as tx:
                context.record(tx, name, StepStatus.UNDONE)

    # -- streams ---------------------------------------------------------------------------------------------

    def _start_stream(self, context: Context, memory: _Memory, direction: str) -> None:
        try:
            context.start_mover(direction)
        except FencedError:
            context.lease.check()  # not the lease: somebody else's later epoch, and ours grows with each try
            memory.stream.add("a newer owner of the stream exists")
        except HomeworldError as error:
            _log.warning(
                "workflow %s: the %s stream does not start: %s", context.workflow.id, direction, error
            )
            memory.stream.add(_sentence(error), outage=isinstance(error, UnavailableError))

    def _stop_stream(self, context: Context, memory: _Memory, direction: str, trouble: str) -> None:
        if trouble:
            # What cannot be retried never comes this way: the rest is tried with patience.
            memory.stream.add(trouble, outage=True)
        self._teller.tell(context, direction, progress_of(context, direction), now=True)
        context.stop_mover(direction, STOP_SECONDS)
        with context.write() as tx:
            tx.workflows.update(context.workflow.id, lag_seconds=None)

    def _rest(self, context: Context, action: Rest) -> Rest:
        for direction in (d.FORWARD_STREAM, d.REVERSE_STREAM):
            progress = progress_of(context, direction)
            if progress is not None:
                self._teller.tell(context, direction, progress, now=progress.phase is Phase.FAILED)
        if not action.keep and not context.workflow.settled:
            with context.write() as tx:
                if tx.workflows.get(context.workflow.id).state is context.workflow.state:
                    tx.workflows.update(context.workflow.id, settled=True)
        return action

    def _compare_schemas(self, context: Context) -> Rest:
        """Say what keeps a stopped workflow's rows from fitting, or that nothing does any more."""
        try:
            tables = source_tables(context)
            differences = [
                f"{place.keyspace}/{place.shard}: {difference}"
                for place in context.owner(context.target)
                for table in tables.values()
                if (difference := context.tools.difference(place, table))
            ]
        except UnavailableError as error:
            _log.warning("workflow %s: comparing tables: %s", context.workflow.id, error)
            return Rest(SCHEMA_SECONDS)
        except HomeworldError as error:
            differences = [_sentence(error)]
        fits = not differences
        seen = context.workflow.workflow_errors.partition("\n")[0]
        text = "\n".join([seen, "; ".join(differences)]) if differences else seen
        if (context.workflow.may_retry, context.workflow.workflow_errors) != (fits, text):
            with context.write() as tx:
                if tx.workflows.get(context.workflow.id).state is State.STOPPED:
                    tx.workflows.update(context.workflow.id, may_retry=fits, workflow_errors=text)
        return Rest(SCHEMA_SECONDS)


def _fields(action: d.Take, to: State) -> WorkflowFields:
    """The facts that change with a transition."""
    fields: WorkflowFields = {
        "workflow_errors": action.why,
        "may_retry": action.may_retry,
        "may_restart": action.may_restart,
        "settled": to in (State.CUTOVER, State.CANCELLED),
    }
    if to in (State.ERROR, State.STOPPED):
        fields["lag_seconds"] = None
    else:
        fields["interrupted_state"] = None
    if to is State.RUNNING or action.trigger is Trigger.EQUAL:
        fields["verified"] = action.trigger is Trigger.EQUAL
    return fields


def _sentence(error: BaseException) -> str:
    return str(error) or type(error).__name__
