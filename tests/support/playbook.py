"""Transcripts of a gateway session without sockets: ``>>`` goes in, ``<<`` must come out.

Two keyspaces, ``a`` on server ``one`` and ``b`` on server ``two``; a table's name begins with its keyspace's
letter unless a rule says otherwise. With ``shared`` both are schemas of server ``one``. With ``vtgate`` the
branch is planned by a vtgate, ``gate``. In::

    >> client QUERY select 1        >> client PING | INIT_DB x | PREPARE sql | EXECUTE n | CLOSE n | RESET
    >> client gone                  >> client BYTES 0102ff
    >> one OK [trans] [noauto] [rows=3] [id=7]
    >> one ERR 1213                 >> one ROWS 1,2 [trans]       >> one PREPARED parameters columns
    >> one lost                     >> one PART                    (half an answer)
    >> connected one                >> unreachable one
    >> hold h a.t1                  >> release h                   >> move t1 b
    >> ids 5 6                      >> loaded
    >> lapse a.t1                   >> live        (what moves, and the lease under which it is served)

Out: the same words for what the client and the servers get, ``connect one``, ``wait h``, ``held h``,
``give back one``, ``close one``, ``hang up``, ``gone``. Lines between two ``>>`` are compared as a whole;
what the client gets stands behind what the servers get.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace

from homeworld.gateway.branch import Branch, RouterFactory
from homeworld.gateway.dialogue import Connect, Effect, LoadSchema, Ponder, TakeSequence, WaitHold
from homeworld.gateway.handlers import HANDLERS
from homeworld.gateway.link import Link
from homeworld.gateway.session import PHASES, Phase, Session
from homeworld.gateway.state import SessionState
from homeworld.model.errors import ServerError
from homeworld.model.routing import Account, BranchRoutes, HoldRequest, KeyspaceRoute, Moving, ShardRoute
from homeworld.model.topology import BackendRole, Endpoint, Flavor, TabletType
from homeworld.wire.client import DEFAULT_CAPABILITIES
from homeworld.wire.constants import Cap, Com, Status
from homeworld.wire.packets import PacketBuffer, frame
from homeworld.wire.results import ColumnDefinition, Ok, build_err, build_result, build_text_row, is_end
from tests.support.plain_router import PlainRouter

_KNOWN = frozenset(map(int, Com))
CAPABILITIES = DEFAULT_CAPABILITIES | Cap.MULTI_STATEMENTS


class CheckedSession(Session):
    """Refuses every change of phase that the table does not list."""

    arrows: set[tuple[Phase, Phase]]

    @property  # a plain attribute there; checked here
    def phase(self) -> Phase:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._phase

    @phase.setter
    def phase(self, to: Phase) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        before: Phase | None = getattr(self, "_phase", None)
        assert before in {None, to} or to in PHASES[before], f"{before} -> {to}"  # type: ignore[index]
        if before is None:
            self.arrows = set()
        elif before is not to:
            self.arrows.add((before, to))
        self._phase = to


class FakeChannel:
    """Notes what is written to a server."""

    def __init__(self, name: str, note: Callable[[str], None]) -> None:
        self.name = name
        self.note = note
        self.asked: list[int] = []
        self._packets = PacketBuffer()

    def write(self, data: bytes) -> None:
        self._packets.feed(data)
        while (payload := self._packets.next()) is not None:
            if not payload:
                self.note(f"{self.name} FILE END")
                continue
            command = payload[0]
            name = Com(command).name if command in _KNOWN else f"bytes {command:#x}"
            if command in {Com.STMT_EXECUTE, Com.STMT_CLOSE, Com.STMT_RESET}:
                self.note(f"{self.name} {name} {int.from_bytes(payload[1:5], 'little')}")
            else:
                self.note(f"{self.name} {name} {payload[1:].decode('utf-8', 'replace')}".rstrip())
            if command not in {Com.STMT_CLOSE, Com.STMT_SEND_LONG_DATA}:
                self.asked.append(command)

    def abort(self) -> None:
        self.note(f"close {self.name}")

    def pause_reading(self) -> None:
        self.note(f"pause {self.name}")

    def resume_reading(self) -> None:
        self.note(f"resume {self.name}")


class FakeLease:
    """Lives until it is told not to."""

    def __init__(self) -> None:
        self.lives = True

    def live(self) -> bool:
        return self.lives


class Playbook:
    """One session and its surroundings."""

    def __init__(
        self,
        router: RouterFactory = PlainRouter,
        *,
        role: BackendRole = BackendRole.ADMIN,
        capabilities: int = CAPABILITIES,
        shared: bool = False,
        vtgate: bool = False,
        replica: bool = False,
        charset: int = 45,
    ) -> None:
        self.out: list[str] = []
        self.capabilities = capabilities
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
        rules["t1"] = "a.t1"
        routes = BranchRoutes(
            "branch", "org", "app", "main", Flavor.MYSQL, 1, keyspaces, rules, "a",
            {role: (role.value, "x") for role in BackendRole},
            vtgate=Endpoint("gate", Flavor.MYSQL, "", 0, "gate", "", "", vtgate=True) if vtgate else None,
        )  # fmt: skip
        self.lease = FakeLease()
        self.branch = Branch(routes, router, lease=self.lease)
        self.effects: list[Effect] = []
        self.channels: dict[str, FakeChannel] = {}
        self.links: dict[str, Link] = {}
        self._client = PacketBuffer()
        self._prepared = 10
        self.session = CheckedSession(
            number=1,
            account=Account(role.value, "branch", role, b"", b"", (), None, replica=replica),
            branch=self.branch,
            capabilities=capabilities,
            charset=charset,
            outside=self,
            max_packet=1 << 24,
            handlers=HANDLERS,
        )
        self.branch.sessions.add(self.session)

    # what the session calls

    def send(self, data: bytes) -> None:
        self._client.feed(data)

    def close(self, *, linger: bool = False) -> None:
        self.out.append("hang up when it has read" if linger else "hang up")

    def pause(self, *, paused: bool) -> None:
        self.out.append("pause client" if paused else "resume client")

    def perform(self, session: SessionState, effect: Effect) -> None:  # noqa: ARG002 there is one session
        self.effects.append(effect)
        match effect:
            case Connect(endpoint):
                aimed = f" {effect.schema}" if endpoint.vtgate else ""
                self.out.append(f"connect {endpoint.server_id}{aimed}")
            case WaitHold(hold):
                self.out.append(f"wait {hold.request.hold_id}")
                hold.waiters.append(lambda: self._resume(effect, None))
            case TakeSequence(keyspace, table, count):
                self.out.append(f"take {count} of {keyspace}.{table}")
            case LoadSchema(keyspace):
                self.out.append(f"load {keyspace}")
            case Ponder():
                self.out.append("ponder")
            case _:
                self.out.append(type(effect).__name__)

    def give_back(self, link: Link) -> None:
        self.out.append(f"give back {link.endpoint_id}")

    def progress(self, session: SessionState) -> None:  # noqa: ARG002 there is one session
        for hold in self.branch.holds.settle(self.branch.sessions):
            self.out.append(f"held {hold.request.hold_id}")
        self.branch.draining = self.branch.holds.draining

    def gone(self, session: SessionState) -> None:  # noqa: ARG002 there is one session
        self.out.append("gone")
        self.branch.sessions.discard(self.session)

    # the playbook

    def play(self, script: str) -> None:
        """Run a transcript; what comes out between two ``>>`` must be exactly the lines that stand there."""
        expected: list[str] = []
        seen: list[str] = []
        for line in [*script.strip().splitlines(), ">>"]:
            text = line.strip()
            if text.startswith("<<"):
                expected.append(text)
            elif text.startswith(">>"):
                seen += [f"<< {found}" for found in self.drain()]
                if seen != expected:
                    diff = difflib.unified_diff(expected, seen, "expected", "seen", lineterm="", n=6)
                    raise AssertionError("\n".join(diff))
                seen.append(text)
                expected.append(text)
                self.event(text[2:].strip())

    def drain(self) -> list[str]:
        found, self.out = [*self.out, *self._client_lines()], []
        return found

    def event(self, text: str) -> None:
        who, _, what = text.partition(" ")
        match who:
            case "":
                return
            case "client":
                self._client_event(what)
            case "connected":
                self._connected(what)
            case "unreachable":
                effect = self._pending(Connect)
                self.session.fail(effect, ServerError(1105, "HY000", "cannot connect"))
            case "hold":
                self._hold(what)
            case "release":
                hold = self.branch.holds.end(what)
                assert hold is not None
                self.branch.draining = self.branch.holds.draining
                for wake in hold.waiters:
                    wake()
            case "move":
                name, _, keyspace = what.partition(" ")
                to = f"{keyspace}.{name.rpartition('.')[2]}"
                routes = replace(self.branch.routes, rules={**self.branch.routes.rules, name: to})
                self.branch.replace_routes(routes, self.branch.router_for(routes))
                self.session.renew()
            case "lapse":
                keyspace, _, table = what.partition(".")
                routes = replace(self.branch.routes, moving=Moving(frozenset({(keyspace, table)}), 1))
                self.branch.replace_routes(routes, self.branch.router_for(routes))
                self.lease.lives = False
            case "live":
                self.lease.lives = True
                self.branch.look()
            case "ids":
                self._resume(self._pending(TakeSequence), tuple(map(int, what.split())))
            case "pondered":
                effect = self._pending(Ponder)
                assert isinstance(effect, Ponder)
                self._resume(effect, effect.work())
            case "loaded":
                effect = self._pending(LoadSchema)
                assert isinstance(effect, LoadSchema)
                self.branch.tracker.loaded(effect.keyspace, effect.keyspace, [], [])
                self._resume(effect, None)
            case _:
                self._server_event(who, what)

    def _pending(self, kind: type) -> Effect:  # the test fails where there is none
        found = next(effect for effect in self.effects if isinstance(effect, kind))
        self.effects.remove(found)
        return found

    def _resume(self, effect: Effect, value: object) -> None:
        self.session.resume(effect, value)

    def _connected(self, server: str) -> None:
        effect = self._pending(Connect)
        assert isinstance(effect, Connect)
        assert effect.endpoint.server_id == server
        channel = self.channels[server] = FakeChannel(server, self._note)
        link = self.links[server] = Link(server, channel, self.capabilities, self.session)
        link.schema = effect.schema
        link.endpoint = effect.endpoint
        link.vtgate = effect.endpoint.vtgate
        link.multi = bool(self.capabilities & Cap.MULTI_STATEMENTS) and not link.vtgate
        if not self.session.resume(effect, link):
            self.give_back(link)

    def _note(self, line: str) -> None:
        self.out.append(line)

    def _hold(self, what: str) -> None:
        hold_id, *tables = what.split()
        named = frozenset((table.split(".")[0], table.split(".")[1]) for table in tables)
        self.branch.holds.begin(
            HoldRequest(hold_id, "branch", named, frozenset({TabletType.PRIMARY}), 1.0, 1.0)
        )
        self.session.unready_all()
        self.branch.draining = True
        self.progress(self.session)

    def _client_event(self, what: str) -> None:
        command, _, rest = what.partition(" ")
        number = int(rest).to_bytes(4, "little") if command in {"EXECUTE", "CLOSE"} else b""
        payloads = {
            "QUERY": b"\x03" + rest.encode(),
            "PING": b"\x0e",
            "INIT_DB": b"\x02" + rest.encode(),
            "PREPARE": b"\x16" + rest.encode(),
            "EXECUTE": b"\x17" + number + b"\0\1\0\0\0",
            "CLOSE": b"\x19" + number,
            "RESET": b"\x1f",
            "QUIT": b"\x01",
        }
        if command == "gone":
            self.session.client_gone()
        elif command == "BYTES":
            self.session.client_data(bytes.fromhex(rest))
        else:
            self.session.client_data(frame(payloads[command]))

    def _server_event(self, server: str, what: str) -> None:
        link = self.links[server]
        kind, *words = what.split()
        if kind == "lost":
            link.connection_lost(None)
            return
        channel = self.channels[server]
        command = channel.asked.pop(0) if channel.asked else 0
        status = Status(0) if "noauto" in words else Status.AUTOCOMMIT
        if "trans" in words:
            status |= Status.IN_TRANS
        facts = dict(word.split("=") for word in words if "=" in word)
        match kind:
            case "OK":
                ok = Ok(int(facts.get("rows", 0)), int(facts.get("id", 0)), status)
                link.data_received(frame(ok.build(self.capabilities), 1))
            case "ERR":
                link.data_received(frame(build_err(int(words[0]), "HY000", "sorry"), 1))
            case "ROWS":
                rows = [build_text_row((value.encode(),)) for value in words[0].split(",")]
                data, _ = build_result(
                    [ColumnDefinition(b"c", 253).build()], rows, self.capabilities, status, 1
                )
                link.data_received(data)
            case "PART":
                data, _ = build_result(
                    [ColumnDefinition(b"c", 253).build()], [], self.capabilities, status, 1
                )
                link.data_received(data[:20])
            case "PREPARED":
                assert command == Com.STMT_PREPARE
                self._prepared += 1
                parameters, columns = int(words[0]), int(words[1])
                head = b"\0" + self._prepared.to_bytes(4, "little") + columns.to_bytes(2, "little")
                packets = [head + parameters.to_bytes(2, "little") + b"\0\0\0"]
                packets += [ColumnDefinition(b"c", 253).build()] * (parameters + columns)
                link.data_received(b"".join(frame(packet, at + 1) for at, packet in enumerate(packets)))
            case _:
                raise AssertionError(what)

    def _client_lines(self) -> list[str]:
        lines: list[str] = []
        rows: list[str] | None = None
        skip = 0
        while (payload := self._client.next()) is not None:
            if skip:
                skip -= 1
                if not skip:
                    rows = []
            elif rows is not None and payload[0] not in {0xFE, 0xFF}:
                rows.append(payload[1:].decode())
            elif rows is not None and is_end(payload, self.capabilities):
                lines.append(f"client ROWS {','.join(rows)}{self._flags(payload)}")
                rows = None
            elif payload[0] == 0xFF:
                lines.append(f"client ERR {int.from_bytes(payload[1:3], 'little')} {payload[9:].decode()}")
            elif (
                payload[0] == 0
                and len(payload) == 12
                and self.session.phase is Phase.IDLE
                and not payload[10:12].strip(b"\0")
            ):
                lines.append(f"client PREPARED {int.from_bytes(payload[1:5], 'little')}")
            elif payload[0] == 0:
                lines.append(f"client OK{self._flags(payload)}")
            else:
                skip = payload[0]
        return lines

    def _flags(self, payload: bytes) -> str:
        ok = Ok.parse(payload, self.capabilities)
        said = " trans" if ok.status & Status.IN_TRANS else ""
        said += " more" if ok.status & Status.MORE_RESULTS_EXISTS else ""
        said += f" rows={ok.affected_rows}" if ok.affected_rows else ""
        return said + (f" id={ok.last_insert_id}" if ok.last_insert_id else "")
