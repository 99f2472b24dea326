"""Who may log in: branch passwords by name, their networks, their end, and patience with wrong proofs.

Holds no password, only what ``wire.auth`` checks a proof against. Pure: the time is handed in. A name that
does not exist is checked against a secret nobody has, so that it takes the same path as a wrong password.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from ipaddress import ip_address, ip_network

from homeworld.model.errors import UnauthorizedError
from homeworld.model.routing import Account
from homeworld.model.topology import BackendRole
from homeworld.wire.auth import check_native, check_sha2, check_sha2_plain
from homeworld.wire.constants import CACHING_SHA2, CLEAR, NATIVE

PLUGINS = (CACHING_SHA2, NATIVE)
"""Plugins by which a client may prove itself; the first is offered."""

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 3.0
_MOST_PEERS = 10_000
_MOST_WAITING = 50
"""So many refused clients of one address may wait for their answer at once."""
_LONGEST_NAME = 96


@lru_cache(maxsize=4096)
def _inside(cidrs: tuple[str, ...], peer: str) -> bool:
    try:
        address = ip_address(peer)
        networks = [ip_network(cidr, strict=False) for cidr in cidrs]
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks)


def may_connect(account: Account, peer: str, now: datetime) -> bool:
    """Whether the account is still valid, for a client at ``peer`` (an IP address)."""
    if account.expires_at is not None and account.expires_at <= now:
        return False
    return not account.cidrs or _inside(account.cidrs, peer)


@dataclass(frozen=True, slots=True)
class Proof:
    """What a client answered to ``scramble`` by ``plugin``."""

    user: str
    plugin: str
    answer: bytes
    scramble: bytes


class Accounts:
    """The accounts of the newest snapshot, and who has failed lately."""

    def __init__(self) -> None:
        self._accounts: Mapping[str, Account] = {}
        self._failures: dict[str, int] = {}
        self._waiting: dict[str, int] = {}
        self._nobody = Account(
            username="",
            branch_id="",
            role=BackendRole.READER,
            sha1_twice=secrets.token_bytes(20),
            sha256_twice=secrets.token_bytes(32),
            cidrs=(),
            expires_at=None,
            replica=False,
        )

    def replace(self, accounts: Mapping[str, Account]) -> None:
        """Serve these from now on."""
        self._accounts = accounts

    def current(self, account: Account) -> Account | None:
        """The account of that name as it is now, if it is still the same password of the same branch."""
        found = self._accounts.get(account.username)
        if (
            found is None
            or found.sha256_twice != account.sha256_twice
            or found.branch_id != account.branch_id
        ):
            return None
        return found

    def welcomes(self, account: Account, peer: str, now: datetime) -> bool:
        """Whether who came in as ``account`` may still be in, from ``peer``."""
        found = self.current(account)
        if found is None or found.role is not account.role or found.replica != account.replica:
            return False
        return may_connect(found, peer, now)

    def next_expiry(self, now: datetime) -> datetime | None:
        """When the next account will expire."""
        return min(
            (
                a.expires_at
                for a in self._accounts.values()
                if a.expires_at is not None and a.expires_at > now
            ),
            default=None,
        )

    def check(self, proof: Proof, peer: str, now: datetime) -> Account:
        """The account that ``proof`` proves.

        :raises UnauthorizedError: wrong name or password, expired, or not from this address.
        """
        account = self._accounts.get(proof.user, self._nobody)
        if not _proves(account, proof) or account is self._nobody:
            self._failures[peer] = self._failures.pop(peer, 0) + 1
            if len(self._failures) > _MOST_PEERS:
                del self._failures[next(iter(self._failures))]
            using = "YES" if proof.answer else "NO"
            raise UnauthorizedError(
                f"Access denied for user '{_shown(proof.user)}'@'{peer}' (using password: {using})"
            )
        if not may_connect(account, peer, now):
            raise UnauthorizedError(
                f"Access denied for user '{_shown(proof.user)}'@'{peer}' (expired, or not for this address)"
            )
        self._failures.pop(peer, None)
        return account

    def failures(self, peer: str) -> int:
        """How many proofs in a row from ``peer`` were wrong."""
        return self._failures.get(peer, 0)

    def begin_waiting(self, peer: str) -> bool:
        """A refused client at ``peer`` is to wait for its answer; false: too many of them do."""
        waiting = self._waiting.get(peer, 0)
        if waiting >= _MOST_WAITING:
            return False
        self._waiting[peer] = waiting + 1
        return True

    def end_waiting(self, peer: str) -> None:
        """One that :meth:`begin_waiting` let wait is gone."""
        waiting = self._waiting.pop(peer, 0) - 1
        if waiting > 0:
            self._waiting[peer] = waiting

    def delay(self, peer: str) -> float:
        """Seconds to wait before a client at ``peer`` is told that its proof was wrong."""
        failures = self._failures.get(peer, 0)
        return min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(failures - 1, 10)) if failures else 0.0


def _shown(name: str) -> str:
    """A name that a client gave, fit for one line of a log and for an error packet."""
    plain = name if name.isprintable() else ascii(name)[1:-1]
    return plain if len(plain) <= _LONGEST_NAME else plain[:_LONGEST_NAME] + "…"


def _proves(account: Account, proof: Proof) -> bool:
    if proof.plugin == NATIVE:
        return check_native(proof.answer, proof.scramble, account.sha1_twice)
    if proof.plugin == CACHING_SHA2:
        return check_sha2(proof.answer, proof.scramble, account.sha256_twice)
    if proof.plugin == CLEAR:
        # Only ever asked for over TLS: full authentication sends the password itself.
        return check_sha2_plain(proof.answer.removesuffix(b"\0"), account.sha256_twice)
    return False
