"""Blocks of ids that a vttablet has in hand of a sequence: used up, so that it takes a new one.

A tablet reads a sequence's row only when its block is used up. A sequence that was raised there meanwhile
would give ids of the old block still, which the other side may have given by then. It knows no workflow.
"""

from __future__ import annotations

from collections.abc import Iterable

from homeworld.model.errors import UnavailableError
from homeworld.model.names import quote
from homeworld.model.topology import Endpoint
from homeworld.replication.connection import Connection

ANSWER_SECONDS = 5.0
TRIED = 24


def use_up(vtgate: Endpoint, sequences: Iterable[tuple[str, str]]) -> None:
    """Let each sequence, as (keyspace, table), give what is left of the block in hand to nobody.

    :param vtgate: as an account that may write to the sequences.
    :raises UnavailableError: vtgate does not answer, or the block comes to no end.
    """
    with Connection(vtgate, fidelity=False, timeout_seconds=ANSWER_SECONDS) as connection:
        for keyspace, sequence in sequences:
            name = quote(keyspace, sequence)
            row = connection.query_one(f"SELECT next_id, cache FROM {name} WHERE id = 0")  # noqa: S608 - quoted
            beyond, wanted = int(row[0] or 0), max(1, int(row[1] or 0))
            # What lies below comes of the block in hand, as large as ``cache`` was when it was taken.
            for _ in range(TRIED):
                (first,) = connection.query_one(f"SELECT NEXT {wanted:d} VALUES FROM {name}")  # noqa: S608
                if int(first or 0) >= beyond:
                    break
                wanted *= 2
            else:
                raise UnavailableError(f"sequence {keyspace}.{sequence} gives ids that were given before")
