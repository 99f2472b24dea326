"""One backend connection as a session sees it: commands out, answers handed through or collected.

Owns no socket: bytes arrive by :meth:`Link.data_received` and leave by a :class:`Channel`. (Its methods carry
the names asyncio gives a protocol's, so that the hot path has one call less.) It knows the answers' ends and
no SQL. The invariant: answers come in the order of the commands, each to whoever sent the command; a byte
that belongs to no answer ends the connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from homeworld.gateway.budget import Budget
from homeworld.model.errors import (
    ConnectionLostError,
    HomeworldError,
    MalformedPacketError,
    ServerError,
)
from homeworld.model.topology import Endpoint
from homeworld.wire.client import Collector
from homeworld.wire.constants import Status
from homeworld.wire.responses import Expect, Walker
from homeworld.wire.results import parse_err

MOST_COLLECTED = 256 << 20
"""Bytes of an answer that has no budget of its own; the largest are those that tell what a schema has."""


_OF_CLIENTS = range(2000, 3000)
"""Errors that client libraries keep for themselves."""
_UNKNOWN = 1105
_INTERRUPTED = 1317
_CANCELED = b"code = Canceled "


class Channel(Protocol):
    """What a link writes to; an asyncio transport is one."""

    def write(self, data: bytes) -> None:
        """Send bytes, now or as soon as the network takes them."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...

    def pause_reading(self) -> None:
        """Let no more bytes arrive."""
        ...

    def resume_reading(self) -> None:
        """Let bytes arrive again."""
        ...


class LinkOwner(Protocol):
    """Whoever uses the link right now: a session, or the pool."""

    def relayed(self, link: Link) -> None:
        """The relayed answer is complete (or the server waits for a local file): see ``link.walker``."""
        ...

    def answered(self, link: Link, reply: Reply) -> None:
        """A command sent by :meth:`Link.ask` has its answer."""
        ...

    def lost(self, link: Link, error: HomeworldError) -> None:
        """The connection is gone; nothing more will come from it."""
        ...

    def link_full(self, link: Link, *, full: bool) -> None:
        """The link cannot take more bytes for now, or can again."""
        ...


class Reply:
    """A whole answer, collected. ``error`` is set where the server answered with an error, was lost, or said
    more than its budget allows; ``raw`` is empty where it has a budget.
    """

    __slots__ = ("_capabilities", "_collector", "error", "ok", "prepared", "raw", "status")

    def __init__(
        self,
        capabilities: int,
        raw: bytes,
        walker: Walker | None,
        error: HomeworldError | None,
        collector: Collector | None = None,
    ) -> None:
        self._capabilities = capabilities
        self._collector = collector
        self.raw = raw
        self.status = walker.status if walker else 0
        self.prepared = walker.prepared if walker else b""
        self.ok = walker.ok if walker else b""
        self.error = error
        if error is None and walker is not None and walker.error:
            self.error = parse_err(walker.error)

    def check(self) -> None:
        """Raise the error, if the answer is one."""
        if self.error is not None:
            raise self.error

    def result(self) -> Collector:
        """The answer read as a text-protocol result.

        :raises HomeworldError: the answer is an error.
        """
        self.check()
        collector = self._collector
        if collector is None:
            collector = Collector(self._capabilities)
            collector.feed(self.raw)
        if not collector.done:
            raise MalformedPacketError("the answer is no result, or not all of one")
        return collector


class _Pending:
    __slots__ = ("budget", "collector", "expect", "parts", "size")

    def __init__(self, expect: int, budget: Budget | None, collector: Collector | None) -> None:
        self.expect = expect
        self.budget = budget
        self.collector = collector
        self.parts: list[bytes] = []
        self.size = 0


def _for_clients(data: bytes, error: bytes) -> bytes:
    """An answer that ends in an error, with a number that clients take from a server: vtgate hands on what
    its tablets had as clients themselves (2013), and to a client such a number is no answer; what KILL has
    ended has no number of its own.

    :param error: the error's payload.
    """
    if not data.endswith(error):
        return data
    said = error
    if int.from_bytes(error[1:3], "little") in _OF_CLIENTS:
        said = error[:1] + _UNKNOWN.to_bytes(2, "little") + error[3:]
    elif _CANCELED in error and error[3:4] == b"#":
        said = error[:1] + _INTERRUPTED.to_bytes(2, "little") + b"#70100" + error[9:]
    return data[: len(data) - len(error)] + said


def _nowhere(data: bytes) -> None:
    """Bytes of an answer whose client is gone."""


class Link:
    """One authenticated backend connection.

    What a session has brought it to (reset by :meth:`clean`):

    * ``schema``: its current schema.
    * ``sets``: how many of the session's SET statements it has performed.
    * ``began``: BEGIN of the session's transaction was sent to it.
    * ``multi``: whether it takes several statements in one text.
    * ``locked``: LOCK TABLES is in force on it.
    * ``vtgate``: it leads to a vtgate and not to a server.
    * ``turn``: the branch's (``Branch.turn``) when the transaction on it may have begun, or where none has,
      when the link was last made ready for a statement.
    """

    __slots__ = (
        "__weakref__",
        "_pending",
        "alive",
        "began",
        "capabilities",
        "channel",
        "endpoint",
        "endpoint_id",
        "key",
        "locked",
        "multi",
        "owner",
        "relaying",
        "schema",
        "send",
        "sets",
        "started",
        "thread_id",
        "turn",
        "vtgate",
        "walker",
    )

    def __init__(
        self, endpoint_id: str, channel: Channel, capabilities: int, owner: LinkOwner, *, thread_id: int = 0
    ) -> None:
        self.endpoint_id = endpoint_id
        self.channel = channel
        self.capabilities = capabilities
        self.owner = owner
        self.thread_id = thread_id
        self.key: object = None
        self.endpoint: Endpoint | None = None
        self.vtgate = False
        self.walker = Walker(capabilities)
        self.send: Callable[[bytes], object] = _nowhere
        self.alive = True
        self.relaying = False
        self.started = False
        self._pending: deque[_Pending] = deque()
        self.schema = ""
        self.sets = 0
        self.began = False
        self.multi = False
        self.locked = False
        self.turn = 0

    def clean(self, *, multi: bool) -> None:
        """The connection was reset on the server: nothing of a session is left on it. Its schema stays."""
        self.sets = 0
        self.began = False
        self.locked = False
        self.multi = multi
        self.started = False
        self.turn = 0
        self.send = _nowhere
        self.walker.status = Status.AUTOCOMMIT

    @property
    def busy(self) -> bool:
        """Whether an answer is outstanding."""
        return self.relaying or bool(self._pending)

    @property
    def open(self) -> bool:
        """Whether a transaction is open on the server, or the server was just asked to open one."""
        return self.began or bool(self.walker.status & Status.IN_TRANS)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, or tables are locked for us."""
        return self.began or self.locked or bool(self.walker.status & Status.IN_TRANS)

    def relay(self, packet: bytes, expect: int, send: Callable[[bytes], object]) -> None:
        """Send framed bytes of one command; hand its answer to ``send`` as it comes."""
        self.walker.begin(expect)
        self.send = send
        self.relaying = True
        self.started = False
        self.channel.write(packet)

    def tell(self, packet: bytes) -> None:
        """Send framed bytes of a command that has no answer."""
        self.channel.write(packet)

    def ask(self, packet: bytes, expect: int = Expect.RESULT, budget: Budget | None = None) -> None:
        """Send framed bytes of one command; its answer is collected for ``owner.answered``. Several may be
        outstanding.

        :param budget: how much may be collected, where that depends on how many rows there are.
        """
        collector = None if budget is None else Collector(self.capabilities)
        self._pending.append(_Pending(expect, budget, collector))
        if len(self._pending) == 1:
            self.walker.begin(expect)
        self.channel.write(packet)

    def mute(self) -> None:
        """Drop what still comes of the relayed answer: its client is gone."""
        self.send = _nowhere

    def close(self) -> None:
        """Close at once; the owner hears nothing more of it."""
        self.alive = False
        self.owner = _NOBODY
        self.channel.abort()

    def sever(self) -> None:
        """Close at once; the owner hears that it is lost."""
        self._broken(ConnectionLostError())

    def data_received(self, data: bytes) -> None:
        """Take bytes from the server."""
        if self.relaying:
            try:
                end = self.walker.feed(data)
                if end < 0:
                    self.started = True
                    self.send(data)
                    return
                if end != len(data):
                    raise MalformedPacketError("the server sent bytes nobody asked for")
                if self.vtgate and self.walker.error:
                    data = _for_clients(data, self.walker.error)
                self.send(data)
                self.relaying = False
                self.owner.relayed(self)
            except MalformedPacketError as error:
                self._broken(error)
            return
        try:
            self._collect(data)
        except MalformedPacketError as error:
            self._broken(error)

    def _collect(self, data: bytes) -> None:
        start = 0
        walker = self.walker
        while start < len(data):
            if not self._pending:
                raise MalformedPacketError("the server sent bytes nobody asked for")
            pending = self._pending[0]
            end = walker.feed(data, start)
            piece = data[start:] if end < 0 else data[start:end]
            if pending.budget is None:
                pending.parts.append(piece)
                pending.size += len(piece)
                if pending.size > MOST_COLLECTED:
                    raise MalformedPacketError("a server's answer is too large")
            elif not self._gather(pending, pending.budget, piece):
                self._broken(pending.budget.error or MalformedPacketError())
                return
            if end < 0:
                return
            start = end
            if walker.local_infile:
                # Nobody has a file for this statement: an empty one ends the request.
                pending.parts.clear()
                self.channel.write(b"\0\0\0" + bytes(((walker.sequence + 1) & 0xFF,)))
                walker.file_sent()
                continue
            over = None if pending.budget is None else pending.budget.error
            reply = Reply(self.capabilities, b"".join(pending.parts), walker, over, pending.collector)
            self._pending.popleft()
            if self._pending:
                walker.begin(self._pending[0].expect)
            self.owner.answered(self, reply)

    def _gather(self, pending: _Pending, budget: Budget, piece: bytes) -> bool:
        """Take a piece of an answer as far as its budget goes; false: the connection is to be closed."""
        collector = pending.collector
        if budget.error is None and collector is not None:
            before = len(collector.rows)
            try:
                collector.feed(piece)
            except ServerError:
                return True  # the walker has read it, too, and the reply says it
            budget.take(max(0, len(collector.rows) - before), len(piece))
        if budget.error is None:
            return True
        pending.collector = None
        return self in budget.kept

    def _broken(self, error: HomeworldError) -> None:
        self.channel.abort()
        self._lose(error)

    def _lose(self, error: HomeworldError) -> None:
        if not self.alive:
            return
        self.alive = False
        owner, unanswered = self.owner, len(self._pending)
        self._pending.clear()
        owner.lost(self, error)
        for _ in range(unanswered):
            owner.answered(self, Reply(self.capabilities, b"", None, error))

    # What asyncio calls.

    def connection_made(self, transport: Channel) -> None:
        """The channel was made before the link."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is gone."""
        lost = ConnectionLostError()
        lost.__cause__ = exc
        self._lose(lost)

    def eof_received(self) -> None:
        """The server has hung up; the channel closes itself."""

    def pause_writing(self) -> None:
        """The channel is full."""
        self.owner.link_full(self, full=True)

    def resume_writing(self) -> None:
        """The channel takes bytes again."""
        self.owner.link_full(self, full=False)


class _Nobody:
    """Owns links that were closed: nothing that they say matters any more."""

    def relayed(self, link: Link) -> None:
        """Nothing."""

    def answered(self, link: Link, reply: Reply) -> None:
        """Nothing."""

    def lost(self, link: Link, error: HomeworldError) -> None:
        """Nothing."""

    def link_full(self, link: Link, *, full: bool) -> None:
        """Nothing."""


_NOBODY = _Nobody()
