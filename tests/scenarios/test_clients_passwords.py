"""What a password may do, from where and for how long, as clients feel it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import pymysql
import pytest

from tests.support.client_world import ITEMS, ClientWorld

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(300)]

READ = "SELECT COUNT(*) FROM {}"
CHANGES = (
    "INSERT INTO {} (id, name, price) VALUES (9000, 'x', 1)",
    "UPDATE {} SET price = 2 WHERE id = 9000",
    "DELETE FROM {} WHERE id = 9000",
)
SCHEMA_CHANGES = ("CREATE TABLE made (id INT PRIMARY KEY)", "ALTER TABLE made ADD n INT", "DROP TABLE made")
MAY = {
    "reader": (True, False, False),
    "writer": (False, True, False),
    "readwriter": (True, True, False),
    "admin": (True, True, True),
}


def denied(connection: Any, statement: str) -> None:
    with connection.cursor() as cursor, pytest.raises(pymysql.err.OperationalError) as caught:
        cursor.execute(statement)
    assert caught.value.args[0] in {1142, 1044}, caught.value


@pytest.mark.parametrize("role", MAY)
@pytest.mark.parametrize("table", ["items", "plain.own_items"], ids=["two-shards", "unsharded"])
def test_roles(world: ClientWorld, role: str, table: str) -> None:
    with contextlib.closing(world.admin.connect("shop", autocommit=True)) as admin, admin.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS plain.own_items")
        cursor.execute(
            "CREATE TABLE plain.own_items (id BIGINT PRIMARY KEY, name VARCHAR(80), price DECIMAL(12,2))"
        )
    reads, changes, schema_changes = MAY[role]
    login = world.login(role=role)
    connection: Any
    with contextlib.closing(login.connect("shop", autocommit=True)) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            if reads:
                cursor.execute(READ.format(table))
                assert cursor.fetchall() == ((ITEMS if table == "items" else 0,),)
            if changes:
                for statement in CHANGES:
                    assert cursor.execute(statement.format(table)) == 1
            if schema_changes:
                connection.select_db("plain")
                for statement in SCHEMA_CHANGES:
                    cursor.execute(statement)
                connection.select_db("shop")
        if not reads:
            denied(connection, READ.format(table))
            denied(connection, "INSERT INTO plain.own_items SELECT id, name, price FROM plain.own_items")
        if not changes:
            for statement in CHANGES:
                denied(connection, statement.format(table))
        if not schema_changes:
            connection.select_db("plain")
            denied(connection, SCHEMA_CHANGES[0])
            denied(connection, "DROP TABLE own_items")
            denied(connection, "TRUNCATE own_items")
    with contextlib.closing(world.admin.connect("shop", autocommit=True)) as admin, admin.cursor() as cursor:
        cursor.execute(f"DELETE FROM {table} WHERE id = 9000")


def closed(connection: Any, within: float) -> str:
    """Wait until the connection is closed by the other side; the error that its next statement gets."""
    deadline = time.monotonic() + within
    while True:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT COUNT(*) FROM items")
        except pymysql.MySQLError as error:
            return str(error)
        assert time.monotonic() < deadline, "the connection stays open"
        time.sleep(0.05)


@pytest.fixture
def refused(world: ClientWorld) -> Callable[[dict[str, str]], str]:
    def attempt(made: dict[str, str]) -> str:
        with pytest.raises(pymysql.err.OperationalError) as caught:
            pymysql.connect(
                host=world.admin.host, port=world.admin.port, user=made["username"],
                password=made["plain_text"], database="shop",
            )  # fmt: skip
        assert caught.value.args[0] == 1045
        return str(caught.value)

    return attempt


def test_a_deleted_password_closes_its_connections(
    world: ClientWorld, refused: Callable[[dict[str, str]], str]
) -> None:
    made = world.password()
    busy, idle = (
        pymysql.connect(
            host=world.admin.host, port=world.admin.port, user=made["username"],
            password=made["plain_text"], database="shop", read_timeout=30,
        )
        for _ in range(2)
    )  # fmt: skip
    with busy.cursor() as cursor:
        cursor.execute("UPDATE items SET price = price + 100 WHERE id = 1")
    world.platform.client.delete_password(world.platform.organization, "shop", "main", made["id"])
    for connection in (busy, idle):
        assert closed(connection, 10)
        connection.close()
    assert "Access denied" in refused(made)
    with contextlib.closing(world.admin.connect("shop")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT price < 100 FROM items WHERE id = 1")
        assert cursor.fetchall() == ((1,),), "what was not committed is undone"


def test_an_expired_password_closes_its_connections(
    world: ClientWorld, refused: Callable[[dict[str, str]], str]
) -> None:
    made = world.password(ttl=3)
    connection = pymysql.connect(
        host=world.admin.host, port=world.admin.port, user=made["username"], password=made["plain_text"],
        database="shop", read_timeout=30,
    )  # fmt: skip
    assert closed(connection, 20)
    connection.close()
    refused(made)


def test_addresses(world: ClientWorld, refused: Callable[[dict[str, str]], str]) -> None:
    client, at = world.platform.client, (world.platform.organization, "shop", "main")
    elsewhere = world.password(cidrs=["192.0.2.0/24", "2001:db8::/32"])
    assert "Access denied" in refused(elsewhere)
    client.update_password(*at, elsewhere["id"], cidrs=["192.0.2.0/24", "127.0.0.0/8"])
    connection = pymysql.connect(
        host=world.admin.host, port=world.admin.port, user=elsewhere["username"],
        password=elsewhere["plain_text"], database="shop", read_timeout=30,
    )  # fmt: skip
    with connection.cursor() as cursor:
        assert cursor.execute("SELECT 1") == 1
    client.update_password(*at, elsewhere["id"], cidrs=["192.0.2.0/24"])
    assert closed(connection, 10), "a connection from an address that is not allowed any more is closed"
    connection.close()


def test_a_replica_password_reads_only(world: ClientWorld) -> None:
    login = world.login(role="reader", replica=True)
    with contextlib.closing(login.connect("shop")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM items")
        assert cursor.fetchall() == ((ITEMS,),)
        cursor.execute("SELECT @@global.read_only")
        assert cursor.fetchall() in {((1,),), (("ON",),)}
        denied(connection, CHANGES[1].format("items"))


def test_a_renewed_password_goes_on(world: ClientWorld) -> None:
    client, at = world.platform.client, (world.platform.organization, "shop", "main")
    made = world.password(ttl=2)
    connection = pymysql.connect(
        host=world.admin.host, port=world.admin.port, user=made["username"], password=made["plain_text"],
        database="shop", read_timeout=30,
    )  # fmt: skip
    until = time.monotonic() + 4
    with connection.cursor() as cursor:
        while time.monotonic() < until:
            client.renew_password(*at, made["id"])
            assert cursor.execute("SELECT COUNT(*) FROM items") == 1
            time.sleep(0.2)
    connection.close()
