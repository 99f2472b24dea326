"""What Vitess prints of a move's streams, rules and shards, read into values: pure.

Knows no process and no connection. Invariant: what is not there is never taken for done: a stream without a
position or an answer of another form is an error or "not yet".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from homeworld.engines.vitess.answers import list_of, number_of, object_of, text_of
from homeworld.model.clusters import STOPPED_AT_DDL, ClusterMove, MoveLook
from homeworld.model.errors import UnavailableError
from homeworld.model.gtid import Position
from homeworld.model.movers import Phase
from homeworld.model.routing_rules import look_up
from homeworld.model.topology import Flavor, TabletType

FROZEN = "FROZEN"
FOR_CUTOVER = "stopped for cutover"
FOR_VDIFF = "for vdiff"
STOPPED_AT_POSITION = "Stopped at position "
FLAVOR = "MySQL56/"  # in front of a GTID set in a stream's row
TERMINAL = "terminal error"
REVERSE = "_reverse"
_UNKNOWN_LAG = 2**62  # Vitess tells the largest number while it copies
_FNV_OFFSET, _FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3


@dataclass(frozen=True, slots=True)
class VStream:
    """One VReplication stream.

    :param number: Vitess's own, unique on its tablet.
    :param shard: where it writes; ``tablet`` is that shard's primary.
    :param state: as Vitess says it: Init, Stopped, Copying, Running, Lagging, Error.
    :param copying: tables whose copy has not come to its end.
    :param throttled: the component that waits; empty: none.
    """

    number: int
    shard: str
    tablet: str
    source_shard: str
    state: str
    message: str
    position: str
    copying: frozenset[str]
    rows_copied: int
    throttled: str = ""

    @property
    def handed_over(self) -> bool:
        """It was stopped by a switch: it has followed to the end, and must not run again."""
        return self.state == "Stopped" and self.message in {FROZEN, FOR_CUTOVER}

    @property
    def frozen(self) -> bool:
        """It is at its end for good. One that runs all the same has been started by somebody since."""
        return self.state == "Stopped" and self.message == FROZEN

    @property
    def compared(self) -> bool:
        """A VDiff has stopped it for a moment, to read both sides at one position, and starts it again."""
        return self.state == "Stopped" and (
            self.message == FOR_VDIFF or self.message.startswith(STOPPED_AT_POSITION)
        )

    @property
    def copied(self) -> bool:
        """It has everything that stood there when it began."""
        return bool(self.position) and not self.copying and self.state not in {"Init", "Copying"}


@dataclass(frozen=True, slots=True)
class VMove:
    """The streams of one direction. ``lag_seconds`` is the worst; None: Vitess does not say."""

    streams: tuple[VStream, ...]
    lag_seconds: float | None


def direction_name(move: ClusterMove, *, reverse: bool) -> str:
    """The workflow's name in Vitess for a direction."""
    return move.name + REVERSE if reverse else move.name


def move_of(answer: object, name: str) -> VMove | None:
    """The workflow of that name in what ``GetWorkflows`` printed; None: there is none.

    :raises UnavailableError: another shape.
    """
    for found in list_of(object_of(answer).get("workflows")):
        workflow = object_of(found)
        if workflow.get("name") != name:
            continue
        streams = [
            _stream(object_of(stream))
            for shard in object_of(workflow.get("shard_streams")).values()
            for stream in list_of(object_of(shard).get("streams"))
        ]
        if not streams:
            return None
        lag = number_of(workflow.get("max_v_replication_transaction_lag"))
        streams.sort(key=lambda stream: (stream.shard, stream.number))
        return VMove(tuple(streams), None if lag >= _UNKNOWN_LAG else float(max(lag, 0)))
    return None


def _stream(told: Mapping[str, object]) -> VStream:
    source = object_of(told.get("binlog_source"))
    throttler = object_of(told.get("throttler_status"))
    return VStream(
        number=number_of(told.get("id")),
        shard=text_of(told.get("shard")),
        tablet=alias_of(told.get("tablet")),
        source_shard=text_of(source.get("shard")),
        state=text_of(told.get("state")),
        message=text_of(told.get("message")),
        position=text_of(told.get("position")),
        copying=frozenset(text_of(object_of(one).get("table")) for one in list_of(told.get("copy_states"))),
        rows_copied=number_of(told.get("rows_copied")),
        throttled=text_of(throttler.get("component_throttled")),
    )


def alias_of(value: object) -> str:
    """A tablet's alias as commands take it: ``cell-0000000100``."""
    told = object_of(value)
    return f"{text_of(told.get('cell'))}-{number_of(told.get('uid')):010d}"


def denied_tables(shard: object) -> frozenset[str]:
    """The tables that a shard's primary refuses, of what ``GetShard`` printed."""
    record = object_of(object_of(shard).get("shard"))
    return frozenset(
        text_of(table)
        for control in list_of(record.get("tablet_controls"))
        if text_of(object_of(control).get("tablet_type")).upper() in {"PRIMARY", "1"}
        for table in list_of(object_of(control).get("denied_tables"))
    )


def primary_of(shard: object) -> str:
    """The alias of a shard's primary, of what ``GetShard`` printed.

    :raises UnavailableError: it has none.
    """
    alias = object_of(object_of(shard).get("shard")).get("primary_alias")
    if not alias:
        raise UnavailableError("a shard has no primary now")
    return alias_of(alias)


def shards_of(answer: object) -> Mapping[str, object]:
    """A keyspace's shards by name, each as ``GetShard`` prints it, of what ``FindAllShardsInKeyspace`` did.

    :raises UnavailableError: none.
    """
    shards = object_of(object_of(answer).get("shards"))
    if not shards:
        raise UnavailableError("Vitess names no shards of a keyspace")
    return shards


def rules_of(answer: object) -> dict[str, str]:
    """Routing rules in homeworld's form, of what ``GetRoutingRules`` printed.

    :raises UnavailableError: a rule with no target, or with several.
    """
    rules: dict[str, str] = {}
    for entry in list_of(object_of(answer).get("rules")):
        rule = object_of(entry)
        name, targets = text_of(rule.get("from_table")), list_of(rule.get("to_tables"))
        if not name or len(targets) != 1:
            raise UnavailableError(f"Vitess has a routing rule of another sort: {name or entry}")
        rules[name] = text_of(targets[0])
    return rules


def has_rows(answer: object) -> bool:
    """Whether a query run by a tablet found any row."""
    return bool(list_of(object_of(answer).get("rows")))


def leads_to(rules: Mapping[str, str], move: ClusterMove, tablet_type: TabletType) -> str:
    """The keyspace that the source's names of the moving tables lead to.

    :raises UnavailableError: not all to the same.
    """
    found = {
        (look_up(rules, move.source, table, tablet_type) or (move.source, table))[0] for table in move.tables
    }
    if len(found) != 1:
        raise UnavailableError(f"the routing rules lead the moving tables to {', '.join(sorted(found))}")
    return found.pop()


def position_text(gtid_set: str) -> str:
    """A server's GTID set in the form in which Vitess keeps positions.

    :raises InvalidError: none of MySQL's, which a statement might take for something else.
    """
    return f"{FLAVOR}{Position.parse(Flavor.MYSQL, gtid_set)}"


def look_of(
    move: ClusterMove,
    forward: VMove | None,
    reverse: VMove | None,
    rules: Mapping[str, str],
    *,
    journaled: bool = False,
    reverse_journaled: bool = False,
    denied: bool = False,
) -> MoveLook:
    """Everything put together.

    :raises UnavailableError: the rules lead the tables apart.
    """
    return MoveLook(
        exists=forward is not None,
        reverse_exists=reverse is not None,
        replicas_switched=leads_to(rules, move, TabletType.REPLICA) == move.target,
        primaries_switched=leads_to(rules, move, TabletType.PRIMARY) == move.target,
        frozen=_frozen(forward),
        reverse_frozen=_frozen(reverse),
        journaled=journaled,
        reverse_journaled=reverse_journaled,
        denied=denied,
    )


def _frozen(found: VMove | None) -> bool:
    return found is not None and all(stream.frozen for stream in found.streams)


def journal_id(keyspace: str, streams: Iterable[VStream]) -> int:
    """The number under which Vitess writes down that a switch of these streams can only go forward.

    It is FNV-1 of the keyspace that the streams write to and of their shards and numbers.

    >>> journal_id("customer", ())
    6434225684850324505
    """
    value = _FNV_OFFSET
    parts = (keyspace, *sorted(f"{stream.shard}:{stream.number}" for stream in streams))
    for byte in "".join(parts).encode():
        value = (value * _FNV_PRIME % 2**64) ^ byte
    return value & (2**63 - 1)


def phase_of(streams: Sequence[VStream]) -> Phase:
    """What a direction is doing, by the stream that is worst off."""
    if all(stream.handed_over for stream in streams):
        return Phase.FOLLOWING  # it has everything; whether it is asked for is not for it to say
    if any(stream.state == "Error" and TERMINAL in stream.message for stream in streams):
        return Phase.FAILED
    # Each stream comes to a statement at its own time: until the last has, all are told by the others.
    others = [stream for stream in streams if not ddl_of(stream)]
    if not others:
        return Phase.DDL
    if any(stream.state == "Stopped" and not stream.compared for stream in others):
        return Phase.STOPPED
    if any(stream.state == "Init" or not (stream.position or stream.copying) for stream in others):
        return Phase.STARTING
    if any(not stream.copied for stream in streams):
        return Phase.COPYING if any(stream.copying for stream in streams) else Phase.INDEXING
    return Phase.FOLLOWING


def ddl_of(stream: VStream) -> str:
    """The schema statement that a stream stopped for; empty: it did not."""
    # Vitess calls every state an error whose message has that word in it, a table's name too.
    if stream.state not in {"Stopped", "Error"} or not stream.message.startswith(STOPPED_AT_DDL):
        return ""
    return stream.message.removeprefix(STOPPED_AT_DDL)


def error_of(streams: Sequence[VStream]) -> str:
    """What Vitess says is wrong with streams, whether or not it tries them again."""
    return "; ".join(
        f"{stream.source_shard} to {stream.shard}: {stream.message}"
        for stream in streams
        if stream.state == "Error"
    )


def live_rows(gauges: Mapping[str, object], move: ClusterMove, *, reverse: bool) -> dict[str, int]:
    """Rows copied since the tablet's process began, by table, of the variables that it tells.

    A key is source keyspace, source shard, workflow, number and table, joined by dots.
    """
    start, name = (move.target if reverse else move.source) + ".", direction_name(move, reverse=reverse)
    found: dict[str, int] = {}
    for key, count in gauges.items():
        if not key.startswith(start):
            continue
        _, _, rest = key.removeprefix(start).partition(".")
        workflow, _, rest = rest.partition(".")
        _, _, table = rest.partition(".")
        if workflow == name and table in move.tables:
            found[table] = found.get(table, 0) + number_of(count)
    return found


def live_lags(gauges: Mapping[str, object], move: ClusterMove, *, reverse: bool) -> dict[int, float]:
    """Seconds behind by the stream's number, of the variables that a tablet tells."""
    start, name = (move.target if reverse else move.source) + ".", direction_name(move, reverse=reverse)
    found: dict[int, float] = {}
    for key, lag in gauges.items():
        if not key.startswith(start):
            continue
        _, _, rest = key.removeprefix(start).partition(".")
        workflow, _, number = rest.partition(".")
        seconds = number_of(lag)
        if workflow == name and number.isdigit() and seconds < _UNKNOWN_LAG:
            found[int(number)] = float(max(seconds, 0))
    return found
