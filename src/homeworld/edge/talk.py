"""One gateway session whose client is no socket: a command in, its whole answer out.

The session is the gateway's own (:class:`~homeworld.gateway.session.Session`), with the router, the holds,
the roles and the pool of every other; this is what it sees as its client. It also says what of a session
stays when nobody asks it anything, so that it can be let go and made again (``tokens.State``).

The invariant: a session is asked for its state only when nothing of it is under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum

from homeworld.edge.answers import Answer
from homeworld.edge.purse import Charge
from homeworld.edge.tokens import State
from homeworld.gateway import statements
from homeworld.gateway.branch import Branch
from homeworld.gateway.connection import House
from homeworld.gateway.dialogue import Dialogue, Effect
from homeworld.gateway.handlers import HANDLERS
from homeworld.gateway.link import Link
from homeworld.gateway.phases import Phase
from homeworld.gateway.plan import Target
from homeworld.gateway.session import Session
from homeworld.gateway.state import SessionState
from homeworld.model.errors import ConnectionLostError, HomeworldError, MalformedPacketError
from homeworld.model.routing import Account
from homeworld.model.topology import Flavor
from homeworld.wire import commands
from homeworld.wire.constants import Cap, Status
from homeworld.wire.packets import frame

CAPABILITIES = int(
    Cap.LONG_PASSWORD
    | Cap.FOUND_ROWS
    | Cap.LONG_FLAG
    | Cap.PROTOCOL_41
    | Cap.TRANSACTIONS
    | Cap.SECURE_CONNECTION
    | Cap.MULTI_RESULTS
    | Cap.PS_MULTI_RESULTS
    | Cap.PLUGIN_AUTH
    | Cap.DEPRECATE_EOF
)
"""As a client's that asks for rows found, not changed, as the sessions of this service do."""

_CHARSETS = {Flavor.MYSQL: 255, Flavor.MARIADB: 45}
"""Collations of utf8mb4: each family's own default."""


class Keep(StrEnum):
    """Why a session has to stay as it is between two requests."""

    NOTHING = "nothing"
    AUTOCOMMIT = "autocommit"
    BOUND = "bound"
    TRANSACTION = "transaction"


class Talk:
    """A session and whoever asks it.

    :param state: what the session is; a pin in it does not matter.
    :param lost: it had a transaction, which is gone for this reason: only its end is left to be said.
    """

    def __init__(
        self, house: House, account: Account, branch: Branch, peer: str, state: State, lost: str = ""
    ) -> None:
        self._house = house
        self._answer: Answer | None = None
        self._done: asyncio.Future[None] | None = None
        self._on_rows: Callable[[], None] | None = None
        self._limit = 0
        self._charge: Charge | None = None
        self.closed = False
        self.over = False
        self.crowded = False
        self.lost = bool(lost)
        session = self.session = Session(
            number=house.next_number(),
            account=account,
            branch=branch,
            capabilities=CAPABILITIES,
            charset=_CHARSETS[branch.routes.flavor],
            outside=self,
            max_packet=house.max_packet,
            handlers=HANDLERS,
        )
        session.peer = peer
        session.target = Target(state.keyspace, state.shard, state.tablet)
        session.settings.restore(state.settings)
        session.transaction.next_settings = list(state.once)
        session.charset_name = state.charset
        session.zero_is_value = state.zero_is_value
        session.last_insert_id = state.last_insert_id
        self._primer = b"SET last_insert_id = %d" % state.last_insert_id
        if state.last_insert_id and branch.routes.vtgate is None:
            # Where all goes to one server, statements ask it for the id. To a vtgate it is told in the text.
            session.first_id = state.last_insert_id
            session.settings.add(self._primer)
        if not state.autocommit:
            session.autocommit = False
            session.status &= ~Status.AUTOCOMMIT
        if lost:
            session.transaction.begin = b"BEGIN"
            session.transaction.lost = lost
        session.renew()
        house.entered(session)

    # ---------------------------------------------------------------- asking

    async def ask(
        self,
        payload: bytes,
        answer: Answer,
        *,
        limit: int = 1 << 30,
        charge: Charge | None = None,
        on_rows: Callable[[], None] | None = None,
    ) -> None:
        """Give a command; returns once all of its answer is in ``answer``.

        :param limit: of an answer larger than that nothing is kept, and ``over`` is set.
        :param charge: bears what is kept; where it cannot, it is as beyond the limit, and ``crowded`` is set.
        :param on_rows: called whenever some have come, to take them.
        """
        self._answer, self._on_rows, self._limit, self.over = answer, on_rows, limit, False
        self.crowded = False
        self._charge = charge
        self._done = asyncio.get_running_loop().create_future()
        if self.closed:
            answer.failed(ConnectionLostError())
        else:
            self.session.client_data(frame(payload))
            if not answer.done:
                await self._done
        self._answer = self._on_rows = self._done = None

    async def quiet(self) -> None:
        """Return once nothing of the session is under way, and what it is can be told."""
        session = self.session
        if session.phase not in {Phase.IDLE, Phase.CLOSED}:
            # A dialogue goes on behind the answer; the next command waits for its end.
            await self.ask(commands.PING, Answer(CAPABILITIES))
        if session.said_ids and self.keep() is Keep.NOTHING and session.phase is Phase.IDLE:
            # Servers answer ids that they made and ids that they were given alike; only they know.
            answer = Answer(CAPABILITIES)
            self._answer, self._done = answer, asyncio.get_running_loop().create_future()
            session.sequence = 1
            session.start(_settle(session))
            if not answer.done:
                await self._done
            self._answer = self._done = None

    def forget_statement(self, number: bytes) -> None:
        """Close a prepared statement, which has no answer."""
        if not self.closed:
            self.session.client_data(frame(commands.stmt_close(int.from_bytes(number, "little"))))

    def end(self) -> None:
        """End the session; what it has not committed is rolled back."""
        self.session.end()

    # ---------------------------------------------------------------- what it is between two requests

    @property
    def bound(self) -> bool:
        """Whether it has left something on its server that SETs cannot repeat."""
        session = self.session
        bonds = session.bonds
        if bonds.link is not None or bonds.variables or session.settings.overflow:
            return True
        return any(link.locked for link in session.links.values())

    def keep(self) -> Keep:
        """Why the session cannot be let go and made again."""
        session = self.session
        if session.in_transaction or session.transaction.lost:
            return Keep.TRANSACTION
        if self.bound:
            return Keep.BOUND
        return Keep.NOTHING if session.autocommit else Keep.AUTOCOMMIT

    def state(self, before: State) -> State:
        """What the session is now, kept nowhere."""
        session, target = self.session, self.session.target
        return replace(
            before.unpinned(),
            in_transaction=session.in_transaction,
            keyspace=target.keyspace,
            shard=target.shard,
            tablet=target.tablet_type,
            autocommit=session.autocommit,
            settings=tuple(sql for sql in session.settings.performed if sql != self._primer),
            once=tuple(session.transaction.next_settings),
            charset=session.charset_name,
            zero_is_value=session.zero_is_value,
            last_insert_id=session.last_insert_id,
        )

    # ---------------------------------------------------------------- what the session asks of its client

    def send(self, data: bytes) -> None:
        """Take bytes of the answer."""
        answer = self._answer
        if answer is None:
            return
        try:
            answer.feed(data)
            if self._on_rows is not None and answer.rows:
                self._on_rows()
        except MalformedPacketError as error:
            self._give_up(answer, error)
        bearable = self._charge is None or self._charge.reach(answer.size)
        if (answer.size > self._limit or not bearable) and not self.over:
            self.over, self.crowded = True, not bearable
            answer.drop()
            if not answer.done and self.keep() is Keep.NOTHING and not self._writes():
                # Nothing hangs on the session: the server need not send all the rest.
                self._give_up(answer, ConnectionLostError())
        if answer.done and self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _writes(self) -> bool:
        current = self.session.current
        return current is not None and current.footprint.writes

    def _give_up(self, answer: Answer, error: HomeworldError) -> None:
        answer.failed(error)
        # Not now: whoever sends is in the middle of something.
        asyncio.get_running_loop().call_soon(self.session.end)

    def close(self, *, linger: bool = False) -> None:  # noqa: ARG002 nobody sends
        """The session has ended."""
        self.closed = True
        if self._answer is not None:
            self._answer.failed(ConnectionLostError())
            if self._done is not None and not self._done.done():
                self._done.set_result(None)

    def pause(self, *, paused: bool) -> None:
        """Nothing more comes than the one command."""

    def perform(self, session: SessionState, effect: Effect) -> None:
        """Have an effect performed."""
        self._house.perform(session, effect)

    def give_back(self, link: Link) -> None:
        """Give a link back to the pool."""
        self._house.give_back(link)

    def progress(self, session: SessionState) -> None:
        """Tell that something has ended."""
        self._house.progress(session.branch)

    def gone(self, session: SessionState) -> None:
        """Tell that the session has ended."""
        self._house.gone(session)


def _settle(session: Session) -> Dialogue[None]:
    """Know which id was generated last, and say OK."""
    yield from statements.ask_last_id(session)
    session.answer_ok()
