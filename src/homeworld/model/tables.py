"""What a table is, as the data path needs to know it: read from a server, never guessed from SQL text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """One column, in the table's order.

    :param type: ``DATA_TYPE`` of information_schema, lower case (``bigint``, ``varchar``, ``json`` …).
    :param column_type: ``COLUMN_TYPE`` (``bigint(20) unsigned``, ``enum('a','b')``).
    :param charset: character set of text, ``binary`` for bytes, empty for the rest.
    """

    name: str
    type: str
    column_type: str
    unsigned: bool
    nullable: bool
    charset: str
    collation: str
    generated: bool
    auto_increment: bool
    invisible: bool


@dataclass(frozen=True, slots=True)
class Index:
    """One index; ``columns`` in key order, an expression part is the empty string."""

    name: str
    unique: bool
    columns: tuple[str, ...]
    prefixed: bool


@dataclass(frozen=True, slots=True)
class Table:
    """One base table. ``key`` is the index that identifies rows: the primary key, or the first unique
    index over NOT NULL columns; None where there is neither (such a table cannot be moved).

    :param create_sql: the server's own ``SHOW CREATE TABLE`` text, as it takes it back.
    """

    name: str
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...]
    key: Index | None
    engine: str
    create_sql: str
    rows_estimate: int
    data_bytes: int

    def column(self, name: str) -> Column:
        """The column by name, compared as MySQL does (case-insensitive).

        :raises KeyError: no such column.
        """
        for column in self.columns:
            if column.name.lower() == name.lower():
                return column
        raise KeyError(name)
