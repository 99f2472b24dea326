"""What is asked of a gateway, and what it answers, as JSON: requests, results and errors.

Pure. Invariant: an error arrives as the class that the Protocol ``model.ports.Gateways`` names, or as one of
its ancestors, with its message.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, cast

from homeworld.control.frames import Words
from homeworld.model import errors
from homeworld.model.errors import HomeworldError, MalformedPacketError
from homeworld.model.routing import HoldRequest
from homeworld.model.topology import TabletType


class Ask(StrEnum):
    """What can be asked."""

    PING = "ping"
    PUBLISH = "publish"
    HOLD = "hold"
    RELEASE = "release"
    OPEN = "open"
    IS_HELD = "is_held"
    CONNECTIONS = "connections"


_KNOWN: Mapping[str, type[HomeworldError]] = {
    one.__name__: one
    for one in (
        errors.DeadlineExceededError,
        errors.FencedError,
        errors.InvalidError,
        errors.UnavailableError,
        HomeworldError,
    )
}


def hold_words(request: HoldRequest) -> dict[str, Any]:
    """A hold's request as JSON."""
    return {
        "hold_id": request.hold_id,
        "branch_id": request.branch_id,
        "tables": sorted(map(list, request.tables)),
        "tablet_types": sorted(request.tablet_types),
        "drain_seconds": request.drain_seconds,
        "hold_seconds": request.hold_seconds,
        "subject": request.subject,
        "turn": list(request.turn),
    }


def hold_request(words: Words) -> HoldRequest:
    """The request again.

    :raises MalformedPacketError: it is none.
    """
    try:
        token, attempt = words["turn"]
        return HoldRequest(
            hold_id=str(words["hold_id"]),
            branch_id=str(words["branch_id"]),
            tables=frozenset((str(keyspace), str(table)) for keyspace, table in words["tables"]),
            tablet_types=frozenset(map(TabletType, words["tablet_types"])),
            drain_seconds=float(words["drain_seconds"]),
            hold_seconds=float(words["hold_seconds"]),
            subject=str(words["subject"]),
            turn=(int(token), int(attempt)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedPacketError("a hold that cannot be read") from error


def said(result: object) -> Words:
    """An answer that is a result."""
    return {"result": result}


def failed(error: HomeworldError) -> Words:
    """An answer that is an error."""
    name = next((one.__name__ for one in type(error).__mro__ if one.__name__ in _KNOWN), "HomeworldError")
    return {"error": name, "message": error.message}


def result_of(answer: Words) -> object:
    """The result of an answer.

    :raises HomeworldError: the answer is an error.
    """
    name = answer.get("error")
    if name is not None:
        raise _KNOWN.get(str(name), HomeworldError)(str(answer.get("message", "")))
    return answer.get("result")


def connection_words(connections: frozenset[tuple[str, int]]) -> list[list[object]]:
    """Connections as JSON."""
    return sorted([server, number] for server, number in connections)


def connections_of(words: object) -> frozenset[tuple[str, int]]:
    """The connections again."""
    return frozenset((server, int(number)) for server, number in cast("list[tuple[str, int]]", words))
