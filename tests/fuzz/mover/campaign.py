"""Many cases on servers that live long: each case makes schemas of its own and drops them.

A failure is made smaller by leaving out tables, transactions and statements while it still fails, for a
limited time, and told with its seed and its statements.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

from homeworld.model.topology import Flavor
from tests.conftest import SMALL
from tests.fuzz.mover.case import Case, make
from tests.fuzz.mover.kinds import Dialect
from tests.fuzz.mover.play import Failure, Ground, Played, play
from tests.support.mysqld import TestServer, start_server
from tests.support.warden import guard

SHRINK_SECONDS = 300.0
_TIMES_THE_SAME = 2
_WIDEST, _LONGEST, _TOLD = 2000, 80, 20_000


@contextlib.contextmanager
def servers(flavor: Flavor, count: int = 2) -> Generator[list[TestServer]]:
    """Servers in memory where there is room for it."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        dir=memory if memory.is_dir() else None, prefix="homeworld-fuzz-"
    ) as made:
        guard(Path(made), delete=True)
        with contextlib.ExitStack() as stack:
            yield [
                stack.enter_context(contextlib.closing(start_server(flavor, Path(made), *SMALL)))
                for _ in range(count)
            ]


def dialect(server: TestServer) -> Dialect:
    """What the server has."""
    name = "FULL_COLLATION_NAME" if server.flavor is Flavor.MARIADB else "COLLATION_NAME"
    found = server.query(
        f"SELECT CHARACTER_SET_NAME, {name} FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY "
        f"WHERE CHARACTER_SET_NAME NOT IN ('binary', 'filename') ORDER BY {name}"
    )
    return Dialect(server.flavor, [(str(charset), str(collation)) for charset, collation in found])


def run(
    flavor: Flavor, seed: int, seconds: float, told: Callable[[str], None], most: int = 10**9
) -> list[str]:
    """Cases of one flavour from ``seed`` on, for so long or so many; what failed."""
    failures: list[str] = []
    outcomes: Counter[str] = Counter()
    with servers(flavor) as started:
        known, ground = dialect(started[0]), Ground(started)
        begun = time.monotonic()
        number = seed
        while time.monotonic() - begun < seconds and number - seed < most:
            outcome = _one(make(number, known), ground, flavor.value, failures, told)
            outcomes["failed" if outcome is None else "refused" if outcome.refused else "equal"] += 1
            if outcome is not None:
                outcomes["tables"] += outcome.tables
                outcomes["rows"] += outcome.rows
                outcomes["rows changed"] += outcome.changes
                outcomes["restarts"] += outcome.restarts
            number += 1
        taken = time.monotonic() - begun
    told(f"{flavor.value}: {number - seed} cases in {taken:.0f} s from seed {seed}: {dict(outcomes)}")
    return failures


def _one(
    case: Case, ground: Ground, flavor: str, failures: list[str], told: Callable[[str], None]
) -> Played | None:
    try:
        return play(case, ground)
    except Failure as failure:
        told(f"{flavor}: seed {case.seed} fails: {str(failure)[:300]}")
        smaller, last = shrink(case, ground, str(failure))
        lines = [
            line if len(line) < _WIDEST else f"{line[:_WIDEST]}…" for line in smaller.told().splitlines()
        ]
        failures.append("\n".join([f"== {flavor}: {last[:_TOLD]}", *lines[:_LONGEST]]))
        told(failures[-1])
        return None


def shrink(case: Case, ground: Ground, failure: str) -> tuple[Case, str]:
    """A smaller case that fails, too, and how."""
    deadline = time.monotonic() + SHRINK_SECONDS
    last = failure

    def fails(smaller: Case) -> bool:
        nonlocal last
        for _ in range(_TIMES_THE_SAME):
            if time.monotonic() > deadline:
                return False
            try:
                if play(smaller, ground).refused:
                    return False
            except Failure as found:
                last = str(found)
                return True
        return False

    for table in case.tables:
        if len(case.tables) > 1:
            fewer = case.only(tuple(other for other in case.tables if other is not table))
            case = fewer if fails(fewer) else case
    for part in ("back", "steps", "before"):
        case = _fewer(case, part, fails)
    for part in ("steps", "before", "back"):
        case = _shorter(case, part, fails)
    return case, last


def _fewer(case: Case, part: str, fails: Callable[[Case], bool]) -> Case:
    """Leave out parts of a list, halves first."""
    size = len(getattr(case, part))
    while size:
        at = 0
        while at < len(getattr(case, part)):
            items = getattr(case, part)
            fewer = replace(case, **{part: items[:at] + items[at + size :]})
            if fails(fewer):
                case = fewer
            else:
                at += size
        size //= 2
    return case


def _shorter(case: Case, part: str, fails: Callable[[Case], bool]) -> Case:
    """Leave out single statements."""
    for at in range(len(getattr(case, part))):
        number = 0
        while True:
            items = getattr(case, part)
            statements = getattr(items[at], "statements", ())
            if number >= len(statements):
                break
            cut = replace(items[at], statements=statements[:number] + statements[number + 1 :])
            fewer = replace(case, **{part: (*items[:at], cut, *items[at + 1 :])})
            if fails(fewer):
                case = fewer
            else:
                number += 1
    return case
