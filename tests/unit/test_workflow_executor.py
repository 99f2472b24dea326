"""The executor and its leases: one worker a resource, one owner a lease, nothing runs on without it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest

from homeworld.model.engines import EngineKind
from homeworld.model.errors import FencedError, UnavailableError
from homeworld.model.states.lifecycle import Life, LifeTrigger, life_row
from homeworld.model.topology import Flavor
from homeworld.store.engine import SystemClock
from homeworld.store.provision import bootstrap, create_database
from homeworld.store.store import Store
from homeworld.workflows.executor import Executor
from homeworld.workflows.leases import Keeper, Lease
from homeworld.workflows.steps import Rest
from tests.support.stores import SqliteStores, TestClock


def wait(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120.0
    while not done():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.01)


def rest(_resource_id: str, _lease: Lease) -> Rest | None:
    return Rest(60.0)


class Recorder:
    """A handler that does what the test says and notes what was asked of it."""

    kind = "keyspace"

    def __init__(self, act: Callable[[str, Lease], Rest | None] | None = None) -> None:
        self.act = act or rest
        self.ticks: list[str] = []
        self.calls: list[str] = []
        self.inside = 0
        self.most = 0

    def tick(self, resource_id: str, lease: Lease) -> Rest | None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.ticks.append(resource_id)
        try:
            return self.act(resource_id, lease)
        finally:
            self.inside -= 1

    def _note(self, call: str, resource_id: str) -> None:
        assert resource_id
        self.calls.append(call)

    def lost(self, resource_id: str) -> None:
        self._note("lost", resource_id)

    def loosen(self, resource_id: str) -> None:
        self._note("loosen", resource_id)

    def let_go(self, resource_id: str) -> None:
        self._note("let_go", resource_id)


@pytest.fixture
def live_store(sqlite_stores: SqliteStores) -> Iterator[Store]:
    """A store in real time, with one pending keyspace."""
    with sqlite_stores.fresh(TestClock()) as made:
        store = Store(made.engine, SystemClock())
        bootstrap(store, "acme", "local", "Local")
        with store.write() as tx:
            create_database(tx, tx.organizations.ensure("acme").id, "shop", Flavor.MYSQL)
        yield store


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Executor]]:
    # A loss is seen soon, and no lease ends by itself.
    monkeypatch.setattr("homeworld.workflows.executor.RENEW_SECONDS", 0.25)
    running: list[Executor] = []

    def start(store: Store, handler: Recorder, owner: str = "one") -> Executor:
        executor = Executor(store, [handler], owner, workers=3, poll_seconds=0.02)
        executor.start()
        running.append(executor)
        return executor

    yield start
    for executor in running:
        executor.stop(120.0)


def test_work_is_found_done_under_a_lease_and_given_back(
    live_store: Store, started: Callable[..., Executor]
) -> None:
    def finish(keyspace_id: str, lease: Lease) -> Rest:
        with live_store.write() as tx:
            lease.require(tx)
            tx.keyspaces.transition(keyspace_id, Life.PENDING, life_row(Life.PENDING, LifeTrigger.MADE))
        return Rest(60.0, keep=False)

    handler = Recorder(finish)
    executor = started(live_store, handler)
    wait(lambda: handler.calls == ["let_go"], "it lets go")
    assert len(handler.ticks) == 1
    keyspace_id = handler.ticks[0]

    def free() -> bool:
        with live_store.read() as tx:
            lease = tx.leases.get(f"keyspace:{keyspace_id}")
            return lease is not None and lease.expires_at <= SystemClock().now()

    wait(free, "the lease is given back")
    assert executor.failure is None


def test_one_thread_a_resource_and_asked_again_at_once_where_there_is_more(
    live_store: Store, started: Callable[..., Executor]
) -> None:
    left = [50]

    def act(_id: str, _lease: Lease) -> Rest | None:
        left[0] -= 1
        return None if left[0] > 0 else Rest(60.0)

    handler = Recorder(act)
    executor = started(live_store, handler)
    for _ in range(100):
        executor.wake()
    wait(lambda: len(handler.ticks) >= 50, "fifty ticks")
    assert handler.most == 1


def test_what_others_wait_for_has_threads_of_its_own(live_store: Store) -> None:
    """A keyspace is made by the one thread there is, and waits for its branch's cluster."""
    followed = threading.Event()
    seen: list[bool] = []

    def follow(_id: str, _lease: Lease) -> Rest:
        followed.set()
        return Rest(60.0)

    def make(_id: str, _lease: Lease) -> Rest:
        seen.append(followed.wait(120.0))
        return Rest(60.0)

    making, following = Recorder(make), Recorder(follow)
    following.kind = "cluster"
    executor = Executor(
        live_store, [making, following], "one", workers=1, awaited=["cluster"], poll_seconds=0.02
    )
    executor.start()
    try:
        wait(lambda: bool(making.ticks), "a keyspace is made")
        with live_store.write() as tx:  # its branch has a cluster from now on
            database = tx.databases.named(tx.organizations.ensure("acme").id, "shop")
            tx.databases.update(database.id, engine=EngineKind.VITESS)
        wait(lambda: making.inside == 0, "it is made")
    finally:
        executor.stop(120.0)
    assert seen == [True], "nobody was left who could do what is waited for"
    assert executor.failure is None


def test_a_new_state_is_looked_at_before_its_rest_is_over(
    live_store: Store, started: Callable[..., Executor]
) -> None:
    handler = Recorder()
    started(live_store, handler)
    wait(lambda: len(handler.ticks) == 1, "the first look")
    with live_store.write() as tx:
        tx.keyspaces.transition(handler.ticks[0], Life.PENDING, life_row(Life.PENDING, LifeTrigger.DELETE))
    wait(lambda: len(handler.ticks) == 2, "the second look, long before a minute has passed")


def test_of_two_executors_one_works(live_store: Store, started: Callable[..., Executor]) -> None:
    first, second = Recorder(), Recorder()
    started(live_store, first, "one")
    started(live_store, second, "two")
    wait(lambda: bool(first.ticks or second.ticks), "one of them")
    time.sleep(0.3)
    assert bool(first.ticks) != bool(second.ticks)


def test_a_lost_lease_stops_what_runs_at_once_and_the_handler_lets_go(
    live_store: Store, started: Callable[..., Executor]
) -> None:
    goes_on = threading.Event()

    def act(_id: str, lease: Lease) -> Rest | None:
        if not goes_on.is_set():
            goes_on.wait(120.0)
            lease.check()
        return Rest(60.0)

    handler = Recorder(act)
    started(live_store, handler, "one")
    wait(lambda: bool(handler.ticks), "a tick under way")
    with live_store.write() as tx:
        assert tx.leases.acquire(f"keyspace:{handler.ticks[0]}", "one", 0.2)
    wait(lambda: "lost" in handler.calls, "streams are stopped while the tick is still under way")
    assert "let_go" not in handler.calls
    goes_on.set()
    wait(lambda: "let_go" in handler.calls, "then it lets go")


def test_what_is_held_of_a_resource_that_rests_is_let_go_of_when_another_takes_it(
    live_store: Store, started: Callable[..., Executor]
) -> None:
    handler = Recorder()
    started(live_store, handler, "one")
    wait(lambda: bool(handler.ticks), "it rests, for long")
    resource = f"keyspace:{handler.ticks[0]}"
    with live_store.write() as tx:
        assert tx.leases.acquire(resource, "one", 0.0)  # what "one" has is over ...
        assert tx.leases.acquire(resource, "two", 600.0)  # ... and another has it
    wait(lambda: "let_go" in handler.calls, "it lets go")
    assert handler.calls == ["lost", "let_go"]
    assert len(handler.ticks) == 1


class Slow(Recorder):
    """Takes its time to hear of the first lease that is lost; the others are working when theirs is."""

    def __init__(self) -> None:
        super().__init__(self._work)
        self.told: list[str] = []
        self.stuck = threading.Event()
        self.goes_on = threading.Event()
        self.taken_away = threading.Event()

    def _work(self, resource_id: str, lease: Lease) -> Rest | None:
        if self.ticks.count(resource_id) == 1 and resource_id != self.ticks[0]:
            self.taken_away.wait(120.0)
            wait(lambda: lease.lost, "the lease is lost")
            lease.check()
        return Rest(60.0)

    def lost(self, resource_id: str) -> None:
        self.told.append(resource_id)
        if resource_id == self.ticks[0]:
            self.stuck.set()
            self.goes_on.wait(120.0)


def test_a_loss_that_is_heard_of_late_does_not_stop_what_runs_under_the_next_lease(
    live_store: Store, started: Callable[..., Executor]
) -> None:
    with live_store.write() as tx:
        create_database(tx, tx.organizations.ensure("acme").id, "other", Flavor.MYSQL)
    handler = Slow()
    started(live_store, handler, "one")
    wait(lambda: len(set(handler.ticks)) == 2, "both are worked on")
    first, second = handler.ticks[0], next(r for r in handler.ticks if r != handler.ticks[0])
    with live_store.write() as tx:
        assert tx.leases.acquire(f"keyspace:{first}", "one", 0.2)
    assert handler.stuck.wait(120.0)
    with live_store.write() as tx:
        assert tx.leases.acquire(f"keyspace:{second}", "one", 0.2)
    handler.taken_away.set()
    wait(lambda: handler.ticks.count(second) == 2, "the second is worked on under a new lease")
    handler.goes_on.set()
    wait(lambda: handler.ticks.count(first) == 2, "the first too")
    time.sleep(0.1)
    assert second not in handler.told


def test_a_fault_in_one_handler_lets_holds_go_and_is_tried_again(
    live_store: Store, started: Callable[..., Executor], caplog: pytest.LogCaptureFixture
) -> None:
    def act(_id: str, _lease: Lease) -> Rest | None:
        raise UnavailableError("the store does not answer")

    handler = Recorder(act)
    executor = started(live_store, handler)
    wait(lambda: len(handler.ticks) >= 2, "another try")
    assert handler.calls[:1] == ["loosen"]
    assert executor.failure is None
    assert "does not answer" in caplog.text


def test_stopping_lets_go_of_everything(live_store: Store) -> None:
    handler = Recorder()
    executor = Executor(live_store, [handler], "one", workers=1, poll_seconds=0.02)
    executor.start()
    wait(lambda: bool(handler.ticks), "a tick")
    executor.stop(120.0)
    assert handler.calls == ["let_go"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("executor-")]


def test_routes_that_anybody_changed_are_published_until_it_succeeds(live_store: Store) -> None:
    published: list[int] = []
    refusals = [2]

    def publish() -> None:
        if refusals[0]:
            refusals[0] -= 1
            raise UnavailableError("a gateway does not answer")
        with live_store.read() as tx:
            published.append(tx.routes.version())

    executor = Executor(live_store, [], "one", publish=publish, workers=1, poll_seconds=0.02)
    executor.start()
    wait(lambda: len(published) == 1, "what was stored before")
    with live_store.write() as tx:
        branch_id = tx.branches.default(
            tx.databases.by_name(tx.organizations.ensure("acme").id, "shop").id
        ).id
        version = tx.routes.bump(branch_id)
    wait(lambda: published[1:] == [version], "what was stored since")
    executor.stop(120.0)
    assert executor.failure is None


# -- leases --------------------------------------------------------------------------------------------------


def test_a_lease_is_kept_by_renewing_and_lost_to_a_newer_one(live_store: Store) -> None:
    lost: list[str] = []
    keeper = Keeper(live_store, "one", ttl_seconds=60.0, on_lost=lambda lease: lost.append(lease.resource))
    lease = keeper.take("workflow:w")
    assert lease is not None
    assert keeper.take("workflow:w") is lease
    assert Keeper(live_store, "two").take("workflow:w") is None
    keeper.renew()
    lease.check()
    with live_store.write() as tx:
        lease.require(tx)
        assert tx.leases.acquire("workflow:w", "one", 60.0)
    with live_store.write() as tx, pytest.raises(FencedError):
        lease.require(tx)
    keeper.renew()
    assert lost == ["workflow:w"]
    with pytest.raises(FencedError):
        lease.check()
    assert keeper.held("workflow:w") is None


def test_a_lease_that_was_not_renewed_in_time_is_lost_for_good(live_store: Store) -> None:
    keeper = Keeper(live_store, "one", ttl_seconds=0.05)
    lease = keeper.take("workflow:w")
    assert lease is not None
    wait(lambda: lease.lost, "its time passes")
    lease.prolong(time.monotonic() + 60.0)
    assert lease.lost
    again = keeper.take("workflow:w")
    assert again is not None
    assert again.token > lease.token


def test_a_lease_of_one_whose_clock_was_an_hour_ahead_ends_when_it_is_not_renewed(
    live_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It died, or its clock was set back since: nobody waits an hour for what lives for a moment."""
    real = SystemClock.now

    def an_hour_ahead(clock: SystemClock) -> datetime:
        return real(clock) + timedelta(hours=1)

    monkeypatch.setattr(SystemClock, "now", an_hour_ahead)
    ahead = Keeper(live_store, "ahead", ttl_seconds=60.0)
    assert ahead.take("engine:local") is not None
    assert ahead.take("workflow:w") is not None
    ahead.give_back(ahead.take("workflow:w") or pytest.fail("it is held"))
    right = Keeper(live_store, "right", ttl_seconds=0.2)
    monkeypatch.undo()
    assert right.take("workflow:w") is not None, "it was given back"
    assert right.take("engine:local") is None
    monkeypatch.setattr(SystemClock, "now", an_hour_ahead)
    ahead.renew()
    monkeypatch.undo()
    assert right.take("engine:local") is None, "it was renewed meanwhile"
    wait(lambda: right.take("engine:local") is not None, "nobody renews it any more")


def test_a_store_that_is_away_for_a_moment_loses_no_lease(
    live_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = Keeper(live_store, "one", ttl_seconds=60.0)
    lease = keeper.take("workflow:w")
    assert lease is not None

    def away() -> None:
        raise UnavailableError("the control plane's database does not answer")

    monkeypatch.setattr(live_store, "write", away)
    keeper.renew()
    lease.check()
    assert keeper.held("workflow:w") is lease


def test_given_back_it_is_free_at_once(live_store: Store) -> None:
    keeper = Keeper(live_store, "one", ttl_seconds=60.0)
    lease = keeper.take("workflow:w")
    assert lease is not None
    keeper.give_all_back()
    assert lease.lost
    assert Keeper(live_store, "two").take("workflow:w") is not None
