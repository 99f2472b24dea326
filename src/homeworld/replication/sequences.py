"""Sequence tables as Vitess has them: where ids of sharded tables come from.

One row with id 0: the next id nobody has taken, and how many a gateway takes at once. It knows no gateways;
whoever raises a sequence sees to it that blocks taken before are not used any more.

Invariant: ``next_id`` only grows.
"""

from __future__ import annotations

from homeworld.model.errors import InvalidError
from homeworld.model.names import quote
from homeworld.model.topology import ShardPlace
from homeworld.replication.connection import ANSWER_SECONDS
from homeworld.replication.tables import definition_session

CACHE = 1000


def create_sequence(place: ShardPlace, name: str, cache: int = CACHE) -> None:
    """Make the sequence table with its row; no-op where it is. The first id given is 1."""
    if cache < 1:
        raise InvalidError("a sequence gives at least one id at a time")
    with definition_session(place.endpoint, ANSWER_SECONDS) as connection:
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {quote(place.schema, name)} "
            "(id BIGINT NOT NULL, next_id BIGINT NOT NULL, cache BIGINT NOT NULL, PRIMARY KEY (id)) "
            "ENGINE=InnoDB COMMENT 'vitess_sequence'"
        )
        connection.execute(
            f"INSERT IGNORE INTO {quote(place.schema, name)} (id, next_id, cache) VALUES (0, 1, {cache:d})"
        )


def raise_sequence(place: ShardPlace, name: str, largest_id: int) -> None:
    """Let the sequence give only ids above ``largest_id`` from now on; it never goes back."""
    with definition_session(place.endpoint, ANSWER_SECONDS) as connection:
        connection.execute(
            f"UPDATE {quote(place.schema, name)} SET next_id=GREATEST(next_id, {largest_id + 1:d}) WHERE id=0"
        )


def next_id(place: ShardPlace, name: str) -> int:
    """The next id that nobody has taken.

    :raises InvalidError: the table has no row for it.
    """
    with definition_session(place.endpoint, ANSWER_SECONDS) as connection:
        rows = connection.query_all(f"SELECT next_id FROM {quote(place.schema, name)} WHERE id=0")
    if not rows:
        raise InvalidError(f"sequence table {name!r} has no row with id 0")
    return int(rows[0][0] or 0)
