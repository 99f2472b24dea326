"""Several gateways as one: real sockets, a real store, gateways that only note what they are told.

A gateway *sleeps* here as a stopped process does: nothing of it answers, and its lease is not renewed.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from homeworld.control import member, several
from homeworld.control.caller import Call, NoAnswerError
from homeworld.control.life import Lives
from homeworld.control.member import Member
from homeworld.control.service import ControlServer
from homeworld.control.several import SeveralGateways
from homeworld.control.standing import now
from homeworld.control.words import Ask
from homeworld.model.errors import ConflictError, DeadlineExceededError, UnavailableError
from homeworld.model.routing import HoldRequest, RoutingSnapshot
from homeworld.model.topology import TabletType
from homeworld.store.engine import SystemClock, open_engine
from homeworld.store.gateways import APART
from homeworld.store.migrate import upgrade
from homeworld.store.store import Store, Transaction
from tests.support.stores import make_shop

TTL = 3.0
"""For tests in which a lease ends."""
LONG_TTL = 60.0
"""For those in which none does, however busy the machine is."""
SECRET = "a secret of this store"
SHOP = frozenset({("shop", "t"), ("shop_sharded", "t")})


class Noting:
    """A gateway that does what it is told, as far as others can see it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.version = 0
        self.held: dict[str, HoldRequest] = {}
        self.refuses = False
        self.entered: list[int] = []
        self.opened: list[str] = []
        self.resumed = 0

    def publish(self, snapshot: RoutingSnapshot) -> None:
        self.version = max(self.version, snapshot.version)

    def hold(self, request: HoldRequest) -> None:
        if self.refuses:
            raise DeadlineExceededError("transactions on the tables did not end")
        self.held[request.hold_id] = request

    def release(self, hold_id: str) -> None:
        self.held.pop(hold_id, None)

    def open(self, subject: str) -> None:
        self.opened.append(subject)

    def is_held(self, hold_id: str) -> bool:
        return hold_id in self.held

    def enter(self, snapshot: RoutingSnapshot, holds: Iterable[HoldRequest]) -> None:
        self.entered.append(snapshot.version)
        self.publish(snapshot)
        self.held.update((request.hold_id, request) for request in holds)

    def resume(self) -> None:
        self.resumed += 1

    def hold_ids(self) -> frozenset[str]:
        return frozenset(self.held)

    def connections(self) -> frozenset[tuple[str, int]]:
        return frozenset({("server", ord(self.name))})


class Process:
    """A gateway's process: its member, its control socket, its life."""

    def __init__(
        self, name: str, store: Store, lives: Lives, folder: Path, stack: ExitStack, ttl: float
    ) -> None:
        self.gateway = Noting(name)
        self._awake = threading.Event()
        self._awake.set()
        self._lives = ExitStack()
        self._lives.enter_context(lives.live(name))
        stack.callback(self._lives.close)
        self.path = folder / f"{name}.sock"

        def snapshot() -> RoutingSnapshot:
            with store.read() as tx:
                return RoutingSnapshot(tx.routes.version(), {}, {})

        self.member = _Sleepy(store, name, str(self.path), snapshot, self._awake, ttl)
        self.server = ControlServer(self.path, SECRET, self.member)
        stack.callback(self.server.stop)
        stack.callback(self.member.stop)
        self.member.start(self.gateway, "127.0.0.1:1")
        self.member.wait_joined(120.0)

    def sleep(self) -> None:
        self._awake.clear()

    def wake(self) -> None:
        self._awake.set()

    def die(self) -> None:
        """As a killed process: nothing answers, and the kernel has given its lock back."""
        self.sleep()
        self._lives.close()


class _Sleepy(Member):
    def __init__(
        self, store: Store, name: str, control: str, snapshot: Callable[[], RoutingSnapshot],
        awake: threading.Event, ttl: float,
    ) -> None:  # fmt: skip
        super().__init__(store, name, control, snapshot, ttl_seconds=ttl, renew_seconds=0.1)
        self._awake = awake

    def renew(self) -> None:
        if self._awake.wait(30.0) and not self._stopping.is_set():
            super().renew()

    def look(self) -> None:
        if self._awake.wait(30.0) and not self._stopping.is_set():
            super().look()

    def wait_joined(self, seconds: float) -> Noting:  # type: ignore[override]  # what this module starts
        self._awake.wait(30.0)
        found = super().wait_joined(seconds)
        assert isinstance(found, Noting)
        return found


class World:
    """A store with a shop, and gateways."""

    def __init__(self, folder: Path, stack: ExitStack, ttl: float = TTL) -> None:
        self._ttl = ttl
        engine = open_engine(f"sqlite:///{folder / 'store.db'}")
        upgrade(engine)
        self.store = Store(engine, SystemClock())
        stack.callback(self.store.close)
        with self.store.write() as tx:
            self.branch_id = make_shop(tx).branch.id
        self.lives = Lives(folder / "gateways")
        self._folder = folder
        self._stack = stack
        self.all = SeveralGateways(self.store, SECRET, self.lives, ttl_seconds=ttl)
        stack.callback(self.all.stop)
        self.processes: list[Process] = []

    def gateway(self, name: str, ttl: float = 0.0) -> Process:
        """One of this name.

        :param ttl: of its lease, where it is another than the world's.
        """
        made = Process(name, self.store, self.lives, self._folder, self._stack, ttl or self._ttl)
        self.processes.append(made)
        return made

    def guard(self) -> None:
        """A workflow begins to move the tables, and the gateways hear of it."""
        with self.store.write() as tx:
            tx.routes.guard(self.branch_id, SHOP)
        self.publish()

    def publish(self) -> None:
        with self.store.read() as tx:
            version = tx.routes.version()
        self.all.publish(RoutingSnapshot(version, {}, {}))

    def request(self, hold_id: str = "w-1-1-1") -> HoldRequest:
        return HoldRequest(
            hold_id, self.branch_id, frozenset({("shop", "t")}), frozenset({TabletType.PRIMARY}), 0.5, 20.0,
            "w-1", (1, 1),
        )  # fmt: skip

    def states(self) -> dict[str, str]:
        with self.store.read() as tx:
            return {member.id: member.state for member in tx.gateways.all()}

    def posted(self) -> list[str]:
        with self.store.read() as tx:
            return [request.hold_id for request in tx.gateways.posted()]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        made = World(tmp_path, stack)
        yield made
        for process in made.processes:
            process.wake()


@pytest.fixture
def lasting(tmp_path: Path) -> Iterator[World]:
    """A world in which no lease ends."""
    with ExitStack() as stack:
        made = World(tmp_path, stack, LONG_TTL)
        yield made
        for process in made.processes:
            process.wake()


def soon(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120.0
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_hold_is_in_force_once_all_have_it_and_over_once_it_is_released(lasting: World) -> None:
    a, b = lasting.gateway("a"), lasting.gateway("b")
    lasting.all.hold(lasting.request())
    assert a.gateway.held.keys() == b.gateway.held.keys() == {"w-1-1-1"}
    assert lasting.all.is_held("w-1-1-1")
    assert lasting.posted() == ["w-1-1-1"]
    lasting.all.release("w-1-1-1")
    assert not a.gateway.held
    assert not lasting.all.is_held("w-1-1-1")
    assert lasting.posted() == []


def test_where_one_refuses_all_are_released(lasting: World) -> None:
    a, b = lasting.gateway("a"), lasting.gateway("b")
    b.gateway.refuses = True
    with pytest.raises(DeadlineExceededError, match="did not end"):
        lasting.all.hold(lasting.request())
    assert not a.gateway.held
    assert lasting.posted() == []


def test_every_gateway_serves_what_was_published_and_opens(lasting: World) -> None:
    a, b = lasting.gateway("a"), lasting.gateway("b")
    lasting.guard()
    with lasting.store.read() as tx:
        assert a.gateway.version == b.gateway.version == tx.routes.version() > 0
    lasting.all.open("w-1")
    assert a.gateway.opened == b.gateway.opened == ["w-1"]
    assert lasting.all.connections() == {("server", ord("a")), ("server", ord("b"))}


def test_one_that_sleeps_is_set_apart_and_the_others_go_on(world: World) -> None:
    a, b = world.gateway("a", LONG_TTL), world.gateway("b")
    world.guard()
    b.sleep()
    begun = time.monotonic()
    world.all.hold(world.request())
    assert time.monotonic() - begun >= TTL / 2, "not before its lease has ended"
    assert not b.member.standing.live(), "by its own count it had ended before"
    assert world.states() == {"a": "member", "b": APART}
    assert a.gateway.held
    assert world.all.is_held("w-1-1-1")
    assert world.all.connections() == {("server", ord("a"))}


def test_one_that_wakes_up_enters_anew_and_keeps_what_the_others_hold(world: World) -> None:
    world.gateway("a", LONG_TTL)
    b = world.gateway("b")
    world.guard()
    b.sleep()
    world.all.hold(world.request())
    entered = len(b.gateway.entered)
    b.wake()
    soon(lambda: len(b.gateway.entered) > entered)
    soon(lambda: world.states()["b"] == "member" and b.member.standing.live())
    assert b.gateway.held.keys() == {"w-1-1-1"}
    assert world.all.is_held("w-1-1-1")
    world.all.release("w-1-1-1")
    assert not b.gateway.held


def test_one_that_sleeps_and_may_not_know_what_moves_holds_everything_up(world: World) -> None:
    world.gateway("a", LONG_TTL)
    b = world.gateway("b")
    b.sleep()
    with pytest.raises(UnavailableError, match=r"gateway b .* may not know"):
        world.guard()
    with pytest.raises(UnavailableError, match="gateway b"):
        world.all.hold(world.request())
    assert not world.all.is_held("w-1-1-1")
    assert world.posted() == []
    b.wake()
    soon(b.member.standing.live)
    world.publish()
    world.all.hold(world.request())


def test_tables_that_nothing_moves_are_not_held_without_one_that_sleeps(world: World) -> None:
    a = world.gateway("a", LONG_TTL)
    b = world.gateway("b")
    world.guard()
    b.sleep()
    other = replace(world.request(), tables=frozenset({("shop", "another")}))
    with pytest.raises(UnavailableError, match="gateway b"):
        world.all.hold(other)
    assert not a.gateway.held


def test_one_whose_process_has_ended_is_not_waited_for(lasting: World) -> None:
    a = lasting.gateway("a")
    b = lasting.gateway("b")
    lasting.all.hold(lasting.request())
    b.die()
    assert lasting.all.is_held("w-1-1-1")
    assert lasting.states() == {"a": "member"}, "no lease was waited for, and nothing is left of it"
    lasting.guard()
    assert a.gateway.version > 0


def test_one_that_enters_while_the_others_hold_holds_too(lasting: World) -> None:
    lasting.gateway("a")
    lasting.all.hold(lasting.request())
    late = lasting.gateway("c")
    assert late.gateway.held.keys() == {"w-1-1-1"}
    assert lasting.all.is_held("w-1-1-1")


def test_a_hold_that_is_over_for_all_is_let_go_by_one_that_was_not_told(lasting: World) -> None:
    a = lasting.gateway("a")
    a.gateway.held["stale"] = lasting.request("stale")
    soon(lambda: not a.gateway.held)


def test_who_does_not_have_the_secret_is_not_answered(lasting: World) -> None:
    a = lasting.gateway("a")
    with pytest.raises(NoAnswerError):
        Call(str(a.path), "a guess", Ask.HOLD, {}, 5.0)()
    assert not a.gateway.held


def test_one_that_leaves_in_order_is_gone_at_once(lasting: World) -> None:
    lasting.gateway("a")
    b = lasting.gateway("b")
    b.gateway.alive = False
    b.member.stop()
    assert lasting.states() == {"a": "member"}
    lasting.all.hold(lasting.request())


def test_a_gateway_that_others_set_apart_while_it_served_serves_nothing_that_moves(world: World) -> None:
    a = world.gateway("a")
    with world.store.write() as tx:
        (member,) = tx.gateways.all()
        assert not tx.gateways.set_apart(member), "not while its lease lasts"

    def apart() -> bool:
        with world.store.write() as tx:
            return tx.gateways.set_apart(*tx.gateways.all())

    a.sleep()
    soon(apart)
    assert not a.member.standing.live()
    incarnation = member.incarnation
    a.wake()
    soon(a.member.standing.live)
    assert a.member.standing.incarnation > incarnation


def test_one_that_was_set_apart_leaves_nothing_behind_when_it_ends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member, "_LEAVE_SECONDS", 60.0)
    world.gateway("a", LONG_TTL)
    b = world.gateway("b")
    b.sleep()
    soon(lambda: _apart(world, "b"))

    def enter() -> None:
        raise UnavailableError("the store does not answer")

    monkeypatch.setattr(b.member, "enter", enter)
    b.wake()
    soon(lambda: not b.member.standing.incarnation)
    b.gateway.alive = False
    b.member.stop()
    assert not b.member.known
    assert world.states() == {"a": "member"}
    world.guard()


def _apart(world: World, name: str) -> bool:
    world.all.connections()
    return world.states()[name] == APART


def test_one_that_could_not_leave_can_be_seen_to_have_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member, "_LEAVE_SECONDS", 60.0)
    world.gateway("a", LONG_TTL)
    b = world.gateway("b")
    with monkeypatch.context() as patch:
        patch.setattr(b.member, "_store", _Away())
        b.gateway.alive = False
        b.member.stop()
    assert b.member.known, "whoever ends it must not remove what others see it by"
    b.die()
    world.guard()
    assert world.states() == {"a": "member"}


class _Away:
    def __getattr__(self, name: str) -> Callable[[], None]:
        def call() -> None:
            raise UnavailableError

        return call


def test_a_call_that_cannot_be_taken_for_now_does_not_make_a_gateway_deaf(
    lasting: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = lasting.gateway("a")
    listener = a.server._listener  # type: ignore[reportPrivateUsage]
    a.server._listener = _Full(listener)  # type: ignore[reportPrivateUsage, assignment]
    for _ in range(3):
        assert lasting.all.connections() == {("server", ord("a"))}


class _Full:
    """A socket at which every second call finds too many files open."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._calls = 0

    def accept(self) -> tuple[socket.socket, object]:
        self._calls += 1
        if self._calls % 2:
            raise OSError(errno.EMFILE, "Too many open files")
        return self._listener.accept()

    def __getattr__(self, name: str) -> object:
        return getattr(self._listener, name)


def test_a_watch_that_fails_by_a_fault_of_ours_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = world.all._watch  # type: ignore[reportPrivateUsage]
    monkeypatch.setattr(several, "_WATCH_SECONDS", 0.01)
    tries: list[Exception] = [ConflictError("a rule"), OSError("no file"), ZeroDivisionError("ours")]

    def look() -> None:
        raise tries.pop(0)

    monkeypatch.setattr(watch, "look", look)
    monkeypatch.setattr(threading, "excepthook", _unheard)
    world.all.start()
    soon(lambda: world.all.failure is not None)
    watcher = world.all._watcher  # type: ignore[reportPrivateUsage]
    assert watcher is not None
    watcher.join(60)  # it has told its fault
    assert isinstance(world.all.failure, ZeroDivisionError)


def test_a_lease_that_ends_while_it_is_renewed_wakes_who_waits_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = world.gateway("a")
    a.sleep()
    time.sleep(3)  # what was under way has come to its end
    member, resumed = a.member, a.gateway.resumed
    monkeypatch.setattr(member.standing, "_good_for", 60.0)
    member.standing.until = now() + 0.05

    @contextmanager
    def touch() -> Generator[Transaction]:
        time.sleep(0.1)  # in which a statement finds that the lease has ended, and waits
        with world.store.touch() as tx:
            yield tx

    monkeypatch.setattr(member, "_store", SimpleNamespace(touch=touch))
    Member.renew(member)
    assert member.standing.live()
    assert a.gateway.resumed == resumed + 1
    monkeypatch.undo()


def _unheard(_args: object) -> None:
    """The thread has told of its failure already."""


def test_newer_routes_are_served_before_a_hold_that_is_over_is_let_go(
    lasting: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = lasting.gateway("a")
    calls: list[str] = []
    served, let_go = a.member.serve, a.gateway.release
    looks = threading.Event()

    def serve(version: int, seconds: float) -> None:
        calls.append("serve")
        served(version, seconds)

    def release(hold_id: str) -> None:
        calls.append("release")
        let_go(hold_id)

    # It sees nothing by itself; one that sleeps would keep whoever asks it to serve waiting, too.
    monkeypatch.setattr(a.member, "look", looks.set)
    assert looks.wait(120.0), "the look that was under way is over"
    a.gateway.held["stale"] = lasting.request("stale")
    with lasting.store.write() as tx:
        tx.routes.bump(lasting.branch_id)
    a.member.serve, a.gateway.release = serve, release  # type: ignore[method-assign]
    Member.look(a.member)
    assert calls == ["serve", "release"]


def test_what_a_sleeper_may_let_go_of_by_itself_does_not_count_as_held(world: World) -> None:
    world.gateway("a", LONG_TTL)
    b = world.gateway("b")
    other = replace(world.request(), tables=frozenset({("shop", "another")}))
    world.all.hold(other)
    assert world.all.is_held(other.hold_id)
    b.sleep()
    assert not world.all.is_held(other.hold_id)


def test_an_end_is_noted_however_often_the_process_had_entered(lasting: World) -> None:
    lasting.gateway("a")
    with lasting.store.read() as tx:
        (old,) = tx.gateways.all()
    with lasting.store.write() as tx:
        tx.gateways.enter(old.id, old.control, "127.0.0.1:1", 60.0)
    lasting.processes[0].die()
    lasting.all._watch.fate(old)  # type: ignore[reportPrivateUsage]
    assert lasting.states() == {}
