"""What a session knows: its client, its branch, its backend links, its transaction; no movement.

:class:`~homeworld.gateway.session.Session` adds how it moves. Dialogues (``statements``, ``prepared``,
``control``, ``commands``) read and change what stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from homeworld.gateway.bonds import Bonds
from homeworld.gateway.branch import Branch
from homeworld.gateway.budget import Budget
from homeworld.gateway.dialogue import Effect
from homeworld.gateway.hold import Touch
from homeworld.gateway.link import Link
from homeworld.gateway.plan import Destination, Pass, Scatter, SessionView, Target, Verb
from homeworld.gateway.replay import Settings, charset_name
from homeworld.gateway.roles import plain_verbs
from homeworld.gateway.tracker import STALE_ERRNOS
from homeworld.gateway.transaction import Transaction
from homeworld.model.errors import HomeworldError
from homeworld.model.routing import Account
from homeworld.wire.constants import Status
from homeworld.wire.packets import frame
from homeworld.wire.renumber import Renumber
from homeworld.wire.results import Ok, err_of

if TYPE_CHECKING:
    from homeworld.gateway.prepared import Again, Statement

_UNKNOWN = -1
_ENDS_TRANSACTION = frozenset({1213, 1614, 3101})
"""Errors with which a server has rolled the whole transaction back."""


class Outside(Protocol):
    """What a session needs of the world: its client, and whoever performs effects."""

    @property
    def send(self) -> Callable[[bytes], object]:
        """Sends bytes to the client."""
        ...

    def close(self, *, linger: bool = False) -> None:
        """Close the client's connection once everything has been sent.

        :param linger: the client is still sending: take no notice of it, but let it read first.
        """
        ...

    def pause(self, *, paused: bool) -> None:
        """Let no more bytes arrive from the client, or let them arrive again."""
        ...

    def perform(self, session: SessionState, effect: Effect) -> None:
        """Perform an effect; later (never within this call) call ``session.resume`` or ``session.fail``."""
        ...

    def give_back(self, link: Link) -> None:
        """The session does not need the link any more. It may be in any state but closed."""
        ...

    def progress(self, session: SessionState) -> None:
        """Something has come to its end that a hold may be waiting for."""
        ...

    def gone(self, session: SessionState) -> None:
        """The session has ended and nothing of it is under way any more."""
        ...


class SessionState:
    """One authenticated client.

    * ``peer``: the client's IP address.
    * ``links``: backend connections by server id; ``ready``: those that the hot path may use, by the identity
      of a destination (which the entry keeps alive), with the verbs it may use them for;
      ``quick``: statements by what stands before their last number, with the tables' version;
      ``executions``: prepared statements that only have to be sent.
    * ``current``: the plan being carried out, for holds.
    * ``epoch``: the branch's when it was admitted.
    * ``tracking``: whether statements are parts of a transaction that the client has asked for; ``noting``:
      of any, as a procedure may leave one open: they have to be noted for holds.
    * ``last``: the link that answered last; None behind a statement on several shards.
    * ``bonds``: what statements have left on links that SETs cannot replay.
    * ``last_insert_id``: the last id that was generated; ``said_ids``: those that answers carried since, the
      newest last, of which some may have been the client's own (servers answer both alike); ``known_ids``:
      what LAST_INSERT_ID() was on each link when it was asked; ``first_id``: what it is on links that come,
      where their settings say so.
    * ``joined``: set while the answers of several statements are joined into one.
    * ``charset_name``: the character set by which servers read its literals (``replay.texts_charset``);
      ``charset`` is the collation id it began with.
    * ``zero_is_value``: its sql_mode has NO_AUTO_VALUE_ON_ZERO.
    * ``sequence``: number of the next packet of an answer of our own.
    * ``doubt``: the link to a vtgate that has answered with an error in a transaction, and whether a server
      would have ended the transaction by it; None: it is known how it stands.
    * ``closed``: the client is gone, or its connection is being closed.
    * ``long_bytes``: what was sent ahead for executions and is held until then.
    * ``touched``: a command has come since somebody last set this to False.
    * ``finishing``: the dialogue must come to its end although the client is gone (COMMIT on
      several servers).

    :param number: the connection id the client was greeted with.
    :param capabilities: what was agreed with the client.
    :param charset: the collation id the client asked for.
    """

    def __init__(
        self,
        *,
        number: int,
        account: Account,
        branch: Branch,
        capabilities: int,
        charset: int,
        outside: Outside,
    ) -> None:
        self.number = number
        self.peer = ""
        self.account = account
        self.branch = branch
        self.capabilities = capabilities
        self.charset = charset
        self.charset_name = charset_name(charset)
        self.zero_is_value = False
        self.outside = outside
        self.links: dict[str, Link] = {}
        self.ready: dict[int, tuple[Destination, Link, frozenset[Verb]]] = {}
        self.executions: dict[bytes, Again] = {}
        self.quick: dict[bytes, tuple[Pass, Link, int]] = {}
        self.current: Pass | Scatter | None = None
        self.epoch = 0
        self.settings = Settings()
        self.transaction = Transaction()
        self.statements: dict[bytes, Statement] = {}
        self.next_statement = 1
        self.long_bytes = 0
        self.bonds = Bonds()
        self.last: Link | None = None
        self.tracking = False
        self.noting = False
        self.autocommit = True
        self.target = Target()
        self.last_insert_id = 0
        self.said_ids: dict[Link, int] = {}
        self.known_ids: dict[Link, int] = {}
        self.first_id = 0
        self.status: int = Status.AUTOCOMMIT
        self.plain = plain_verbs(account.role)
        self.joined: Renumber | None = None
        self.sequence = 1
        self.finishing = False
        self.doubt: tuple[Link, bool] | None = None
        self.closed = False
        self.touched = True
        self.view: SessionView
        self.renew_view()

    # ---------------------------------------------------------------- answers of our own

    def answer(self, payload: bytes) -> None:
        """Send the client one packet as (part of) the answer."""
        if self.joined is not None:
            self.to_client(self.joined.frame(payload))
        else:
            self.to_client(frame(payload, self.sequence))
            self.sequence += 1

    def to_client(self, data: bytes) -> None:
        """Send framed bytes, if the client is still there."""
        if not self.closed:
            self.outside.send(data)

    def answer_ok(self, affected_rows: int = 0, last_insert_id: int = 0, info: bytes = b"") -> None:
        """Send an OK with the flags as they are."""
        ok = Ok(affected_rows, last_insert_id, self.flags(), 0, info)
        self.answer(ok.build(self.capabilities))

    def refuse(self, error: HomeworldError) -> None:
        """Send an error as the answer."""
        self.answer(err_of(error))

    def flags(self) -> int:
        """Server status flags for an answer of our own."""
        flags = self.status & Status.NO_BACKSLASH_ESCAPES
        if self.autocommit:
            flags |= Status.AUTOCOMMIT
        if self.in_transaction:
            flags |= Status.IN_TRANS
        if self.joined is not None and self.joined.more:
            flags |= Status.MORE_RESULTS_EXISTS
        return flags

    # ---------------------------------------------------------------- transaction and hold facts

    @property
    def in_transaction(self) -> bool:
        """As the client sees it."""
        return self.transaction.begin is not None or self.under_way

    @property
    def under_way(self) -> bool:
        """Whether a transaction is open on some server."""
        return any(link.in_transaction for link in self.links.values())

    def may_view(self, link: Link) -> bool:
        """Whether a transaction may be open on the link's server that sees rows as they were. A statement
        that failed may have begun one, and its answer does not say.
        """
        return link.open or (bool(link.walker.error) and not self.autocommit)

    def touches(self) -> Iterator[Touch]:
        """What is under way, for holds; with the tables beneath views as they are known by now."""
        current = self.current
        if current is not None:
            yield self._seen_through(touch_of(current))
        if self.under_way:
            for touch in self.transaction.touches():
                yield self._seen_through(touch)

    def _seen_through(self, touch: Touch) -> Touch:
        beneath = self.branch.tracker.beneath
        under: set[tuple[str, str]] = set()
        for keyspace, table in touch.footprint.tables:
            under.update((keyspace, name) for name in beneath(keyspace, table) or ())
        if under <= touch.footprint.tables:
            return touch
        return replace(touch, footprint=replace(touch.footprint, tables=touch.footprint.tables | under))

    def become(self, account: Account, charset: int) -> None:
        """Go on as another account of the same branch (COM_CHANGE_USER)."""
        self.account = account
        self.charset = charset or self.charset
        self.settings_over()
        self.plain = plain_verbs(account.role)
        self.renew()

    def settings_over(self) -> None:
        """New links begin with what the handshake gave."""
        self.settings.clear()
        self.charset_name = charset_name(self.charset)
        self.zero_is_value = False

    def admit(self, plan: Pass | Scatter) -> None:
        """A statement may go on: holds see it from now on."""
        self.current = plan
        self.epoch = self.branch.epoch
        if self.noting:
            self.note(plan)

    def note(self, plan: Pass | Scatter) -> None:
        """The transaction has touched what the plan touches."""
        if isinstance(plan, Pass):
            self.transaction.touch(plan.footprint, plan.destination, self.branch.turn)
        else:
            for destination, _ in plan.statements:
                self.transaction.touch(plan.footprint, destination, self.branch.turn)

    def set_schema(self, link: Link, schema: str) -> None:
        """The link's current schema has changed: destinations in another one have to be looked at again."""
        if link.schema != schema:
            link.schema = schema
            self.unready(link)

    def unready(self, link: Link) -> None:
        """The hot path may not use the link until it has been looked at again."""
        for key in [key for key, (_, known, _) in self.ready.items() if known is link]:
            del self.ready[key]
        self.quick.clear()
        self.executions.clear()

    def unready_all(self) -> None:
        """The hot path may use no link until it has been looked at again."""
        self.ready.clear()
        self.quick.clear()
        self.executions.clear()

    def renew(self) -> None:
        """Something changed that the hot path relies on: every link has to be looked at again."""
        self.unready_all()
        self.tracking = self.transaction.begin is not None or not self.autocommit
        self.noting = self.tracking or any(link.open for link in self.links.values())
        self.renew_view()

    def renew_view(self) -> None:
        """Let the router see the session as it is now."""
        self.view = self.branch.view_of(
            SessionView(
                target=self.target,
                in_transaction=self.transaction.begin is not None or self.under_way,
                role=self.account.role,
                replica_only=self.account.replica,
                last_insert_id=-1 if self.said_ids else self.last_insert_id,
                charset=self.charset_name,
                zero_is_value=self.zero_is_value,
            )
        )

    def budget(self) -> Budget:
        """A new budget for what is collected of one statement's answers."""
        return Budget([link for link in self.links.values() if link.in_transaction or self.bonds.on(link)])

    def transaction_over(self) -> None:
        """The transaction has ended on all servers."""
        self.transaction.over()
        self.doubt = None
        for link in self.links.values():
            link.began = False
        self.renew()

    def learn(self, link: Link) -> None:
        """Take in what an answer said: errors, flags, ids."""
        walker = link.walker
        if walker.error:
            self.learn_error(link, int.from_bytes(walker.error[1:3], "little"))
            return
        ok = walker.ok
        if len(ok) > 2 and (ok[1] > 250 or ok[2]):
            insert_id = Ok.parse(ok, link.capabilities).last_insert_id
            if insert_id:
                self.said_id(link, insert_id)
        status = walker.status
        changed = status ^ self.status
        self.status = status
        if changed & Status.AUTOCOMMIT:
            self.autocommit = bool(status & Status.AUTOCOMMIT)
            self.renew()
        if status & Status.IN_TRANS:
            if changed & Status.IN_TRANS:
                self.transaction.reached()
                self.renew_view()
            if not self.noting:
                # It was not the client who began it, but what is being carried out.
                self.noting = True
                if self.current is not None:
                    self.note(self.current)
        elif link.began:
            # The server has ended it by itself (DDL, LOCK TABLES, COMMIT in a procedure).
            link.began = False
            if self.under_way:
                self.renew()
            else:
                self.transaction_over()
        elif changed & Status.IN_TRANS and not self.in_transaction:
            self.transaction_over()

    def said_id(self, link: Link, number: int) -> None:
        """An answer carried an id; 0: it may have generated one."""
        sure = not self.said_ids
        self.said_ids.pop(link, None)
        self.said_ids[link] = number
        if sure:
            self.renew_view()

    def learn_last_id(self, link: Link, number: int) -> None:
        """The link's LAST_INSERT_ID() is this. Call it for the links as they stand in ``said_ids``."""
        said = self.said_ids.pop(link, 0)
        known = self.known_ids.get(link, 0)
        if number and (number == said or known not in {number, _UNKNOWN}):
            self.last_insert_id = number
        self.known_ids[link] = number
        self.renew_view()

    def gave_id(self, number: int) -> None:
        """The gateway has given an id from a sequence: no server has generated a newer one."""
        self.known_ids.update(dict.fromkeys(self.said_ids, _UNKNOWN))
        self.said_ids.clear()
        self.last_insert_id = number
        self.renew_view()

    def learn_error(self, link: Link, errno: int) -> None:
        """Take in what a server's error says of the transaction and of the known tables."""
        if link.vtgate and link.in_transaction:
            # It may have rolled back what it had, or keep what a server would not: it has to be asked.
            self.doubt = link, errno in _ENDS_TRANSACTION
            self.unready(link)
        elif errno in _ENDS_TRANSACTION and link.in_transaction:
            link.began = False
            link.walker.status &= ~Status.IN_TRANS
            self.status &= ~Status.IN_TRANS
            if self.under_way:
                self.transaction.lost = "the server rolled back its part of the transaction"
                self.renew()
            else:
                self.transaction_over()
        if errno in STALE_ERRNOS:
            current = self.current
            if isinstance(current, Pass):
                for keyspace in touch_of(current).keyspaces:
                    self.branch.tracker.suspect(keyspace)

    def forget(self, link: Link) -> None:
        """A link is gone; if it had a part of the transaction, only ROLLBACK helps."""
        if self.links.get(link.endpoint_id) is link:
            del self.links[link.endpoint_id]
        for statement in self.statements.values():
            statement.forget(link)
        if self.last is link:
            self.last = None
        if self.doubt is not None and self.doubt[0] is link:
            self.doubt = None
        # Whoever could tell is gone; most ids are generated.
        self.last_insert_id = self.said_ids.pop(link, 0) or self.last_insert_id
        self.known_ids.pop(link, None)
        if link.in_transaction:
            link.began = False
            self.transaction.lost = "a server was lost that had a part of the transaction"
        self.renew()

    def drop_links(self) -> None:
        """Give all backend connections back; what the session had on them is gone."""
        links = list(self.links.values())
        self.links.clear()
        self.unready_all()
        self.bonds.clear()
        self.last = None
        self.doubt = None
        self.said_ids.clear()
        self.known_ids.clear()
        for link in links:
            for statement in self.statements.values():
                statement.forget(link)
            self.outside.give_back(link)


def touch_of(plan: Pass | Scatter) -> Touch:
    """What a plan touches, for holds."""
    destinations = (plan.destination,) if isinstance(plan, Pass) else tuple(d for d, _ in plan.statements)
    return Touch.at(plan.footprint, destinations)
