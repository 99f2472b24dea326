"""Statements that touch no table of a keyspace: ``SELECT 1``, ``SELECT @@version``, information_schema.

They go to the session's keyspace, or to the one whose name stands in the text. Where a schema has another
name on the server than its keyspace (sharded keyspaces), names are changed on the way there and back.
"""

from __future__ import annotations

from collections.abc import Sequence

from homeworld.gateway.plan import (
    Answer,
    ColumnSpec,
    Done,
    Footprint,
    NeedLastId,
    Pass,
    Plan,
    Refuse,
    Row,
    Scatter,
    SessionView,
    Verb,
)
from homeworld.gateway.router_context import Compiled, Context, apply, passing, passing_edited
from homeworld.gateway.router_errors import NeedsError, unsupported
from homeworld.gateway.router_names import Edit, Found
from homeworld.gateway.router_target import target_text
from homeworld.gateway.sql_tables import significant
from homeworld.gateway.sql_tokens import LITERALS, Kind, Token, hex_value, quote_string, string_value
from homeworld.model.names import quote
from homeworld.model.routing import KeyspaceRoute

_LONGLONG = 8
_BINARY = 63


def _alias(words: list[Token], at: int) -> str | None:
    """The alias that ends the statement at ``at``; an empty one where nothing follows, None: more follows."""
    rest = words[at:]
    if len(rest) >= 2 and rest[-2].upper == b"LIMIT" and rest[-1].text == b"1":
        rest = rest[:-2]
    if len(rest) >= 2 and rest[-2].upper == b"FROM" and rest[-1].upper == b"DUAL":
        rest = rest[:-2]
    if not rest:
        return ""
    if rest[0].upper == b"AS":
        rest = rest[1:]
    if len(rest) == 1 and rest[0].kind in (Kind.WORD, Kind.QUOTED):
        return rest[0].name()
    if len(rest) == 1 and rest[0].kind is Kind.STRING:
        return string_value(rest[0].text).decode("utf-8", "replace")
    return None


def of_session(context: Context) -> Compiled | None:
    """``SELECT DATABASE()``, ``SELECT LAST_INSERT_ID()``, ``SELECT @@identity``: what the session knows."""
    words = context.scan.words
    if context.scan.word(0) != b"SELECT" or len(words) < 2:
        return None
    name = words[1].upper
    if words[1].kind is Kind.VARIABLE and words[1].text.lower() in {b"@@identity", b"@@last_insert_id"}:
        alias = _alias(words, 2)
        return None if alias is None else _last_id(alias or words[1].text.decode())
    if len(words) < 4 or words[2].text != b"(" or words[3].text != b")":
        return None
    alias = _alias(words, 4)
    if alias is None or words[1].kind is not Kind.WORD:
        return None
    title = alias or context.sql[words[1].start : words[3].end].decode("utf-8", "replace")
    if name == b"LAST_INSERT_ID":
        return _last_id(title)
    if name in {b"DATABASE", b"SCHEMA"}:
        text = target_text(context.aim.target, context.names.routes.database).encode()
        made = Answer((ColumnSpec(title),), ((text,),))
        return Compiled(lambda _sql, _view: made)
    return None


def _last_id(title: str) -> Compiled:
    columns = (ColumnSpec(title, _LONGLONG, _BINARY, 21),)
    return Compiled(lambda _sql, view: Answer(columns, ((last_id_of(view),),)))


def last_id_of(view: SessionView) -> bytes:
    """The session's last generated id in digits.

    :raises NeedsError: a server must be asked first.
    """
    if view.last_insert_id < 0:
        raise NeedsError(NeedLastId())
    return b"%d" % view.last_insert_id


LAST_ID = frozenset({b"LAST_INSERT_ID"})
_SCHEMA = frozenset({b"DATABASE", b"SCHEMA"})


def call_edits(context: Context, functions: frozenset[bytes]) -> list[tuple[int, int, bytes]]:
    """Where one of ``functions`` is called without arguments, and what must follow the value put there: where
    it is a column of the result by itself, the alias that gives the column the name a server would.
    """
    words = context.scan.words
    found: list[tuple[int, int, bytes]] = []
    depth = 0
    columns = context.scan.word(0) == b"SELECT"
    for at, token in enumerate(words[:-2]):
        depth += {b"(": 1, b")": -1}.get(token.text, 0) if token.kind is Kind.OP else 0
        if depth == 0 and token.upper == b"FROM":
            columns = False
        if token.upper not in functions or (words[at + 1].text, words[at + 2].text) != (b"(", b")"):
            continue
        start, end = token.start, words[at + 2].end
        follower = words[at + 3] if at + 3 < len(words) else None
        alone = (
            columns
            and depth == 0
            and words[at - 1].upper in {b"SELECT", b","}
            and (follower is None or follower.upper in {b",", b"FROM", b"LIMIT"})
        )
        title = b" AS " + quote(context.sql[start:end].decode("utf-8", "replace")).encode() if alone else b""
        found.append((start, end, title))
    return found


def nothing(sql: bytes) -> Compiled | None:
    """A text without any statement: remarks are well, as a server finds; None: there is a statement."""
    if sql.lstrip()[:1] not in {b"", b"-", b"#", b"/", b";"} or significant(sql)[0]:
        return None
    if sql.strip(b" \t\r\n;"):
        return Compiled(lambda _sql, _view: Done(), shape=False)
    return Compiled(lambda _sql, _view: Refuse(1065, "42000", "Query was empty"), shape=False)


def of_no_table(context: Context) -> Compiled:
    """No table at all."""
    known = of_session(context)
    if known is not None:
        return known
    keyspace = context.names.default(context.aim.target)
    destination, shard = context.first(keyspace)
    scan = context.scan
    tables = frozenset[tuple[str, str]]()
    if scan.unknown_functions:
        tables = context.names.all_tables(keyspace.name)
    queries = scan.verb is Verb.CALL and context.queries
    footprint = Footprint(scan.verb, tables, scan.locking_read, scan.keeps_state, queries)
    if scan.calls & _SCHEMA:
        # A client knows its database by the name it gave, not by the schema's on some server.
        name = target_text(context.aim.target, context.names.routes.database)
        if name != shard.schema:
            value = quote_string(name.encode())
            edits = [(start, end, value + title) for start, end, title in call_edits(context, _SCHEMA)]
            return passing_edited(context, destination, footprint, edits)
    return passing(destination, footprint)


def of_system(context: Context, found: Sequence[Found]) -> Compiled:
    """Only tables of system schemas."""
    if context.scan.verb is not Verb.SELECT:
        raise unsupported("changing tables of system schemas")
    keyspace, edits = _named_keyspace(context)
    destination, shard = context.first(keyspace)
    edits += context.names.physical(found, shard.schema)
    footprint = Footprint(Verb.SELECT, keeps_state=context.scan.keeps_state)
    sql = apply(context.sql, edits)
    plan = Pass(destination, sql, footprint)
    if shard.schema == keyspace.name:
        # A literal or a value that comes later may name another keyspace, or one by another name.
        chosen = any(token.kind in LITERALS or token.kind is Kind.PARAM for token in context.scan.words)
        return Compiled(lambda _sql, _view: plan, shape=False, fixed=not chosen)
    there, here = shard.schema.encode(), keyspace.name.encode()

    def merge(results: Sequence[Sequence[Row]]) -> Sequence[Row]:
        return [tuple(here if value == there else value for value in row) for row in results[0]]

    def template(_sql: bytes, _view: SessionView) -> Plan:
        return Scatter(((destination, sql),), footprint, merge)

    return Compiled(template, shape=False, prepare=plan)


def _named_keyspace(context: Context) -> tuple[KeyspaceRoute, list[Edit]]:
    """The keyspace that the statement asks about, and the literals to change so that the server knows it."""
    names = context.names
    routes = names.routes
    named: dict[str, KeyspaceRoute] = {}
    edits: list[Edit] = []
    for token in context.scan.words:
        if token.kind not in {Kind.STRING, Kind.HEX}:
            continue
        value = string_value(token.text) if token.kind is Kind.STRING else hex_value(token.text)
        text = value.decode("utf-8", "replace")
        route = routes.keyspaces.get(text)
        if route is None and text == routes.database:
            route = names.keyspace(routes.default_keyspace)
        if route is None:
            continue
        named[route.name] = route
        schema = names.shard(route).schema
        if schema != text:
            edits.append((token.start, token.end, quote_string(schema.encode())))
    if len(named) > 1:
        raise unsupported("information_schema of several keyspaces in one statement")
    if named:
        return next(iter(named.values())), edits
    return names.default(context.aim.target), edits
