"""Making a server follow another by GTID, keeping it so, and asking how far it is.

Works on open control connections; knows no files or processes. A replica is never made to skip anything: what
cannot be repaired without skipping is reported and left.
"""

from __future__ import annotations

import time
from dataclasses import replace
from enum import StrEnum

from homeworld.engines.accounts import Accounts
from homeworld.engines.connection import Control
from homeworld.engines.flavors import ReplicaState, Rules
from homeworld.model.errors import DeadlineExceededError, InvalidError
from homeworld.model.gtid import Position

_SLICE_SECONDS = 1.0
_LOOK_SECONDS = 0.05


class Mended(StrEnum):
    """What ``follow`` had to do."""

    NOTHING = "nothing"
    ATTACHED = "attached"
    REPOINTED = "repointed"
    RESTARTED = "restarted"


def read(replica: Control, rules: Rules) -> ReplicaState | None:
    """How replication stands, or None where the server follows nobody."""
    rows = replica.run(rules.replica_status)
    if not rows:
        return None
    state = rules.parse_replica(rows[0])
    if state.applier_error and rules.applier_errors:
        told = replica.value(rules.applier_errors)
        return replace(state, applier_error=str(told)) if told else state
    return state


def follow(
    primary: Control,
    replica: Control,
    rules: Rules,
    primary_port: int,
    accounts: Accounts,
    promoted_at: str = "",
) -> Mended:
    """Make ``replica`` follow the server that listens on ``primary_port``; idempotent.

    A new replica begins at the empty position, so it becomes complete from the primary's binlogs alone. A
    former primary goes on from where it is, if that is nothing but what the primary had when it was promoted.

    :param promoted_at: what the primary had when it was promoted; empty: it always was one.
    :raises InvalidError: the primary no longer has all binlogs, or the replica has data of its own.
    """
    state = read(replica, rules)
    if state is None:
        own = str(replica.value(rules.position) or "")
        if own and promoted_at:
            _check_shared(own, promoted_at, rules)
            if rules.adopt_position:
                replica.run(rules.adopt_position)
        else:
            _check_complete(primary, replica, rules)
        replica.run(rules.replicate_from(primary_port, accounts))
        replica.run(rules.start_replica)
        return Mended.ATTACHED
    if state.source_port != primary_port:
        replica.run(rules.stop_replica)
        _check_not_ahead(primary, replica, rules)
        replica.run(rules.replicate_from(primary_port, accounts))
        replica.run(rules.start_replica)
        return Mended.REPOINTED
    if state.error and not _on_its_way(state):
        # Starting again retries the same event: harmless where the cause is still there, enough where it was
        # a lock timeout, a full disk or a stopped thread.
        replica.run(rules.start_replica)
        return Mended.RESTARTED
    return Mended.NOTHING


def wait(primary: Control, replica: Control, rules: Rules, timeout_seconds: float) -> None:
    """Return once ``replica`` has applied all that ``primary`` has committed now.

    :raises DeadlineExceededError: not within the time; says why replication is broken where it is.
    """
    deadline = time.monotonic() + timeout_seconds
    position = primary.value(rules.position) or ""
    # In short waits, so that the connection's own time limit is never the one that ends it.
    while position:
        left = deadline - time.monotonic()
        if _applied(replica, rules, str(position), max(0.0, min(left, _SLICE_SECONDS))):
            return
        if left <= 0:
            state = read(replica, rules)
            reason = state.error if state else "it follows nobody"
            lag = "" if reason or state is None else f", {state.lag_seconds} s behind"
            raise DeadlineExceededError(
                f"the replica did not catch up within {timeout_seconds:g} s"
                + (f": {reason}" if reason else lag)
            )


def apply_received(replica: Control, rules: Rules, timeout_seconds: float) -> None:
    """Fetch nothing more, and return once all that was fetched is applied.

    :raises DeadlineExceededError: not within the time; fetching stays stopped.
    """
    deadline = time.monotonic() + timeout_seconds
    replica.run(rules.stop_receiving)
    (read_file, read_at), (done_file, done_at) = rules.received
    while True:
        rows = replica.run(rules.replica_status)
        if not rows or (rows[0][read_file], rows[0][read_at]) == (rows[0][done_file], rows[0][done_at]):
            return
        if time.monotonic() > deadline:
            state = rules.parse_replica(rows[0])
            raise DeadlineExceededError(
                f"the replica did not apply what it had received within {timeout_seconds:g} s"
                + (f": {state.applier_error}" if state.applier_error else "")
            )
        time.sleep(_LOOK_SECONDS)


def become_primary(replica: Control, rules: Rules) -> None:
    """Follow nobody any more and take writes. Idempotent."""
    replica.run(rules.stop_replica)
    replica.run(rules.forget_source)
    replica.run(rules.writable)


def _check_shared(own: str, promoted_at: str, rules: Rules) -> None:
    if not Position.parse(rules.flavor, promoted_at).contains(Position.parse(rules.flavor, own)):
        raise InvalidError(
            f"the server was a primary and has transactions ({own}) that its successor, which began at "
            f"{promoted_at}, never had: they are lost. Keep its data for whoever misses them, or destroy it"
        )


def _check_not_ahead(primary: Control, replica: Control, rules: Rules) -> None:
    """A replica that could not be asked when its primary was replaced may have more than the new one."""
    own, theirs = (str(server.value(rules.position) or "") for server in (replica, primary))
    if own and not Position.parse(rules.flavor, theirs).contains(Position.parse(rules.flavor, own)):
        raise InvalidError(
            f"the replica has transactions ({own}) that its new primary ({theirs}) never had; keep its data "
            "for whoever misses them, or destroy it"
        )


def _applied(replica: Control, rules: Rules, position: str, seconds: float) -> bool:
    # MySQL takes 0 as "for ever"; a millisecond is the shortest wait that both understand.
    return replica.value(rules.wait_applied, (position, max(seconds, 0.001))) == 0


def _on_its_way(state: ReplicaState) -> bool:
    """Only the receiver is not connected, and it tries again by itself."""
    return state.applier_running and state.receiver_connecting


def _check_complete(primary: Control, replica: Control, rules: Rules) -> None:
    executed = str(replica.value(rules.executed) or "")
    if executed:
        raise InvalidError(f"the server has transactions of its own ({executed}) and cannot become a replica")
    arguments: tuple[object, ...] = ()
    if rules.first_binlog:
        arguments = (primary.value(rules.first_binlog),)
    missing = str(primary.value(rules.purged, arguments) or "")
    if missing:
        raise InvalidError(
            "a new replica cannot become complete: the primary's binlogs no longer have the transactions "
            f"{missing} (binlog_expire_logs_seconds is how long they are kept)"
        )
