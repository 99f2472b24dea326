"""A router for tests of the gateway alone: unsharded keyspaces, tables found by name, nothing rewritten."""

from __future__ import annotations

import re
from collections.abc import Sequence

from homeworld.gateway.plan import (
    Control,
    Destination,
    Footprint,
    Pass,
    Plan,
    Prepared,
    Refuse,
    SessionView,
    Target,
    Verb,
)
from homeworld.gateway.tracker import SchemaTracker
from homeworld.model.routing import BranchRoutes
from homeworld.model.topology import TabletType

_WORD = re.compile(rb"^\s*(\w+)")
_TABLES = re.compile(
    rb"\b(?:from|into|update|join|table(?:\s+if\s+(?:not\s+)?exists)?|tables)\s+`?(\w+)`?(?:\.`?(\w+)`?)?",
    re.IGNORECASE,
)
_KEEPS = re.compile(rb"(?<!@)@\w|get_lock|found_rows|row_count|temporary|\block\s+tables", re.IGNORECASE)
_PART = re.compile(rb"(?:'[^']*'|[^;'])+")
_VERBS = {
    b"start": Verb.BEGIN,
    b"begin": Verb.BEGIN,
    b"commit": Verb.COMMIT,
    b"rollback": Verb.ROLLBACK,
    b"savepoint": Verb.SAVEPOINT,
    b"release": Verb.SAVEPOINT,
    b"set": Verb.SET,
    b"use": Verb.USE,
    b"select": Verb.SELECT,
    b"show": Verb.SHOW,
    b"insert": Verb.INSERT,
    b"update": Verb.UPDATE,
    b"delete": Verb.DELETE,
    b"replace": Verb.REPLACE,
    b"load": Verb.LOAD,
    b"create": Verb.DDL,
    b"drop": Verb.DDL,
    b"alter": Verb.DDL,
    b"truncate": Verb.DDL,
    b"lock": Verb.LOCK,
    b"unlock": Verb.LOCK,
    b"call": Verb.CALL,
}
_CONTROL = {Verb.BEGIN, Verb.COMMIT, Verb.ROLLBACK, Verb.SAVEPOINT, Verb.SET, Verb.USE}


class PlainRouter:
    """Rules ``t`` to ``ks.t`` decide; then the target; then the default keyspace."""

    def __init__(self, routes: BranchRoutes, tracker: SchemaTracker) -> None:
        self.routes = routes
        self.tracker = tracker
        self._destinations: dict[tuple[str, TabletType], Destination] = {}
        self._plans: dict[tuple[bytes, Target], Plan] = {}

    def plan(self, sql: bytes, view: SessionView) -> Plan:
        key = (sql, view.target)
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) > 20_000:
                self._plans.clear()
            plan = self._plans[key] = self._plan(sql, view)
        return plan

    def _plan(self, sql: bytes, view: SessionView) -> Plan:
        word = _WORD.match(sql)
        verb = _VERBS.get(word[1].lower() if word else b"", Verb.OTHER)
        if verb is Verb.USE:
            return self._use(sql)
        if verb in _CONTROL:
            return Control(verb, sql)
        tables: set[tuple[str, str]] = set()
        keyspace = view.target.keyspace or self.routes.default_keyspace
        for first, second in _TABLES.findall(sql):
            named = f"{first.decode()}.{second.decode()}" if second else first.decode()
            physical = self.routes.rules.get(named)
            if physical is None:
                physical = named if second else f"{keyspace}.{named}"
            at, _, table = physical.partition(".")
            tables.add((at, table))
        keyspaces = {at for at, _ in tables if at in self.routes.keyspaces}
        if len(keyspaces) == 1:
            keyspace = keyspaces.pop()
        place = (keyspace, view.target.tablet_type)
        destination = self._destinations.setdefault(place, Destination(keyspace, "", place[1]))
        locking = b"for update" in sql.lower()
        return Pass(destination, sql, Footprint(verb, frozenset(tables), locking, bool(_KEEPS.search(sql))))

    def _use(self, sql: bytes) -> Plan:
        name = sql.split(None, 1)[1].strip(b"` ;").decode()
        bare, _, kind = name.partition("@")
        if bare and bare not in {*self.routes.keyspaces, self.routes.database}:
            return Refuse(1049, "42000", f"Unknown database '{name}'")
        keyspace = bare if bare in self.routes.keyspaces else ""
        target = Target(keyspace, "", TabletType(kind) if kind else TabletType.PRIMARY)
        return Control(Verb.USE, sql, target)

    def split(self, sql: bytes) -> tuple[bytes, ...]:
        return tuple(part.strip() for part in _PART.findall(sql) if part.strip())

    def plan_prepared(self, sql: bytes, view: SessionView) -> Prepared:
        return Prepared(self.plan(sql, view), fixed=True)

    def plan_params(self, sql: bytes, params: Sequence[bytes], view: SessionView) -> Plan:
        for value in params:
            sql = sql.replace(b"?", value, 1)
        return self.plan(sql, view)
