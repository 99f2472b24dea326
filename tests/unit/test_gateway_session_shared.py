"""Two keyspaces as schemas of one server: one connection for both, never the wrong schema."""

from __future__ import annotations

from dataclasses import replace

import pytest

from homeworld.gateway.plan import Destination, Footprint, Plan, Scatter, SessionView, Verb
from homeworld.model.topology import TabletType
from tests.support.plain_router import PlainRouter
from tests.support.playbook import Playbook
from tests.unit.test_gateway_session_scatter import ONE, TWO, merged

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


FOUR = (ONE, TWO, Destination("c", "", TabletType.PRIMARY), Destination("d", "", TabletType.PRIMARY))


class FourShards(PlainRouter):
    """``all …`` goes to four shards, two on each server."""

    def _plan(self, sql: bytes, view: SessionView) -> Plan:
        word, _, rest = sql.partition(b" ")
        if word != b"all":
            return super()._plan(sql, view)
        return Scatter(
            tuple((at, rest) for at in FOUR), Footprint(Verb.SELECT, frozenset({("a", "t")})), merged
        )


@pytest.fixture
def four() -> Playbook:
    """Keyspaces c and d besides, on the servers of a and b."""
    book = Playbook(FourShards)
    routes = book.branch.routes
    more = {
        name: replace(routes.keyspaces[like], name=name, shards=(replace(shard, schema=name),))
        for name, like in (("c", "a"), ("d", "b"))
        for shard in routes.keyspaces[like].shards
    }
    routes = replace(routes, keyspaces={**routes.keyspaces, **more})
    book.branch.replace_routes(routes, book.branch.router_for(routes))
    book.session.renew()
    return book


def test_a_server_lost_on_the_way_to_another_schema_leaves_no_other_in_the_wrong_one(four: Playbook) -> None:
    four.play(
        """
        >> client QUERY all select 1
        << connect one
        >> connected one
        << connect two
        >> connected two
        << one QUERY select 1
        << two QUERY select 1
        >> one ROWS a
        >> two ROWS b
        << one INIT_DB c
        << two INIT_DB d
        >> two OK
        >> one lost
        << client ERR 1105 Lost connection to MySQL server during query
        >> client QUERY select * from b1
        << two INIT_DB b
        >> two OK
        << two QUERY select * from b1
        >> two ROWS 1
        << client ROWS 1
        """
    )


def test_a_setting_that_is_refused_behind_a_schema_does_not_hide_it(four: Playbook) -> None:
    four.play(
        """
        >> client QUERY select * from a1
        << connect one
        >> connected one
        << one QUERY select * from a1
        >> one ROWS 1
        << client ROWS 1
        >> client QUERY select * from b1
        << connect two
        >> connected two
        << two QUERY select * from b1
        >> two ROWS 1
        << client ROWS 1
        >> client QUERY set time_zone='Mars/Base'
        << one QUERY set time_zone='Mars/Base'
        >> one OK
        << client OK
        >> client QUERY select * from d.t
        << two INIT_DB d
        << two QUERY set time_zone='Mars/Base'
        >> two OK
        >> two ERR 1298
        << client ERR 1298 sorry
        >> client QUERY set time_zone='+00:00'
        << one QUERY set time_zone='+00:00'
        >> one OK
        << client OK
        >> client QUERY select * from b1
        << two INIT_DB b
        << two QUERY set time_zone='+00:00'
        >> two OK
        >> two OK
        << two QUERY select * from b1
        >> two ROWS 1
        << client ROWS 1
        """
    )
