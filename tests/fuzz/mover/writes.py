"""Random transactions on designed tables: what applications do, and what they rarely do.

A statement may fail; then it has done nothing, and the transaction goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from homeworld.model.names import quote
from tests.fuzz.mover.design import OWNER, ColumnDesign, TableDesign
from tests.fuzz.mover.kinds import Numbers


@dataclass(frozen=True, slots=True)
class Transaction:
    """Statements of one client on one shard (a number), in one transaction unless they end it themselves."""

    shard: int
    statements: tuple[str, ...]
    commit: bool = True


def transaction(numbers: Numbers, tables: Sequence[TableDesign], shard: int, *, inserts: bool) -> Transaction:
    """One transaction.

    :param inserts: only INSERTs, for the rows that are there before.
    """
    made: list[str] = []
    for _ in range(numbers.choice((1, 1, 1, 2, 3, 5))):
        table = numbers.choice(tables)
        if inserts:
            made.append(_insert(numbers, table, shard, rows=numbers.choice((1, 5, 20, 40))))
            continue
        draw = numbers.random()
        if draw < 0.08:
            inner = [_statement(numbers, table, shard) for _ in range(numbers.randint(1, 3))]
            made += [
                "SAVEPOINT s",
                *inner,
                "ROLLBACK TO s" if numbers.random() < 0.7 else "RELEASE SAVEPOINT s",
            ]
        elif draw < 0.16:
            made += _swap(numbers, table, shard)
        else:
            made.append(_statement(numbers, table, shard))
    return Transaction(shard, tuple(made), commit=inserts or numbers.random() < 0.93)


def _statement(numbers: Numbers, table: TableDesign, shard: int) -> str:
    draw = numbers.random()
    if draw < 0.36:
        return _insert(numbers, table, shard, rows=numbers.choice((1, 1, 2, 6)))
    if draw < 0.42:
        return _multiplied(numbers, table, shard)
    if draw < 0.82:
        return _update(numbers, table, shard)
    return f"DELETE FROM {quote(table.name)} {_where(numbers, table, shard)}"


def value(numbers: Numbers, column: ColumnDesign, shard: int) -> str:
    if column.name == OWNER:
        return str(shard)
    if column.nullable and numbers.random() < 0.15:
        return "NULL"
    if numbers.random() < 0.04:
        return "DEFAULT"
    return column.kind.value(numbers)


def _insert(numbers: Numbers, table: TableDesign, shard: int, rows: int) -> str:
    columns = table.settable()
    if numbers.random() < 0.2:
        columns = [c for c in columns if c.name in table.key or numbers.random() < 0.7]
    verb = numbers.choice(("INSERT", "INSERT IGNORE", "INSERT IGNORE", "REPLACE"))
    listed = ", ".join(quote(column.name) for column in columns)
    values = ", ".join(
        "(" + ", ".join(value(numbers, column, shard) for column in columns) + ")" for _ in range(rows)
    )
    sql = f"{verb} INTO {quote(table.name)} ({listed}) VALUES {values}"
    changed = [column for column in columns if column.name != OWNER]
    if verb == "INSERT" and changed and numbers.random() < 0.5:
        some = numbers.sample(changed, numbers.randint(1, len(changed)))
        sets = ", ".join(f"{quote(column.name)} = {value(numbers, column, shard)}" for column in some)
        sql += f" ON DUPLICATE KEY UPDATE {sets}"
    return sql


def _multiplied(numbers: Numbers, table: TableDesign, shard: int) -> str:
    """The table's own rows again, with something else in the key."""
    columns = table.settable()
    changed = {numbers.choice([name for name in table.key if name != OWNER])}
    taken = ", ".join(
        value(numbers, column, shard) if column.name in changed else quote(column.name) for column in columns
    )
    listed = ", ".join(quote(column.name) for column in columns)
    verb = numbers.choice(("INSERT IGNORE", "REPLACE"))
    return f"{verb} INTO {quote(table.name)} ({listed}) SELECT {taken} FROM {quote(table.name)} LIMIT 50"


def _update(numbers: Numbers, table: TableDesign, shard: int) -> str:
    columns = [column for column in table.settable() if column.name != OWNER]
    if numbers.random() < 0.6:
        columns = [column for column in columns if column.name not in table.key] or columns
    some = numbers.sample(columns, min(len(columns), numbers.choice((1, 1, 2, 3))))
    sets: list[str] = []
    for column in some:
        if column.kind.integer and numbers.random() < 0.4:
            sets.append(f"{quote(column.name)} = {quote(column.name)} + {numbers.choice((1, -1, 100))}")
        elif column.kind.declared.startswith(("CHAR", "VARCHAR")) and numbers.random() < 0.3:
            how = numbers.choice(("UPPER({0})", "LOWER({0})", "CONCAT({0}, ' ')", "REVERSE({0})"))
            sets.append(f"{quote(column.name)} = {how.format(quote(column.name))}")
        else:
            sets.append(f"{quote(column.name)} = {value(numbers, column, shard)}")
    ignore = numbers.choice(("", "", "IGNORE "))
    return f"UPDATE {ignore}{quote(table.name)} SET {', '.join(sets)} {_where(numbers, table, shard)}"


def _swap(numbers: Numbers, table: TableDesign, shard: int) -> list[str]:
    """Two rows exchange what one column of them has, through a value that is nobody's for long."""
    columns = [column for column in table.settable() if column.name != OWNER]
    column = numbers.choice(columns)
    name, one, other, third = (quote(column.name), *(column.kind.value(numbers) for _ in range(3)))
    step = f"UPDATE {quote(table.name)} SET {name} = {{}} WHERE {name} = {{}} LIMIT 1"
    return [step.format(third, one), step.format(one, other), step.format(other, third)]


def _where(numbers: Numbers, table: TableDesign, shard: int) -> str:
    chosen = numbers.choice(table.key)
    column = next(column for column in table.columns if column.name == chosen)
    name = quote(column.name)
    draw = numbers.random()
    if draw < 0.35:
        return f"WHERE {name} = {value(numbers, column, shard)}"
    if draw < 0.6:
        return f"WHERE MOD(CRC32({name}), {numbers.choice((2, 3, 5))}) = {numbers.randint(0, 2)}"
    if draw < 0.75:
        return f"WHERE {name} {numbers.choice(('<', '>='))} {value(numbers, column, shard)}"
    if draw < 0.97:
        return f"ORDER BY {name} {numbers.choice(('', 'DESC'))} LIMIT {numbers.randint(1, 4)}"
    return ""
