"""The guards of MOVE_TABLES, evaluated from the stored facts. The API and the executor ask the same ones.

Knows no request and no server; a guard that is not named here is an error, not a no.
"""

from __future__ import annotations

from collections.abc import Callable

from homeworld.model.states.move_tables import State
from homeworld.store.workflows import Workflow

LAG_LIMIT_SECONDS = 10.0
_INTERRUPTED = "interrupted:"
# From here on the source tables are gone.
_BEYOND = frozenset({State.CUTTING_OVER, State.CUTOVER, State.REVERSED_CUTOVER, State.COMPLETED})


def guards(workflow: Workflow, lag_limit_seconds: float = LAG_LIMIT_SECONDS) -> Callable[[str], bool]:
    """``holds`` for ``MOVE_TABLES.take``. Traffic is on the target when primaries are switched.

    A lag that is not known counts as too high.
    """
    facts = {
        "lag_low": workflow.lag_seconds is not None and workflow.lag_seconds <= lag_limit_seconds,
        "replicas_switched": workflow.replicas_switched,
        "replicas_not_switched": not workflow.replicas_switched,
        "was_verified": workflow.verified,
        "was_not_verified": not workflow.verified,
        "traffic_on_source": not workflow.primaries_switched,
        "traffic_switched": workflow.primaries_switched,
        "may_retry": workflow.may_retry,
        "may_cancel": workflow.state not in _BEYOND and workflow.interrupted_state not in _BEYOND,
    }

    def holds(guard: str) -> bool:
        if guard.startswith(_INTERRUPTED):
            return workflow.interrupted_state == State(guard.removeprefix(_INTERRUPTED))
        return facts[guard]

    return holds
