"""Two keyspaces as schemas of one server: one connection for both, never the wrong schema."""

from __future__ import annotations

import pytest

from tests.support.playbook import Playbook

SWITCHED = """
>> client PREPARE insert into t1 values (1)
<< connect one
>> connected one
<< one STMT_PREPARE insert into t1 values (1)
>> one PREPARED 0 0
<< client PREPARED 1
>> client EXECUTE 1
<< one STMT_EXECUTE 11
>> one OK rows=1
<< client OK rows=1
"""

ELSEWHERE = """
<< one STMT_PREPARE insert into t1 values (1)
>> one PREPARED 0 0
<< one STMT_EXECUTE 12
>> one OK rows=1
<< client OK rows=1
>> client EXECUTE 1
<< one STMT_EXECUTE 12
>> one OK rows=1
<< client OK rows=1
"""


def test_a_statement_prepared_in_the_source_s_schema_never_runs_there_after_a_switch() -> None:
    """Its first execution after the switch fails half-way, and a text has made the new place ready since."""
    book = Playbook(shared=True)
    book.play(SWITCHED)
    book.play(
        """
        >> client QUERY begin
        << client OK trans
        >> move t1 b
        """
    )
    book.session.transaction.lost = "a server was lost"
    book.play(
        """
        >> client EXECUTE 1
        << client ERR 1105 a server was lost; ROLLBACK to go on
        >> client QUERY rollback
        << client OK
        >> client QUERY select * from t1
        << one INIT_DB b
        >> one OK
        << one QUERY select * from t1
        >> one ROWS 1
        << client ROWS 1
        >> client EXECUTE 1
        """
        + ELSEWHERE
    )


@pytest.mark.parametrize("back", [False, True])
def test_what_was_sent_on_before_a_use_is_looked_at_again(back: bool) -> None:
    book = Playbook(shared=True)
    book.play(
        SWITCHED
        + """
        >> client EXECUTE 1
        << one STMT_EXECUTE 11
        >> one OK rows=1
        << client OK rows=1
        >> client QUERY select * from b1
        << one INIT_DB b
        >> one OK
        << one QUERY select * from b1
        >> one ROWS 1
        << client ROWS 1
        """
    )
    if back:
        book.play(
            """
            >> client EXECUTE 1
            << one INIT_DB a
            >> one OK
            << one STMT_EXECUTE 11
            >> one OK rows=1
            << client OK rows=1
            """
        )
    else:
        book.play(">> move t1 b\n>> client EXECUTE 1" + ELSEWHERE)
