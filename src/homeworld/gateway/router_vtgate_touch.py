"""What a statement that vtgate will plan touches: for holds, which have to see all of it.

Vitess decides where a name leads; this only has to name every table that it may lead to. Knows no grammar
and no server. The invariant: a table that vtgate reads or writes for a statement is among those named here,
unless a stored program does it unseen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from homeworld.gateway.plan import SchemaView, Verb
from homeworld.gateway.router_context import Context
from homeworld.gateway.router_errors import RefusedError, unknown_database
from homeworld.gateway.router_names import Aim, Names
from homeworld.gateway.router_target import SYSTEM_SCHEMAS
from homeworld.gateway.sql_tables import TableRef
from homeworld.model.errors import InvalidError
from homeworld.model.routing import BranchRoutes
from homeworld.model.routing_rules import look_up
from homeworld.model.vschema import VSchema, parse

Physical = tuple[str, str]
"""Keyspace and table."""
_CHANGES = frozenset({Verb.INSERT, Verb.REPLACE, Verb.UPDATE, Verb.DELETE})


def read_leniently(vschema: Mapping[str, object]) -> VSchema:
    """A vschema as far as it is of the form that this gateway plans by; what Vitess has beyond that counts as
    nothing here.
    """
    try:
        return parse(vschema)
    except InvalidError:
        return VSchema(sharded=vschema.get("sharded") is True)


def is_read(routes: BranchRoutes, keyspace: str) -> bool:
    """Whether :func:`read_leniently` read all of a keyspace's vschema."""
    try:
        parse(routes.keyspaces[keyspace].vschema)
    except InvalidError:
        return False
    return True


def _object(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


class Touches:
    """The tables of one branch at one version of its routes, as vtgate may find them."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._routes: BranchRoutes = names.routes
        self._schema: SchemaView = names.schema
        self._tables: dict[str, Mapping[str, object]] = {}
        self._explicit: set[str] = set()
        self._cascading: set[str] = set()
        self._beside: dict[Physical, set[Physical]] = {}
        for name, route in self._routes.keyspaces.items():
            vschema = route.vschema
            self._tables[name] = _object(vschema.get("tables"))
            if vschema.get("require_explicit_routing") or vschema.get("requireExplicitRouting"):
                self._explicit.add(name)
            mode = _text(vschema.get("foreign_key_mode") or vschema.get("foreignKeyMode"))
            if mode.lower().removeprefix("fk_") == "managed":
                self._cascading.add(name)
        for name in self._tables:
            self._read_beside(name)

    def _read_beside(self, keyspace: str) -> None:
        """What vtgate touches together with a table: tables of lookup vindexes, sequences, the other copies
        of a reference table.
        """
        vindexes = _object(self._routes.keyspaces[keyspace].vschema.get("vindexes"))
        for table, told in self._tables[keyspace].items():
            entry = _object(told)
            here = (keyspace, table)
            source = _text(entry.get("source"))
            if source:
                there = self._qualified(source, keyspace)
                self._tie(here, there)
                for other in there:
                    self._tie(other, (here,))
            increment = _object(entry.get("auto_increment") or entry.get("autoIncrement"))
            self._tie(here, self._qualified(_text(increment.get("sequence")), keyspace))
            bound = entry.get("column_vindexes") or entry.get("columnVindexes")
            for one in cast("list[object]", bound) if isinstance(bound, list) else []:
                vindex = _object(vindexes.get(_text(_object(one).get("name"))))
                lookup = _text(_object(vindex.get("params")).get("table"))
                self._tie(here, self._qualified(lookup, keyspace))

    def _tie(self, one: Physical, others: Iterable[Physical]) -> None:
        for other in others:
            self._beside.setdefault(one, set()).add(other)

    def _qualified(self, name: str, keyspace: str) -> frozenset[Physical]:
        """What a name in the vschema of a keyspace may mean."""
        if not name:
            return frozenset()
        schema, dot, table = name.rpartition(".")
        if dot:
            return frozenset({(schema.strip("`"), table.strip("`"))})
        return self._global(name) | {(keyspace, name)}

    def may_mean(self, ref: TableRef, aim: Aim) -> frozenset[Physical]:
        """The tables that a reference may lead to; none where it is a system schema's.

        :raises RefusedError: it is qualified by what is no keyspace: also by a target, which would lead past
            the session's own. Or it is aimed past the rules of a move.
        """
        schema = ref.schema or aim.target.keyspace
        if schema.lower() in SYSTEM_SCHEMAS and schema not in self._routes.keyspaces:
            return frozenset()
        if schema == self._routes.database and schema not in self._routes.keyspaces:
            schema = ""
        if schema and schema not in self._routes.keyspaces:
            raise unknown_database(schema)
        ruled = look_up(self._routes.rules, schema, ref.name, aim.tablet_type)
        if ruled is not None:
            self._check_aimed(aim, (schema, ref.name), ruled)
            return frozenset({ruled})
        return frozenset({(schema, ref.name)}) if schema else self._global(ref.name)

    def _check_aimed(self, aim: Aim, named: Physical, ruled: Physical) -> None:
        """Refuse what is aimed at one shard on a table that moves and is served elsewhere: to a shard vtgate
        sends it past all rules, and what it finds there is a copy, or what a copy was made of.

        :raises RefusedError: it is that.
        """
        moving = self._routes.moving
        if aim.target.shard and moving is not None and named in moving.tables and ruled[0] != named[0]:
            keyspace, table = named
            raise RefusedError(
                1105,
                "HY000",
                f"table {table} moves, and is served from keyspace {ruled[0]} now; aim at that, and not at "
                f"shard {keyspace}/{aim.target.shard}",
            )

    def _global(self, table: str) -> frozenset[Physical]:
        """Where a table may be that is named without a keyspace, and without a rule."""
        keyspaces = self._routes.keyspaces
        if len(keyspaces) == 1:
            return frozenset((name, table) for name in keyspaces)
        found = {
            name for name, tables in self._tables.items() if table in tables and name not in self._explicit
        }
        unknown = set[str]()
        for name in keyspaces:
            known = self._schema.tables(name)
            if known is None:
                unknown.add(name)
            elif table in known:
                found.add(name)
        if not found:
            found = unknown | {self._routes.default_keyspace}
        return frozenset((name, table) for name in found if name)

    def footprint(self, context: Context, meant: Iterable[Physical], keyspace: str) -> frozenset[Physical]:
        """All that a statement touches which names these tables.

        :param keyspace: where it goes that names none.
        :raises NeedsError: a keyspace's tables must be known first.
        """
        tables = set(meant)
        scan = context.scan
        for one in tuple(tables):
            tables |= self._beside.get(one, set())
        for where, table in tuple(tables):
            tables.update((where, name) for name in self._schema.beneath(where, table) or ())
        every: set[str] = set()
        if scan.unknown_functions:  # a stored function may read anything of where it runs
            every |= {where for where, _ in tables} or {keyspace}
        if scan.verb in _CHANGES:  # vtgate carries foreign keys' actions out by itself
            every |= {where for where, _ in tables} & self._cascading
        for where in every & self._routes.keyspaces.keys():
            tables |= self._names.all_tables(where)
        return frozenset(tables)
