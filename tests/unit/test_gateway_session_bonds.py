"""Sessions that have left something on one server and go on at another."""

from __future__ import annotations

import pytest

from homeworld.gateway.bonds import use_of
from tests.support.playbook import Playbook

READY = """
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
"""
REFUSED = (
    "<< client ERR 1105 this session keeps state (variables, temporary tables, locks) on another server than "
    "the one this statement goes to; connect anew"
)


def on(server: str, sql: str) -> str:
    return f"""
        >> client QUERY {sql}
        << {server} QUERY {sql}
        >> {server} ROWS 1
        << client ROWS 1
        """


def refused(sql: str) -> str:
    return f"\n>> client QUERY {sql}\n{REFUSED}\n"


@pytest.fixture
def book() -> Playbook:
    found = Playbook()
    found.play(READY)
    return found


def test_numbering_rows_binds_to_no_server(book: Playbook) -> None:
    for server, table in (("one", "t1"), ("one", "t1"), ("two", "t1"), ("two", "t1")):
        if server == "two":
            book.play(">> move t1 b")
        book.play(on(server, f"select @n:=@n+1 from {table}, (select @n:=0) r"))
        book.play(on(server, "select sql_calc_found_rows 1, @n:=7 from t1"))


def test_a_value_that_was_left_elsewhere_is_never_read_as_null(book: Playbook) -> None:
    book.play(
        on("one", "select max(id) into @m from a1")
        + on("one", "select * from a1 where id=@m")
        + refused("select * from b1 where id=@m")
        + refused("select @m:=@m+1 from b1")
        + on("two", "select @m:=3 from b1")
        + on("two", "select * from b1 where id=@m")
        + refused("select * from a1 where id=@M")
    )


def test_a_set_gives_a_value_everywhere_again(book: Playbook) -> None:
    book.play(
        on("one", "select @m:=max(id) from a1")
        + """
        >> client QUERY set @m=4
        << one QUERY set @m=4
        >> one OK
        << client OK
        >> client QUERY select @m from b1
        << two QUERY set @m=4
        >> two OK
        << two QUERY select @m from b1
        >> two ROWS 4
        << client ROWS 4
        """
    )


def test_a_set_that_reads_such_a_value_stays_where_it_is(book: Playbook) -> None:
    book.play(
        on("two", "select @m:=max(id) from b1")
        + """
        >> client QUERY set @k=@m+1
        << two QUERY set @k=@m+1
        >> two OK
        << client OK
        """
        + on("two", "select @k from b1")
        + refused("select @k from a1")
        + """
        >> client QUERY set sort_buffer_size=@m
        << client ERR 1235 VT12001: unsupported: SET of a setting by a variable that a statement has assigned
        """
    )


def test_locks_bind_until_they_are_given_up(book: Playbook) -> None:
    book.play(
        """
        >> client QUERY lock tables b1 write
        << two QUERY lock tables b1 write
        >> two OK
        << client OK
        """
        + refused("create temporary table a3 (id int)")
        + """
        >> client QUERY unlock tables
        << two QUERY unlock tables
        >> two OK
        << client OK
        >> client QUERY create temporary table a3 (id int)
        << one QUERY create temporary table a3 (id int)
        >> one OK
        << client OK
        """
        + refused("create temporary table b3 (id int)")
        + on("two", "select @n:=1 from b1")
        + "\n>> one lost\n<< hang up\n<< give back two\n<< gone"
    )


@pytest.mark.parametrize(
    ("sql", "reads", "sets"),
    [
        ("select @a, @@version, '@b', `@c`", "a", ""),
        ("select @A:=1, @`b` := @c", "c", "a b"),
        ("select @a:=0+@b", "b", "a"),
        ("select @a:=1+@a", "a", "a"),
        ("select 1, 2 into @a, @b", "", "a b"),
        ("insert into t values (@a, @b)", "a b", ""),
        ("load data local infile 'x' into table t (a, @b) set c=@b+@d", "d", "b"),
        ("call p(@a)", "a", "a"),
        ("set @a=@b, @c:=concat(@d, @e)", "b d e", "a c"),
        ("/* @x */ select @a -- @y", "a", ""),
    ],
)
def test_which_variables_a_statement_reads_and_sets(sql: str, reads: str, sets: str) -> None:
    use = use_of(sql.encode())
    assert use.reads == frozenset(reads.encode().split())
    assert use.sets == frozenset(sets.encode().split())


def test_what_only_one_connection_knows_is_not_repeated_on_another(book: Playbook) -> None:
    book.play(
        on("two", "select * from b1")
        + """
        >> client QUERY set @n = row_count()
        << two QUERY set @n = row_count()
        >> two OK
        << client OK
        """
        + on("two", "select @n from b1")
        + refused("select @n from a1")
        + """
        >> client QUERY set @l = get_lock('x', 1)
        << one QUERY set @l = get_lock('x', 1)
        >> one OK
        << client OK
        """
        + refused("select get_lock('y', 1) from b1")
        + """
        >> client QUERY set sort_buffer_size = row_count()
        << client ERR 1235 VT12001: unsupported: SET of a setting by what only one connection knows
        """
    )


def test_a_set_that_is_refused_has_one_answer(book: Playbook) -> None:
    book.play(
        on("one", "select max(id) into @m from a1")
        + on("two", "select max(id) into @n from b1")
        + refused("set @k=@m+@n")
        + on("two", "select @n from b1")
    )
