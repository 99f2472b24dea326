"""The ground that every repository stands on: a connection inside a transaction, and its time.

All changes of one :class:`Work` are one transaction; ``now`` is read once, so that stamps within it agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Column, Connection, Select, Table, insert, select, update

from homeworld.model.errors import NotFoundError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Work:
    """A transaction under way. ``now`` is its only time."""

    connection: Connection
    now: datetime

    def add(self, table: Table, values: Mapping[str, object]) -> None:
        """Insert one row."""
        self.connection.execute(insert(table).values(dict(values)))

    def change(self, table: Table, key: Column[Any], value: object, values: Mapping[str, object]) -> int:
        """Update the rows whose ``key`` is ``value``; the number of rows changed."""
        return self.connection.execute(update(table).where(key == value).values(dict(values))).rowcount

    def first(self, query: Select[Any], load: Callable[..., T]) -> T | None:
        """The query's first row, if any."""
        row = self.connection.execute(query.limit(1)).mappings().first()
        return None if row is None else load(**row)

    def only(self, query: Select[Any], load: Callable[..., T]) -> T:
        """The query's first row.

        :raises NotFoundError: there is none.
        """
        found = self.first(query, load)
        if found is None:
            raise NotFoundError
        return found

    def all(self, query: Select[Any], load: Callable[..., T]) -> tuple[T, ...]:
        """All rows."""
        return tuple(load(**row) for row in self.connection.execute(query).mappings())

    def by_key(self, table: Table, keys: Iterable[object], load: Callable[..., T]) -> dict[str, T]:
        """Rows by their id; unknown ids are left out. One query however many there are."""
        wanted = {key for key in keys if key is not None}
        if not wanted:
            return {}
        rows = self.connection.execute(select(table).where(table.c.id.in_(wanted))).mappings()
        return {row["id"]: load(**row) for row in rows}
