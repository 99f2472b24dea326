"""Prepared statements of one session: known to the client by one id, prepared wherever they are executed.

A statement is prepared again, unseen, on each server its executions go to: after a switch, or where its
values choose the shard. The client binds types once; they are remembered here, because a server that comes
later has never seen them. Where one execution needs several shards it becomes text with the values as
literals, and the rows become binary ones again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from homeworld.gateway import statements
from homeworld.gateway.beside import LARGE
from homeworld.gateway.dialogue import Dialogue, Relay, Request, ask_one
from homeworld.gateway.link import Link
from homeworld.gateway.plan import (
    Answer,
    Control,
    NeedLastId,
    NeedSchema,
    NeedSequence,
    Pass,
    Plan,
    Prepared,
    Refuse,
    RouterPort,
    Scatter,
    SessionView,
    Target,
)
from homeworld.gateway.roles import READS
from homeworld.gateway.session import Session
from homeworld.model.errors import MalformedPacketError, ServerError, UnsupportedSqlError
from homeworld.model.topology import TabletType
from homeworld.wire import commands
from homeworld.wire.constants import Cap, Status
from homeworld.wire.packets import TOO_LARGE, frame
from homeworld.wire.responses import Expect
from homeworld.wire.results import ColumnDefinition, build_eof

_CURSOR = 1
_EXECUTE_HEAD = 10
"""Bytes of COM_STMT_EXECUTE before its parameters: command, statement, flags, iterations."""
_FETCH_HEAD = 9
_UNSAFE_CHARSETS = frozenset({"big5", "sjis", "gbk", "cp932", "gb18030", "ucs2", "utf16", "utf16le", "utf32"})
"""Their characters may contain the byte of a backslash or a quote."""
_MOST = 16_382


@dataclass(slots=True, eq=False)
class Statement:
    """One prepared statement.

    * ``target``: the session's when it was prepared.
    * ``plan``: where it was planned to be prepared, by ``router`` when the known tables were at ``version``;
      ``fixed``: all executions go there.
    * ``on``: the id it has on each link, as 4 bytes; ``bound``: the links that know ``types``.
    * ``types``: two bytes for each parameter, as the client bound them last; empty before.
    * ``prepared_sql``: the text it has on the links in ``on``.
    * ``schemas``: the schema in which it was prepared on each link in ``on``, where a server looks tables up
      for ever after; ``elsewhere``: what it is in other schemas of the same link (several shards of one
      server), by link and schema.
    * ``too_long``: more was sent ahead for the next execution than the gateway takes.
    * ``passing``: the plan, where an execution needs nothing before or after it.
    """

    id: bytes
    sql: bytes
    plan: Plan
    target: Target
    router: RouterPort
    version: int
    fixed: bool
    passing: Pass | None
    parameters: int = 0
    columns: int = 0
    types: bytes = b""
    on: dict[Link, bytes] = field(default_factory=dict[Link, bytes])
    schemas: dict[Link, str] = field(default_factory=dict[Link, str])
    elsewhere: dict[tuple[Link, str], bytes] = field(default_factory=dict[tuple[Link, str], bytes])
    bound: set[Link] = field(default_factory=set[Link])
    long_data: dict[int, bytearray] = field(default_factory=dict[int, bytearray])
    cursor: Link | None = None
    bind_at: int = 0
    prepared_sql: bytes = b""
    too_long: bool = False

    def fast_packet(self, plan: Pass, link: Link, packet: bytes) -> bytes:
        """COM_STMT_EXECUTE as it came, framed, made ready for ``link``; empty where more is needed: as where
        what is prepared there is another text, or looks its tables up in another schema.
        """
        known = self.on.get(link)
        if known is None or self.long_data or len(packet) < 14 or packet[9]:
            return b""
        if self.schemas.get(link) != link.schema or self.prepared_sql != plan.sql:
            return b""
        if self.parameters:
            at = self.bind_at + 4
            if len(packet) <= at:
                return b""
            if packet[at] == 1:
                types = packet[at + 1 : at + 1 + 2 * self.parameters]
                if types != self.types:
                    self.types = types
                    self.bound.clear()
                self.bound.add(link)
                if link.vtgate:
                    packet = packet[:4] + commands.with_types_for_vtgate(packet[4:], self.parameters)
            elif link not in self.bound:
                return b""
        return packet if known == self.id else packet[:5] + known + packet[9:]

    def again(self, plan: Pass, link: Link) -> Again:
        """How to execute it once more on ``link``, with the types bound before."""
        number = self.on[link]
        flag_at = self.bind_at + 4 if self.parameters else 9
        return Again(self, plan, link, b"" if number == self.id else number, flag_at, self.version)

    def forget(self, link: Link) -> None:
        """The link is gone, and with it what was prepared on it."""
        self.on.pop(link, None)
        self.schemas.pop(link, None)
        for key in [key for key in self.elsewhere if key[0] is link]:
            del self.elsewhere[key]
        self.bound.discard(link)
        if self.cursor is link:
            self.cursor = None

    def turn_to_schema(self, link: Link) -> None:
        """Have in ``on`` what it is in the link's present schema, if it was prepared there."""
        before = self.schemas.get(link)
        if before is None or before == link.schema:
            return
        self.elsewhere[link, before] = self.on.pop(link)
        del self.schemas[link]
        self.bound.discard(link)
        known = self.elsewhere.pop((link, link.schema), None)
        if known is not None:
            self.on[link] = known
            self.schemas[link] = link.schema

    def known_types(self) -> tuple[tuple[int, bool], ...]:
        """``types`` as pairs of type and whether it is unsigned."""
        return tuple((self.types[at], bool(self.types[at + 1] & 0x80)) for at in range(0, len(self.types), 2))


@dataclass(frozen=True, slots=True)
class Again:
    """What the hot path has to know of a statement whose last execution needed nothing but to be sent.

    :param number: its id on the link, empty where it is the client's.
    :param flag_at: where in the framed packet a 0 says that the types are those bound before.
    """

    statement: Statement
    plan: Pass
    link: Link
    number: bytes
    flag_at: int
    version: int


def _find(session: Session, payload: bytes, what: str) -> Statement:
    number = commands.execute_statement_id(payload).to_bytes(4, "little")
    statement = session.statements.get(number)
    if statement is None:
        raise ServerError(
            1243,
            "HY000",
            f"Unknown prepared statement handler ({int.from_bytes(number, 'little')}) given to {what}",
        )
    return statement


def prepare(session: Session, payload: bytes) -> Dialogue[None]:
    """COM_STMT_PREPARE."""
    sql = payload[1:]
    if len(session.statements) >= _MOST:
        raise ServerError(1461, "42000", f"Can't create more than {_MOST} prepared statements in one session")
    router, prepared = yield from _planned(session, sql)
    statement = _new(session, sql, router, prepared)
    match prepared.plan:
        case Pass() | Scatter():
            plan = _first(prepared.plan)
            link = yield from statements.reach(session, plan, begin=False)
            if link.vtgate and session.noting:
                # To say which columns there will be it asks a shard, within the transaction; aimed at one
                # it even runs the SELECT.
                session.note(plan)
            raw = yield from _prepare_on(statement, link, plan.sql)
            session.to_client(raw[:5] + statement.id + raw[9:])
        case _:
            columns = prepared.plan.columns if isinstance(prepared.plan, Answer) else ()
            definitions = [statements.definition(column) for column in columns]
            statement.columns = len(columns)
            _answer_prepared(session, statement, definitions)
    session.statements[statement.id] = statement


def _first(plan: Pass | Scatter) -> Pass:
    if isinstance(plan, Pass):
        return plan
    destination, sql = plan.statements[0]
    return Pass(destination, sql, plan.footprint)


def _planned(session: Session, sql: bytes) -> Dialogue[tuple[RouterPort, Prepared]]:
    """Plan a PREPARE; gives the router that did it, too."""
    found: list[Prepared] = []

    def plan_with(router: RouterPort, view: SessionView) -> Plan:
        found.append(router.plan_prepared(sql, view))
        return found[-1].plan

    def plan(view: SessionView) -> Plan:
        return plan_with(session.branch.router, view)

    yield from statements.planned(session, plan, plan_with if len(sql) >= LARGE else None)
    return session.branch.router, found[-1]


def _passing(session: Session, prepared: Prepared) -> Pass | None:
    plan = prepared.plan
    if not prepared.fixed or not isinstance(plan, Pass) or plan.footprint.keeps_state:
        return None
    plain = session.plain
    if plan.destination.tablet_type is not TabletType.PRIMARY:
        plain = plain & READS
    return plan if plan.footprint.verb in plain and not plan.footprint.locking_read else None


def _new(session: Session, sql: bytes, router: RouterPort, prepared: Prepared) -> Statement:
    while (number := session.next_statement.to_bytes(4, "little")) in session.statements:
        session.next_statement = session.next_statement % 0xFFFFFFFF + 1
    session.next_statement = session.next_statement % 0xFFFFFFFF + 1
    return Statement(
        number,
        sql,
        prepared.plan,
        session.target,
        router,
        session.branch.tracker.version,
        prepared.fixed,
        _passing(session, prepared),
    )


def _prepare_on(statement: Statement, link: Link, sql: bytes) -> Dialogue[bytes]:
    """Prepare on ``link``; gives the server's whole answer."""
    reply = yield from ask_one(link, frame(commands.stmt_prepare(sql)), Expect.PREPARE)
    if len(reply.prepared) < 9:
        raise MalformedPacketError
    statement.prepared_sql = sql
    statement.on[link] = reply.prepared[1:5]
    statement.schemas[link] = link.schema
    statement.columns = int.from_bytes(reply.prepared[5:7], "little")
    parameters = int.from_bytes(reply.prepared[7:9], "little")
    statement.parameters = parameters
    statement.bind_at = 10 + (parameters + 7) // 8
    return reply.raw


def _answer_prepared(session: Session, statement: Statement, columns: list[ColumnDefinition]) -> None:
    """A PREPARE's answer for a statement that no server has seen."""
    head = b"\0" + statement.id + len(columns).to_bytes(2, "little") + b"\0\0\0\0\0"
    session.answer(head)
    for column in columns:
        session.answer(column.build())
    if columns and not session.capabilities & Cap.DEPRECATE_EOF:
        session.answer(build_eof(session.flags()))


def execute(session: Session, payload: bytes) -> Dialogue[None]:
    """COM_STMT_EXECUTE."""
    statement = _find(session, payload, "mysqld_stmt_execute")
    try:
        if statement.too_long:
            raise ServerError(1153, "08S01", TOO_LARGE)
        yield from _execute(session, statement, payload)
    finally:
        _drop_long_data(session, statement)


def _execute(session: Session, statement: Statement, payload: bytes) -> Dialogue[None]:
    if len(payload) < _EXECUTE_HEAD:
        raise MalformedPacketError
    bound = commands.parse_types(payload, statement.parameters)
    if bound:
        types = b"".join(bytes((kind, 0x80 if unsigned else 0)) for kind, unsigned in bound)
        if types != statement.types:
            statement.types = types
            statement.bound.clear()
            session.executions.pop(statement.id, None)
    elif len(statement.types) != 2 * statement.parameters:
        # A server would read whatever comes as types.
        raise ServerError(1210, "HY000", "Incorrect arguments to mysqld_stmt_execute")
    sql = statement.sql

    again: list[Prepared] = []

    def plan_with(router: RouterPort, view: SessionView) -> Plan:
        """Changes nothing of the statement: it may be in a thread."""
        # Names mean what they meant when the statement was prepared, whatever USE came since.
        view = replace(view, target=statement.target)
        again.clear()
        known = Prepared(statement.plan, fixed=statement.fixed)
        if not _is_current(session, statement):
            known = router.plan_prepared(sql, view)
            if isinstance(known.plan, NeedSchema | NeedSequence | NeedLastId | Refuse):
                return known.plan
            again.append(known)
        if known.fixed or not isinstance(known.plan, Pass | Scatter | Answer | Control):
            return known.plan
        return router.plan_params(sql, _literals(session, statement, payload), view)

    def take_in() -> None:
        """What was planned counts for the routes and tables of now."""
        for prepared in again:
            statement.router, statement.version = session.branch.router, session.branch.tracker.version
            statement.plan, statement.fixed = prepared.plan, prepared.fixed
            statement.passing = _passing(session, prepared)

    def plan_once(view: SessionView) -> Plan:
        found = plan_with(session.branch.router, view)
        take_in()
        return found

    def act(plan: Plan) -> Dialogue[None]:
        take_in()
        if isinstance(plan, Pass) and (statement.fixed or plan.sql == sql):
            yield from _execute_prepared(session, statement, plan, payload)
        else:
            yield from statements.perform(session, plan, binary=True)

    current = _is_current(session, statement)
    large = len(sql) >= LARGE and not current
    large = large or (not statement.fixed and max(len(sql), len(payload)) >= LARGE)
    yield from statements.carry_out(session, plan_once, act, plan_with if large else None)


def _is_current(session: Session, statement: Statement) -> bool:
    """Whether it was planned for the routes and tables of now."""
    version = session.branch.tracker.version
    return statement.router is session.branch.router and statement.version == version


def _literals(session: Session, statement: Statement, payload: bytes) -> tuple[bytes, ...]:
    if statement.parameters and session.charset_name in _UNSAFE_CHARSETS:
        raise UnsupportedSqlError(
            "VT12001: unsupported: values of prepared statements in this character set for several shards; "
            "connect with utf8mb4"
        )
    found = commands.parse_execute(
        payload,
        statement.parameters,
        statement.known_types(),
        statement.long_data,
        backslashes=not session.status & Status.NO_BACKSLASH_ESCAPES,
    )
    return found.literals


def _execute_prepared(session: Session, statement: Statement, plan: Pass, payload: bytes) -> Dialogue[None]:
    link = yield from statements.way(session, plan)
    session.executions.pop(statement.id, None)
    if statement.prepared_sql != plan.sql:
        _close_everywhere(session, statement)
    statement.turn_to_schema(link)
    if link not in statement.on:
        yield from _prepare_on(statement, link, plan.sql)
    number = statement.on[link]
    if statement.parameters and link not in statement.bound:
        payload = commands.with_types(payload, statement.parameters, statement.known_types())
        statement.bound.add(link)
    if link.vtgate:
        payload = commands.with_types_for_vtgate(payload, statement.parameters)
    for parameter, data in statement.long_data.items():
        link.tell(frame(b"\x18" + number + parameter.to_bytes(2, "little") + data))
    packet = frame(payload[:1] + number + payload[5:])
    yield Relay(Request(link, packet, Expect.RESULT))
    if payload[5] & _CURSOR and link.alive and link.walker.status & Status.CURSOR_EXISTS:
        statement.cursor = link
    statements.after(session, plan, link)


def fetch(session: Session, payload: bytes) -> Dialogue[None]:
    """COM_STMT_FETCH: read on from a cursor, wherever it is open."""
    if len(payload) < _FETCH_HEAD:
        raise MalformedPacketError
    statement = _find(session, payload, "mysqld_stmt_fetch")
    link = statement.cursor
    if link is None or link not in statement.on or session.links.get(link.endpoint_id) is not link:
        raise ServerError(
            1421, "HY000", f"The statement ({int.from_bytes(statement.id, 'little')}) has no open cursor."
        )
    packet = frame(payload[:1] + statement.on[link] + payload[5:])
    yield Relay(Request(link, packet, Expect.ROWS))


def reset(session: Session, payload: bytes) -> Dialogue[None]:
    """COM_STMT_RESET: close its cursor, drop values sent ahead."""
    statement = _find(session, payload, "mysqld_stmt_reset")
    _drop_long_data(session, statement)
    link, statement.cursor = statement.cursor, None
    if link is not None and link.alive and link in statement.on:
        yield from ask_one(link, frame(payload[:1] + statement.on[link]))
    session.answer_ok()


def close(session: Session, payload: bytes) -> Dialogue[None]:
    """COM_STMT_CLOSE; it has no answer, not even an error."""
    session.executions.pop(payload[1:5], None)
    statement = session.statements.pop(payload[1:5], None)
    if statement is not None:
        _drop_long_data(session, statement)
        _close_everywhere(session, statement)
    return
    yield  # a dialogue without effects


def _close_everywhere(session: Session, statement: Statement) -> None:
    everywhere = [*statement.on.items(), *((link, n) for (link, _), n in statement.elsewhere.items())]
    for link, number in everywhere:
        if link.alive and session.links.get(link.endpoint_id) is link:
            link.tell(frame(b"\x19" + number))
    statement.on.clear()
    statement.schemas.clear()
    statement.elsewhere.clear()
    statement.bound.clear()
    statement.cursor = None


def send_long_data(session: Session, payload: bytes) -> Dialogue[None]:
    """COM_STMT_SEND_LONG_DATA; it has no answer, errors show at the execution. All statements of the session
    together may hold as much as one command may have.
    """
    if len(payload) >= 7:
        statement = session.statements.get(payload[1:5])
        _, parameter, data = commands.long_data(payload)
        if statement is not None and parameter < statement.parameters:
            if session.long_bytes + len(data) > session.max_packet:
                _drop_long_data(session, statement)
                statement.too_long = True
                statement.long_data[parameter] = bytearray()  # so that no execution is sent as it comes
            elif not statement.too_long:
                session.long_bytes += len(data)
                statement.long_data.setdefault(parameter, bytearray()).extend(data)
    return
    yield  # a dialogue without effects


def _drop_long_data(session: Session, statement: Statement) -> None:
    session.long_bytes -= sum(map(len, statement.long_data.values()))
    statement.long_data.clear()
    statement.too_long = False
