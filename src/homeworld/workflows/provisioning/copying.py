"""A new branch's definitions: the parent's tables and views, without their rows.

A sequence's table is the exception: without its row nothing could be inserted, so it begins at 1.
"""

from __future__ import annotations

from collections.abc import Mapping

from homeworld.model.errors import InvalidError, ServerError
from homeworld.model.names import quote
from homeworld.model.topology import ShardPlace
from homeworld.model.vschema import SEQUENCE, parse
from homeworld.replication.connection import Connection
from homeworld.replication.ddl import TargetForm, target_table
from homeworld.replication.sequences import create_sequence
from homeworld.replication.tables import (
    create_table,
    definition_session,
    list_tables,
    literal,
    read_tables,
    run_ddl,
)

_WHOLE = TargetForm(defer_keys=False, keep_auto_increment=True, keep_foreign_keys=True)


def copy_definitions(source: ShardPlace, target: ShardPlace, vschema: Mapping[str, object]) -> None:
    """Make on ``target`` every table and view that ``source`` has; what is there already stays.

    :raises ServerError: the server refused a table's definition.
    :raises InvalidError: views refer to what is not there.
    """
    entries = parse(vschema).tables
    for name, table in read_tables(source, list_tables(source)).items():
        if name in entries and entries[name].type == SEQUENCE:
            create_sequence(target, name)
        else:
            create_table(target, name, target_table(table, _WHOLE).create_sql)
            if any(column.auto_increment for column in table.columns):
                run_ddl(target, f"ALTER TABLE {quote(target.schema, name)} AUTO_INCREMENT = 1")
    _copy_views(source, target)


def _copy_views(source: ShardPlace, target: ShardPlace) -> None:
    with definition_session(source.endpoint) as connection:
        rows = connection.query_all(
            "SELECT TABLE_NAME, VIEW_DEFINITION FROM information_schema.VIEWS "  # noqa: S608 - a hex literal
            f"WHERE TABLE_SCHEMA = {literal(source.schema)} ORDER BY TABLE_NAME"
        )
    views = {(name or b"").decode(): (text or b"").decode() for name, text in rows}
    with definition_session(target.endpoint) as connection:
        connection.execute(f"USE {quote(target.schema)}")
        # A view may read another view: those that cannot be made yet wait for the others.
        while views:
            refusals = {name: _make_view(connection, target, name, text) for name, text in views.items()}
            if all(refusals.values()):
                raise InvalidError(f"views of the parent cannot be made: {refusals}")
            views = {name: text for name, text in views.items() if refusals[name]}


def _make_view(connection: Connection, target: ShardPlace, name: str, definition: str) -> str:
    """Make a view whose definition names its own schema, which is the same on both sides; the refusal."""
    try:
        connection.execute(f"CREATE OR REPLACE VIEW {quote(target.schema, name)} AS {definition}")
    except ServerError as error:
        return error.message
    return ""
