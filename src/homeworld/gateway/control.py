"""Transaction control and session state, performed on all servers of a session.

BEGIN is lazy: noted, and sent to each server right before the transaction's first statement there. COMMIT
over several servers commits one after the other; what cannot be taken back once the first has committed is
said in the error. Dialogues only.
"""

from __future__ import annotations

import re

from homeworld.gateway import statements
from homeworld.gateway.bonds import use_of
from homeworld.gateway.dialogue import Dialogue, Kill, Relay, Request, ask
from homeworld.gateway.link import Link
from homeworld.gateway.plan import Control, Footprint, Pass, Verb
from homeworld.gateway.replay import (
    READING,
    is_for_server,
    is_names,
    is_names_utf8mb4,
    is_one_shot,
    is_saved_client_charset,
    may_change_reading,
    texts_charset,
)
from homeworld.gateway.session import Session
from homeworld.gateway.sql_statement import bare
from homeworld.gateway.transaction import savepoint_act
from homeworld.model.errors import (
    ConnectionLostError,
    HomeworldError,
    ServerError,
    UnsupportedSqlError,
)
from homeworld.wire import commands
from homeworld.wire.constants import Status
from homeworld.wire.packets import frame

_SNAPSHOT = re.compile(rb"\bsnapshot\b", re.IGNORECASE)
_CHAIN = re.compile(rb"\band\s+chain\b", re.IGNORECASE)
_RELEASE = re.compile(rb"(?<!\bno)\s+release\s*;?\s*$", re.IGNORECASE)
_AUTOCOMMIT_ON = re.compile(rb"\bautocommit\b[`\s]*:?=\s*(?:1|on|true)\b", re.IGNORECASE)
_NOTHING = Footprint(Verb.SET)
_STANDS = b"SELECT 1"
"""Answered by a vtgate itself; its flags say whether a transaction is open."""


def control(session: Session, plan: Control) -> Dialogue[bool]:
    """Perform a Control plan and answer the client.

    :returns: false if a server's error was the answer.
    """
    savepoint = savepoint_act(plan.sql)
    if savepoint is not None:
        if session.transaction.lost:
            raise ServerError(1105, "HY000", f"{session.transaction.lost}; ROLLBACK to go on")
        return (yield from _savepoint(session, plan.sql, savepoint.kind, savepoint.name))
    match plan.verb:
        case Verb.BEGIN:
            yield from _begin(session, plan.sql)
        case Verb.COMMIT:
            return (yield from _end_transaction(session, plan.sql, b"COMMIT"))
        case Verb.ROLLBACK:
            return (yield from _end_transaction(session, plan.sql, b"ROLLBACK"))
        case Verb.SET:
            return (yield from _set(session, plan.sql))
        case Verb.USE:
            if plan.target is not None:
                session.target = plan.target
            session.renew()
            session.answer_ok()
        case _:
            raise HomeworldError(f"{plan.verb} is not a control statement")
    return True


def any_link(session: Session, *, begin: bool) -> Dialogue[Link]:
    """A link in the session's state, to whichever server is at hand."""
    for link in session.links.values():
        if link.alive:
            yield from statements.prelude(session, link, link.schema, begin=begin)
            return link
    somewhere = session.branch.somewhere(session.target, replica_only=session.account.replica)
    return (yield from statements.reach(session, Pass(somewhere, b"", _NOTHING), begin=begin))


# -------------------------------------------------------------------- transactions


def _begin(session: Session, sql: bytes) -> Dialogue[None]:
    if session.transaction.lost:
        yield from rollback_all(session)
    elif any(link.open for link in session.links.values()):
        yield from commit_all(session)
    settings = session.transaction.next_settings[:]
    session.transaction_over()
    session.transaction.next_settings = settings
    session.transaction.begin = sql
    session.renew()
    locked = [link for link in session.links.values() if link.locked]
    if locked or _SNAPSHOT.search(bare(sql)):
        # BEGIN unlocks tables, and a snapshot is taken now and not at the first statement.
        if not session.links:
            yield from any_link(session, begin=False)
        for link in locked or list(session.links.values()):
            yield from statements.prelude(session, link, link.schema, begin=True)
            link.locked = False
    session.answer_ok()


def settle(session: Session) -> Dialogue[None]:
    """A vtgate has answered with an error in a transaction: know whether it is still open, which vtgate does
    not say. It may have rolled it back as a whole (then what comes next would be committed by itself, one
    statement after another, and COMMIT would succeed), or go on with the other shards' parts where a server
    has rolled back its own (then BEGIN would commit them).
    """
    doubt, session.doubt = session.doubt, None
    if doubt is None or not doubt[0].alive:
        return
    link, ended = doubt
    if not ended:
        (reply,) = yield from ask((Request(link, frame(commands.query(_STANDS))),))
        if not link.alive or (reply.error is None and reply.status & Status.IN_TRANS):
            return
    # By ROLLBACK it also goes on where it refuses everything else.
    (reply,) = yield from ask((Request(link, frame(commands.query(b"ROLLBACK"))),))
    if not link.alive:
        return
    if reply.error is not None:
        session.forget(link)
        link.close()  # its end rolls back
        return
    session.status &= ~Status.IN_TRANS
    link.began = False
    if ended and not session.under_way:
        session.transaction_over()
    else:
        session.transaction.lost = "vtgate rolled the transaction back after an error"
        session.renew()


def _open_links(session: Session) -> list[Link]:
    return [link for link in session.links.values() if session.may_view(link)]


def _end_transaction(session: Session, sql: bytes, verb: bytes) -> Dialogue[bool]:
    said = bare(sql)
    chain, release = bool(_CHAIN.search(said)), bool(_RELEASE.search(said))
    lost = session.transaction.lost
    if lost:
        yield from rollback_all(session)
        if verb == b"COMMIT":
            raise ServerError(1105, "HY000", f"{lost}; the transaction was rolled back")
        session.answer_ok()
        return True
    links = _open_links(session)
    if len(links) == 1 and not release:
        return (yield from _end_on_one(session, links[0], sql, chain=chain))
    if verb == b"COMMIT":
        yield from commit_all(session, sql if chain else verb, chain=chain)
    else:
        yield from rollback_all(session, sql if chain else verb, chain=chain)
    session.answer_ok()
    if release:
        session.end()
    return True


def _end_on_one(session: Session, link: Link, sql: bytes, *, chain: bool) -> Dialogue[bool]:
    """COMMIT or ROLLBACK where one server has it all: its own answer is the client's."""
    try:
        yield Relay(Request(link, frame(commands.query(sql))))
    except ConnectionLostError as error:
        session.transaction_over()
        raise _unknown_end(error) from error
    if link.walker.error and link.alive:
        yield from ask((Request(link, frame(commands.query(b"ROLLBACK"))),))
        session.transaction_over()
        return False
    link.turn = session.branch.turn  # whatever it sees from now on, as COMMIT AND CHAIN does
    if chain:
        session.transaction.chain()
    elif session.transaction.begin is not None:
        session.transaction_over()
    return True


def _unknown_end(error: ConnectionLostError) -> HomeworldError:
    return ServerError(
        error.mysql_errno,
        error.sqlstate,
        f"{error.message}: it is not known whether the transaction was committed",
    )


def commit_all(session: Session, sql: bytes = b"COMMIT", *, chain: bool = False) -> Dialogue[None]:
    """Commit on every server, one after the other.

    :raises ServerError: one refused (or was lost); those after it were rolled back.
    """
    links = _open_links(session)
    for done, link in enumerate(links):
        session.finishing = True
        (reply,) = yield from ask((Request(link, frame(commands.query(sql))),))
        session.finishing = False
        if reply.error is None:
            link.began = chain
            link.turn = session.branch.turn
            continue
        yield from _roll_back(session, links[done:])
        session.transaction_over()
        error = reply.error
        if isinstance(error, ConnectionLostError):
            raise _unknown_end(error)
        if not done:
            raise error
        raise ServerError(
            1105,
            "HY000",
            f"the transaction was committed on {done} of {len(links)} servers only: {error.message}",
        )
    _over(session, chain=chain)


def rollback_all(session: Session, sql: bytes = b"ROLLBACK", *, chain: bool = False) -> Dialogue[None]:
    """Roll back on every server. One that is lost has rolled back by itself."""
    yield from _roll_back(session, _open_links(session), sql)
    _over(session, chain=chain)


def _over(session: Session, *, chain: bool) -> None:
    if chain:
        session.transaction.chain()
        session.transaction.lost = ""
        session.renew()
    else:
        session.transaction_over()


def _roll_back(session: Session, links: list[Link], sql: bytes = b"ROLLBACK") -> Dialogue[None]:
    alive = [link for link in links if link.alive]
    session.finishing = True
    replies = yield from ask([Request(link, frame(commands.query(sql))) for link in alive])
    session.finishing = False
    for link, reply in zip(alive, replies, strict=True):
        if reply.error is not None and link.alive:
            # A server that cannot roll back will, once the connection is gone, with what was left on it.
            bound = session.bonds.on(link)
            session.forget(link)
            link.close()
            session.end_after_refusal = session.end_after_refusal or bound
        link.turn = session.branch.turn


# -------------------------------------------------------------------- savepoints


def _savepoint(session: Session, sql: bytes, kind: str, name: str) -> Dialogue[bool]:
    transaction = session.transaction
    if kind == "set":
        for link in _open_links(session):
            yield from _on_savepoint(session, link, sql)
        if session.tracking:
            transaction.set_savepoint(name, sql)
    elif not transaction.has_savepoint(name):
        raise ServerError(1305, "42000", f"SAVEPOINT {name} does not exist")
    else:
        for link in _open_links(session):
            yield from _on_savepoint(session, link, sql)
        if kind == "back":
            transaction.back_to(name)
        else:
            transaction.release(name)
    session.answer_ok()
    return True


def _on_savepoint(session: Session, link: Link, sql: bytes) -> Dialogue[None]:
    (reply,) = yield from ask((Request(link, frame(commands.query(sql))),))
    if reply.error is not None and link.alive:
        session.learn(link)
    reply.check()


# -------------------------------------------------------------------- SET, KILL


def _set(session: Session, sql: bytes) -> Dialogue[bool]:
    said = bare(sql)
    if is_one_shot(said):
        if session.in_transaction:
            raise ServerError(
                1568,
                "25001",
                "Transaction characteristics can't be changed while a transaction is in progress",
            )
        session.transaction.next_settings.append(sql)
        session.renew()
        session.answer_ok()
        return True
    if not session.autocommit and session.in_transaction and _AUTOCOMMIT_ON.search(said):
        yield from commit_all(session)
    use = use_of(sql)
    home = session.bonds.home(use)
    if home is not None or use.own:
        if use.others:
            what = (
                "what only one connection knows"
                if home is None
                else "a variable that a statement has assigned"
            )
            raise UnsupportedSqlError(f"VT12001: unsupported: SET of a setting by {what}")
        # Repeated elsewhere it would read another value.
        if use.of_last:
            home = yield from statements.last_link(session)
        elif home is None:
            home = yield from any_link(session, begin=False)
        else:
            yield from statements.prelude(session, home, home.schema, begin=False)
        session.bonds.take(use, home)  # before the client has an answer
        yield Relay(Request(home, frame(commands.query(sql))))
        return not home.walker.error
    link = yield from any_link(session, begin=False)
    yield Relay(Request(link, frame(commands.query(sql))))
    if link.walker.error:
        return False
    if not is_for_server(said):
        session.bonds.given(use)
        session.settings.add((yield from _learn_reading(session, link, said)) or sql)
        link.sets = session.settings.count
        session.renew()
    return True


def _learn_reading(session: Session, link: Link, said: bytes) -> Dialogue[bytes | None]:
    """A SET has succeeded on the link: know how servers read the session's texts from now on. What was
    assigned may be a variable's value, so the server is asked.

    :returns: what to repeat on other links instead, where that can be said with a constant.
    """
    if is_names_utf8mb4(said):
        session.charset_name = "utf8mb4"
        return None
    if link.vtgate:
        # It takes and gives utf8mb4 whatever is set; the router lets nothing else be set.
        if is_names(said):
            session.charset_name = "utf8mb4"
        return None
    if not may_change_reading(said):
        return None
    (reply,) = yield from ask((Request(link, frame(commands.query(READING))),))
    if reply.error is not None:
        # The link is lost, the SET will be repeated on another: until it is set anew nothing is certain.
        session.charset_name = "unknown"
        return None
    client, connection, modes = (
        (value or b"").decode("utf-8", "replace").lower() for value in reply.result().one_row(3)
    )
    session.charset_name = texts_charset(client, connection)
    session.zero_is_value = "no_auto_value_on_zero" in modes
    if is_saved_client_charset(said) and client.isalnum():
        return b"SET character_set_client = " + client.encode()
    return None


def kill(session: Session, number: int, *, query_only: bool) -> Dialogue[None]:
    """KILL by the gateway's connection id, or a server's."""
    yield Kill(number, query_only)
    session.answer_ok()
