# pyright: reportPrivateUsage=false
"""Tokens, variables, rows and errors of the data plane over HTTP: pure parts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeworld.edge import answers, binding, calls, codes, sessions, tokens
from homeworld.edge.fields import VitessType, type_of
from homeworld.edge.messages import BindVariable, SessionSeen, Workload
from homeworld.edge.purse import Charge, Purse
from homeworld.gateway import statements
from homeworld.gateway.sql_tokens import Kind, tokenize
from homeworld.model.errors import (
    ConnectionLostError,
    HomeworldError,
    MalformedPacketError,
    ServerError,
    UnsupportedSqlError,
)
from homeworld.model.topology import BackendRole, TabletType
from homeworld.wire.constants import Status, Type
from homeworld.wire.packets import frame
from homeworld.wire.results import ColumnDefinition, Ok, build_err, build_result, build_text_row
from tests.support.gateway import account

OWNER = account(BackendRole.ADMIN)
SIGNER = tokens.Signer(b"secret")
NOW = 1_800_000_000.0
STATE = tokens.State(
    uuid="u" * 12, pin="p", gateway="g", warm="", in_transaction=True, keyspace="shop", shard="-80",
    tablet=TabletType.REPLICA, autocommit=False, settings=(b"SET @x = '\xff'", b"SET NAMES utf8mb4"),
    once=(b"SET TRANSACTION READ ONLY",), charset="utf8mb3", zero_is_value=True, last_insert_id=2**64 - 1,
    workload=Workload.OLAP, found_rows=3, row_count=-1,
)  # fmt: skip


def seen(state: tokens.State, token: bytes | None = None) -> SessionSeen:
    return SessionSeen(SIGNER.sign(state, OWNER, NOW) if token is None else token, state.shown())


def test_a_state_survives_its_token() -> None:
    assert SIGNER.read(seen(STATE), OWNER, NOW + 5) == STATE
    assert STATE.shown().target == "shop:-80@replica"
    fresh = tokens.fresh()
    assert SIGNER.read(seen(fresh), OWNER, NOW) == fresh
    assert fresh.shown().target == ""


def test_a_token_is_for_one_password() -> None:
    for other in (
        account(BackendRole.READER),
        replace(OWNER, branch_id="other"),
        replace(OWNER, sha256_twice=b"another password of that name"),
    ):
        with pytest.raises(tokens.TokenError):
            SIGNER.read(seen(STATE), other, NOW)
    with pytest.raises(tokens.TokenError):
        tokens.Signer(b"another").read(seen(STATE), OWNER, NOW)


@given(st.data())
def test_a_token_that_was_changed_is_none(data: st.DataObject) -> None:
    token = SIGNER.sign(STATE, OWNER, NOW)
    at = data.draw(st.integers(0, len(token) - 1))
    changed = token[:at] + bytes((token[at] ^ data.draw(st.integers(1, 255)),)) + token[at + 1 :]
    for broken in (changed, token[:at], token + b"x", b""):
        with pytest.raises(tokens.TokenError):
            SIGNER.read(seen(STATE, broken), OWNER, NOW)


def test_tokens_expire_and_have_a_size() -> None:
    with pytest.raises(tokens.ExpiredTokenError):
        SIGNER.read(seen(STATE), OWNER, NOW + tokens.LIFETIME_SECONDS + 1)
    with pytest.raises(tokens.LargeStateError):
        SIGNER.sign(replace(STATE, settings=(b"x" * tokens.MOST_BYTES,)), OWNER, NOW)


def test_what_the_client_was_shown_it_cannot_change() -> None:
    tokens.check_unchanged(STATE, seen(STATE))
    tokens.check_unchanged(STATE, SessionSeen(b"", None))
    for shown in (
        replace(STATE, autocommit=True),
        replace(STATE, keyspace="other"),
        replace(STATE, workload=Workload.DBA),
        replace(STATE, in_transaction=False),
    ):
        with pytest.raises(tokens.TokenError, match="changed"):
            tokens.check_unchanged(STATE, SessionSeen(b"", shown.shown()))


# -------------------------------------------------------------------- variables


def test_nobody_holds_more_than_is_left() -> None:
    purse = Purse(1000)
    greedy, other = Charge(purse, "greedy"), Charge(purse, "other")
    assert greedy.reach(500)
    assert not greedy.reach(501)
    assert not Charge(purse, "greedy").reach(1)
    assert other.reach(250)
    assert not other.reach(251)
    assert Charge(purse, "third").reach(125)
    assert purse.held == 875
    greedy.give_back()
    greedy.give_back()
    assert purse.held == 375
    assert other.reach(437)


@dataclass(eq=False)
class Kept:
    """As much of a session as says which has to go."""

    branch: object
    lost: bool = False
    ended: bool = False

    @property
    def session(self) -> Kept:
        return self

    def end(self) -> None:
        self.ended = True


def test_who_keeps_many_sessions_gives_up_own_ones() -> None:
    nobody: Any = None
    kept = sessions.Sessions(nobody, SIGNER, sessions.Limits(most_pinned=5))
    crowded, quiet = object(), object()
    talks = [Kept(quiet), Kept(crowded), Kept(crowded, lost=True), Kept(crowded), Kept(crowded)]
    for number, talk in enumerate(talks):
        keep = sessions.Keep.BOUND if number == 3 else sessions.Keep.TRANSACTION
        entry: Any = sessions._Pinned(f"{number}", cast("Any", talk), keep, float(number))
        kept._pinned[entry.pin] = entry
    for gone in (2, 3, 1):
        kept._limits = sessions.Limits(most_pinned=kept.kept[0])
        kept._make_room()
        assert talks[gone].ended
        assert not talks[0].ended


def test_spaces_cost_no_more_than_their_number() -> None:
    spaces = b" " * (1 << 20)
    for text in (b"set workload=olap" + spaces + b"x", b"set" + spaces + b"x", spaces + b"x"):
        assert calls._workload(text) is None
        assert statements._KILL.match(text) is None
    assert statements._KILL.match(b"kill 1" + spaces + b"x") is None
    assert calls._workload(b" set workload = 'OLAP' ; " + spaces) is Workload.OLAP
    killed = statements._KILL.match(b"KILL QUERY 17 ;\n" + spaces)
    assert killed is not None
    assert killed[2] == b"17"


V = VitessType
MOST = 1 << 16


def test_variables_stand_where_they_are_asked_for() -> None:
    variables = {
        "v1": BindVariable(V.INT64, b"-5"),
        "v2": BindVariable(V.VARCHAR, b"it's \\"),
        "list": BindVariable(V.TUPLE, b"", ((V.INT64, b"1"), (V.VARBINARY, b"\xff\0"))),
        "n": BindVariable(V.NULL_TYPE, b""),
    }
    query = b"SELECT ?, '?', \"?\", `?`, /* ? */ :n, ? # ?\n, @a:=1 WHERE x IN :list -- ?"
    assert binding.bound(query, variables, MOST) == (
        b"SELECT -5, '?', \"?\", `?`, /* ? */ NULL, 'it\\'s \\\\' # ?\n, @a:=1 WHERE x IN (1, x'ff00') -- ?"
    )
    assert binding.bound(b"SELECT ? :v1", {}, MOST) == b"SELECT ? :v1"
    with pytest.raises(ServerError, match="v3"):
        binding.bound(b"SELECT ?, ?, ?", variables, MOST)
    with pytest.raises(HomeworldError):
        binding.bound(b"SELECT 'open", variables, MOST)


def test_variables_do_not_grow_beyond_a_statement() -> None:
    large = {"v1": BindVariable(V.BLOB, b"\xff" * 4000)}
    query = b"SELECT " + b", ".join([b":v1"] * 100)
    with pytest.raises(ServerError, match="max_allowed_packet") as told:
        binding.bound(query, large, MOST)
    assert told.value.server_errno == 1153
    with pytest.raises(ServerError, match="too many placeholders"):
        binding.bound(b":a," * 70_000, {"a": BindVariable(V.INT64, b"1")}, 1 << 30)


@given(st.sampled_from(VitessType), st.binary(max_size=30))
def test_a_value_is_one_literal_or_refused(kind: VitessType, value: bytes) -> None:
    try:
        text = binding.bound(b"?", {"v1": BindVariable(kind, value)}, MOST)
    except ServerError as error:
        assert error.server_errno == 1210  # noqa: PT017 it is one of two outcomes
        return
    words = [token for token in tokenize(text) if not (token.kind is Kind.OP and token.text in {b"-", b"+"})]
    assert len(words) == 1
    assert words[0].kind in {Kind.STRING, Kind.NUMBER, Kind.HEX, Kind.WORD}
    assert words[0].kind is not Kind.WORD or text == b"NULL"


@pytest.mark.parametrize(
    "value", [b"1; DROP TABLE t", b"", b"0x1f", b"1 OR 1", b"nan", b"1e", b"--1", b"1\n"]
)
def test_a_number_has_to_be_one(value: bytes) -> None:
    for kind in (V.INT64, V.FLOAT64, V.DECIMAL, V.UINT8):
        with pytest.raises(ServerError):
            binding.literal(kind, value)


# -------------------------------------------------------------------- rows

ROW = st.lists(st.one_of(st.none(), st.binary(max_size=300)), min_size=1, max_size=6)


@given(ROW, st.one_of(st.just(b""), st.binary(max_size=5)))
def test_rows_are_cut_as_they_are_put_together(row: list[bytes | None], rest: bytes) -> None:
    payload = build_text_row(row)
    lengths, values = answers.split_row(payload, len(row))
    assert lengths == [-1 if value is None else len(value) for value in row]
    assert values == b"".join(value or b"" for value in row)
    if rest:
        with pytest.raises(MalformedPacketError):
            answers.split_row(payload + rest, len(row))
    with pytest.raises(MalformedPacketError):
        answers.split_row(payload[:-1], len(row))


CAPABILITIES = 1 << 24 | 1 << 9


def result(rows: list[list[bytes | None]], status: int = Status.AUTOCOMMIT) -> bytes:
    columns = [ColumnDefinition(b"c", Type.VAR_STRING).build() for _ in (rows[0] if rows else [b""])]
    return build_result(columns, map(build_text_row, rows), CAPABILITIES, status, 1)[0]


@given(
    st.lists(st.lists(st.one_of(st.none(), st.binary(max_size=300)), min_size=2, max_size=2), max_size=8),
    st.data(),
)
def test_an_answer_is_the_same_however_it_is_cut(rows: list[list[bytes | None]], data: st.DataObject) -> None:
    stream = result(rows)
    answer = answers.Answer(CAPABILITIES)
    while stream:
        assert not answer.done
        size = data.draw(st.integers(1, len(stream)))
        answer.feed(stream[:size])
        stream = stream[size:]
    assert answer.done
    assert answer.count == len(rows)
    assert answer.take() == [answers.split_row(build_text_row(row), 2) for row in rows]
    assert answer.size == 0


@given(st.lists(st.integers(0, 3 << 18), max_size=12))
def test_streamed_rows_are_told_in_messages_of_a_size(sizes: list[int]) -> None:
    rows: list[answers.Row] = [([size], b"x" * size) for size in sizes]
    parts = list(calls.messages(rows))
    assert [row for part in parts for row in part] == rows
    assert all(parts)
    for part in parts:
        assert sum(len(values) for _, values in part[:-1]) < 1 << 20


def test_a_procedure_has_one_result_or_is_refused() -> None:
    more = Status.AUTOCOMMIT | Status.MORE_RESULTS_EXISTS
    answer = answers.Answer(CAPABILITIES)
    answer.feed(result([[b"1"]], more) + frame(Ok(affected_rows=3).build(CAPABILITIES), 9))
    assert (answer.done, answer.error, answer.count) == (True, None, 1)
    assert answer.ok is not None
    answer = answers.Answer(CAPABILITIES)
    answer.feed(result([[b"1"]], more) + result([[b"2"]], more) + frame(Ok().build(CAPABILITIES)))
    assert answer.done
    assert isinstance(answer.error, UnsupportedSqlError)


def test_an_error_behind_rows_is_an_error() -> None:
    answer = answers.Answer(CAPABILITIES)
    whole = result([[b"1"]])
    cut = len(whole) - 4 - len(Ok().build(CAPABILITIES, 0xFE))
    answer.feed(whole[:cut] + frame(build_err(1317, "70100", "stopped"), 5))
    assert answer.done
    assert isinstance(answer.error, ServerError)


@given(st.binary(max_size=200), st.booleans())
def test_garbage_is_an_error(data: bytes, prepare: bool) -> None:
    answer = answers.Answer(CAPABILITIES, prepare=prepare)
    try:
        answer.feed(data)
        answer.feed(frame(data))
    except MalformedPacketError:
        return


def test_every_type_of_the_protocol_has_its_own() -> None:
    assert {int(kind): type_of(kind, 0) for kind in Type}
    assert type_of(Type.LONGLONG, 32) is V.UINT64
    assert type_of(Type.BLOB, 128) is V.BLOB
    assert type_of(Type.STRING, 256) is V.ENUM
    with pytest.raises(MalformedPacketError):
        type_of(200, 0)


# -------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("error", "code", "tail"),
    [
        (ServerError(1062, "23000", "Duplicate entry"), "ALREADY_EXISTS", "(errno 1062) (sqlstate 23000)"),
        (ServerError(1064, "42000", "syntax"), "INVALID_ARGUMENT", "(errno 1064) (sqlstate 42000)"),
        (ServerError(1213, "40001", "Deadlock"), "ABORTED", "(errno 1213) (sqlstate 40001)"),
        (ServerError(1146, "42S02", "no table"), "NOT_FOUND", "(errno 1146) (sqlstate 42S02)"),
        (ServerError(9999, "HY000", "new"), "UNKNOWN", "(errno 9999) (sqlstate HY000)"),
        (ConnectionLostError(), "UNAVAILABLE", "(errno 1105) (sqlstate HY000)"),
        (UnsupportedSqlError("VT12001"), "UNIMPLEMENTED", "(errno 1235) (sqlstate 42000)"),
        (codes.SessionLostError("gone"), "ABORTED", "(errno 1317) (sqlstate 70100)"),
        (tokens.TokenError(), "INVALID_ARGUMENT", "(errno 1105) (sqlstate HY000)"),
    ],
)
def test_errors_in_vitess_words(error: HomeworldError, code: str, tail: str) -> None:
    fault = codes.fault_of(error)
    assert fault.code.name == code
    assert fault.message == f"{error.message} {tail}"
