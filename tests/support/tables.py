"""Table definitions for tests that need no server."""

from __future__ import annotations

from homeworld.model.tables import Column, Index, Table


def column(name: str, kind: str = "int", declared: str = "", **changes: object) -> Column:
    """A NOT NULL column; text is latin1 where nothing else is said."""
    text = kind in {"char", "varchar", "text", "enum", "set"}
    fields: dict[str, object] = {
        "name": name, "type": kind, "column_type": declared or kind, "unsigned": False, "nullable": False,
        "charset": "latin1" if text else "", "collation": "latin1_swedish_ci" if text else "",
        "generated": False, "auto_increment": False, "invisible": False,
    }  # fmt: skip
    return Column(**{**fields, **changes})  # type: ignore[arg-type]


def table(
    *columns: Column, key: tuple[str, ...] = (), create_sql: str = "", unique: tuple[str, ...] = ()
) -> Table:
    """A table with a primary key (the first column, if none is named) and unique keys of one column."""
    primary = Index("PRIMARY", unique=True, columns=key or (columns[0].name,), prefixed=False)
    others = tuple(Index(name, unique=True, columns=(name,), prefixed=False) for name in unique)
    return Table("t", columns, (primary, *others), primary, "InnoDB", create_sql, 0, 0)
