"""Programs by qualified names, and what only looks like them."""

from __future__ import annotations

import pytest

from homeworld.gateway.plan import Pass, Plan, Refuse, Target
from tests.support.routing_world import branch, keyspace, router, view

KNOWN = {"shop": {"s": {"id": "bigint"}}, "plain": {"p": {"id": "bigint"}, "q": {"id": "bigint"}}}


def plan(sql: str, target: str = "") -> Plan:
    found = router(branch(keyspace("shop"), keyspace("plain")), KNOWN)
    return found.plan(sql.encode(), view(Target(target)))


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE plain.t (id BIGINT PRIMARY KEY)",
        "CREATE TABLE IF NOT EXISTS plain.t (id BIGINT PRIMARY KEY)",
        "CREATE TABLE `plain`.`t`(id BIGINT, FOREIGN KEY (id) REFERENCES plain.p (id))",
        "INSERT INTO plain.p (id) VALUES (1)",
        "INSERT plain.p (id) SELECT id FROM plain.q",
        "REPLACE plain.p (id) VALUES (1)",
        "CREATE INDEX i ON plain.p (id)",
        "CREATE VIEW plain.v (id) AS SELECT id FROM plain.p",
        "ALTER TABLE plain.p ADD FOREIGN KEY (id) REFERENCES plain.q (id)",
        "SELECT * FROM plain.p WHERE p.id IN (1, 2) AND (p.id) > 0",
        "SELECT MAX(plain.p.id) FROM plain.p",
        "LOAD DATA LOCAL INFILE 'x' INTO TABLE plain.p (id)",
        "DELETE FROM plain.p WHERE id IN (SELECT q.id FROM plain.q)",
    ],
)
@pytest.mark.parametrize("target", ["", "shop", "plain"])
def test_tables_are_no_programs(sql: str, target: str) -> None:
    found = plan(sql, target)
    assert isinstance(found, Pass), found
    assert found.destination.keyspace == "plain"


@pytest.mark.parametrize(
    "sql",
    [
        "CALL plain.p()", "CALL `plain`.p", "CREATE PROCEDURE plain.x() SELECT 1", "DROP FUNCTION plain.x",
        "CREATE TRIGGER plain.x BEFORE INSERT ON s FOR EACH ROW SET @a = 1", "DROP EVENT IF EXISTS plain.x",
        "ALTER EVENT x RENAME TO plain.x", "SHOW CREATE PROCEDURE plain.x",
        "CREATE VIEW v AS SELECT plain.f()",
    ],
)  # fmt: skip
def test_programs_of_another_keyspace_are_refused(sql: str) -> None:
    found = plan(sql, "shop")
    assert isinstance(found, Refuse), found
    other = plan(sql.replace("plain", "elsewhere"), "shop")
    assert isinstance(other, Refuse)
    assert (other.errno, "elsewhere" in other.message) == (1049, True)


@pytest.mark.parametrize(
    "sql", ["CALL plain.p()", "CREATE PROCEDURE plain.x() SELECT 1", "DROP FUNCTION plain.x"]
)
def test_programs_of_the_sessions_own_keyspace_go_there(sql: str) -> None:
    found = plan(sql, "plain")
    assert isinstance(found, Pass)
    assert found.destination.keyspace == "plain"
