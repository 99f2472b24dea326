"""Every arrow of the table of phases, and every command in every phase, as transcripts without sockets."""

from __future__ import annotations

import pytest

from homeworld.gateway.handlers import HANDLERS
from homeworld.gateway.session import PHASES, Phase
from homeworld.wire.constants import Com
from homeworld.wire.packets import frame
from tests.fuzz.gateway.storm import Failures
from tests.support.playbook import Playbook
from tests.unit.test_gateway_session import FIRST

IDLE, RELAY, FILE, DIALOGUE, CLOSED = Phase
HOT = (
    FIRST
    + """
    >> client QUERY select * from a1
    << one QUERY select * from a1
"""
)
LOAD = (
    FIRST
    + """
    >> client QUERY load data local infile 'x' into table a1
    << one QUERY load data local infile 'x' into table a1
    >> one FILE
"""
)
ARROWS: dict[tuple[Phase, Phase], str] = {
    (IDLE, RELAY): HOT,
    (IDLE, DIALOGUE): ">> client QUERY select * from a1\n<< connect one",
    (IDLE, CLOSED): ">> client gone\n<< hang up\n<< gone",
    (RELAY, IDLE): HOT + ">> one ROWS 1\n<< client ROWS 1",
    (RELAY, FILE): LOAD,
    (RELAY, DIALOGUE): FIRST,
    (RELAY, CLOSED): HOT + ">> client gone\n<< hang up\n<< close one\n<< gone",
    (FILE, RELAY): LOAD + ">> client BYTES 00000002\n<< one FILE END\n>> one OK\n<< client OK",
    (FILE, CLOSED): LOAD + ">> one lost\n<< hang up\n<< gone",
    (DIALOGUE, IDLE): ">> client PING\n<< client OK",
    (DIALOGUE, RELAY): FIRST,
    (
        DIALOGUE,
        CLOSED,
    ): ">> client QUERY select * from a1\n<< connect one\n>> client gone\n<< hang up\n<< gone",
}
"""A transcript for each; another test sees that there is one for each."""


def _play(book: Playbook, script: str) -> None:
    """As the playbook does; the client's side of a file request is of no interest."""
    before, asks, after = script.partition(">> one FILE\n")
    book.play(before)
    if asks:
        book.links["one"].data_received(frame(b"\xfbx", 1))
        book._client.rest()  # type: ignore[reportPrivateUsage]
        book.channels["one"].asked.clear()
        book.play(after)


def test_every_arrow_has_a_transcript() -> None:
    assert set(ARROWS) == {(start, end) for start, ends in PHASES.items() for end in ends}


@pytest.mark.parametrize("arrow", list(ARROWS), ids="-".join)
def test_the_arrow_is_taken(arrow: tuple[Phase, Phase]) -> None:
    book = Playbook()
    _play(book, ARROWS[arrow])
    assert arrow in book.session.arrows


REACH = {
    IDLE: FIRST,
    RELAY: HOT,
    FILE: LOAD,
    DIALOGUE: ">> client QUERY select * from a1\n<< connect one",
    CLOSED: FIRST + ">> client gone\n<< hang up\n<< give back one\n<< gone",
}


@pytest.mark.parametrize("phase", list(Phase))
def test_every_command_in_every_phase(phase: Phase) -> None:
    """All 256 of them, with nothing and with something behind: never a fault of the gateway's own; and while
    a command is under way, none is begun.
    """
    with Failures() as logged:
        for command in range(256):
            for rest in (b"", b"\1\0\0\0" + b"select 1\0" + bytes(9)):
                book = Playbook()
                _play(book, REACH[phase])
                book.drain()
                assert book.session.phase is phase
                book.session.client_data(frame(bytes([command]) + rest))
                said = " ".join(book.out)
                assert "internal error" not in said
                if phase in {RELAY, DIALOGUE, CLOSED}:
                    assert book.session.phase is phase
                    assert said == ""
                if phase is IDLE and command not in HANDLERS:
                    assert book.drain() == ["client ERR 1047 Unknown command"]
        assert not logged.found, logged.found[0]


def test_every_command_of_the_protocol_is_served_or_refused() -> None:
    unserved = {com.name for com in Com if int(com) not in HANDLERS}
    assert unserved == {"SLEEP", "CONNECT", "TIME", "DELAYED_INSERT", "CONNECT_OUT", "DAEMON"} & {
        com.name for com in Com
    }
