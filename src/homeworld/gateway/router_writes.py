"""What writes on a sharded keyspace may do: to vindex columns, and to tables that every shard has."""

from __future__ import annotations

from collections.abc import Sequence

from homeworld.gateway.router_blocks import Blocks
from homeworld.gateway.router_errors import RefusedError, unsupported
from homeworld.gateway.router_tables import ShardedTable
from homeworld.gateway.sql_ast import (
    Assign,
    Call,
    Delete,
    Expr,
    Insert,
    Lit,
    Op,
    Source,
    Update,
    expressions_of,
    walk,
)
from homeworld.gateway.sql_functions import VOLATILE
from homeworld.model.tables import Column


def check_write(statement: Update | Delete, blocks: Blocks) -> None:
    """Refuse what would move a row to another shard, or write several tables at once.

    :raises RefusedError: it does.
    """
    if not isinstance(statement.source, Source) or (isinstance(statement, Delete) and statement.many):
        raise unsupported("UPDATE and DELETE of joined tables on a sharded keyspace")
    table = blocks.uses[0].table if blocks.uses else None
    if table is None:
        raise unsupported("this form of UPDATE or DELETE on a sharded keyspace")
    if table.reference:
        if len(blocks.uses) > 1 or statement.limit is not None:
            raise unsupported("this UPDATE or DELETE of a reference table")
        check_repeatable(statement)
        if isinstance(statement, Update):
            _check_made(statement.assigns, table)
        return
    if isinstance(statement, Update):
        vindex = {column.name.lower() for column in table.vindex_columns}
        for assign in statement.assigns:
            if assign.column.name.lower() in vindex:
                raise unsupported(
                    "you cannot UPDATE primary vindex columns; invalid update on vindex: " + table.vindex
                )


def check_repeatable(statement: Update | Delete) -> None:
    """Every shard must make the same rows of it.

    :raises RefusedError: the clock or chance is in it.
    """
    for expr in expressions_of(statement):
        if isinstance(expr, Call) and (expr.name in VOLATILE or expr.inside & VOLATILE):
            raise unsupported(f"{expr.name.lower()}() in a write to a reference table")


def is_missing(expr: Expr) -> bool:
    """Whether a value asks for one to be made, as far as can be seen without literals."""
    if isinstance(expr, Lit):
        return expr.kind == "null"
    return isinstance(expr, Op) and expr.op == "DEFAULT"


def check_made_by_insert(
    table: ShardedTable, insert: Insert, columns: Sequence[Column], rows: Sequence[Sequence[Expr]]
) -> None:
    """Every shard must make the same rows of an INSERT into a reference table.

    :param columns: what the values of each of ``rows`` are for.
    :raises RefusedError: a column would have its value from the server's clock or chance.
    """
    given = {column.name.lower(): at for at, column in enumerate(columns)}
    for name in sorted(table.made.by_default):
        at = given.get(name.lower())
        if at is None or any(_is_made(table, name, row[at]) for row in rows):
            raise _made(name)
    calls = [expr for expr in expressions_of(insert) if isinstance(expr, Call) and expr.name == "DEFAULT"]
    if calls and table.made.by_default:
        raise _made(min(table.made.by_default))
    if insert.on_duplicate:
        _check_made(insert.on_duplicate, table)


def _check_made(assigns: Sequence[Assign], table: ShardedTable) -> None:
    """The same for what an UPDATE makes of rows.

    :raises RefusedError: a column would have its value from the server's clock or chance.
    """
    given = {assign.column.name.lower(): assign.value for assign in assigns}
    for name in sorted(table.made.on_update | table.made.by_default):
        value = given.get(name.lower())
        if value is None and name not in table.made.on_update:
            continue
        if value is None or _is_made(table, name, value):
            raise _made(name)
    for value in given.values():
        if table.made.by_default and any(
            isinstance(part, Call) and part.name == "DEFAULT" for part in walk(value)
        ):
            raise _made(min(table.made.by_default))


def _is_made(table: ShardedTable, name: str, value: Expr) -> bool:
    """Whether the value leaves it to the server; an old server also makes a TIMESTAMP of NULL."""
    column = table.column(name)
    is_null = isinstance(value, Lit) and value.kind == "null"
    return is_missing(value) and (not is_null or column is None or not column.nullable)


def _made(column: str) -> RefusedError:
    return unsupported(
        f"a write to a reference table that leaves column {column} to each server's clock or chance; "
        f"give {column} a value"
    )
