"""Carries reparents out: one step a tick, under the reparent's lease, by the plans in ``plans``.

Theory of operation. A try that fails before the commit point lets go of what it holds and is made again after
a pause, until the reparent's time is over; after it only forward. Durable steps are recorded in the journal
before and after they are performed; whether the commit point is behind is asked of the engine each time.

Invariants: nothing begins while something else of the branch moves traffic or restarts servers, and what has
begun is waited for by those, or refuses them; a reparent fails only while the former primary is the primary,
and nothing can make another of it any more.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta

from homeworld.model.errors import ConflictError, FencedError, HomeworldError, InvalidError, UnavailableError
from homeworld.model.states.reparenting import Reparent, ReparentTrigger
from homeworld.store.journal import StepStatus
from homeworld.store.reparents import KIND
from homeworld.workflows.leases import Lease
from homeworld.workflows.reparenting.context import Context, Hand, Ports
from homeworld.workflows.reparenting.plans import PROMOTE, all_plans, committed, plan_of, sentence, unsettled
from homeworld.workflows.steps import Perform, Plan, Rest, Run, Sort, next_move
from homeworld.workflows.trouble import Troubles

_log = logging.getLogger(__name__)

WAIT_SECONDS = 0.25
_CHOOSE = "choose"


class Reparents:
    """The handler of reparents."""

    kind = KIND

    def __init__(self, ports: Ports, plans: Mapping[str, Plan[Context]] | None = None) -> None:
        """:param plans: other plans than the usual, for tests that interrupt them."""
        self._ports = ports
        self._plans = plans or all_plans()
        self._hands: dict[str, Hand] = {}
        self._troubles: dict[str, Troubles] = {}

    def tick(self, resource_id: str, lease: Lease) -> Rest | None:
        """One step.

        :raises FencedError: the lease is lost.
        """
        with self._ports.store.read() as tx:
            reparent = tx.reparents.get(resource_id)
            gone = tx.branches.get(reparent.branch_id).deleted_at is not None
            late = tx.work.now > reparent.created_at + timedelta(seconds=reparent.timeout)
            why = "" if reparent.emergency else tx.reparents.in_the_way(reparent.branch_id)
        hand = self._hands.get(resource_id)
        if hand is None or hand.token != lease.token:
            self.let_go(resource_id)
            hand = self._hands[resource_id] = Hand(lease.token)
        context = Context(self._ports, lease, hand, reparent)
        if reparent.state not in (Reparent.PENDING, Reparent.RUNNING):
            return Rest(WAIT_SECONDS, keep=False)
        if (gone or late) and not committed(context) and not unsettled(context):
            return self._fail(
                context, "the branch is deleted" if gone else reparent.error or "it did not get its turn"
            )
        if reparent.state is Reparent.PENDING:
            if why:
                return self._tell(context, f"waits: {why}")
            return self._take(context, ReparentTrigger.BEGIN)
        troubles = self._troubles.setdefault(resource_id, Troubles())
        if troubles.waiting:
            return Rest(WAIT_SECONDS)
        return self._act(context, troubles)

    def lost(self, resource_id: str) -> None:
        """Nothing of it goes on by itself; whoever has the lease takes over the hold."""

    def loosen(self, resource_id: str) -> None:
        """Let go of the hold, unless writes would meet a fenced server: then it ends by its own time."""
        hand = self._hands.get(resource_id)
        if hand is None or not hand.hold_id:
            return
        hold_id, hand.hold_id = hand.hold_id, ""
        hand.touched.clear()
        hand.done.clear()
        try:
            with self._ports.store.read() as tx:
                heir = tx.reparents.get(resource_id).heir_server_id
                former = tx.reparents.get(resource_id).former_server_id
            engine = self._ports.engine
            if heir is None or not (engine.is_primary(heir) or engine.unsettled(former)):
                self._ports.gateways.release(hold_id)
        except HomeworldError as error:
            _log.warning("reparent %s: letting go: %s", resource_id, error)

    def let_go(self, resource_id: str) -> None:
        """Hold nothing of it any more. Does not raise."""
        self.loosen(resource_id)
        self._hands.pop(resource_id, None)
        self._troubles.pop(resource_id, None)

    # -- steps -----------------------------------------------------------------------------------------------

    def _act(self, context: Context, troubles: Troubles) -> Rest | None:
        plan = self._plans[plan_of(emergency=context.reparent.emergency)]
        run = self._run(context, plan)
        move = next_move(plan, run)
        if not isinstance(move, Perform):
            return self._take(context, ReparentTrigger.DONE)
        step = plan.step(move.step)
        durable = step.sort is Sort.DURABLE
        if durable:
            self._record(context, run, step.name, StepStatus.STARTED)
        else:
            context.hand.touched.add(step.name)
        try:
            step.perform(context)
            if wrong := step.verify(context):
                raise UnavailableError(f"{step.name}: {wrong}")
        except FencedError:
            raise
        except HomeworldError as error:
            return self._failed(context, troubles, run, step.name, error)
        troubles.clear()
        if durable:
            self._record(context, run, step.name, StepStatus.DONE)
        else:
            context.hand.done.add(step.name)
        if context.reparent.error:
            self._tell(context, "")
        return None

    @staticmethod
    def _run(context: Context, plan: Plan[Context]) -> Run:
        run = Run(plan.name, 1)
        with context.ports.store.read() as tx:
            for record in tx.journal.steps(context.reparent.id, run.key):
                if record.status is StepStatus.DONE:
                    run = run.finish(record.step)
                elif record.status is not StepStatus.UNDONE:
                    run = run.begin(record.step)
        for step in context.hand.done:
            run = run.finish(step)
        return run.finish(PROMOTE) if committed(context) else run.undo(PROMOTE)

    @staticmethod
    def _record(context: Context, run: Run, step: str, status: StepStatus) -> None:
        with context.write() as tx:
            tx.journal.record_step(context.reparent.id, run.key, step, status)

    def _failed(
        self, context: Context, troubles: Troubles, run: Run, step: str, error: HomeworldError
    ) -> Rest | None:
        told = sentence(error)
        _log.warning("reparent %s: step %r: %s", context.reparent.id, step, told)
        if committed(context) or unsettled(context):
            # Forward, or as the watcher settles it; whoever waits goes on waiting for as long as the hold
            # does.
            troubles.add(told, outage=True)
            return self._tell(context, told)
        context.hand.touched.clear()
        context.hand.done.clear()
        context.release()
        if isinstance(error, InvalidError):
            return self._fail(context, told)
        troubles.add(told, outage=isinstance(error, UnavailableError))
        if not context.reparent.heir_asked and _CHOOSE in run.touched:
            self._record(context, run, _CHOOSE, StepStatus.UNDONE)  # another may be better by now
        return self._tell(context, told)

    # -- the reparent ----------------------------------------------------------------------------------------

    @staticmethod
    def _tell(context: Context, error: str) -> Rest:
        if context.reparent.error != error:
            with context.write() as tx:
                tx.reparents.tell(context.reparent.id, error)
        return Rest(WAIT_SECONDS)

    def _fail(self, context: Context, error: str) -> Rest | None:
        context.release()
        return self._take(context, ReparentTrigger.FAIL, error)

    @staticmethod
    def _take(context: Context, trigger: ReparentTrigger, error: str = "") -> Rest | None:
        try:
            with context.write() as tx:
                begins = trigger is ReparentTrigger.BEGIN and not context.reparent.emergency
                if begins and tx.reparents.in_the_way(context.reparent.branch_id):
                    return Rest(WAIT_SECONDS)
                now = tx.reparents.transition(
                    context.reparent.id, context.reparent.state, trigger, error=error
                )
        except ConflictError:
            return Rest(WAIT_SECONDS)
        _log.info("reparent %s is %s %s", now.id, now.state, error)
        return None if now.state is Reparent.RUNNING else Rest(WAIT_SECONDS, keep=False)
