"""Blocks of ids that a vttablet has in hand of a sequence: used up, so that it takes a new one.

A tablet reads a sequence's row only when its block is used up. A sequence that was raised there meanwhile
would give ids of the old block still, which the other side may have given by then. It knows no workflow.
"""

from __future__ import annotations

from collections.abc import Iterable

from homeworld.model.names import quote
from homeworld.model.topology import Endpoint
from homeworld.replication.connection import Connection

ANSWER_SECONDS = 5.0


def use_up(vtgate: Endpoint, sequences: Iterable[tuple[str, str]]) -> None:
    """Let each sequence, as (keyspace, table), give a whole block to nobody.

    :param vtgate: as an account that may write to the sequences.
    :raises UnavailableError: vtgate does not answer.
    """
    with Connection(vtgate, fidelity=False, timeout_seconds=ANSWER_SECONDS) as connection:
        for keyspace, sequence in sequences:
            name = quote(keyspace, sequence)
            (block,) = connection.query_one(f"SELECT cache FROM {name} WHERE id = 0")  # noqa: S608 - quoted
            connection.query_all(f"SELECT NEXT {max(1, int(block or 0)):d} VALUES FROM {name}")  # noqa: S608
