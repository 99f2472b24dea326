"""What the rules judge: store and servers, read once, as plain values.

Invariant: a rule sees nothing that is not here, so all rules judge one and the same moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from homeworld.model.engines import EngineKind
from homeworld.model.tables import Table
from homeworld.model.topology import Flavor
from homeworld.model.vschema import VSchema


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """One foreign key; schemas are as the server names them.

    :param on_delete: ``RESTRICT``, ``NO ACTION``, ``CASCADE``, ``SET NULL`` or ``SET DEFAULT``.
    """

    name: str
    schema: str
    table: str
    parent_schema: str
    parent_table: str
    on_delete: str
    on_update: str


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger of a table in the shard's schema."""

    name: str
    table: str


@dataclass(frozen=True, slots=True)
class Body:
    """Something with SQL in it that may name tables: a view, trigger, routine or event.

    :param schema: the other schema of the server that it is in; empty: the shard's own.
    """

    kind: str
    name: str
    text: str
    schema: str = ""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server is set to, and what the mover may do on it.

    :param variables: lower-case name to value.
    :param grants: ``SHOW GRANTS`` of the mover's account.
    :param log_filters: options that keep some schemas' changes out of the binlog.
    :param upstream: the server that it replicates from; empty: none; None: the mover may not know.
    """

    where: str
    flavor: Flavor
    variables: Mapping[str, str]
    grants: tuple[str, ...]
    log_filters: tuple[str, ...] = ()
    upstream: str | None = ""


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """One shard's schema. ``tables`` are those of the wanted names that exist; ``filled`` those with rows.

    :param others: names of what exists under a wanted name and is no base table (views).
    :param prepared: the server's transactions that wait for their XA COMMIT.
    """

    where: str
    schema: str
    tables: Mapping[str, Table] = field(default_factory=dict[str, Table])
    filled: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()
    foreign_keys: tuple[ForeignKey, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    bodies: tuple[Body, ...] = ()
    prepared: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyspaceFacts:
    """A keyspace with its shards in key order."""

    name: str
    sharded: bool
    ready: bool
    vschema: VSchema
    shards: tuple[ShardFacts, ...]


@dataclass(frozen=True, slots=True)
class World:
    """Everything.

    :param globals_: where new sequences would go, if there is a place.
    :param sequences: name to whether it is a sequence's table, for tables of that place which exist.
    :param engine: what the branch's database runs on.
    :param rules: the branch's routing rules.
    """

    branch: str
    production: bool
    safe_migrations: bool
    active_workflow: int | None
    tables: tuple[str, ...]
    source: KeyspaceFacts
    target: KeyspaceFacts
    globals_: KeyspaceFacts | None
    vschemas: Mapping[str, VSchema]
    servers: tuple[ServerFacts, ...]
    sequences: Mapping[str, bool] = field(default_factory=dict[str, bool])
    engine: EngineKind = EngineKind.LOCAL
    rules: Mapping[str, str] = field(default_factory=dict[str, str])

    def source_tables(self) -> Mapping[str, Table]:
        """The wanted tables as the first source shard has them; missing ones are left out."""
        return self.source.shards[0].tables if self.source.shards else {}


@dataclass(frozen=True, slots=True)
class Rule:
    """One precondition: a pure look at the world.

    :param name: stable, for logs and tests.
    :param says: what has to hold, in a sentence.
    :param check: each reason why it does not hold.
    :param lasting: it can become untrue while the workflow runs, and has to hold when traffic moves.
    """

    name: str
    says: str
    check: Callable[[World], Iterable[str]]
    lasting: bool = False
