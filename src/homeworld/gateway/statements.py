"""Statements of the text protocol: planned, admitted, brought to their servers, answered.

Dialogues only; see ``session`` for who drives them. The order is always the same: plan (with whatever the
router still needs), admit (role, lost transaction, holds; from here on a hold sees the statement), reach (a
link in the right state), perform, take in what happened. Between admission and the statement's end there is
no moment in which a hold could overlook it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from homeworld.gateway import control, roles, scatter
from homeworld.gateway.beside import LARGE, PlanWith, planned_beside
from homeworld.gateway.bonds import use_of
from homeworld.gateway.branch import Place
from homeworld.gateway.dialogue import (
    Connect,
    Dialogue,
    LoadSchema,
    Ponder,
    ReadAgain,
    Relay,
    Request,
    StoreVschema,
    TakeSequence,
    WaitHold,
    ask,
)
from homeworld.gateway.link import Link
from homeworld.gateway.plan import (
    AlterVschema,
    Answer,
    ColumnSpec,
    Control,
    Destination,
    Done,
    Footprint,
    NeedLastId,
    NeedSchema,
    NeedSequence,
    Pass,
    Plan,
    Refuse,
    Row,
    Scatter,
    SessionView,
    Verb,
)
from homeworld.gateway.session import Session
from homeworld.gateway.sql_statement import bare
from homeworld.gateway.state import touch_of
from homeworld.gateway.tracker import STALE_ERRNOS
from homeworld.model.errors import (
    HomeworldError,
    MalformedPacketError,
    ServerError,
    UnavailableError,
    UnsupportedSqlError,
)
from homeworld.model.topology import BackendRole, TabletType
from homeworld.wire import commands
from homeworld.wire.binary import binary_row
from homeworld.wire.constants import BINARY_CHARSET, Cap, Com
from homeworld.wire.packets import frame
from homeworld.wire.renumber import Renumber
from homeworld.wire.results import NUMERIC, ColumnDefinition, build_result, build_text_row

PlanOnce = Callable[[SessionView], Plan]
T = TypeVar("T")
_PATIENCE = 16
"""How often one statement may ask for something before it is planned; more is a fault of the router."""
_MOST_READY = 1024
_LAST_ID = b"SELECT LAST_INSERT_ID()"
_CHANGED = "Table definition has changed, please retry transaction"
_LAST_ID_SET = re.compile(rb"set last_insert_id = \d+$", re.IGNORECASE)
_ENDS_TRANSACTION = frozenset({Verb.DDL, Verb.LOCK})
_OF_LAST = re.compile(
    rb"^\s*show\s+(?:count\s*\(\s*\*\s*\)\s+)?(?:warnings|errors)\b|\b(?:found_rows|row_count)\s*\(",
    re.IGNORECASE,
)
_NO_LAST = (
    "VT12001: unsupported: FOUND_ROWS(), ROW_COUNT(), SHOW WARNINGS and SHOW ERRORS where no "
    "single connection answered the last statement; take the number of rows from its answer or "
    "from SELECT COUNT(*), or aim at one shard with USE `keyspace/shard`"
)
_NO_COMMIT = re.compile(rb"^\s*(?:create|drop)\s+temporary\b|^\s*unlock\b", re.IGNORECASE)
_UNLOCK = re.compile(rb"^\s*unlock\b", re.IGNORECASE)
# What is possessive here keeps a text of many spaces from costing their number squared.
_KILL = re.compile(rb"^\s*kill\s+(?:(connection|query)\s+)?(\d+)\s*+;?\s*+$", re.IGNORECASE)


def query(session: Session, payload: bytes) -> Dialogue[None]:
    """COM_QUERY."""
    sql = payload[1:]
    first, session.preplanned = session.preplanned, None
    if first is None and 0 <= sql.find(b";") < len(sql.rstrip(b"; \t\r\n\0")):
        router = session.branch.router
        # How a text is split depends on nothing but the text.
        parts: Sequence[bytes] = (
            router.split(sql) if len(sql) < LARGE else (yield Ponder(lambda: router.split(sql)))
        )
        if len(parts) > 1:
            yield from _script(session, sql, parts)
            return
    killed = _KILL.match(sql)
    if killed is not None:
        query_only = (killed[1] or b"").lower() == b"query"
        yield from control.kill(session, int(killed[2]), query_only=query_only)
        return

    def plan(view: SessionView) -> Plan:
        nonlocal first
        found, first = first, None
        return found or session.branch.router.plan(sql, view)

    yield from carry_out(session, plan, lambda found: perform(session, found), reading(sql))


def reading(sql: bytes) -> PlanWith | None:
    """How a text is planned beside the loop; None where it is not large."""
    return None if len(sql) < LARGE else lambda router, view: router.plan(sql, view)


def _script(session: Session, sql: bytes, parts: Sequence[bytes]) -> Dialogue[None]:
    """Several statements in one text."""
    if not session.capabilities & Cap.MULTI_STATEMENTS:
        raise ServerError(
            1064,
            "42000",
            "You have an error in your SQL syntax: several statements, but multi-statements are off",
        )
    router = session.branch.router
    whole = _one_pass(session, sql, parts) if len(sql) < LARGE else None
    if whole is not None:
        # Looked at once more where the routes have changed while it waited.
        def plan(_view: SessionView) -> Plan:
            fresh = whole if session.branch.router is router else _one_pass(session, sql, parts)
            return fresh or Refuse(1105, "HY000", "the routes have changed, send the statements again")

        yield from carry_out(session, plan, lambda found: perform(session, found))
        return
    session.joined = Renumber(session.capabilities, session.sequence)
    for number, part in enumerate(parts, 1):
        session.joined.begin(more=number < len(parts))
        went = yield from carry_out(
            session,
            lambda view, part=part: session.branch.router.plan(part, view),
            lambda found: perform(session, found),
            reading(part),
        )
        if not went:
            return
        _withdraw(session)


def carry_out(
    session: Session, plan: PlanOnce, act: Callable[[Plan], Dialogue[T]], beside: PlanWith | None = None
) -> Dialogue[T]:
    """Let a statement in and carry it out. One whose connections were not there before this gateway's lease
    ended has not been sent: it is let in anew, and waits then as any that comes now.

    :param act: carries out the admitted plan.
    :param beside: does what ``plan`` does in a thread, where that takes long.
    """
    while True:
        found = yield from admitted(session, plan, beside)
        try:
            return (yield from act(found))
        except NotSentError:
            _withdraw(session)


def _withdraw(session: Session) -> None:
    """What was let in is not under way (any more): what comes next may have to wait for a hold, which must
    not wait for this one.
    """
    session.current = None
    if session.branch.draining:
        session.outside.progress(session)


def _one_pass(session: Session, sql: bytes, parts: Iterable[bytes]) -> Pass | None:
    """The whole text as one plan, where all its statements go through untouched to the same place."""
    plans: list[Pass] = []
    for part in parts:
        plan = session.branch.router.plan(part, session.view)
        if not isinstance(plan, Pass) or plan.sql != part or plan.footprint.verb not in session.plain:
            return None
        if plan.destination.vtgate:  # where a statement ends is for one reader to say
            return None
        if plans and plan.destination != plans[0].destination:
            return None
        plans.append(plan)
    footprints = [plan.footprint for plan in plans]
    verb = next((f.verb for f in footprints if f.writes), footprints[0].verb)
    merged = Footprint(
        verb,
        frozenset[tuple[str, str]]().union(*(f.tables for f in footprints)),
        any(f.locking_read for f in footprints),
        any(f.keeps_state for f in footprints),
    )
    return Pass(plans[0].destination, sql, merged)


# -------------------------------------------------------------------- before a statement


def planned(session: Session, plan: PlanOnce, beside: PlanWith | None = None) -> Dialogue[Plan]:
    """Have a statement planned, giving the router what it asks for.

    :param beside: see :func:`carry_out`.
    :raises ServerError: the router refuses the statement.
    :raises UnavailableError: something is missing, or is where nobody can be asked.
    """
    ids: tuple[int, ...] = ()
    taken: object = None
    tracker = session.branch.tracker
    doubted: dict[Refuse, dict[str, UnavailableError]] = {}
    for _ in range(_PATIENCE):
        view = replace(session.view, sequence_ids=ids) if ids else session.view
        found = plan(view) if beside is None else (yield from planned_beside(session.branch, beside, view))
        match found:
            case NeedSchema(keyspace):
                yield LoadSchema(keyspace)
            case NeedLastId():
                yield from ask_last_id(session)
            case NeedSequence(keyspace, table, count):
                roles.check_sequence(session.account, keyspace, table)
                ids = yield TakeSequence(keyspace, table, count)
                taken = (session.branch.turn, session.branch.routes)
            case Refuse(errno, sqlstate, message) if errno in STALE_ERRNOS:
                failed = doubted.get(found)
                if failed:
                    reasons = "; ".join(error.message for error in failed.values())
                    raise UnavailableError(f"{message}, where it could be looked for; {reasons}")
                if failed is not None:
                    tracker.is_still_missing(found)
                if tracker.is_missing(found):
                    raise ServerError(errno, sqlstate, message)
                # Somebody else may have made the table: nobody hears that it is not there before the one
                # reading for all of them.
                known = frozenset(tracker.known())
                doubted[found] = yield ReadAgain(known & (found.keyspaces or known))
            case Refuse(errno, sqlstate, message):
                raise ServerError(errno, sqlstate, message)
            case _:
                if not ids or taken == (session.branch.turn, session.branch.routes):
                    return found
                # Tables came while it was planned: what was carried to them may have those ids.
                ids = ()
    raise HomeworldError("the statement could not be planned")


def ask_last_id(session: Session) -> Dialogue[None]:
    """Have servers say which of the ids in their answers were generated, and not given by the client."""
    links = list(session.said_ids)
    replies = yield from ask([Request(link, frame(commands.query(_LAST_ID))) for link in links])
    for link, reply in zip(links, replies, strict=True):
        (value,) = reply.result().one_row(1)
        if value is not None and not value.isdigit():
            raise MalformedPacketError("the server's LAST_INSERT_ID() is no number")
        session.learn_last_id(link, int(value or 0))


def admitted(session: Session, plan: PlanOnce, beside: PlanWith | None = None) -> Dialogue[Plan]:
    """Plan a statement and let it in: from here on holds see it.

    :param beside: see :func:`carry_out`.
    :raises ServerError: refused by the router, the role or the state of the transaction, or its transaction
        would see a table that was moved as it was before that.
    """
    if session.doubt is not None:
        yield from control.settle(session)
    while True:
        found = yield from planned(session, plan, beside)
        if not isinstance(found, Pass | Scatter):
            return found
        if session.transaction.lost:
            raise ServerError(1105, "HY000", f"{session.transaction.lost}; ROLLBACK to go on")
        footprint = found.footprint
        roles.check(session.account.role, session.account.username, footprint)
        touch = touch_of(found)
        if footprint.writes and not footprint.locking_read and TabletType.PRIMARY not in touch.tablet_types:
            raise ServerError(
                1290, "HY000", "VT09031: replicas are read-only; use the @primary target to write"
            )
        hold = session.branch.blocks(touch, under_way=session.under_way)
        if hold is None:
            _check_views(session, found)
            session.admit(found)
            return found
        yield WaitHold(hold)


def _check_views(session: Session, plan: Pass | Scatter) -> None:
    """Refuse a statement on a table that came to be served where it is after the session's transaction began
    there: what the transaction sees of it is the copy as it was while it was being made. Over a vtgate that
    is so only where the transaction may have begun on that keyspace's shards before. Nor does a transaction
    on servers go on over a vtgate, or the other way round, where the database has changed its engine: neither
    part would see what the other has done.

    :raises ServerError: 1412, a server's own word for it; the transaction stays open.
    """
    branch = session.branch
    vtgate = branch.routes.vtgate is not None
    if all(link.turn >= branch.turn and link.vtgate is vtgate for link in session.links.values()):
        return
    pieces = [(plan.destination, plan.sql)] if isinstance(plan, Pass) else plan.statements
    others = any(link.vtgate is not vtgate and session.may_view(link) for link in session.links.values())
    for destination, sql in pieces:
        if others and not ends_transaction(plan.footprint, sql):
            raise ServerError(1412, "HY000", _CHANGED)
        link, _ = _link_at_hand(session, destination)
        if link is None or not session.may_view(link) or ends_transaction(plan.footprint, sql):
            continue
        came = branch.came_since(link.turn, plan.footprint, destination)
        if came and link.vtgate:
            touched = list(session.transaction.touched())
            came = {at: turn for at, turn in came.items() if branch.may_have_begun(touched, at, turn)}
        if came:
            raise ServerError(1412, "HY000", _CHANGED)


class NotSentError(ServerError):
    """The lease ended between a statement's admission and the moment when it could have been sent."""


def still_admitted(session: Session) -> None:
    """What was admitted may be sent over the connections that are there now.

    :raises NotSentError: the lease of this gateway ended meanwhile; nothing was sent.
    """
    current = session.current
    if current is not None and not session.branch.may_send(touch_of(current), session.epoch):
        raise NotSentError(
            1105, "HY000", "the gateway lost touch with the others before the statement was sent; try again"
        )


def reach(session: Session, plan: Pass, *, begin: bool = True) -> Dialogue[Link]:
    """A link to the plan's destination in the state that the session is in.

    :param begin: open the session's transaction on it, if it has one.
    :raises HomeworldError: it cannot be had, or the server refuses the session's state.
    """
    link, place = yield from link_to(session, plan.destination)
    yield from prelude(session, link, place.schema, begin=begin)
    still_admitted(session)
    # An older transaction on the link may not see every table as it is: each of its statements is looked at.
    older = link.turn < session.branch.turn
    if begin and not session.branch.holds and not session.transaction.lost and not older:
        if len(session.ready) > _MOST_READY:
            session.unready_all()
        primary = plan.destination.tablet_type is TabletType.PRIMARY
        verbs = session.plain if primary else session.plain & roles.READS
        session.ready[id(plan.destination)] = (plan.destination, link, verbs)
    return link


def link_to(session: Session, destination: Destination) -> Dialogue[tuple[Link, Place]]:
    """A connection to a server of the destination; where one replica cannot be reached, to another."""
    link, place = _link_at_hand(session, destination)
    if link is not None:
        return link, place
    branch, role = session.branch, session.account.role
    copies = branch.copies(destination)
    failed: HomeworldError = UnavailableError()
    for attempt in range(copies):
        place = branch.place(destination, role, session.number + attempt)
        try:
            link = yield Connect(place.endpoint, session.capabilities, session.charset, place.schema)
        except HomeworldError as error:
            failed = error
            continue
        link.owner = session
        session.links[place.endpoint.server_id] = link
        if session.first_id:
            session.known_ids[link] = session.first_id
        return link, place
    raise failed


def _link_at_hand(session: Session, destination: Destination) -> tuple[Link | None, Place]:
    """The session's connection to a server of the destination, or where one can be had."""
    branch, role = session.branch, session.account.role
    for attempt in range(branch.copies(destination)):
        place = branch.place(destination, role, session.number + attempt)
        link = session.links.get(place.endpoint.server_id)
        if link is not None:
            return link, place
    return None, branch.place(destination, role, session.number)


def prelude(session: Session, link: Link, schema: str, *, begin: bool) -> Dialogue[None]:
    """Bring a link to the session's state. The statement is not sent along: were one of these refused, it
    would run in a state its client never asked for.
    """
    if not session.may_view(link):
        link.turn = session.branch.turn
    transaction = session.transaction
    multi = bool(session.capabilities & Cap.MULTI_STATEMENTS) and not link.vtgate
    packets: list[bytes] = []
    turns, moves = link.multi != multi, link.schema != schema
    if turns:
        packets.append(bytes((Com.SET_OPTION, 0 if multi else 1, 0)))
    if moves:
        packets.append(commands.init_db(schema))
    settings = session.settings.since(link.sets)
    if link.vtgate:  # it does not have this one, and is told the id in each statement that asks for it
        settings = tuple(sql for sql in settings if not _LAST_ID_SET.match(sql))
    packets += map(commands.query, settings)
    opening: list[bytes] = []
    if begin and not link.open and (session.tracking or transaction.next_settings):
        opening += transaction.next_settings
        if transaction.begin is not None:
            opening.append(transaction.begin)
        opening += (sql for _, sql in transaction.savepoints)
    if not packets and not opening:
        return
    count = session.settings.count
    requests = [Request(link, frame(packet)) for packet in [*packets, *map(commands.query, opening)]]
    replies = yield from ask(requests)
    # Whatever fails behind them, the connection is another by these.
    if turns and replies[0].error is None:
        link.multi = multi
    if moves and replies[int(turns)].error is None:
        session.set_schema(link, schema)
    failed = next((reply.error for reply in replies if reply.error is not None), None)
    if failed is not None:
        if opening and link.alive:
            # Some of it may have been performed: better no connection than half a transaction.
            session.forget(link)
            link.close()
        raise failed
    link.sets = count
    if opening and transaction.begin is not None:
        link.began = True
        transaction.reached()
    if transaction.begin is None:
        transaction.next_settings.clear()


# -------------------------------------------------------------------- carrying it out


def perform(session: Session, plan: Plan, *, binary: bool = False) -> Dialogue[bool]:
    """Carry out an admitted plan and answer the client.

    :param binary: answer rows in the binary protocol.
    :returns: false if a server's error was the answer.
    """
    match plan:
        case Pass():
            return (yield from _pass(session, plan, binary=binary))
        case Scatter():
            yield from scatter.scatter(session, plan, binary=binary)
        case Control():
            return (yield from control.control(session, plan))
        case Done(affected_rows, last_insert_id, info):
            session.answer_ok(affected_rows, last_insert_id, info.encode())
        case Answer(columns, rows):
            answer_rows(session, [definition(column) for column in columns], rows, binary=binary)
        case AlterVschema(keyspace, vschema_json, base_json):
            if session.account.role is not BackendRole.ADMIN:
                raise ServerError(
                    1142, "42000", "ALTER VSCHEMA denied (ACL check error): it needs role admin"
                )
            yield StoreVschema(keyspace, vschema_json, base_json)
            session.answer_ok()
        case _:
            raise HomeworldError("the statement could not be planned")
    return True


def _pass(session: Session, plan: Pass, *, binary: bool) -> Dialogue[bool]:
    link = yield from way(session, plan)
    packet = frame(commands.query(plan.sql))
    if binary:
        (reply,) = yield from ask((Request(link, packet, budget=session.budget()),))
        if link.alive:
            session.last = link
            session.learn(link)  # an error, too: it may have ended the transaction
        reply.check()
        if reply.ok:
            session.answer(reply.ok)
        else:
            result = reply.result()
            answer_rows(session, result.columns, result.text_rows(), binary=True)
    else:
        yield Relay(Request(link, packet))
    after(session, plan, link)
    return not link.walker.error


def way(session: Session, plan: Pass) -> Dialogue[Link]:
    """A link on which an admitted statement may now be sent."""
    footprint = plan.footprint
    if not footprint.tables and footprint.verb in roles.READS and _OF_LAST.search(plan.sql):
        return (yield from last_link(session))
    if footprint.keeps_state and session.links and _OF_LAST.search(plan.sql):
        # It goes where its tables (or programs) are, and asks about what was answered perhaps elsewhere.
        at_hand, _ = _link_at_hand(session, plan.destination)
        if at_hand is None or at_hand is not session.last:
            raise UnsupportedSqlError(_NO_LAST)
    locked = next((link for link in session.links.values() if link.locked), None)
    if locked is not None and plan.footprint.verb is Verb.LOCK and _UNLOCK.match(bare(plan.sql)):
        # Wherever the routes lead by now.
        yield from prelude(session, locked, locked.schema, begin=False)
        return locked
    ends = ends_transaction(plan.footprint, plan.sql)
    if ends and session.in_transaction:
        yield from control.commit_all(session)
    link = yield from reach(session, plan, begin=not ends)
    _keep_state(session, plan, link)
    return link


def ends_transaction(footprint: Footprint, sql: bytes) -> bool:
    """Whether servers commit before they carry the statement out."""
    return footprint.verb in _ENDS_TRANSACTION and not _NO_COMMIT.match(bare(sql))


def last_link(session: Session) -> Dialogue[Link]:
    """Where the last statement was answered, for what asks about it (warnings, ROW_COUNT()).

    :raises UnsupportedSqlError: it was answered by several servers, or by none that is left.
    """
    link = session.last
    if link is None:
        if session.links:
            raise UnsupportedSqlError(_NO_LAST)
        return (yield from control.any_link(session, begin=False))
    yield from prelude(session, link, link.schema, begin=False)
    return link


def _keep_state(session: Session, plan: Pass, link: Link) -> None:
    """Note that a statement leaves or needs something on its connection.

    :raises UnavailableError: that something is on another connection.
    """
    if plan.footprint.keeps_state:
        session.bonds.take(use_of(plan.sql), link)


def after(session: Session, plan: Pass, link: Link) -> None:
    """Take in what a statement has done beyond its rows."""
    if link.walker.error or not link.alive:
        return
    verb = plan.footprint.verb
    if plan.footprint.keeps_state or verb is Verb.LOCK:
        session.bonds.free(use_of(plan.sql))
    if verb is Verb.CALL:
        session.said_id(link, 0)  # a procedure's inserts are not in its answer
    if verb is Verb.DDL:
        for keyspace in touch_of(plan).keyspaces:
            session.branch.tracker.forget(keyspace)
    elif verb is Verb.LOCK:
        link.locked = not _UNLOCK.match(bare(plan.sql))
        session.transaction.lock(plan.footprint, plan.destination, locked=link.locked)


# -------------------------------------------------------------------- answers of our own


def definition(column: ColumnSpec) -> ColumnDefinition:
    """A column of the gateway's own making as the protocol describes it."""
    charset = BINARY_CHARSET if column.type in NUMERIC else column.charset
    return ColumnDefinition(
        name=column.name.encode(), type=column.type, charset=charset, length=column.length
    )


def answer_rows(
    session: Session, columns: Sequence[ColumnDefinition], rows: Iterable[Row], *, binary: bool
) -> None:
    """Send a result of the gateway's own making."""
    payloads = (binary_row(row, columns) if binary else build_text_row(row) for row in rows)
    joined = session.joined
    sequence = session.sequence if joined is None else joined.sequence
    data, after_last = build_result(
        [column.build() for column in columns], payloads, session.capabilities, session.flags(), sequence
    )
    if joined is not None:
        joined.sequence = after_last
    session.to_client(data)
