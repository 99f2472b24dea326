"""All gateways of one store as one: ``model.ports.Gateways`` for workers and APIs.

Each call reaches every member at the same time and is done once all have done it. One that does not answer
is waited for until it is certain that it serves nothing that moves:

* its process has ended (``Lives``), or
* its lease has ended by the store's clock and was not renewed for as long as a lease lasts by this process's
  own clock, and the store has noted that the others go on without it (*set apart*), so that it must enter
  anew. By its own count (``Standing``) it has then stopped serving what it knows to be moving.

One that is set apart and still runs may not know what has come to move since. So nothing that a call rests on
is done without it before it has told (``version``) that it knew; until then the call fails, naming it.

Invariants: when ``hold`` has returned, each gateway has acknowledged, has ended, or is set apart; a hold is
on the board before anybody is asked for it, and whoever enters later keeps it from its first moment on; when
``hold`` fails nothing is held.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum, auto

from homeworld.control.caller import Call, NoAnswerError
from homeworld.control.frames import Words
from homeworld.control.life import Lives
from homeworld.control.standing import TTL_SECONDS, now
from homeworld.control.words import Ask, connections_of, hold_words
from homeworld.model.errors import HomeworldError, UnavailableError
from homeworld.model.routing import HoldRequest, RoutingSnapshot
from homeworld.store.gateways import APART, Member
from homeworld.store.store import Store

_log = logging.getLogger(__name__)
CALL_SECONDS = 10.0
LOOK_SECONDS = 6.0
"""For what a gateway reads of servers before it holds or takes routes."""
_POLL_SECONDS = 0.05
_AGAIN_SECONDS = 0.1
_SILENT_SECONDS = 1.0
_WATCH_SECONDS = 1.0


class Fate(Enum):
    """What has become of a gateway that does not answer."""

    UNKNOWN = auto()
    ENDED = auto()
    APART = auto()


@dataclass(frozen=True, slots=True)
class _Seen:
    """Since when (by ``standing.now``) a gateway was seen not to renew."""

    incarnation: int
    renewals: int
    since: float


class Watch:
    """Sees who renews, and sets apart who does not.

    :param lives: which processes live, where that can be told.
    """

    def __init__(self, store: Store, lives: Lives, ttl_seconds: float = TTL_SECONDS) -> None:
        self._store = store
        self._lives = lives
        self._ttl = ttl_seconds
        self._guard = threading.Lock()
        self._seen: dict[str, _Seen] = {}

    def see(self, members: tuple[Member, ...]) -> None:
        """Take in the gateways as they were just read."""
        at = now()
        with self._guard:
            for gone in self._seen.keys() - {member.id for member in members}:
                del self._seen[gone]
            for member in members:
                known = self._seen.get(member.id)
                if known is None or (known.incarnation, known.renewals) != (
                    member.incarnation,
                    member.renewals,
                ):
                    self._seen[member.id] = _Seen(member.incarnation, member.renewals, at)

    def fate(self, member: Member) -> Fate:
        """What is certain of a gateway by now; the store notes it.

        :param member: as it was just read, and given to :meth:`see`.
        :raises UnavailableError: the store does not answer.
        """
        if self._lives.ended(member.id):
            with self._store.touch() as tx:
                tx.gateways.remove(member.id)
            self._lives.forget(member.id)
            _log.warning("gateway %s has ended", member.id)
            return Fate.ENDED
        if member.state == APART:
            return Fate.APART
        with self._guard:
            seen = self._seen.get(member.id)
        if (
            seen is None
            or (seen.incarnation, seen.renewals) != (member.incarnation, member.renewals)
            or now() - seen.since < self._ttl
        ):
            return Fate.UNKNOWN
        with self._store.touch() as tx:
            apart = tx.gateways.set_apart(member)
        if not apart:
            return Fate.UNKNOWN
        _log.warning("gateway %s does not renew its lease; the others go on without it", member.id)
        return Fate.APART

    def look(self) -> None:
        """Look at all of them once."""
        with self._store.read() as tx:
            members = tx.gateways.all()
        self.see(members)
        for member in members:
            self.fate(member)


@dataclass(slots=True)
class _Asked:
    """One gateway under one call."""

    member: Member
    call: Call | None = None
    future: Future[object] | None = None
    begun: float = 0.0
    again_at: float = 0.0
    done: bool = False
    result: object = None
    error: HomeworldError | None = None


@dataclass(slots=True)
class _Round:
    """One call to all. ``apart``: those without whom it goes on though their processes have not ended."""

    asked: dict[str, _Asked] = field(default_factory=dict[str, _Asked])
    apart: dict[str, Member] = field(default_factory=dict[str, Member])
    since: int = 0


class SeveralGateways:
    """Implements ``model.ports.Gateways``, and ``Knowing``.

    :param secret: the store's, for control connections.
    """

    def __init__(self, store: Store, secret: str, lives: Lives, *, ttl_seconds: float = TTL_SECONDS) -> None:
        self._store = store
        self._secret = secret
        self._ttl = ttl_seconds
        self._watch = Watch(store, lives, ttl_seconds)
        self._pool = ThreadPoolExecutor(64, "gateways")
        self._unguarded: set[str] = set()  # holds of tables that a gateway's lease does not guard
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None
        self._failure: BaseException | None = None

    @property
    def failure(self) -> BaseException | None:
        """The fault of this program that ended the watching, if any."""
        return self._failure

    def start(self) -> None:
        """Watch on a thread of its own, so that a gateway which stopped long ago is known to have."""
        self._watcher = threading.Thread(target=self._watch_loop, name="gateways-watch", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """No more calls."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join(2.0)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _watch_loop(self) -> None:
        try:
            while not self._stopping.wait(_WATCH_SECONDS):
                try:
                    self._watch.look()
                except (HomeworldError, OSError) as error:
                    _log.warning("the gateways could not be looked at: %s", error)
        except BaseException as error:
            _log.critical("watching the gateways failed", exc_info=True)
            self._failure = error
            raise

    # -- ports.Gateways --------------------------------------------------------------------------------------

    def publish(self, snapshot: RoutingSnapshot) -> None:
        """Every gateway reads the routes from the store itself; of ``snapshot`` only the version matters."""
        version = snapshot.version
        done = self._all(Ask.PUBLISH, {"version": version}, CALL_SECONDS)
        for asked in done.asked.values():
            # So that it is known to know, if it stops before its next renewal says so.
            if asked.done and asked.member.version < done.since <= version:
                with self._store.touch() as tx:
                    tx.gateways.knows(asked.member, version)

    def hold(self, request: HoldRequest) -> None:
        """See ``model.ports.Gateways``."""
        # Whoever is silent is found so before anybody waits.
        self._all(Ask.PING, {}, CALL_SECONDS)
        with self._store.write() as tx:
            tx.gateways.post(request)
            moving = tx.routes.moving(request.branch_id)
        known = moving is not None and request.tables <= moving.tables
        if not known:
            self._unguarded.add(request.hold_id)
        try:
            done = self._all(Ask.HOLD, hold_words(request), request.drain_seconds + LOOK_SECONDS)
            if done.apart and not known:
                raise UnavailableError(
                    f"{_named(done)} cannot be asked to hold tables of which it may not know that they change"
                )
        except BaseException:
            self._let_go(request.hold_id)
            raise

    def _let_go(self, hold_id: str) -> None:
        try:
            self.release(hold_id)
        except HomeworldError as error:
            _log.warning("a hold that failed ends by itself: %s", error)

    def release(self, hold_id: str) -> None:
        """See ``model.ports.Gateways``."""
        try:
            self._all(Ask.RELEASE, {"hold_id": hold_id}, CALL_SECONDS, knowing=False)
        finally:
            self._unguarded.discard(hold_id)
            with self._store.touch() as tx:
                tx.gateways.take_down(hold_id)

    def open(self, subject: str) -> None:
        """See ``model.ports.Gateways``."""
        self._all(Ask.OPEN, {"subject": subject}, CALL_SECONDS, knowing=False)

    def is_held(self, hold_id: str) -> bool:
        """See ``model.ports.Gateways``."""
        try:
            done = self._all(Ask.IS_HELD, {"hold_id": hold_id}, CALL_SECONDS)
        except UnavailableError as error:
            _log.warning("whether hold %s is in force cannot be said: %s", hold_id, error)
            return False
        if done.apart and hold_id in self._unguarded:
            return False  # it may let go of these by itself: its lease does not guard them
        return all(asked.result is True for asked in done.asked.values() if asked.done)

    def connections(self) -> frozenset[tuple[str, int]]:
        """See ``model.ports.Knowing``."""
        done = self._all(Ask.CONNECTIONS, {}, CALL_SECONDS)
        found = [connections_of(asked.result) for asked in done.asked.values() if asked.done]
        return frozenset[tuple[str, int]]().union(*found)

    # -- one call to all -------------------------------------------------------------------------------------

    def _all(self, ask: Ask, words: Words, seconds: float, *, knowing: bool = True) -> _Round:
        """Ask everybody; returns once each has answered, has ended, or is set apart.

        :param seconds: how long one may take to answer; whoever does not is waited for a lease longer.
        :param knowing: fail where one that is set apart may not know of all that moves.
        :raises HomeworldError: what one of them answered, or what is wrong with one; all have ended by then.
        """
        round_ = _Round()
        deadline = time.monotonic() + seconds + self._ttl + 2 * _WATCH_SECONDS
        self._read(round_)
        while pending := [asked for asked in round_.asked.values() if not asked.done]:
            if self._stopping.is_set():
                raise UnavailableError("the gateways are not asked any more")
            quiet = False
            for asked in pending:
                self._advance(asked, ask, words, seconds)
                quiet = quiet or (not asked.done and time.monotonic() - asked.begun > _SILENT_SECONDS)
                quiet = quiet or (asked.future is None and not asked.done)
            if time.monotonic() > deadline and any(not asked.done for asked in pending):
                self._give_up(round_)
            if quiet:
                self._read(round_)
            left = [asked.future for asked in pending if asked.future is not None and not asked.done]
            if left:
                _first_of(left, _POLL_SECONDS)
            elif any(not asked.done for asked in pending):
                time.sleep(_POLL_SECONDS)
        for asked in round_.asked.values():
            if asked.error is not None:
                raise asked.error
        if knowing and (unaware := [one.id for one in round_.apart.values() if one.version < round_.since]):
            raise UnavailableError(
                f"gateway {', '.join(unaware)} does not answer and may not know what moves: it has to go on, "
                "or its process to end"
            )
        return round_

    def _read(self, round_: _Round) -> None:
        """Who is to be asked, as the store says now, and what has become of the silent ones."""
        with self._store.read() as tx:
            members = tx.gateways.all()
            round_.since = tx.routes.moving_since()
        self._watch.see(members)
        here = {member.id: member for member in members}
        for gone in round_.asked.keys() - here.keys():
            self._drop(round_, gone)
        for member in members:
            asked = round_.asked.get(member.id)
            if asked is not None and asked.done and asked.member.incarnation == member.incarnation:
                continue
            silent = asked is not None and (
                asked.future is None or time.monotonic() - asked.begun > _SILENT_SECONDS
            )
            fate = self._watch.fate(member) if member.state == APART or silent else Fate.UNKNOWN
            if fate is Fate.UNKNOWN:
                round_.apart.pop(member.id, None)
                if asked is None or asked.member.incarnation != member.incarnation:
                    self._drop(round_, member.id)
                    round_.asked[member.id] = _Asked(member)
                continue
            self._drop(round_, member.id)
            if fate is Fate.APART:
                round_.apart[member.id] = member

    @staticmethod
    def _drop(round_: _Round, gateway_id: str) -> None:
        asked = round_.asked.pop(gateway_id, None)
        if asked is not None:
            asked.done = True
            if asked.call is not None:
                asked.call.abandon()

    def _advance(self, asked: _Asked, ask: Ask, words: Words, seconds: float) -> None:
        if asked.future is None:
            if time.monotonic() < asked.again_at:
                return
            asked.call = Call(asked.member.control, self._secret, ask, words, seconds)
            asked.begun = asked.begun or time.monotonic()
            asked.future = self._pool.submit(asked.call)
            return
        if not asked.future.done():
            return
        future, asked.future, asked.call = asked.future, None, None
        try:
            asked.result = future.result()
        except NoAnswerError as error:
            _log.info("gateway %s: %s", asked.member.id, error)
            asked.again_at = time.monotonic() + _AGAIN_SECONDS
            return
        except HomeworldError as error:
            asked.error = error
        asked.done = True

    def _give_up(self, round_: _Round) -> None:
        silent = [gateway_id for gateway_id, asked in round_.asked.items() if not asked.done]
        for gateway_id in silent:
            self._drop(round_, gateway_id)
        raise UnavailableError(f"gateway {', '.join(silent)} does not answer, and its lease has not ended")


def _named(done: _Round) -> str:
    return f"gateway {', '.join(done.apart)}"


def _first_of(futures: list[Future[object]], seconds: float) -> None:
    """Return once one has ended, or after that time."""
    ended = threading.Event()
    wake: Callable[[Future[object]], None] = lambda _future: ended.set()  # noqa: E731 - one line, one use
    for future in futures:
        future.add_done_callback(wake)
    ended.wait(seconds)
