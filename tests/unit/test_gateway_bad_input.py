"""Bad input, packet by packet: what a random storm has found, or could find, said as transcripts.

Also a sample of those storms (``make fuzz-gateway`` plays more).
"""

from __future__ import annotations

import pytest

from homeworld.gateway.session import Phase, Wait
from homeworld.wire.packets import PacketBuffer, frame
from homeworld.wire.results import ColumnDefinition, Ok, build_result, build_text_row
from tests.fuzz import gateway as fuzz
from tests.support.playbook import CAPABILITIES, Playbook
from tests.unit.test_gateway_session import FIRST

BIG = "client ERR 1153 Got a packet bigger than 'max_allowed_packet' bytes"


def test_a_sample_of_storms() -> None:
    played, failures = fuzz.play(iter(range(900)))
    assert not failures, failures[0]
    assert played == 900 * len(fuzz.KINDS)


# ------------------------------------------------------------------------ packets


@pytest.mark.parametrize("number", [1, 2, 255])
def test_a_command_that_does_not_begin_at_0_ends_the_connection(number: int) -> None:
    Playbook().play(
        f"""
        >> client BYTES {frame(bytes([14]), number).hex()}
        << hang up when it has read
        << gone
        << client ERR 1156 Got packets out of order
        """
    )


def test_parts_of_a_large_command_have_to_be_numbered() -> None:
    book = Playbook()
    book.session.max_packet = 1 << 26
    book.session._inbox.limit = 1 << 26  # type: ignore[reportPrivateUsage]
    statement = b"\x03select '" + b"x" * 0xFFFFFF + b"' from a1"
    right = frame(statement)
    wrong = bytearray(right)
    wrong[4 + 0xFFFFFF + 3] = 7
    book.session.client_data(bytes(wrong))
    assert book.drain() == [
        "hang up when it has read",
        "gone",
        "client ERR 1156 Got packets out of order",
    ]


def test_an_announced_gigabyte_is_refused_before_it_is_there() -> None:
    book = Playbook()  # takes commands of 16 MB
    announced = frame(b"\x03" + b" " * 0xFFFFFF)
    for at in range(0, 4 + 0xFFFFFF, 1 << 16):
        book.session.client_data(announced[at : min(at + (1 << 16), 4 + 0xFFFFFF)])
    held = len(book.session._inbox)  # type: ignore[reportPrivateUsage]
    assert (held, book.drain()) == (0xFFFFFF, [])
    # Another 60 such parts are read past, and none is kept.
    for number in range(1, 61):
        book.session.client_data(b"\xff\xff\xff" + bytes([number]))
        for _ in range(255):
            book.session.client_data(announced[: 1 << 16])
            assert len(book.session._inbox) == 0  # type: ignore[reportPrivateUsage]
        book.session.client_data(announced[: 0xFFFFFF - (255 << 16)])
    assert book.session.waits_for[0] is Wait.REST
    assert book.drain() == []
    book.session.client_data(b"\2\0\0\x3d" + b"xx" + frame(b"\x0e"))
    assert book.drain() == [BIG, "client OK"]
    assert book.session.waits_for[0] is Wait.COMMAND


@pytest.mark.parametrize("inside", [b"\x0e", b"\x03drop table a1"])
def test_what_is_read_past_is_never_taken_for_a_command(inside: bytes) -> None:
    """However the network cuts it: part of a value that is too large may look like a packet."""
    book = Playbook()
    book.session._inbox.limit = 100  # type: ignore[reportPrivateUsage]
    value = frame(inside)
    whole = frame(b"\x03insert into a1 values ('" + b"x" * 200 + value + b"')")
    at = whole.index(value, 4)
    for piece in (whole[:at], value, whole[at + len(value) :]):
        assert book.drain() == []
        book.session.client_data(piece)
    assert book.drain() == [BIG]
    book.event("client PING")
    assert book.drain() == ["client OK"]


@pytest.mark.parametrize("length", [0xFFFFFE, 0xFFFFFF, 0x1000000, 2 * 0xFFFFFF])
def test_sixteen_megabytes_and_their_neighbours(length: int) -> None:
    buffer = PacketBuffer(1 << 26)
    payload = b"x" * length
    data = frame(payload)
    for at in range(0, len(data), 1 << 20):
        assert buffer.next(0) is None
        buffer.feed(data[at : at + (1 << 20)])
    assert buffer.next(0) == payload
    assert len(buffer) == 0


def test_an_empty_packet_is_no_command() -> None:
    Playbook().play(
        """
        >> client BYTES 00000000
        << client ERR 1047 Unknown command
        >> client PING
        << client OK
        """
    )


# ------------------------------------------------------------------------ clients that do not read, or stop


def test_who_does_not_read_is_served_no_further() -> None:
    book = Playbook()
    book.play(FIRST)
    pings = frame(b"\x0e") * 1000
    book.session.client_full(full=True)
    book.session.client_data(pings)
    assert book.drain() == []
    assert book.session.waits_for[0] is Wait.READER
    more = frame(b"\x0e" + b" " * 8000) * 200
    book.session.client_data(more)
    assert book.drain() == ["pause client"]
    book.session.client_full(full=False)
    found = book.drain()
    assert found == ["resume client", *["client OK"] * 1200]


def test_a_server_that_answers_before_it_has_read_all() -> None:
    """As one does to whom a packet is too large; its client was told to wait meanwhile."""
    book = Playbook()
    book.play(FIRST)
    for end in ("lost", "read"):
        book.event("client QUERY insert into a1 values (1)")
        assert book.drain() == ["one QUERY insert into a1 values (1)"]
        link = book.links["one"]
        link.pause_writing()
        assert book.drain() == ["pause client"]
        book.event("one ERR 1153")
        assert book.drain() == ["client ERR 1153 sorry"]
        if end == "lost":
            book.event("one lost")
            assert book.drain() == ["resume client"]
            book.play(FIRST)
        else:
            link.resume_writing()
            assert book.drain() == ["resume client"]


def test_another_servers_answer_is_held_back_as_well() -> None:
    book = Playbook()
    book.play(
        """
        >> client QUERY select * from a1; select * from b1
        << connect one
        >> connected one
        << one QUERY select * from a1
        """
    )
    book.session.client_full(full=True)
    assert book.drain() == ["pause one"]
    book.play(
        """
        >> one ROWS 1
        << connect two
        << client ROWS 1 more
        >> connected two
        << pause two
        << two QUERY select * from b1
        """
    )
    # The first link stays held back until the client has read; the second must not make up for it.
    book.session.client_full(full=False)
    assert book.drain() == ["resume one", "resume two"]


def test_what_a_session_waits_for() -> None:
    book = Playbook()
    session = book.session
    assert session.waits_for == (Wait.COMMAND, 0)
    session.client_data(b"\x05\0\0\0\x03")
    assert session.waits_for == (Wait.REST, 5)
    session.client_data(b"se")
    assert session.waits_for == (Wait.REST, 7)
    session.client_data(b"t")
    session.client_data(b"x")
    assert session.waits_for[0] is Wait.SERVER
    book.drain()


def test_a_file_that_stops_is_seen() -> None:
    book = Playbook()
    book.play(FIRST)
    book.event("client QUERY load data local infile 'x' into table a1")
    book.links["one"].data_received(frame(b"\xfbx", 1))
    wait, before = book.session.waits_for
    assert wait is Wait.REST
    book.session.client_data(b"\3\0\0\2ab")
    wait, now = book.session.waits_for
    assert (wait, now) == (Wait.REST, before + 6)


def test_a_server_that_asks_for_the_file_of_a_client_that_is_gone() -> None:
    book = Playbook()
    book.play(
        FIRST
        + """
        >> client QUERY load data local infile 'x' into table a1
        << one QUERY load data local infile 'x' into table a1
        >> client gone
        << hang up
        """
    )
    book.links["one"].data_received(frame(b"\xfbx", 1))
    assert book.drain() == ["one FILE END"]
    assert book.session.phase is Phase.CLOSED
    book.links["one"].data_received(frame(Ok().build(CAPABILITIES), 3))
    assert book.drain() == ["give back one", "gone"]


# ------------------------------------------------------------------------ prepared statements


def _prepared(parameters: int) -> Playbook:
    book = Playbook()
    book.play(
        f"""
        >> client PREPARE select * from a1 where id = ?
        << connect one
        >> connected one
        << one STMT_PREPARE select * from a1 where id = ?
        >> one PREPARED {parameters} 0
        << client PREPARED 1
        """
    )
    return book


MALFORMED = "client ERR 1835 Malformed communication packet."


@pytest.mark.parametrize("size", [1, 4, 5, 6, 9])
def test_an_execution_cut_short(size: int) -> None:
    book = _prepared(0)
    book.session.client_data(frame((b"\x17\1\0\0\0" + bytes(5))[:size]))
    assert book.drain() == [MALFORMED]


@pytest.mark.parametrize("block", ["", "00", "0001", "000108", "00010800"])
def test_a_parameter_block_cut_short_reaches_no_server_as_another(block: str) -> None:
    book = _prepared(1)
    book.session.client_data(frame(b"\x17\1\0\0\0\0\1\0\0\0" + bytes.fromhex(block)))
    (only,) = book.drain()
    # Where the types are there the server judges the rest.
    assert only == ("one STMT_EXECUTE 11" if len(block) == 8 else MALFORMED)


def test_types_that_were_never_bound() -> None:
    book = _prepared(1)
    book.session.client_data(frame(b"\x17\1\0\0\0\0\1\0\0\0" + b"\0\0" + bytes(8)))
    assert book.drain() == ["client ERR 1210 Incorrect arguments to mysqld_stmt_execute"]


def test_an_execution_whose_values_were_too_long_is_never_sent_without_them() -> None:
    book = _prepared(1)
    head = b"\x17\1\0\0\0\0\1\0\0\0\0"
    for block in (b"\1\x08\0" + bytes(8), b"\0" + bytes(8)):
        book.session.client_data(frame(head + block))
        assert book.drain() == ["one STMT_EXECUTE 11"]
        book.event("one OK")
        assert book.drain() == ["client OK"]
    book.session.max_packet = 1000
    for _ in range(2):
        book.session.client_data(frame(b"\x18\1\0\0\0\0\0" + b"x" * 600))
    book.session.client_data(frame(head + b"\0" + bytes(8)))
    assert book.drain() == [BIG]
    assert book.session.long_bytes == 0
    book.session.client_data(frame(head + b"\0" + bytes(8)))
    assert book.drain() == ["one STMT_EXECUTE 11"]


def test_values_sent_ahead_are_bounded_for_all_statements_together() -> None:
    book = _prepared(1)
    book.session.max_packet = 1000
    book.play(
        """
        >> client PREPARE select * from a2 where id = ?
        << one STMT_PREPARE select * from a2 where id = ?
        >> one PREPARED 1 0
        << client PREPARED 2
        """
    )
    for number in (1, 2):
        book.session.client_data(frame(b"\x18" + bytes([number]) + b"\0\0\0\0\0" + b"x" * 600))
    assert book.session.long_bytes == 600
    book.event("client EXECUTE 2")
    assert book.drain() == [BIG]
    book.event("client CLOSE 1")
    assert book.session.long_bytes == 0


def test_a_fetch_cut_short() -> None:
    book = _prepared(0)
    book.session.client_data(frame(b"\x1c\1\0\0\0\1"))
    assert book.drain() == [MALFORMED]


# ------------------------------------------------------------------------ servers that answer wrongly


def _answer(rows: list[tuple[bytes | None, ...]], columns: int) -> bytes:
    definitions = [ColumnDefinition(b"c", 253).build()] * columns
    return build_result(definitions, [build_text_row(row) for row in rows], CAPABILITIES, 2, 1)[0]


@pytest.mark.parametrize(
    ("rows", "columns"),
    [([], 3), ([(b"a",)], 1), ([(b"a", b"b", b"c")] * 2, 3)],
)
def test_a_question_of_the_gateways_own_that_is_answered_otherwise(
    rows: list[tuple[bytes | None, ...]], columns: int
) -> None:
    book = Playbook()
    book.play(
        FIRST
        + """
        >> client QUERY set character_set_results = latin1
        << one QUERY set character_set_results = latin1
        >> one OK
        << one QUERY SELECT @@character_set_client, @@character_set_connection, @@sql_mode
        << client OK
        """
    )
    book.links["one"].data_received(_answer(rows, columns))
    (said,) = book.drain()
    assert "other rows or columns" in said
    assert book.session.phase is Phase.IDLE


def _first(packet: bytes) -> bytes:
    return frame(packet, 1)


WRONG = {
    "an empty packet": _first(b""),
    "no columns": _first(b"\xfc\0\0"),
    "too many columns": _first(b"\xfd\1\1\1"),
    "a count with more behind it": _first(b"\1\1"),
    "an OK cut short": _first(b"\0\0"),
    "an OK whose count runs past its end": _first(b"\0\xfe\1\0"),
    "bytes behind the answer": _first(Ok().build(CAPABILITIES)) + b"\0",
    "an OK of sixteen megabytes": b"\xff\xff\xff\1" + b"\0" * 0xFFFFFF,
}


@pytest.mark.parametrize("answer", list(WRONG.values()), ids=list(WRONG))
def test_what_is_no_answer_ends_the_servers_connection_alone(answer: bytes) -> None:
    book = Playbook()
    book.play(FIRST)
    book.event("client QUERY select * from a1")
    book.drain()
    for at in range(0, len(answer), 1 << 20):
        if book.links["one"].alive:
            book.links["one"].data_received(answer[at : at + (1 << 20)])
    assert book.drain()[0] == "close one"
    if book.session.phase is Phase.IDLE:
        book.play(FIRST)


def test_a_prepared_statement_of_one_byte() -> None:
    book = Playbook()
    book.play(FIRST)
    book.event("client PREPARE select * from a1")
    book.drain()
    book.links["one"].data_received(_first(b"\1") + _first(b"\0" * 20))
    assert book.drain() == ["close one", MALFORMED]
