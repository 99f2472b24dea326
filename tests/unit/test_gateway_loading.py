"""One reading of a keyspace for everybody, never an old one for somebody who needs a newer one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from homeworld.gateway import loading
from homeworld.gateway.branch import Branch
from homeworld.gateway.loading import SchemaLoads
from homeworld.model.errors import DeadlineExceededError, NotFoundError, UnavailableError
from tests.support.plain_router import PlainRouter
from tests.support.routing_world import branch, keyspace

Act = Callable[["Desk"], Coroutine[Any, Any, None]]


class Desk:
    """A server that answers when told, with the one table of that moment."""

    def __init__(self) -> None:
        self.branch = Branch(branch(keyspace("main")), PlainRouter)
        self.loads = SchemaLoads(self._read)
        self.table = "a"
        self.begun = 0
        self.answers: list[asyncio.Future[None]] = []

    async def _read(self, branch: Branch, keyspace: str, begun: int) -> None:
        self.begun += 1
        table = self.table
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        await answer
        row = tuple(map(str.encode, (table, "id", "int", "int", "NO", "", "", "", "0", "")))
        branch.tracker.loaded(keyspace, keyspace, [row], [], begun=begun)

    def ask(self, *, again: bool = False) -> asyncio.Task[None]:
        since = self.branch.tracker.moment + 1 if again else 1
        return asyncio.ensure_future(self.loads.load(self.branch, "main", since=since))

    async def answer(self) -> None:
        await turn()
        self.answers.pop(0).set_result(None)
        await turn()

    @property
    def tables(self) -> frozenset[str] | None:
        return self.branch.tracker.tables("main")


async def turn() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def act(work: Act) -> None:
    async def run() -> None:
        desk = Desk()
        await work(desk)
        await desk.loads.close()

    asyncio.run(run())


def test_many_who_know_nothing_wait_for_one_reading() -> None:
    async def work(desk: Desk) -> None:
        asked = [desk.ask() for _ in range(50)]
        await desk.answer()
        await asyncio.gather(*asked)
        assert (desk.begun, desk.tables) == (1, {"a"})
        await desk.ask()
        assert desk.begun == 1, "it is known"

    act(work)


def test_many_who_doubt_what_is_known_wait_for_one_that_begins_after_they_asked() -> None:
    async def work(desk: Desk) -> None:
        first = desk.ask()
        await turn()
        desk.table = "b"  # made after the first reading has seen what there is
        asked = [desk.ask(again=True) for _ in range(50)]
        await desk.answer()
        await first
        assert desk.tables == {"a"}
        assert not any(one.done() for one in asked)
        await desk.answer()
        await asyncio.gather(*asked)
        assert (desk.begun, desk.tables) == (2, {"b"})

    act(work)


def test_who_comes_in_the_moment_in_which_a_reading_ends_begins_another() -> None:
    async def work(desk: Desk) -> None:
        first = desk.ask()
        await turn()
        desk.answers.pop(0).set_result(None)
        second = desk.ask(again=True)
        await desk.answer()
        await asyncio.gather(first, second)
        assert desk.begun == 2

    act(work)


def test_what_was_read_before_it_was_forgotten_is_not_taken() -> None:
    async def work(desk: Desk) -> None:
        first = desk.ask()
        await turn()
        desk.table = "b"
        desk.branch.tracker.forget("main")
        await desk.answer()
        assert desk.tables is None
        assert not first.done()
        await desk.answer()
        await first
        assert desk.tables == {"b"}

    act(work)


def test_who_goes_away_does_not_end_it_for_the_others() -> None:
    async def work(desk: Desk) -> None:
        gone, stays = desk.ask(), desk.ask()
        await turn()
        gone.cancel()
        await desk.answer()
        await stays
        assert desk.tables == {"a"}

    act(work)


def test_a_fault_is_logged_though_nobody_waits_for_it_any_more(caplog: pytest.LogCaptureFixture) -> None:
    async def work(desk: Desk) -> None:
        gone = desk.ask()
        await turn()
        gone.cancel()
        desk.answers.pop(0).set_exception(ValueError("a row of another form"))
        await turn()

    act(work)
    assert "a row of another form" in caplog.text


def test_a_server_that_fails_is_told_to_all_and_asked_again_by_the_next() -> None:
    async def work(desk: Desk) -> None:
        asked = [desk.ask() for _ in range(3)]
        await turn()
        desk.answers.pop(0).set_exception(UnavailableError("refused"))
        for found in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(found, UnavailableError)
            assert found.message == "the tables of keyspace main could not be read: refused"
        again = desk.ask()
        await desk.answer()
        await again
        assert (desk.begun, desk.tables) == (2, {"a"})
        desk.branch.tracker.forget("main")
        gone = desk.ask()
        await turn()
        desk.answers.pop(0).set_exception(NotFoundError("no such keyspace"))
        with pytest.raises(NotFoundError, match="no such keyspace"):
            await gone

    act(work)


def test_a_server_that_does_not_answer_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_LOAD_SECONDS", 0.05)

    async def work(desk: Desk) -> None:
        with pytest.raises(DeadlineExceededError, match="main could not be read within"):
            await desk.ask()
        assert desk.tables is None

    act(work)


def test_clients_cannot_make_it_read_without_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_PAUSE_SECONDS", 2.0)

    async def work(desk: Desk) -> None:
        first = desk.ask()
        await desk.answer()
        await first
        since = desk.branch.tracker.moment + 1
        patient = asyncio.ensure_future(desk.loads.load(desk.branch, "main", since=since, patient=True))
        await turn()
        assert desk.begun == 1
        other = desk.ask(again=True)
        await desk.answer()
        await asyncio.gather(patient, other)
        assert desk.begun == 2, "who may not wait serves who can"

    act(work)


def test_of_many_readings_only_the_newest_are_remembered() -> None:
    loads = Desk().loads
    note, begun = loads._note, loads._begun  # type: ignore[reportPrivateUsage]  # what nobody else sees
    others = [Branch(branch(keyspace("main")), PlainRouter) for _ in range(5)]
    for number, other in enumerate(others):
        note((other, "main"), float(number))
    assert list(begun) == [(others[-1], "main")]
    for other in others:
        note((other, "main"), 4.0)
    assert len(begun) == len(others)
    note((others[0], "main"), 4.01)
    assert list(begun)[-1] == (others[0], "main")
