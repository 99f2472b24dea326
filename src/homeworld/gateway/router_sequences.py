"""``SELECT NEXT VALUE FROM sequence`` and ``SELECT NEXT n VALUES FROM sequence``: Vitess's own statement."""

from __future__ import annotations

from homeworld.gateway.plan import Answer, ColumnSpec, NeedSequence, Plan, SessionView
from homeworld.gateway.router_context import Compiled, Context
from homeworld.gateway.router_errors import NeedsError, RefusedError, unsupported
from homeworld.gateway.sql_tokens import Kind
from homeworld.model.vschema import SEQUENCE

_LONGLONG = 8
_BINARY = 63
_MOST = 10_000


def next_values(context: Context) -> Compiled | None:
    """The plan, if it is such a statement.

    :raises RefusedError: the table is no sequence, or too many ids are asked for.
    """
    scan = context.scan
    if scan.word(0) != b"SELECT" or scan.word(1) != b"NEXT":
        return None
    count = 1
    if scan.word(2) != b"VALUE":
        if scan.word(3) != b"VALUES" or scan.words[2].kind is not Kind.NUMBER or not scan.word(2).isdigit():
            return None
        count = int(scan.word(2))
    if not 1 <= count <= _MOST or len(scan.tables) != 1:
        raise unsupported(f"NEXT {count} VALUES; take 1 to {_MOST}")
    found = context.names.find(scan.tables[0], context.aim)
    vschema = context.names.vschemas.get(found.keyspace)
    entry = vschema.tables.get(found.table) if vschema else None
    if entry is None or entry.type != SEQUENCE:
        raise RefusedError(
            1105, "HY000", f"VT03018: cannot use NEXT VALUE on table {found.table}: no sequence"
        )

    def template(_sql: bytes, view: SessionView) -> Plan:
        if len(view.sequence_ids) < count:
            raise NeedsError(NeedSequence(found.keyspace, found.table, count))
        column = ColumnSpec("nextval", _LONGLONG, _BINARY, 21)
        return Answer((column,), ((b"%d" % view.sequence_ids[0],),))

    return Compiled(template, shape=False)
