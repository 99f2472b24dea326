"""The phases of a session and what it may wait for, as data. Knows nothing of how a session moves."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """Where a session stands."""

    IDLE = "idle"
    RELAY = "relay"
    FILE = "file"
    DIALOGUE = "dialogue"
    CLOSED = "closed"


class Wait(StrEnum):
    """What a session waits for: the client's next command, the rest of what the client has begun to send, the
    client to read, or a server (or anything else that is not the client's).
    """

    COMMAND = "command"
    REST = "rest"
    READER = "reader"
    SERVER = "server"


PHASES: dict[Phase, frozenset[Phase]] = {
    Phase.IDLE: frozenset({Phase.RELAY, Phase.DIALOGUE, Phase.CLOSED}),
    Phase.RELAY: frozenset({Phase.IDLE, Phase.FILE, Phase.DIALOGUE, Phase.CLOSED}),
    Phase.FILE: frozenset({Phase.RELAY, Phase.CLOSED}),
    Phase.DIALOGUE: frozenset({Phase.IDLE, Phase.RELAY, Phase.CLOSED}),
    Phase.CLOSED: frozenset(),
}
"""Which phase may follow which."""
