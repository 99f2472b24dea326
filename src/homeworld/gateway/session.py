"""A client's session: commands in, answers out, as a state machine that owns no socket and no time.

Theory of operation. A session is always in one phase (:data:`PHASES` lists what may follow what)::

    IDLE      waits for a command
    RELAY     a backend answers the client's command; bytes go through as they come
    FILE      the client sends the file of LOAD DATA LOCAL; bytes go through the other way
    DIALOGUE  a generator works on the command and waits for an effect's result
    CLOSED    the client is gone

The hot path is :meth:`Session.client_data` to :meth:`~homeworld.gateway.link.Link.relay` and back through
:meth:`Session.relayed`: one look-up of the plan, one of the link, nothing per row. It is taken only where
nothing has to be done before or after the statement; a link stands in ``ready`` only while that is true of
it. A statement that ends in a number and is handed through whatever the number is (``quick``) is not even
shown to the router again. Everything else is a dialogue (``statements``, ``prepared``, ``control``,
``handlers``).

A client that does not read is served no further: once its channel is full (``client_full``) the answer under
way is held back on its link and the next command waits, so that what is held for it is bounded.

The invariant: what the client sees is one server's answer to one command after another, in order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from homeworld.gateway.branch import Branch
from homeworld.gateway.dialogue import Ask, Dialogue, Effect, ReadClient, Relay
from homeworld.gateway.infile import FileTail
from homeworld.gateway.link import Link, Reply
from homeworld.gateway.phases import PHASES, Phase, Wait
from homeworld.gateway.plan import Pass, Plan
from homeworld.gateway.state import Outside, SessionState
from homeworld.model.errors import (
    ConnectionLostError,
    HomeworldError,
    MalformedPacketError,
    PacketsOutOfOrderError,
    ServerError,
    UnsupportedSqlError,
)
from homeworld.model.routing import Account
from homeworld.wire.packets import PacketBuffer, frame

__all__ = ["PHASES", "Handler", "Phase", "Session", "Wait"]

_LOG = logging.getLogger(__name__)
_INBOX_HIGH = 1 << 20
_SHORT = 1 << 13
_HEADERS = tuple(max(0, size - 4).to_bytes(4, "little") for size in range(_SHORT))
"""The header of a single packet that is ``size`` bytes long with it, the first of its command."""
_DIGITS = b"0123456789"
_MOST_QUICK = 512


_IDLE, _RELAY, _FILE, _DIALOGUE, _CLOSED = Phase


Handler = Callable[["Session", bytes], Dialogue[None]]
"""Serves one command: the session and the payload in, a dialogue out."""


class Session(SessionState):
    """One authenticated client, in motion. Parameters as in SessionState.

    :param max_packet: the largest command accepted, in bytes.
    :param handlers: what serves each command byte.
    """

    def __init__(
        self,
        *,
        number: int,
        account: Account,
        branch: Branch,
        capabilities: int,
        charset: int,
        outside: Outside,
        max_packet: int,
        handlers: Mapping[int, Handler],
    ) -> None:
        super().__init__(
            number=number,
            account=account,
            branch=branch,
            capabilities=capabilities,
            charset=charset,
            outside=outside,
        )
        self.phase: Phase = _IDLE
        self.dialogue: Dialogue[None] | None = None
        self.relaying: Link | None = None
        self._handlers = handlers
        self.max_packet = max_packet
        self._inbox = PacketBuffer(max_packet, drops=True)
        self._backlog = False
        self.end_after_refusal = False
        self.preplanned: Plan | None = None
        self._paused = False
        self._full = False
        self._held_back: list[Link] = []
        self._full_link: Link | None = None
        self._pumping = False
        self._replies: list[Reply | None] = []
        self._asked: list[Link] = []
        self._reading = False
        self._effect: Effect | None = None
        self._file = FileTail()
        self._file_bytes = 0

    # ---------------------------------------------------------------- the client's side

    def client_data(self, data: bytes) -> None:
        """Take bytes from the client."""
        guard = self.branch.guard
        if self.phase is _IDLE and not self._backlog and (guard is None or guard.live()):
            size = len(data)
            if 4 < size < _SHORT and data[:4] == _HEADERS[size]:
                command = data[4]
                if command == 3:
                    if 47 < data[-1] < 58:
                        quick = self.quick.get(data[5:].rstrip(_DIGITS))
                        if quick is not None and quick[2] == self.branch.tracker.version:
                            self._pass(quick[0], quick[1], data)
                            return
                    if self._query(data):
                        return
                elif command == 0x17:
                    again = self.executions.get(data[5:9])
                    if (
                        again is not None
                        and again.version == self.branch.tracker.version
                        and size > again.flag_at
                        and not (data[9] or data[again.flag_at] or again.statement.long_data)
                    ):
                        number = again.number
                        self._pass(again.plan, again.link, data[:5] + number + data[9:] if number else data)
                        return
                    if self._execution(data):
                        return
                self.sequence = 1
                self._command(data[4:])
                return
        self._take(data)

    def _query(self, data: bytes) -> bool:
        """Serve a whole COM_QUERY packet at once, if nothing has to be done before or after it."""
        size = len(data)
        semicolon = data.find(b";", 5)
        if 0 <= semicolon < size - 1:
            return False
        sql = data[5:]
        plan = self.branch.router.plan(sql, self.view)
        if type(plan) is Pass:
            footprint = plan.footprint
            entry = self.ready.get(id(plan.destination))
            if entry and footprint.verb in entry[2] and not (footprint.keeps_state or footprint.locking_read):
                if plan.sql != sql:
                    data = frame(b"\x03" + plan.sql)
                elif 47 < data[-1] < 58 and semicolon < 0:
                    self._recognise(sql, plan, entry[1])
                self._pass(plan, entry[1], data)
                return True
        self.preplanned = plan
        return False

    def _recognise(self, sql: bytes, plan: Pass, link: Link) -> None:
        """Know the next statement that differs from ``sql`` in nothing but the number at its end."""
        head = sql.rstrip(_DIGITS)
        if self.branch.passes(head, plan, self.view):
            if len(self.quick) > _MOST_QUICK:
                self.quick.clear()
            self.quick[head] = (plan, link, self.branch.tracker.version)

    def _execution(self, data: bytes) -> bool:
        """Serve a whole COM_STMT_EXECUTE packet at once, if nothing has to be done before or after it."""
        statement = self.statements.get(data[5:9])
        if statement is None or statement.passing is None:
            return False
        plan, branch = statement.passing, self.branch
        entry = self.ready.get(id(plan.destination))
        if (
            entry is None
            or statement.router is not branch.router
            or statement.version != branch.tracker.version
        ):
            return False
        link = entry[1]
        packet = statement.fast_packet(plan, link, data)
        if not packet:
            return False
        self.executions[statement.id] = statement.again(plan, link)
        self._pass(plan, link, packet)
        return True

    def _pass(self, plan: Pass, link: Link, packet: bytes) -> None:
        self.touched = True
        self.current = plan
        if self.noting:
            self.transaction.touch(plan.footprint, plan.destination, self.branch.turn)
        self.phase = _RELAY
        self.relaying = link
        link.relay(packet, 0, self.outside.send)

    def _take(self, data: bytes) -> None:
        if self.phase is _CLOSED:
            return
        if self.phase is _FILE:
            self._file_data(data)
            return
        self._inbox.feed(data)
        self._backlog = True
        waits = self._full or self.phase is not _IDLE
        if len(self._inbox) > _INBOX_HIGH and waits and not self._reading:
            self._paused = True
            self.outside.pause(paused=True)
        self._pump()

    def _pump(self) -> None:
        """Serve what the client has sent ahead, as far as the phase allows."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._backlog and not self._full and (self.phase is _IDLE or self._reading):
                # Commands begin at 0; what is asked for within one goes on behind the answer so far.
                first = self.sequence & 0xFF if self._reading else 0
                try:
                    payload = self._inbox.next(first)
                except MalformedPacketError as error:
                    self._backlog = self._inbox.begun
                    self.sequence = self._inbox.sequence
                    if self._reading or isinstance(error, PacketsOutOfOrderError):
                        # What was to come cannot be read any further.
                        self.refuse(error)
                        self.end(linger=True)
                        return
                    self.touched = True
                    self.refuse(ServerError(1153, "08S01", error.message))
                    continue
                if payload is None:
                    # Half a command stays in the inbox; the rest will be added to it (or dropped with it).
                    self._backlog = self._inbox.begun
                    break
                self._backlog = self._inbox.begun
                self.sequence = self._inbox.sequence
                if self._reading:
                    self._reading = False
                    self._advance(payload)
                else:
                    self._command(payload)
            if self._paused and not self._full and (self.phase is _IDLE or len(self._inbox) < _INBOX_HIGH):
                self._paused = False
                self.outside.pause(paused=False)
        finally:
            self._pumping = False

    def _command(self, payload: bytes) -> None:
        self.touched = True
        handler = self._handlers.get(payload[0]) if payload else None
        if handler is None:
            self.refuse(ServerError(1047, "08S01", "Unknown command"))
        else:
            self.start(handler(self, payload))

    def client_gone(self) -> None:
        """The client has hung up."""
        self.end()

    def client_full(self, *, full: bool) -> None:
        """The client cannot take more bytes for now, or can again."""
        if full:
            self._full = True
            self._hold_back()
            if self.phase is not _CLOSED:
                self._backlog = True  # whatever comes now waits in the inbox
            return
        self._full = False
        held, self._held_back = self._held_back, []
        for link in held:
            # It may have come to the end of its answer meanwhile; it must be able to begin another.
            link.channel.resume_reading()
        if self.phase is not _CLOSED:
            self._pump()

    def _hold_back(self) -> None:
        """Let no more come of the answer that is handed through."""
        link = self.relaying
        if link is not None and link.alive and link not in self._held_back:
            self._held_back.append(link)
            link.channel.pause_reading()

    @property
    def waits_for(self) -> tuple[Wait, int]:
        """What the session waits for, and a number that changes whenever some of it has come."""
        if self._full:
            return Wait.READER, 0
        if self.phase is _FILE:
            # Where the server takes no more, the client is not let send.
            return (Wait.REST if self._full_link is None else Wait.SERVER), self._file_bytes
        if self._reading or (self.phase is _IDLE and self._inbox.begun):
            return Wait.REST, self._inbox.fed
        return (Wait.COMMAND if self.phase is _IDLE else Wait.SERVER), 0

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, not even a transaction."""
        return self.phase is _IDLE and not self.in_transaction

    # ---------------------------------------------------------------- dialogues

    def start(self, dialogue: Dialogue[None]) -> None:
        """Serve a command by a dialogue."""
        self.dialogue = dialogue
        self.phase = _DIALOGUE
        self._advance(None)

    def resume(self, effect: Effect, value: object) -> bool:
        """The result of ``effect``; false if nobody waits for it any more."""
        if self.dialogue is None or self._effect is not effect:
            return False
        self._effect = None
        self._advance(value)
        self._pump()
        return True

    def fail(self, effect: Effect, error: HomeworldError) -> None:
        """``effect`` has failed."""
        if self.dialogue is not None and self._effect is effect:
            self._effect = None
            self._advance(None, error)
            self._pump()

    def interrupt(self, error: HomeworldError) -> bool:
        """End the wait for an effect with ``error`` (KILL QUERY); false if none is waited for."""
        effect = self._effect
        if effect is None:
            return False
        self.fail(effect, error)
        return True

    def _advance(self, value: object, error: HomeworldError | None = None) -> None:
        dialogue = self.dialogue
        assert dialogue is not None  # noqa: S101 callers have looked
        if self.phase is _CLOSED and not self.finishing:
            self._dispose()
            return
        while True:
            try:
                effect = dialogue.throw(error) if error is not None else dialogue.send(value)
            except StopIteration:
                self._finish()
                return
            except HomeworldError as problem:
                if self.phase is not _CLOSED:
                    self.refuse(problem)
                self._finish()
                if self.end_after_refusal:
                    self.end()
                return
            except Exception:  # noqa: BLE001 see below; it is logged with its traceback
                # A fault of ours must not harm other sessions, nor hang this one.
                _LOG.exception("session %d: a dialogue failed", self.number)
                if self.phase is not _CLOSED:
                    self.refuse(HomeworldError("internal error"))
                self.dialogue = None
                self.end()
                return
            value = error = None
            if self.phase is _CLOSED and not self.finishing:
                self._dispose()
                return
            match effect:
                case Ask(requests=()):
                    value = []
                case Ask():
                    self._ask(effect)
                    return
                case Relay():
                    error = self._relay(effect)
                    if error is None:
                        return
                case ReadClient():
                    self._reading = True
                    return
                case _:
                    self._effect = effect
                    self.outside.perform(self, effect)
                    return

    def _finish(self) -> None:
        self.dialogue = None
        self.joined = None
        self.finishing = False
        self.current = None
        if self.phase is _CLOSED:
            self._dispose()
            return
        self.phase = _IDLE
        if self.branch.draining:
            self.outside.progress(self)

    def _ask(self, effect: Ask) -> None:
        self._replies = [None] * len(effect.requests)
        self._asked = [request.link for request in effect.requests]
        for number, request in enumerate(effect.requests):
            if request.link.alive:
                request.link.ask(request.packet, request.expect, request.budget)
            else:
                self._replies[number] = Reply(self.capabilities, b"", None, ConnectionLostError())
        if all(reply is not None for reply in self._replies):
            # Every link was dead already: hand the news over as any other reply.
            replies, self._replies, self._asked = self._replies, [], []
            self._advance(replies)

    def _relay(self, effect: Relay) -> HomeworldError | None:
        link = effect.request.link
        if not link.alive:
            return ConnectionLostError()
        self.phase = _RELAY
        self.relaying = link
        if self._full:
            self._hold_back()
        send = self.outside.send if self.joined is None else self._send_joined
        link.relay(effect.request.packet, effect.request.expect, send)
        return None

    def _send_joined(self, data: bytes) -> None:
        if self.joined is not None:
            self.to_client(self.joined.feed(data))

    # ---------------------------------------------------------------- the servers' side

    def relayed(self, link: Link) -> None:
        """A relayed answer is complete, or the server waits for a file."""
        walker = link.walker
        if walker.noted and walker.local_infile:
            self._file_begin(link)
            return
        if walker.noted or walker.status != self.status:
            self.learn(link)
        self.relaying = None
        self.last = link
        if self.dialogue is not None:
            if self.phase is not _CLOSED:
                self.phase = _DIALOGUE
            self._advance(None)
            if self.phase is _CLOSED:
                return
        elif self.phase is _CLOSED:
            self._dispose()
            return
        else:
            self.current = None
            self.phase = _IDLE
            if self.branch.draining:
                self.outside.progress(self)
        if self._backlog:
            self._pump()

    def answered(self, link: Link, reply: Reply) -> None:
        """A collected answer has come."""
        for number, asked in enumerate(self._asked):
            if asked is link and self._replies[number] is None:
                self._replies[number] = reply
                break
        if any(found is None for found in self._replies):
            return
        replies, self._replies, self._asked = self._replies, [], []
        if self.dialogue is not None:
            self._advance(replies)
            self._pump()
        elif self.phase is _CLOSED:
            self._dispose()

    def lost(self, link: Link, error: HomeworldError) -> None:
        """A backend connection is gone."""
        self.forget(link)
        relayed = self.relaying is link
        if relayed:
            self.relaying = None
        self.link_full(link, full=False)
        if self.branch.draining:
            self.outside.progress(self)
        if self.phase is _CLOSED:
            if relayed:
                self._dispose()
        elif self.bonds.on(link) or (relayed and (link.started or self.phase is _FILE)):
            # State that cannot be had again, half an answer, half a file: no packet could set that right.
            self.end()
        elif relayed and self.dialogue is not None:
            self.phase = _DIALOGUE
            self._advance(None, error)
            self._pump()
        elif relayed:
            self.sequence = 1
            self.refuse(error)
            self._finish()
            self._pump()

    def link_full(self, link: Link, *, full: bool) -> None:
        """A link's channel is full, or takes bytes again."""
        if full and link is self.relaying:
            self._full_link = link
            self.outside.pause(paused=True)
        elif not full and link is self._full_link:
            # Perhaps its server has answered before it has read all.
            self._full_link = None
            self.outside.pause(paused=False)

    # ---------------------------------------------------------------- LOAD DATA LOCAL

    def _file_begin(self, link: Link) -> None:
        link.relaying = True
        if self.joined is not None or self.phase is _CLOSED:
            # The client is gone, or packet numbers would have to be rewritten both ways. An empty file ends
            # the request instead.
            link.walker.file_sent()
            link.mute()
            link.tell(b"\0\0\0" + bytes(((link.walker.sequence + 1) & 0xFF,)))
            if self.phase is _CLOSED:
                return
            self.refuse(UnsupportedSqlError("VT12001: unsupported: LOAD DATA LOCAL among other statements"))
            self.end()
            return
        self.phase = _FILE
        self._file = FileTail()
        self._backlog = self._full
        if len(self._inbox):
            self._file_data(self._inbox.rest())

    def _file_data(self, data: bytes) -> None:
        link = self.relaying
        assert link is not None  # noqa: S101 FILE has a link
        self._file_bytes += len(data)
        end = self._file.feed(data)
        if end < 0:
            link.tell(data)
            return
        self.phase = _RELAY
        link.walker.file_sent()
        link.tell(data[:end])
        if end < len(data):
            self._take(data[end:])

    # ---------------------------------------------------------------- the end

    def end(self, *, linger: bool = False) -> None:
        """End the session: the client's connection closes; writes under way are seen to their end.

        :param linger: the client is still sending, and has to be able to read why it is ended.
        """
        if self.phase is _CLOSED:
            return
        file, self.phase = self.phase is _FILE, _CLOSED
        self._reading = False
        self._effect = None
        self.closed = True
        self._backlog = False
        self._inbox = PacketBuffer(0)
        self.outside.close(linger=linger)
        self.client_full(full=False)
        link = self.relaying
        if link is not None:
            # The server goes on with a write whether we listen or not; a hold must not think it has ended.
            link.mute()
            if not file and (self.current is None or self.current.footprint.writes):
                return
            self.relaying = None
            self.links.pop(link.endpoint_id, None)
            link.close()
        elif self._asked:
            return
        if self.dialogue is None or not _running(self.dialogue):
            self._dispose()

    def _dispose(self) -> None:
        if self.dialogue is not None:
            self.dialogue.close()
            self.dialogue = None
        self.current = None
        self.drop_links()
        self.transaction.over()
        self.outside.gone(self)


def _running(dialogue: Dialogue[None]) -> bool:
    return bool(getattr(dialogue, "gi_running", False))
