"""The vocabulary between a session's logic and whoever performs it: effects out, results in.

Everything slower than handing bytes through is written as a *dialogue*: a generator that yields one of these
effects and goes on with its result (or with the error, thrown in). A dialogue owns no socket and no time, so
a test performs the effects itself and reads as a transcript.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from homeworld.gateway.budget import Budget
from homeworld.gateway.hold import Hold
from homeworld.gateway.link import Link, Reply
from homeworld.model.topology import Endpoint


@dataclass(frozen=True, slots=True)
class Connect:
    """A connection to ``endpoint`` that is free of any earlier session's state. Result: a Link."""

    endpoint: Endpoint
    capabilities: int
    charset: int
    schema: str


@dataclass(frozen=True, slots=True)
class Request:
    """One command to one backend: framed bytes, the kind of its answer (``wire.responses.Expect``), and how
    much of the answer may be collected where that is limited (for Ask only).
    """

    link: Link
    packet: bytes
    expect: int = 0
    budget: Budget | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """Send commands, pipelined on each link and in parallel over links. Result: a Reply for each, in order;
    also where a server answered with an error or was lost.
    """

    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class Relay:
    """Send one command and hand its answer to the client as it comes. Result: None; the link's walker knows
    how it went. Raises ConnectionLostError where the link was lost.
    """

    request: Request


@dataclass(frozen=True, slots=True)
class WaitHold:
    """Wait until the hold is gone. Result: None."""

    hold: Hold


@dataclass(frozen=True, slots=True)
class LoadSchema:
    """Have the tracker know a keyspace's tables and columns. Result: None."""

    keyspace: str


@dataclass(frozen=True, slots=True)
class ReadAgain:
    """Have the tracker read keyspaces' tables and columns anew, side by side: what is known may be old.
    Result: for each keyspace whose server cannot be asked, the UnavailableError.
    """

    keyspaces: frozenset[str]


@dataclass(frozen=True, slots=True)
class TakeSequence:
    """Take ids from a sequence. Result: tuple of ``count`` ids."""

    keyspace: str
    table: str
    count: int


@dataclass(frozen=True, slots=True)
class StoreVschema:
    """Have the control plane store a keyspace's vschema, an edit of ``base_json``. Result: None."""

    keyspace: str
    vschema_json: str
    base_json: str


@dataclass(frozen=True, slots=True)
class Kill:
    """End another session (or only its statement) by the gateway's or the server's number. Result: None."""

    connection_id: int
    query_only: bool


@dataclass(frozen=True, slots=True)
class Ponder:
    """Work that takes long and touches nothing of the session. Result: what it gives."""

    work: Callable[[], object]


@dataclass(frozen=True, slots=True)
class ReadClient:
    """Wait for the client's next packet in the middle of a command. Result: its payload."""


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Check a proof of identity (``wire.auth``). Result: the Account.

    Raises UnauthorizedError, after a while, where it is wrong.
    """

    user: str
    plugin: str
    answer: bytes
    scramble: bytes


Effect = (
    Authenticate
    | ReadClient
    | Connect
    | Ask
    | Relay
    | WaitHold
    | LoadSchema
    | ReadAgain
    | TakeSequence
    | StoreVschema
    | Kill
    | Ponder
)
R = TypeVar("R")
Dialogue = Generator[Effect, Any, R]
"""Yields effects, is sent their results, returns ``R``."""


def ask(requests: Sequence[Request]) -> Dialogue[list[Reply]]:
    """Send commands and give their replies in order, errors as replies too."""
    replies: list[Reply] = yield Ask(tuple(requests))
    return replies


def ask_one(link: Link, packet: bytes, expect: int = 0) -> Dialogue[Reply]:
    """Send one command and give its reply.

    :raises ServerError: the server answered with an error.
    :raises ConnectionLostError: the server did not answer any more.
    """
    (reply,) = yield from ask((Request(link, packet, expect),))
    reply.check()
    return reply
