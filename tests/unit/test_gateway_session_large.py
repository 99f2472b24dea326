"""Answers of several shards that are too large to be held in memory."""

from __future__ import annotations

import pytest

from homeworld.gateway import budget
from homeworld.wire.constants import Status
from homeworld.wire.results import ColumnDefinition, build_result, build_text_row
from tests.support.playbook import CAPABILITIES, Playbook
from tests.unit.test_gateway_session_scatter import BOTH_READY, book

ROWS = "client ERR 1105 in-memory row count exceeded allowed limit of 5"
ASKED = """
>> client QUERY both select 2
<< one QUERY select 2
<< two QUERY select 2
"""
AGAIN = """
>> client QUERY both select 3
<< connect one
>> connected one
<< connect two
>> connected two
<< one QUERY select 3
<< two QUERY select 3
>> one ROWS a
>> two ROWS b
<< client ROWS a,b
"""


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> Playbook:
    monkeypatch.setattr(budget, "MOST_ROWS", 5)
    found = book()
    found.play(BOTH_READY)
    return found


def test_too_many_rows_together_close_the_connections_that_still_send(ready: Playbook) -> None:
    ready.play(
        ASKED
        + f"""
        >> one ROWS a,b,c
        >> two ROWS d,e,f
        << close two
        << {ROWS}
        >> client QUERY select * from a1
        << one QUERY select * from a1
        >> one ROWS 1,2,3,4,5,6,7
        << client ROWS 1,2,3,4,5,6,7
        """
    )


def test_nothing_is_held_beyond_the_limit_while_the_answer_goes_on(ready: Playbook) -> None:
    ready.play(ASKED)
    columns = [ColumnDefinition(b"c", 253).build()]
    rows = [build_text_row((b"x" * 50,))] * 8
    data, _ = build_result(columns, rows, CAPABILITIES, Status.AUTOCOMMIT, 1)
    ready.links["one"].data_received(data[:300])
    assert ready.drain() == []
    ready.links["one"].data_received(data[300:450])
    assert ready.drain() == ["close one"]
    ready.play(
        f"""
        >> two ROWS d
        << close two
        << {ROWS}
        """
        + AGAIN
    )


def test_large_rows_count_by_their_bytes(ready: Playbook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MOST_BYTES", 200)
    ready.play(
        ASKED
        + f"""
        >> one ROWS {"a" * 150},b
        << close one
        >> two ROWS c
        << close two
        << client ERR 1105 in-memory result size exceeded allowed limit of 200 bytes
        """
        + AGAIN
    )


def test_a_transaction_survives_an_answer_that_is_too_large(ready: Playbook) -> None:
    ready.play(
        f"""
        >> client QUERY begin
        << client OK trans
        >> client QUERY insert into a1 values (1)
        << one QUERY begin
        >> one OK trans
        << one QUERY insert into a1 values (1)
        >> one OK trans rows=1
        << client OK trans rows=1
        >> client QUERY both select 2
        << two QUERY begin
        >> two OK trans
        << one QUERY select 2
        << two QUERY select 2
        >> one ROWS a,b,c,d,e,f trans
        >> two ROWS g trans
        << {ROWS}
        >> client QUERY commit
        << one QUERY COMMIT
        >> one OK
        << two QUERY COMMIT
        >> two OK
        << client OK
        """
    )
