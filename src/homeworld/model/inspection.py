"""What is asked of servers for people to read: definitions, connections, how servers are. Nouns and one port.

The API opens no connection to a server itself: whoever connects the rooms gives it an :class:`Inspection`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from homeworld.model.ports import ServerStatus
from homeworld.model.sizes import Host


@dataclass(frozen=True, slots=True)
class Definition:
    """A table or view of a keyspace, as its first shard's server shows it.

    :param sql: the server's own CREATE statement, without the next AUTO_INCREMENT value.
    """

    keyspace: str
    name: str
    sql: str
    view: bool = False


@dataclass(frozen=True, slots=True)
class TableFacts:
    """What a lint looks at.

    :param keyed: whether it has a primary key, or a unique key over columns that are not null.
    :param partitioning: ``HASH``, ``RANGE`` …; empty: it is not partitioned.
    """

    keyspace: str
    name: str
    engine: str
    charset: str
    keyed: bool
    auto_increment: tuple[str, ...]
    foreign_key_columns: tuple[str, ...]
    columns: frozenset[str]
    partitioning: str = ""


@dataclass(frozen=True, slots=True)
class ServerConnection:
    """One connection of a server.

    :param seconds: for how long it has been doing what ``command`` says.
    :param ours: whether it is homeworld's own and no client's behind a gateway.
    :param transaction_began: when its open InnoDB transaction began; None: it has none.
    :param blocked_by: numbers of connections that hold a lock it waits for, as far as the server tells.
    """

    number: int
    user: str
    host: str
    schema: str
    command: str
    seconds: float
    state: str
    text: str
    ours: bool
    transaction_began: datetime | None = None
    waits_for_lock: bool = False
    blocked_by: tuple[int, ...] = field(default_factory=tuple[int, ...])


class Inspection(Protocol):
    """Looks at servers; each call has a deadline of some seconds.

    All raise UnavailableError where a server does not answer, NotFoundError where there is no such one.
    """

    def host(self) -> Host:
        """What the machine has that servers run on."""
        ...

    def status(self, server_id: str) -> ServerStatus:
        """How a server is now."""
        ...

    def restarts(self, server_id: str) -> int:
        """How often a server's process was started again."""
        ...

    def definitions(self, keyspace_id: str) -> Sequence[Definition]:
        """The tables and views of a keyspace, by name."""
        ...

    def facts(self, keyspace_id: str) -> Sequence[TableFacts]:
        """What a lint looks at, by name of the table."""
        ...

    def connections(self, server_id: str) -> Sequence[ServerConnection]:
        """A server's connections but the one that asks, by number."""
        ...

    def kill(self, server_id: str, number: int, *, query: bool) -> None:
        """End a connection, or only the statement that it is at.

        :raises NotFoundError: there is none of that number.
        """
        ...
