"""Carries tables from one server to shards on two, while statements change them, and compares all bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from homeworld.model.movers import MoverProgress, MoverSpec, Placement, Verification
from homeworld.replication.mover import RunningMover
from tests.support.judging import reasons
from tests.support.moves import Move, make_move, wait_copied, wait_for, wait_over
from tests.support.mysqld import TestServer

T = Placement("t")
HALVES = "-80 80-"


def by(*columns: str, vindex: str = "xxhash", table: str = "t") -> Placement:
    """A placement on shards."""
    return Placement(table, vindex, columns)


@dataclass
class Carried:
    """A move that runs. ``throttle``: the copy rests while this is not empty."""

    move: Move
    mover: RunningMover
    resting: list[str]

    def let_copy(self) -> None:
        """The copy goes on; returns once it is complete."""
        self.resting.clear()
        wait_copied(self.mover)

    def settle(self) -> Verification:
        """Bring the targets to the end of the log; every byte is equal, and the verification says so."""
        self.let_copy()
        self.mover.drain(self.move.positions(self.mover.spec.sources), 30)
        self.move.assert_equal()
        found = self.verified()
        assert found.equal, found
        return found

    def verified(self, name: str = "v") -> Verification:
        """A verification that has come to its end."""
        self.mover.verify(name)

        def done(progress: MoverProgress) -> bool:
            told = progress.verification
            return told is not None and told.verify_id == name and told.state in {"completed", "error"}

        found = wait_for(self.mover, done).verification
        assert found is not None
        assert found.state == "completed", found
        return found

    def over(self) -> MoverProgress:
        """The end of a mover that ends by itself."""
        self.resting.clear()
        return wait_over(self.mover)


@contextlib.contextmanager
def schemas(servers: Sequence[TestServer], targets: str = HALVES, sources: str = "-") -> Generator[Move]:
    """Places for a move; they are gone afterwards."""
    move = make_move(servers, sources, targets)
    try:
        yield move
    finally:
        for place in (*move.sources, *move.targets):
            move.server_of(place).drop_schema(place.schema)


@contextlib.contextmanager
def running(
    move: Move,
    *placements: Placement,
    resting: bool = False,
    epoch: int = 1,
    chunk_bytes: int = 400,
    **changes: object,
) -> Generator[Carried]:
    """A mover with its targets' tables, which nothing speaks against.

    :param resting: the copy waits until :meth:`Carried.let_copy`.
    """
    found = reasons(move, placements)
    assert not found, found
    if not move.placements:
        move.prepare(*placements)
    with started(move.spec(epoch, **changes), move, resting=resting, chunk_bytes=chunk_bytes) as carried:
        yield carried


@contextlib.contextmanager
def started(
    spec: MoverSpec, move: Move, *, resting: bool = False, chunk_bytes: int = 400
) -> Generator[Carried]:
    """The mover of a spec."""
    held = ["test"] if resting else []
    mover = RunningMover(spec, throttle=(lambda: held[0] if held else "",), chunk_bytes=chunk_bytes)
    mover.start()
    try:
        yield Carried(move, mover, held)
    finally:
        held.clear()
        mover.stop(60)


def carry(
    servers: Sequence[TestServer],
    placement: Placement,
    create: Sequence[str],
    changes: Sequence[str],
    session: Sequence[str] = (),
) -> None:
    """The whole way: create and fill, change before and while rows are copied, and once more while following.

    :param session: settings of the client's session.
    """
    with schemas(servers, HALVES if placement.vindex_type else "-") as move:
        move.create(*session, *create)
        with running(move, placement, resting=True) as carried:
            half = len(changes) // 2
            move.create(*session, *changes[:half])
            carried.let_copy()
            move.create(*session, *changes[half:])
            carried.settle()


def refusal(
    servers: Sequence[TestServer],
    placement: Placement,
    create: Sequence[str],
    on_target: Sequence[str] = (),
    arrange: Callable[[Move], None] | None = None,
) -> tuple[str, ...]:
    """What is said of a move before anything starts.

    :param on_target: run on each target before; :param arrange: whatever else.
    """
    with schemas(servers, HALVES if placement.vindex_type else "-") as move:
        move.create(*create)
        for place in move.targets if on_target else ():
            move.server_of(place).execute(list(on_target), place.schema)
        if arrange is not None:
            arrange(move)
        return reasons(move, [placement])
