"""Statements on a sharded keyspace: parsed wholly, then planned exactly or refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from homeworld.gateway.plan import Destination, Footprint, Pass, Plan, Scatter, SessionView, Verb
from homeworld.gateway.router_blocks import Blocks, Builder, Whereabouts
from homeworld.gateway.router_context import Compiled, Context
from homeworld.gateway.router_ddl import compile_ddl, on_shards
from homeworld.gateway.router_errors import RefusedError, unsupported
from homeworld.gateway.router_insert import compile_insert
from homeworld.gateway.router_names import Found, Names
from homeworld.gateway.router_select import Scattered, compile_scatter
from homeworld.gateway.router_tables import ShardedTable, Tables
from homeworld.gateway.router_text import Change, Piece, Sample, fill
from homeworld.gateway.router_writes import check_write
from homeworld.gateway.sql_ast import (
    Call,
    Delete,
    Expr,
    In,
    Insert,
    Select,
    Source,
    Statement,
    Sub,
    Union,
    Update,
    Var,
    conjuncts,
    expressions_of,
)
from homeworld.gateway.sql_functions import AGGREGATES, GRAMMAR, PURE, VOLATILE, WINDOW_ONLY
from homeworld.gateway.sql_parse import parse
from homeworld.gateway.sql_tokens import Kind, SqlSyntaxError, literals
from homeworld.model.routing import KeyspaceRoute
from homeworld.model.topology import Flavor

_CALLABLE = AGGREGATES | PURE | VOLATILE | WINDOW_ONLY | {"VERSION"}


@dataclass(slots=True)
class Sending:
    """Where statements on one keyspace are sent, and the text that each shard gets.

    :param texts: pieces for each shard, by its number; None: the client's text as it is.
    """

    destinations: list[Destination]
    footprint: Footprint
    texts: list[list[Piece] | None]

    def text(self, number: int, sql: bytes, values: Sequence[bytes]) -> bytes:
        """The text for one shard."""
        pieces = self.texts[number]
        return sql if pieces is None else fill(pieces, values)

    def to_one(self, number: int, sql: bytes, values: Sequence[bytes]) -> Pass:
        """The plan for one shard."""
        return Pass(self.destinations[number], self.text(number, sql, values), self.footprint)


class Sharded:
    """Plans statements on sharded keyspaces."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._tables = Tables(names)

    def compile(
        self, context: Context, keyspace: KeyspaceRoute, found: Sequence[Found], *, prepared: bool
    ) -> Compiled:
        """Make the template of a statement whose tables are all in one sharded keyspace.

        :param prepared: ``?`` stand for values that come later.
        :raises RefusedError: it cannot be planned exactly.
        :raises NeedsError: tables must be known first.
        """
        if context.scan.program:
            raise on_shards(context.scan, keyspace)
        if context.scan.code:
            raise unsupported("executable comments on a sharded keyspace")
        if b"SET_VAR" in context.sql.upper():
            raise unsupported("SET_VAR hints on a sharded keyspace")
        if any(one.system for one in found):
            raise unsupported("tables of system schemas together with those of a sharded keyspace")
        params = any(token.kind is Kind.PARAM for token in context.scan.words)
        if params and not prepared:
            raise RefusedError(1064, "42000", "You have an error in your SQL syntax near '?'")
        if context.scan.verb is Verb.DDL:
            return compile_ddl(context, keyspace, found)
        try:
            statement = parse(context.scan.words)
        except SqlSyntaxError as error:
            raise unsupported(f"on a sharded keyspace: {error.message}") from None
        _check_functions(statement)
        sample = Sample(context.sql, context.scan.words)
        footprint = context.footprint(found, keyspace.name)
        if isinstance(statement, Insert):
            table = self._tables.get(keyspace, _at(found, statement.table).table)
            compiled = compile_insert(context, keyspace, found, statement, table, sample, footprint)
        else:
            compiled = self._compile_query(context, keyspace, found, statement, sample, footprint)
        first, shard = context.first(keyspace)
        edits = self._names.physical(found, shard.schema, context.scan.words)
        pieces = sample.changed([(start, end, [text]) for start, end, text in edits])
        prepare = Pass(first, b"".join(_written(sample, pieces)), footprint)
        return replace(compiled, prepare=prepare)

    def _resolver(
        self, context: Context, keyspace: KeyspaceRoute, found: Sequence[Found]
    ) -> Callable[[Source], ShardedTable | None]:
        by_start = {one.ref.start: one for one in found}

        def resolve(source: Source) -> ShardedTable | None:
            one = by_start.get(source.start)
            if one is not None:
                return self._tables.get(keyspace, one.table)
            if source.schema or source.table not in context.scan.ctes:
                # The parser has found a table that the scan has not: nothing is known of its rows.
                raise unsupported("this form of FROM on a sharded keyspace")
            return None

        return resolve

    def _compile_query(
        self,
        context: Context,
        keyspace: KeyspaceRoute,
        found: Sequence[Found],
        statement: Statement,
        sample: Sample,
        footprint: Footprint,
    ) -> Compiled:
        builder = Builder(self._resolver(context, keyspace, found))
        match statement:
            case Update() | Delete():
                builder.sources(statement.source, builder.blocks.scope, top=True)
                builder.restrict(conjuncts(statement.where), builder.blocks.scope)
                builder.expressions(_own(statement), builder.blocks.scope)
                check_write(statement, builder.blocks)
            case Insert():
                raise AssertionError("inserts are compiled elsewhere")
            case _:
                builder.query(statement, None, top=True)
        blocks = builder.blocks
        sending = self._sending(context, keyspace, found, sample, footprint)
        whereabouts = Whereabouts(blocks)
        apart = _apart(statement, blocks, keyspace)
        if isinstance(statement, Update | Delete):
            return _write(statement, blocks, whereabouts, sending, sample, apart)
        flavor = self._names.routes.flavor
        scattered, refusal = _scattered(statement, blocks, whereabouts, sample, flavor, keyspace, apart)
        return self._read(context, keyspace, found, sample, sending, whereabouts, scattered, refusal)

    def _sending(
        self,
        context: Context,
        keyspace: KeyspaceRoute,
        found: Sequence[Found],
        sample: Sample,
        footprint: Footprint,
    ) -> Sending:
        destinations = [context.aim.at(keyspace.name, shard.name) for shard in keyspace.shards]
        texts: list[list[Piece] | None] = []
        for shard in keyspace.shards:
            edits = self._names.physical(found, shard.schema, context.scan.words)
            texts.append(sample.changed([(s, e, [text]) for s, e, text in edits]) if edits else None)
        return Sending(destinations, footprint, texts)

    def _read(
        self,
        context: Context,
        keyspace: KeyspaceRoute,
        found: Sequence[Found],
        sample: Sample,
        sending: Sending,
        whereabouts: Whereabouts,
        scattered: Scattered | None,
        refusal: RefusedError,
    ) -> Compiled:
        merged: list[list[Piece]] = []
        if scattered is not None:
            for shard in keyspace.shards:
                edits = self._names.physical(found, shard.schema, context.scan.words)
                names: list[Change] = [(start, end, [text]) for start, end, text in edits]
                merged.append(sample.changed(scattered.changes(names)))
        expected = len(sample.spans)
        count = len(keyspace.shards)

        def template(sql: bytes, view: SessionView) -> Plan:
            values = literals(sql)
            if len(values) != expected:
                raise RefusedError(1064, "42000", "You have an error in your SQL syntax near '?'")
            shards = whereabouts.decide(values, view.charset, count)
            if shards is not None and len(shards) == 1:
                return sending.to_one(shards[0], sql, values)
            if scattered is None or shards is None:
                raise refusal
            statements = tuple((sending.destinations[n], fill(merged[n], values)) for n in shards)
            return Scatter(
                statements,
                sending.footprint,
                scattered.merge(values),
                -scattered.hidden if scattered.hidden else None,
            )

        return Compiled(template, shape=scattered is None or scattered.shape)


def _apart(statement: Statement, blocks: Blocks, keyspace: KeyspaceRoute) -> RefusedError:
    """The refusal of a statement whose tables no shard has together, with the way out."""
    if isinstance(statement, Union):
        what = "UNION of rows on several shards; send each SELECT by itself"
    elif blocks.nested:
        what = (
            "derived tables and common table expressions over several shards; compare the primary vindex "
            "columns of each with values of one shard, or send the inner query by itself"
        )
    elif not any(use.top and use.placed for use in blocks.uses):
        what = (
            "a subquery over several shards as a value, as in EXISTS (SELECT …) or (SELECT MAX(…) …); send "
            "the inner query by itself"
        )
    elif any(
        isinstance(expr, Sub) or (isinstance(expr, In) and expr.query) for expr in expressions_of(statement)
    ):
        what = (
            "a subquery whose rows may be on other shards than those of the table around it; compare the "
            "primary vindex columns of both, or send the inner query by itself"
        )
    else:
        what = (
            "tables on several shards that are not joined by their primary vindex columns; compare the "
            "vindex columns"
        )
    return _with_way_out(unsupported(what), keyspace)


def _with_way_out(error: RefusedError, keyspace: KeyspaceRoute) -> RefusedError:
    """The refusal of what is not done over several shards, and that one shard would do it."""
    refused = error.plan
    shard = f"{keyspace.name}/{keyspace.shards[0].name}"
    way = f"{refused.message}; or aim at one shard with USE `{shard}`"
    return RefusedError(refused.errno, refused.sqlstate, way)


def _scattered(
    statement: Statement,
    blocks: Blocks,
    whereabouts: Whereabouts,
    sample: Sample,
    flavor: Flavor,
    keyspace: KeyspaceRoute,
    apart: RefusedError,
) -> tuple[Scattered | None, RefusedError]:
    """The plan for several shards, and what to say where there is none."""
    if not whereabouts.separable or not isinstance(statement, Select):
        return None, apart
    try:
        return compile_scatter(statement, blocks, sample, flavor), apart
    except RefusedError as error:
        return None, _with_way_out(error, keyspace)


def _write(
    statement: Update | Delete,
    blocks: Blocks,
    whereabouts: Whereabouts,
    sending: Sending,
    sample: Sample,
    apart: RefusedError,
) -> Compiled:
    """UPDATE or DELETE where its rows are."""
    expected = len(sample.spans)
    count = len(sending.destinations)
    reference = bool(blocks.uses) and not blocks.placed

    def template(sql: bytes, view: SessionView) -> Plan:
        values = literals(sql)
        if len(values) != expected:
            raise RefusedError(1064, "42000", "You have an error in your SQL syntax near '?'")
        if reference:
            everywhere = tuple((sending.destinations[n], sending.text(n, sql, values)) for n in range(count))
            return Scatter(everywhere, sending.footprint, same_rows=True)
        shards = whereabouts.decide(values, view.charset, count)
        if shards is None:
            raise apart
        if len(shards) == 1:
            return sending.to_one(shards[0], sql, values)
        if statement.limit is not None:
            raise unsupported("UPDATE and DELETE with LIMIT over several shards")
        statements = tuple((sending.destinations[n], sending.text(n, sql, values)) for n in shards)
        return Scatter(statements, sending.footprint)

    return Compiled(template)


def _own(statement: Update | Delete) -> list[Expr]:
    found = [key.expr for key in statement.order]
    if statement.where is not None:
        found.append(statement.where)
    if isinstance(statement, Update):
        found += [assign.value for assign in statement.assigns]
    return found


def _at(found: Sequence[Found], source: Source) -> Found:
    for one in found:
        if one.ref.start == source.start:
            return one
    raise unsupported("this form of INSERT on a sharded keyspace")


def _check_functions(statement: Statement) -> None:
    """Refuse what depends on the connection, and functions that may read any table."""
    for expr in expressions_of(statement):
        if isinstance(expr, Var) and expr.user:
            raise unsupported("user variables on a sharded keyspace")
        if isinstance(expr, Call):
            names = {expr.name} if expr.name not in _CALLABLE else set[str]()
            names |= expr.inside - _CALLABLE - GRAMMAR
            if names:
                raise unsupported(f"function {min(names).lower()}() on a sharded keyspace")


def _written(sample: Sample, pieces: Sequence[Piece]) -> list[bytes]:
    """Pieces as the sample has them."""
    values = [sample.sql[start:end] for start, end in sample.spans]
    return [fill([piece], values) for piece in pieces]
