"""Vitess clusters as other rooms see them: what a branch's cluster has to be, and the moves that run in it.

The Protocols are carried out by ``engines/vitess``; all calls come from worker threads, block, and have a
deadline. Every call is idempotent: what is there already is left, what has happened is not done again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from homeworld.model.movers import MoverProgress, OnDdl
from homeworld.model.topology import Endpoint, TabletType


@dataclass(frozen=True, slots=True)
class ClusterShard:
    """A shard: the MySQL schema of its tables, its primary's server and its replicas' (homeworld's ids)."""

    name: str
    schema: str
    primary_server_id: str
    replica_server_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClusterKeyspace:
    """A keyspace with its vschema in Vitess's JSON form. Shards are ordered by range, and no two of them are
    on one server: Vitess keeps one sidecar schema a keyspace on it, whose journal has room for one shard.
    """

    name: str
    sharded: bool
    vschema: Mapping[str, object]
    shards: tuple[ClusterShard, ...]


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """What a branch's cluster has to be; what it has beyond that goes.

    :param given: of a cluster that others run, the keyspaces whose vschemas are to be those; the rest stays
        what it is, and nothing goes. None: the cluster is ours.
    """

    branch_id: str
    keyspaces: tuple[ClusterKeyspace, ...]
    given: frozenset[str] | None = None


class RuleSetter(Protocol):
    """Routing rules about to be set; made by :meth:`SwitchedClusters.begin_rules`, which has read those that
    there are. For one thread at a time; closed by whoever has it, used or not.
    """

    @property
    def rules(self) -> Mapping[str, str]:
        """The rules that there are."""
        ...

    def set(self, rules: Mapping[str, str], timeout_seconds: float) -> None:
        """Set all of them; returns once vtgate serves by them.

        :raises DeadlineExceededError: not in time. :raises UnavailableError: nobody says what came of it.
        :raises InvalidError: Vitess refuses them.
        """
        ...

    def close(self) -> None:
        """Let others set rules again; what was not set stays as it was."""
        ...


class Clusters(Protocol):
    """The clusters of an installation, one a branch."""

    def follow(
        self, spec: ClusterSpec, timeout_seconds: float, check: Callable[[], None] = lambda: None
    ) -> None:
        """Make the cluster what the spec says: etcd, vtctld, vtgate, keyspaces, shards, a tablet for each
        shard on each of its servers, primaries as the spec has them, vschemas. The servers and schemas exist.
        Returns once vtgate serves every shard's primary.

        :param check: called once nobody else is at work on the cluster, and before anything is let go; raises
            where this is not the caller's to do any more.
        :raises UnavailableError: not in time; calling again goes on.
        :raises InvalidError: this cannot be had (a vschema that Vitess refuses, servers of a wrong flavor,
            two shards of a keyspace on one server).
        """
        ...

    def end(self, branch_id: str, check: Callable[[], None] = lambda: None) -> None:
        """Stop the branch's processes and forget its topology. Unknown ids are fine.

        :param check: see :meth:`follow`.
        """
        ...

    def vtgate(self, branch_id: str) -> Endpoint:
        """Where the branch's vtgate takes MySQL clients. User and password are empty: it takes the accounts
        of the engine's roles.

        :raises NotFoundError: the branch has no cluster.
        """
        ...

    def rules(self, branch_id: str) -> Mapping[str, str]:
        """The routing rules as the cluster has them now, in homeworld's form: ``t``, ``ks.t@replica`` … to
        ``ks.t``.
        """
        ...

    def apply_rules(self, branch_id: str, rules: Mapping[str, str]) -> None:
        """Set all routing rules; returns once vtgate serves by them."""
        ...

    def set_rules(
        self, branch_id: str, rules: Mapping[str, str], names: Collection[str], timeout_seconds: float
    ) -> None:
        """Set the rules of these names as ``rules`` has them (of one that is not in it: none), and no others;
        returns once vtgate serves by them. What is so already is left.

        :raises DeadlineExceededError: it does not in time.
        """
        ...

    def await_rules(self, branch_id: str, rules: Mapping[str, str], timeout_seconds: float) -> None:
        """Return once vtgate serves by these rules, whoever has set them.

        :raises DeadlineExceededError: it does not in time.
        """
        ...

    def vschema(self, branch_id: str, keyspace: str) -> Mapping[str, object]:
        """The keyspace's vschema as the cluster has it now."""
        ...

    def check_vschema(self, branch_id: str, keyspace: str, vschema: Mapping[str, object]) -> None:
        """Ask whether the cluster would take this vschema; nothing changes. A keyspace that it does not have
        yet is judged alike as far as that can be done.

        :raises InvalidError: it would not; in Vitess's words.
        :raises UnavailableError: the cluster does not say.
        """
        ...


class SwitchedClusters(Clusters, Protocol):
    """Clusters of which some are used by nobody but us, and switched by their rules: the calls beyond
    :class:`Clusters` are for those.
    """

    def begin_rules(self, branch_id: str) -> RuleSetter:
        """Get ready to set rules while clients wait: what can be done before is done now. Nobody else sets
        rules of the branch until it is closed.

        :raises UnavailableError: it cannot be got ready now.
        """
        ...

    def sidecar(self, branch_id: str, keyspace: str) -> str:
        """The schema in which the tablets of a keyspace keep what they must know, on each of its servers.

        :raises NotFoundError: the branch has no cluster of ours.
        """
        ...


STOPPED_AT_DDL = "Stopped at DDL "
"""How the message of a stream begins that has stopped before a schema statement, which follows."""
HANDED_OVER = "a switch of traffic has ended it"
"""What :meth:`ClusterMoves.progress` says (as ``unmeasured``) of a stream that must not run again."""


@dataclass(frozen=True, slots=True)
class ClusterMove:
    """One MoveTables as Vitess is asked for it.

    :param name: of the workflow in Vitess; the reverse one has ``_reverse`` behind it.
    :param global_keyspace: where sequences are made for AUTO_INCREMENT tables that become sharded; empty:
        none.
    """

    branch_id: str
    name: str
    source: str
    target: str
    tables: tuple[str, ...]
    on_ddl: OnDdl
    defer_secondary_keys: bool
    global_keyspace: str = ""


@dataclass(frozen=True, slots=True)
class MoveLook:
    """What Vitess says of a move now.

    :param exists: Vitess knows it. ``reverse_exists``: and a stream back.
    :param replicas_switched: replica reads are the target's; ``primaries_switched``: writes are.
    :param frozen: the streams to the target are at their end, traffic has gone there; ``reverse_frozen``:
        those back are.
    :param journaled: a switch of primaries to the target has passed the point from which Vitess only goes
        forward. ``reverse_journaled``: one back has.
    :param denied: the side that has the writes refuses them: a switch was begun, and not brought to its end.
    """

    exists: bool
    reverse_exists: bool = False
    replicas_switched: bool = False
    primaries_switched: bool = False
    frozen: bool = False
    reverse_frozen: bool = False
    journaled: bool = False
    reverse_journaled: bool = False
    denied: bool = False

    def at(self, *, back: bool) -> bool:
        """Whether writes are the target's (``back``: the source's), with nothing left to be done for it."""
        if back:
            return not self.primaries_switched and (self.reverse_frozen or not self.reverse_journaled)
        return self.primaries_switched and (self.frozen or not self.exists)

    @property
    def begun_back(self) -> bool:
        """Of one that is :attr:`halfway`: whether it is on its way back to the source."""
        if self.primaries_switched:
            return self.denied or self.reverse_journaled
        return self.reverse_journaled and not self.reverse_frozen and not self.denied

    @property
    def halfway(self) -> bool:
        """A switch of primaries, either way, was begun and not brought to its end."""
        if self.primaries_switched:
            return not self.at(back=False) or self.reverse_journaled or self.denied
        return self.journaled or (self.reverse_journaled and not self.reverse_frozen) or self.denied


@dataclass(frozen=True, slots=True)
class ClusterStream:
    """A stream of a move: its number on the tablet of ``shard``'s primary, where it writes, and the shard
    that it reads.
    """

    number: int
    shard: str
    source_shard: str


class ClusterMoves(Protocol):
    """MoveTables and VDiff in a branch's cluster."""

    def create(self, move: ClusterMove) -> None:
        """Make the workflow in Vitess, not started: target tables, sequences, routing rules to the source.

        :raises InvalidError: Vitess refuses it; in Vitess's words.
        """
        ...

    def look(self, move: ClusterMove) -> MoveLook:
        """What is so now.

        :raises UnavailableError: the cluster does not say.
        """
        ...

    def start(self, move: ClusterMove, *, reverse: bool) -> None:
        """Let the streams of a direction run."""
        ...

    def stop(self, move: ClusterMove, *, reverse: bool) -> None:
        """Stop them; when this returns they write no more."""
        ...

    def progress(self, move: ClusterMove, *, reverse: bool, verify_id: str = "") -> MoverProgress:
        """How far a direction is, with the verification of that id, if any."""
        ...

    def check(self, move: ClusterMove, tablet_types: frozenset[TabletType], *, back: bool) -> None:
        """Ask Vitess what a switch would do, and let it do nothing.

        :raises InvalidError: it would refuse; in Vitess's words.
        """
        ...

    def settle(self, move: ClusterMove, *, back: bool, timeout_seconds: float) -> None:
        """Bring a switch of primaries that was begun to an end, whatever Vitess has done of it, so that
        writes are the target's (``back``: the source's) and go on there. A no-op where they are.

        :raises UnavailableError: it is not there yet; calling again goes on.
        """
        ...

    def switch_replicas(
        self, move: ClusterMove, tablet_types: frozenset[TabletType], *, back: bool, timeout_seconds: float
    ) -> None:
        """Move replica reads to the target (or ``back`` to the source); done already: a no-op.

        :raises DeadlineExceededError: Vitess could not in time, and has left them where they were.
        """
        ...

    def streams(self, move: ClusterMove, *, reverse: bool) -> tuple[ClusterStream, ...]:
        """The streams of a direction; empty: there are none.

        :raises UnavailableError: the cluster does not say.
        """
        ...

    def admit(self, move: ClusterMove) -> None:
        """Let the primaries of both sides take writes to the tables: rules alone decide where they go.

        :raises UnavailableError: the cluster does not answer.
        """
        ...

    def serve_from(self, move: ClusterMove, keyspace: str) -> None:
        """Let the primaries of one side's keyspace take writes to the tables, and those of the other none.

        :raises UnavailableError: the cluster does not answer.
        """
        ...

    def conclude(
        self,
        move: ClusterMove,
        *,
        back: bool,
        starts: Mapping[str, str],
        timeout_seconds: float,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Let Vitess make the switch that its rules have made already, with the origin quiet since: streams
        end, those in the other direction are made, and begin at ``starts``. They do not run yet. Done
        already: a no-op, but that those which do not run begin there.

        :param back: whether the switch leads back to the source.
        :param starts: by shard of the side that has the writes, the GTID set that its server had when the
            first of them came. Empty: a switch that was not made by rules; its streams run already.
        :param check: called before each act; raises where this is not the caller's to do any more.
        :raises UnavailableError: it is not there yet; calling again goes on.
        :raises InvalidError: a start is no GTID set of MySQL's.
        """
        ...

    def switch_primaries(
        self, move: ClusterMove, *, back: bool, timeout_seconds: float, untouched: bool = False
    ) -> Mapping[str, str]:
        """Move writes to the target (or ``back`` to the source); done already: a no-op.

        :param untouched: whoever calls has just seen by :meth:`look` that no switch was begun; clients wait,
            so it is not asked again.
        :returns: the branch's routing rules, as Vitess has set them.
        :raises DeadlineExceededError: Vitess could not in time, and has left traffic where it was.
        :raises UnavailableError: Vitess did not say what came of it: :meth:`look`.
        """
        ...

    def verify(self, move: ClusterMove, verify_id: str) -> None:
        """Begin a VDiff under this id, or go on with it."""
        ...

    def stop_verifying(self, move: ClusterMove, verify_id: str) -> None:
        """Let the VDiff compare no more; what it found stays. No such VDiff: a no-op."""
        ...

    def complete(self, move: ClusterMove) -> None:
        """End the move: the source's tables and all streams go, the rules stay as they are. No such move: a
        no-op.
        """
        ...

    def cancel(self, move: ClusterMove) -> None:
        """End the move with traffic on the source: the target's tables and all streams go, the rules stay as
        they are. No such move: a no-op.
        """
        ...
