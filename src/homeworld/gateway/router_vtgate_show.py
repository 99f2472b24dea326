"""``SHOW`` on a branch that vtgate plans: from the store what the store knows, else vtgate's own answer.

Tablets connect to their servers by an account that may see more than a password. The invariant: what is
handed through shows tables, or settings of servers, and nothing of accounts, of other clients, or of how
servers follow each other.
"""

from __future__ import annotations

from homeworld.gateway.plan import Footprint, Pass, Verb
from homeworld.gateway.router_context import Compiled, Context, apply
from homeworld.gateway.router_errors import RefusedError, unsupported
from homeworld.gateway.router_names import Edit, identifier
from homeworld.gateway.router_show import answered_here, table_at
from homeworld.gateway.router_target import SYSTEM_SCHEMAS
from homeworld.gateway.router_vtgate_touch import Physical, Touches, is_read
from homeworld.gateway.sql_statement import is_qualified
from homeworld.gateway.sql_tables import TableRef
from homeworld.gateway.sql_tokens import Kind

_QUALIFIERS = frozenset({b"FULL", b"EXTENDED", b"GLOBAL", b"SESSION", b"ALL"})
_FROM = frozenset({b"FROM", b"IN"})
_OF_TABLE = frozenset({b"COLUMNS", b"FIELDS", b"INDEX", b"INDEXES", b"KEYS"})
_OF_SCHEMA = frozenset({b"TABLES", b"TRIGGERS"})
_OF_SERVER = frozenset(
    {
        b"CHARACTER", b"CHARSET", b"COLLATION", b"COUNT", b"ENGINES", b"ERRORS", b"PLUGINS", b"STATUS",
        b"STORAGE", b"VARIABLES", b"WARNINGS",
    }
)  # fmt: skip
_PROGRAMS = frozenset({b"FUNCTION", b"PROCEDURE"})


def show(context: Context, touches: Touches, keyspace: str) -> Compiled:
    """Plan a SHOW.

    :param keyspace: where it goes that names none.
    :raises RefusedError: not offered.
    """
    words = context.scan.words
    for at, token in enumerate(words):
        query = token.upper == b"SELECT" or (token.upper == b"TABLE" and words[at - 1].text == b"(")
        if token.kind is Kind.WORD and query and not is_qualified(words, at):
            raise unsupported("queries in SHOW, as nobody would look for their tables")
    at = 1
    while at < len(words) and words[at].upper in _QUALIFIERS:
        at += 1
    what, following = context.scan.word(at), context.scan.word(at + 1)
    routes = context.names.routes
    if what != b"VSCHEMA" or all(is_read(routes, name) for name in routes.keyspaces):
        own = answered_here(context, what, at)
        if own is not None:
            return Compiled(lambda _sql, _view: own, shape=False)
    edits = _named_by_database(context, keyspace, at + (3 if what in _OF_TABLE else 1))
    if what in _OF_TABLE:
        return _passed(context, _of_table(context, touches, at + 1), keyspace, edits)
    if what == b"CREATE" and following in {b"TABLE", b"VIEW"}:
        at += 2
        at += 3 if context.scan.word(at) == b"IF" else 0
        ref, _ = table_at(words, at)
        return _passed(context, _meant(context, touches, ref), keyspace, edits)
    of_schema = what == b"VSCHEMA" or what in _OF_SCHEMA or (what, following) == (b"TABLE", b"STATUS")
    of_programs = what in _PROGRAMS and following == b"STATUS"
    if not (of_schema or of_programs or what in _OF_SERVER):
        raise unsupported(f"SHOW {what.decode('utf-8', 'replace')} on Vitess")
    return _passed(context, frozenset(), keyspace, edits)


def _passed(context: Context, tables: frozenset[Physical], keyspace: str, edits: list[Edit]) -> Compiled:
    aim = context.aim
    aimed = bool(aim.target.keyspace) and aim.target.keyspace not in SYSTEM_SCHEMAS
    among = {where for where, _ in tables}
    if aimed:
        destination = aim.at(aim.target.keyspace, aim.target.shard)
    else:
        destination = aim.at(among.pop() if len(among) == 1 else keyspace, "")
    footprint = Footprint(Verb.SHOW, tables, queries=context.queries)
    plan = Pass(destination, apply(context.sql, edits), footprint)
    return Compiled(lambda _sql, _view: plan, shape=False, fixed=True)


def _of_table(context: Context, touches: Touches, at: int) -> frozenset[Physical]:
    """COLUMNS FROM t [FROM keyspace]: the second name, where there is one, qualifies the first."""
    words = context.scan.words
    if context.scan.word(at) not in _FROM:
        raise unsupported("this SHOW statement")
    ref, at = table_at(words, at + 1)
    if context.scan.word(at) in _FROM and at + 1 < len(words):
        ref = TableRef(words[at + 1].name(), ref.name, ref.start, ref.name_start, ref.end)
    return _meant(context, touches, ref)


def _meant(context: Context, touches: Touches, ref: TableRef) -> frozenset[Physical]:
    """What a table's name may mean.

    :raises RefusedError: a table of a system schema that passwords may not see.
    """
    schema = (ref.schema or context.aim.target.keyspace).lower()
    if schema in SYSTEM_SCHEMAS and schema != "information_schema":
        raise RefusedError(
            1142, "42000", f"SELECT command denied for table '{schema}.{ref.name}' (ACL check error)"
        )
    return touches.may_mean(ref, context.aim)


def _named_by_database(context: Context, keyspace: str, first: int) -> list[Edit]:
    """The database's own name, where it stands for a keyspace's.

    :param first: the word from which on FROM names a schema and no table.
    """
    routes = context.names.routes
    words = context.scan.words
    if routes.database in routes.keyspaces:
        return []
    edits: list[Edit] = []
    for at, token in enumerate(words):
        if token.kind not in (Kind.WORD, Kind.QUOTED) or token.name() != routes.database:
            continue
        dotted = at + 1 < len(words) and words[at + 1].text == b"."
        if dotted and at + 2 < len(words):
            edits.append((token.start, words[at + 2].start, b""))
        elif words[at - 1].upper in _FROM and at > first:
            edits.append((token.start, token.end, identifier(keyspace)))
    return edits
