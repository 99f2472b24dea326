"""Several statements in one text while tables are held."""

from __future__ import annotations

from tests.support.playbook import Playbook


def test_a_statement_that_waits_for_a_hold_is_not_what_the_hold_waits_for() -> None:
    """The hold begins while the one before it in the same text is under way."""
    Playbook().play(
        """
        >> client QUERY set @x=1; update t1 set n=1; update t1 set n=2
        << connect one
        >> connected one
        << one QUERY set @x=1
        >> one OK
        << one QUERY update t1 set n=1
        << client OK more
        >> hold h a.t1
        >> one OK rows=1
        << held h
        << wait h
        << client OK more rows=1
        >> move t1 b
        >> release h
        << connect two
        >> connected two
        << two QUERY set @x=1
        >> two OK
        << two QUERY update t1 set n=2
        >> two OK rows=1
        << client OK rows=1
        """
    )
