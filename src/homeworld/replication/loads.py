"""Several loads at once, each over a connection of its own: while one server works on what it was sent,
the others are sent theirs. It knows no tables and opens no transaction.

Invariant: when :func:`load_together` returns, each connection has read its whole answer; when it raises,
those that had not are closed, so that nothing of theirs stays.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from homeworld.model.errors import DeadlineExceededError, ServerError
from homeworld.replication.connection import Connection, Executed, file_packets
from homeworld.wire.client import Collector


@dataclass(frozen=True, slots=True)
class Load:
    """One ``LOAD DATA LOCAL INFILE``: its statement, and the file in pieces."""

    connection: Connection
    sql: str
    chunks: Iterable[bytes]


@dataclass(slots=True, eq=False)
class _Sending:
    """A load whose file is on its way. ``rest`` is what is left of the packet being sent."""

    at: int
    connection: Connection
    answer: Collector
    packets: Iterator[bytes]
    rest: memoryview

    def go_on(self) -> bool:
        """Send what goes at once; whether something is left."""
        sent = self.connection.send_some(self.rest)
        if sent < len(self.rest):
            self.rest = self.rest[sent:]
            return True
        packet = next(self.packets, None)
        self.rest = memoryview(packet or b"")
        return packet is not None


def load_together(loads: Sequence[Load]) -> list[Executed | ServerError]:
    """Run all loads; for each what :meth:`Connection.load_data` returns, or the error that it raises.

    :raises HomeworldError: a connection is lost, or a server takes nothing for as long as it may be silent.
    """
    outcomes: list[Executed | ServerError | None] = [None] * len(loads)
    begun: list[_Sending] = []
    try:
        for at, load in enumerate(loads):
            try:
                answer = load.connection.begin_load(load.sql)
            except ServerError as error:
                outcomes[at] = error
                continue
            packets = file_packets(load.chunks, answer.sequence)
            begun.append(_Sending(at, load.connection, answer, packets, memoryview(next(packets))))
        _send(begun)
        while begun:
            sending = begun[-1]
            try:
                outcomes[sending.at] = sending.connection.end_load(sending.answer)
            except ServerError as error:
                outcomes[sending.at] = error
            begun.pop()
    except BaseException:
        for sending in begun:
            sending.connection.close()
        raise
    return [outcome for outcome in outcomes if outcome is not None]


def _send(sendings: Sequence[_Sending]) -> None:
    """Send all files, to each server as fast as it takes its own."""
    open_ = {sending.connection.fileno(): sending for sending in sendings}
    ready = select.poll()
    for number in open_:
        ready.register(number, select.POLLOUT)
    patience = min((sending.connection.timeout_seconds for sending in sendings), default=0.0)
    deadline = time.monotonic() + patience
    while open_:
        events = ready.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not events:
            raise DeadlineExceededError("a server did not take the rows of a load in time")
        for number, _ in events:
            if not open_[number].go_on():
                ready.unregister(number)
                del open_[number]
        deadline = time.monotonic() + patience
