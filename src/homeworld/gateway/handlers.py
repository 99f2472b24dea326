"""One dialogue for each command byte of the protocol, in one table."""

from __future__ import annotations

from collections.abc import Mapping

from homeworld.gateway import control, prepared, statements
from homeworld.gateway.dialogue import Authenticate, Dialogue, ReadClient, Relay, Request
from homeworld.gateway.plan import Pass, Scatter, Target
from homeworld.gateway.replay import check_handshake_charset
from homeworld.gateway.session import Handler, Session
from homeworld.model.errors import MalformedPacketError, ServerError
from homeworld.model.names import quote
from homeworld.model.routing import Account
from homeworld.wire.auth import new_scramble
from homeworld.wire.constants import CACHING_SHA2, NATIVE, Cap, Com
from homeworld.wire.handshake import build_auth_more, build_auth_switch, parse_change_user
from homeworld.wire.packets import frame
from homeworld.wire.responses import Expect
from homeworld.wire.results import Ok, build_eof

_PLUGINS = (CACHING_SHA2, NATIVE)


def _ping(session: Session, _payload: bytes) -> Dialogue[None]:
    session.answer_ok()
    return
    yield  # a dialogue without effects


def _quit(session: Session, _payload: bytes) -> Dialogue[None]:
    session.end()
    return
    yield  # a dialogue without effects


def use_schema(session: Session, name: str) -> Dialogue[None]:
    """Aim the session as ``USE name`` does, without an answer.

    :raises ServerError: the router does not know the name.
    """
    if not name:
        session.target = Target()
        session.renew()
        return
    sql = b"USE `" + name.replace("`", "``").encode() + b"`"
    plan = yield from statements.planned(session, lambda view: session.branch.router.plan(sql, view))
    target = getattr(plan, "target", None)
    if not isinstance(target, Target):
        raise ServerError(1049, "42000", f"Unknown database '{name}'")
    session.target = target
    session.renew()


def _init_db(session: Session, payload: bytes) -> Dialogue[None]:
    yield from use_schema(session, payload[1:].decode("utf-8", "replace"))
    session.answer_ok()


def _field_list(session: Session, payload: bytes) -> Dialogue[None]:
    table = payload[1:].split(b"\0")[0].decode("utf-8", "replace")
    sql = b"SELECT * FROM " + quote(table).encode()
    plan = yield from statements.admitted(session, lambda view: session.branch.router.plan(sql, view))
    if isinstance(plan, Scatter):
        destination, first = plan.statements[0]
        plan = Pass(destination, first, plan.footprint)
    if not isinstance(plan, Pass):
        raise ServerError(1146, "42S02", f"Table '{table}' doesn't exist")
    link = yield from statements.reach(session, plan, begin=False)
    yield Relay(Request(link, frame(payload), Expect.FIELDS))


def _statistics(session: Session, payload: bytes) -> Dialogue[None]:
    link = yield from control.any_link(session, begin=False)
    yield Relay(Request(link, frame(payload), Expect.LONE))


def _process_kill(session: Session, payload: bytes) -> Dialogue[None]:
    if len(payload) < 5:
        raise MalformedPacketError
    yield from control.kill(session, int.from_bytes(payload[1:5], "little"), query_only=False)


def _set_option(session: Session, payload: bytes) -> Dialogue[None]:
    if len(payload) < 3 or payload[1] not in {0, 1}:
        raise ServerError(1047, "08S01", "Unknown command")
    if payload[1] == 0:
        session.capabilities |= Cap.MULTI_STATEMENTS
    else:
        session.capabilities &= ~Cap.MULTI_STATEMENTS
    session.renew()
    if session.capabilities & Cap.DEPRECATE_EOF:
        session.answer(Ok(status=session.flags()).build(session.capabilities, 0xFE))
    else:
        session.answer(build_eof(session.flags()))
    return
    yield  # a dialogue without effects


def _forget_all(session: Session) -> None:
    """The session is as new; links give back what is open on them."""
    session.statements.clear()
    session.long_bytes = 0
    session.drop_links()
    session.settings_over()
    session.transaction.over()
    session.autocommit = True
    session.status = 2
    session.last_insert_id = 0
    session.renew()


def _reset_connection(session: Session, _payload: bytes) -> Dialogue[None]:
    yield from control.rollback_all(session)
    _forget_all(session)
    session.answer_ok()


def _change_user(session: Session, payload: bytes) -> Dialogue[None]:
    """COM_CHANGE_USER. The proof is always asked for anew, by the client's own plugin."""
    change = parse_change_user(payload, session.capabilities)
    plugin = change.plugin if change.plugin in _PLUGINS else CACHING_SHA2
    scramble = new_scramble()
    yield from control.rollback_all(session)
    session.finishing = False
    session.answer(build_auth_switch(plugin, scramble))
    answer: bytes = yield ReadClient()
    session.end_after_refusal = True
    account: Account = yield Authenticate(change.user, plugin, answer, scramble)
    if account.branch_id != session.account.branch_id:
        raise ServerError(1045, "28000", "the password is of another branch; connect anew")
    if plugin == CACHING_SHA2:
        session.answer(build_auth_more(b"\x03"))
    check_handshake_charset(change.charset & 0xFF)
    _forget_all(session)
    session.become(account, change.charset & 0xFF)
    yield from use_schema(session, change.database)
    session.end_after_refusal = False
    session.answer_ok()


def _refused(_session: Session, payload: bytes) -> Dialogue[None]:
    name = Com(payload[0]).name
    raise ServerError(1047, "08S01", f"COM_{name} is not possible through the gateway")
    yield  # a dialogue without effects


def _refuse_all(*commands: Com) -> dict[int, Handler]:
    return dict.fromkeys(map(int, commands), _refused)


HANDLERS: Mapping[int, Handler] = {
    **_refuse_all(
        Com.CREATE_DB,
        Com.DROP_DB,
        Com.REFRESH,
        Com.SHUTDOWN,
        Com.PROCESS_INFO,
        Com.DEBUG,
        Com.BINLOG_DUMP,
        Com.BINLOG_DUMP_GTID,
        Com.TABLE_DUMP,
        Com.REGISTER_SLAVE,
    ),
    Com.QUIT: _quit,
    Com.INIT_DB: _init_db,
    Com.QUERY: statements.query,
    Com.FIELD_LIST: _field_list,
    Com.STATISTICS: _statistics,
    Com.PROCESS_KILL: _process_kill,
    Com.PING: _ping,
    Com.CHANGE_USER: _change_user,
    Com.STMT_PREPARE: prepared.prepare,
    Com.STMT_EXECUTE: prepared.execute,
    Com.STMT_SEND_LONG_DATA: prepared.send_long_data,
    Com.STMT_CLOSE: prepared.close,
    Com.STMT_RESET: prepared.reset,
    Com.STMT_FETCH: prepared.fetch,
    Com.SET_OPTION: _set_option,
    Com.RESET_CONNECTION: _reset_connection,
}
"""What serves each command byte."""


def greet(session: Session, database: str) -> Dialogue[None]:
    """The end of a login: aim the session at the schema the client named, and let it in."""
    session.end_after_refusal = True
    check_handshake_charset(session.charset)
    yield from use_schema(session, database)
    session.end_after_refusal = False
    session.answer_ok()
