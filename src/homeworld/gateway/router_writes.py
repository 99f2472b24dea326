"""What UPDATE and DELETE on a sharded keyspace may do."""

from __future__ import annotations

from homeworld.gateway.router_blocks import Blocks
from homeworld.gateway.router_errors import unsupported
from homeworld.gateway.sql_ast import Call, Delete, Source, Update, expressions_of
from homeworld.gateway.sql_functions import VOLATILE


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
