"""What is next in a maintenance window. Pure.

Invariants: replicas come before their primary; a primary that has a replica is restarted only once it is none
any more; a replica takes over only where it is done or needs nothing; when nothing is next, nothing wants it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol


class Server(Protocol):
    """A server as the store has it."""

    @property
    def id(self) -> str: ...  # noqa: D102 - as on store.branches.Server
    @property
    def replica_of(self) -> str | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Restart:
    """Restart a server; whether it is a primary (and has no replica)."""

    server_id: str
    primary: bool


@dataclass(frozen=True, slots=True)
class Promote:
    """Make a replica the primary."""

    server_id: str
    former: str


Act = Restart | Promote


def decide(servers: Sequence[Server], done: Collection[str], wanting: Collection[str]) -> Act | None:
    """The next act; None: there is nothing left to do.

    :param servers: in the order in which they are taken.
    :param done: ids that were restarted.
    :param wanting: ids that are to be; those that are done count no more.
    """
    left = [server for server in servers if server.id in wanting and server.id not in done]
    for server in left:
        if server.replica_of is not None:
            return Restart(server.id, primary=False)
    for server in left:
        heirs = [other.id for other in servers if other.replica_of == server.id]
        return Promote(heirs[0], server.id) if heirs else Restart(server.id, primary=True)
    return None
