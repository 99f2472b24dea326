"""What can become untrue while a move runs is asked again; what would be lost unsaid is refused, with why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from homeworld.engines.local import LocalEngine
from homeworld.model.movers import OnDdl
from homeworld.model.states.move_tables import State, Trigger
from homeworld.model.topology import Flavor
from homeworld.workflows.move_tables import decide as d
from homeworld.workflows.move_tables import steps_switch
from tests.support.moving_shop import ROWS, VSCHEMA, Acting, begin, fill
from tests.support.stack import Stack, wait

pytestmark = pytest.mark.servers

S, T = State, Trigger


@pytest.fixture
def stack(engine: LocalEngine, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(engine, tmp_path)
    made.start()
    yield made
    made.close()


# What is made after the move has begun, what removes it again, and how it is called.
LATE = (
    ("CREATE VIEW late AS SELECT * FROM orders", "DROP VIEW late", "view late"),
    (
        "CREATE TRIGGER late AFTER INSERT ON other FOR EACH ROW INSERT INTO orders (customer, amount)"
        " VALUES (1, 1)",
        "DROP TRIGGER late",
        "trigger late",
    ),
    (
        "CREATE TRIGGER late BEFORE INSERT ON orders FOR EACH ROW SET NEW.note = 'x'",
        "DROP TRIGGER late",
        "late",
    ),
    (
        "CREATE PROCEDURE late() INSERT INTO orders (customer, amount) VALUES (1, 1)",
        "DROP PROCEDURE late",
        "procedure late",
    ),
    ("CREATE EVENT late ON SCHEDULE EVERY 1 DAY DO DELETE FROM orders", "DROP EVENT late", "event late"),
    (
        "CREATE TABLE late (id INT PRIMARY KEY, o BIGINT, FOREIGN KEY (o) REFERENCES orders (id))",
        "DROP TABLE late",
        "table late",
    ),
    (
        "CREATE VIEW elsewhere.late AS SELECT * FROM orders",
        "DROP VIEW elsewhere.late",
        "view elsewhere.late",
    ),
)


def test_what_came_to_use_the_tables_holds_traffic_back_in_either_direction(stack: Stack) -> None:
    workflow = begin(stack, shards=1)
    for keyspace in ("shop", "target"):
        stack.on_server(keyspace, "CREATE TABLE other (id INT PRIMARY KEY)")
    stack.on_server("shop", "CREATE DATABASE elsewhere")
    for make, remove, named in LATE:
        stack.on_server("shop", make)
        refused = stack.ask(workflow, T.SWITCH_PRIMARIES, S.RUNNING)
        assert refused.state is S.RUNNING
        assert named in refused.workflow_errors
        assert "shop/-" in refused.workflow_errors
        stack.on_server("shop", remove)
    make, remove, named = LATE[0]
    stack.on_server("shop", make)
    assert named in stack.ask(workflow, T.SWITCH_REPLICAS, S.RUNNING).workflow_errors
    stack.on_server("shop", remove)
    stack.ask(workflow, T.SWITCH_REPLICAS, S.SWITCHED_REPLICAS)
    assert stack.ask(workflow, T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES).workflow_errors == ""
    for make, remove, named in LATE[:2]:
        stack.on_server("target", make)
        back = stack.ask(workflow, T.REVERSE_TRAFFIC, S.SWITCHED_PRIMARIES)
        assert back.primaries_switched
        assert f"{named} on target/-" in back.workflow_errors
        stack.on_server("target", remove)
    assert stack.ask(workflow, T.REVERSE_TRAFFIC, S.RUNNING).workflow_errors == ""


def test_what_is_made_between_the_look_and_the_hold_is_seen_under_the_hold(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps_switch, "LOOK_SECONDS", 60.0)  # the machine may be busy with other things
    workflow = begin(stack)
    stack.stop_executor()

    def late(when: str, step: str) -> None:
        if (when, step) == ("before", "hold"):
            stack.on_server("shop", "CREATE VIEW late AS SELECT * FROM orders")

    process = Acting(stack, workflow, late)
    process.run(S.RUNNING)
    stack.transition(workflow, T.SWITCH_PRIMARIES)
    assert not process.run(S.RUNNING, S.SWITCHED_PRIMARIES)
    process.die()
    refused = stack.workflow(workflow)
    assert refused.state is S.RUNNING
    assert "view late on shop/-" in refused.workflow_errors
    stack.run("INSERT INTO orders (customer, amount) VALUES (1, 1)")


@pytest.mark.parametrize("answer", list(OnDdl))
def test_a_statement_right_after_copying_began_is_answered_as_asked(stack: Stack, answer: OnDdl) -> None:
    stack.open()
    stack.add_keyspace("target", VSCHEMA, shards=2)
    fill(stack)
    stack.on_server("shop", "ALTER TABLE orders ADD gone VARCHAR(20) DEFAULT 'gone'")
    workflow = stack.move("shop", "target", ["orders"], on_ddl=answer)
    wait(lambda: stack.workflow(workflow).state is not S.PENDING, "it copies", step=0.002)
    stack.on_server("shop", "ALTER TABLE orders ADD z INT DEFAULT 7, DROP COLUMN gone")
    if answer in (OnDdl.STOP, OnDdl.IGNORE):
        stopped = stack.reaches(workflow, S.STOPPED, S.ERROR)
        assert stopped.state is S.STOPPED, stopped.workflow_errors
        assert "ADD z INT DEFAULT 7" in stopped.workflow_errors
        assert stack.ask(workflow, T.CANCEL, S.CANCELLED).workflow_errors == ""
        return
    running = stack.reaches(workflow, S.RUNNING, S.ERROR, S.STOPPED)
    assert running.state is S.RUNNING, running.workflow_errors
    assert stack.ask(workflow, T.VERIFY_DATA, S.VERIFIED_DATA).verified
    stack.ask(workflow, T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES)
    stack.run("INSERT INTO orders (customer, amount, z) VALUES (1, 1, 8)")
    assert stack.ask(workflow, T.REVERSE_TRAFFIC, S.RUNNING).workflow_errors == ""
    assert stack.run("SELECT COUNT(*), SUM(z) FROM orders") == [(ROWS + 1, 7 * ROWS + 8)]


def test_a_column_that_only_one_side_has_holds_a_switch_back(stack: Stack) -> None:
    workflow = begin(stack, on_ddl=OnDdl.IGNORE)
    stack.on_server("shop", "ALTER TABLE orders DROP COLUMN note")
    for action in (T.SWITCH_REPLICAS, T.SWITCH_PRIMARIES):
        refused = stack.ask(workflow, action, S.RUNNING)
        assert refused.state is S.RUNNING
        assert "column 'note' of table 'orders' is missing on shop/-" in refused.workflow_errors
    stack.on_server("target", "ALTER TABLE orders DROP COLUMN note")
    assert stack.ask(workflow, T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES).workflow_errors == ""
    # What is done to the source from now on is told as the source's, and at once.
    stack.stop_executor()
    stack.on_server("shop", "ALTER TABLE orders DROP COLUMN customer")
    stack.start_executor()
    told = d.NOT_RUNNING.format("reverse")
    wait(lambda: told in stack.workflow(workflow).workflow_errors, "it is told")
    assert (
        "column 'customer' of table 'orders' is missing on shop/-" in stack.workflow(workflow).workflow_errors
    )
    with stack.store.read() as tx:
        streams = [stream for stream in tx.progress.streams_of([workflow]) if stream.direction == "reverse"]
    assert {stream.state for stream in streams} == {"failed"}
    assert all("is missing on shop/-" in stream.info for stream in streams)
    stack.on_server(
        "shop", "ALTER TABLE orders ADD customer INT NOT NULL AFTER id, ADD KEY by_customer (customer)"
    )
    stack.reaches(workflow, S.SWITCHED_PRIMARIES)
    wait(lambda: told not in stack.workflow(workflow).workflow_errors, "it runs again")


SEQUENCED = (
    "CREATE TABLE items (id BIGINT NOT NULL, account BIGINT NOT NULL, v INT, PRIMARY KEY {key},"
    " KEY (account))"
)
BY_ACCOUNT = {
    "sharded": True,
    "vindexes": {"xxhash": {"type": "xxhash"}},
    "tables": {
        "items": {
            "column_vindexes": [{"column": "account", "name": "xxhash"}],
            "auto_increment": {"column": "id", "sequence": "items_seq"},
        }
    },
}


def sequenced(stack: Stack, key: str) -> None:
    """A sharded keyspace ``source`` whose table gets its ids from a sequence in ``shop``."""
    stack.open()
    stack.run(
        "CREATE TABLE items_seq (id INT PRIMARY KEY, next_id BIGINT, cache BIGINT) COMMENT 'vitess_sequence'",
        "INSERT INTO items_seq VALUES (0, 1, 100)",
    )
    with stack.store.write() as tx:
        sequence = {"tables": {"items_seq": {"type": "sequence"}}}
        tx.keyspaces.update(stack.keyspace("shop").id, vschema=sequence)
    stack.add_keyspace("source", BY_ACCOUNT, shards=2)
    stack.on_server("source", SEQUENCED.format(key=key))
    stack.run("INSERT INTO items (account, v) VALUES (1, 1), (2, 2), (3, 3), (4, 4)", schema="source")


def test_a_key_that_a_sequence_fills_may_move_from_shards_to_shards(stack: Stack) -> None:
    sequenced(stack, "(id)")
    stack.add_keyspace("target", BY_ACCOUNT, shards=2)
    workflow = stack.move("source", "target", ["items"])
    assert stack.reaches(workflow, S.RUNNING, S.ERROR).workflow_errors == ""
    stack.ask(workflow, T.VERIFY_DATA, S.VERIFIED_DATA)
    for trigger, state in ((T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES), (T.REVERSE_TRAFFIC, S.RUNNING)):
        assert stack.ask(workflow, trigger, state).workflow_errors == ""
        stack.run("INSERT INTO items (account, v) VALUES (5, 5), (6, 6)", schema="source")
    found = stack.run("SELECT id, account FROM items", schema="source")
    assert len(found) == len({key for key, _ in found}) == 8


def test_ids_that_nobody_could_give_out_on_the_target_are_refused(stack: Stack) -> None:
    sequenced(stack, "(account, id)")
    stack.add_keyspace("target")
    (told,) = stack.reasons("source", "target", ["items"])
    assert "column id gets its values from a sequence" in told
    assert "not the first column of any key" in told
    stack.on_server("source", "ALTER TABLE items ADD KEY (id)")
    assert stack.reasons("source", "target", ["items"]) == ()
    workflow = stack.move("source", "target", ["items"])
    assert stack.reaches(workflow, S.RUNNING, S.ERROR).workflow_errors == ""
    assert stack.ask(workflow, T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES).workflow_errors == ""
    stack.run("INSERT INTO items (account, v) VALUES (5, 5)", schema="source")
    found = stack.run("SELECT id FROM items", schema="source")
    assert len(found) == len(set(found)) == 5
    stack.on_server("source", "ALTER TABLE items MODIFY id BIGINT NOT NULL DEFAULT 3")
    assert any("has a DEFAULT" in told for told in stack.reasons("source", "target", ["items"]))


def test_tables_with_periods_are_refused(stack: Stack, flavor: Flavor) -> None:
    if flavor is not Flavor.MARIADB:
        pytest.skip("only MariaDB has periods")
    stack.open()
    stack.add_keyspace("target")
    stack.run(
        "CREATE TABLE stays (a INT, b INT, s DATE, e DATE, PERIOD FOR p (s, e),"
        " PRIMARY KEY (a, p WITHOUT OVERLAPS))"
    )
    assert any("application-time period" in told for told in stack.reasons("shop", "target", ["stays"]))
