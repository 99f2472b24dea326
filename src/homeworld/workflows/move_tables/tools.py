"""What the workflow does to tables on servers, as a Protocol, so that steps can be tested without servers.

:mod:`homeworld.workflows.move_tables.servers` is the real one. All calls block, are idempotent and may raise
any HomeworldError; a table name is always within the place's schema.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from homeworld.model.tables import Table
from homeworld.model.topology import ShardPlace
from homeworld.replication.ddl import TargetForm


@dataclass(frozen=True, slots=True)
class VitessStream:
    """A stream as its tablet keeps it. ``position`` is a GTID set; ``message`` says why it does not run."""

    state: str
    position: str
    message: str


@dataclass(frozen=True, slots=True)
class IdColumn:
    """A table's column whose values are given out: by AUTO_INCREMENT or by a sequence."""

    table: str
    column: str


class Tools(Protocol):
    """Acts on tables. Places carry the OWNER account unless said otherwise."""

    def describe(self, place: ShardPlace, names: Sequence[str]) -> Mapping[str, Table]:
        """The base tables of these names that exist, by the name asked for."""
        ...

    def has_rows(self, place: ShardPlace, table: str) -> bool:
        """Whether the (existing) table holds any row."""
        ...

    def filled(self, place: ShardPlace, names: Sequence[str]) -> Sequence[str]:
        """Those of the (existing) tables that hold any row, looked at while nobody else is at them.

        :raises DeadlineExceededError: an open or prepared transaction has one of them.
        """
        ...

    def make_table(self, place: ShardPlace, like: Table, form: TargetForm) -> None:
        """Make a table defined like ``like`` where it is absent."""
        ...

    def give_numbers(self, place: ShardPlace, like: Table, column: str) -> None:
        """Give the column AUTO_INCREMENT where the place's empty table, made from ``like``, has none."""
        ...

    def drop_tables(self, place: ShardPlace, names: Sequence[str], confirm: Callable[[], None]) -> None:
        """Drop the tables that exist.

        :param confirm: asked right before, once no other process can drop any there; raises where they are
            not the caller's to drop any more.
        :raises DeadlineExceededError: another process's session that is about to does not end.
        """
        ...

    def difference(self, place: ShardPlace, table: Table, origin: str = "the source") -> str:
        """How the place's table of that name differs from ``table`` as far as rows are concerned; the empty
        string where rows fit.

        :param origin: what to call the place that ``table`` is from.
        """
        ...

    def references(self, place: ShardPlace, names: Sequence[str]) -> Sequence[str]:
        """What outside these tables depends on them (foreign keys, views, triggers, routines, events) and the
        triggers they have, as sentences; one connection that stays open.
        """
        ...

    def positions(self, places: Sequence[ShardPlace]) -> Mapping[str, str]:
        """Each shard's server's position now (shard name to position), after which it still took writes.

        :raises UnavailableError: one takes no writes any more.
        """
        ...

    def stream_positions(self, place: ShardPlace, sidecar: str) -> Mapping[int, VitessStream]:
        """How far the streams of Vitess are that write to the place, by their numbers.

        :param sidecar: the schema in which the place's tablet keeps them.
        :raises UnavailableError: the server does not answer.
        """
        ...

    def mark_logs(self, places: Sequence[ShardPlace]) -> None:
        """Write into the log of each place's server (MySQL) something that is of no table and changes
        nothing, but counts as a position. Servers that take no writes are left.
        """
        ...

    def forget_stream(
        self, workflow_id: str, direction: str, targets: Sequence[ShardPlace], epoch: int
    ) -> None:
        """Remove what the sidecars of these places (seen as MOVER) know of a stream. A mover of it that is
        still alive somewhere finds its rows gone and can not write again.

        :param epoch: the newest that the caller knows of.
        :raises FencedError: a newer one has the stream; there it is left as it is.
        """
        ...

    def make_sequence(self, place: ShardPlace, name: str) -> None:
        """Make the table of a sequence where it is absent; the first id it gives is 1."""
        ...

    def is_sequence(self, place: ShardPlace, name: str) -> bool | None:
        """Whether the table is a sequence's; None: there is no such table."""
        ...

    def largest_ids(self, places: Sequence[ShardPlace], columns: Sequence[IdColumn]) -> Mapping[str, int]:
        """Table name to the largest id over all places that is in a row or that AUTO_INCREMENT gave out
        (0: none).
        """
        ...

    def given_by(self, place: ShardPlace, names: Sequence[str]) -> Mapping[str, int]:
        """The largest id that each sequence gave out (0: none)."""
        ...

    def raise_sequences(self, place: ShardPlace, above: Mapping[str, int]) -> None:
        """Let each sequence (by its table's name) give only ids greater than that; never lower one."""
        ...

    def raise_auto_increments(self, places: Sequence[ShardPlace], above: Mapping[str, int]) -> None:
        """Let each table's AUTO_INCREMENT give only ids greater than that; never lower one."""
        ...

    def end_strangers(
        self,
        places: Sequence[ShardPlace],
        users: frozenset[str],
        known: Callable[[], frozenset[tuple[str, int]]],
        seconds: float,
    ) -> None:
        """End the connections of these users at the places' servers that are not ``known`` (server id and the
        server's number), and wait until they have ended. ``known`` is asked after the servers were.

        :raises DeadlineExceededError: one does not end within the time.
        """
        ...

    def end_fences(self, places: Sequence[ShardPlace], tables: Sequence[str]) -> None:
        """End the sessions that keep these tables locked for a process which does not go on."""
        ...

    def end_blocked(self, places: Sequence[ShardPlace], tables: Sequence[str]) -> None:
        """End the connections whose statements write rows, or name one of these tables, and wait for a lock
        on a table of the places' schemas: sent by the rules of before, they would be carried out on the old
        side once the tables are free. A view or a routine may hide what is written.

        :raises UnavailableError: a server does not answer.
        """
        ...

    def warm(self, places: Sequence[ShardPlace]) -> None:
        """Open what the next calls need, so that they cost one round trip each."""
        ...

    def close(self) -> None:
        """Close what is open; a later call opens it again."""
        ...
