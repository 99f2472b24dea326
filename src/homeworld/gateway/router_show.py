"""``SHOW``, ``DESCRIBE`` and ``EXPLAIN``: answered here, or by the server that has the table."""

from __future__ import annotations

from homeworld.gateway import vitess_show
from homeworld.gateway.plan import Footprint, Pass, Plan, Verb
from homeworld.gateway.router_context import Compiled, Context, apply, fixed, passing_edited
from homeworld.gateway.router_errors import unsupported
from homeworld.gateway.router_names import Edit, Found, identifier
from homeworld.gateway.sql_statement import is_qualified
from homeworld.gateway.sql_tables import TableRef
from homeworld.gateway.sql_tokens import Kind, Token, quote_string, string_value
from homeworld.model.routing import KeyspaceRoute

_FROM = frozenset({b"FROM", b"IN"})
_OF_TABLE = frozenset({b"COLUMNS", b"FIELDS", b"INDEX", b"INDEXES", b"KEYS"})
_OF_SCHEMA = frozenset({b"TABLES", b"TRIGGERS", b"EVENTS", b"OPEN"})
_REFUSED = frozenset({b"MIGRATIONS", b"VITESS_MIGRATIONS", b"VITESS_MIGRATION", b"VITESS_REPLICATION_STATUS"})


def show(context: Context) -> Compiled:
    """Plan a SHOW.

    :raises RefusedError: not offered.
    """
    words = context.scan.words
    for at, token in enumerate(words):
        query = token.upper == b"SELECT" or (token.upper == b"TABLE" and words[at - 1].text == b"(")
        if token.kind is Kind.WORD and query and not is_qualified(words, at):
            raise unsupported("queries in SHOW, as nobody would look for their tables")
    at = 1
    while at < len(words) and words[at].upper in {b"FULL", b"EXTENDED", b"GLOBAL", b"SESSION", b"ALL"}:
        at += 1
    what = context.scan.word(at)
    own = answered_here(context, what, at)
    if own is not None:
        return Compiled(lambda _sql, _view: own, shape=False)
    if what in _REFUSED or what.startswith(b"VITESS"):
        raise unsupported(f"SHOW {what.decode('utf-8', 'replace')}")
    if what in _OF_TABLE:
        return _of_table(context, at + 1)
    if what == b"CREATE" and context.scan.word(at + 1) in {b"TABLE", b"VIEW"}:
        return _create_table(context, at + 2)
    if what in {b"TABLES", b"TRIGGERS", b"EVENTS"} or (what in {b"TABLE", b"OPEN"}):
        return _of_schema(context, what, at)
    return _of_server(context)


def _pattern(context: Context) -> str | None:
    words = context.scan.words
    for at, token in enumerate(words[:-1]):
        if token.upper == b"LIKE" and words[at + 1].kind is Kind.STRING:
            return string_value(words[at + 1].text).decode("utf-8", "replace")
    return None


def answered_here(context: Context, what: bytes, at: int) -> Plan | None:
    """The answer to a SHOW of what the routes tell, if it is one.

    :param what: the word at ``at``, behind SHOW and its qualifiers.
    :raises RefusedError: not offered in this form.
    """
    names, target = context.names, context.aim.target
    pattern = _pattern(context)
    if any(token.upper == b"WHERE" for token in context.scan.words) and what in {
        b"DATABASES", b"SCHEMAS", b"KEYSPACES",
    }:  # fmt: skip
        raise unsupported(f"SHOW {what.decode()} with WHERE; use LIKE")
    match what:
        case b"DATABASES" | b"SCHEMAS":
            return vitess_show.databases(names, pattern)
        case b"KEYSPACES" | b"VITESS_KEYSPACES":
            return vitess_show.keyspaces(names, pattern)
        case b"VITESS_SHARDS":
            return vitess_show.shards(names, pattern)
        case b"VITESS_TABLETS":
            return vitess_show.tablets(names, pattern)
        case b"VITESS_TARGET":
            return vitess_show.target(names, target)
        case b"VSCHEMA":
            return _vschema(context, at + 1)
        case _:
            return None


def _vschema(context: Context, at: int) -> Plan:
    names, target = context.names, context.aim.target
    match context.scan.word(at):
        case b"KEYSPACES":
            return vitess_show.vschema_keyspaces(names)
        case b"TABLES":
            return vitess_show.vschema_tables(names, target, names.schema)
        case b"VINDEXES":
            on: tuple[str, str] | None = None
            if context.scan.word(at + 1) in {b"ON", b"FROM", b"IN"}:
                ref, _ = table_at(context.scan.words, at + 2)
                on = (ref.schema, ref.name)
            return vitess_show.vschema_vindexes(names, target, on)
        case other:
            raise unsupported(f"SHOW VSCHEMA {other.decode('utf-8', 'replace')}")


def table_at(words: list[Token], at: int) -> tuple[TableRef, int]:
    """The table name at ``at``, and where it ends.

    :raises RefusedError: there is none.
    """
    if at >= len(words) or words[at].kind not in (Kind.WORD, Kind.QUOTED):
        raise unsupported("this SHOW statement")
    first = last = words[at]
    schema = ""
    if at + 2 < len(words) and words[at + 1].text == b".":
        schema, last = first.name(), words[at + 2]
        at += 2
    return TableRef(schema, last.name(), first.start, last.start, last.end), at + 1


def _to_table(context: Context, found: Found, edits: list[Edit]) -> Compiled:
    """Ask the server that has the table, or the first of those that have it."""
    names = context.names
    keyspace = names.default(context.aim.target) if found.system else names.keyspace(found.keyspace)
    destination, shard = context.first(keyspace)
    tables = frozenset({(found.keyspace, found.table)}) if not found.system else frozenset[tuple[str, str]]()
    edits = [*edits, *names.physical([found], shard.schema)]
    return passing_edited(context, destination, Footprint(Verb.SHOW, tables, queries=context.queries), edits)


def _of_table(context: Context, at: int) -> Compiled:
    """COLUMNS FROM t [FROM keyspace]: the second name, where there is one, qualifies the first."""
    words = context.scan.words
    if context.scan.word(at) not in _FROM:
        raise unsupported("this SHOW statement")
    ref, at = table_at(words, at + 1)
    edits: list[Edit] = []
    if context.scan.word(at) in _FROM and at + 1 < len(words):
        schema = words[at + 1]
        ref = TableRef(schema.name(), ref.name, ref.start, ref.name_start, ref.end)
        edits.append((words[at].start, schema.end, b""))
    return _to_table(context, context.names.find(ref, context.aim), edits)


def _create_table(context: Context, at: int) -> Compiled:
    at += 3 if context.scan.word(at) == b"IF" else 0
    ref, _ = table_at(context.scan.words, at)
    return _to_table(context, context.names.find(ref, context.aim), [])


def describe(context: Context) -> Compiled:
    """DESCRIBE t; EXPLAIN t."""
    if len(context.scan.tables) != 1:
        raise unsupported("this EXPLAIN statement")
    return _to_table(context, context.names.find(context.scan.tables[0], context.aim), [])


def _schema_of(context: Context, at: int) -> tuple[KeyspaceRoute | None, list[Token]]:
    """The keyspace behind FROM, and the words that name it; None: a system schema."""
    words = context.scan.words
    names = context.names
    while at < len(words):
        if words[at].upper in _FROM and at + 1 < len(words):
            name = words[at + 1].name()
            if name in names.routes.keyspaces:
                return names.routes.keyspaces[name], [words[at], words[at + 1]]
            if name == names.routes.database:
                return names.keyspace(names.routes.default_keyspace), [words[at], words[at + 1]]
            if name.lower() in {"information_schema", "mysql", "performance_schema", "sys"}:
                return None, [words[at], words[at + 1]]
            names.keyspace(name)
        if words[at].upper in {b"LIKE", b"WHERE"}:
            break
        at += 1
    return names.default(context.aim.target), []


def _of_schema(context: Context, what: bytes, at: int) -> Compiled:
    keyspace, named = _schema_of(context, at)
    names = context.names
    if keyspace is None:
        destination, _ = context.first(names.default(context.aim.target))
        return passing_edited(context, destination, Footprint(Verb.SHOW, queries=context.queries), [])
    destination, shard = context.first(keyspace)
    if keyspace.sharded or shard.schema != keyspace.name:
        if what != b"TABLES":
            raise unsupported(
                f"SHOW {what.decode()} of a sharded keyspace; aim at one shard with "
                f"USE `{keyspace.name}/{shard.name}`"
            )
        sql = _tables_query(context, keyspace.name, shard.schema)
        return Compiled(
            lambda _sql, _view: Pass(destination, sql, Footprint(Verb.SHOW, queries=context.queries)),
            shape=False,
        )
    edits: list[Edit] = []
    if named and named[1].name() != shard.schema:
        edits.append((named[1].start, named[1].end, identifier(shard.schema)))
    return passing_edited(context, destination, Footprint(Verb.SHOW, queries=context.queries), edits)


def _tables_query(context: Context, keyspace: str, schema: str) -> bytes:
    """SHOW TABLES under the keyspace's own name, where the schema on the servers has another."""
    words = [token.upper for token in context.scan.words]
    if b"WHERE" in words:
        raise unsupported("SHOW TABLES with WHERE of a sharded keyspace; use LIKE")
    pattern = _pattern(context)
    title = f"Tables_in_{keyspace}" + (f" ({pattern})" if pattern is not None else "")
    columns = b"TABLE_NAME AS " + quote_string(title.encode())
    if b"FULL" in words:
        columns += b", TABLE_TYPE AS 'Table_type'"
    sql = b"SELECT " + columns + b" FROM information_schema.TABLES WHERE TABLE_SCHEMA = "
    sql += quote_string(schema.encode())
    if pattern is not None:
        sql += b" AND TABLE_NAME LIKE " + quote_string(pattern.encode())
    return sql + b" ORDER BY TABLE_NAME"


def _of_server(context: Context) -> Compiled:
    """Anything else is about the server: the default keyspace's first."""
    destination, _ = context.first(context.names.default(context.aim.target))
    return passing_edited(context, destination, Footprint(Verb.SHOW, queries=context.queries), [])


def explain_prefix(context: Context) -> int:
    """Where the explained statement begins in the text; -1: it is DESCRIBE of a table."""
    for token in context.scan.words[1:]:
        if token.upper in {b"SELECT", b"INSERT", b"UPDATE", b"DELETE", b"REPLACE", b"WITH", b"(", b"TABLE"}:
            return token.start
    return -1


def explain(context: Context, inner: Plan) -> Compiled:
    """EXPLAIN of a statement: asked where (or where first) the statement would be sent."""
    start = explain_prefix(context)
    prefix = context.sql[:start]
    if isinstance(inner, Pass):
        destination, sql = inner.destination, inner.sql
    else:
        statements = getattr(inner, "statements", ())
        if not statements:
            return fixed(inner)
        destination, sql = statements[0]
    plan = Pass(destination, apply(prefix + sql, []), Footprint(Verb.SHOW, queries=True))
    return Compiled(lambda _sql, _view: plan, shape=False)
