"""The table of the benchmarks: sysbench's ``sbtest1``, about 190 bytes a row, one secondary index.

Invariant: the same seed gives the same rows, on any server.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Generator

from tests.support.mysqld import TestServer

from homeworld.model.names import quote
from homeworld.replication.connection import Connection

SCHEMA = "bench"
TABLE = "sbtest1"
COLUMNS = (
    "id BIGINT NOT NULL AUTO_INCREMENT, k INT NOT NULL DEFAULT 0, c CHAR(120) NOT NULL DEFAULT '',"
    " pad CHAR(60) NOT NULL DEFAULT '', PRIMARY KEY (id)"
)
CREATE = f"CREATE TABLE {TABLE} ({COLUMNS}, KEY k_1 (k))"
CREATE_WITHOUT_INDEX = f"CREATE TABLE {TABLE} ({COLUMNS})"
LOAD = f"LOAD DATA LOCAL INFILE 'rows' INTO TABLE {TABLE} CHARACTER SET binary (id, k, c, pad)"
_BATCH = 5000
_BATCHES = 50
# Made once and used again and again: what the digits are does not matter, nothing compresses them.
_TEXTS = 4093


def _groups(digits: random.Random, groups: int) -> str:
    return "-".join(f"{digits.randrange(10**11):011d}" for _ in range(groups))


def rows(count: int, seed: int = 1) -> Generator[bytes]:
    """``count`` rows as the lines of a LOAD DATA file, in batches; ids from 1, ``k`` random."""
    digits = random.Random(seed)
    tails = [f"\t{_groups(digits, 10)}\t{_groups(digits, 5)}\n" for _ in range(_TEXTS)]
    for first in range(1, count + 1, _BATCH):
        ids = range(first, min(first + _BATCH, count + 1))
        ks = digits.choices(range(1, count + 1), k=len(ids))
        yield "".join(f"{row}\t{k}{tails[row % _TEXTS]}" for row, k in zip(ids, ks, strict=True)).encode()


def fill(server: TestServer, count: int, create: str = CREATE) -> None:
    """Make the table in the server's schema ``bench`` and fill it, past the binlog."""
    server.create_schema(SCHEMA)
    with Connection(server.endpoint(), schema=SCHEMA) as connection:
        connection.execute("SET SESSION sql_log_bin=0")
        connection.execute(create)
        batches = rows(count)
        loaded = 0
        # Some statements instead of one: none of them is a transaction of gigabytes.
        while some := list(itertools.islice(batches, _BATCHES)):
            loaded += connection.load_data(LOAD, some).affected
        if loaded != count:
            raise AssertionError(f"{loaded} rows of {count} were loaded")
        connection.execute(f"ANALYZE NO_WRITE_TO_BINLOG TABLE {quote(TABLE)}")


def count(server: TestServer, schema: str = SCHEMA) -> int:
    """Rows of the table on the server."""
    return int(server.query(f"SELECT COUNT(*) FROM {TABLE}", schema)[0][0])
