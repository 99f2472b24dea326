"""Performs what sessions ask for: the interpreter of ``dialogue``'s effects on an event loop.

Every effect has an owner (:class:`Effects`), a name and a deadline; each is answered, by a result or an
error, unless nobody waits for it any more.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from homeworld.gateway.accounts import Accounts, Proof
from homeworld.gateway.beside import Threads
from homeworld.gateway.branch import Branch
from homeworld.gateway.dialogue import (
    Authenticate,
    Connect,
    Effect,
    Kill,
    LoadSchema,
    Ponder,
    ReadAgain,
    StoreVschema,
    TakeSequence,
    WaitHold,
)
from homeworld.gateway.link import Link
from homeworld.gateway.loading import SchemaLoads
from homeworld.gateway.phases import Phase
from homeworld.gateway.plan import Destination
from homeworld.gateway.pool import OWN_CAPABILITIES, Pool, ask
from homeworld.gateway.sequences import Sequences
from homeworld.gateway.session import Session
from homeworld.gateway.tracker import load_queries
from homeworld.model.errors import (
    HomeworldError,
    MalformedPacketError,
    NotFoundError,
    ServerError,
    UnauthorizedError,
    UnavailableError,
)
from homeworld.model.ports import Clock
from homeworld.model.routing import Account
from homeworld.model.topology import BackendRole, TabletType
from homeworld.wire import commands
from homeworld.wire.client import UTF8MB4_BIN

_LOG = logging.getLogger(__name__)
_KILL_SECONDS = 10.0
_LOAD_SECONDS = 10.0
MOST_REFRESHES = 32
"""So many keyspaces' tables are read at once without anybody waiting: a gateway that starts has thousands."""


class Effects:
    """Performs effects for all sessions of one gateway.

    :param sessions: the gateway's sessions by number, as they are at each moment.
    :param on_alter_vschema: see :class:`~homeworld.gateway.server.Gateway`.
    """

    def __init__(
        self,
        pool: Pool,
        accounts: Accounts,
        clock: Clock,
        sessions: Mapping[int, Session],
        on_alter_vschema: Callable[[str, str, str, str], None] | None,
    ) -> None:
        self._pool = pool
        self._accounts = accounts
        self._clock = clock
        self._sessions = sessions
        self._on_alter_vschema = on_alter_vschema
        self._sequences: dict[str, Sequences] = {}
        self._loads = SchemaLoads(self._read_schema)
        self._threads = Threads()
        self._refreshes = asyncio.Semaphore(MOST_REFRESHES)
        self._tasks: set[asyncio.Task[None]] = set()

    def forget_sequences(self, branch_id: str) -> None:
        """The branch's routes have changed: ids in hand may have been given out elsewhere."""
        if branch_id in self._sequences:
            self._sequences[branch_id].forget()

    def refresh(self, branch: Branch, keyspace: str) -> None:
        """Load a keyspace's tables anew in the background."""
        self._spawn(self._refresh(branch, keyspace), f"load {keyspace}")

    async def close(self) -> None:
        """End everything that is under way."""
        self._threads.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._loads.close()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def perform(self, session: Session, effect: Effect) -> None:
        """Perform a session's effect; the session hears of it later."""
        if isinstance(effect, WaitHold):
            # Clients that give up and come again must not pile up in a hold that lasts.
            waiting = weakref.ref(session)

            def go_on() -> None:
                waits = waiting()
                if waits is not None:
                    waits.resume(effect, None)

            effect.hold.waiters.append(go_on)
            return
        self._spawn(self._perform(session, effect), type(effect).__name__)

    async def _perform(self, session: Session, effect: Effect) -> None:
        try:
            result = await self._result(session, effect)
        except HomeworldError as error:
            session.fail(effect, error)
        except Exception:  # noqa: BLE001 a fault of ours must not leave the client waiting; it is logged
            _LOG.exception("session %d: %s failed", session.number, type(effect).__name__)
            session.fail(effect, HomeworldError("internal error"))
        else:
            if not session.resume(effect, result) and isinstance(result, Link):
                self._pool.give_back(result)

    async def _result(self, session: Session, effect: Effect) -> object:
        branch = session.branch
        match effect:
            case Connect(endpoint, capabilities, charset, schema):
                return await self._pool.lease(endpoint, capabilities, charset, schema)
            case Ponder(work):
                return await self._threads.do(work, lambda: session.phase is not Phase.CLOSED)
            case LoadSchema(keyspace):
                await self._loads.load(branch, keyspace, since=1)
            case ReadAgain(keyspaces):
                return await self._read_again(branch, keyspaces)
            case TakeSequence(keyspace, table, count):
                sequences = self._sequences.setdefault(branch.routes.branch_id, Sequences(self._pool))
                return await sequences.take(branch, keyspace, table, count)
            case StoreVschema():
                await self._store_vschema(branch, effect)
            case Authenticate(user, plugin, answer, scramble):
                return await self._authenticate(session, Proof(user, plugin, answer, scramble))
            case Kill(number, query_only):
                await self._kill(session, number, query_only=query_only)
            case _:
                raise HomeworldError(f"nobody performs {type(effect).__name__}")
        return None

    async def _read_again(self, branch: Branch, keyspaces: Iterable[str]) -> dict[str, UnavailableError]:
        since = branch.tracker.moment + 1
        failed: dict[str, UnavailableError] = {}

        async def read(keyspace: str) -> None:
            try:
                await self._loads.load(branch, keyspace, since=since, patient=True)
            except UnavailableError as error:
                failed[keyspace] = error
            except NotFoundError:  # the branch has no such keyspace any more
                _LOG.info("keyspace %s has gone while its tables were to be read", keyspace)

        await asyncio.gather(*map(read, keyspaces))
        return failed

    async def _store_vschema(self, branch: Branch, effect: StoreVschema) -> None:
        if self._on_alter_vschema is None:
            raise UnavailableError("vschemas cannot be changed here")
        await asyncio.to_thread(
            self._on_alter_vschema,
            branch.routes.branch_id,
            effect.keyspace,
            effect.vschema_json,
            effect.base_json,
        )

    async def _authenticate(self, session: Session, proof: Proof) -> Account:
        try:
            return self._accounts.check(proof, session.peer, self._clock.now())
        except UnauthorizedError:
            await asyncio.sleep(self._accounts.delay(session.peer))
            raise

    async def _kill(self, session: Session, number: int, *, query_only: bool) -> None:
        victim = self._victim(session, number)
        links = [link for link in victim.links.values() if link.busy]
        victim.interrupt(ServerError(1317, "70100", "Query execution was interrupted"))
        for link in links:
            if link.endpoint is None:
                continue
            helper = await self._pool.lease(link.endpoint, OWN_CAPABILITIES, UTF8MB4_BIN)
            try:
                if victim.links.get(link.endpoint_id) is not link or not link.busy:
                    continue  # it has ended meanwhile; by now the connection may be somebody else's
                kind = "QUERY" if query_only else "CONNECTION"
                (reply,) = await ask(helper, [commands.query(f"KILL {kind} {link.thread_id}")], _KILL_SECONDS)
                if not isinstance(reply.error, ServerError) or reply.error.server_errno != 1094:
                    reply.check()
            finally:
                self._pool.give_back(helper)
        if not query_only:
            victim.end()

    def _victim(self, session: Session, number: int) -> Session:
        found = self._sessions.get(number)
        candidates = (
            [found]
            if found is not None
            else [
                other
                for other in session.branch.sessions
                if any(link.thread_id == number for link in other.links.values())
            ]
        )
        if len(candidates) != 1 or candidates[0].branch is not session.branch:
            raise ServerError(1094, "HY000", f"Unknown thread id: {number}")
        victim = candidates[0]
        if (
            victim.account.username != session.account.username
            and session.account.role is not BackendRole.ADMIN
        ):
            raise ServerError(1095, "HY000", f"You are not owner of thread {number}")
        return victim

    async def _refresh(self, branch: Branch, keyspace: str) -> None:
        since = branch.tracker.moment + 1
        try:
            async with self._refreshes:
                await self.load_schema(branch, keyspace, since=since)
        except HomeworldError as error:
            _LOG.info("%s", error)

    async def load_schema(self, branch: Branch, keyspace: str, *, since: int) -> None:
        """Return once what is known of a keyspace was read at the tracker's moment ``since`` or later.

        :raises HomeworldError: its server cannot be asked in time.
        """
        await self._loads.load(branch, keyspace, since=since)

    async def _read_schema(self, branch: Branch, keyspace: str, begun: int) -> None:
        place = branch.place(Destination(keyspace, "", TabletType.PRIMARY), BackendRole.ADMIN, 0)
        link = await self._pool.lease(place.endpoint, OWN_CAPABILITIES, UTF8MB4_BIN)
        try:
            columns, views, unique = await ask(
                link, [commands.query(query) for query in load_queries(place.schema)], _LOAD_SECONDS
            )
            rows = (answer.result().text_rows() for answer in (columns, views, unique))
            try:
                branch.tracker.loaded(keyspace, place.schema, *rows, begun=begun)
            except (ValueError, IndexError) as error:
                raise MalformedPacketError("what a server says of its tables cannot be read") from error
        finally:
            self._pool.give_back(link)
