"""Loads to several servers at once: what one refuses, or does not take, is no matter of the others."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from homeworld.model.errors import DeadlineExceededError, HomeworldError, ServerError
from homeworld.model.names import new_id
from homeworld.model.topology import BackendRole, Flavor
from homeworld.replication.applier import write_session
from homeworld.replication.connection import Connection, Executed
from homeworld.replication.keyorder import TableKey
from homeworld.replication.loading import RowWriter
from homeworld.replication.loads import Load, load_together
from homeworld.replication.tables import read_tables
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers
# More than a socket holds, so that sending has to wait for each server.
ROWS, ROW = 3000, b"r" * 3000
_SQL = "LOAD DATA LOCAL INFILE 'x' INTO TABLE {} CHARACTER SET binary (id, b)"


@pytest.fixture
def schema(trio: list[TestServer]) -> Iterator[str]:
    """A schema of the test's own on two servers, with a table."""
    name = f"loads_{new_id()}"
    for server in trio[:2]:
        server.create_schema(name)
        server.execute("CREATE TABLE t (id INT PRIMARY KEY, b LONGBLOB)", name)
    yield name
    for server in trio[:2]:
        server.drop_schema(name)


@pytest.fixture
def two(trio: list[TestServer], schema: str) -> Iterator[list[Connection]]:
    """A connection to each, with a transaction open."""
    made = [
        Connection(server.endpoint(BackendRole.MOVER), schema=schema, timeout_seconds=60.0)
        for server in trio[:2]
    ]
    for connection in made:
        connection.execute("START TRANSACTION")
    yield made
    for connection in made:
        connection.close()


def pieces(first: int = 0) -> Iterator[bytes]:
    """A file of some megabytes, in pieces of a few rows."""
    for start in range(first, first + ROWS, 100):
        yield b"".join(b"%d\t%b\n" % (number, ROW) for number in range(start, start + 100))


def count(server: TestServer, schema: str) -> int:
    return int(server.query("SELECT COUNT(*) FROM t", schema)[0][0])


def test_each_server_gets_its_own(trio: list[TestServer], schema: str, two: list[Connection]) -> None:
    first, second = load_together(
        [Load(two[0], _SQL.format("t"), pieces()), Load(two[1], _SQL.format("t"), [b"7\tseven\n"])]
    )
    assert isinstance(first, Executed)
    assert isinstance(second, Executed)
    assert (first.affected, second.affected) == (ROWS, 1)
    for connection in two:
        connection.execute("COMMIT")
    assert [count(server, schema) for server in trio[:2]] == [ROWS, 1]
    assert trio[0].query("SELECT MIN(LENGTH(b)), SUM(id) FROM t", schema) == [(3000, ROWS * (ROWS - 1) // 2)]


def test_what_one_refuses_the_other_has(two: list[Connection]) -> None:
    refused, done = load_together(
        [Load(two[0], _SQL.format("missing"), pieces()), Load(two[1], _SQL.format("t"), pieces())]
    )
    assert isinstance(refused, ServerError)
    assert refused.server_errno == 1146
    assert isinstance(done, Executed)
    assert done.affected == ROWS
    assert [connection.query_one("SELECT COUNT(*) FROM t") for connection in two] == [(b"0",), (b"3000",)]


def test_a_file_that_breaks_ends_both(trio: list[TestServer], schema: str, two: list[Connection]) -> None:
    def broken() -> Iterator[bytes]:
        yield b"1\tone\n"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        load_together([Load(two[0], _SQL.format("t"), pieces()), Load(two[1], _SQL.format("t"), broken())])
    assert [connection.closed for connection in two] == [True, True]
    assert [count(server, schema) for server in trio[:2]] == [0, 0]


def test_a_server_that_takes_nothing_is_waited_for_no_longer_than_it_may_be_silent(
    trio: list[TestServer], schema: str, two: list[Connection]
) -> None:
    def then_stop() -> Iterator[bytes]:
        for number, piece in enumerate(pieces()):
            if number == 1:
                os.kill(trio[1].pid, signal.SIGSTOP)
            yield piece

    two[1].timeout_seconds = 1.0
    try:
        with pytest.raises(HomeworldError) as caught:
            load_together(
                [Load(two[0], _SQL.format("t"), pieces()), Load(two[1], _SQL.format("t"), then_stop())]
            )
        assert isinstance(caught.value, DeadlineExceededError)
    finally:
        os.kill(trio[1].pid, signal.SIGCONT)
    assert [connection.closed for connection in two] == [True, True]
    assert [count(server, schema) for server in trio[:2]] == [0, 0]


def test_a_duplicate_is_told_as_such_beside_an_index_that_could_not_keep_its_value(
    trio: list[TestServer], schema: str
) -> None:
    if trio[0].flavor is not Flavor.MYSQL:
        pytest.skip("only MySQL has such indexes")
    place = trio[0].place("target", "-", schema)
    trio[0].execute(
        [
            "SET sql_mode=''",
            "CREATE TABLE f (d DECIMAL(30,0) NOT NULL, PRIMARY KEY (d), KEY f ((HEX(d))))",
            "INSERT INTO f VALUES (1)",
        ],
        schema,
    )
    table = read_tables(place, ["f"])["f"]
    writer = RowWriter(table, TableKey(table), schema, Flavor.MYSQL)
    large = b"9" * 30
    with write_session(place, 1) as session:
        session.execute("START TRANSACTION")
        assert writer.add(session, [(large,), (b"2",)])
        session.execute("ROLLBACK")
        session.execute("START TRANSACTION")
        assert not writer.add(session, [(large,), (b"1",)])
