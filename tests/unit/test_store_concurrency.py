"""Two at once: compare-and-set, leases, numbers and the outbox under threads, on both databases."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from homeworld.model.errors import ConflictError, FencedError, InvalidError, NotFoundError, UnavailableError
from homeworld.model.machine import Transition
from homeworld.model.states.move_tables import MOVE_TABLES, State, Trigger
from homeworld.store import engine
from homeworld.store.guards import guards
from homeworld.store.store import Store
from homeworld.store.workflows import Workflow
from tests.support.stores import PostgresStores, Shop, TestClock, make_shop

T = TypeVar("T")


def at_once(calls: Sequence[Callable[[], T]]) -> list[T | Exception]:
    """Run all calls in threads that start together."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T | Exception:
        barrier.wait()
        try:
            return call()
        except (ConflictError, InvalidError, FencedError) as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def seeded(store: Store) -> tuple[Shop, Workflow]:
    with store.write() as tx:
        shop = make_shop(tx)
        made = tx.workflows.create(
            shop.database.id, shop.branch.id, "move", shop.source.id, shop.target.id, ["orders"]
        )
        return shop, made


def test_of_two_transitions_from_one_state_one_wins(store: Store) -> None:
    _, made = seeded(store)
    start = MOVE_TABLES.take(State.PENDING, Trigger.STARTED, guards(made))
    cancel = MOVE_TABLES.take(State.PENDING, Trigger.CANCEL, guards(made))

    def take(row: Transition[State, Trigger]) -> Callable[[], State]:
        def call() -> State:
            with store.write() as tx:
                return tx.workflows.transition(made.id, State.PENDING, row).state

        return call

    results = at_once([take(start), take(cancel), take(start), take(cancel)])
    won = [result for result in results if isinstance(result, State)]
    lost = [result for result in results if isinstance(result, ConflictError)]
    assert (len(won), len(lost)) == (1, 3)
    with store.read() as tx:
        assert tx.workflows.get(made.id).state is won[0]
        history = tx.journal.transitions("workflow", made.id)
        assert [(t.from_state, t.to_state) for t in history] == [("", "pending"), ("pending", won[0].value)]


def test_of_many_creations_on_a_branch_one_wins(store: Store) -> None:
    with store.write() as tx:
        shop = make_shop(tx)

    def create() -> int:
        with store.write() as tx:
            return tx.workflows.create(
                shop.database.id, shop.branch.id, "move", shop.source.id, shop.target.id, ["orders"]
            ).number

    results = at_once([create] * 5)
    assert [result for result in results if isinstance(result, int)] == [1]


def test_a_lease_has_one_owner(store: Store) -> None:
    def acquire(owner: str) -> Callable[[], int | None]:
        def call() -> int | None:
            with store.write() as tx:
                return tx.leases.acquire("workflow:x", owner, 30)

        return call

    results = at_once([acquire(f"worker-{n}") for n in range(6)])
    assert sorted(results, key=str) == [1, None, None, None, None, None]


def test_a_newer_owner_fences_the_old_ones_writes(store: Store, clock: TestClock) -> None:
    _, made = seeded(store)
    with store.write() as tx:
        old = tx.leases.acquire("w", "a", 10)
        assert old is not None
        assert tx.leases.acquire("w", "b", 10) is None
    clock.forward(5)
    with store.write() as tx:
        assert tx.leases.renew("w", old, 10)
    clock.forward(10)
    with store.write() as tx:
        new = tx.leases.acquire("w", "b", 10)
        assert new is not None
        assert new == old + 1
    row = MOVE_TABLES.take(State.PENDING, Trigger.STARTED, guards(made))

    def late_write() -> None:
        with store.write() as tx:
            tx.workflows.transition(made.id, State.PENDING, row)
            tx.leases.require("w", old)

    with pytest.raises(FencedError):
        late_write()
    with store.write() as tx:
        assert not tx.leases.renew("w", old, 10)
        assert not tx.leases.release("w", old)
        assert tx.workflows.get(made.id).state is State.PENDING
        assert tx.leases.release("w", new)
        # Released leases keep counting, and an owner that takes its own again is fenced from its past.
        assert tx.leases.acquire("w", "a", 10) == new + 1
        assert tx.leases.acquire("w", "a", 10) == new + 2


def test_versions_and_events_grow_without_gaps_under_threads(store: Store) -> None:
    with store.write() as tx:
        shop = make_shop(tx)
        before, seq = tx.routes.version(), tx.outbox.last()

    def change(name: str) -> Callable[[], int]:
        def call() -> int:
            with store.write() as tx:
                return tx.routes.replace_rules(shop.branch.id, {name: f"shop.{name}"})

        return call

    versions = at_once([change(f"t{n}") for n in range(8)])
    assert set(versions) == set(range(before + 1, before + 9))
    with store.read() as tx:
        events = tx.outbox.after(seq)
        assert [event.payload["version"] for event in events] == list(range(before + 1, before + 9))


def test_a_reader_sees_one_moment(store: Store) -> None:
    shop, made = seeded(store)
    row = MOVE_TABLES.take(State.PENDING, Trigger.STARTED, guards(made))
    with store.read() as reader:
        version = reader.routes.version()
        with store.write() as tx:
            tx.workflows.transition(made.id, State.PENDING, row)
            tx.routes.replace_rules(shop.branch.id, {"orders": "shop_sharded.orders"})
        assert reader.workflows.get(made.id).state is State.PENDING
        assert reader.routes.version() == version
        assert reader.routes.rules(shop.branch.id) == {}
    with store.read() as tx:
        assert tx.workflows.get(made.id).state is State.COPYING
        assert tx.routes.rules(shop.branch.id) == {"orders": "shop_sharded.orders"}


def test_a_commit_point_is_all_or_nothing(store: Store) -> None:
    shop, made = seeded(store)
    row = MOVE_TABLES.take(State.PENDING, Trigger.STARTED, guards(made))

    def break_off() -> None:
        with store.write() as tx:
            tx.workflows.transition(made.id, State.PENDING, row, primaries_switched=True)
            tx.routes.replace_rules(shop.branch.id, {"orders": "shop_sharded.orders"})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    with store.read() as tx:
        now = tx.workflows.get(made.id)
        assert (now.state, now.primaries_switched) == (State.PENDING, False)
        assert tx.routes.rules(shop.branch.id) == {}


def test_a_consumer_misses_nothing_and_never_goes_back(store: Store) -> None:
    seeded(store)
    with store.write() as tx:
        events = tx.outbox.after(0)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        tx.outbox.advance("webhooks", events[2].seq)
        tx.outbox.advance("webhooks", events[1].seq)
        assert tx.outbox.cursor("webhooks") == events[2].seq
        assert tx.outbox.after(tx.outbox.cursor("webhooks"), limit=2) == events[3:5]


def test_a_listener_hears_of_commits_only(sqlite_store: Store) -> None:
    heard: list[int] = []
    sqlite_store.listen(lambda: heard.append(1))
    with sqlite_store.write() as tx:
        tx.organizations.ensure("acme")
    with pytest.raises(ZeroDivisionError), sqlite_store.write():
        raise ZeroDivisionError
    assert heard == [1]


def test_a_writer_that_stops_in_the_middle_does_not_keep_the_others_out(
    postgres_stores: PostgresStores, clock: TestClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "IDLE_SECONDS", 3)
    with postgres_stores.fresh(clock) as store:
        begun = threading.Event()
        woken = threading.Event()

        def stop_in_the_middle() -> None:
            with store.write() as tx:
                tx.organizations.ensure("sleepers")
                begun.set()
                woken.wait(60)
                tx.organizations.ensure("wakers")

        with ThreadPoolExecutor(1) as pool:
            asleep = pool.submit(stop_in_the_middle)
            assert begun.wait(60)
            monkeypatch.setattr(engine, "IDLE_SECONDS", 60)  # that was the sleeper's alone
            with store.write() as tx:
                tx.organizations.ensure("acme")
            woken.set()
            with pytest.raises(UnavailableError):
                asleep.result(60)
        with store.read() as tx:
            assert tx.organizations.by_name("acme")
            with pytest.raises(NotFoundError):
                tx.organizations.by_name("sleepers")


def test_a_server_that_says_nothing_is_not_waited_for_without_end(
    postgres_stores: PostgresStores, clock: TestClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[int] = []

    def ask(store: Store) -> None:
        with store.read() as tx:
            pid = int(tx.work.connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)
            tx.routes.version()

    with postgres_stores.fresh(clock) as store:
        with monkeypatch.context() as hurried:
            hurried.setattr(engine, "LOCK_SECONDS", 1)
            hurried.setattr(engine, "ANSWER_SECONDS", 0.5)
            try:
                with ThreadPoolExecutor(1) as pool, pytest.raises(UnavailableError):
                    pool.submit(ask, store).result(60)
            finally:
                for pid in stopped:
                    os.kill(pid, signal.SIGCONT)
        with store.write() as tx:
            tx.organizations.ensure("acme")


def test_a_server_that_takes_no_writes_is_one_that_does_not_answer(
    postgres_stores: PostgresStores, clock: TestClock
) -> None:
    """As one that was demoted, or whose disk is full: workers and gateways go on when another one answers."""

    def write_where_nobody_may(store: Store) -> None:
        with store.write() as tx:
            tx.work.connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            tx.organizations.ensure("acme")

    with postgres_stores.fresh(clock) as store:
        with pytest.raises(UnavailableError):
            write_where_nobody_may(store)
        with store.write() as tx:
            tx.organizations.ensure("acme")
        with store.read() as tx:
            assert tx.organizations.by_name("acme")
