"""What keeps something from being made stands beside it, whatever kind of failure it was."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from homeworld.model.errors import UnavailableError
from homeworld.store.store import Store
from homeworld.store.work import Work
from homeworld.workflows.provisioning import runner as running
from homeworld.workflows.provisioning.runner import NotYetError, Runner
from homeworld.workflows.steps import Plan, Step


class Held:
    """A lease that nobody else wants."""

    resource = "keyspace:1"

    def require(self, tx: Work) -> None:
        """It is held."""


def failing(error: Exception) -> Callable[[None], None]:
    def perform(_context: None) -> None:
        raise error

    return perform


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (UnavailableError("the server ended"), "the server ended"),
        (OSError(errno.ENOSPC, "No space left on device"), "[Errno 28] No space left on device"),
    ],
)
def test_a_failure_is_told_and_tried_again(store: Store, error: Exception, says: str) -> None:
    told: list[tuple[str, str]] = []
    runner = Runner(store, lambda resource_id, text: told.append((resource_id, text)))
    plan = Plan("make", (Step("a step", failing(error)),), forward_only=True)
    rest = runner.act(plan, None, "1", Held())  # type: ignore[reportArgumentType]  # all that it is asked for
    assert rest is not None
    assert rest.keep
    assert told == [("1", says)]


def test_a_fault_is_told_without_its_words(store: Store) -> None:
    told: list[str] = []
    runner = Runner(store, lambda _resource_id, text: told.append(text))
    plan = Plan("make", (Step("a step", failing(ZeroDivisionError("a secret"))),), forward_only=True)
    with pytest.raises(ZeroDivisionError):
        runner.act(plan, None, "1", Held())  # type: ignore[reportArgumentType]  # all that it is asked for
    assert told == ["a step: an unexpected fault; homeworld's log says which"]


def test_who_waits_long_is_looked_at_less_often(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0

    class Time:
        @staticmethod
        def monotonic() -> float:
            return now

    monkeypatch.setattr(running, "time", Time)
    runner = Runner(store, lambda _resource_id, _text: None)
    done = False

    def perform(_context: None) -> None:
        if not done:
            raise NotYetError

    plan = Plan("make", (Step("wait", perform), Step("wait on", failing(NotYetError()))), forward_only=True)

    def rest() -> float | None:
        found = runner.act(plan, None, "1", Held())  # type: ignore[reportArgumentType]  # all that is asked for
        return None if found is None else found.seconds

    assert rest() == running.WAIT_SECONDS
    now += 20.0
    assert rest() == 20.0 * running.WAIT_SHARE
    now += 600.0
    assert rest() == running.LONGEST_WAIT_SECONDS
    done = True
    assert rest() is None, "there is more at once"
    assert rest() == running.WAIT_SECONDS, "it waits for something else now"
