"""The walker finds the end of every answer, however it is cut; joined answers look like one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeworld.model.errors import MalformedPacketError
from homeworld.wire.client import DEFAULT_CAPABILITIES, Collector
from homeworld.wire.constants import Cap, Status
from homeworld.wire.packets import PacketBuffer, frame
from homeworld.wire.renumber import Renumber
from homeworld.wire.responses import Expect, Walker
from homeworld.wire.results import (
    ColumnDefinition,
    Ok,
    build_eof,
    build_err,
    build_result,
    build_text_row,
    end_of_rows,
)

NEW = DEFAULT_CAPABILITIES
OLD = DEFAULT_CAPABILITIES & ~Cap.DEPRECATE_EOF
TRACKED = DEFAULT_CAPABILITIES | Cap.SESSION_TRACK
MORE = int(Status.AUTOCOMMIT | Status.MORE_RESULTS_EXISTS)
PLAIN = int(Status.AUTOCOMMIT)

values = st.one_of(
    st.none(), st.binary(max_size=40), st.sampled_from([b"\xfe", b"\xff" * 9, b"\x00", b"\xfb"])
)
rows = st.integers(1, 4).flatmap(lambda width: st.lists(st.tuples(*[values] * width), max_size=12))


@st.composite
def answers(draw: st.DrawFn, capabilities: int, status: int) -> bytes:
    """One whole result: rows, OK or (only as the last) an error in place of a row."""
    kind = draw(st.sampled_from(["rows", "ok"] + (["error", "late error"] if status == PLAIN else [])))
    if kind == "ok":
        ok = Ok(
            draw(st.integers(0, 2**40)), draw(st.integers(0, 2**40)), status, info=draw(st.binary(max_size=9))
        )
        return frame(ok.build(capabilities), 1)
    if kind == "error":
        return frame(build_err(1064, "42000", "x"), 1)
    content = draw(rows)
    width = len(content[0]) if content else draw(st.integers(1, 300))
    columns = [ColumnDefinition(b"c" * draw(st.integers(1, 20)), 253).build()] * width
    data, sequence = build_result(columns, map(build_text_row, content), capabilities, status, 1)
    if kind == "late error":
        end = frame(end_of_rows(capabilities, status), sequence - 1)
        return data.removesuffix(end) + frame(build_err(1317, "70100", "x"), sequence - 1)
    return data


@st.composite
def streams(draw: st.DrawFn) -> tuple[int, bytes]:
    capabilities = draw(st.sampled_from([NEW, OLD, TRACKED]))
    results = [draw(answers(capabilities, MORE)) for _ in range(draw(st.integers(0, 2)))]
    return capabilities, b"".join(results) + draw(answers(capabilities, PLAIN))


@given(streams(), st.data())
@settings(max_examples=300)
def test_the_end_is_found_wherever_chunks_are_cut(stream: tuple[int, bytes], data: st.DataObject) -> None:
    capabilities, answer = stream
    walker = Walker(capabilities)
    walker.begin(Expect.RESULT)
    rest = answer + b"\x05\0\0\0next answer"
    done = 0
    while True:
        cut = data.draw(st.integers(1, min(len(rest), 60)))
        end = walker.feed(rest[:cut])
        if end >= 0:
            done += end
            break
        done += cut
        rest = rest[cut:]
    assert done == len(answer)
    assert walker.idle
    assert walker.status == PLAIN or walker.error


def whole(walker: Walker, answer: bytes, expect: int) -> None:
    walker.begin(expect)
    assert walker.feed(answer) == len(answer)
    walker.begin(expect)
    for number, byte in enumerate(answer, 1):
        assert walker.feed(bytes((byte,))) == (1 if number == len(answer) else -1)


@pytest.mark.parametrize("parameters", [0, 1, 3])
@pytest.mark.parametrize("columns", [0, 2])
@pytest.mark.parametrize("capabilities", [NEW, OLD])
def test_answers_to_prepare(capabilities: int, parameters: int, columns: int) -> None:
    head = b"\0" + (77).to_bytes(4, "little") + bytes((columns, 0, parameters, 0, 0, 0, 0))
    packets = [head]
    for count in (parameters, columns):
        packets += [ColumnDefinition(b"?", 253).build()] * count
        if count and capabilities == OLD:
            packets.append(build_eof(PLAIN))
    walker = Walker(capabilities)
    whole(walker, b"".join(frame(packet, at) for at, packet in enumerate(packets, 1)), Expect.PREPARE)
    assert walker.prepared == head
    whole(walker, frame(build_err(1146, "42S02", "no"), 1), Expect.PREPARE)
    assert walker.error


@pytest.mark.parametrize("capabilities", [NEW, OLD])
def test_other_answers(capabilities: int) -> None:
    walker = Walker(capabilities)
    fields = [ColumnDefinition(b"a", 3).build()] * 2 + [end_of_rows(capabilities, PLAIN)]
    whole(walker, b"".join(frame(packet, at) for at, packet in enumerate(fields, 1)), Expect.FIELDS)
    whole(walker, frame(b"Uptime: 1", 1), Expect.LONE)
    fetched = [b"\0\0\x05"] * 3 + [end_of_rows(capabilities, PLAIN | Status.LAST_ROW_SENT)]
    whole(walker, b"".join(frame(packet, at) for at, packet in enumerate(fetched, 1)), Expect.ROWS)
    assert walker.status & Status.LAST_ROW_SENT
    whole(walker, frame(build_eof(PLAIN), 1), Expect.RESULT)  # COM_SET_OPTION


@pytest.mark.parametrize("capabilities", [NEW, OLD])
def test_a_cursor_ends_the_answer_behind_the_columns(capabilities: int) -> None:
    status = PLAIN | Status.CURSOR_EXISTS
    packets = [b"\1", ColumnDefinition(b"a", 3).build(), end_of_rows(capabilities, status)]
    walker = Walker(capabilities)
    whole(walker, b"".join(frame(packet, at) for at, packet in enumerate(packets, 1)), Expect.RESULT)
    assert walker.status & Status.CURSOR_EXISTS


@pytest.mark.parametrize("capabilities", [NEW, OLD])
@pytest.mark.parametrize("size", [0xFFFFFF - 9, 0xFFFFFF, 2 * 0xFFFFFF - 9])
def test_rows_of_16_mb_and_more(capabilities: int, size: int) -> None:
    # The parts behind the first begin with what elsewhere would be an end or an error.
    value = b"\xff" * size
    answer, _ = build_result(
        [ColumnDefinition(b"b", 252).build()],
        [build_text_row((value,)), build_text_row((b"x",))],
        capabilities,
        PLAIN,
        1,
    )
    walker = Walker(capabilities)
    walker.begin()
    ends = [walker.feed(answer[at : at + 0x100000]) for at in range(0, len(answer), 0x100000)]
    assert all(end == -1 for end in ends[:-1])
    assert ends[-1] == (len(answer) % 0x100000 or 0x100000)


def test_local_infile_interrupts_the_answer() -> None:
    walker = Walker(NEW)
    walker.begin()
    request = frame(b"\xfb/file", 1)
    assert walker.feed(request) == len(request)
    assert walker.local_infile
    walker.file_sent()
    assert not walker.local_infile
    ok = frame(Ok(3).build(NEW), 3)
    assert walker.feed(ok) == len(ok)
    assert Ok.parse(walker.ok, NEW).affected_rows == 3


@pytest.mark.parametrize("cuts", [[], [11], [11, 28], [16], [20], [24]])
def test_an_empty_definition_is_refused_wherever_it_is_cut(cuts: list[int]) -> None:
    # A PREPARE of 256 parameters, behind whose answer come packets without a byte.
    data = bytes.fromhex("0c000001002a00000000000001002a00") + b"\0" * 14
    walker = Walker(OLD)
    walker.begin(Expect.PREPARE)

    def feed() -> None:
        for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            assert walker.feed(data[begin:end]) == -1

    with pytest.raises(MalformedPacketError):
        feed()


@pytest.mark.parametrize("cut", range(0, 100, 7))
def test_an_empty_definition_of_a_short_result_is_refused_wherever_it_is_cut(cut: int) -> None:
    # The second of three definitions has bytes too many; what follows is read as packets, one without a byte.
    data = bytes.fromhex(
        "0100000103"
        "17000002036465660000000163000c3f0000040000fd0000000000"
        "17000003036465660000000163c4fbfe09000c3f0000040000fd0000000000"
        "17000004036465660000000163000c3f0000040000fd0000000000"
        "07000005fe000002000000"
    )
    walker = Walker(NEW)
    walker.begin()

    def feed() -> None:
        if cut:
            assert walker.feed(data[:cut]) == -1
        walker.feed(data[cut:])

    with pytest.raises(MalformedPacketError):
        feed()


def test_bytes_nobody_asked_for() -> None:
    walker = Walker(NEW)
    with pytest.raises(MalformedPacketError):
        walker.feed(frame(b"\0\0\0\2\0\0\0"))


@given(st.binary(max_size=300), st.sampled_from(list(Expect)), st.sampled_from([NEW, OLD]))
def test_garbage_from_a_server_is_an_error_and_nothing_worse(
    data: bytes, expect: Expect, capabilities: int
) -> None:
    walker = Walker(capabilities)
    walker.begin(expect)
    try:
        end = walker.feed(data)
    except MalformedPacketError:
        return
    assert -1 <= end <= len(data)


@given(st.sampled_from([NEW, OLD]), st.data())
def test_joined_answers_are_numbered_on_and_flagged(capabilities: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 3))
    joined = Renumber(capabilities)
    out = b""
    for number in range(count):
        answer = data.draw(answers(capabilities, PLAIN).filter(lambda found: found[4] != 0xFF))
        joined.begin(more=number < count - 1)
        while answer:
            cut = data.draw(st.integers(1, len(answer)))
            out += joined.feed(answer[:cut])
            answer = answer[cut:]
    numbers = PacketBuffer()
    numbers.feed(out)
    sequence = 1
    while numbers.next() is not None:
        sequence += 1
        assert numbers.sequence == sequence & 0xFF
    walker = Walker(capabilities)
    walker.begin()
    assert walker.feed(out) == len(out) or walker.error


@given(rows, st.sampled_from([NEW, OLD]))
def test_a_collector_reads_what_was_built(content: list[tuple[bytes | None, ...]], capabilities: int) -> None:
    width = len(content[0]) if content else 2
    columns = [ColumnDefinition(b"c", 253).build()] * width
    data, _ = build_result(columns, map(build_text_row, content), capabilities, PLAIN, 1)
    collector = Collector(capabilities)
    collector.feed(data)
    assert collector.done
    assert collector.text_rows() == content
