"""Carries changes of engine out: one step a tick, under the change's lease, by the plan in ``plans``.

Theory of operation. A try that fails before the commit point lets go of what it holds and is made again after
a pause, until the change's time is over; after it only forward. Whether the commit point is behind is read
from the database's row each time; nothing else has to survive a process.

Invariant: a change fails only while its database is the former engine's, and in one transaction with that.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from homeworld.model.errors import ConflictError, FencedError, HomeworldError, InvalidError, UnavailableError
from homeworld.model.states.engine_changes import EngineChange, EngineTrigger
from homeworld.store.engine_changes import KIND
from homeworld.workflows.engine_changes.context import Context, Hand, Ports
from homeworld.workflows.engine_changes.plans import COMMIT, plan
from homeworld.workflows.leases import Lease
from homeworld.workflows.provisioning.runner import NotYetError
from homeworld.workflows.steps import Perform, Plan, Rest, Run, next_move
from homeworld.workflows.trouble import Troubles

_log = logging.getLogger(__name__)

WAIT_SECONDS = 0.25


class EngineChanges:
    """The handler of changes of engine."""

    kind = KIND

    def __init__(self, ports: Ports, steps: Plan[Context] | None = None) -> None:
        """:param steps: another plan than the usual, for tests that interrupt it."""
        self._ports = ports
        self._plan = steps or plan()
        self._hands: dict[str, Hand] = {}
        self._troubles: dict[str, Troubles] = {}

    def tick(self, resource_id: str, lease: Lease) -> Rest | None:
        """One step.

        :raises FencedError: the lease is lost.
        """
        with self._ports.store.read() as tx:
            change = tx.engine_changes.get(resource_id)
            database = tx.databases.get(change.database_id)
            late = tx.work.now > change.created_at + timedelta(seconds=change.timeout)
        if change.state not in (EngineChange.PENDING, EngineChange.RUNNING):
            return Rest(WAIT_SECONDS, keep=False)
        hand = self._hands.get(resource_id)
        if hand is None or hand.token != lease.token:
            self.let_go(resource_id)
            hand = self._hands[resource_id] = Hand(lease.token)
        context = Context(self._ports, lease, hand, change, database)
        if not context.committed:
            if database.deleted_at is not None:
                return self._fail(context, "the database is deleted")
            if late:
                return self._fail(context, change.error or "it did not come to its end in time")
        if change.state is EngineChange.PENDING:
            return self._take(context, EngineTrigger.BEGIN)
        troubles = self._troubles.setdefault(resource_id, Troubles())
        if troubles.waiting:
            return Rest(WAIT_SECONDS)
        return self._act(context, troubles)

    def lost(self, resource_id: str) -> None:
        """Nothing of it goes on by itself; whoever has the lease takes over the holds."""

    def loosen(self, resource_id: str) -> None:
        """Let go of the holds, unless routes of the new engine are stored and nobody has published them: then
        they end by their own time, which whoever goes on has.
        """
        hand = self._hands.get(resource_id)
        if hand is None or not hand.holds:
            return
        holds = dict(hand.holds)
        hand.holds.clear()
        hand.touched.clear()
        hand.done.clear()
        try:
            with self._ports.store.read() as tx:
                change = tx.engine_changes.get(resource_id)
                committed = tx.databases.get(change.database_id).engine is change.engine
            if committed:
                return
            for hold_id in holds.values():
                self._ports.gateways.release(hold_id)
        except HomeworldError as error:
            _log.warning("change of engine %s: letting go: %s", resource_id, error)

    def let_go(self, resource_id: str) -> None:
        """Hold nothing of it any more. Does not raise."""
        self.loosen(resource_id)
        self._hands.pop(resource_id, None)
        self._troubles.pop(resource_id, None)

    # -- steps -----------------------------------------------------------------------------------------------

    def _act(self, context: Context, troubles: Troubles) -> Rest | None:
        run = Run(self._plan.name, 1)
        for step in context.hand.done:
            run = run.finish(step)
        if context.committed:
            run = run.finish(COMMIT)
        move = next_move(self._plan, run)
        if not isinstance(move, Perform):
            return self._take(context, EngineTrigger.DONE)
        step = self._plan.step(move.step)
        context.hand.touched.add(step.name)
        try:
            step.perform(context)
            if wrong := step.verify(context):
                raise UnavailableError(f"{step.name}: {wrong}")
        except FencedError:
            raise
        except NotYetError:
            return Rest(WAIT_SECONDS)
        except HomeworldError as error:
            return self._failed(context, troubles, step.name, error)
        troubles.clear()
        context.hand.done.add(step.name)
        if context.change.error:
            self._tell(context, "")
        return None

    def _failed(self, context: Context, troubles: Troubles, step: str, error: HomeworldError) -> Rest | None:
        told = str(error) or type(error).__name__
        _log.warning("change of engine %s: step %r: %s", context.change.id, step, told)
        with self._ports.store.read() as tx:
            committed = tx.databases.get(context.database.id).engine is context.change.engine
        if committed:
            # Forward; whoever waits goes on waiting for as long as the holds do.
            troubles.add(told, outage=True)
            return self._tell(context, told)
        context.hand.touched.clear()
        context.hand.done.clear()
        context.release()
        if isinstance(error, InvalidError):
            return self._fail(context, told)
        troubles.add(told, outage=isinstance(error, UnavailableError))
        return self._tell(context, told)

    # -- the change ------------------------------------------------------------------------------------------

    @staticmethod
    def _tell(context: Context, error: str) -> Rest:
        if context.change.error != error:
            with context.write() as tx:
                tx.engine_changes.tell(context.change.id, error)
        return Rest(WAIT_SECONDS)

    def _fail(self, context: Context, error: str) -> Rest | None:
        context.release()
        return self._take(context, EngineTrigger.FAIL, error)

    @staticmethod
    def _take(context: Context, trigger: EngineTrigger, error: str = "") -> Rest | None:
        try:
            with context.write() as tx:
                database = tx.databases.get(context.database.id)
                if trigger is EngineTrigger.FAIL and database.engine is context.change.engine:
                    return Rest(WAIT_SECONDS)  # it was committed by a try whose answer nobody heard
                now = tx.engine_changes.transition(
                    context.change.id, context.change.state, trigger, error=error
                )
        except ConflictError:
            return Rest(WAIT_SECONDS)
        _log.info("change of engine %s is %s %s", now.id, now.state, error)
        return None if now.state is EngineChange.RUNNING else Rest(WAIT_SECONDS, keep=False)
