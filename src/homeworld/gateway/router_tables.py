"""Tables of sharded keyspaces as planning needs them: columns, vindex, and the way from values to a shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from homeworld.gateway.plan import MadeValues, NeedSchema
from homeworld.gateway.router_errors import NeedsError, RefusedError, no_such_table
from homeworld.gateway.router_names import Names
from homeworld.gateway.router_values import comparable_class, sought
from homeworld.gateway.sql_ast import Lit
from homeworld.model.errors import InvalidError
from homeworld.model.keyranges import KeyRange
from homeworld.model.routing import KeyspaceRoute
from homeworld.model.tables import Column
from homeworld.model.vindexes import ShardPicker, UnplaceableError, make_vindex, shard_picker
from homeworld.model.vschema import REFERENCE, AutoIncrement

_TEXT_CHARSET = frozenset({"utf8", "utf8mb3", "utf8mb4", "latin1", "ascii"})


@dataclass(frozen=True, slots=True)
class ShardedTable:
    """One table. A reference table has no vindex columns and the same rows on every shard.

    :param vindex_columns: the columns of the primary vindex, in its order.
    :param pick: from their values (text in UTF-8) to the number of the owning shard.
    :param unique_keys: see :class:`~homeworld.gateway.plan.SchemaView`.
    :param made: the columns that servers fill differently.
    """

    name: str
    columns: tuple[Column, ...]
    vindex_columns: tuple[Column, ...]
    vindex: str
    pick: ShardPicker | None
    auto_increment: AutoIncrement | None
    unique_keys: tuple[tuple[str, ...], ...]
    made: MadeValues

    @property
    def reference(self) -> bool:
        """Whether every shard has all its rows."""
        return self.pick is None

    def column(self, name: str) -> Column | None:
        """The column by name, as MySQL compares."""
        lower = name.lower()
        for column in self.columns:
            if column.name.lower() == lower:
                return column
        return None

    @property
    def classes(self) -> tuple[str, ...]:
        """What must be the same of two tables for equal vindex columns to mean the same shard; empty parts:
        nothing does.
        """
        return tuple(comparable_class(column) for column in self.vindex_columns)

    def shard_of(self, pinned: Sequence[Lit], literals: Sequence[bytes], charset: str) -> int | None:
        """The shard with every row whose vindex columns equal these literals; None: it cannot be told.

        :param literals: the texts of the statement's literals.
        """
        values: list[bytes | None] = []
        for column, literal in zip(self.vindex_columns, pinned, strict=True):
            value = sought(column, literals[literal.index], negative=literal.negative, charset=charset)
            if value is None:
                return None
            values.append(value)
        try:
            return self.shard_for(tuple(values))
        except UnplaceableError:
            return None  # such a row cannot have been stored: whatever shard is asked has none

    def shard_for(self, values: tuple[bytes | None, ...]) -> int:
        """The shard for a row with these stored values.

        :raises UnplaceableError: it has no keyspace id.
        """
        return self.pick(values) if self.pick is not None else 0


class Tables:
    """Looks tables up and keeps what it made of them until the router forgets."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._known: dict[tuple[str, str], ShardedTable] = {}
        self._version = names.schema.version

    def get(self, keyspace: KeyspaceRoute, table: str) -> ShardedTable:
        """The table.

        :raises NeedsError: the keyspace's tables must be loaded first.
        :raises RefusedError: it does not exist, has no vindex, or its vindex cannot be used.
        """
        if self._version != self._names.schema.version:
            self._known.clear()
            self._version = self._names.schema.version
        key = (keyspace.name, table)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._make(keyspace, table)
        return found

    def _make(self, keyspace: KeyspaceRoute, table: str) -> ShardedTable:
        schema = self._names.schema
        if schema.tables(keyspace.name) is None:
            raise NeedsError(NeedSchema(keyspace.name))
        columns = schema.table_columns(keyspace.name, table)
        if columns is None:
            raise no_such_table(keyspace.name, table)
        vschema = self._names.vschemas[keyspace.name]
        entry = vschema.tables.get(table)
        if entry is None or (entry.type != REFERENCE and entry.primary is None):
            raise RefusedError(
                1105,
                "HY000",
                f"VT09001: table '{table}' does not have a primary vindex in the vschema of keyspace "
                f"'{keyspace.name}'; add one with ALTER VSCHEMA ON {keyspace.name}.{table} ADD VINDEX",
            )
        unique = schema.unique_keys(keyspace.name, table) or ()
        made = schema.made_values(keyspace.name, table) or MadeValues()
        if entry.primary is None:
            return ShardedTable(table, columns, (), "", None, None, unique, made)
        by_name = {column.name.lower(): column for column in columns}
        vindex_columns: list[Column] = []
        for name in entry.primary.columns:
            if name.lower() not in by_name:
                raise RefusedError(
                    1105, "HY000", f"vschema of '{keyspace.name}': table {table} has no column {name}"
                )
            vindex_columns.append(by_name[name.lower()])
        defined = vschema.vindexes[entry.primary.name]
        ranges = [KeyRange.parse(shard.name) for shard in keyspace.shards]
        # The gateway has the client's text, which is UTF-8 whatever the column stores.
        plain = [replace(c, charset="utf8mb4") if c.charset in _TEXT_CHARSET else c for c in vindex_columns]
        try:
            pick = shard_picker(make_vindex(defined.type, defined.params), ranges, plain)
        except InvalidError as error:
            raise RefusedError(1105, "HY000", f"table {table}: {error.message}") from None
        return ShardedTable(
            table, columns, tuple(vindex_columns), defined.name, pick, entry.auto_increment, unique, made
        )
