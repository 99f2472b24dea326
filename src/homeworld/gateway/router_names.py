"""From a table's name in a statement to the keyspace and table it means.

In this order: routing rules (for the session's tablet type), the vschema where the table is there or
nowhere, the only keyspace whose servers have it. Invariant: a name that could mean two tables is refused,
never chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from homeworld.gateway.plan import Destination, NeedSchema, SchemaView, Target
from homeworld.gateway.router_errors import NeedsError, RefusedError, unknown_database, unsupported
from homeworld.gateway.router_target import SYSTEM_SCHEMAS
from homeworld.gateway.sql_tables import TableRef
from homeworld.gateway.sql_tokens import Kind, Token
from homeworld.model.names import quote
from homeworld.model.routing import BranchRoutes, KeyspaceRoute, ShardRoute
from homeworld.model.routing_rules import look_up
from homeworld.model.topology import TabletType
from homeworld.model.vschema import VSchema, parse


@dataclass(frozen=True, slots=True)
class Aim:
    """A session's target as it takes effect: a replica-only password never reaches a primary.

    :param vtgate: statements go to the branch's vtgate.
    """

    target: Target
    tablet_type: TabletType
    vtgate: bool = False
    known: dict[tuple[str, str, TabletType], Destination] = field(
        default_factory=dict[tuple[str, str, TabletType], Destination]
    )

    def at(self, keyspace: str, shard: str) -> Destination:
        """A shard, seen with this aim: one object for each, by which sessions may know it again."""
        key = (keyspace, shard, self.tablet_type)
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = Destination(*key, self.vtgate)
        return found


@dataclass(frozen=True, slots=True)
class Found:
    """What a reference means. ``keyspace`` is a system schema's name for its tables.

    :param elsewhere: keyspaces of which one would be meant instead if it had the table: nobody is known to.
    """

    ref: TableRef
    keyspace: str
    table: str
    elsewhere: frozenset[str] = frozenset()

    @property
    def system(self) -> bool:
        """Whether it is a table of a system schema."""
        return self.keyspace in SYSTEM_SCHEMAS


Edit = tuple[int, int, bytes]
"""Replace the bytes from … to … by …"""


class Names:
    """The names of one branch at one version of its routes.

    :param read: reads a keyspace's vschema.
    :raises InvalidError: a vschema cannot be read.
    """

    def __init__(
        self,
        routes: BranchRoutes,
        schema: SchemaView,
        read: Callable[[Mapping[str, object]], VSchema] = parse,
    ) -> None:
        self.routes = routes
        self.schema = schema
        self.destinations: dict[tuple[str, str, TabletType], Destination] = {}
        self.vschemas: dict[str, VSchema] = {
            name: read(route.vschema) for name, route in routes.keyspaces.items()
        }
        self.only: KeyspaceRoute | None = None
        if len(routes.keyspaces) == 1 and not routes.rules:
            (self.only,) = routes.keyspaces.values()

    def keyspace(self, name: str) -> KeyspaceRoute:
        """A keyspace's route.

        :raises RefusedError: unknown.
        """
        route = self.routes.keyspaces.get(name)
        if route is None:
            raise unknown_database(name)
        return route

    def default(self, target: Target) -> KeyspaceRoute:
        """Where a statement goes whose tables decide nothing."""
        if target.keyspace and target.keyspace not in SYSTEM_SCHEMAS:
            return self.keyspace(target.keyspace)
        return self.keyspace(self.routes.default_keyspace)

    def shard(self, keyspace: KeyspaceRoute, name: str = "") -> ShardRoute:
        """A shard by name, or the first.

        :raises RefusedError: the keyspace has none of that name.
        """
        for shard in keyspace.shards:
            if not name or shard.name == name:
                return shard
        raise RefusedError(1105, "HY000", f"keyspace {keyspace.name} has no shard {name}".rstrip())

    def find(self, ref: TableRef, aim: Aim, *, creates: bool = False) -> Found:
        """What a reference means.

        :param creates: the table need not exist yet.
        :raises RefusedError: ambiguous, or qualified by an unknown keyspace.
        :raises NeedsError: a keyspace's tables must be known first.
        """
        schema = ref.schema or aim.target.keyspace
        if schema.lower() in SYSTEM_SCHEMAS and schema not in self.routes.keyspaces:
            return Found(ref, schema.lower(), ref.name)
        if schema == self.routes.database and schema not in self.routes.keyspaces:
            schema = ""
        if schema:
            self.keyspace(schema)
        ruled = look_up(self.routes.rules, schema, ref.name, aim.tablet_type) if self.routes.rules else None
        if ruled is not None:
            keyspace, table = ruled
            if table != ref.name:
                raise unsupported(f"routing rules that rename tables ({ref.name} to {table})")
            return Found(ref, keyspace, table)
        if schema:
            return Found(ref, schema, ref.name)
        return self._somewhere(ref, creates=creates)

    def _somewhere(self, ref: TableRef, *, creates: bool) -> Found:
        """What a reference means that is neither qualified nor under a rule."""
        table = ref.name
        if self.only is not None or len(self.routes.keyspaces) == 1:
            return Found(ref, next(iter(self.routes.keyspaces)), table)
        elsewhere = frozenset[str]()
        listed = [
            name
            for name, vschema in self.vschemas.items()
            if table in vschema.tables and not vschema.require_explicit_routing
        ]
        if listed:
            have = self._there(table, listed)
            if not have:
                elsewhere = frozenset(self._offering())
            listed = have or listed
        else:
            listed = [name for name in self.routes.keyspaces if table in self._tables(name)]
        if len(listed) > 1:
            raise RefusedError(1105, "HY000", f"ambiguous table reference: {table}")
        if listed:
            return Found(ref, listed[0], table, elsewhere)
        default = self.routes.default_keyspace
        if not creates and self.keyspace(default).sharded:
            raise RefusedError(1146, "42S02", f"table {table} not found", self.routes.keyspaces)
        return Found(ref, default, table)

    def _there(self, table: str, listed: list[str]) -> list[str]:
        """Of the keyspaces whose vschemas list a table those that have it; where none does, others that have
        it: a vschema may be written long before its table is moved. Where nobody has it (none), the vschema
        stands.

        Tables are made and dropped behind the gateway before routes change; what is known is of after that
        (see :class:`~homeworld.gateway.plan.SchemaView`).
        """
        have = [name for name in listed if table in self._tables(name)]
        if not have:
            have = [n for n in self._offering() if n not in listed and table in self._tables(n)]
        return have

    def _offering(self) -> Iterator[str]:
        """The keyspaces whose tables need not be qualified where a vschema lists them."""
        return (name for name, vschema in self.vschemas.items() if not vschema.require_explicit_routing)

    def _tables(self, keyspace: str) -> frozenset[str]:
        tables = self.schema.tables(keyspace)
        if tables is None:
            raise NeedsError(NeedSchema(keyspace))
        return tables

    def all_tables(self, keyspace: str) -> frozenset[tuple[str, str]]:
        """Every table of a keyspace, for statements that may touch any.

        :raises NeedsError: they must be loaded first.
        """
        return frozenset((keyspace, table) for table in self._tables(keyspace))

    def beneath(self, found: Iterable[Found]) -> frozenset[tuple[str, str]]:
        """The physical tables of references, with those that lie beneath views."""
        tables: set[tuple[str, str]] = set()
        for one in found:
            if one.system:
                continue
            tables.add((one.keyspace, one.table))
            under = self.schema.beneath(one.keyspace, one.table)
            if under:
                tables.update((one.keyspace, table) for table in under)
        return frozenset(tables)

    def physical(self, found: Sequence[Found], schema: str, words: Sequence[Token] = ()) -> list[Edit]:
        """What must change in the text so that each reference names its table on the server.

        :param schema: where the tables are on the server the text is sent to, and its connection's schema.
        :param words: the statement's tokens, where columns may be qualified by schema and table.
        """
        edits: list[Edit] = []
        for one in found:
            ref = one.ref
            if one.system:
                if not ref.schema:
                    edits.append((ref.start, ref.start, identifier(one.keyspace) + b"."))
            elif ref.schema and ref.schema != schema:
                edits.append((ref.start, ref.name_start, identifier(schema) + b"."))
        edits += self._column_edits(found, schema, words)
        return edits

    def _column_edits(self, found: Sequence[Found], schema: str, words: Sequence[Token]) -> list[Edit]:
        """Columns written ``schema.table.column``; all tables that are not a system schema's are in one."""
        if all(one.system for one in found):
            return []
        routes = self.routes
        edits: list[Edit] = []
        tables = {one.ref.start for one in found}
        for at in range(len(words) - 4):
            first = words[at]
            if words[at + 1].text != b"." or words[at + 3].text != b"." or first.start in tables:
                continue
            if first.kind not in (Kind.WORD, Kind.QUOTED) or first.name() == schema:
                continue
            if first.name() in routes.keyspaces or first.name() == routes.database:
                edits.append((first.start, first.end, identifier(schema)))
        return edits


def identifier(*names: str) -> bytes:
    """Names quoted as a statement takes them.

    :raises InvalidError: not an identifier.
    """
    return quote(*names).encode("utf-8", "surrogateescape")
