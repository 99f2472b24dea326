"""Every parser of the protocol on bytes that are nearly right: a value or the protocol's own error."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from datetime import UTC, datetime

from homeworld.gateway.accounts import Accounts
from homeworld.gateway.infile import FileTail
from homeworld.gateway.login import LoginState, ServerLogin
from homeworld.model.errors import HomeworldError
from homeworld.wire import commands, handshake
from homeworld.wire.binary import binary_row
from homeworld.wire.client import DEFAULT_CAPABILITIES, Collector, Credentials, Login
from homeworld.wire.constants import Cap, Com, Status
from homeworld.wire.packets import PacketBuffer, frame
from homeworld.wire.renumber import Renumber
from homeworld.wire.responses import Walker
from homeworld.wire.results import ColumnDefinition, Ok, parse_err, parse_text_row
from tests.fuzz.gateway import packets

_PARSERS: tuple[Callable[[bytes], object], ...] = (
    handshake.parse_response,
    handshake.parse_auth_switch,
    handshake.Greeting.parse,
    lambda payload: handshake.parse_change_user(payload, int(DEFAULT_CAPABILITIES)),
    lambda payload: handshake.parse_change_user(payload, 0),
    lambda payload: commands.parse_execute(payload, 3),
    lambda payload: commands.parse_execute(payload, 3, ((8, False), (253, False), (12, True))),
    lambda payload: commands.parse_execute(payload, 20, (), {1: b"x"}),
    lambda payload: commands.with_types(payload, 3, ((8, False), (253, False), (12, True))),
    commands.execute_statement_id,
    commands.long_data,
    parse_err,
    lambda payload: Ok.parse(payload, int(DEFAULT_CAPABILITIES)),
    lambda payload: Ok.parse(payload, int(DEFAULT_CAPABILITIES | Cap.SESSION_TRACK)),
    ColumnDefinition.parse,
    lambda payload: parse_text_row(payload, 3),
)
_PAYLOADS: tuple[Callable[[random.Random], bytes], ...] = (
    packets.handshake_response,
    packets.greeting,
    packets.execute,
    packets.command,
    packets.random_bytes,
    lambda rng: packets.login_answer(rng, int(DEFAULT_CAPABILITIES)),
    lambda rng: packets.mutated(rng, ColumnDefinition(b"c", 253).build()),
)


def _pieces(rng: random.Random, data: bytes) -> list[bytes]:
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(5)))
    return [data[one:two] for one, two in zip([0, *cuts], [*cuts, len(data)], strict=True) if one < two]


def parse(rng: random.Random) -> None:
    """One payload through every parser."""
    payload = rng.choice(_PAYLOADS)(rng)
    for parser in _PARSERS:
        with contextlib.suppress(HomeworldError):
            parser(payload)


def walk(rng: random.Random) -> None:
    """A server's answer, cut anywhere: the walker says the same however it is cut, and ends where the
    collector ends.
    """
    caps = int(DEFAULT_CAPABILITIES) if rng.random() < 0.7 else int(DEFAULT_CAPABILITIES & ~Cap.DEPRECATE_EOF)
    asked = rng.choice((Com.QUERY, Com.QUERY, Com.STMT_PREPARE, Com.FIELD_LIST, Com.STATISTICS))
    expect = {Com.STMT_PREPARE: 1, Com.FIELD_LIST: 2, Com.STATISTICS: 4}.get(asked, 0)
    data = packets.server_chunk(rng, int(asked), caps)
    said = [_walked([data], caps, expect), _walked(_pieces(rng, data), caps, expect)]
    assert said[0] == said[1], f"cut otherwise it says otherwise: {said}"
    if expect == 0 and not isinstance(said[0], str):
        collector = Collector(caps)
        try:
            collector.feed(data[: said[0][0]])
        except HomeworldError:
            pass
        else:
            # Behind a cursor's columns no rows come, and no command whose answer is collected opens one.
            cursor = said[0][1] & Status.CURSOR_EXISTS
            assert cursor or collector.done or collector.infile, "the walker ends before the collector does"
            for row in collector.rows:
                with contextlib.suppress(HomeworldError):
                    binary_row(parse_text_row(row, len(collector.columns)), collector.columns)
    renumber = Renumber(caps)
    renumber.begin(more=rng.random() < 0.5)
    try:
        for piece in _pieces(rng, data):
            renumber.feed(piece)
    except HomeworldError:
        pass


Said = tuple[int, int, bytes, bytes, bytes, bool]


def _walked(pieces: list[bytes], caps: int, expect: int) -> Said | str:
    walker = Walker(caps)
    walker.begin(expect)
    at = 0
    try:
        for piece in pieces:
            end = walker.feed(piece)
            if end >= 0:
                return at + end, walker.status, walker.error, walker.ok, walker.prepared, walker.local_infile
            at += len(piece)
    except HomeworldError as error:
        return type(error).__name__
    return "more"


def frames(rng: random.Random) -> None:
    """A stream of packets: the buffer never holds more than its limit and what came last."""
    limit = rng.choice((100, 1000, 1 << 20))
    buffer = PacketBuffer(limit)
    tail = FileTail()
    data = b"".join(packets.client_chunk(rng) for _ in range(3))
    try:
        for piece in _pieces(rng, data):
            tail.feed(piece)
            buffer.feed(piece)
            while (payload := buffer.next(0 if rng.random() < 0.5 else None)) is not None:
                assert len(payload) <= limit
            assert len(buffer) <= limit + 4
    except HomeworldError:
        pass


def login_of_client(rng: random.Random, accounts: Accounts) -> None:
    """A client that logs in with nonsense."""
    login = ServerLogin(version="8.0", number=1, tls=rng.random() < 0.5, tls_required=rng.random() < 0.2)
    login.greeting()
    try:
        for _ in range(6):
            payload = packets.handshake_response(rng) if rng.random() < 0.7 else packets.random_bytes(rng, 80)
            if rng.random() < 0.1:
                payload = handshake.build_ssl_request(int(DEFAULT_CAPABILITIES), 1 << 24, 45)
            login.feed(payload)
            if login.state is LoginState.DONE:
                assert login.proof is not None
                accounts.check(login.proof, "127.0.0.1", datetime.now(UTC))
                raise AssertionError("nonsense was let in")
    except HomeworldError:
        pass


def login_at_server(rng: random.Random) -> None:
    """A server that answers the gateway's own login with nonsense."""
    login = Login(Credentials("u", "p", "s"), secure=rng.random() < 0.5)
    try:
        login.feed(frame(packets.greeting(rng)))
        for number in range(6):
            login.take()
            payload = packets.login_answer(rng, login.capabilities)
            login.feed(frame(payload, number) if rng.random() < 0.95 else packets.random_bytes(rng, 60))
            if login.done:
                return
    except HomeworldError:
        pass
