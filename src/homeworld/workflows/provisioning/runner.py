"""Runs a forward-only plan of durable steps for a resource, one recorded step at a time.

Invariant: a step that the journal says is done is not performed again; one that was only started is. A step
that fails is tried again, after growing pauses, and the reason stands in the resource's ``error`` meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from homeworld.model.errors import FencedError, HomeworldError, UnavailableError
from homeworld.store.journal import StepStatus
from homeworld.store.store import Store
from homeworld.workflows.leases import Lease
from homeworld.workflows.steps import C, Perform, Plan, Rest, Run, next_move
from homeworld.workflows.trouble import Troubles

_log = logging.getLogger(__name__)

WAIT_SECONDS = 0.25
LONGEST_WAIT_SECONDS = 5.0
#: Whoever has waited for so long looks again after this part of it: a tenth more than what it took.
WAIT_SHARE = 0.1


def pause_after(waited_seconds: float) -> float:
    """Seconds until it is looked again whether something else is finished. Hundreds that wait for minutes
    would be all that a process does.

    >>> pause_after(0.0), pause_after(10.0), pause_after(600.0)
    (0.25, 1.0, 5.0)
    """
    return min(max(WAIT_SECONDS, waited_seconds * WAIT_SHARE), LONGEST_WAIT_SECONDS)


class NotYetError(UnavailableError):
    """Something else has to be finished first; it is no failure."""


class Runner:
    """Remembers failures of the resources of one kind; the rest is in the journal."""

    def __init__(self, store: Store, tell: Callable[[str, str], None]) -> None:
        """:param tell: writes a resource's ``error`` where it changed."""
        self._store = store
        self._tell = tell
        self._troubles: dict[str, Troubles] = {}
        self._waits: dict[str, float] = {}

    def forget(self, resource_id: str) -> None:
        """The resource rests."""
        self._troubles.pop(resource_id, None)
        self._waits.pop(resource_id, None)

    def act(self, plan: Plan[C], context: C, resource_id: str, lease: Lease) -> Rest | None:
        """Perform the next step.

        :returns: a rest; None: there is more at once.
        """
        troubles = self._troubles.setdefault(resource_id, Troubles())
        if troubles.waiting:
            return Rest(max(WAIT_SECONDS, troubles.left_seconds))
        run = self._run(plan, resource_id)
        move = next_move(plan, run)
        if not isinstance(move, Perform):
            return Rest(WAIT_SECONDS, keep=False)
        step = plan.step(move.step)
        if step.name not in run.touched:
            self._record(resource_id, run, step.name, StepStatus.STARTED, lease)
        try:
            step.perform(context)
            if wrong := step.verify(context):
                raise UnavailableError(f"{step.name}: {wrong}")
        except NotYetError:
            now = time.monotonic()
            return Rest(pause_after(now - self._waits.setdefault(resource_id, now)))
        except FencedError:
            raise
        except (HomeworldError, OSError) as error:  # a full disk is no fault of ours
            _log.warning("%s: step %r: %s", lease.resource, step.name, error)
            troubles.add(str(error))
            self._tell(resource_id, str(error))
            return Rest(WAIT_SECONDS)
        except Exception:
            # Whoever waits for it must not wait without a word; what it was is the log's to say.
            self._tell(resource_id, f"{step.name}: an unexpected fault; homeworld's log says which")
            raise
        troubles.clear()
        self._waits.pop(resource_id, None)
        self._record(resource_id, run, step.name, StepStatus.DONE, lease)
        return None

    def _run(self, plan: Plan[C], resource_id: str) -> Run:
        run = Run(plan.name, 1)
        with self._store.read() as tx:
            for record in tx.journal.steps(resource_id, run.key):
                run = run.finish(record.step) if record.status is StepStatus.DONE else run.begin(record.step)
        return run

    def _record(self, resource_id: str, run: Run, step: str, status: StepStatus, lease: Lease) -> None:
        with self._store.write() as tx:
            lease.require(tx)
            tx.journal.record_step(resource_id, run.key, step, status)
