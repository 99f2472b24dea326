"""The router: one statement in, one plan out; pure, and cheap for what it has seen before.

A statement is read once for its fingerprint (its text without literals) and makes a *template*, which plans
every later text of that fingerprint. Theory of operation for a statement seen for the first time: its words
are scanned for verb and tables, the tables are found (rules, vschema, servers), and then

* no table, or only system schemas: ``router_info``;
* one unsharded keyspace: handed through untouched, whatever it says;
* a session aimed at one shard: handed through to it;
* one sharded keyspace: parsed wholly and planned exactly, or refused (``router_sharded``);
* several keyspaces: refused.

Invariant: a plan's answer is the one that a single server with all the rows would give, or it is a refusal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

from homeworld.gateway.plan import (
    NeedSequence,
    Pass,
    Plan,
    Prepared,
    Refuse,
    SchemaView,
    SessionView,
    Target,
    Verb,
)
from homeworld.gateway.router_bulk import SMALLEST, Bulk, BulkInsert, BulkPass
from homeworld.gateway.router_compound import check_compound
from homeworld.gateway.router_context import Compiled, Context, Template, apply, passing_edited
from homeworld.gateway.router_ddl import on_shards
from homeworld.gateway.router_errors import NeedsError, RefusedError, unsupported
from homeworld.gateway.router_info import (
    LAST_ID,
    call_edits,
    last_id_of,
    nothing,
    of_no_table,
    of_session,
    of_system,
)
from homeworld.gateway.router_names import Aim, Found, Names
from homeworld.gateway.router_programs import check_programs
from homeworld.gateway.router_sequences import next_values
from homeworld.gateway.router_session import check_hints, control
from homeworld.gateway.router_sharded import Sharded
from homeworld.gateway.router_show import describe, explain, explain_prefix, show
from homeworld.gateway.router_vschema import alter_vschema
from homeworld.gateway.sql_split import split_statements
from homeworld.gateway.sql_tables import Scan, scan
from homeworld.gateway.sql_tokens import Fingerprint, Kind, fingerprint, tokenize
from homeworld.gateway.tracker import STALE_ERRNOS
from homeworld.model.errors import HomeworldError
from homeworld.model.routing import BranchRoutes
from homeworld.model.topology import TabletType

_K = TypeVar("_K")
_V = TypeVar("_V")

_MOST_TEMPLATES = 5_000
LARGE = 16_384
"""Texts of so many bytes are not kept, but for the newest."""
_SHAPED = 1 << 20
_DIGITS = b"0123456789"
_BEFORE_NUMBER = (b" ", b"=", b"<", b">", b"(", b",")
CONTROL = frozenset({Verb.BEGIN, Verb.COMMIT, Verb.ROLLBACK, Verb.SAVEPOINT, Verb.SET, Verb.USE})
# Statements that run hidden text, change the server or its accounts, or begin a compound statement.
_NOT_OFFERED = frozenset(
    {
        b"BACKUP", b"BINLOG", b"CACHE", b"CASE", b"CHANGE", b"CLONE", b"DEALLOCATE", b"DECLARE", b"EXECUTE",
        b"FLUSH", b"FOR", b"GET", b"GRANT", b"IF", b"IMPORT", b"INSTALL", b"KILL", b"LOOP", b"PREPARE",
        b"PURGE", b"REPEAT", b"RESET", b"RESIGNAL", b"RESTART", b"REVOKE", b"SHUTDOWN", b"SIGNAL", b"START",
        b"STOP", b"UNINSTALL", b"VEXPLAIN", b"VTEXPLAIN", b"WHILE", b"XA",
    }
)  # fmt: skip
IDENTITY = frozenset(
    f"@@{scope}{name}".encode()
    for scope in ("", "session.", "local.")
    for name in ("identity", "last_insert_id")
)
_FILES = frozenset({(b"INTO", b"OUTFILE"), (b"INTO", b"DUMPFILE")})
_FILES_OF_TABLES = _FILES | {(b"DATA", b"DIRECTORY"), (b"INDEX", b"DIRECTORY")}
_OF_SERVER = frozenset(
    {b"DATABASE", b"SCHEMA", b"USER", b"ROLE", b"SERVER", b"TABLESPACE", b"LOGFILE", b"INSTANCE"}
)


class Router:
    """The router of one branch at one version of its routes: a
    :class:`~homeworld.gateway.plan.RouterPort`.

    :param schema: what is known of the tables on the servers.
    :param names: its names, where they are read in another way.
    :raises InvalidError: a keyspace's vschema cannot be routed by.
    """

    def __init__(self, routes: BranchRoutes, schema: SchemaView, names: Names | None = None) -> None:
        self._names = Names(routes, schema) if names is None else names
        self._schema = schema
        self._seen_version = schema.version
        self._caches: dict[tuple[Target, bool], dict[Fingerprint, Template]] = {}
        self._texts: dict[tuple[Target, bool], dict[bytes, Template]] = {}
        self._last_view: SessionView | None = None
        self._cache: dict[Fingerprint, Template] = {}
        self._text_cache: dict[bytes, Template] = {}
        self._heads_of: dict[tuple[Target, bool], dict[bytes, Template]] = {}
        self._heads: dict[bytes, Template] = {}
        self._bulks: dict[tuple[Target, bool], Bulk] = {}
        self._large: tuple[tuple[Target, bool, bytes], Template] | None = None
        self._large_shape: tuple[tuple[tuple[Target, bool], Fingerprint], Template] | None = None
        self._prepared: dict[bytes, tuple[bytes, ...]] = {}
        self._large_prepared = b""
        self._sharded = Sharded(self._names)

    # --- the port

    def plan(self, sql: bytes, view: SessionView) -> Plan:
        """Plan one statement."""
        if self._schema.version != self._seen_version:
            self._forget()
        try:
            # Most statements come from the view that the last one came from, or one that hardly differs.
            if view is not self._last_view:
                self._aim_at(view)
            if len(sql) >= SMALLEST:
                bulk = self._in_bulk(sql, view)
                if bulk is not None:
                    return bulk
                large, self._large = self._large, None
                if large is not None and large[0] == (view.target, view.replica_only, sql):
                    return large[1](sql, view)
            if len(sql) >= LARGE:
                return self._plan_large(sql, view)
            # Many statements end in a number; what stands before it tells as much as the fingerprint does.
            head = sql.rstrip(_DIGITS)
            template = self._heads.get(head)
            if template is not None and len(head) < len(sql):
                return template(sql, view)
            template = self._cache.get(shape := fingerprint(sql)) or self._text_cache.get(sql)
            if template is None:
                compiled = self.compile(sql, view)
                template = compiled.template
                if compiled.shape:
                    remember(self._cache, shape, template)
                    if len(head) < len(sql) and head[-1:] in _BEFORE_NUMBER:
                        remember(self._heads, head, template)
                else:
                    remember(self._text_cache, sql, template)
            return template(sql, view)
        except (HomeworldError, RecursionError, ValueError) as error:
            return _plan_of(error)

    def _plan_large(self, sql: bytes, view: SessionView) -> Plan:
        """Of large texts and their shapes only the newest is kept: they are of many megabytes, and where one
        comes again and again its shape is the same.
        """
        aim = (view.target, view.replica_only)
        # What texts have in common is found in one go, in which no other thread gets on.
        shape = fingerprint(sql) if len(sql) < _SHAPED else None
        if shape is not None and self._large_shape is not None and self._large_shape[0] == (aim, shape):
            return self._large_shape[1](sql, view)
        compiled = self.compile(sql, view)
        if compiled.shape:
            self._large_shape = None if shape is None else ((aim, shape), compiled.template)
            return compiled.template(sql, view)
        # It is planned once more at most, with the ids that it asks for.
        self._large = ((*aim, sql), compiled.template)
        planned = compiled.template(sql, view)
        self._large = None
        return planned

    def split(self, sql: bytes) -> tuple[bytes, ...]:
        """The statements of a text."""
        return split_statements(sql)

    def plan_prepared(self, sql: bytes, view: SessionView) -> Prepared:
        """Plan COM_STMT_PREPARE."""
        try:
            compiled = self.compile(sql, view, prepared=True)
            if not compiled.fixed:
                self._parts_of(sql)
            plan = compiled.prepare or compiled.template(sql, view)
        except (HomeworldError, RecursionError, ValueError) as error:
            return Prepared(_plan_of(error), fixed=False)
        return Prepared(plan, fixed=compiled.fixed)

    def plan_params(self, sql: bytes, params: Sequence[bytes], view: SessionView) -> Plan:
        """Plan one execution of a prepared statement."""
        try:
            parts = self._parts_of(sql)
        except (HomeworldError, RecursionError, ValueError) as error:
            return _plan_of(error)
        if len(parts) != len(params) + 1:
            return Refuse(1210, "HY000", "Incorrect arguments to EXECUTE")
        pieces = [parts[0]]
        for param, part in zip(params, parts[1:], strict=True):
            # Spaces keep a literal from growing together with what stands beside it.
            pieces += (b" ", param, b" ", part)
        text = b"".join(pieces)
        plan = self.plan(text, view)
        if isinstance(plan, Pass) and plan.sql == text:
            return Pass(plan.destination, sql, plan.footprint)
        return plan

    # --- what is behind it

    def _in_bulk(self, sql: bytes, view: SessionView) -> Plan | None:
        """The plan of an INSERT of many plain rows; None: it is something else."""

        def compile_(sample: bytes) -> BulkInsert | BulkPass | None:
            return self.compile(sample, view).of_many(sample, view)

        aim = (view.target, view.replica_only)
        found = self._bulks.get(aim)
        if found is None:
            found = self._bulks[aim] = Bulk()
        return found.plan(sql, view, compile_)

    def _aim_at(self, view: SessionView) -> None:
        """Use the caches for the view's target."""
        aim = (view.target, view.replica_only)
        self._cache = self._caches.setdefault(aim, {})
        self._text_cache = self._texts.setdefault(aim, {})
        self._heads = self._heads_of.setdefault(aim, {})
        self._last_view = view

    def _forget(self) -> None:
        self._seen_version = self._schema.version
        for cache in self._caches.values():
            cache.clear()
        for texts in (*self._texts.values(), *self._heads_of.values()):
            texts.clear()
        for bulk in self._bulks.values():
            bulk.forget()
        self._large = self._large_shape = None

    def _context(self, sql: bytes, view: SessionView) -> Context:
        tablet_type = view.target.tablet_type
        if view.replica_only and tablet_type is TabletType.PRIMARY:
            tablet_type = TabletType.REPLICA
        return Context(
            self._names, Aim(view.target, tablet_type, known=self._names.destinations), sql, scan(sql), view
        )

    def _parts_of(self, sql: bytes) -> tuple[bytes, ...]:
        """The text between the ``?`` of a prepared statement."""
        known = self._prepared.get(sql)
        if known is not None:
            return known
        parts: list[bytes] = []
        at = 0
        for token in tokenize(sql):
            if token.kind is Kind.PARAM:
                parts.append(sql[at : token.start])
                at = token.end
        parts.append(sql[at:])
        found = tuple(parts)
        if len(sql) >= LARGE:  # of these only the newest: they may be of many megabytes
            self._prepared.pop(self._large_prepared, None)
            self._large_prepared = sql
        remember(self._prepared, sql, found)
        return found

    def compile(self, sql: bytes, view: SessionView, *, prepared: bool = False) -> Compiled:
        """Make the template of a text.

        :param prepared: ``?`` stand for values that come later.
        :raises RefusedError: refused.
        :raises NeedsError: something must be known first.
        """
        said_nothing = nothing(sql)
        if said_nothing is not None:
            return said_nothing
        context = self._context(sql, view)
        found = context.scan
        if found.doubtful:
            raise unsupported("executable comments for some servers only that change what the statement is")
        if b"/*+" in sql:
            check_hints(token for token in tokenize(sql) if token.kind in {Kind.HINT, Kind.CODE})
        check_programs(self._names, view.target, found)
        first = found.word(0)
        if first == b"ALTER" and found.word(1) == b"VSCHEMA":
            altered = alter_vschema(self._names, found, view.target)
            return Compiled(lambda _sql, _view: altered, shape=False)
        several = self._names.only is None
        # On any other connection it is another number, and a SET is repeated on all.
        sets_id = found.verb is Verb.SET and b"LAST_INSERT_ID" in found.calls
        if sets_id and (several or call_edits(context, LAST_ID)):
            return self._with_last_id(context)
        if several and any(token.text.lower() in IDENTITY for token in found.words):
            known = of_session(context)
            if known is None:
                raise unsupported("@@identity on a branch with several keyspaces; use LAST_INSERT_ID()")
            return known
        if found.verb in CONTROL:
            acted = control(self._names, sql, found)
            return Compiled(lambda _sql, _view: acted, shape=False)
        if first == b"SHOW":
            return show(context)
        if first in {b"EXPLAIN", b"DESC", b"DESCRIBE"}:
            start = explain_prefix(context)
            return describe(context) if start < 0 else explain(context, self._explained(sql[start:], view))
        check_offered(context)
        sequence = next_values(context)
        if sequence is not None:
            return sequence
        if b"LAST_INSERT_ID" in found.calls and self._names.only is None:
            session = of_session(context)
            return session or self._with_last_id(context)
        return self._by_tables(context, prepared=prepared)

    def _explained(self, sql: bytes, view: SessionView) -> Plan:
        """The plan of a statement that is only explained, so that it takes no ids from a sequence."""
        plan = self.plan(sql, view)
        if isinstance(plan, NeedSequence):
            return self.plan(sql, replace(view, sequence_ids=tuple(range(1, plan.count + 1))))
        return plan

    def _with_last_id(self, context: Context) -> Compiled:
        """The id that the session knows stands in for the function: another server never made it."""
        places = call_edits(context, LAST_ID)
        if not places:
            raise unsupported("LAST_INSERT_ID(expression) on a branch with several keyspaces")

        def template(_sql: bytes, view: SessionView) -> Plan:
            number = last_id_of(view)
            edits = [(start, end, number + title) for start, end, title in places]
            return self.plan(apply(context.sql, edits), view)

        return Compiled(template, shape=False)

    def _by_tables(self, context: Context, *, prepared: bool) -> Compiled:
        names, aim, verb = self._names, context.aim, context.scan.verb
        found = [names.find(ref, aim, creates=verb is Verb.DDL) for ref in context.scan.tables]
        keyspaces = {one.keyspace for one in found if not one.system}
        target = aim.target
        if target.shard:
            return self._to_shard(context, found, keyspaces)
        if not keyspaces:
            if found:
                return of_system(context, found)
            return self._without_tables(context)
        if len(keyspaces) > 1:
            raise unsupported(f"one statement on several keyspaces ({', '.join(sorted(keyspaces))})")
        keyspace = names.keyspace(keyspaces.pop())
        if keyspace.sharded:
            try:
                return self._sharded.compile(context, keyspace, found, prepared=prepared)
            except RefusedError as error:
                if error.plan.errno in STALE_ERRNOS:
                    elsewhere = (name for one in found for name in one.elsewhere)
                    error.plan = replace(error.plan, keyspaces=frozenset({keyspace.name, *elsewhere}))
                raise
        destination, shard = context.first(keyspace)
        edits = names.physical(found, shard.schema, context.scan.words)
        return passing_edited(context, destination, context.footprint(found, keyspace.name), edits)

    def _without_tables(self, context: Context) -> Compiled:
        verb = context.scan.verb
        if verb in {Verb.CALL, Verb.DDL, Verb.LOCK, Verb.OTHER, Verb.LOAD}:
            keyspace = self._names.default(context.aim.target)
            if keyspace.sharded:
                what = context.scan.word(0).decode("utf-8", "replace")
                if context.scan.program:
                    raise on_shards(context.scan, keyspace)
                raise unsupported(f"{what} on a sharded keyspace")
        return of_no_table(context)

    def _to_shard(self, context: Context, found: Sequence[Found], keyspaces: set[str]) -> Compiled:
        """A session aimed at one shard: everything goes there."""
        target = context.aim.target
        if keyspaces - {target.keyspace}:
            other = ", ".join(sorted(keyspaces - {target.keyspace}))
            raise unsupported(f"tables of {other} while the session is aimed at one shard")
        session = of_session(context) if not found else None
        if session is not None:
            return session
        destination, shard = context.first(self._names.keyspace(target.keyspace))
        edits = self._names.physical(found, shard.schema, context.scan.words)
        return passing_edited(context, destination, context.footprint(found, target.keyspace), edits)


def _plan_of(error: HomeworldError | RecursionError | ValueError) -> Plan:
    """What to answer where planning has ended with an error.

    A client can write texts that are too deep for a parser that calls itself, and numbers or names that
    cannot be converted (of more digits than Python reads, of bytes that are no UTF-8).
    """
    if isinstance(error, RefusedError | NeedsError):
        return error.plan
    if isinstance(error, HomeworldError):
        return Refuse(error.mysql_errno, error.sqlstate, error.message)
    if isinstance(error, RecursionError):
        return unsupported("expressions or queries nested this deeply").plan
    return unsupported("a number or name in the statement that cannot be read").plan


def _reaches_files(found: Scan) -> bool:
    reaching = _FILES_OF_TABLES if found.verb is Verb.DDL else _FILES
    return any(
        (one.upper, other.upper) in reaching and Kind.QUOTED not in {one.kind, other.kind}
        for one, other in pairwise(found.words)
    )


def check_offered(context: Context) -> None:
    """Refuse statements that reach around the router or past the branch.

    :raises RefusedError: they do.
    """
    found = context.scan
    first, second = found.word(0), found.word(1)
    if found.program == b"BEGIN":
        check_compound(found.words, _OF_SERVER)
    if first in _NOT_OFFERED:
        raise unsupported(f"{first.decode()} statements")
    if first == b"LOAD" and b"LOCAL" not in {found.word(2), found.word(3)}:
        raise unsupported("LOAD of a file or index of the server; LOAD DATA LOCAL reads the client's file")
    if _reaches_files(found):
        raise unsupported("INTO OUTFILE, INTO DUMPFILE, DATA DIRECTORY: a server's files are out of reach")
    if found.qualified_functions and context.names.only is None:
        raise unsupported("stored functions of a named keyspace on a branch with several keyspaces")
    if first == b"ANALYZE" and second in {b"SELECT", b"UPDATE", b"DELETE", b"INSERT", b"REPLACE", b"FORMAT"}:
        raise unsupported("ANALYZE of a statement")
    if found.verb is Verb.DDL and first in {b"CREATE", b"DROP", b"ALTER", b"RENAME"}:
        kinds = {second, found.word({b"UNDO": 2, b"OR": 3}.get(second, 1))}
        if kinds & _OF_SERVER:
            raise unsupported(
                f"{first.decode()} {second.decode()}; keyspaces and passwords are made by the API"
            )


def remember(cache: dict[_K, _V], key: _K, value: _V) -> None:
    """Keep at most so many; the oldest go first."""
    if len(cache) >= _MOST_TEMPLATES:
        for old in list(cache)[: _MOST_TEMPLATES // 4]:
            del cache[old]
    cache[key] = value
