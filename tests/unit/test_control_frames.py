"""The control protocol without sockets: what is said arrives, and nobody without the secret is heard."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeworld.control.frames import NONCE_BYTES, Answering, Asking, Frames, framed
from homeworld.control.standing import Standing
from homeworld.control.words import (
    connection_words,
    connections_of,
    failed,
    hold_request,
    hold_words,
    result_of,
    said,
)
from homeworld.model.errors import (
    ConnectionLostError,
    DeadlineExceededError,
    FencedError,
    MalformedPacketError,
    NotFoundError,
    UnauthorizedError,
    UnavailableError,
)
from homeworld.model.routing import HoldRequest
from homeworld.model.topology import TabletType

NONCE = bytes(range(NONCE_BYTES))
HOLD = HoldRequest(
    "w-1-2-3", "branch", frozenset({("shop", "a"), ("shop", "b")}), frozenset({TabletType.PRIMARY}),
    0.25, 20.0, "w-1", (2, 3),
)  # fmt: skip


def talk(asking: Asking, answering: Answering, answer: dict[str, object], step: int = 1 << 20) -> None:
    """Let the two speak, ``step`` bytes at a time."""
    out = b""
    for piece in pieces(answering.greeting(), step):
        out += asking.feed(piece)
    for piece in pieces(out, step):
        answering.feed(piece)
    for piece in pieces(answering.say(answer), step):
        asking.feed(piece)


def pieces(data: bytes, step: int) -> list[bytes]:
    return [data[at : at + step] for at in range(0, len(data), step)]


@given(step=st.integers(1, 60))
def test_a_question_and_its_answer_arrive_however_they_are_cut(step: int) -> None:
    asking, answering = Asking("secret", {"ask": "hold", "x": [1]}), Answering("secret", NONCE)
    talk(asking, answering, {"result": True}, step)
    assert answering.question == {"ask": "hold", "x": [1]}
    assert asking.answer == {"result": True}


def test_a_caller_without_the_secret_is_not_heard() -> None:
    asking, answering = Asking("guess", {"ask": "open"}), Answering("secret", NONCE)
    with pytest.raises(UnauthorizedError):
        answering.feed(asking.feed(answering.greeting()))
    assert answering.question is None


def test_an_answer_of_somebody_without_the_secret_is_not_believed() -> None:
    asking, impostor = Asking("secret", {"ask": "is_held"}), Answering("guess", NONCE)
    asking.feed(impostor.greeting())
    with pytest.raises(UnauthorizedError):
        asking.feed(impostor.say({"result": True}))
    assert asking.answer is None


def test_an_answer_to_another_question_is_not_believed() -> None:
    first, second = Asking("secret", {"hold_id": "a"}), Asking("secret", {"hold_id": "b"})
    answering = Answering("secret", NONCE)
    answering.feed(first.feed(answering.greeting()))
    second.feed(answering.greeting())
    with pytest.raises(UnauthorizedError):
        second.feed(answering.say({"result": True}))


def test_a_question_of_another_connection_is_not_heard_again() -> None:
    asking = Asking("secret", {"ask": "release"})
    recorded = asking.feed(Answering("secret", NONCE).greeting())
    with pytest.raises(UnauthorizedError):
        Answering("secret", bytes(NONCE_BYTES)).feed(recorded)


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(MalformedPacketError):
        Frames().feed(b"\xff\xff\xff\xff")
    with pytest.raises(MalformedPacketError):
        Frames().feed(framed(b"a") + b"b")
    with pytest.raises(MalformedPacketError):
        Asking("secret", {}).feed(framed(b"short"))


def test_a_hold_survives_the_way() -> None:
    assert hold_request(hold_words(HOLD)) == HOLD
    with pytest.raises(MalformedPacketError):
        hold_request({"hold_id": "x"})


def test_connections_survive_the_way() -> None:
    known = frozenset({("server", 7), ("other", 7)})
    assert connections_of(connection_words(known)) == known


@pytest.mark.parametrize(
    ("error", "arrives"),
    [
        (DeadlineExceededError("late"), DeadlineExceededError),
        (FencedError(), FencedError),
        (ConnectionLostError("gone"), UnavailableError),
        (NotFoundError("what?"), Exception),
    ],
)
def test_errors_arrive_as_what_the_port_names(error: Exception, arrives: type[Exception]) -> None:
    with pytest.raises(arrives, match=str(error)):
        result_of(failed(error))  # type: ignore[arg-type]  # one of ours
    assert result_of(said(3)) == 3


class TestStanding:
    """The lease as its holder counts it."""

    def test_it_counts_from_before_it_was_asked_for_and_only_once_joined(self) -> None:
        standing = Standing(4.0, 0.5)
        standing.enter(1, 100.0)
        standing.renewed(1, 101.0)
        assert standing.until == 0.0
        assert standing.join(1)
        assert standing.until == 104.5
        standing.renewed(1, 102.0)
        assert standing.until == 105.5

    def test_an_older_grant_takes_nothing_away(self) -> None:
        standing = Standing(4.0, 0.5)
        standing.enter(1, 100.0)
        standing.join(1)
        standing.renewed(1, 90.0)
        assert standing.until == 103.5

    def test_one_that_was_refused_serves_nothing_until_it_has_entered_anew(self) -> None:
        standing = Standing(4.0, 0.5)
        standing.enter(1, 100.0)
        standing.join(1)
        standing.refused(1)
        standing.renewed(1, 200.0)
        assert (standing.until, standing.joined) == (0.0, False)
        assert not standing.join(1)
        assert not standing.live()
        standing.enter(2, 300.0)
        standing.renewed(1, 400.0)
        standing.refused(1)
        assert standing.join(2)
        assert standing.until == 303.5
