"""Holds on an event loop: their deadlines, their drains, and who is told.

What a hold is and when it blocks is in ``hold``; this adds time. Its calls come on the loop, except
:meth:`HoldKeeper.is_held`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from homeworld.gateway.branch import Branch, Lease
from homeworld.gateway.hold import Hold, Holds, HoldState
from homeworld.gateway.session import Session
from homeworld.model.errors import DeadlineExceededError, FencedError
from homeworld.model.routing import HoldRequest
from homeworld.model.topology import TabletType

_MOST_TOLD = 5
_AGAIN_SECONDS = 0.1
_READ_SECONDS = 10.0  # for newer routes to be read and served
# Writes wait for no longer than that, however long the store is away.
_LONGEST_SECONDS = 60.0


@dataclass(slots=True)
class _InForce:
    """A hold with its own deadline (``time.monotonic`` seconds)."""

    hold: Hold
    until: float
    timer: asyncio.TimerHandle

    @property
    def request(self) -> HoldRequest:
        """What was asked for."""
        return self.hold.request


def _tell(sessions: Sequence[Session]) -> str:
    """Who keeps a hold waiting, the oldest first, for the end of a sentence."""
    now = time.monotonic()
    ordered = sorted(sessions, key=lambda one: one.transaction.opened or now)
    told = [
        f"connection {one.number} of {one.account.username}"
        + (f" (open for {now - one.transaction.opened:.1f} s)" if one.transaction.opened else "")
        for one in ordered[:_MOST_TOLD]
    ]
    more = [f"{len(ordered) - _MOST_TOLD} more"] if len(ordered) > _MOST_TOLD else []
    return f": {', '.join((*told, *more))}" if told else ""


class HoldKeeper:
    """All holds of one gateway.

    :param branch_of: finds a branch by id; None where the gateway does not serve it.
    :param lease: of the gateway where there are several: one that has lost touch with the others keeps holds
        on writes beyond their time, for a minute at most, as what was stored meanwhile is to be read first.
    """

    def __init__(self, branch_of: Callable[[str], Branch | None], lease: Lease | None = None) -> None:
        self._branch_of = branch_of
        self._lease = lease
        self._holds: dict[str, Holds] = {}
        self._in_force: dict[str, _InForce] = {}
        self._settling: set[Branch] = set()

    def holds_of(self, branch_id: str) -> Holds:
        """The holds of a branch; they outlive the branch's own coming and going."""
        return self._holds.setdefault(branch_id, Holds())

    def is_held(self, hold_id: str) -> bool:
        """Whether the hold is in force and its own deadline has not passed. From any thread."""
        found = self._in_force.get(hold_id)
        return found is not None and found.hold.state is HoldState.HELD and time.monotonic() < found.until

    def is_drained(self, subject: str) -> bool:
        """Whether a hold of the subject is in force with nothing on its tables under way."""
        return any(found.hold.state is HoldState.HELD for found in self._of(subject))

    def _of(self, subject: str) -> list[_InForce]:
        """The holds of a subject that are in force; the empty one has none."""
        return [found for found in self._in_force.values() if subject and found.request.subject == subject]

    @property
    def ids(self) -> frozenset[str]:
        """The holds in force in any state. From any thread."""
        return frozenset(dict(self._in_force))

    @property
    def count(self) -> int:
        """How many holds are in force in any state. From any thread."""
        return len(self._in_force)

    async def hold(self, request: HoldRequest) -> None:
        """Put a hold in force, in the place of an earlier one of its subject; returns once nothing on its
        tables is under way.

        :raises DeadlineExceededError: that took longer than the request allows; the hold is gone again.
        :raises FencedError: a hold of a later turn is in force.
        """
        loop = asyncio.get_running_loop()
        others = [found for found in self._of(request.subject) if found.request.hold_id != request.hold_id]
        if any(found.request.turn > request.turn for found in others):
            raise FencedError(resource=request.subject)
        known = self._in_force.get(request.hold_id)
        if known is not None:
            known.timer.cancel()
        holds = self.holds_of(request.branch_id)
        hold = holds.begin(request)
        timer = loop.call_later(request.hold_seconds, self._expire, request.hold_id)
        self._in_force[request.hold_id] = _InForce(hold, time.monotonic() + request.hold_seconds, timer)
        branch = self._branch_of(request.branch_id)
        if branch is None:
            hold.state = HoldState.HELD
            self._end_all(others)
            return
        for session in branch.sessions:
            session.unready_all()
        drained: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            if not drained.done():
                drained.set_result(None)

        hold.drained.append(tell)
        branch.draining = True
        self._settle(branch)
        # Only now: what waited for them finds this one.
        self._end_all(others)
        if hold.state is HoldState.HELD:
            return
        try:
            async with asyncio.timeout(request.drain_seconds):
                await drained
        except TimeoutError as error:
            self._settle(branch)  # all may have ended in this very turn
            if self.is_held(request.hold_id):
                return
            who = _tell(branch.holds.keeping(hold, branch.sessions))
            self.end(request.hold_id)
            raise DeadlineExceededError(
                f"transactions on the tables did not end within {request.drain_seconds:g} s{who}"
            ) from error
        except asyncio.CancelledError:
            self.end(request.hold_id)
            raise
        if self._in_force.get(request.hold_id) is None:
            raise DeadlineExceededError("the hold was over before everything had ended")

    def _settle(self, branch: Branch) -> None:
        self._settling.discard(branch)
        for hold in branch.holds.settle(branch.sessions):
            for tell in hold.drained:
                tell()
            hold.drained.clear()
        branch.draining = branch.holds.draining

    def _expire(self, hold_id: str, *, lapsed: bool = False) -> None:
        """The hold's own time is over. Who has lost touch with the others first reads what was stored.

        :param lapsed: the lease did not live a moment ago.
        """
        found = self._in_force.get(hold_id)
        if found is None or self._lease is None:
            self.end(hold_id)
            return
        live = self._lease.live()
        writes = TabletType.PRIMARY in found.request.tablet_types
        if live and lapsed:
            wait, lapsed = _READ_SECONDS, False  # whoever reads ends it before: it is on no board any more
        elif live or not writes or time.monotonic() > found.until + _LONGEST_SECONDS:
            self.end(hold_id)
            return
        else:
            wait, lapsed = _AGAIN_SECONDS, True
        again = partial(self._expire, hold_id, lapsed=lapsed)
        found.timer = asyncio.get_running_loop().call_later(wait, again)

    def end(self, hold_id: str) -> None:
        """Take a hold out of force and let go on what waits for it. Unknown ids are fine."""
        found = self._in_force.pop(hold_id, None)
        if found is None:
            return
        found.timer.cancel()
        branch_id = found.request.branch_id
        hold = self._holds[branch_id].end(hold_id)
        branch = self._branch_of(branch_id)
        if branch is not None:
            branch.draining = branch.holds.draining
        if hold is not None:
            waiters, hold.waiters = hold.waiters, []
            for wake in (*hold.drained, *waiters):
                wake()

    def end_all(self) -> None:
        """Nothing is held any more."""
        self._end_all(list(self._in_force.values()))

    def _end_all(self, several: list[_InForce]) -> None:
        for found in several:
            self.end(found.request.hold_id)

    def progress(self, branch: Branch) -> None:
        """Something has ended: look at what is under way once everything of this moment has been done."""
        if branch not in self._settling:
            self._settling.add(branch)
            asyncio.get_running_loop().call_soon(self._settle, branch)
