"""Databases, branches and keyspaces made and unmade on real servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from homeworld.engines.local import LocalEngine
from homeworld.model.errors import UnavailableError
from homeworld.model.names import new_id
from homeworld.model.sizes import ServerSize
from homeworld.model.states.lifecycle import Life
from homeworld.store.branches import Branch
from homeworld.store.provision import create_branch, delete_branch, delete_database, delete_keyspace
from homeworld.workflows.provisioning import Placement
from tests.support.stack import Stack, wait

pytestmark = pytest.mark.servers

VSCHEMA: dict[str, Any] = {
    "sharded": True,
    "vindexes": {"xxhash": {"type": "xxhash"}},
    "tables": {"orders": {"column_vindexes": [{"column": "id", "name": "xxhash"}]}},
}


@pytest.fixture
def make_stack(engine: LocalEngine, tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    made: list[Stack] = []

    def make(placement: Placement = Placement.SHARED) -> Stack:
        folder = tmp_path / new_id()
        folder.mkdir()
        stack = Stack(engine, folder, placement)
        stack.start()
        made.append(stack)
        return stack

    yield make
    for stack in made:
        stack.close()


def test_a_branch_has_its_parents_tables_views_and_sequences_without_rows(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack()
    stack.open()
    stack.add_keyspace("sharded", VSCHEMA, shards=2)
    stack.run(
        "CREATE TABLE parents (id INT PRIMARY KEY, v TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)",
        "CREATE TABLE children (id INT AUTO_INCREMENT PRIMARY KEY, up INT, KEY (up),"
        " FOREIGN KEY (up) REFERENCES parents (id))",
        "INSERT INTO parents (id) VALUES (1), (2)",
        "INSERT INTO children (up) VALUES (1), (2)",
        "CREATE VIEW b_view AS SELECT id FROM parents",
        "CREATE VIEW a_view AS SELECT id FROM b_view",
    )
    stack.on_server("sharded", "CREATE TABLE orders (id BIGINT PRIMARY KEY)")
    stack.on_server("shop", "CREATE TABLE s_seq (id BIGINT PRIMARY KEY, next_id BIGINT, cache BIGINT)")
    with stack.store.write() as tx:
        vschema = {"tables": {"s_seq": {"type": "sequence"}}}
        tx.keyspaces.update(stack.keyspace("shop").id, vschema=vschema)
        made = create_branch(tx, tx.databases.get(stack.database_id), "dev")
        tx.routes.bump(made.id)

    def ready() -> bool:
        with stack.store.read() as tx:
            return tx.branches.get(made.id).state is Life.READY

    wait(ready, "the branch is ready")
    parent, stack.branch_id = stack.branch_id, made.id
    tables = {row[0]: row[1] for row in stack.on_server("shop", "SHOW FULL TABLES")}
    assert tables == {
        "parents": "BASE TABLE", "children": "BASE TABLE", "s_seq": "BASE TABLE", "a_view": "VIEW",
        "b_view": "VIEW",
    }  # fmt: skip
    assert stack.on_server("shop", "SELECT COUNT(*) FROM children") == [(0,)]
    assert stack.on_server("shop", "SELECT next_id FROM s_seq") == [(1,)]
    assert stack.on_server("sharded", "SHOW TABLES") == [("orders",), ("orders",)]
    ours = stack.on_server("shop", "SHOW CREATE TABLE children")[0][1]
    stack.branch_id = parent
    theirs = stack.on_server("shop", "SHOW CREATE TABLE children")[0][1]
    assert ours == theirs.replace(" AUTO_INCREMENT=3", "")

    with stack.store.read() as tx:
        server = tx.servers.of_branch(made.id)[0].id
    with stack.store.write() as tx:
        delete_branch(tx, tx.branches.get(made.id))
    wait(lambda: _branch(stack, made.id).state is Life.DELETED, "the branch is gone")
    assert server not in stack.engine.list_servers()
    assert stack.on_server("shop", "SELECT COUNT(*) FROM children") == [(2,)], "the parent is untouched"


def _branch(stack: Stack, branch_id: str) -> Branch:
    with stack.store.read() as tx:
        return tx.branches.get(branch_id)


@pytest.mark.parametrize("placement", list(Placement))
def test_servers_and_schemas_follow_the_placement(
    make_stack: Callable[..., Stack], placement: Placement
) -> None:
    stack = make_stack(placement)
    stack.open(replicas=1)
    made = stack.add_keyspace("sharded", VSCHEMA, shards=2, replicas=1)
    with stack.store.read() as tx:
        servers = tx.servers.of_branch(stack.branch_id)
        shards = tx.keyspaces.shards(made.id)
    primaries = {server.id for server in servers if server.replica_of is None}
    assert len(primaries) == (1 if placement is Placement.SHARED else 3)
    assert len(servers) == 2 * len(primaries)
    assert all(server.state is Life.READY for server in servers)
    assert {shard.schema_name for shard in shards} == {"sharded_-80", "sharded_80-"}
    for shard in shards:
        (replica,) = shard.replica_server_ids
        assert stack.engine.status(replica).replica_of == shard.primary_server_id
        stack.engine.wait_replica(replica, 20.0)

    with stack.store.write() as tx:
        delete_keyspace(tx, tx.keyspaces.get(made.id))

    def gone() -> bool:
        with stack.store.read() as tx:
            return tx.keyspaces.get(made.id).state is Life.DELETED

    wait(gone, "the keyspace is gone")
    assert stack.on_server("shop", "SHOW DATABASES LIKE 'sharded%'") == []
    left = set(stack.engine.list_servers())
    assert len(left) == 2, "servers of its own went with it, shared ones stayed"
    assert stack.add_keyspace("sharded", VSCHEMA, shards=2), "the name is free again"

    with stack.store.write() as tx:
        delete_database(tx, tx.databases.get(stack.database_id))

    def database_gone() -> bool:
        with stack.store.read() as tx:
            return tx.databases.get(stack.database_id).state is Life.DELETED

    wait(database_gone, "the database is gone")
    assert not stack.engine.list_servers()
    with stack.store.read() as tx:
        assert tx.queue.resources_with_work() == ()


def test_a_server_that_does_not_come_up_is_told_and_tried_again(
    make_stack: Callable[..., Stack], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = make_stack()
    broken = [3]
    create = LocalEngine.create_server

    def create_server(
        self: LocalEngine, server_id: str, *, replica_of: str | None = None, size: ServerSize | None = None
    ) -> None:
        if broken[0]:
            broken[0] -= 1
            raise UnavailableError("the disk is full")
        create(self, server_id, replica_of=replica_of, size=size)

    monkeypatch.setattr(LocalEngine, "create_server", create_server)
    told: set[str] = set()
    opening = stack.begin_database()

    def ready() -> bool:
        with stack.store.read() as tx:
            told.add(tx.databases.get(opening).error)
            return tx.databases.get(opening).state is Life.READY

    wait(ready, "the database is ready after all")
    assert any("the disk is full" in error for error in told)
    with stack.store.read() as tx:
        assert tx.databases.get(opening).error == ""
    assert len(stack.engine.list_servers()) == 1, "the same server was tried again"


def test_an_executor_that_dies_while_making_leaves_no_second_server(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.begin_database()
    wait(lambda: bool(stack.engine.list_servers()), "a server is on its way")
    stack.stop_executor()
    stack.start_executor()
    stack.finish_database()
    assert len(stack.engine.list_servers()) == 1
