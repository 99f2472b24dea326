"""The guards of MOVE_TABLES, evaluated from the stored facts. The API and the executor ask the same ones.

Knows no request and no server: it only hands a workflow's columns to the machine's own predicates.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from homeworld.model.states.move_tables import Facts
from homeworld.store.workflows import Workflow

#: The fact that keeps what the last comparison that came to its end found to differ.
DIFFERENT = "different"
#: The verification that counts: asked for by that id, or begun under it.
VERIFY_ID = "verify_id"
#: What a stopped workflow was stopped by, where its streams stand (on Vitess), and the tables that it emptied
#: on one side.
DDL = "ddl"
DDL_AT = "ddl_at"
EMPTIED = "ddl_emptied"
#: Who asked for a cutover and, with its end, for the workflow's completion: an actor's id.
THEN_COMPLETE = "then_complete"
REPAIR = "repair"  # the verification that was asked for is to put right what differs
LAG_LIMIT_SECONDS = 10.0
# A lag that nobody has told for this long says nothing: whoever told it may be dead.
LAG_FRESH = timedelta(seconds=30)


def facts(
    workflow: Workflow, lag_limit_seconds: float = LAG_LIMIT_SECONDS, now: datetime | None = None
) -> Facts:
    """What guards read of a workflow. A lag that is not known counts as too high.

    :param now: where given, a lag told longer than LAG_FRESH before it counts as not known.
    """
    low = workflow.lag_seconds is not None and workflow.lag_seconds <= lag_limit_seconds
    told = workflow.lag_told_at
    fresh = now is None or (told is not None and now - told <= LAG_FRESH)
    return Facts(
        replicas_switched=workflow.replicas_switched,
        primaries_switched=workflow.primaries_switched,
        verified=workflow.verified,
        interrupted=workflow.interrupted_state,
        may_retry=workflow.may_retry,
        lag_low=low and fresh,
        different=bool(workflow.facts.get(DIFFERENT)),
    )


def guards(
    workflow: Workflow, lag_limit_seconds: float = LAG_LIMIT_SECONDS, now: datetime | None = None
) -> Callable[[str], bool]:
    """``holds`` for ``MOVE_TABLES.take``.

    :raises KeyError: (when called) no such guard.
    """
    return facts(workflow, lag_limit_seconds, now).holds
