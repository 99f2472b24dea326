"""Keyspaces and their shards: what serves which key range, from which schema on which server.

Invariants: a live keyspace's name is its branch's only one; two shards never share a schema on a server (a
keyspace that is being deleted keeps its place until it is gone, so a new one of the same name waits rather
than losing its tables to the old one's end); gateways hear of every change by a new routing version.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict, Unpack

from sqlalchemy import Select, select
from sqlalchemy.exc import IntegrityError

from homeworld.model.errors import InvalidError, NotFoundError
from homeworld.model.keyranges import split_evenly
from homeworld.model.machine import Transition
from homeworld.model.names import check_schema_resource_name, fits_schema, new_id
from homeworld.model.states.lifecycle import Life, LifeTrigger
from homeworld.store.journal import Journal
from homeworld.store.pages import Page, PageRequest, fetch_page
from homeworld.store.routing import Routes
from homeworld.store.tables import resources
from homeworld.store.work import Work

KIND = "keyspace"


@dataclass(frozen=True, slots=True)
class Keyspace:
    """A keyspace as stored. ``replicas`` counts each shard's replicas, the extra ones included."""

    id: str
    branch_id: str
    name: str
    state: Life
    error: str
    is_default: bool
    sharded: bool
    shard_count: int
    replicas: int
    extra_replicas: int
    cluster_size: str
    vschema: Mapping[str, object]
    durability_strategy: str | None
    optimize_inserts: bool
    allow_no_blob_binlog_row_image: bool
    vplayer_batching: bool
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


class KeyspaceFields(TypedDict, total=False):
    """What may be changed beside the state."""

    error: str
    vschema: Mapping[str, object]
    cluster_size: str
    replicas: int
    extra_replicas: int
    durability_strategy: str | None
    optimize_inserts: bool
    allow_no_blob_binlog_row_image: bool
    vplayer_batching: bool


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard. ``primary_server_id`` is None until it was placed."""

    id: str
    keyspace_id: str
    ordinal: int
    name: str
    schema_name: str
    primary_server_id: str | None
    replica_server_ids: Sequence[str]
    created_at: datetime
    updated_at: datetime


def schema_name(keyspace: str, shard: str, *, sharded: bool) -> str:
    """The MySQL schema of a shard: an unsharded keyspace's own name, so that statements pass untouched.

    :raises InvalidError: the name would be longer than MySQL allows, with the rights on it.
    """
    name = f"{keyspace}_{shard}" if sharded else keyspace
    if not fits_schema(name):
        raise InvalidError(
            f"the keyspace name {keyspace} is too long: servers would have a schema {name}, and schema names "
            "have at most 64 characters, of which each underscore takes two"
        )
    return name


class Keyspaces:
    """Keyspaces and shards within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._journal = Journal(work)

    def create(
        self,
        branch_id: str,
        name: str,
        *,
        shards: int = 1,
        sharded: bool | None = None,
        is_default: bool = False,
        replicas: int = 0,
        extra_replicas: int = 0,
        cluster_size: str = "",
        vschema: Mapping[str, object] | None = None,
        named: Sequence[tuple[str, str]] | None = None,
        actor_id: str | None = None,
    ) -> Keyspace:
        """A new pending keyspace with its shards, split evenly and not yet placed.

        :param sharded: by default, whether there is more than one shard.
        :param named: name and schema of each shard in key order, where others have made them; ``shards`` is
            then their number.
        :raises InvalidError: the name is not valid or taken, or the shards cannot be.
        """
        sharded = shards > 1 if sharded is None else sharded
        default_vschema: Mapping[str, object] = (
            {"sharded": True, "vindexes": {}, "tables": {}} if sharded else {"tables": {}}
        )
        made = Keyspace(
            id=new_id(),
            branch_id=branch_id,
            name=check_schema_resource_name(name, "keyspace"),
            state=Life.PENDING,
            error="",
            is_default=is_default,
            sharded=sharded,
            shard_count=shards,
            replicas=replicas + extra_replicas,
            extra_replicas=extra_replicas,
            cluster_size=cluster_size,
            vschema=default_vschema if vschema is None else vschema,
            durability_strategy=None,
            optimize_inserts=True,
            allow_no_blob_binlog_row_image=False,
            vplayer_batching=True,
            created_at=self._work.now,
            updated_at=self._work.now,
            deleted_at=None,
        )
        if named is None:
            names = [key_range.name for key_range in split_evenly(shards)]
            named = [(shard, schema_name(name, shard, sharded=sharded)) for shard in names]
            alone = [schema for _, schema in named]
        else:
            alone = []  # on servers of their own, or of others who have seen to it
        try:
            self._work.add(resources.keyspaces, {field: getattr(made, field) for field in made.__slots__})
        except IntegrityError as error:
            raise InvalidError(f"a keyspace named {name} already exists") from error
        self._check_schemas(made, alone)
        for ordinal, (shard, schema) in enumerate(named):
            self._work.add(
                resources.shards,
                {
                    "id": new_id(),
                    "keyspace_id": made.id,
                    "ordinal": ordinal,
                    "name": shard,
                    "schema_name": schema,
                    "primary_server_id": None,
                    "replica_server_ids": [],
                    "created_at": self._work.now,
                    "updated_at": self._work.now,
                },
            )
        self._journal.born(
            KIND, made.id, made.state, actor_id=actor_id, payload={"name": name, "branch_id": branch_id}
        )
        Routes(self._work).bump(branch_id)
        return made

    def _check_schemas(self, made: Keyspace, schemas: Sequence[str]) -> None:
        """No other live keyspace of the branch has a shard in one of these schemas: one server may hold both.

        :raises InvalidError: one has.
        """
        shards, keyspaces = resources.shards, resources.keyspaces
        query = (
            select(keyspaces)
            .join(shards, shards.c.keyspace_id == keyspaces.c.id)
            .where(
                keyspaces.c.branch_id == made.branch_id,
                keyspaces.c.deleted_at.is_(None),
                keyspaces.c.id != made.id,
                shards.c.schema_name.in_(schemas),
            )
            .limit(1)
        )
        for other in self._work.all(query, Keyspace):
            raise InvalidError(
                f"the name {made.name} is taken: keyspace {other.name} has a shard in a schema that it needs"
            )

    def get(self, keyspace_id: str) -> Keyspace:
        """The keyspace in whatever state.

        :raises NotFoundError: no such id.
        """
        table = resources.keyspaces
        return self._work.only(select(table).where(table.c.id == keyspace_id), Keyspace)

    def by_ids(self, ids: Iterable[str | None]) -> Mapping[str, Keyspace]:
        """Keyspaces by id in whatever state."""
        return self._work.by_key(resources.keyspaces, ids, Keyspace)

    def by_name(self, branch_id: str, name: str) -> Keyspace:
        """The live keyspace of that name.

        :raises NotFoundError: no such keyspace.
        """
        table = resources.keyspaces
        return self._work.only(self._live(branch_id).where(table.c.name == name), Keyspace)

    def named(self, branch_id: str, named: str) -> Keyspace:
        """The live keyspace of that name, or else of that id: paths may have either, and a name goes first.

        :raises NotFoundError: no such keyspace.
        """
        try:
            return self.by_name(branch_id, named)
        except NotFoundError:
            return self._work.only(self._live(branch_id).where(resources.keyspaces.c.id == named), Keyspace)

    def of_branch(self, branch_id: str) -> tuple[Keyspace, ...]:
        """The branch's live keyspaces, by name."""
        return self._work.all(self._live(branch_id).order_by(resources.keyspaces.c.name), Keyspace)

    def of_branches(self, branch_ids: Sequence[str]) -> Mapping[str, tuple[Keyspace, ...]]:
        """The live keyspaces of several branches, by name, in one query; branches without are left out."""
        table = resources.keyspaces
        query = (
            select(table)
            .where(table.c.branch_id.in_(branch_ids), table.c.deleted_at.is_(None))
            .order_by(table.c.branch_id, table.c.name)
        )
        found: dict[str, list[Keyspace]] = {}
        for keyspace in self._work.all(query, Keyspace):
            found.setdefault(keyspace.branch_id, []).append(keyspace)
        return {branch_id: tuple(several) for branch_id, several in found.items()}

    def undead(self, branch_id: str) -> tuple[Keyspace, ...]:
        """The branch's keyspaces that are not gone: live ones and those being deleted."""
        table = resources.keyspaces
        query = (
            select(table)
            .where(table.c.branch_id == branch_id, table.c.state != Life.DELETED)
            .order_by(table.c.name, table.c.created_at)
        )
        return self._work.all(query, Keyspace)

    def names_in(self, database_id: str) -> tuple[str, ...]:
        """The names of a database's live keyspaces, each once, sorted."""
        keyspace, branch = resources.keyspaces, resources.branches
        query = (
            select(keyspace.c.name)
            .join(branch, keyspace.c.branch_id == branch.c.id)
            .where(
                branch.c.database_id == database_id,
                branch.c.deleted_at.is_(None),
                keyspace.c.deleted_at.is_(None),
            )
            .distinct()
            .order_by(keyspace.c.name)
        )
        return tuple(self._work.connection.execute(query).scalars().all())

    def page(self, branch_id: str, request: PageRequest) -> Page[Keyspace]:
        """Live keyspaces by name."""
        query = self._live(branch_id).order_by(resources.keyspaces.c.name)
        return fetch_page(self._work.connection, query, request, Keyspace)

    @staticmethod
    def _live(branch_id: str) -> Select[tuple[object, ...]]:
        table = resources.keyspaces
        return select(table).where(table.c.branch_id == branch_id, table.c.deleted_at.is_(None))

    def update(self, keyspace_id: str, **fields: Unpack[KeyspaceFields]) -> Keyspace:
        """Change settings or the vschema (validated by the caller); gateways hear of it."""
        table = resources.keyspaces
        self._work.change(table, table.c.id, keyspace_id, {**fields, "updated_at": self._work.now})
        changed = self.get(keyspace_id)
        Routes(self._work).bump(changed.branch_id)
        return changed

    def transition(
        self,
        keyspace_id: str,
        expected: Life,
        row: Transition[Life, LifeTrigger],
        *,
        actor_id: str | None = None,
        why: str = "",
        **fields: Unpack[KeyspaceFields],
    ) -> Keyspace:
        """Take a row of LIFECYCLE; gateways hear of it. A keyspace that is gone gives up its places.

        :raises ConflictError: the keyspace is not in ``expected`` any more.
        """
        self._journal.move(
            KIND,
            resources.keyspaces,
            keyspace_id,
            expected,
            row,
            actor_id=actor_id,
            why=why,
            fields=dict(fields),
            payload={},
        )
        if row.to is Life.DELETED:
            table = resources.shards
            self._work.change(
                table,
                table.c.keyspace_id,
                keyspace_id,
                {"primary_server_id": None, "replica_server_ids": [], "updated_at": self._work.now},
            )
        moved = self.get(keyspace_id)
        Routes(self._work).bump(moved.branch_id)
        return moved

    def be_default(self, keyspace_id: str) -> None:
        """Statements that name no keyspace go to this one; no other of the branch is the default."""
        table = resources.keyspaces
        self._work.change(table, table.c.id, keyspace_id, {"is_default": True, "updated_at": self._work.now})
        Routes(self._work).bump(self.get(keyspace_id).branch_id)

    def shards(self, keyspace_id: str) -> tuple[Shard, ...]:
        """The keyspace's shards in key order."""
        return self.shards_of([keyspace_id])

    def shard(self, shard_id: str) -> Shard:
        """The shard.

        :raises NotFoundError: no such id.
        """
        table = resources.shards
        return self._work.only(select(table).where(table.c.id == shard_id), Shard)

    def shards_of(self, keyspace_ids: Sequence[str]) -> tuple[Shard, ...]:
        """The shards of several keyspaces, each keyspace's in key order."""
        table = resources.shards
        query = (
            select(table)
            .where(table.c.keyspace_id.in_(keyspace_ids))
            .order_by(table.c.keyspace_id, table.c.ordinal)
        )
        return self._work.all(query, Shard)

    def stands_on(self, server_id: str, besides: str) -> bool:
        """Whether a shard of another keyspace than ``besides`` has its place on that primary."""
        table = resources.shards
        query = select(table.c.id).where(
            table.c.primary_server_id == server_id, table.c.keyspace_id != besides
        )
        return self._work.connection.execute(query.limit(1)).first() is not None

    def place(self, shard_id: str, primary_server_id: str, replica_server_ids: Sequence[str] = ()) -> Shard:
        """Say which servers hold a shard; gateways hear of it.

        :raises ConflictError: another shard has that schema on the server.
        """
        self._place(shard_id, primary_server_id, replica_server_ids)
        placed = self.shard(shard_id)
        Routes(self._work).bump(self.get(placed.keyspace_id).branch_id)
        return placed

    def place_all(self, keyspace_id: str, places: Mapping[str, tuple[str, Sequence[str]]]) -> None:
        """Say which servers hold several shards of a keyspace; gateways hear of it once.

        :param places: shard id to primary and replicas.
        :raises ConflictError: another shard has that schema on a server.
        """
        for shard_id, (primary_server_id, replica_server_ids) in places.items():
            self._place(shard_id, primary_server_id, replica_server_ids)
        if places:
            Routes(self._work).bump(self.get(keyspace_id).branch_id)

    def _place(self, shard_id: str, primary_server_id: str, replica_server_ids: Sequence[str]) -> None:
        table = resources.shards
        self._work.change(
            table,
            table.c.id,
            shard_id,
            {
                "primary_server_id": primary_server_id,
                "replica_server_ids": list(replica_server_ids),
                "updated_at": self._work.now,
            },
        )
