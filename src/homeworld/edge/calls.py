"""What the service's methods do in a session: statements, streamed ones, prepared ones.

Knows no HTTP. The invariant: whatever becomes of a statement, what is told has the session as it is then, and
an error of SQL or of the session is told and never raised.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, Protocol

from homeworld.edge.answers import Answer, Row
from homeworld.edge.binding import bound
from homeworld.edge.codes import Code, Fault, fault_of
from homeworld.edge.fields import Declared, Field, field_of
from homeworld.edge.messages import Asked, Result, SessionTold, Told, Workload
from homeworld.edge.purse import Charge
from homeworld.edge.sessions import Sessions, Visit
from homeworld.edge.talk import CAPABILITIES
from homeworld.edge.tokens import LargeStateError, State, TokenError, fresh
from homeworld.gateway.branch import Branch
from homeworld.gateway.connection import House
from homeworld.model.errors import HomeworldError, ServerError
from homeworld.model.routing import Account, BranchRoutes
from homeworld.wire import commands
from homeworld.wire.packets import TOO_LARGE

_LOG = logging.getLogger(__name__)
_KNOW_SECONDS = 2.0
_FRAME = 1 << 16
"""A streamed answer is told in parts of about so many bytes of rows."""
_MESSAGE = 1 << 20
_STREAMED = 1 << 28
"""One row, and what comes with it in one piece, may be as large."""
_WORKLOAD = re.compile(
    rb"\s*set\s+(?:session\s+|local\s+|@@session\s*\.\s*|@@local\s*\.\s*|@@)?`?workload`?\s*:?=\s*"
    rb"(['\"`]?)(\w+)\1\s*+;?\s*+",
    re.IGNORECASE,
)
Changes = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """A request of a password, as far as sessions are concerned. ``charge`` bears what it holds in memory."""

    account: Account
    branch: Branch
    peer: str
    asked: Asked
    charge: Charge


Work = Callable[[Turn, Visit], Awaitable[tuple[Told, Changes]]]
"""What is told of it, and how it changes the session's state beside what the session itself knows."""


class Stream(Protocol):
    """Where a streamed answer goes."""

    def tell(self, told: Told) -> None:
        """The next part."""
        ...

    def listen(self, on_full: Callable[[bool], None] | None) -> None:
        """Have ``on_full`` called when no more can be taken for now (True), or again (False)."""
        ...


class Calls:
    """The methods.

    :param largest_answer: of a statement whose answer is not streamed, in bytes of rows.
    """

    def __init__(self, house: House, sessions: Sessions, *, largest_answer: int) -> None:
        self._house = house
        self._sessions = sessions
        self._largest_answer = largest_answer
        self._places: dict[str, tuple[BranchRoutes, dict[str, str]]] = {}

    def create(self, turn: Turn) -> Told:
        """A new session."""
        account = turn.account
        return Told(
            session=self._session(fresh(), account),
            branch=turn.branch.routes.branch,
            user=(account.username, account.role.value),
        )

    def close(self, turn: Turn) -> Told:
        """End a session; what it has not committed is rolled back."""
        try:
            state = self._sessions.read(turn.asked.session, turn.account)
        except TokenError as error:
            return Told(fault=fault_of(error))
        self._sessions.close(turn.account, state)
        return Told()

    async def execute(self, turn: Turn) -> Told:
        """Carry out a statement and tell all that comes of it."""
        return await self._in_session(turn, self._execute)

    async def prepare(self, turn: Turn) -> Told:
        """The columns that a statement's executions have."""
        return await self._in_session(turn, self._prepare)

    async def stream(self, turn: Turn, stream: Stream) -> None:
        """Carry out a statement and tell what comes of it as it comes; the session is in the last part."""

        async def work(turn: Turn, visit: Visit) -> tuple[Told, Changes]:
            try:
                return await self._stream(turn, visit, stream)
            finally:
                stream.listen(None)

        stream.tell(await self._in_session(turn, work))

    # ---------------------------------------------------------------- sessions

    def _session(self, state: State, account: Account) -> SessionTold:
        return SessionTold(self._sessions.sign(state, account), state.shown())

    async def _in_session(self, turn: Turn, work: Work) -> Told:
        account, sessions = turn.account, self._sessions
        try:
            state = sessions.read(turn.asked.session, account)
        except TokenError as error:
            # A new one with the refusal, so that its client can go on.
            return Told(session=self._session(fresh(), account), fault=fault_of(error))
        try:
            visit = await sessions.enter(account, turn.branch, turn.peer, state)
        except ServerError as error:
            return Told(session=self._session(state, account), fault=fault_of(error))
        except HomeworldError as error:
            # Said once: what was left on the server is gone, and the client knows.
            return Told(session=self._session(state.unpinned(), account), fault=fault_of(error))
        try:
            told, changes = await work(turn, visit)
            state = replace(await sessions.leave(visit), **changes)
        except BaseException:
            sessions.abandon(visit)
            raise
        try:
            return replace(told, session=self._session(state, account))
        except LargeStateError as error:
            sessions.close(account, state)
            return Told(session=self._session(visit.before, account), fault=fault_of(error))

    # ---------------------------------------------------------------- statements

    async def _statement(self, asked: Asked) -> bytes:
        """The text to send.

        :raises HomeworldError: it cannot be made, is empty or too long.
        """
        query, variables, most = asked.query, asked.variables, self._house.max_packet
        if variables and len(query) + sum(len(one.value) for one in variables.values()) > _FRAME:
            sql = await asyncio.to_thread(bound, query, variables, most)
        else:
            sql = bound(query, variables, most)
        self._check_length(sql)
        return sql

    def _check_length(self, sql: bytes) -> None:
        if not sql.strip():
            raise ServerError(1065, "42000", "Query was empty")
        if len(sql) >= self._house.max_packet:
            raise ServerError(1153, "08S01", TOO_LARGE)

    async def _execute(self, turn: Turn, visit: Visit) -> tuple[Told, Changes]:
        begun = monotonic()
        try:
            sql = await self._statement(turn.asked)
            workload = _workload(sql)
            if workload is not None:
                return await self._set_workload(turn, visit, sql, workload)
            answer = Answer(CAPABILITIES)
            await visit.talk.ask(commands.query(sql), answer, limit=self._largest_answer, charge=turn.charge)
            _check(visit, answer)
            await self._know(turn.branch, answer)
            result = _result(answer, self._fields(turn.branch, answer))
        except HomeworldError as error:
            return Told(fault=_fault(visit, error), timing=monotonic() - begun), {}
        return Told(result=result, timing=monotonic() - begun), _seen(answer)

    async def _prepare(self, turn: Turn, visit: Visit) -> tuple[Told, Changes]:
        answer = Answer(CAPABILITIES, prepare=True)
        try:
            self._check_length(turn.asked.query)
            await visit.talk.ask(commands.stmt_prepare(turn.asked.query), answer)
            _check(visit, answer)
            visit.talk.forget_statement(answer.statement)
            await self._know(turn.branch, answer)
            return Told(fields=self._fields(turn.branch, answer)), {}
        except HomeworldError as error:
            return Told(fault=_fault(visit, error)), {}

    async def _stream(self, turn: Turn, visit: Visit, stream: Stream) -> tuple[Told, Changes]:
        answer = Answer(CAPABILITIES)
        begun = False

        def rows(least: int = _FRAME) -> None:
            nonlocal begun
            if answer.size >= least and answer.columns and not answer.error:
                fields = () if begun else self._fields(turn.branch, answer)
                begun = True
                for part in messages(answer.take()):
                    stream.tell(Told(result=Result(fields, part)))
                    fields = ()

        def on_full(full: bool) -> None:
            visit.talk.session.client_full(full=full)

        try:
            sql = await self._statement(turn.asked)
            workload = _workload(sql)
            if workload is not None:
                return await self._set_workload(turn, visit, sql, workload)
            stream.listen(on_full)
            try:
                await visit.talk.ask(commands.query(sql), answer, limit=_STREAMED, on_rows=rows)
            finally:
                stream.listen(None)
                on_full(full=False)
            _check(visit, answer)
            rows(1)
            fields = () if begun else self._fields(turn.branch, answer)
            return Told(result=_result(answer, fields)), _seen(answer)
        except HomeworldError as error:
            return Told(fault=_fault(visit, error)), {}

    async def _set_workload(
        self, turn: Turn, visit: Visit, sql: bytes, workload: Workload
    ) -> tuple[Told, Changes]:
        """A session's workload decides here how answers are told; a vtgate has to stream them by it, too.

        :raises HomeworldError: it does not take it.
        """
        if turn.branch.routes.vtgate is not None:
            answer = Answer(CAPABILITIES)
            await visit.talk.ask(commands.query(sql), answer)
            _check(visit, answer)
        return Told(result=Result()), {"workload": workload}

    # ---------------------------------------------------------------- columns

    async def _know(self, branch: Branch, answer: Answer) -> None:
        """Have the types of an answer's columns known as they were declared, if they can be had."""
        places = self._places_of(branch)
        schemas = {column.schema for column in answer.columns if column.org_table}
        for keyspace in {places.get(schema.decode("utf-8", "replace"), "") for schema in schemas} - {""}:
            if branch.tracker.tables(keyspace) is None:
                try:
                    async with asyncio.timeout(_KNOW_SECONDS):
                        await self._house.know(branch, keyspace)
                except (HomeworldError, TimeoutError) as error:
                    _LOG.info("the tables of keyspace %s are not known: %s", keyspace, error)

    def _fields(self, branch: Branch, answer: Answer) -> tuple[Field, ...]:
        declared = self._declared(branch)
        return tuple(field_of(column, declared) for column in answer.columns)

    def _declared(self, branch: Branch) -> Declared:
        """What is known of columns by where servers say they are."""
        places, tracker = self._places_of(branch), branch.tracker
        tables: dict[tuple[str, bytes], dict[bytes, str]] = {}

        def declared(schema: bytes, table: bytes, column: bytes) -> tuple[str, str]:
            keyspace = places.get(schema.decode("utf-8", "replace"), "")
            if not keyspace or not table:
                return keyspace, ""
            types = tables.get((keyspace, table))
            if types is None:
                columns = tracker.table_columns(keyspace, table.decode("utf-8", "replace")) or ()
                types = tables[keyspace, table] = {
                    one.name.encode("utf-8", "replace"): one.column_type for one in columns
                }
            return keyspace, types.get(column, "")

        return declared

    def _places_of(self, branch: Branch) -> dict[str, str]:
        """The keyspaces by the schemas that they are on servers."""
        routes = branch.routes
        known = self._places.get(routes.branch_id)
        if known is None or known[0] is not routes:
            places = {
                shard.schema: keyspace.name
                for keyspace in routes.keyspaces.values()
                for shard in keyspace.shards
            }
            if routes.vtgate is not None:  # it names keyspaces
                places.update({name: name for name in routes.keyspaces})
            self._places[routes.branch_id] = known = (routes, places)
        return known[1]


def messages(rows: list[Row]) -> Iterator[tuple[Row, ...]]:
    """Rows in parts of a size that clients take as one message; what the gateway has merged comes at once."""
    part: list[Row] = []
    size = 0
    for row in rows:
        part.append(row)
        size += len(row[1])
        if size >= _MESSAGE:
            yield tuple(part)
            part, size = [], 0
    if part:
        yield tuple(part)


def _workload(sql: bytes) -> Workload | None:
    """What a statement sets the session's workload to, if it does that and nothing else.

    :raises ServerError: to something that is none.
    """
    found = _WORKLOAD.fullmatch(sql)
    if found is None:
        return None
    name = found[2].decode("ascii", "replace").upper()
    if name not in Workload.__members__:
        raise ServerError(1231, "42000", f"Variable 'workload' can't be set to the value of '{name[:64]}'")
    return Workload[name]


def _check(visit: Visit, answer: Answer) -> None:
    """Raise what a statement failed by.

    :raises HomeworldError: it did.
    """
    if visit.talk.crowded:
        raise _CrowdedError
    if visit.talk.over:
        raise _LargeResultError
    if answer.error is not None:
        raise answer.error


class _LargeResultError(HomeworldError):
    """the result is too large for one answer: SET workload = 'olap' to have it streamed, or ask for less"""


class _CrowdedError(HomeworldError):
    """too many large results are being sent at once: try again, or SET workload = 'olap' to stream it"""


def _fault(visit: Visit, error: HomeworldError) -> Fault:
    fault = fault_of(error)
    if isinstance(error, _LargeResultError | _CrowdedError):
        return Fault(Code.RESOURCE_EXHAUSTED, fault.message)
    # Whatever the statement was: the transaction that it is part of is gone.
    gone = visit.talk.lost or visit.talk.session.transaction.lost
    return Fault(Code.ABORTED, fault.message) if gone else fault


def _result(answer: Answer, fields: tuple[Field, ...]) -> Result:
    ok = answer.ok
    if ok is None:
        return Result(fields, tuple(answer.take()))
    info = ok.info.decode("utf-8", "replace")
    return Result(fields, tuple(answer.take()), ok.affected_rows, ok.last_insert_id, info)


def _seen(answer: Answer) -> Changes:
    """What clients see in their session of the last statement's counts."""
    if answer.columns:
        return {"found_rows": answer.count, "row_count": -1}
    return {"row_count": answer.ok.affected_rows if answer.ok else 0}
