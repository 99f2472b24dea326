"""The router of a branch that vtgate plans: what a statement touches, and the text as it is.

Theory of operation. Of a statement its words are scanned for verb and tables, as of any that another parses;
then it is

* transaction control, ``USE`` or ``SET``: ``router_vtgate_session``;
* of what the routes tell (SHOW VITESS_*, ALTER VSCHEMA): as on every branch, from the store;
* anything else that clients may send: a Pass to the branch's vtgate, aimed where the session is.

What it names counts with all that it may lead to (``router_vtgate_touch``): vtgate chooses the shards, holds
only have to see no less than it does. Edited is only what vtgate cannot know: the ids that other connections
have made, and the database's own name.

Invariants: both read a text alike, or it is refused; what vtgate takes and does not do is refused; a password
for replicas reaches no primary that has replicas, and writes nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from homeworld.gateway.plan import (
    AlterVschema,
    Destination,
    Done,
    Footprint,
    Pass,
    Plan,
    Prepared,
    SchemaView,
    SessionView,
    Verb,
)
from homeworld.gateway.router import CONTROL, IDENTITY, LARGE, Router, check_offered
from homeworld.gateway.router_context import Compiled, Context, apply, passing, passing_edited
from homeworld.gateway.router_errors import RefusedError, unsupported
from homeworld.gateway.router_info import LAST_ID, call_edits, nothing, of_session
from homeworld.gateway.router_names import Aim, Edit, Names, identifier
from homeworld.gateway.router_show import explain_prefix
from homeworld.gateway.router_target import SYSTEM_SCHEMAS, target_text
from homeworld.gateway.router_vschema import alter_vschema
from homeworld.gateway.router_vtgate_checks import check_read_alike, check_system, read_alike
from homeworld.gateway.router_vtgate_session import vtgate_control
from homeworld.gateway.router_vtgate_show import show
from homeworld.gateway.router_vtgate_touch import Physical, Touches, is_read, read_leniently
from homeworld.gateway.sql_tables import Scan, scan
from homeworld.gateway.sql_tokens import quote_string
from homeworld.gateway.vtgate import served_type, target_name
from homeworld.model.routing import BranchRoutes
from homeworld.model.topology import TabletType

_OFFERED = frozenset(
    {
        b"ALTER", b"ANALYZE", b"CALL", b"CREATE", b"DELETE", b"DESC", b"DESCRIBE", b"DROP", b"EXPLAIN",
        b"INSERT", b"OPTIMIZE", b"RENAME", b"REPAIR", b"REPLACE", b"SELECT", b"SHOW", b"TABLE", b"TRUNCATE",
        b"UNLOCK", b"UPDATE", b"VALUES", b"VEXPLAIN", b"WITH",
    }
)  # fmt: skip
_ON_ANY_SHARD = frozenset({b"OPTIMIZE", b"REPAIR"})
_SCHEMA = frozenset({b"DATABASE", b"SCHEMA"})
_READ_ONLY = "VT09031: replicas are read-only; use the @primary target to write"


class VtgateRouter(Router):
    """The router of a branch whose statements vtgate plans: a
    :class:`~homeworld.gateway.plan.RouterPort`.

    :param schema: what is known of the tables on the servers.
    """

    def __init__(self, routes: BranchRoutes, schema: SchemaView) -> None:
        names = Names(routes, schema, read_leniently)
        super().__init__(routes, schema, names)
        self._routes = routes
        self._touches = Touches(names)

    # --- the port

    def plan(self, sql: bytes, view: SessionView) -> Plan:
        """Plan one statement."""
        return read_alike(super().plan(sql, view), view)

    def plan_prepared(self, sql: bytes, view: SessionView) -> Prepared:
        """Plan COM_STMT_PREPARE."""
        prepared = super().plan_prepared(sql, view)
        plan = read_alike(prepared.plan, view)
        return Prepared(plan, fixed=prepared.fixed and isinstance(plan, Pass))

    # --- what is behind it

    def _context(self, sql: bytes, view: SessionView) -> Context:
        target = view.target
        asked = TabletType.REPLICA if view.replica_only else target.tablet_type
        served = served_type(self._routes, target.keyspace, asked)
        aim = Aim(target, served, vtgate=True, known=self._names.destinations)
        return Context(self._names, aim, sql, scan(sql), view)

    def compile(self, sql: bytes, view: SessionView, *, prepared: bool = False) -> Compiled:  # noqa: ARG002
        """Make the template of a text.

        :raises RefusedError: refused.
        :raises NeedsError: something must be known first.
        """
        said_nothing = nothing(sql)
        if said_nothing is not None:
            return said_nothing
        context = self._context(sql, view)
        found = context.scan
        check_read_alike(context)
        if found.verb in CONTROL:
            if found.verb is Verb.SET and call_edits(context, LAST_ID):
                return self._with_last_id(context)
            return vtgate_control(self._names, sql, found)
        first = found.word(0)
        if first == b"ALTER" and found.word(1) == b"VSCHEMA":
            altered = alter_vschema(self._names, found, view.target)
            if isinstance(altered, AlterVschema) and not is_read(self._routes, altered.keyspace):
                raise unsupported("ALTER VSCHEMA of a vschema that has more than it can edit; use the API")
            return Compiled(lambda _sql, _view: altered, shape=False)
        if any(token.text.lower() in IDENTITY for token in found.words):
            known = of_session(context)
            if known is None:
                raise unsupported("@@identity within a statement on Vitess; use LAST_INSERT_ID()")
            return known
        if first == b"SHOW":
            return show(context, self._touches, self._keyspace_of(context))
        if first in {b"EXPLAIN", b"DESC", b"DESCRIBE", b"VEXPLAIN"} and explain_prefix(context) >= 0:
            return self._of_explained(context, view)
        if next((word for word in found.words if word.text != b"("), found.words[0]).upper not in _OFFERED:
            raise unsupported(f"{first.decode('utf-8', 'replace')} statements on Vitess")
        if first != b"VEXPLAIN":
            check_offered(context)
        if first == b"UNLOCK":  # LOCK TABLES is not offered
            return Compiled(lambda _sql, _view: Done(), shape=False)
        known = of_session(context)
        if known is not None:
            return known
        if b"LAST_INSERT_ID" in found.calls and call_edits(context, LAST_ID):
            return self._with_last_id(context)
        return self._handed_through(context)

    def _keyspace_of(self, context: Context) -> str:
        """Where what names no table goes."""
        return self._names.default(context.aim.target).name

    def _of_explained(self, context: Context, view: SessionView) -> Compiled:
        """EXPLAIN and VEXPLAIN: where the statement goes. VEXPLAIN may carry it out."""
        start = explain_prefix(context)
        inner = self.plan(context.sql[start:], view)
        if not isinstance(inner, Pass):
            return Compiled(lambda _sql, _view: inner, shape=False)
        verb = inner.footprint.verb if context.scan.word(0) == b"VEXPLAIN" else Verb.SHOW
        footprint = replace(inner.footprint, verb=verb, queries=True)
        made = Pass(inner.destination, context.sql[:start] + inner.sql, footprint)
        return Compiled(lambda _sql, _view: made, shape=False, fixed=True)

    def _handed_through(self, context: Context) -> Compiled:
        found, aim = context.scan, context.aim
        meant: set[Physical] = set()
        system = 0
        for ref in found.tables:
            may_mean = self._touches.may_mean(ref, aim)
            meant |= may_mean
            if not may_mean:
                system += 1
                check_system(ref.schema or aim.target.keyspace, ref.name, found)
        keyspace = self._keyspace_of(context)
        destination = self._destination(context, meant, keyspace, system=system > 0)
        if found.word(0) in _ON_ANY_SHARD:
            self._check_one_server(context, meant, keyspace)
        footprint = self._footprint(context, meant, keyspace)
        if system:
            footprint = replace(footprint, anywhere=True)
        asked = TabletType.REPLICA if context.view.replica_only else aim.target.tablet_type
        if asked is not TabletType.PRIMARY and footprint.writes and not footprint.locking_read:
            raise RefusedError(1290, "HY000", _READ_ONLY)
        edits = self._edits(context, destination)
        if len(context.sql) >= LARGE:
            plan = Pass(destination, apply(context.sql, edits), footprint)
            return Compiled(lambda _sql, _view: plan, shape=False, fixed=True)
        return (
            passing_edited(context, destination, footprint, edits)
            if edits
            else passing(destination, footprint)
        )

    def _footprint(self, context: Context, meant: Iterable[Physical], keyspace: str) -> Footprint:
        found = context.scan
        if found.verb is Verb.CALL:  # what it names as an argument is not what the procedure touches
            return Footprint(Verb.CALL, keeps_state=found.keeps_state, queries=context.queries)
        tables = self._touches.footprint(context, meant, keyspace)
        # It takes ids: the row of the sequence is written.
        verb = Verb.UPDATE if _takes_ids(found) else found.verb
        return Footprint(verb, tables, found.locking_read, found.keeps_state, context.queries)

    def _destination(
        self, context: Context, meant: set[Physical], keyspace: str, *, system: bool
    ) -> Destination:
        """What vtgate has to be aimed at: what the session is, and where it is aimed at nothing, at nothing
        unless the statement needs something.

        :raises NeedsError: a keyspace's tables must be known first.
        """
        aim, found = context.aim, context.scan
        target = aim.target
        if target.keyspace and target.keyspace not in SYSTEM_SCHEMAS:
            return aim.at(target.keyspace, target.shard)
        if system or len(self._routes.keyspaces) == 1:
            return aim.at(keyspace, "")
        opaque = found.verb in {Verb.CALL, Verb.DDL, Verb.LOCK, Verb.OTHER}
        if opaque or found.unknown_functions or _takes_ids(found):
            among = {where for where, _ in meant} or {keyspace}
            if len(among) == 1:
                return aim.at(among.pop(), "")
            for where in among & self._routes.keyspaces.keys():
                self._names.all_tables(where)  # it may be that nobody knows yet which of them is meant
        return aim.at("", "")  # vtgate says that the name is ambiguous

    def _check_one_server(self, context: Context, meant: set[Physical], keyspace: str) -> None:
        """Refuse what vtgate sends to any one shard of the keyspace that the session is aimed at.

        :raises RefusedError: it would not be done everywhere, or elsewhere.
        """
        among = {where for where, _ in meant} or {keyspace}
        aimed = context.aim.target.shard
        sharded = any(self._names.keyspace(where).sharded for where in among & self._routes.keyspaces.keys())
        if len(among) > 1 or (sharded and not aimed):
            what = context.scan.word(0).decode()
            raise unsupported(f"{what} on a sharded keyspace; aim at one shard with USE `keyspace/shard`")

    def _edits(self, context: Context, destination: Destination) -> list[Edit]:
        """What vtgate cannot know: the database's own name, by which clients know what they are aimed at, and
        that they are aimed at a system schema, as it is aimed at a keyspace all the same.
        """
        edits: list[Edit] = []
        at_system = context.aim.target.keyspace
        if at_system in SYSTEM_SCHEMAS and at_system not in self._routes.keyspaces:
            edits += [
                (ref.start, ref.start, identifier(at_system) + b".")
                for ref in context.scan.tables
                if not ref.schema
            ]
        database = self._routes.database
        named = [ref for ref in context.scan.tables if ref.schema == database]
        if named and database not in self._routes.keyspaces:
            starts = {ref.start for ref in named}
            edits += [(ref.start, ref.name_start, b"") for ref in named]
            words = context.scan.words
            for at in range(len(words) - 4):  # columns written database.table.column
                first = words[at]
                dots = words[at + 1].text == b"." and words[at + 3].text == b"."
                if dots and first.start not in starts and first.name() == database:
                    edits.append((first.start, words[at + 2].start, b""))
        name = target_text(context.aim.target, database)
        aimed = target_name(destination)
        if context.scan.calls & _SCHEMA and name != aimed and not _only_system(context):
            value = quote_string(name.encode())
            edits += [(at, end, value + title) for at, end, title in call_edits(context, _SCHEMA)]
        return edits


def _only_system(context: Context) -> bool:
    tables = context.scan.tables
    target = context.aim.target.keyspace
    return bool(tables) and all((ref.schema or target).lower() in SYSTEM_SCHEMAS for ref in tables)


def _takes_ids(found: Scan) -> bool:
    """SELECT NEXT VALUE FROM sequence, SELECT NEXT n VALUES FROM sequence."""
    if (found.word(0), found.word(1)) != (b"SELECT", b"NEXT"):
        return False
    return found.word(2) == b"VALUE" or b"VALUES" in {found.word(3), found.word(4)}
