"""Requests and answers in both forms: they say the same, and anything else is an error."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeworld.edge import asked, protobuf, told
from homeworld.edge.codes import Code, Fault
from homeworld.edge.fields import Field, VitessType
from homeworld.edge.messages import BindVariable, Result, SessionTold, Shown, Told, Workload
from homeworld.edge.protobuf import MessageError
from tests.support import edge

NAMES = st.text(max_size=10)
FIELDS = st.builds(
    Field, NAMES, st.sampled_from(VitessType), NAMES, NAMES, NAMES, NAMES, st.integers(0, 2**32 - 1),
    st.integers(0, 65535), st.integers(0, 255), st.integers(0, 65535), NAMES,
)  # fmt: skip
ROWS = st.lists(st.one_of(st.none(), st.binary(max_size=40)), min_size=1, max_size=5).map(
    lambda row: (
        [-1 if value is None else len(value) for value in row],
        b"".join(value or b"" for value in row),
    )
)
RESULTS = st.builds(
    Result, st.lists(FIELDS, max_size=3).map(tuple), st.lists(ROWS, max_size=3).map(tuple),
    st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), NAMES,
)  # fmt: skip
SHOWN = st.builds(
    Shown, st.booleans(), st.booleans(), NAMES, st.sampled_from(Workload), st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1), st.integers(-1, 2**63 - 1), NAMES,
)  # fmt: skip
SESSIONS = st.builds(SessionTold, st.binary(min_size=1, max_size=20), SHOWN)
FAULTS = st.builds(Fault, st.sampled_from(Code), NAMES)


@given(st.one_of(st.none(), RESULTS), st.one_of(st.none(), SESSIONS), st.one_of(st.none(), FAULTS))
def test_both_forms_of_an_answer_say_the_same(
    result: Result | None, session: SessionTold | None, fault: Fault | None
) -> None:
    answer = Told(session=session, result=result, fault=fault, timing=0.25)
    text: dict[str, Any] = json.loads(told.execute_json(answer))
    binary = edge.parse(told.execute_protobuf(answer))
    assert text["timing"] == binary[4][0] == 0.25
    assert ("result" in text, 2 in binary) == (result is not None,) * 2
    if result is not None:
        one, other = edge.table_of(text["result"]), edge.pb_table(binary[2][0])
        for field in one.fields:
            if "type" in field:
                field["type"] = VitessType[field["type"]].value
            field["name"] = field["name"]
        kept = [{name: value for name, value in field.items() if value} for field in one.fields]
        assert (kept, one.rows, one.affected, one.insert_id) == (
            other.fields, other.rows, other.affected, other.insert_id,
        )  # fmt: skip
    if fault is not None:
        inner = edge.parse(binary[3][0])
        assert text["error"] == {"code": fault.code.name, "message": fault.message}
        assert (inner[3][0], inner.get(2, [b""])[0].decode()) == (fault.code, fault.message)
    if session is not None:
        # What is told is what is read when the client sends it back.
        sent = asked.from_json(json.dumps({"session": text["session"], "query": "x"}).encode())
        also = asked.from_protobuf(edge.message(1, binary[1][0]) + edge.message(2, b"x"))
        assert sent == also
        assert sent.session is not None
        assert sent.session.token == session.token
        shown = sent.session.shown
        assert shown is not None
        expected = (session.shown.in_transaction, session.shown.autocommit, session.shown.target)
        assert (shown.in_transaction, shown.autocommit, shown.target) == expected
        assert shown.workload is session.shown.workload


def test_options_and_flags_are_always_there_for_clients_that_look_without_asking() -> None:
    answer = Told(session=SessionTold(b"t", Shown(autocommit=True)))
    session = edge.parse(edge.parse(told.execute_protobuf(answer))[1][0])
    shown = edge.parse(session[2][0])
    assert shown[4] == [1]
    assert 6 in shown
    created = edge.parse(
        told.create_protobuf(Told(session=answer.session, branch="main", user=("u", "admin")))
    )
    assert (created[1], edge.parse(created[2][0])) == ([b"main"], {1: [b"u"], 3: [3]})
    assert 4 in created


def test_variables_in_both_forms() -> None:
    written = asked.from_json(
        json.dumps(
            {
                "query": "SELECT ?",
                "bind_variables": {
                    "v1": {"type": "INT64", "value": base64.b64encode(b"5").decode()},
                    "list": {"type": 28, "values": [{"type": "VARCHAR", "value": "eA"}]},
                },
            }
        ).encode()
    )
    number = protobuf.put_number(1, VitessType.INT64) + protobuf.put(2, b"5")
    text = protobuf.put_number(1, VitessType.VARCHAR) + protobuf.put(2, b"x")
    several = protobuf.put_number(1, VitessType.TUPLE) + protobuf.put(3, text)
    coded = asked.from_protobuf(
        b"".join(
            (
                protobuf.put(2, b"SELECT ?"),
                protobuf.put(3, protobuf.put(1, b"v1") + protobuf.put(2, number)),
                protobuf.put(3, protobuf.put(1, b"list") + protobuf.put(2, several)),
            )
        )
    )
    assert written == coded
    assert written.variables == {
        "v1": BindVariable(VitessType.INT64, b"5"),
        "list": BindVariable(VitessType.TUPLE, b"", ((VitessType.VARCHAR, b"x"),)),
    }


@pytest.mark.parametrize(
    "body",
    [
        b"[]", b'"x"', b"{", b"\xff", b'{"query": 1}', b'{"query": ["x"]}', b'{"session": "x"}',
        b'{"session": {"signature": 1}}', b'{"session": {"signature": "%%"}}', b'{"query": "\\ud800"}',
        b'{"session": {"vitessSession": {"autocommit": "yes"}}}', b'{"bindVariables": []}',
        b'{"session": {"vitessSession": {"options": {"workload": "FAST"}}}}',
        b'{"session": {"vitessSession": {"options": {"workload": 9}}}}',
        b'{"bindVariables": {"v1": {"type": "STRANGE"}}}', b'{"bindVariables": {"v1": {"type": 3}}}',
        b'{"bindVariables": {"v1": {"type": true}}}', b'{"bindVariables": {"v1": {"values": {}}}}',
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_bad_json_is_an_error(body: bytes) -> None:
    with pytest.raises(MessageError):
        asked.from_json(body)


def test_what_is_large_only_when_read_is_an_error() -> None:
    nested = b""
    for _ in range(2000):
        nested = protobuf.put_always(3, nested)
    told_list = edge.message(3, edge.message(1, b"a") + edge.message(2, nested))
    # Values have no values of their own: what stands there is passed over, like all that is not known.
    (variable,) = asked.from_protobuf(told_list).variables.values()
    assert variable.values == ((VitessType.NULL_TYPE, b""),)
    for depth in range(50, 1000, 25):
        text = b'{"bindVariables":{"a":' + b'{"values":[' * depth + b"{}" + b"]}" * depth + b"}}"
        try:
            assert asked.from_json(text).variables["a"].values == ((VitessType.NULL_TYPE, b""),)
        except MessageError as error:
            assert "no JSON" in error.message  # noqa: PT017 deeper than the reader goes
    many = edge.message(3, edge.message(1, b"a") + edge.message(2, edge.message(3, b"") * 300_000))
    with pytest.raises(MessageError, match="too many values"):
        asked.from_protobuf(many)
    with pytest.raises(MessageError, match="65535 variables"):
        asked.from_protobuf(edge.message(3, b"") * 70_000)
    with pytest.raises(MessageError, match="beside its texts"):
        asked.from_json(b'{"x":[' + b"[]," * 2_000_000 + b"[]]}")
    with pytest.raises(MessageError, match="no JSON"):
        asked.from_json(b'{"x":"' + b'\\"' * 3_000_000)
    query = ",[]{}" * 2_000_000
    assert asked.from_json(json.dumps({"query": query}).encode()).query == query.encode()


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["query", "session", "signature", "vitessSession", "options", "workload", "type",
                             "bindVariables", "value", "values", "v1", "autocommit", "targetString"]),
            inner, max_size=4,
        ),
    ),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=200), JSON.map(lambda value: json.dumps(value).encode())))
def test_anything_is_a_request_or_an_error(data: bytes) -> None:
    for read in (asked.from_json, asked.from_protobuf):
        try:
            read(data)
        except MessageError:
            continue


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.one_of(st.integers(0, 2**64 - 1), st.binary(max_size=60))), max_size=8
    )
)
def test_fields_of_the_wrong_kind_are_errors(fields: list[tuple[int, int | bytes]]) -> None:
    data = b"".join(
        protobuf.put_always(number, value)
        if isinstance(value, bytes)
        else protobuf.varint(number << 3) + protobuf.varint(value)
        for number, value in fields
    )
    try:
        asked.from_protobuf(data)
        asked.from_protobuf(edge.message(1, data) + edge.message(3, data))
    except MessageError:
        pass
