"""Session tokens: what a session is between two requests, signed, in the client's hands.

A session without a transaction is nothing but this token: no memory and no connection is kept for it, and any
gateway that has the key goes on with it. One with a transaction is named by it (``pin``), and is on the
gateway that the token names.

Pure; the time is handed in. The invariant: what a token says was said by a gateway of this installation, to
the password that sends it. It is no secret from who holds it, and proves nobody's identity: each request has
its password besides.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import zlib
from dataclasses import dataclass, replace
from typing import Final, cast

from homeworld.edge.messages import SessionSeen, Shown, Workload
from homeworld.model.errors import BadRequestError
from homeworld.model.names import new_id
from homeworld.model.routing import Account
from homeworld.model.topology import TabletType

LIFETIME_SECONDS: Final = 7 * 86_400
"""So long a token may lie unused."""

MOST_BYTES: Final = 1 << 16
"""The largest state that a client is given to carry."""

_VERSION: Final = b"\x01"
_MAC: Final = 32
_CONTEXT: Final = b"homeworld edge session\0"


class TokenError(BadRequestError):
    """The session is not one that was given to this password: begin a new one."""


class ExpiredTokenError(TokenError):
    """The session has not been used for too long: begin a new one."""


class LargeStateError(BadRequestError):
    """The session has more settings and variables than can be kept between requests."""


@dataclass(frozen=True, slots=True)
class State:
    """What a session is.

    * ``uuid``: its name, for its whole life.
    * ``pin``: the session that is kept for it on the gateway ``gateway``; empty where none is.
    * ``bound``: that session has left something on its server that SETs cannot repeat, also in a transaction.
    * ``warm``: where a session may still be that has this very state; a hint.
    * ``keyspace``, ``shard``, ``tablet``: what it is aimed at.
    * ``settings``: its SETs in order; ``once``: those for the next transaction.
    * ``charset``, ``zero_is_value``: how its texts are read (``gateway.state``).
    * ``found_rows``, ``row_count``: for the client to see.
    """

    uuid: str
    pin: str = ""
    gateway: str = ""
    warm: str = ""
    in_transaction: bool = False
    bound: bool = False
    keyspace: str = ""
    shard: str = ""
    tablet: TabletType = TabletType.PRIMARY
    autocommit: bool = True
    settings: tuple[bytes, ...] = ()
    once: tuple[bytes, ...] = ()
    charset: str = "utf8mb4"
    zero_is_value: bool = False
    last_insert_id: int = 0
    workload: Workload = Workload.UNSPECIFIED
    found_rows: int = 0
    row_count: int = 0

    def unpinned(self) -> State:
        """The same, kept nowhere."""
        return replace(self, pin="", gateway="", warm="", in_transaction=False, bound=False)

    def shown(self) -> Shown:
        """It as its client sees it."""
        target = self.keyspace + (f":{self.shard}" if self.shard else "")
        if self.tablet is not TabletType.PRIMARY:
            target += f"@{self.tablet.value}"
        return Shown(
            self.in_transaction,
            self.autocommit,
            target,
            self.workload,
            self.last_insert_id,
            self.found_rows,
            self.row_count,
            self.uuid,
        )


def fresh() -> State:
    """A new session."""
    return State(new_id())


class Signer:
    """Makes and reads tokens.

    :param secret: the installation's, the same in all its gateways.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hashlib.sha256(_CONTEXT + secret).digest()

    def _mac(self, account: Account, body: bytes) -> bytes:
        # Bound to the password, and to this one of the name: who gets its name later cannot go on with it.
        who = json.dumps([account.username, account.branch_id, account.sha256_twice.hex()]).encode()
        return hmac.new(self._key, len(who).to_bytes(4, "big") + who + body, hashlib.sha256).digest()

    def sign(self, state: State, account: Account, now: float) -> bytes:
        """The token of a state.

        :param now: seconds since the epoch.
        :raises LargeStateError: it would be larger than clients carry.
        """
        told = [
            int(now), state.uuid, state.pin, state.gateway, state.warm, state.in_transaction, state.bound,
            state.keyspace, state.shard, state.tablet.value, state.autocommit,
            [one.decode("latin-1") for one in state.settings], [one.decode("latin-1") for one in state.once],
            state.charset, state.zero_is_value, state.last_insert_id, int(state.workload), state.found_rows,
            state.row_count,
        ]  # fmt: skip
        plain = json.dumps(told, separators=(",", ":")).encode()
        if len(plain) > MOST_BYTES:
            raise LargeStateError
        body = _VERSION + zlib.compress(plain, 1)
        return self._mac(account, body) + body

    def read(self, seen: SessionSeen, account: Account, now: float) -> State:
        """The state that a client sent.

        :raises TokenError: it was not given to this password, or was changed. :raises ExpiredTokenError: see
            there.
        """
        mac, body = seen.token[:_MAC], seen.token[_MAC:]
        if not hmac.compare_digest(mac, self._mac(account, body)) or body[:1] != _VERSION:
            raise TokenError
        # Only what was signed here is unpacked.
        told = cast("list[object]", json.loads(zlib.decompress(body[1:])))
        made = cast("int", told[0])
        if now - made > LIFETIME_SECONDS:
            raise ExpiredTokenError
        (uuid, pin, gateway, warm, in_transaction, bound, keyspace, shard, tablet, autocommit, settings, once,
         charset, zero_is_value, last_insert_id, workload, found_rows, row_count) = told[1:]  # fmt: skip
        return State(
            uuid=cast("str", uuid),
            pin=cast("str", pin),
            gateway=cast("str", gateway),
            warm=cast("str", warm),
            in_transaction=cast("bool", in_transaction),
            bound=cast("bool", bound),
            keyspace=cast("str", keyspace),
            shard=cast("str", shard),
            tablet=TabletType(cast("str", tablet)),
            autocommit=cast("bool", autocommit),
            settings=tuple(one.encode("latin-1") for one in cast("list[str]", settings)),
            once=tuple(one.encode("latin-1") for one in cast("list[str]", once)),
            charset=cast("str", charset),
            zero_is_value=cast("bool", zero_is_value),
            last_insert_id=cast("int", last_insert_id),
            workload=Workload(cast("int", workload)),
            found_rows=cast("int", found_rows),
            row_count=cast("int", row_count),
        )


def check_unchanged(state: State, seen: SessionSeen) -> None:
    """Refuse a session that its client has changed: what it was shown is not what decides.

    :raises TokenError: it was changed.
    """
    shown, true = seen.shown, state.shown()
    if shown is not None and (
        shown.autocommit != true.autocommit
        or shown.target != true.target
        or shown.workload is not true.workload
        or shown.in_transaction != true.in_transaction
    ):
        raise TokenError("the session was changed by the client: change it by USE, SET, BEGIN and COMMIT")
