"""Performs what :mod:`homeworld.workflows.move_tables.decide` decides, one action at a time.

It never decides itself. Invariants: every write is bound to the lease, and so is what this process remembers
and holds of a workflow; a durable step is recorded before and
after it is performed, the commit point by its own transaction; whatever escapes an action (the lease is lost,
the store does not answer) makes this process let go of everything that it holds for the workflow.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from homeworld.model.engines import ON_VITESS, EngineKind
from homeworld.model.errors import (
    ConflictError,
    FencedError,
    HomeworldError,
    UnavailableError,
    is_outage,
)
from homeworld.model.movers import Phase
from homeworld.model.names import new_id
from homeworld.model.ports import Outliving, Preconditions
from homeworld.model.states.move_tables import FORWARD, MOVE_TABLES, REVERSE, State, Trigger
from homeworld.store.guards import DDL, DDL_AT, DIFFERENT, EMPTIED, REPAIR, THEN_COMPLETE, VERIFY_ID, facts
from homeworld.store.workflows import WorkflowFields
from homeworld.workflows.leases import Lease
from homeworld.workflows.move_tables import decide as d
from homeworld.workflows.move_tables.context import Context, Hand, Ports
from homeworld.workflows.move_tables.look import (
    NO_WAY_BACK,
    RUN,
    VERIFY_PASSED,
    look,
    progress_of,
    see,
)
from homeworld.workflows.move_tables.performing import Memory, Performer, sentence
from homeworld.workflows.move_tables.plans import all_plans
from homeworld.workflows.move_tables.progress import Teller
from homeworld.workflows.move_tables.steps_start import tables_of
from homeworld.workflows.move_tables.steps_switch import STOP_SECONDS
from homeworld.workflows.steps import Perform, Plan, Rest, Undo

_log = logging.getLogger(__name__)

SCHEMA_SECONDS = 2.0  # between looks at a stopped workflow's tables


@dataclass(frozen=True, slots=True)
class Means:
    """What a workflow is carried out with: what it acts on, and the plans for that."""

    ports: Ports
    plans: Mapping[str, Plan[Context]]


class MoveTables:
    """The handler of workflows. One thread at a time per workflow."""

    kind = "workflow"

    def __init__(
        self,
        ports: Ports,
        preconditions: Preconditions,
        plans: Mapping[str, Plan[Context]] | None = None,
        *,
        vitess: Means | None = None,
        attached: Means | None = None,
        performer: Callable[[Ports, Mapping[str, Plan[Context]]], Performer] = Performer,
    ) -> None:
        """:param plans: other plans than the usual, for tests that interrupt them.
        :param performer: what makes another performer of steps, for the same.
        :param vitess: for databases on Vitess; None: there are none. ``attached``: for those of clusters that
            others run; None: the same.
        """
        self._ports = ports
        self._means = {EngineKind.LOCAL: Means(ports, plans or all_plans(preconditions))}
        if vitess is not None:
            self._means |= dict.fromkeys(ON_VITESS, vitess)
        if attached is not None:
            self._means[EngineKind.ATTACHED] = attached
        self._memories: dict[str, Memory] = {}
        self._performers = {kind: performer(means.ports, means.plans) for kind, means in self._means.items()}
        self._teller = Teller()

    # -- what the executor calls -----------------------------------------------------------------------------

    def tick(self, resource_id: str, lease: Lease) -> Rest | None:
        """One action, or a chain of fleeting steps.

        :returns: how long there is nothing to do; None: ask again at once.
        :raises FencedError: the lease is lost; nothing of the workflow may run here any more.
        """
        memory = self._memories.get(resource_id)
        if memory is not None and memory.token != lease.token:
            self.let_go(resource_id)
            memory = None
        if memory is None:
            engine = self._engine(resource_id)
            hand = Hand(self._means[engine].ports.tools())
            memory = self._memories[resource_id] = Memory(hand, lease.token, engine)
        context = look(self._means[memory.engine].ports, lease, memory.hand, resource_id)
        if memory.state is not context.workflow.state:
            memory.state = context.workflow.state
            memory.step.clear()
            if context.workflow.state in (State.ERROR, State.STOPPED):
                memory.stream.clear()
        context.stop_moved(STOP_SECONDS)
        context.tell_limits()
        while True:
            lease.check()
            memory.stream.forget_old()
            seen = see(context, memory.stream, memory.step)
            plans = self._means[memory.engine].plans
            action = d.decide(seen, cast("Any", plans), holding=memory.hand.holding)
            rest, go_on = self._act(context, memory, action)
            if not go_on:
                return rest

    def _engine(self, resource_id: str) -> EngineKind:
        """What the workflow's database runs on.

        :raises UnavailableError: no executor here is for that.
        """
        with self._ports.store.read() as tx:
            engine = tx.databases.get(tx.workflows.get(resource_id).database_id).engine
        if engine not in self._means:
            raise UnavailableError(
                f"workflow {resource_id}: nothing here moves tables of a database on {engine}"
            )
        return engine

    def lost(self, resource_id: str) -> None:
        """Stop the workflow's streams at once: the lease is lost. May be called while a tick is under way.
        Streams that live elsewhere are left: whoever has the lease next looks after them.
        """
        memory = self._memories.get(resource_id)
        movers = self._means[memory.engine if memory is not None else EngineKind.LOCAL].ports.movers
        if isinstance(movers, Outliving):
            movers.leave(resource_id)
            return
        for direction in (d.FORWARD_STREAM, d.REVERSE_STREAM):
            mover = memory.hand.movers.get(direction) if memory is not None else None
            mover = mover or movers.running(resource_id, direction)
            if mover is not None:
                try:
                    mover.stop(STOP_SECONDS)
                except HomeworldError as error:  # its epoch is not the newest: it cannot write any more
                    _log.warning("workflow %s: the %s stream did not stop: %s", resource_id, direction, error)

    def loosen(self, resource_id: str) -> None:
        """Let holds and locks of the workflow go; its streams go on."""
        memory = self._memories.get(resource_id)
        # While Vitess moves writes nobody can stop it: clients wait until the hold ends by itself.
        if memory is not None and not memory.hand.switching:
            memory.hand.drop(self._ports.gateways)

    def let_go(self, resource_id: str) -> None:
        """Hold nothing and run nothing of the workflow any more. Never raises."""
        self.lost(resource_id)
        self.loosen(resource_id)
        self._memories.pop(resource_id, None)

    # -- actions ---------------------------------------------------------------------------------------------

    def _act(self, context: Context, memory: Memory, action: d.Action) -> tuple[Rest | None, bool]:
        """Perform ``action``; a rest, and whether to decide again without reading the store anew."""
        match action:
            case d.Go(move=Perform(name)):
                return None, self._performers[memory.engine].perform(context, memory, name)
            case d.Go(move=Undo(name)):
                self._performers[memory.engine].undo(context, memory, name)
            case Rest():
                return self._rest(context, memory, action), False
            case d.StartStream(direction):
                self._start_stream(context, memory, direction)
            case d.StopStream():
                self._stop_stream(context, memory, action)
            case d.Take():
                self._take(context, memory, action)
            case d.CompareSchemas():
                return self._compare_schemas(context), False
            case _:
                self._other(context, memory, action)
        return None, False

    def _other(self, context: Context, memory: Memory, action: d.Action) -> None:
        match action:
            case d.Begin(plan):
                Performer.begin(context, memory, plan)
            case d.Fail(reason):
                self._performers[memory.engine].fail(context, reason)
            case d.Abandon():
                context.let_go()
                with context.write() as tx:
                    context.set_facts(tx, **{RUN: None})
            case d.Settle():
                self._settle(context)
                context.let_go()
            case d.Compare(verify_id):
                self._compare(context, memory, verify_id)
            case d.Outdate():
                with context.write() as tx:
                    tx.workflows.update(context.workflow.id, verified=False)
            case d.LetGo():
                context.let_go()
            case _:
                raise TypeError(f"no way to perform {action!r}")

    def _compare(self, context: Context, memory: Memory, begun: str) -> None:
        verify_id = begun or new_id()
        # Told before it begins: what is passed from here on may be behind what it compares.
        progress = progress_of(context, d.FORWARD_STREAM)
        passed = progress.passed if progress is not None else 0
        with context.write() as tx:
            if tx.workflows.get(context.workflow.id).state is not State.VERIFYING_DATA:
                return  # it was called off meanwhile
            if not begun:
                tx.progress.end_verifications(context.workflow.id, "the schema was changed; it is begun anew")
                tx.progress.start_verification(context.workflow.id, vdiff_id=verify_id)
            context.set_facts(tx, **{VERIFY_ID: verify_id, VERIFY_PASSED: passed})
        try:
            context.mover(d.FORWARD_STREAM).verify(verify_id, repair=bool(context.workflow.facts.get(REPAIR)))
        except UnavailableError as error:
            reason = f"the data could not be verified: {sentence(error)}"
            self._take(context, memory, d.Take(Trigger.NOT_IN_TIME, reason))

    def _settle(self, context: Context) -> None:
        with context.write() as tx:
            context.set_facts(tx, **{RUN: None})
            # Another state may have been asked for meanwhile: that one is not settled by this.
            if tx.workflows.get(context.workflow.id).state is context.workflow.state:
                tx.workflows.update(context.workflow.id, settled=True)

    def _take(self, context: Context, memory: Memory, action: d.Take) -> None:
        workflow = context.workflow
        row = MOVE_TABLES.take(workflow.state, action.trigger, facts(workflow).holds)
        fields = _fields(action, row.to)
        met_at = _met_at(context) if action.trigger is Trigger.DDL_SEEN else ""
        try:
            with context.write() as tx:
                if action.close:
                    self._performers[memory.engine].close(context, memory, tx)
                if action.trigger is Trigger.DDL_SEEN:
                    told = {DDL: action.why, DDL_AT: met_at, EMPTIED: list(action.emptied)}
                    context.set_facts(tx, **told)
                if action.no_way_back:
                    context.set_facts(tx, **{NO_WAY_BACK: action.why})
                if action.trigger in (Trigger.STARTED, Trigger.EQUAL, Trigger.DIFFERENT):
                    different = action.why if action.trigger is Trigger.DIFFERENT else None
                    context.set_facts(tx, **{DIFFERENT: different})
                self._teller.tell_verification(tx, context)
                if workflow.state is State.VERIFYING_DATA:
                    # Whoever asks again wants to know it anew.
                    context.set_facts(tx, **{VERIFY_ID: None, REPAIR: None})
                    tx.progress.end_verifications(workflow.id, action.why or "it was not brought to its end")
                if workflow.state is State.CUTTING_OVER:
                    # However it ends: a cutover that is asked for later is a cutover and no more.
                    context.set_facts(tx, **{THEN_COMPLETE: None})
                tx.workflows.transition(workflow.id, workflow.state, row, why=action.why, **fields)
                self._teller.tell_transition(tx, context, row.to)
                if row.to is State.CUTOVER and THEN_COMPLETE in workflow.facts:
                    complete = MOVE_TABLES.take(row.to, Trigger.COMPLETE, facts(workflow).holds)
                    asker = str(workflow.facts[THEN_COMPLETE])
                    tx.workflows.transition(workflow.id, row.to, complete, actor_id=asker)
        except ConflictError:
            return  # a user's cancel was first: the next look sees it
        _log.info("workflow %s: %s → %s %s", workflow.id, workflow.state, row.to, action.why)
        memory.step.clear()
        context.let_go()

    # -- streams ---------------------------------------------------------------------------------------------

    def _start_stream(self, context: Context, memory: Memory, direction: str) -> None:
        try:
            context.start_mover(direction)
        except FencedError:
            context.lease.check()  # not the lease: somebody else's later epoch, and ours grows with each try
            memory.stream.add("a newer owner of the stream exists")
        except HomeworldError as error:
            _log.warning(
                "workflow %s: the %s stream does not start: %s", context.workflow.id, direction, error
            )
            memory.stream.add(sentence(error), outage=is_outage(error))
        else:
            return
        self._teller.tell_no_start(context, direction, memory.stream.reason)

    def _stop_stream(self, context: Context, memory: Memory, action: d.StopStream) -> None:
        direction = action.direction
        if action.trouble:
            memory.stream.add(action.trouble, outage=action.outage)
        progress = progress_of(context, direction)
        self._teller.tell(context, direction, progress, now=True)
        context.stop_mover(direction, STOP_SECONDS)
        by_request = progress is not None and progress.phase not in (Phase.DDL, Phase.FAILED)
        with context.write() as tx:
            tx.workflows.update(context.workflow.id, lag_seconds=None)
            if context.workflow.state is State.STOPPED and by_request:
                tx.progress.set_streams(
                    context.workflow.id, direction, state=Phase.STOPPED, primary_serving=False
                )

    def _rest(self, context: Context, memory: Memory, action: Rest) -> Rest:
        for direction in (d.FORWARD_STREAM, d.REVERSE_STREAM):
            progress = progress_of(context, direction)
            if progress is not None:
                self._teller.tell(context, direction, progress, now=progress.phase is Phase.FAILED)
        self._tell_standing(context, memory)
        if not action.keep and not context.workflow.settled:
            with context.write() as tx:
                if tx.workflows.get(context.workflow.id).state is context.workflow.state:
                    tx.workflows.update(context.workflow.id, settled=True)
        return action

    @staticmethod
    def _tell_standing(context: Context, memory: Memory) -> None:
        """Keep in ``workflow_errors`` what is wrong for as long as it is: a stream that does not run, a way
        back that is lost, data that were found to differ. What a step or a verification said stays before it.
        """
        workflow = context.workflow
        if workflow.state not in FORWARD and workflow.state not in REVERSE:
            return
        direction = d.FORWARD_STREAM if workflow.state in FORWARD else d.REVERSE_STREAM
        text = workflow.workflow_errors.partition(d.NOT_RUNNING.format(direction))[0].rstrip()
        lost = str(workflow.facts.get(NO_WAY_BACK, "")) if workflow.state in REVERSE else ""
        different = str(workflow.facts.get(DIFFERENT, ""))
        if lost:
            text = lost
        elif different and different not in text:
            text = f"{text}; {different}" if text else different
        elif context.live_mover(direction) is None and memory.stream.reason:
            text = f"{text}\n{d.NOT_RUNNING.format(direction)}{memory.stream.reason}".lstrip()
        if text != workflow.workflow_errors:
            with context.write() as tx:
                if tx.workflows.get(workflow.id).state is workflow.state:
                    tx.workflows.update(workflow.id, workflow_errors=text)

    def _compare_schemas(self, context: Context) -> Rest:
        """Say what keeps a stopped workflow's rows from fitting, or that nothing does any more."""
        if context.workflow.may_restart or NO_WAY_BACK in context.workflow.facts:
            return Rest(d.IDLE_SECONDS)  # nothing that is done to the tables changes what was said
        try:
            differences = _differences(context)
        except UnavailableError as error:
            _log.warning("workflow %s: comparing tables: %s", context.workflow.id, error)
            return Rest(SCHEMA_SECONDS)
        except HomeworldError as error:
            differences = [sentence(error)]
        fits = not differences
        text = "\n".join([str(context.workflow.facts.get(DDL, "")), *differences])
        if (context.workflow.may_retry, context.workflow.workflow_errors) != (fits, text):
            with context.write() as tx:
                if tx.workflows.get(context.workflow.id).state is State.STOPPED:
                    tx.workflows.update(context.workflow.id, may_retry=fits, workflow_errors=text)
        return Rest(SCHEMA_SECONDS)


def _differences(context: Context) -> list[str]:
    """How the tables that the stopped stream writes to differ from those that it reads, as far as it is known
    without comparing rows.

    :raises InvalidError: a table is gone from where it is read.
    """
    reverse = context.workflow.interrupted_state in REVERSE
    way = context.way(d.REVERSE_STREAM if reverse else d.FORWARD_STREAM)
    tables = tables_of(context, way.origin)
    places = context.owner(way.to)
    origin = f"{way.origin.name}/{way.origin.shards[0].name}"
    found = [
        difference
        for place in places
        for table in tables.values()
        if (difference := context.tools.difference(place, table, origin))
    ]
    return found or [
        f"{place.keyspace}/{place.shard}: table {table} has rows; empty it here, too, past the gateway"
        for place in places
        for table in context.listed(EMPTIED)
        if context.tools.has_rows(place, table)
    ]


def _met_at(context: Context) -> str:
    """Where the streams stand that met a schema statement, as far as their mover says."""
    seen = (progress_of(context, direction) for direction in (d.FORWARD_STREAM, d.REVERSE_STREAM))
    return next((progress.ddl_at for progress in seen if progress is not None and progress.ddl), "")


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
