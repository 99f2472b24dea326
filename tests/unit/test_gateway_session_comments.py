"""Control statements with the comments that frameworks add to every text."""

from __future__ import annotations

import pytest

from homeworld.gateway.router import Router
from homeworld.gateway.transaction import SavepointAct, savepoint_act
from tests.support.playbook import Playbook


@pytest.mark.parametrize(
    ("sql", "kind", "name"),
    [
        ("SAVEPOINT a", "set", "a"),
        ("savepoint `A b` ;", "set", "a b"),
        ("SAVEPOINT s1_x2 /*traceparent='00-0a'*/", "set", "s1_x2"),
        ("/* app:shop */ SAVEPOINT a -- view\n", "set", "a"),
        ("ROLLBACK/**/TO a # why", "back", "a"),
        ("rollback work to savepoint a", "back", "a"),
        ("/*x*/ RELEASE /*y*/ SAVEPOINT /*z*/ `a`", "release", "a"),
    ],
)
def test_savepoints_are_read_past_comments(sql: str, kind: str, name: str) -> None:
    assert savepoint_act(sql.encode()) == SavepointAct(kind, name)


@pytest.mark.parametrize("sql", ["ROLLBACK", "ROLLBACK /* TO a */", "SET a", "RELEASE a", "", "/*x*/"])
def test_what_is_no_savepoint(sql: str) -> None:
    assert savepoint_act(sql.encode()) is None


def test_a_transaction_with_comments_everywhere() -> None:
    book = Playbook(Router)
    for keyspace in "ab":
        book.branch.tracker.loaded(keyspace, keyspace, [], [])
    book.play(
        """
        >> client QUERY /*c*/ SET TRANSACTION READ WRITE /*c*/
        << client OK
        >> client QUERY BEGIN /*c*/
        << client OK trans
        >> client QUERY /*c*/ SAVEPOINT a /*c*/
        << client OK trans
        >> client QUERY insert into a1 values (1) /*c*/
        << connect one
        >> connected one
        << one QUERY /*c*/ SET TRANSACTION READ WRITE /*c*/
        << one QUERY BEGIN /*c*/
        << one QUERY /*c*/ SAVEPOINT a /*c*/
        >> one OK
        >> one OK trans
        >> one OK trans
        << one QUERY insert into a1 values (1) /*c*/
        >> one OK trans rows=1
        << client OK trans rows=1
        >> client QUERY /*c*/ ROLLBACK TO SAVEPOINT a /*c*/
        << one QUERY /*c*/ ROLLBACK TO SAVEPOINT a /*c*/
        >> one OK trans
        << client OK trans
        >> client QUERY RELEASE SAVEPOINT a /*c*/
        << one QUERY RELEASE SAVEPOINT a /*c*/
        >> one OK trans
        << client OK trans
        >> client QUERY COMMIT /*c*/ AND CHAIN /*c*/
        << one QUERY COMMIT /*c*/ AND CHAIN /*c*/
        >> one OK trans
        << client OK trans
        >> client QUERY /*c*/ LOCK TABLES a1 WRITE
        << one QUERY COMMIT
        >> one OK
        << one QUERY /*c*/ LOCK TABLES a1 WRITE
        >> one OK
        << client OK
        >> client QUERY /*c*/ UNLOCK TABLES
        << one QUERY /*c*/ UNLOCK TABLES
        >> one OK
        << client OK
        >> hold h a.a1
        << held h
        """
    )
