"""Sessions between two requests: which are kept, for how long, and who may go on with them.

Three ways lead from one request of a session to its next::

    pinned   a transaction is open, or something is left on a server that SETs cannot repeat: the session is
             kept, one request at a time has it, and one that nobody asks for too long is ended
    warm     nothing hangs on it: it is kept for a moment with its connections, the newest only, so that what
             follows at once costs no new ones; whoever comes first with its token takes it
    cold     it is made again from its token, here or on any other gateway

The invariant: a statement runs in a transaction only if that is the one its token names, whole. Of one that
is gone the client hears with each statement until it says ROLLBACK, COMMIT or BEGIN: it must not commit half
of its work because it has not looked at an error.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from homeworld.edge.codes import Code, RefusedError, SessionLostError
from homeworld.edge.messages import SessionSeen
from homeworld.edge.talk import Keep, Talk
from homeworld.edge.tokens import Signer, State, check_unchanged, fresh
from homeworld.gateway.annex import may_stay
from homeworld.gateway.branch import Branch
from homeworld.gateway.connection import House
from homeworld.model.errors import ServerError
from homeworld.model.names import new_id
from homeworld.model.routing import Account

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is taken, given and kept.

    * ``transaction_seconds``, ``bound_seconds``: so long a pinned session may lie unused.
    * ``warm_seconds``, ``most_warm``: of sessions that nothing hangs on.
    * ``most_pinned``: in the whole gateway; ``most_waiting``: requests for one pinned session at once.
    * ``largest_body``: of a request, in bytes, unpacked; ``largest_answer``: that is not streamed.
    * ``most_held``: bytes of requests and answers that are in memory at once, about.
    """

    transaction_seconds: float = 30.0
    bound_seconds: float = 120.0
    warm_seconds: float = 10.0
    most_warm: int = 16
    most_pinned: int = 1000
    most_waiting: int = 32
    largest_body: int = (1 << 26) + (1 << 20)
    largest_answer: int = 1 << 26
    most_held: int = 1 << 29


@dataclass(slots=True, eq=False)
class _Pinned:
    """A session that is kept. ``since``: unused since then, on the loop's clock."""

    pin: str
    talk: Talk
    keep: Keep
    since: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


@dataclass(slots=True, eq=False)
class Visit:
    """One request's hold on a session. ``before``: what its token says it is."""

    account: Account
    talk: Talk
    before: State
    pinned: _Pinned | None = None


_MOST_ENDED = 4096
_LEFT = "what the session had left on its server (temporary tables, locks, variables)"


class Sessions:
    """All of one gateway's. Lives on its loop.

    :param wall: seconds since the epoch.
    """

    def __init__(
        self, house: House, signer: Signer, limits: Limits, wall: Callable[[], float] = time.time
    ) -> None:
        self._house = house
        self._signer = signer
        self._limits = limits
        self._wall = wall
        self._name = new_id()
        self._pinned: dict[str, _Pinned] = {}
        self._warm: OrderedDict[str, tuple[Talk, float]] = OrderedDict()
        self._ended: OrderedDict[str, str] = OrderedDict()
        self._visits: set[Visit] = set()

    @property
    def kept(self) -> tuple[int, int]:
        """How many are pinned, and how many warm."""
        return len(self._pinned), len(self._warm)

    @property
    def under_way(self) -> int:
        """How many requests have a session right now."""
        return len(self._visits)

    @property
    def waiting(self) -> int:
        """How many requests wait for another one of their session."""
        return sum(entry.waiting for entry in self._pinned.values())

    # ---------------------------------------------------------------- tokens

    def read(self, seen: SessionSeen | None, account: Account) -> State:
        """The session that a request names; a new one where it names none.

        :raises TokenError: it was not given to this password, has been changed, or has expired.
        """
        if seen is None or (not seen.token and seen.shown is None):
            return fresh()
        state = self._signer.read(seen, account, self._wall())
        check_unchanged(state, seen)
        return state

    def sign(self, state: State, account: Account) -> bytes:
        """The token of a session.

        :raises LargeStateError: clients cannot carry that much.
        """
        return self._signer.sign(state, account, self._wall())

    # ---------------------------------------------------------------- one request

    async def enter(self, account: Account, branch: Branch, peer: str, state: State) -> Visit:
        """Have the session for one request; :meth:`leave` or :meth:`abandon` it afterwards.

        :raises SessionLostError: what was left on its server is gone.
        :raises ServerError: too many requests wait for it, or the branch has no place for one more.
        :raises RefusedError: the password may not connect any more.
        """
        visit = await self._enter(account, branch, peer, state)
        if not may_stay(self._house, visit.talk.session):
            # It was welcome when its head came; its body, or its turn, has come later.
            self.abandon(visit)
            raise RefusedError(Code.UNAUTHENTICATED, "Access denied: the password may not connect any more")
        self._visits.add(visit)
        return visit

    async def _enter(self, account: Account, branch: Branch, peer: str, state: State) -> Visit:
        if state.pin:
            entry = self._pinned.get(state.pin)
            if entry is not None:
                visit = await self._wait(entry, account, state)
                if visit is not None:
                    visit.talk.session.peer = peer
                    return visit
            return self._lost(account, branch, peer, state)
        if state.warm:
            found = self._warm.pop(state.warm, None)
            # Another's token never names it: what was signed is bound to the password.
            if found is not None and not found[0].closed and found[0].session.branch is branch:
                found[0].session.peer = peer
                return Visit(account, found[0], state)
        branch.check_room()
        return Visit(account, Talk(self._house, account, branch, peer, state), state)

    async def _wait(self, entry: _Pinned, account: Account, state: State) -> Visit | None:
        """Have a pinned session once nobody else does; None: it is not there any more."""
        if entry.waiting >= self._limits.most_waiting:
            raise ServerError(
                1203, "42000", f"more than {entry.waiting} requests wait for this session: send one at a time"
            )
        entry.waiting += 1
        try:
            await entry.lock.acquire()
        finally:
            entry.waiting -= 1
        if self._pinned.get(entry.pin) is entry and not entry.talk.closed:
            return Visit(account, entry.talk, state, entry)
        if self._pinned.get(entry.pin) is entry:
            self._forget(entry, "the connection to its server was lost")
        entry.lock.release()
        return None

    def _lost(self, account: Account, branch: Branch, peer: str, state: State) -> Visit:
        """What is left of a session that was pinned and is not there."""
        why = self._ended.get(state.pin, "not found")
        lost = ""
        if state.in_transaction:
            lost = f"vttablet: rpc error: code = Aborted desc = transaction {state.pin}: {why}"
            if state.bound:
                lost += f", and with it {_LEFT}"
        elif state.bound:
            raise SessionLostError(f"{_LEFT} is gone: {why}")
        return Visit(account, Talk(self._house, account, branch, peer, state, lost), state)

    async def leave(self, visit: Visit) -> State:
        """The request is over; gives what the session is now, for its token."""
        talk, pinned = visit.talk, visit.pinned
        if not talk.closed:
            await talk.quiet()
        self._visits.discard(visit)
        if talk.closed:
            return self._closed(visit)
        state, keep = talk.state(visit.before), talk.keep()
        if keep is not Keep.NOTHING:
            return self._pin(visit, state, keep)
        if pinned is not None:
            self._forget(pinned, "the transaction was committed or rolled back")
            pinned.lock.release()
        state = replace(state, warm=new_id())
        self._warm[state.warm] = (talk, self._now())
        while len(self._warm) > self._limits.most_warm:
            _, (oldest, _) = self._warm.popitem(last=False)
            oldest.end()
        return state

    def _closed(self, visit: Visit) -> State:
        """The session has ended during the request."""
        if visit.pinned is None:
            return visit.before if visit.before.in_transaction else visit.before.unpinned()
        self._forget(visit.pinned, "the connection to its server was lost")
        visit.pinned.lock.release()
        # The token goes on naming it, so that the client goes on hearing of it.
        return visit.before

    def _pin(self, visit: Visit, state: State, keep: Keep) -> State:
        pinned = visit.pinned
        if pinned is None:
            self._make_room()
            pinned = _Pinned(new_id(), visit.talk, keep, 0.0)
            self._pinned[pinned.pin] = pinned
        else:
            pinned.lock.release()
        pinned.keep, pinned.since = keep, self._now()
        # Also beside a transaction; and one that is gone goes on saying what went with it.
        talk = visit.talk
        bound = talk.bound or (talk.lost and visit.before.bound)
        return replace(state, pin=pinned.pin, gateway=self._name, bound=bound)

    def _make_room(self) -> None:
        """Where as many are pinned as may be, one goes of the branch that has most of them: the one that has
        been unused for longest, first of those whose transaction is gone, and of those that have none.
        """
        if len(self._pinned) < self._limits.most_pinned:
            return
        idle = [entry for entry in self._pinned.values() if not entry.lock.locked()]
        if idle:
            kept = Counter(entry.talk.session.branch for entry in self._pinned.values())

            def worth(entry: _Pinned) -> tuple[int, bool, bool, float]:
                talk = entry.talk
                return -kept[talk.session.branch], not talk.lost, entry.keep is Keep.TRANSACTION, entry.since

            oldest = min(idle, key=worth)
            _LOG.warning("%d sessions are kept over HTTP: the oldest is given up", len(self._pinned))
            self._give_up(oldest, "given up, as too many are open")

    def abandon(self, visit: Visit) -> None:
        """The request has been broken off: its session ends, and a transaction in it is rolled back."""
        self._visits.discard(visit)
        visit.talk.end()
        if visit.pinned is not None:
            self._forget(visit.pinned, "its client broke off a request")
            visit.pinned.lock.release()

    def close(self, account: Account, state: State) -> None:
        """The client says that it does not need the session any more."""
        entry = self._pinned.get(state.pin)
        if entry is not None and entry.talk.session.account.username == account.username:
            self._give_up(entry, "closed by its client")
        found = self._warm.pop(state.warm, None)
        if found is not None:
            found[0].end()

    # ---------------------------------------------------------------- time, passwords, the end

    def look(self) -> None:
        """End what has been unused for too long; called every now and then."""
        now, limits = self._now(), self._limits
        while self._warm:
            name, (talk, since) = next(iter(self._warm.items()))
            if now - since < limits.warm_seconds and not talk.closed:
                break
            del self._warm[name]
            talk.end()
        for entry in [one for one in self._pinned.values() if not one.lock.locked()]:
            seconds = limits.bound_seconds if entry.keep is Keep.BOUND else limits.transaction_seconds
            if entry.talk.closed:
                self._forget(entry, "the connection to its server was lost")
            elif now - entry.since >= seconds:
                self._give_up(entry, f"exceeded timeout: {seconds:g}s")

    def end_where(self, unwelcome: Callable[[Talk], bool]) -> None:
        """End every session that is not welcome any more, also those with a request under way."""
        for name in [name for name, (talk, _) in self._warm.items() if unwelcome(talk)]:
            self._warm.pop(name)[0].end()
        for entry in [one for one in self._pinned.values() if unwelcome(one.talk)]:
            self._give_up(entry, "the password may not connect any more")
        for visit in [one for one in self._visits if unwelcome(one.talk)]:
            visit.talk.end()

    def cool(self) -> None:
        """Keep nothing that nothing hangs on."""
        for talk, _ in self._warm.values():
            talk.end()
        self._warm.clear()

    def close_all(self) -> None:
        """The gateway ends."""
        self.cool()
        for entry in list(self._pinned.values()):
            self._give_up(entry, "the gateway has ended")

    def _give_up(self, entry: _Pinned, why: str) -> None:
        self._forget(entry, f"ended at {datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f} UTC ({why})")
        entry.talk.end()

    def _forget(self, entry: _Pinned, why: str) -> None:
        if self._pinned.pop(entry.pin, None) is not None:
            self._ended[entry.pin] = why if why.startswith("ended") else f"ended ({why})"
            while len(self._ended) > _MOST_ENDED:
                self._ended.popitem(last=False)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
