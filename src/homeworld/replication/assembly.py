"""From a MoverSpec to the parts of a mover: what is read, claimed and checked before a thread starts.

Everything that can be refused is refused here, with all reasons. It starts no thread. Invariant: when
:func:`assemble` returns, every stream is claimed for the spec's epoch on every target, and maps, positions
and definitions are what the sidecars say.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from homeworld.model.errors import (
    InvalidError,
    NotFoundError,
    PreconditionsFailedError,
    UnavailableError,
)
from homeworld.model.gtid import Position
from homeworld.model.movers import MoverSpec
from homeworld.model.tables import Table
from homeworld.model.topology import Endpoint, Flavor, ShardPlace
from homeworld.replication import sidecar
from homeworld.replication.applier import Appliers, TargetApplier
from homeworld.replication.chunks import Span, TableMap
from homeworld.replication.connection import Connection
from homeworld.replication.ddl import layout_differences, without_counter
from homeworld.replication.follower import Follower
from homeworld.replication.moving import MovingTable, make_route, one_unique_key, writers_of
from homeworld.replication.on_ddl import OnDdlRule
from homeworld.replication.positions import current_position
from homeworld.replication.reading import Singly
from homeworld.replication.rivals import Rivals
from homeworld.replication.sidecar import CopyState, StreamId, StreamState
from homeworld.replication.snapshots import common_position
from homeworld.replication.tables import is_empty, read_tables

#: Short, because the holder of the locks may wait for the applier's gate.
LOCK_SECONDS = 1
TRIES = 5

_EVERYTHING = (Span(None, None),)
_State = tuple[StreamState, Mapping[str, CopyState]]


@dataclass(frozen=True, slots=True)
class Assembly:
    """The parts. ``followers``: by source server id; ``rules``: what they do with schema changes."""

    spec: MoverSpec
    tables: tuple[MovingTable, ...]
    followers: Mapping[str, Follower]
    rules: tuple[OnDdlRule, ...]

    def follower_of(self, shard: str) -> Follower:
        """Who follows this source shard's server.

        :raises NotFoundError: no such source shard.
        """
        for place in self.spec.sources:
            if place.shard == shard:
                return self.followers[place.endpoint.server_id]
        raise NotFoundError(f"the move has no source shard {shard!r}")


def assemble(spec: MoverSpec, stopping: threading.Event) -> Assembly:
    """Read, check, claim.

    :raises PreconditionsFailedError: the tables do not fit; with every reason.
    :raises FencedError: a newer epoch has a stream.
    :raises UnavailableError: a server cannot be reached.
    """
    names = [placement.table for placement in spec.placements]
    sources, starts = _beginning(spec, names)
    states = {place.shard: _claim(spec, place, sources, starts) for place in spec.targets}
    remembered = {
        place.shard: [states[target.shard][place.shard] for target in spec.targets] for place in spec.sources
    }
    definitions = {shard: _definitions(spec, mine) for shard, mine in remembered.items()}
    ready = {shard: sources[shard] for shard, mine in remembered.items() if _stands_before_ddl(spec, mine)}
    _check(spec, definitions, {shard: _begun(mine) for shard, mine in states.items()}, ready)
    tables = [
        table
        for place in spec.sources
        for table in _moving(
            spec, place, sources[place.shard], definitions[place.shard], remembered[place.shard]
        )
    ]
    followers: dict[str, Follower] = {}
    rules: list[OnDdlRule] = []
    try:
        for endpoint in _servers(spec.sources):
            rules.append(OnDdlRule(spec.on_ddl, spec.epoch, several_sources=len(spec.sources) > 1))
            made = _follower(spec, endpoint, tables, states, rules[-1], stopping)
            # What is copied now would be of a time behind the statement that is still to be passed.
            here = [place.shard for place in spec.sources if place.endpoint.server_id == endpoint.server_id]
            made.settled = not any(shard in ready for shard in here)
            followers[endpoint.server_id] = made
    except BaseException:
        for follower in followers.values():
            follower.appliers.close()
        raise
    if len(spec.sources) > 1:
        for server_id, follower in followers.items():
            follower.rivals = Rivals(server_id, tables, followers, stopping)
            _recall(spec, follower, states)
    return Assembly(spec, tuple(tables), followers, tuple(rules))


def _recall(spec: MoverSpec, follower: Follower, states: Mapping[str, Mapping[str, _State]]) -> None:
    """What was decided by the mover before, and counts still."""
    if follower.rivals is None:
        return
    verdicts = follower.rivals.verdicts
    for at, applier in enumerate(follower.appliers.targets):
        for id_ in applier.streams:
            state, _ = states[id_.target_shard][id_.source_shard]
            verdicts.recall(at, state.verdicts, Position.parse(spec.flavor, state.position), spec.flavor)
    follower.reader.give_singly(Singly.CONTESTED, singly=verdicts.alone_until is not None)


def _servers(places: Sequence[ShardPlace]) -> tuple[Endpoint, ...]:
    return tuple({place.endpoint.server_id: place.endpoint for place in places}.values())


def stream_id(spec: MoverSpec, source: ShardPlace, target: ShardPlace) -> StreamId:
    """The stream from one shard to another."""
    return StreamId(spec.workflow_id, spec.direction, source.shard, target.shard)


def _begun(states: Mapping[str, _State]) -> frozenset[str]:
    """The tables of which a target has rows from any source shard."""
    return frozenset(name for _, copies in states.values() for name, copy in copies.items() if copy.done)


def _stands_before_ddl(spec: MoverSpec, mine: Sequence[_State]) -> bool:
    """Whether all streams of a source shard stand in front of a statement that stopped them."""
    return all(
        stream.stopped_before
        and Position.parse(spec.flavor, stream.position) == Position.parse(spec.flavor, stream.stopped_before)
        for stream, _ in mine
    )


def _check(
    spec: MoverSpec,
    sources: Mapping[str, Mapping[str, Table]],
    begun: Mapping[str, frozenset[str]],
    ready: Mapping[str, Mapping[str, Table]],
) -> None:
    """Hold the tables to be movable, and each target to take them as they are.

    :param begun: target shard to the tables that are not expected to be empty there.
    :param ready: of source shards whose streams stand in front of a statement, the tables as they are behind
        it: a target that fits them does as well, for no row comes before the statement is passed.
    """
    names = [placement.table for placement in spec.placements]
    reasons: dict[str, None] = {}
    targets = {place.shard: read_tables(place, names) for place in spec.targets}
    for source, tables in sources.items():
        for placement in spec.placements:
            table = tables[placement.table]
            try:
                make_route(("", table.name), table, placement, spec.targets)
            except InvalidError as error:
                reasons[error.message] = None
                continue
            if table.engine.lower() not in {"innodb", "rocksdb"}:
                reasons[f"table {table.name!r} uses {table.engine}, which has no transactions"] = None
            for shard, there in targets.items():
                ours, theirs = f"{spec.sources[0].keyspace}/{source}", f"{spec.targets[0].keyspace}/{shard}"
                found = layout_differences(table, there[table.name], ours, theirs)
                behind = ready.get(source, {}).get(table.name)
                if found and behind and not layout_differences(behind, there[table.name], ours, theirs):
                    continue
                reasons.update(dict.fromkeys(found))
    for place in spec.targets:
        with Connection(place.endpoint) as connection:
            if connection.query_one("SELECT @@local_infile") != (b"1",):
                reasons[f"the server of target shard {place.shard} needs local_infile=ON"] = None
        for name in names:
            if name not in begun[place.shard] and not is_empty(place, name):
                reasons[f"table {name!r} on target shard {place.shard} is not empty"] = None
    if reasons:
        raise PreconditionsFailedError(tuple(reasons))


_Tables = dict[str, dict[str, Table]]


def _beginning(spec: MoverSpec, names: Sequence[str]) -> tuple[_Tables, dict[str, str | None]]:
    """The source shards' tables as they are where a stream that is new begins.

    :raises UnavailableError: they are altered over and over.
    """

    def read() -> _Tables:
        return {place.shard: read_tables(place, names) for place in spec.sources}

    tables = read()
    for _ in range(TRIES):
        starts = _starts(spec)
        again = read()
        # Whatever was altered in between would stand in the log before the beginning, and in no definition.
        if _forms(again) == _forms(tables):
            return tables, starts
        tables = again
    raise UnavailableError("the source's tables are being altered")


def _forms(tables: _Tables) -> object:
    return {
        (shard, name): (table.columns, table.indexes, without_counter(table.create_sql))
        for shard, of_shard in tables.items()
        for name, table in of_shard.items()
    }


def _starts(spec: MoverSpec) -> dict[str, str | None]:
    """Where a stream begins that is new: as told, else (copying) where the source's log ends now."""
    found: dict[str, str | None] = {}
    for endpoint in _servers(spec.sources):
        now = None
        if spec.copy_rows:
            with Connection(endpoint) as connection:
                now = current_position(connection, endpoint.flavor)
        for place in spec.sources:
            if place.endpoint.server_id == endpoint.server_id:
                found[place.shard] = spec.start_positions.get(place.shard, now)
    return found


def _hold_without_prepared(source: ShardPlace) -> None:
    """Hold nothing to be prepared (XA) where a stream begins: its rows stand in the log before, and it may
    yet be committed. MySQL's log says so when that happens.

    :raises UnavailableError: something is.
    """
    if source.endpoint.flavor is not Flavor.MARIADB:
        return
    with Connection(source.endpoint) as connection:
        if prepared := connection.query_all("XA RECOVER"):
            raise UnavailableError(
                f"{len(prepared)} transactions are prepared on the server of source shard {source.shard} (XA "
                "RECOVER lists them): copying begins once they are committed or rolled back"
            )


def _claim(
    spec: MoverSpec,
    target: ShardPlace,
    sources: Mapping[str, Mapping[str, Table]],
    starts: Mapping[str, str | None],
) -> dict[str, _State]:
    """Claim all streams to one target; what it remembers of each source shard."""
    found: dict[str, _State] = {}
    done = () if spec.copy_rows else _EVERYTHING
    with Connection(target.endpoint) as connection:
        sidecar.prepare(connection)
        connection.execute("START TRANSACTION")
        for source in spec.sources:
            stream = stream_id(spec, source, target)
            state = sidecar.claim(connection, stream, spec.epoch, starts[source.shard])
            if state.new and spec.copy_rows:
                _hold_without_prepared(source)
            copies = {
                name: sidecar.claim_copy(connection, stream, spec.epoch, table, done)
                for name, table in sources[source.shard].items()
            }
            found[source.shard] = (state, copies)
        connection.execute("COMMIT")
    return found


def _definitions(spec: MoverSpec, mine: Sequence[_State]) -> dict[str, Table]:
    """A source shard's tables as they were at the position from which the feed goes on."""
    positions = [Position.parse(spec.flavor, stream.position) for stream, _ in mine]
    common = common_position(positions)
    oldest = next((at for at, position in enumerate(positions) if common.contains(position)), 0)
    return {name: copy.definition for name, copy in mine[oldest][1].items()}


def _moving(
    spec: MoverSpec,
    source: ShardPlace,
    now: Mapping[str, Table],
    definitions: Mapping[str, Table],
    mine: Sequence[_State],
) -> list[MovingTable]:
    streams = tuple(stream_id(spec, source, target) for target in spec.targets)
    made: list[MovingTable] = []
    with Connection(source.endpoint) as order:
        for placement in spec.placements:
            copies = [states_of[placement.table] for _, states_of in mine]
            table = definitions[placement.table]
            route = make_route((source.schema, table.name), table, placement, spec.targets)
            made.append(
                MovingTable(
                    source=source,
                    placement=placement,
                    targets=spec.targets,
                    streams=streams,
                    table=table,
                    route=route,
                    writers=writers_of(table, route, spec.targets),
                    map=TableMap(route.key, len(spec.targets), [copy.done for copy in copies], order),
                    rows_copied=[copy.rows_copied for copy in copies],
                    rows_total=now[placement.table].rows_estimate,
                    alone=one_unique_key(table),
                    # Altered while nobody looked: the log will say how, and only then its rows can be read.
                    closed=now[placement.table].columns != table.columns,
                )
            )
    return made


def _follower(
    spec: MoverSpec,
    endpoint: Endpoint,
    tables: Sequence[MovingTable],
    states: Mapping[str, Mapping[str, _State]],
    rule: OnDdlRule,
    stopping: threading.Event,
) -> Follower:
    mine = [table for table in tables if table.source.endpoint.server_id == endpoint.server_id]
    shards = [place for place in spec.sources if place.endpoint.server_id == endpoint.server_id]
    streams = [states[target.shard][source.shard][0] for target in spec.targets for source in shards]
    start = common_position([Position.parse(spec.flavor, stream.position) for stream in streams])
    rule.stopped_before = frozenset(stream.stopped_before for stream in streams if stream.stopped_before)
    made: list[TargetApplier] = []
    try:
        for at, target in enumerate(spec.targets):
            ids = [stream_id(spec, source, target) for source in shards]
            writers = {table.name: table.writers[at] for table in mine}
            kept = states[target.shard][shards[0].shard][0].verdicts
            made.append(TargetApplier(target, spec.epoch, ids, writers, LOCK_SECONDS, kept))
    except BaseException:
        for applier in made:
            applier.close()
        raise
    ahead = _ahead(spec, shards, states, start) if len(spec.sources) > 1 else {}
    # Without a copy it begins where only a mover has written to the tables: what is prepared there, which the
    # position names, is of others.
    return Follower(
        endpoint, mine, Appliers(made, ahead), str(start), rule, stopping,
        prepared_elsewhere=not spec.copy_rows,
    )  # fmt: skip


def _ahead(
    spec: MoverSpec, shards: Sequence[ShardPlace], states: Mapping[str, Mapping[str, _State]], start: Position
) -> dict[int, Position]:
    """The targets that have more than ``start``, and up to where.

    A row that has since gone to a shard of another server must not be changed by what is given again.
    """
    found: dict[int, Position] = {}
    for at, target in enumerate(spec.targets):
        streams = [states[target.shard][source.shard][0] for source in shards]
        reached = common_position([Position.parse(spec.flavor, stream.position) for stream in streams])
        if not start.contains(reached):
            found[at] = reached
    return found
