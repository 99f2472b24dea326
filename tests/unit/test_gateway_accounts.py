"""Wrong passwords: counted, slowed, bounded, and the same for names that nobody has."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from homeworld.gateway import accounts as module
from homeworld.gateway.accounts import Accounts, Proof
from homeworld.model.errors import UnauthorizedError
from homeworld.model.topology import BackendRole
from homeworld.wire.auth import native_proof, new_scramble, sha2_proof
from homeworld.wire.constants import CACHING_SHA2, CLEAR, NATIVE
from tests.support.gateway import account, secret

NOW = datetime.now(UTC)
ROLE = BackendRole.READER


@pytest.fixture
def accounts() -> Accounts:
    found = Accounts()
    found.replace({ROLE.value: account(ROLE)})
    return found


def wrong(accounts: Accounts, peer: str = "10.0.0.1", user: str = "nobody") -> str:
    with pytest.raises(UnauthorizedError) as refused:
        accounts.check(Proof(user, CACHING_SHA2, b"x" * 32, new_scramble()), peer, NOW)
    return refused.value.message


def test_delays_double_to_an_end_and_a_right_proof_forgives(accounts: Accounts) -> None:
    delays: list[float] = []
    for _ in range(8):
        wrong(accounts)
        delays.append(accounts.delay("10.0.0.1"))
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 3.0, 3.0])
    assert accounts.delay("10.0.0.2") == 0
    scramble = new_scramble()
    right = Proof(ROLE.value, CACHING_SHA2, sha2_proof(secret(ROLE), scramble), scramble)
    assert accounts.check(right, "10.0.0.1", NOW).username == ROLE.value
    assert accounts.delay("10.0.0.1") == 0


def test_attempts_at_the_same_time_count_each(accounts: Accounts) -> None:
    for _ in range(60):
        wrong(accounts)
    let_wait = [accounts.begin_waiting("10.0.0.1") for _ in range(60)]
    assert let_wait == [True] * 50 + [False] * 10
    assert accounts.begin_waiting("10.0.0.2")
    for _ in range(50):
        accounts.end_waiting("10.0.0.1")
    accounts.end_waiting("10.0.0.2")
    assert accounts._waiting == {}  # type: ignore[reportPrivateUsage]
    assert accounts.failures("10.0.0.1") == 60


def test_many_addresses_take_bounded_room(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_PEERS", 100)
    for number in range(1000):
        wrong(accounts, f"10.0.{number >> 8}.{number & 255}")
        wrong(accounts, "10.9.9.9")  # who goes on is not forgotten for those who came once
    assert len(accounts._failures) == 100  # type: ignore[reportPrivateUsage]
    assert accounts.failures("10.9.9.9") == 1000


@pytest.mark.parametrize("user", ["a\nb", "x" * 5000, "\x1b[31m", "\ufffd", "\u202e", "a'b"])
def test_a_name_is_fit_for_a_line_of_a_log(accounts: Accounts, user: str) -> None:
    said = wrong(accounts, user=user)
    assert said.isprintable()
    assert len(said) < 250


@pytest.mark.parametrize("plugin", [NATIVE, CACHING_SHA2, CLEAR])
def test_who_does_not_exist_goes_the_way_of_a_wrong_password(
    accounts: Accounts, plugin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same work is done for both: nobody can tell by the time it takes which names there are."""
    done: list[str] = []

    def watched(name: str, check: Callable[..., bool]) -> Callable[..., bool]:
        def watch(*arguments: bytes) -> bool:
            done.append(f"{name} of {[len(argument) for argument in arguments]}")
            return check(*arguments)

        return watch

    for name in ("check_native", "check_sha2", "check_sha2_plain"):
        monkeypatch.setattr(module, name, watched(name, getattr(module, name)))
    scramble = new_scramble()
    answer = native_proof("x", scramble) if plugin == NATIVE else sha2_proof("x", scramble)
    work: list[list[str]] = []
    for user in (ROLE.value, "nobody"):
        with pytest.raises(UnauthorizedError):
            accounts.check(Proof(user, plugin, answer, scramble), "10.0.0.1", NOW)
        work.append(done[:])
        done.clear()
    assert work[0] == work[1]
    assert len(work[0]) == 1


@pytest.mark.parametrize("answer", [b"", b"\0", b"x", bytes(20), bytes(32), b"x" * 1000])
@pytest.mark.parametrize("plugin", [NATIVE, CACHING_SHA2, CLEAR, "", "auth_gssapi"])
def test_no_other_answer_is_a_proof(accounts: Accounts, plugin: str, answer: bytes) -> None:
    for user in (ROLE.value, "nobody", ""):
        with pytest.raises(UnauthorizedError):
            accounts.check(Proof(user, plugin, answer, new_scramble()), "10.0.0.1", NOW)
