"""Tables kept still and empty while their placement changes: the Placements port over real servers.

Theory of operation: a hold in the gateways stops every client's statement on the tables; each shard's server
is asked for a row; the caller stores the new vschema; it is published; the hold is released. It judges no
vschema. Where this process dies in between, the hold ends with it and the stored vschema is what gateways
begin with. Where the publication fails the hold is left to its own end: whoever publishes next ends the old
routes, and until then nobody writes by them.

Where a cluster carries the branch it is asked first whether it would take the vschema, gets it once it is
stored, and only then is it published: it never has what the store refused. Where it does not follow at once
the hold is left to its own end; until then the executor has time to let it follow.

Invariant: from the look to the publication no row comes into the tables through a gateway.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager

from homeworld.model.clusters import Clusters
from homeworld.model.errors import DeadlineExceededError, HomeworldError, InvalidError, UnavailableError
from homeworld.model.names import new_id, quote
from homeworld.model.ports import Engine, Gateways, Placements
from homeworld.model.routing import HoldRequest
from homeworld.model.states.lifecycle import Life
from homeworld.model.topology import BackendRole, ShardPlace, TabletType
from homeworld.model.vschema import parse
from homeworld.model.vschema_placement import placing_text
from homeworld.replication.connection import Connection
from homeworld.replication.tables import literal
from homeworld.store.keyspaces import Keyspace
from homeworld.store.store import Store
from homeworld.store.vschemas import judge_vschema, replace_vschema
from homeworld.workflows.clusters.following import await_serving

DRAIN_SECONDS = 5.0
LOOK_SECONDS = 15.0
HOLD_SECONDS = 60.0
"""Longer than look, store's lock, a cluster's following and publication can take together."""
FOLLOW_SECONDS = 20.0

_ANSWER_SECONDS = 5.0
_log = logging.getLogger(__name__)


class StillTables:
    """Implements ``model.ports.Placements``.

    :param publish: reads the routes from the store and returns once every gateway serves them.
    :param clusters: None: there are none here.
    """

    def __init__(
        self,
        store: Store,
        engine: Engine,
        gateways: Gateways,
        publish: Callable[[], None],
        clusters: Clusters | None = None,
    ) -> None:
        self._store = store
        self._engine = engine
        self._gateways = gateways
        self._publish = publish
        self._clusters = clusters

    def check(self, keyspace_id: str, vschema: Mapping[str, object]) -> None:
        """See :meth:`homeworld.model.ports.Placements.check`."""
        with self._store.read() as tx:
            keyspace = tx.keyspaces.get(keyspace_id)
            serves = tx.followings.serves(keyspace.branch_id)
        if not serves or keyspace.state is not Life.READY:
            return  # a cluster that has it not yet says so when it gets it
        if self._clusters is None:
            raise UnavailableError(
                "nobody here can ask the branch's cluster whether it would take the vschema"
            )
        self._clusters.check_vschema(keyspace.branch_id, keyspace.name, vschema)

    @contextmanager
    def still(self, keyspace_id: str, tables: Sequence[str]) -> Generator[None]:
        """See :meth:`homeworld.model.ports.Placements.still`."""
        if not tables:
            yield
            self._follow(keyspace_id)
            return
        keyspace, places = self._places(keyspace_id)
        hold = HoldRequest(
            hold_id=new_id(),
            branch_id=keyspace.branch_id,
            tables=frozenset((keyspace.name, table) for table in tables),
            tablet_types=frozenset({TabletType.PRIMARY}),
            drain_seconds=DRAIN_SECONDS,
            hold_seconds=HOLD_SECONDS,
        )
        self._gateways.hold(hold)
        try:
            self._look(keyspace, places, tables)
            if not self._gateways.is_held(hold.hold_id):
                raise DeadlineExceededError("the tables were not kept still for long enough")
        except BaseException:
            self._gateways.release(hold.hold_id)
            raise
        try:
            yield
        except UnavailableError:
            # Stored or not: nobody knows. Whoever waits must not go on by the old placement.
            self._serve(keyspace, hold.hold_id)
            raise
        except BaseException:
            self._gateways.release(hold.hold_id)
            raise
        self._serve(keyspace, hold.hold_id)

    def _serve(self, keyspace: Keyspace, hold_id: str) -> None:
        """Let statements go on once every gateway places rows as is stored; else the hold ends by itself."""
        if not self._follow(keyspace.id):
            return
        try:
            self._publish()
        except HomeworldError as error:
            _log.warning("the new placement of %s is not served yet: %s", keyspace.name, error)
            return
        self._gateways.release(hold_id)

    def _follow(self, keyspace_id: str) -> bool:
        """Whether the cluster that carries the keyspace has what is stored, if one does."""
        try:
            with self._store.read() as tx:
                keyspace = tx.keyspaces.get(keyspace_id)
            if keyspace.state is not Life.READY:
                return True  # whoever makes it waits for the cluster
            await_serving(self._store, keyspace.branch_id, FOLLOW_SECONDS)
        except HomeworldError as error:
            _log.warning("the cluster has not what was stored of keyspace %s: %s", keyspace_id, error)
            return False
        return True

    def _places(self, keyspace_id: str) -> tuple[Keyspace, tuple[ShardPlace, ...]]:
        with self._store.read() as tx:
            keyspace = tx.keyspaces.get(keyspace_id)
            shards = tx.keyspaces.shards(keyspace_id)
        if keyspace.state is Life.READY and any(shard.primary_server_id is None for shard in shards):
            raise UnavailableError(f"keyspace {keyspace.name} has shards without servers")
        # A keyspace that is only being made has no rows where it has no servers.
        return keyspace, tuple(
            ShardPlace(
                keyspace.name,
                shard.name,
                shard.schema_name,
                self._engine.endpoint(shard.primary_server_id, BackendRole.OWNER),
            )
            for shard in shards
            if shard.primary_server_id is not None
        )

    def _look(self, keyspace: Keyspace, places: Sequence[ShardPlace], tables: Sequence[str]) -> None:
        """Hold every shard to have no row of the tables.

        :raises InvalidError: some has; with every table.
        :raises UnavailableError: a shard does not answer.
        """
        began = time.monotonic()
        filled: dict[str, list[str]] = {}
        for place in places:
            for table in _filled(place, tables):
                filled.setdefault(table, []).append(place.shard)
        if filled:
            now = parse(keyspace.vschema)
            raise InvalidError(
                "; ".join(
                    f"table {table} of keyspace {keyspace.name} has rows (on {', '.join(shards)}), placed "
                    f"{placing_text(now, table)}: another placement would not find them. Move the table with "
                    "MoveTables to a keyspace whose vschema places it as wanted, or empty it first"
                    for table, shards in sorted(filled.items())
                )
            )
        if time.monotonic() - began > LOOK_SECONDS:
            raise DeadlineExceededError("the shards took too long to say whether the tables have rows")


def altering(
    store: Store, placements: Placements, publish: Callable[[], None]
) -> Callable[[str, str, str, str], None]:
    """What a gateway calls for ``ALTER VSCHEMA``: with a branch's id, a keyspace's name, the wanted vschema
    and the one that it is an edit of, both as JSON. It raises HomeworldError where that is refused.

    :param publish: as for :class:`StillTables`.
    """

    def alter(branch_id: str, keyspace: str, text: str, base_text: str) -> None:
        wanted, base = parse(text), parse(base_text)
        with store.read() as tx:
            judged = judge_vschema(tx, tx.keyspaces.by_name(branch_id, keyspace), wanted, base)
        placements.check(judged.keyspace_id, judged.wanted.render())
        with placements.still(judged.keyspace_id, judged.tables), store.write() as tx:
            replace_vschema(tx, tx.keyspaces.by_name(branch_id, keyspace), judged, base)
        try:
            publish()
        except HomeworldError as error:  # it is stored, and whoever asked must not hear that it is not
            _log.warning("a stored vschema is not served everywhere yet: %s", error)

    return alter


def _filled(place: ShardPlace, tables: Sequence[str]) -> list[str]:
    listed = ", ".join(literal(name) for name in tables)
    with Connection(place.endpoint, timeout_seconds=_ANSWER_SECONDS) as connection:
        rows = connection.query_all(
            "SELECT TABLE_NAME FROM information_schema.TABLES "  # noqa: S608 - hex literals
            f"WHERE TABLE_SCHEMA = {literal(place.schema)} AND TABLE_NAME IN ({listed}) "
            "AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')"
        )
        return [
            name
            for name in ((row[0] or b"").decode() for row in rows)
            if connection.query_all(f"SELECT 1 FROM {quote(place.schema, name)} LIMIT 1")  # noqa: S608 - quoted
        ]
