"""Keyspaces resized under clients' eyes: replicas that come and go, servers that grow, restarts that hold."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pymysql
import pytest

from homeworld.engines.local import LocalEngine
from homeworld.gateway.server import Gateway
from homeworld.model.errors import ServerError, UnavailableError
from homeworld.model.inspection import ServerConnection
from homeworld.model.names import new_id
from homeworld.model.routing import HoldRequest
from homeworld.model.sizes import ServerSize
from homeworld.model.states.lifecycle import Life
from homeworld.model.states.resizing import Resize
from homeworld.model.topology import Flavor
from homeworld.store.provision import delete_keyspace
from homeworld.store.resizes import KeyspaceResize
from homeworld.workflows.failover import promote
from homeworld.workflows.inspection import ServerInspection
from tests.conftest import FLAVORS
from tests.support.engines import owner, pid_of
from tests.support.stack import Application, Stack, wait

pytestmark = pytest.mark.servers

MIB = 1024 * 1024
ORDERS = "CREATE TABLE orders (id BIGINT AUTO_INCREMENT PRIMARY KEY, customer INT, amount INT)"


@pytest.fixture
def make_stack(engine: LocalEngine, tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    made: list[Stack] = []

    def make(*, replicas: int = 0, gateways: int = 1) -> Stack:
        folder = tmp_path / new_id()
        folder.mkdir()
        stack = Stack(engine, folder, gateways=gateways)
        stack.start()
        made.append(stack)
        stack.open(replicas=replicas)
        stack.run(ORDERS)
        return stack

    yield make
    for stack in made:
        stack.close()


@pytest.fixture
def once(flavor: Flavor) -> None:
    """For what has nothing to do with the kind of servers."""
    if flavor is not FLAVORS[0]:
        pytest.skip("the same on every kind of servers")


def ask(stack: Stack, name: str = "shop", **wanted: object) -> str:
    with stack.store.write() as tx:
        keyspace = tx.keyspaces.by_name(stack.branch_id, name)
        return tx.resizes.ask(keyspace, **wanted).id  # pyright: ignore[reportArgumentType] - the test's own


def resize(stack: Stack, resize_id: str) -> KeyspaceResize:
    with stack.store.read() as tx:
        return tx.resizes.get(resize_id)


def finish(stack: Stack, resize_id: str, state: Resize = Resize.COMPLETED) -> KeyspaceResize:
    wait(lambda: resize(stack, resize_id).state is state, lambda: str(resize(stack, resize_id)))
    return resize(stack, resize_id)


def servers(stack: Stack) -> tuple[str, list[str]]:
    """The primary of ``shop``, and its replicas."""
    with stack.store.read() as tx:
        (shard,) = tx.keyspaces.shards(stack.keyspace("shop").id)
    return shard.primary_server_id or "", list(shard.replica_server_ids)


def pool(stack: Stack, server_id: str) -> int:
    return int(owner(stack.engine, server_id, "SELECT @@innodb_buffer_pool_size")[0][0]) // MIB


class Reader(threading.Thread):
    """Reads again and again, from replicas unless told otherwise; an error is one of the test."""

    def __init__(self, stack: Stack, gateway: Gateway | None = None, schema: str = "shop@replica") -> None:
        super().__init__(name="reader", daemon=True)
        self._stack = stack
        self._where = (schema, gateway)
        self._ending = threading.Event()
        self.errors: list[BaseException] = []
        self.count = 0

    def run(self) -> None:
        try:
            with self._stack.connect(*self._where) as connection, connection.cursor() as cursor:
                while not self._ending.is_set():
                    cursor.execute("SELECT COUNT(*) FROM orders")
                    cursor.execute("SELECT 1")
                    self.count += 1
                    time.sleep(0.002)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.errors.append(error)

    def finish(self) -> None:
        self._ending.set()
        self.join(60.0)
        assert not self.is_alive()
        assert self.errors == []
        assert self.count


def test_a_keyspace_grows_and_shrinks_under_load(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    writer, reader = Application(stack), Reader(stack)
    writer.start()
    reader.start()
    asked = ask(stack, cluster_size="PS_20", extra_replicas=2)
    done = finish(stack, asked)
    assert done.started_at is not None
    assert done.completed_at is not None
    primary, replicas = servers(stack)
    assert len(replicas) == 2
    assert [pool(stack, each) for each in (primary, *replicas)] == [1024] * 3
    keyspace = stack.keyspace("shop")
    assert (keyspace.cluster_size, keyspace.replicas, keyspace.extra_replicas) == ("PS_20", 2, 2)
    with stack.store.read() as tx:
        assert tx.branches.get(stack.branch_id).cluster_size == "PS_20", "as its default keyspace"
        (shard,) = tx.keyspaces.shards(keyspace.id)
        rollout = tx.resizes.rollouts([shard.id])[shard.id]
    assert (rollout.state, rollout.finished_at is not None) == ("complete", True)
    finish(stack, ask(stack, cluster_size="homeworld", extra_replicas=1))
    assert servers(stack) == (primary, replicas[:1])
    assert set(stack.engine.list_servers()) == {primary, replicas[0]}
    assert pool(stack, primary) == 32
    reader.finish()
    rows = writer.finish()
    assert dict(stack.run("SELECT id, amount FROM orders")) == rows
    assert stack.run("SELECT COUNT(*) FROM orders", schema="shop@replica")


def test_a_restart_is_waited_for_and_fails_nobody(
    make_stack: Callable[..., Stack], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a server takes its size with a restart only."""
    stack = make_stack(replicas=1, gateways=2)
    primary, (replica,) = servers(stack)
    before = {server_id: pid_of(stack.engine, server_id) for server_id in (primary, replica)}
    really = LocalEngine.resize_server

    def resize_server(self: LocalEngine, server_id: str, size: ServerSize | None) -> bool:
        return really(self, server_id, size) and pid_of(self, server_id) != before[server_id]

    monkeypatch.setattr(LocalEngine, "resize_server", resize_server)
    writer, reader = Application(stack), Reader(stack)
    writer.start()
    reader.start()
    other = Reader(stack, stack.gateways.gateways[1], "shop")
    other.start()
    finish(stack, ask(stack, cluster_size="PS_10"))
    other.finish()
    assert all(pid_of(stack.engine, server_id) != pid for server_id, pid in before.items())
    assert (pool(stack, primary), pool(stack, replica)) == (512, 512)
    reader.finish()
    rows = writer.finish()
    assert dict(stack.run("SELECT id, amount FROM orders")) == rows


@pytest.mark.usefixtures("once")
def test_a_transaction_that_stays_open_is_named_and_not_broken(
    make_stack: Callable[..., Stack], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homeworld.workflows.resizing.keyspaces.DRAIN_SECONDS", 0.2)
    stack = make_stack()
    primary, _ = servers(stack)
    before = pid_of(stack.engine, primary)
    really = LocalEngine.resize_server

    def resize_server(self: LocalEngine, server_id: str, size: ServerSize | None) -> bool:
        return really(self, server_id, size) and pid_of(self, server_id) != before

    monkeypatch.setattr(LocalEngine, "resize_server", resize_server)
    with stack.connect() as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO orders (customer, amount) VALUES (1, 1)")
        asked = ask(stack, cluster_size="PS_10")
        wait(lambda: "did not end" in resize(stack, asked).error, lambda: str(resize(stack, asked)))
        assert stack.run("SELECT COUNT(*) FROM orders") == [(0,)], "others are served"
        cursor.execute("COMMIT")
        finish(stack, asked)
        cursor.execute("SELECT COUNT(*) FROM orders")
        assert cursor.fetchall() == ((1,),)
    assert resize(stack, asked).error == ""


@pytest.mark.usefixtures("once")
def test_what_has_not_begun_is_taken_back(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.stop_executor()
    first, second = ask(stack, cluster_size="PS_20"), ask(stack, extra_replicas=3)
    assert first == second, "asking again changes the one that waits"
    with stack.store.write() as tx:
        assert tx.resizes.cancel(tx.keyspaces.by_name(stack.branch_id, "shop")).state is Resize.CANCELED
    third = ask(stack, cluster_size="PS_10")
    stack.start_executor()
    finish(stack, third)
    assert resize(stack, first).state is Resize.CANCELED
    primary, replicas = servers(stack)
    assert (pool(stack, primary), replicas) == (512, [])


@pytest.mark.usefixtures("once")
def test_resizes_of_a_branch_follow_each_other(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.add_keyspace("other")
    stack.stop_executor()
    asked = [ask(stack, cluster_size="PS_10"), ask(stack, "other", cluster_size="PS_40", extra_replicas=1)]
    assert [resize(stack, one).state for one in asked] == [Resize.PENDING, Resize.QUEUED]
    stack.start_executor()
    first, second = (finish(stack, one) for one in asked)
    assert first.completed_at is not None
    assert second.started_at is not None
    assert first.completed_at <= second.started_at
    primary, _ = servers(stack)
    assert pool(stack, primary) == 2048, "shared servers have the larger size"


@pytest.mark.usefixtures("once")
def test_another_executor_goes_on_where_one_broke_off(
    make_stack: Callable[..., Stack], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = make_stack()
    really, broken = LocalEngine.create_server, [2]

    def create_server(
        self: LocalEngine, server_id: str, *, replica_of: str | None = None, size: ServerSize | None = None
    ) -> None:
        really(self, server_id, replica_of=replica_of, size=size)
        if broken[0]:
            broken[0] -= 1
            raise UnavailableError("it died behind it")

    monkeypatch.setattr(LocalEngine, "create_server", create_server)
    asked = ask(stack, extra_replicas=1, cluster_size="PS_10")
    wait(lambda: "it died" in resize(stack, asked).error, "the failure is told")
    stack.stop_executor()
    stack.start_executor()
    finish(stack, asked)
    primary, replicas = servers(stack)
    assert len(replicas) == 1
    assert set(stack.engine.list_servers()) == {primary, *replicas}, "no server was made twice"


@pytest.mark.usefixtures("once")
def test_a_keyspace_that_is_asked_away_ends_its_resize(
    make_stack: Callable[..., Stack], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = make_stack()
    stack.add_keyspace("other")
    before = set(stack.engine.list_servers())

    def wait_replica(_self: LocalEngine, _server_id: str, _seconds: float) -> None:
        raise UnavailableError("it never catches up")

    monkeypatch.setattr(LocalEngine, "wait_replica", wait_replica)
    asked = ask(stack, "other", extra_replicas=1)
    wait(lambda: "never catches up" in resize(stack, asked).error, lambda: str(resize(stack, asked)))
    with stack.store.write() as tx:
        other = tx.keyspaces.by_name(stack.branch_id, "other")
        delete_keyspace(tx, other)

    def gone() -> bool:
        with stack.store.read() as tx:
            return tx.keyspaces.get(other.id).state is Life.DELETED

    wait(gone, "the keyspace is gone")
    assert resize(stack, asked).state is Resize.CANCELED
    assert set(stack.engine.list_servers()) == before
    assert stack.run("SELECT COUNT(*) FROM orders") == [(0,)]


@pytest.mark.usefixtures("once")
def test_what_cannot_make_its_replicas_is_given_up(
    make_stack: Callable[..., Stack], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = make_stack()
    primary, _ = servers(stack)

    def wait_replica(_self: LocalEngine, _server_id: str, _seconds: float) -> None:
        raise UnavailableError("it never catches up")

    monkeypatch.setattr(LocalEngine, "wait_replica", wait_replica)
    asked = ask(stack, extra_replicas=1)
    wait(lambda: "never catches up" in resize(stack, asked).error, lambda: str(resize(stack, asked)))
    following = ask(stack, cluster_size="PS_10", extra_replicas=0)
    with stack.store.write() as tx:
        keyspace = tx.keyspaces.by_name(stack.branch_id, "shop")
        assert tx.resizes.cancel(keyspace).id == following, "first what waits"
    with stack.store.write() as tx:
        assert tx.resizes.cancel(keyspace).id == asked
    finish(stack, asked, Resize.CANCELED)
    assert stack.engine.list_servers() == [primary]
    finish(stack, ask(stack, cluster_size="PS_10", extra_replicas=0))
    assert pool(stack, primary) == 512


@pytest.mark.usefixtures("once")
def test_a_primary_that_was_a_replica_too_many_a_moment_ago_is_not_ended(
    make_stack: Callable[..., Stack], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = make_stack()
    finish(stack, ask(stack, extra_replicas=2))
    former, (stays, leaves) = servers(stack)
    hold = stack.gateways.hold
    held: list[HoldRequest] = []

    def failover(request: HoldRequest) -> None:
        hold(request)
        held.append(request)
        if len(held) == 1:
            promote(stack.store, stack.engine, stack.publish, leaves)

    monkeypatch.setattr(stack.gateways, "hold", failover)
    finish(stack, ask(stack, extra_replicas=1))
    assert held
    assert servers(stack) == (leaves, [former]), f"{stays} is the newest of its replicas"
    assert set(stack.engine.list_servers()) == {leaves, former}
    with stack.store.read() as tx:
        assert {one.state for one in tx.servers.of_branch(stack.branch_id)} == {Life.READY}
    stack.run("INSERT INTO orders (customer, amount) VALUES (1, 1)")


@pytest.mark.usefixtures("once")
def test_a_resize_that_is_given_up_ends_no_server_that_may_have_more_than_others(
    make_stack: Callable[..., Stack], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = make_stack(replicas=1)
    former, (heir,) = servers(stack)

    def follows(_self: LocalEngine, _server_id: str) -> str:
        return "it has transactions that nobody else has"

    def wait_replica(_self: LocalEngine, _server_id: str, _seconds: float) -> None:
        raise UnavailableError("it never catches up")

    monkeypatch.setattr(LocalEngine, "follows", follows)
    promote(stack.store, stack.engine, stack.publish, heir)
    assert servers(stack) == (heir, []), "the former one is barred"
    monkeypatch.setattr(LocalEngine, "wait_replica", wait_replica)
    asked = ask(stack, extra_replicas=1)
    wait(lambda: "never catches up" in resize(stack, asked).error, lambda: str(resize(stack, asked)))
    assert len(stack.engine.list_servers()) == 3
    with stack.store.write() as tx:
        assert tx.resizes.cancel(tx.keyspaces.by_name(stack.branch_id, "shop")).id == asked
    finish(stack, asked, Resize.CANCELED)
    assert set(stack.engine.list_servers()) == {former, heir}


@pytest.mark.usefixtures("once")
def test_gateways_take_as_many_clients_as_their_size_says(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    with stack.store.write() as tx:
        made = tx.gateway_resizes.ask(tx.branches.get(stack.branch_id), "VTG_DEV")
    assert made is not None

    def done() -> bool:
        with stack.store.read() as tx:
            return tx.gateway_resizes.get(made.id).state is Resize.COMPLETED

    wait(done, "every gateway has acknowledged it")
    clients = [stack.connect() for _ in range(250)]
    try:
        with pytest.raises(pymysql.err.OperationalError, match="Too many connections"):
            stack.connect()
        clients.pop().close()
        wait(lambda: len(stack.run("SELECT 1")) == 1, "one place is free again")
    finally:
        for client in clients:
            client.close()


def test_servers_are_looked_at(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    inspection = ServerInspection(stack.store, stack.engine)
    stack.run(
        "INSERT INTO orders (customer, amount) VALUES (1, 1)",
        "CREATE TABLE links (a INT, up BIGINT, FOREIGN KEY (up) REFERENCES orders (id))"
        " COMMENT 'AUTO_INCREMENT=7'",
        "CREATE VIEW v AS SELECT id FROM orders",
    )
    keyspace = stack.keyspace("shop")
    told = {one.name: one for one in inspection.definitions(keyspace.id)}
    assert sorted(told) == ["links", "orders", "v"]
    assert "AUTO_INCREMENT=" not in told["orders"].sql
    assert "AUTO_INCREMENT=7" in told["links"].sql
    assert told["v"].view
    assert told["v"].sql.startswith("CREATE VIEW `v` AS select")
    facts = {one.name: one for one in inspection.facts(keyspace.id)}
    assert (facts["orders"].keyed, facts["orders"].auto_increment) == (True, ("id",))
    assert (facts["links"].keyed, facts["links"].foreign_key_columns) == (False, ("up",))
    assert facts["links"].charset == "utf8mb4"
    primary, _ = servers(stack)
    with stack.connect() as first, stack.connect() as second:
        with first.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("UPDATE orders SET amount = 2 WHERE id = 1")
        blocked = threading.Thread(target=_update, args=(second,), daemon=True)
        blocked.start()

        def waiting() -> ServerConnection | None:
            return next((c for c in inspection.connections(primary) if c.waits_for_lock), None)

        # InnoDB tells of transactions from a picture that it does not renew while it is looked at more often.
        wait(lambda: waiting() is not None, "it waits for the lock", step=0.15)
        one = waiting()
        assert one is not None
        assert (one.ours, one.schema, "UPDATE orders" in one.text) == (False, "shop", True)
        assert one.transaction_began is not None
        holders = [c for c in inspection.connections(primary) if c.transaction_began and not c.waits_for_lock]
        assert len(holders) == 1
        assert one.blocked_by == (holders[0].number,)
        inspection.kill(primary, one.number, query=True)
        blocked.join(30)
        assert not blocked.is_alive()
        with first.cursor() as cursor:
            cursor.execute("ROLLBACK")
    assert all(c.ours or c.user.startswith("homeworld_") for c in inspection.connections(primary))


def _update(connection: pymysql.connections.Connection[pymysql.cursors.Cursor]) -> None:
    with connection.cursor() as cursor, pytest.raises(pymysql.err.OperationalError):
        cursor.execute("UPDATE orders SET amount = 3 WHERE id = 1")


@pytest.mark.usefixtures("once")
def test_the_servers_errors_are_errors(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    inspection = ServerInspection(stack.store, stack.engine)
    primary, _ = servers(stack)
    stack.engine.stop_server(primary)
    with pytest.raises((UnavailableError, ServerError)):
        inspection.connections(primary)
