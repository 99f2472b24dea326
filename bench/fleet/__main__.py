"""``python -m bench.fleet --branches 10000 --shards 1000 --json F``: what a fleet costs its control plane.

For each kind of store: one database is made as users make it, and multiplied to a tenth of the fleet and to
the whole; both are measured, so that what grows by more than the fleet does is seen. ``bench.fleet.roles``
takes what each role needs at rest.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.postgres import Postgres

from bench.context import machine
from bench.fleet import filling, rows
from bench.fleet.asked import Child
from bench.fleet.rows import Row
from bench.fleet.stage import WIDE, Stage
from homeworld.store.engine import open_engine, reading
from homeworld.store.store import Store

MOST_SHARDS = 250  # of one keyspace


@dataclass(frozen=True, slots=True)
class Sizes:
    """:param pattern: branches of the database that is multiplied.
    :param made: how many branches are made to see how fast that is, with the fleet there.
    """

    branches: int
    shards: int
    pattern: int
    made: int
    times: int

    @classmethod
    def of(cls, branches: int, shards: int) -> Sizes:
        """For a fleet."""
        pattern = min(50, max(5, branches // 20))
        return cls(branches, shards, pattern, min(12, pattern), 5)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store is."""

    kind: str
    url: str
    folder: Path

    def size(self) -> int:
        """Bytes of its data, in memory of what is not written through yet."""
        engine = open_engine(self.url)
        try:
            with reading(engine) as connection:

                def number(sql: str) -> int:
                    return int(connection.exec_driver_sql(sql).scalar_one())

                if self.kind == "sqlite":
                    return number("PRAGMA page_count") * number("PRAGMA page_size")
                return number("SELECT pg_database_size(current_database())")
        finally:
            engine.dispose()


@contextmanager
def place(kind: str, folder: Path) -> Generator[Place]:
    """An empty store, gone in the end."""
    if kind == "sqlite":
        yield Place(kind, f"sqlite:///{folder / 'fleet.db'}", folder)
        return
    cluster = Postgres(durable=True)
    try:
        yield Place(kind, cluster.url("postgres"), folder)
    finally:
        cluster.close()


def measure(where: Place, sizes: Sizes) -> list[Row]:
    """All figures over one store."""
    found: list[Row] = []
    log = where.folder / "control-plane.log"

    def stage(branches: int, shards: int) -> Stage:
        made = Stage(where.kind, where.url, branches, shards, where.size, say, found)
        say(f"{where.kind}: {branches:,} branches")
        return made

    first = filling.database_name(1)
    with Child("bench.fleet.control_plane", [where.url], log) as plane:
        few = stage(sizes.pattern, 0)
        api, token = few.start(plane), str(plane.ask("token"))
        database_id = plane.ask("database", name=first)
        few.made(api, token, plane, first, "branch", sizes.pattern - 1)
        plane.ask("passwords", database=first)
        plane.ask("database", name=WIDE)
    store = Store.open(where.url)
    pattern = filling.read(store, database_id)
    found += left_behind(where.kind, sizes.pattern, pattern)
    databases, shards = 1, 0
    for branches, wanted in (
        (sizes.branches // 10, sizes.shards // 10), (sizes.branches, sizes.shards),
    ):  # fmt: skip
        say(f"{where.kind}: fills up to {branches:,} branches")
        last = branches // sizes.pattern
        filling.multiply(store, pattern, databases + 1, last)
        databases = max(databases, last)
        now = stage(branches, wanted)
        now.whole()
        later = f"later-{branches}"
        with Child("bench.fleet.control_plane", [where.url], log) as plane:
            api = now.start(plane)
            plane.ask("database", name=later)
            now.at_rest(plane, later, sizes.times, 10.0 if branches >= 1000 else 3.0)
            now.publication(plane, sizes.times)
            now.made(api, token, plane, later, "made", sizes.made)
            while shards < wanted:
                more = min(MOST_SHARDS, wanted - shards)
                now.wide(plane, f"ks{shards}", more)
                shards += more
            now.reads(api, token, first, 2 * sizes.times)
            now.backlog(plane, later, 2 * sizes.made)
            now.hour(plane)
            now.at_work(plane, later, sizes.times)
        now.gateway()
    store.close()
    return found


def left_behind(kind: str, branches: int, pattern: filling.Rows) -> list[Row]:
    """How many rows the making of one branch leaves in each table."""
    return [
        Row(f"rows a branch: {table.name}", "", round(len(listed) / branches, 2), kind, branches, 0)
        for table, listed in pattern.items()
        if listed
    ]


def say(line: str) -> None:
    """How it goes."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("python -m bench.fleet", description="What a fleet costs.")
    parser.add_argument("--branches", type=int, default=10_000)
    parser.add_argument("--shards", type=int, default=1_000, help="of wide keyspaces beside them")
    parser.add_argument("--stores", default="sqlite,postgresql")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(given)
    options.kinds = options.stores.split(",")
    if options.branches < 100 or options.shards < 10 or set(options.kinds) - {"sqlite", "postgresql"}:
        parser.error("at least 100 branches and 10 shards, over sqlite, postgresql or both")
    return options


def main(given: Sequence[str]) -> int:
    """Measure, show, write."""
    options = arguments(given)
    found: list[Row] = []
    busy = os.getloadavg()[0]
    begun = time.monotonic()
    for kind in options.kinds:
        folder = Path(tempfile.mkdtemp(prefix="hw-fleet-"))
        try:
            with place(kind, folder) as where:
                found += measure(where, Sizes.of(options.branches, options.shards))
        finally:
            shutil.rmtree(folder)
    print(rows.as_text(found))
    took = time.monotonic() - begun
    conditions = f"{machine()}; {took:.0f} s, load average {busy:.1f} before, {os.getloadavg()[0]:.1f} after"
    print(conditions)
    if options.json is not None:
        options.json.write_text(rows.as_json(found, conditions, " ".join(["python -m bench.fleet", *given])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
