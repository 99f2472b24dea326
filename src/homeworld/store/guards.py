"""The guards of MOVE_TABLES, evaluated from the stored facts. The API and the executor ask the same ones.

Knows no request and no server: it only hands a workflow's columns to the machine's own predicates.
"""

from __future__ import annotations

from collections.abc import Callable

from homeworld.model.states.move_tables import Facts
from homeworld.store.workflows import Workflow

LAG_LIMIT_SECONDS = 10.0


def facts(workflow: Workflow, lag_limit_seconds: float = LAG_LIMIT_SECONDS) -> Facts:
    """What guards read of a workflow. A lag that is not known counts as too high."""
    return Facts(
        replicas_switched=workflow.replicas_switched,
        primaries_switched=workflow.primaries_switched,
        verified=workflow.verified,
        interrupted=workflow.interrupted_state,
        may_retry=workflow.may_retry,
        lag_low=workflow.lag_seconds is not None and workflow.lag_seconds <= lag_limit_seconds,
    )


def guards(workflow: Workflow, lag_limit_seconds: float = LAG_LIMIT_SECONDS) -> Callable[[str], bool]:
    """``holds`` for ``MOVE_TABLES.take``.

    :raises KeyError: (when called) no such guard.
    """
    return facts(workflow, lag_limit_seconds).holds
