"""A case as data: tables, shards, and what happens in which order. Everything follows from the seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from enum import StrEnum

from homeworld.model.movers import Placement
from homeworld.model.names import quote
from tests.fuzz.mover.design import TableDesign, design
from tests.fuzz.mover.kinds import Dialect, Numbers
from tests.fuzz.mover.writes import Transaction, transaction


class Act(StrEnum):
    """What is done to the mover between transactions."""

    RESTART = "the mover is stopped and started again"
    KILL = "its connections are killed"
    DRAIN = "it is brought to the end of the log"
    COPIED = "the copy is waited for"


Step = Transaction | Act
_SOURCES = ("-",) * 5 + ("-80 80-",)
_TARGETS = ("-", "-80 80-", "-80 80-", "-80 80-", "-40 40-c0 c0-", "-20 20-80 80-a0 a0-", "-01 01-")
_ZONES = ("+00:00", "-07:30", "+13:00")
_MODES = (
    "", "NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES", "STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE",
    "STRICT_ALL_TABLES,ALLOW_INVALID_DATES", "ALLOW_INVALID_DATES",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """See the module. ``before``: what is there when the move begins; ``back``: on the targets, in turn, once
    it is the way back that runs.
    """

    seed: int
    sources: str
    targets: str
    tables: tuple[TableDesign, ...]
    settings: tuple[str, ...]
    before: tuple[Transaction, ...]
    steps: tuple[Step, ...]
    back: tuple[Transaction, ...]
    chunk_bytes: int
    events_a_batch: int
    copy_threads: int
    spoil: bool

    def told(self) -> str:
        """Everything as text that a person can run."""
        lines = [f"seed {self.seed}: {self.sources} to {self.targets}; chunks of {self.chunk_bytes} bytes"]
        lines += [f"    {setting};" for setting in self.settings]
        for table in self.tables:
            lines += [f"    {table.create};", f"    -- {table.placement}"]
        for name, steps in (("before", self.before), ("steps", self.steps), ("back", self.back)):
            lines.append(f"  {name}:")
            for step in steps:
                if isinstance(step, Act):
                    lines.append(f"    -- {step}")
                else:
                    lines += [
                        f"    -- shard {step.shard}",
                        "    BEGIN;",
                        *(f"    {s};" for s in step.statements),
                    ]
                    lines.append("    COMMIT;" if step.commit else "    ROLLBACK;")
        return "\n".join(lines)

    def only(self, tables: tuple[TableDesign, ...]) -> Case:
        """The case with these tables; statements on others are left in, and fail."""
        return replace(self, tables=tables)


def make(seed: int, dialect: Dialect) -> Case:
    """The case of a seed."""
    numbers = random.Random(seed)
    sources, targets = numbers.choice(_SOURCES), numbers.choice(_TARGETS)
    several = len(sources.split())
    sharded = len(targets.split()) > 1
    tables: list[TableDesign] = []
    for at in range(numbers.choice((1, 2, 3, 4))):
        tables.append(design(numbers, dialect, at, sharded=sharded, owned=several > 1))
    back_runs = several == 1 and numbers.random() < 0.4
    settings = (f"SET sql_mode='{numbers.choice(_MODES)}', time_zone='{numbers.choice(_ZONES)}'",)

    def write(*, inserts: bool) -> Transaction:
        return transaction(numbers, tables, numbers.randrange(several), inserts=inserts)

    before = [write(inserts=True) for _ in range(numbers.randint(1, 2 * len(tables) + 2))]
    before += [write(inserts=False) for _ in range(numbers.randint(0, 3))]
    steps: list[Step] = []
    for _ in range(numbers.randint(1, 4)):
        steps += [write(inserts=False) for _ in range(numbers.randint(2, 10))]
        steps.append(numbers.choice((*Act, Act.RESTART)))
    return Case(
        seed, sources, targets, tuple(tables), settings, tuple(before), tuple(steps),
        tuple(_backward(numbers, tables) for _ in range(numbers.randint(1, 6))) if back_runs else (),
        numbers.choice((150, 600, 3000, 100_000)), numbers.choice((3, 20, 100, 2000)),
        numbers.choice((1, 2)), spoil=numbers.random() < 0.3,
    )  # fmt: skip


def _backward(numbers: Numbers, tables: list[TableDesign]) -> Transaction:
    """Changes of rows where they are: none changes shards, and no key comes to be anew."""
    made = transaction(numbers, tables, 0, inserts=False)
    kept = [
        sql
        for sql in made.statements
        if sql.startswith("DELETE") or (sql.startswith("UPDATE") and not _touches_key(sql, tables))
    ]
    return replace(made, statements=tuple(kept))


def _touches_key(sql: str, tables: list[TableDesign]) -> bool:
    sets = sql.partition(" SET ")[2].partition(" WHERE ")[0].partition(" ORDER BY ")[0]
    return any(f"{quote(name)} = " in sets for table in tables for name in table.key)


def unsharded(case: Case) -> tuple[Placement, ...]:
    """Where rows belong on the way back."""
    return tuple(Placement(table.name) for table in case.tables)
