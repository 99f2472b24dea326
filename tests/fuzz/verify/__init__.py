"""The verification under random damage: what it finds is what a comparison of all bytes finds, row by row.

A world is a random table (a few kinds of columns, a key, a vindex or none) with random rows, on two source
shards and two targets of one server. It is damaged again and again, at random, on either side. No mover runs:
what is tested is :class:`~homeworld.replication.comparing.TableComparison` alone.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import pymysql

from homeworld.model.movers import Placement, TableVerification
from homeworld.model.names import quote
from homeworld.model.topology import Flavor, ShardPlace
from homeworld.model.vindexes import UnplaceableError
from homeworld.replication import comparing, narrowing
from homeworld.replication.changes import Row
from homeworld.replication.checksum import Sum
from homeworld.replication.column_types import select_expression
from homeworld.replication.comparing import TableComparison
from homeworld.replication.connection import Connection
from homeworld.replication.lanes import Lane
from homeworld.replication.moving import make_route
from homeworld.replication.tables import read_tables
from tests.support.column_values import BLOB, LAX, Kind, kinds_of
from tests.support.mysqld import TestServer, start_server

_MOST_FAILURES = 5
DAMAGES = 12
"""How often one world is damaged."""
_KEYS: Sequence[tuple[str, str]] = (
    # columns of the key, and what numbers make of it; {} is a number, no two of which may give one key
    ("k INT NOT NULL", "{}"),
    ("k BIGINT UNSIGNED NOT NULL", "18446744073709551615-{}"),
    ("k VARCHAR(12) COLLATE utf8mb4_general_ci NOT NULL", "CONCAT(IF({0}%2,'Kéy ','kez '),{0})"),
    ("k VARBINARY(9) NOT NULL", "UNHEX(LPAD(HEX({}*7919%65521),6,'0'))"),
    ("k DECIMAL(12,3) NOT NULL", "{}/8-3"),
    ("k DATETIME(3) NOT NULL", "'2024-02-29'-INTERVAL {} SECOND"),
    ("k CHAR(8) CHARACTER SET ucs2 NOT NULL", "CONCAT('ü',{})"),
    ("k VARCHAR(9) CHARACTER SET utf8mb3 NOT NULL", "CONCAT({},'é')"),
    ("k ENUM({}) NOT NULL".format(",".join(f"'e{n}'" for n in range(400))), "{}+1"),
)


class World:
    """One table on four shards of a server, and its damage."""

    def __init__(self, server: TestServer, seed: int, rng: random.Random) -> None:
        self._server = server
        self._rng = rng
        self._numbers = itertools.count()
        self.said: list[str] = []
        name = f"f{rng.randrange(1 << 30):x}"
        self._sharded = rng.random() < 0.8
        self._schemas = [f"{name}s0", f"{name}s1", f"{name}t0", f"{name}t1"]
        shards = ("-80", "80-", "-80", "80-") if self._sharded else ("-80", "80-", "-", "")
        self._places = [
            server.place("k" if at < 2 else "t", shard, schema)
            for at, (schema, shard) in enumerate(zip(self._schemas, shards, strict=True))
        ]
        self.sources: list[ShardPlace] = self._places[:2]
        self.targets: list[ShardPlace] = self._places[2:] if self._sharded else self._places[2:3]
        kinds = [kind for kind in kinds_of(server.flavor) if BLOB not in kind.values[0]]
        self._kinds: list[Kind] = [rng.choice(kinds) for _ in range(rng.randint(1, 6))]
        key, self._key = _KEYS[seed % len(_KEYS)]
        self._vindex = rng.choice(("o", "k")) if key.startswith("k INT") else "o"
        columns = ", ".join(f"c{at} {kind.declared}" for at, kind in enumerate(self._kinds))
        self._create = f"CREATE TABLE t ({key}, o BIGINT, {columns}, PRIMARY KEY (k))"

    def make(self) -> None:
        """Make schemas, tables and rows, each row where it belongs."""
        for schema in self._schemas:
            self._server.create_schema(schema)
        self.say(*(f"USE {schema}; {self._create}" for schema in self._schemas))
        self.say(
            *(self._insert(self._rng.choice(self._schemas[:2])) for _ in range(self._rng.randint(0, 70)))
        )
        table = read_tables(self.sources[0], ["t"])["t"]
        placement = Placement("t", "xxhash", (self._vindex,)) if self._sharded else Placement("t")
        self._route = make_route((self._schemas[0], "t"), table, placement, self.targets)
        self._columns = ", ".join(select_expression(column) for column in table.columns)
        for at, target in enumerate(self.targets):
            for source in self.sources:
                keys = [row[0] or b"" for row in self._rows(source) if self._place(row) == at]
                if keys:
                    self.say(
                        f"INSERT INTO {target.schema}.t SELECT * FROM {source.schema}.t WHERE "
                        + self._route.key.any_of([(key,) for key in keys])
                    )

    def drop(self) -> None:
        for schema in self._schemas:
            self._server.drop_schema(schema)

    def say(self, *statements: str) -> int:
        """Run statements; how many rows the last one changed."""
        changed = 0
        with contextlib.closing(self._server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(LAX)
            for statement in statements:
                for part in statement.split("; "):
                    changed = cursor.execute(part)
                self.said.append(statement)
        return changed

    def _insert(self, schema: str) -> str:
        number = next(self._numbers)
        values = ", ".join(self._rng.choice(kind.values) for kind in self._kinds)
        key = self._key.format(number)
        return f"INSERT INTO {schema}.t VALUES ({key}, {self._rng.randrange(1 << 40)}, {values})"

    def _rows(self, place: ShardPlace) -> list[Row]:
        with Connection(place.endpoint) as connection:
            return connection.query_all(f"SELECT {self._columns} FROM {quote(place.schema, 't')}")

    def _place(self, row: Row) -> int:
        return self._route.place(row)

    def damage(self) -> None:
        """One or two random statements on either side; some change nothing."""
        for _ in range(self._rng.choice((1, 1, 1, 2))):
            with contextlib.suppress(pymysql.err.IntegrityError):  # a key that is there already
                self.say(self._statement())

    def _statement(self) -> str:
        rng = self._rng
        place = rng.choice(self.targets) if rng.random() < 0.8 else rng.choice(self.sources)
        there = f"{place.schema}.t"
        other = f"{rng.choice([*self.targets, *self.sources]).schema}.t"
        one = f"ORDER BY k LIMIT 1 OFFSET {rng.randrange(60)}"
        at = rng.randrange(len(self._kinds))
        kind = self._kinds[at]
        key = f"k=(SELECT * FROM (SELECT k FROM {there} {one}) x)"
        column, value = f"c{at}", rng.choice(kind.values)
        choices = [
            f"DELETE FROM {there} WHERE {key}",
            f"UPDATE {there} SET {column}={value} WHERE {key}",
            f"UPDATE {there} SET {column}={value} WHERE {key}",
            f"UPDATE {there} SET {column}={value} WHERE o % 7 = {rng.randrange(7)}",
            f"UPDATE {there} SET o={rng.randrange(1 << 40)} WHERE {key}",
            f"UPDATE {there} SET o=NULL WHERE {key}",
            f"INSERT IGNORE INTO {there} SELECT * FROM {other} y {one}",
            f"REPLACE INTO {there} SELECT * FROM {other} y {one}",
            self._insert(place.schema),
        ]
        if kind.values[0].isdigit() and "ZEROFILL" not in kind.declared and "YEAR" not in kind.declared:
            choices.append(f"UPDATE {there} SET {column}={column}-1 WHERE {column} > 0 AND {key}")
        for with_at, with_kind in enumerate(self._kinds):
            if with_at != at and with_kind.declared == kind.declared:
                x, y = column, f"c{with_at}"  # two columns change places
                choices.append(
                    f"UPDATE {there} a JOIN {there} b USING (k) SET a.{x}=b.{y}, a.{y}=b.{x} WHERE a.{key}"
                )
        return rng.choice(choices)

    def expected(self) -> set[tuple[str, bytes]]:
        """What differs, by comparing all bytes: (kind, key)."""
        found: set[tuple[str, bytes]] = set()
        ours: dict[bytes, Row] = {}
        for place in self.sources:
            for row in self._rows(place):
                if (row[0] or b"") in ours:
                    found.add(("extra_source", row[0] or b""))
                ours[row[0] or b""] = row
        theirs: dict[bytes, list[tuple[bool, Row]]] = {}
        for at, place in enumerate(self.targets):
            for row in self._rows(place):
                owned = self._owner(row) == at
                theirs.setdefault(row[0] or b"", []).append((owned, row))
                if not owned:
                    found.add(("wrong_shard", row[0] or b""))
        for key in ours.keys() - theirs.keys():
            found.add(("extra_source", key))
        for key, copies in theirs.items():
            if key not in ours or len(copies) > 1:
                found.add(("extra_target", key))
            if key in ours and any(row != ours[key] for _, row in copies):
                found.add(("mismatched", key))
        return found

    def _owner(self, row: Row) -> int:
        try:
            return self._place(row)
        except UnplaceableError:
            return -1

    def compare(self) -> TableVerification:
        """What the verification says."""
        way = Sum.SHA if self._server.flavor is Flavor.MYSQL else self._rng.choice((Sum.CRCS, Sum.SHORT_SHA))
        with contextlib.ExitStack() as stack:
            lanes: list[Lane] = []
            for place in (*self.sources, *self.targets):
                lane = Lane(place, Connection(place.endpoint))
                stack.callback(lane.close)
                lane.connection.execute("SET SESSION group_concat_max_len=1073741824")
                lanes.append(lane)
            places = (*self.sources, *self.targets)
            bounds = [stack.enter_context(Connection(place.endpoint)) for place in places]
            comparison = TableComparison(self._route, lanes[:2], lanes[2:], bounds, way, threading.Event())
            comparison.run()
        return comparison.result("completed")

    def check(self) -> None:
        """Hold the verification to have found just what differs."""
        found = self.compare()
        expected = self.expected()
        told = {(each.kind, each.condition) for each in found.differences}
        narrow = narrowing.Narrowing(self._route, [], [], ())
        wanted = {(kind, narrow.condition((key,))) for kind, key in expected}
        assert told == wanted, (self._create, sorted(told ^ wanted))
        assert found.different == bool(expected)
        for each in found.differences:
            if each.kind == "mismatched":
                assert each.columns, each


def play(server: TestServer, seed: int) -> None:
    """One world, whole at first, then damaged again and again."""
    rng = random.Random(seed)
    world = World(server, seed, rng)
    before = comparing.ROWS_A_CHUNK, narrowing.SAMPLES
    comparing.ROWS_A_CHUNK, narrowing.SAMPLES = rng.randint(3, 40), 1000
    try:
        world.make()
        assert not world.expected()
        world.check()
        for _ in range(DAMAGES):
            world.damage()
            world.check()
    except BaseException as error:
        error.add_note("\n".join([f"verify SEED={seed} on {server.flavor}", *world.said]))
        raise
    finally:
        comparing.ROWS_A_CHUNK, narrowing.SAMPLES = before
        world.drop()


def campaign(seconds: float, seed: int, flavors: Sequence[Flavor]) -> list[str]:
    """See ``tests.fuzz``."""
    failures: list[str] = []
    for flavor in flavors:
        end = time.monotonic() + seconds / len(flavors)
        seeds: Iterator[int] = itertools.count(seed)
        with tempfile.TemporaryDirectory() as folder:
            server = start_server(flavor, Path(folder))
            try:
                while time.monotonic() < end and len(failures) < _MOST_FAILURES:
                    try:
                        play(server, next(seeds))
                    except Exception:  # noqa: BLE001 - whatever it was, it is the finding
                        failures.append(traceback.format_exc())
            finally:
                server.close()
        print(f"  {flavor}: {next(seeds) - seed} tables, each damaged {DAMAGES} times", flush=True)
    return failures
