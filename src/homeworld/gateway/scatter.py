"""One statement on several shards: sent in parallel, answered as one.

A write that touches several shards is all or nothing as far as servers allow: outside a transaction it gets
one of its own, inside one it gets a savepoint on each shard. What commits by itself (DDL) is neither: it
first commits what is open, on every server. Dialogues only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from homeworld.gateway import control, statements
from homeworld.gateway.budget import Budget
from homeworld.gateway.dialogue import Dialogue, Request, ask
from homeworld.gateway.link import Link, Reply
from homeworld.gateway.plan import Scatter, Verb
from homeworld.gateway.session import Session
from homeworld.model.errors import HomeworldError, ServerError
from homeworld.wire import commands
from homeworld.wire.packets import frame

_SAVEPOINT = b"`_homeworld_statement`"


@dataclass(frozen=True, slots=True)
class _Piece:
    number: int
    link: Link
    schema: str
    sql: bytes


def scatter(session: Session, plan: Scatter, *, binary: bool) -> Dialogue[None]:
    """Carry out a Scatter plan and answer the client.

    :raises HomeworldError: some shard refused; a write of rows has then changed nothing anywhere.
    """
    session.last = None
    if plan.merge is not None:
        yield from _read(session, plan, binary=binary)
        return
    commits = statements.ends_transaction(plan.footprint, plan.statements[0][1])
    if commits and session.in_transaction:
        yield from control.commit_all(session)
    several = len(plan.statements) > 1 and not commits
    own = several and not session.tracking
    if own:
        session.transaction.begin = b"BEGIN"
        session.renew()
        session.admit(plan)
    try:
        affected, made = yield from _write(session, plan, savepoint=several and not own, begin=not commits)
    except HomeworldError:
        if own:
            yield from control.rollback_all(session)
        raise
    else:
        if own:
            yield from control.commit_all(session)
    finally:
        if own and session.transaction.begin is not None:
            session.transaction_over()
        if plan.footprint.verb is Verb.DDL:
            for keyspace in {destination.keyspace for destination, _ in plan.statements}:
                session.branch.tracker.forget(keyspace)
    if plan.last_insert_id:
        session.gave_id(plan.last_insert_id)
    session.answer_ok(affected, plan.last_insert_id or made)


def _reach_all(session: Session, plan: Scatter, *, begin: bool = True) -> Dialogue[list[_Piece]]:
    pieces: list[_Piece] = []
    for number, (destination, sql) in enumerate(plan.statements):
        link, place = yield from statements.link_to(session, destination)
        if not any(piece.link is link for piece in pieces):
            yield from statements.prelude(session, link, place.schema, begin=begin)
        pieces.append(_Piece(number, link, place.schema, sql))
    statements.still_admitted(session)
    return pieces


def _send(session: Session, pieces: Sequence[_Piece], budget: Budget | None = None) -> Dialogue[list[Reply]]:
    """Send all pieces, those of one link one after the other with the schema changed between; replies in the
    order of the statements. A refused change of schema raises, and so do answers beyond ``budget``.
    """
    replies: list[Reply | None] = [None] * len(pieces)
    waiting = list(pieces)
    while waiting:
        # One piece a link and round: no statement is sent before its schema is known to be right.
        batch: list[_Piece] = []
        for piece in waiting:
            if all(other.link is not piece.link for other in batch):
                batch.append(piece)
        waiting = [piece for piece in waiting if piece not in batch]
        moving = [piece for piece in batch if piece.link.schema != piece.schema]
        moved = yield from ask([Request(p.link, frame(commands.init_db(p.schema))) for p in moving])
        for piece, reply in zip(moving, moved, strict=True):
            # Before any error: the others are in another schema all the same.
            if reply.error is None:
                session.set_schema(piece.link, piece.schema)
        for reply in moved:
            reply.check()
        answers = yield from ask(
            [Request(p.link, frame(commands.query(p.sql)), budget=budget) for p in batch]
        )
        if budget is not None and budget.error is not None:
            raise budget.error
        for piece, reply in zip(batch, answers, strict=True):
            replies[piece.number] = reply
            if isinstance(reply.error, ServerError):
                session.learn_error(piece.link, reply.error.server_errno)
    return [reply for reply in replies if reply is not None]


def _read(session: Session, plan: Scatter, *, binary: bool) -> Dialogue[None]:
    pieces = yield from _reach_all(session, plan)
    replies = yield from _send(session, pieces, session.budget())
    results = [reply.result() for reply in replies]
    session.renew_view()
    assert plan.merge is not None  # noqa: S101 the caller has looked
    rows = plan.merge([result.text_rows() for result in results])
    columns = results[0].columns[: plan.visible_columns]
    statements.answer_rows(session, columns, rows, binary=binary)


def _write(session: Session, plan: Scatter, *, savepoint: bool, begin: bool) -> Dialogue[tuple[int, int]]:
    """Gives affected rows and the first id a server has made."""
    pieces = yield from _reach_all(session, plan, begin=begin)
    links = list({id(piece.link): piece.link for piece in pieces}.values())
    if savepoint:
        for reply in (yield from ask(_on_all(links, b"SAVEPOINT " + _SAVEPOINT))):
            reply.check()
    try:
        replies = yield from _send(session, pieces)
        results = [reply.result() for reply in replies]
    except HomeworldError:
        if savepoint and not session.transaction.lost:
            undone = yield from ask(_on_all(links, b"ROLLBACK TO " + _SAVEPOINT))
            if any(reply.error is not None for reply in undone) and session.in_transaction:
                session.transaction.lost = "a statement was carried out on some shards only"
                session.renew()
        raise
    counts = [result.ok.affected_rows for result in results if result.ok]
    affected = max(counts, default=0) if plan.same_rows else sum(counts)
    for piece, result in zip(pieces, results, strict=True):
        if result.ok and result.ok.last_insert_id:
            session.said_id(piece.link, result.ok.last_insert_id)
    made = next((r.ok.last_insert_id for r in results if r.ok and r.ok.last_insert_id), 0)
    session.renew_view()
    return affected, made


def _on_all(links: Sequence[Link], sql: bytes) -> list[Request]:
    return [Request(link, frame(commands.query(sql))) for link in links if link.alive]
