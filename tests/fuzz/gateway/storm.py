"""A session between a client and servers that send anything at all, without sockets.

One case is one seed: a session, some dozens of random moves, then everybody leaves. Held: no exception but
the protocol's own (a dialogue that fails by another is found in the log), nothing written to who is gone, no
change of phase that the table does not list, memory within bounds, and in the end nothing that the session
still has: every connection given back or closed, no effect waited for, no hold that counts it.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from dataclasses import replace
from typing import Self

from homeworld.gateway.branch import Branch
from homeworld.gateway.dialogue import (
    Authenticate,
    Connect,
    Effect,
    LoadSchema,
    TakeSequence,
    WaitHold,
)
from homeworld.gateway.handlers import HANDLERS, greet
from homeworld.gateway.link import Link
from homeworld.gateway.router import Router
from homeworld.gateway.session import Phase
from homeworld.gateway.state import SessionState
from homeworld.model.errors import ConnectionLostError, HomeworldError, UnauthorizedError
from homeworld.model.routing import Account, BranchRoutes, HoldRequest, KeyspaceRoute, ShardRoute
from homeworld.model.topology import BackendRole, Endpoint, Flavor, TabletType
from homeworld.wire.client import DEFAULT_CAPABILITIES
from homeworld.wire.constants import Cap, Com
from homeworld.wire.packets import PacketBuffer
from tests.fuzz.gateway import packets
from tests.support.playbook import CheckedSession

MAX_PACKET = 1 << 13
MOST_HELD = 4 << 20
"""Bytes that one session may hold of a client that sends everything at once and reads nothing."""
_HIGH_WATER = 1 << 16
_LOGGERS = ("homeworld", "asyncio")
_SILENT = frozenset({Com.STMT_CLOSE, Com.STMT_SEND_LONG_DATA, Com.QUIT})


class Failures(logging.Handler):
    """Keeps what is logged with an exception: a fault of the gateway's own, or one that nobody caught."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or record.name == "asyncio":
            self.found.append(self.format(record))

    def __enter__(self) -> Self:
        for name in _LOGGERS:
            logging.getLogger(name).addHandler(self)
        return self

    def __exit__(self, *exc: object) -> None:
        for name in _LOGGERS:
            logging.getLogger(name).removeHandler(self)


class Server:
    """One backend connection's other end."""

    def __init__(self) -> None:
        self.asked: deque[int] = deque()
        self.written = PacketBuffer(1 << 24)
        self.aborted = False
        self.paused = False
        self.file = False

    def write(self, data: bytes) -> None:
        assert not self.aborted, "written to a server whose connection was closed"
        self.written.feed(data)
        while (payload := self.written.next()) is not None:
            if not self.file and payload and payload[0] not in _SILENT:
                self.asked.append(payload[0])
        if self.file and data.endswith(b"\0"):
            self.file = False

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Storm:
    """One case."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.capabilities = int(DEFAULT_CAPABILITIES)
        for cap in (Cap.MULTI_STATEMENTS, Cap.SESSION_TRACK, Cap.LOCAL_FILES):
            if rng.random() < 0.6:
                self.capabilities |= cap
        if rng.random() < 0.3:
            self.capabilities &= ~Cap.DEPRECATE_EOF
        self.effects: list[Effect] = []
        self.links: list[tuple[Link, Server]] = []
        self.given_back: list[Link] = []
        self.hung_up = self.gone_once = self.client_left = False
        self.reading_paused = self.full = False
        self.unread = self.most_unread = 0
        self.hold: str = ""
        role = rng.choice(
            (
                BackendRole.ADMIN,
                BackendRole.ADMIN,
                BackendRole.READER,
                BackendRole.WRITER,
                BackendRole.READWRITER,
            )
        )
        shared = rng.random() < 0.3
        keyspaces = {
            name: KeyspaceRoute(
                name,
                False,
                {},
                (ShardRoute("-", name, Endpoint(server, Flavor.MYSQL, "", 0, server, "", ""), ()),),
            )
            for name, server in (("a", "one"), ("b", "one" if shared else "two"))
        }
        rules = {f"{ks}{number}": f"{ks}.{ks}{number}" for ks in "ab" for number in range(1, 4)}
        self.routes = BranchRoutes(
            "branch", "org", "app", "main", Flavor.MYSQL, 1, keyspaces, rules, "a",
            {of: (of.value, "x") for of in BackendRole},
        )  # fmt: skip
        self.branch = Branch(self.routes, Router)
        self.session = CheckedSession(
            number=1,
            account=self._account(role),
            branch=self.branch,
            capabilities=self.capabilities,
            charset=45,
            outside=self,
            max_packet=MAX_PACKET,
            handlers=HANDLERS,
        )
        self.branch.sessions.add(self.session)
        self.session.start(greet(self.session, rng.choice(("", "app", "b", "nowhere"))))

    @staticmethod
    def _account(role: BackendRole) -> Account:
        return Account(role.value, "branch", role, b"", b"", (), None, replica=False)

    # ------------------------------------------------------------------ what the session calls

    def send(self, data: bytes) -> None:
        assert not self.hung_up, "sent to a client whose connection is closing"
        self.unread += len(data)
        self.most_unread = max(self.most_unread, self.unread)
        if self.unread > _HIGH_WATER and not self.full:
            self.full = True
            self.session.client_full(full=True)

    def close(self, *, linger: bool = False) -> None:  # noqa: ARG002 there is no kernel here
        self.hung_up = True

    def pause(self, *, paused: bool) -> None:
        self.reading_paused = paused

    def perform(self, session: SessionState, effect: Effect) -> None:
        assert session is self.session
        if isinstance(effect, WaitHold):
            effect.hold.waiters.append(lambda: self._let_go(effect))
        else:
            self.effects.append(effect)

    def _let_go(self, effect: Effect) -> None:
        self.session.resume(effect, None)

    def give_back(self, link: Link) -> None:
        assert link not in self.given_back, "given back twice"
        self.given_back.append(link)
        link.owner = _POOL

    def progress(self, session: SessionState) -> None:
        assert session is self.session
        self.branch.holds.settle(self.branch.sessions)
        self.branch.draining = self.branch.holds.draining

    def gone(self, session: SessionState) -> None:
        assert not self.gone_once, "gone twice"
        assert session is self.session
        self.gone_once = True
        self.branch.sessions.discard(self.session)

    # ------------------------------------------------------------------ moves

    def run(self, moves: int = 80) -> None:
        """Play the case to its end. :raises AssertionError: something does not hold."""
        for _ in range(moves):
            self.move()
            if self.session.phase is Phase.CLOSED and self.gone_once:
                break
        self.finish()

    def move(self) -> None:
        rng = self.rng
        choice = rng.random()
        if self.effects and choice < 0.5:
            self._answer_effect(self.effects.pop(rng.randrange(len(self.effects))))
        elif choice < 0.62:
            self._client()
        elif choice < 0.92:
            self._server()
        else:
            self._other()

    def _client(self) -> None:
        if self.hung_up or self.client_left or self.reading_paused:
            return
        rng = self.rng
        file = self.session.phase is Phase.FILE
        data = packets.file_chunk(rng) if file and rng.random() < 0.9 else packets.client_chunk(rng)
        while data and not self.hung_up and not self.reading_paused:
            size = rng.choice((len(data), len(data), 1, 3, rng.randrange(1, len(data) + 1)))
            self.session.client_data(data[:size])
            data = data[size:]
        held = len(self.session._inbox)  # type: ignore[reportPrivateUsage]
        assert held + self.unread < MOST_HELD, f"{held} + {self.unread} bytes held"

    def _server(self) -> None:
        waiting = [
            (link, end) for link, end in self.links if not end.aborted and not end.paused and link.alive
        ]
        if not waiting:
            return
        rng = self.rng
        busy = [(link, end) for link, end in waiting if end.asked]
        link, end = rng.choice(busy or waiting)
        if not end.asked and rng.random() < 0.95:
            return  # servers say nothing by themselves, mostly
        asked = end.asked.popleft() if end.asked else 0
        data = packets.server_chunk(rng, asked, link.capabilities)
        while data and not end.aborted and link.alive:
            size = rng.choice((len(data), len(data), 1, 5, rng.randrange(1, len(data) + 1)))
            link.data_received(data[:size])
            data = data[size:]
        end.file = link.walker.local_infile and link.alive

    def _other(self) -> None:
        rng, session = self.rng, self.session
        match rng.randrange(12):
            case 0 | 1:
                self._read_some()
            case 2 if self.links:
                link, end = rng.choice(self.links)
                if not end.aborted:
                    link.connection_lost(None)
                    end.aborted = True
            case 3:
                if not self.hold:
                    self.hold = "h"
                    tables = frozenset({("a", "a1"), ("b", "b1")})
                    self.branch.holds.begin(
                        HoldRequest("h", "branch", tables, frozenset({TabletType.PRIMARY}), 1.0, 1.0)
                    )
                    session.unready_all()
                    self.branch.draining = True
                    self.progress(session)
                else:
                    self._release()
            case 4:
                rules = {**self.routes.rules, "a1": rng.choice(("a.a1", "b.a1"))}
                routes = replace(self.routes, version=rng.randrange(100), rules=rules)
                self.branch.replace_routes(routes, self.branch.router_for(routes))
                session.renew()
            case 5:
                session.interrupt(ConnectionLostError())
            case 6 if self.links:
                link, end = rng.choice(self.links)
                if link.alive and not end.aborted:
                    (link.pause_writing if rng.random() < 0.5 else link.resume_writing)()
            case 7 if rng.random() < 0.3:
                session.end()
            case 8 if rng.random() < 0.3:
                self._leave()
            case 9:
                self.unread += _HIGH_WATER  # as if the network had stopped
                if not self.full:
                    self.full = True
                    session.client_full(full=True)
            case _:
                pass

    def _read_some(self) -> None:
        self.unread = 0
        if self.full:
            self.full = False
            self.session.client_full(full=False)

    def _leave(self) -> None:
        if not self.client_left:
            self.client_left = self.hung_up = True
            self.session.client_gone()

    def _release(self) -> None:
        hold = self.branch.holds.end(self.hold)
        self.hold = ""
        self.branch.draining = self.branch.holds.draining
        if hold is not None:
            waiters, hold.waiters = hold.waiters, []
            for wake in waiters:
                wake()

    def _answer_effect(self, effect: Effect) -> None:
        rng, session = self.rng, self.session
        if rng.random() < 0.15:
            session.fail(effect, ConnectionLostError("no answer"))
            return
        match effect:
            case Connect(endpoint, capabilities, _, schema):
                end = Server()
                link = Link(endpoint.server_id, end, capabilities, _POOL)
                link.schema = schema
                link.multi = bool(capabilities & Cap.MULTI_STATEMENTS)
                self.links.append((link, end))
                if not session.resume(effect, link):
                    self.give_back(link)
            case LoadSchema(keyspace):
                tables = [b"%s%d" % (keyspace.encode(), number) for number in range(1, 4)]
                self.branch.tracker.loaded(keyspace, keyspace, map(_column, tables), [])
                session.resume(effect, None)
            case TakeSequence(_, _, count):
                session.resume(effect, tuple(range(count)))
            case Authenticate(user):
                if user == "admin" and rng.random() < 0.7:
                    session.resume(effect, self._account(BackendRole.ADMIN))
                else:
                    session.fail(effect, UnauthorizedError())
            case _:
                if rng.random() < 0.2:
                    session.fail(effect, HomeworldError("no"))
                else:
                    session.resume(effect, None)

    # ------------------------------------------------------------------ the end

    def finish(self) -> None:
        """Everybody leaves: nothing may be left."""
        if self.hold:
            self._release()
        self._read_some()
        self._leave()
        for _ in range(100):
            if not self.effects and all(end.aborted or not end.asked for _, end in self.links):
                break
            while self.effects:
                self._answer_effect(self.effects.pop())
            for link, end in self.links:
                if not end.aborted:
                    end.aborted = True
                    link.connection_lost(None)
        for link, end in self.links:
            if not end.aborted:
                end.aborted = True
                link.connection_lost(None)
        session = self.session
        assert session.phase is Phase.CLOSED
        assert session.dialogue is None, "a dialogue waits for ever"
        assert self.gone_once, "the session has not told that it has ended"
        assert not session.links, "connections are left"
        assert not session.under_way
        assert list(session.touches()) == []
        for link, end in self.links:
            assert link in self.given_back or end.aborted, "a connection was lost sight of"


def _column(table: bytes) -> tuple[bytes | None, ...]:
    return (table, b"id", b"int", b"int", b"NO", None, None, b"", None, None)


class _Pool:
    """Owns links that no session has."""

    def relayed(self, link: Link) -> None:
        pass

    def answered(self, link: Link, reply: object) -> None:
        pass

    def lost(self, link: Link, error: HomeworldError) -> None:
        pass

    def link_full(self, link: Link, *, full: bool) -> None:
        pass


_POOL = _Pool()
