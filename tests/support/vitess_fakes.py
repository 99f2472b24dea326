"""A Vitess cluster in memory: its streams, rules and switch, as ``model.clusters.ClusterMoves``.

Its switch of writes has the places at which a real one can stop: before anything, with the origin denied,
behind the journal, behind the rules, and at its end. A test's hook is called at each of them and may raise.
"""
# ruff: noqa: ARG002 - fakes keep the signatures of their Protocols, also where they need less

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from homeworld.model.clusters import HANDED_OVER, ClusterMove, ClusterStream, MoveLook
from homeworld.model.errors import DeadlineExceededError, HomeworldError, UnavailableError
from homeworld.model.movers import MoverProgress, Phase, StreamProgress, TableVerification, Verification
from homeworld.model.routing_rules import TrafficPhase, rules_for
from homeworld.model.topology import TabletType
from tests.support.workflow_scene import TABLE
from tests.support.workflow_world import World

NUMBERS = range(1, 5)
UUID = "4e5c3a8e-0000-4000-8000-000000000001"


def gtid(position: int) -> str:
    """A place in a log as a server tells it."""
    return f"{UUID}:1-{position}" if position else ""


def place_of(position: str) -> int:
    """What :func:`gtid` was made of."""
    return int(position.rpartition("-")[2]) if position else 0


@dataclass
class Streams:
    """One direction: ``running``, ``stopped``, at a statement (``ddl``), stopped for a ``cutover``, or
    ``frozen``.
    """

    state: str = "stopped"
    position: int | None = None
    copied: bool = False
    journaled: bool = False
    ddl: str = ""
    ddl_at: str = ""

    def meet(self, ddl: str, at: str) -> None:
        """Stop at a schema statement."""
        self.state, self.ddl, self.ddl_at = "ddl", ddl, at


@dataclass
class Cluster:
    """What Vitess remembers. ``denied`` are keyspaces whose primaries refuse the tables."""

    rules: dict[str, str] = field(default_factory=dict[str, str])
    vschemas: dict[str, Any] = field(default_factory=dict[str, Any])
    forward: Streams | None = None
    reverse: Streams | None = None
    denied: set[str] = field(default_factory=set[str])
    verified: dict[str, Verification] = field(default_factory=dict[str, Verification])


@dataclass
class VitessWorld(World):
    """Servers and the cluster beside them."""

    cluster: Cluster = field(default_factory=Cluster)
    claimed: bool = False
    streamed: set[tuple[str, int]] = field(default_factory=set[tuple[str, int]])
    """What streams wrote, as a place in a keyspace's log. Vitess would write it to where it came from, and
    stop at a row that is there."""

    def carry(self, to: str, key: int, value: str) -> None:
        """A stream writes a row."""
        self.streamed.add((to, len(self.logs.setdefault(to, []))))
        self.apply(to, TABLE, key, value)

    def pump(self, source: str, target: str) -> None:
        """Let the streams that run come to where the logs are."""
        for streams, origin, to in (
            (self.cluster.forward, source, target),
            (self.cluster.reverse, target, source),
        ):
            if streams is None or streams.state != "running":
                continue
            if not streams.copied:
                for key, value in self.rows[origin, TABLE].items():
                    self.carry(to, key, value)
                streams.position, streams.copied = len(self.logs.get(origin, [])), True
            log = self.logs.setdefault(origin, [])
            for at, (table, key, value) in enumerate(log[streams.position or 0 :], streams.position or 0):
                assert (origin, at) not in self.streamed, "it reads what the opposite streams wrote"
                if table == TABLE and value is not None:
                    self.carry(to, key, value)
            streams.position = len(log)


class FakeMoves:
    """The cluster as ``ClusterMoves``.

    :param shards: the names of each keyspace's.
    :param at: called with each place that a switch passes.
    """

    def __init__(
        self,
        world: VitessWorld,
        shards: Mapping[str, Sequence[str]],
        at: Callable[[str], None] = lambda _place: None,
    ) -> None:
        self.world = world
        self.at = at
        self.refusal = ""
        self.shards = shards

    @property
    def cluster(self) -> Cluster:
        return self.world.cluster

    def create(self, move: ClusterMove) -> None:
        if self.cluster.forward is not None:
            return
        assert "auto_increment" in str(self.cluster.vschemas[move.target]), "the vschema is there first"
        self.world.rows.setdefault((move.target, TABLE), {})
        self.cluster.forward = Streams()
        self._route(move, TrafficPhase.SOURCE)
        self.cluster.denied = {move.target}

    def _route(self, move: ClusterMove, phase: TrafficPhase) -> None:
        self.cluster.rules = rules_for(phase, move.tables, move.source, move.target, self.cluster.rules)
        if phase is TrafficPhase.TARGET:  # Vitess needs no rule from a name to itself
            del self.cluster.rules[f"{move.target}.{TABLE}"]

    def _leads(self, move: ClusterMove, suffix: str = "") -> str:
        return self.cluster.rules.get(f"{move.source}.{TABLE}{suffix}", move.source).partition(".")[0]

    def look(self, move: ClusterMove) -> MoveLook:
        cluster, switched = self.cluster, self._leads(move) == move.target
        forward, reverse = cluster.forward, cluster.reverse
        return MoveLook(
            exists=forward is not None,
            reverse_exists=reverse is not None,
            replicas_switched=self._leads(move, "@replica") == move.target,
            primaries_switched=switched,
            frozen=forward is not None and forward.state == "frozen",
            reverse_frozen=reverse is not None and reverse.state == "frozen",
            journaled=forward is not None and forward.journaled,
            reverse_journaled=reverse is not None and reverse.journaled,
            denied=(move.target if switched else move.source) in cluster.denied,
        )

    def _streams(self, *, reverse: bool) -> Streams:
        streams = self.cluster.reverse if reverse else self.cluster.forward
        if streams is None:
            raise UnavailableError("Vitess has no such streams")
        return streams

    def start(self, move: ClusterMove, *, reverse: bool) -> None:
        streams, seen = self._streams(reverse=reverse), self.look(move)
        if (
            streams.state in ("stopped", "ddl", "cutover")
            and not seen.halfway
            and seen.primaries_switched is reverse
        ):
            streams.state, streams.ddl, streams.ddl_at = "running", "", ""

    def stop(self, move: ClusterMove, *, reverse: bool) -> None:
        streams = self.cluster.reverse if reverse else self.cluster.forward
        if streams is not None and streams.state == "running":
            streams.state = "stopped"

    def progress(self, move: ClusterMove, *, reverse: bool, verify_id: str = "") -> MoverProgress:
        streams = self._streams(reverse=reverse)
        self.world.pump(move.source, move.target)
        over = streams.state in ("frozen", "cutover")
        phase = {"stopped": Phase.STOPPED, "ddl": Phase.DDL}.get(streams.state, Phase.FOLLOWING)
        told = StreamProgress("-", "-80", "", 0, 0, 0.0, unmeasured=HANDED_OVER if over else "")
        found = self.cluster.verified.get(verify_id)
        return MoverProgress(
            phase, streams.copied, (), (told,), 0.0, 0.0, 0.0, found, ddl=streams.ddl, ddl_at=streams.ddl_at
        )

    def check(self, move: ClusterMove, tablet_types: frozenset[TabletType], *, back: bool) -> None:
        if self.refusal:
            raise DeadlineExceededError(self.refusal)

    def switch_replicas(
        self, move: ClusterMove, tablet_types: frozenset[TabletType], *, back: bool, timeout_seconds: float
    ) -> None:
        for name, to in self.cluster.rules.items():
            if "@" in name:
                self.cluster.rules[name] = f"{move.source if back else move.target}.{TABLE}"
                assert to

    def switch_primaries(
        self, move: ClusterMove, *, back: bool, timeout_seconds: float, untouched: bool = False
    ) -> Mapping[str, str]:
        if untouched:
            seen = self.look(move)
            assert not seen.halfway, "a switch was begun"
            assert not seen.at(back=back), "the switch was made"
        try:
            while not self.look(move).at(back=back):
                self._go_on(move, back=back)
        except HomeworldError as error:
            seen = self.look(move)
            if seen.halfway:
                raise UnavailableError(f"begun: {error}") from error
            if not seen.at(back=back):
                raise DeadlineExceededError(f"not moved: {error}") from error
        return dict(self.cluster.rules)

    def _go_on(self, move: ClusterMove, *, back: bool) -> None:
        """One call of Vitess's own: from wherever it stands to its end."""
        cluster = self.cluster
        origin, to = (move.target, move.source) if back else (move.source, move.target)
        streams = self._streams(reverse=back)
        if not streams.journaled:
            self.at("begun")
            cluster.denied = {origin}
            self.at("denied")
            streams.state = "running"
            self.world.pump(move.source, move.target)
            streams.state = "cutover"
            other = Streams(position=len(self.world.logs.setdefault(to, [])), copied=True)
            if back:
                cluster.forward = other
            else:
                cluster.reverse = other
            self.at("streams made")
            streams.journaled = True
            self.at("journaled")
        cluster.denied = {origin}
        for name in [name for name in cluster.rules if "@" not in name]:
            cluster.rules[name] = f"{to}.{TABLE}"
        self.at("routed")
        other_streams = self._streams(reverse=not back)
        other_streams.state = "running"
        self.at("started")
        streams.state = "frozen"
        self.at("ended")

    def streams(self, move: ClusterMove, *, reverse: bool) -> tuple[ClusterStream, ...]:
        if (self.cluster.reverse if reverse else self.cluster.forward) is None:
            return ()
        origin, to = (move.target, move.source) if reverse else (move.source, move.target)
        return tuple(
            ClusterStream(number, shard, source)
            for shard in self.shards[to]
            for number, source in zip(NUMBERS, self.shards[origin], strict=False)
        )

    def admit(self, move: ClusterMove) -> None:
        self.cluster.denied = set()

    def serve_from(self, move: ClusterMove, keyspace: str) -> None:
        self.cluster.denied = {move.source, move.target} - {keyspace}

    def conclude(
        self,
        move: ClusterMove,
        *,
        back: bool,
        starts: Mapping[str, str],
        timeout_seconds: float,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        check()
        origin, to = (move.target, move.source) if back else (move.source, move.target)
        assert self._leads(move) == to, "the rules have made the switch"
        streams = self._streams(reverse=back)
        try:
            if streams.state != "frozen":
                self._conclude(move, back=back)
        except HomeworldError as error:
            if not streams.journaled:  # Vitess takes back what it did, and denies the side that serves
                streams.state = "running"
                self.cluster.denied = {to}
                self.at("cancelled")
                self.cluster.denied = {origin}
            raise UnavailableError(f"not concluded: {error}") from error
        others = self._streams(reverse=not back)
        if others.state == "stopped":
            (start,) = {place_of(start) for start in starts.values()}
            assert start <= (others.position or 0), "it begins no later than Vitess would have it"
            others.position = start
        self.at("placed")

    def _conclude(self, move: ClusterMove, *, back: bool) -> None:
        """Vitess's own switch, with clients going on, and the streams in the other direction not started."""
        origin, to = (move.target, move.source) if back else (move.source, move.target)
        streams = self._streams(reverse=back)
        if not streams.journaled:
            self.at("begun")
            self.cluster.denied = {origin}
            self.at("denied")
            assert self.world.locked <= {origin}, "of which Vitess locks the tables, too"
            streams.state = "running"
            self.world.pump(move.source, move.target)
            streams.state = "cutover"
            other = Streams(position=len(self.world.logs.setdefault(to, [])), copied=True)
            if back:
                self.cluster.forward = other
            else:
                self.cluster.reverse = other
            self.at("streams made")
            streams.journaled = True
            self.at("journaled")
        streams.state = "frozen"
        self.at("ended")

    def settle(self, move: ClusterMove, *, back: bool, timeout_seconds: float) -> None:
        for _ in range(6):
            seen = self.look(move)
            if seen.at(back=back) and not seen.halfway:
                return
            self._go_on(move, back=seen.begun_back if seen.halfway else back)
        raise UnavailableError("it does not settle")

    def verify(self, move: ClusterMove, verify_id: str) -> None:
        self.world.pump(move.source, move.target)
        ours, theirs = self.world.rows[move.source, TABLE], self.world.rows[move.target, TABLE]
        wrong = sum(ours.get(key) != theirs.get(key) for key in ours.keys() | theirs.keys())
        found = TableVerification(TABLE, len(ours), wrong, 0, 0, 0)
        self.cluster.verified[verify_id] = Verification(
            verify_id, "completed", len(ours), len(ours), 0.0, (found,)
        )

    def stop_verifying(self, move: ClusterMove, verify_id: str) -> None: ...

    def complete(self, move: ClusterMove) -> None:
        if self.cluster.forward is not None:
            assert self.look(move).at(back=False)
            self.world.rows.pop((move.source, TABLE), None)
            self._forget()

    def cancel(self, move: ClusterMove) -> None:
        if self.cluster.forward is not None:
            assert not self.look(move).primaries_switched, "Vitess refuses to cancel then"
            self.world.rows.pop((move.target, TABLE), None)
            self._forget()

    def _forget(self) -> None:
        self.cluster.forward = self.cluster.reverse = None
        self.cluster.denied = set()
