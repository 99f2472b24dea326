"""Writes what movers say of themselves into the store, about once a second, for people to read.

Nothing is ever decided from what is written here.
"""

from __future__ import annotations

import time

from homeworld.model.movers import MoverProgress, Phase
from homeworld.model.states.move_tables import State
from homeworld.store.store import Transaction
from homeworld.workflows.move_tables.context import Context
from homeworld.workflows.move_tables.decide import FORWARD_STREAM, REVERSE_STREAM

EVERY_SECONDS = 1.0


class Teller:
    """Remembers what was told when, so that the store is not written more often than it is read."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], tuple[float, Phase]] = {}

    def tell(
        self, context: Context, direction: str, progress: MoverProgress | None, *, now: bool = False
    ) -> None:
        """Write ``progress`` if it is time, if its phase is new, or ``now``."""
        if progress is None:
            return
        key = (context.workflow.id, direction)
        when, phase = self._told.get(key, (0.0, None))
        if not now and phase is progress.phase and time.monotonic() - when < EVERY_SECONDS:
            return
        with context.write() as tx:
            tx.progress.tell(context.workflow.id, direction, progress)
        self._told[key] = (time.monotonic(), progress.phase)

    @staticmethod
    def tell_no_start(context: Context, direction: str, why: str) -> None:
        """Say of the streams that they did not start."""
        way = context.way(direction)
        shards = [(source.name, target.name) for source in way.origin.shards for target in way.to.shards]
        with context.write() as tx:
            tx.progress.fail_streams(context.workflow.id, direction, shards, why)

    @staticmethod
    def tell_verification(tx: Transaction, context: Context) -> None:
        """Write the newest word of a verification, so that its report is there when its verdict is."""
        if context.workflow.state is State.VERIFYING_DATA:
            mover = context.live_mover(FORWARD_STREAM)
            verification = None if mover is None else mover.progress().verification
            if verification is not None:
                tx.progress.tell_verification(context.workflow.id, verification)

    def tell_transition(self, tx: Transaction, context: Context, to: State) -> None:
        """Say of the streams what a transition made of them."""
        found = {
            State.SWITCHED_PRIMARIES: ("stopped", "following", True),
            State.RUNNING: ("following", "stopped", False),
            State.CUTOVER: ("stopped", "stopped", True),
            State.CANCELLED: ("stopped", "stopped", False),
        }.get(to)
        if found is None:
            return
        if to is State.RUNNING and (mover := context.live_mover(FORWARD_STREAM)) is not None:
            # A copy that has ended is told with its last figures, not with those of a second ago.
            tx.progress.tell(context.workflow.id, FORWARD_STREAM, mover.progress())
        forward, reverse, serving = found
        for direction, state in ((FORWARD_STREAM, forward), (REVERSE_STREAM, reverse)):
            tx.progress.set_streams(
                context.workflow.id,
                direction,
                state=state,
                primary_serving=serving == (direction == FORWARD_STREAM),
                stop_positions=context.hand.stops if state == "stopped" else None,
            )
