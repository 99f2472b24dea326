"""MoveTables and VDiff in a branch's cluster, through vtctldclient.

It decides nothing: what is so is read by :mod:`homeworld.engines.vitess.moves_look`, and each call asks first
and does what is missing. Invariant: whether a switch happened is read from the rules and streams themselves,
never from an answer that came or did not; past Vitess's own point of no return (its journal) a switch is only
ever called again, and undone by one in the other direction.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Protocol

from homeworld.engines.vitess import moves_look as look
from homeworld.engines.vitess.moves_look import VMove
from homeworld.engines.vitess.moves_progress import progress_of
from homeworld.engines.vitess.vdiff import Shown, is_known, shown, uuid_of
from homeworld.model.clusters import ClusterMove, MoveLook
from homeworld.model.errors import (
    DeadlineExceededError,
    HomeworldError,
    InvalidError,
    UnavailableError,
)
from homeworld.model.movers import MoverProgress, Verification
from homeworld.model.topology import TabletType

ANSWER_SECONDS = 30.0
CREATE_SECONDS = 120.0
END_SECONDS = 600.0  # dropping tables may take long
LAG_ALLOWED = "10s"
AGAIN_SECONDS = 0.5  # between calls of a switch that was begun
SILENT_SECONDS = 1.0
VDIFF_CATCH_UP = "60s"
SAMPLE_ROWS = 20
_log = logging.getLogger(__name__)


class Vtctld(Protocol):
    """Runs a command of vtctldclient against a branch's vtctld."""

    def run(self, branch_id: str, *args: str, timeout_seconds: float) -> object:
        """The JSON that the command prints, parsed; None where it prints none.

        :raises InvalidError: vtctld refused, in its words.
        :raises UnavailableError: it was not reached, or did not say in time what came of it.
        """
        ...


class TabletVars(Protocol):
    """The variables of a tablet's process, live."""

    def __call__(self, branch_id: str, tablet: str) -> Mapping[str, object]:
        """What the tablet of that alias publishes; empty: it cannot be had now."""
        ...


def _no_vars(branch_id: str, tablet: str) -> Mapping[str, object]:  # noqa: ARG001 - the Protocol's signature
    return {}


class VitessMoves:
    """Implements ``model.clusters.ClusterMoves``. Safe among threads: it remembers nothing."""

    def __init__(self, vtctld: Vtctld, tablet_vars: TabletVars = _no_vars) -> None:
        self._vtctld = vtctld
        self._vars = tablet_vars

    # -- making and ending -----------------------------------------------------------------------------------

    def create(self, move: ClusterMove) -> None:
        """Make the workflow, not started."""
        if self._streams(move, reverse=False) is not None:
            return
        handling = ["--sharded-auto-increment-handling=REMOVE"]
        if move.global_keyspace:
            handling = [
                "--sharded-auto-increment-handling=REPLACE",
                f"--global-keyspace={move.global_keyspace}",
            ]
        self._move(
            move,
            "create",
            f"--source-keyspace={move.source}",
            f"--tables={','.join(move.tables)}",
            "--auto-start=false",
            f"--on-ddl={move.on_ddl}",
            f"--defer-secondary-keys={str(move.defer_secondary_keys).lower()}",
            # From the primary: a replica's log may be behind what a switch has to wait for.
            "--tablet-types=primary",
            *handling,
            timeout_seconds=CREATE_SECONDS,
        )

    def complete(self, move: ClusterMove) -> None:
        """End the move; the rules stay."""
        if self._streams(move, reverse=False) is not None:
            self._move(move, "complete", "--keep-routing-rules", timeout_seconds=END_SECONDS)

    def cancel(self, move: ClusterMove) -> None:
        """End the move with traffic on the source; the rules stay."""
        if self._streams(move, reverse=False) is not None:
            self._move(move, "cancel", "--keep-routing-rules", timeout_seconds=END_SECONDS)

    # -- looking ---------------------------------------------------------------------------------------------

    def look(self, move: ClusterMove) -> MoveLook:
        """What is so now.

        :raises UnavailableError: the cluster does not say.
        """
        forward, reverse = (self._streams(move, reverse=way) for way in (False, True))
        rules = look.rules_of(self._run(move, "GetRoutingRules"))
        seen = look.look_of(move, forward, reverse, rules)
        serving = move.target if seen.primaries_switched else move.source
        shards = {
            name: look.shards_of(self._run(move, "FindAllShardsInKeyspace", name))
            for name in (move.source, move.target)
        }
        return look.look_of(
            move,
            forward,
            reverse,
            rules,
            journaled=self._journaled(move, forward, move.target, shards[move.source]),
            reverse_journaled=self._journaled(move, reverse, move.source, shards[move.target]),
            denied=any(
                look.denied_tables(shard) & frozenset(move.tables) for shard in shards[serving].values()
            ),
        )

    def _journaled(
        self, move: ClusterMove, found: VMove | None, to: str, shards: Mapping[str, object]
    ) -> bool:
        """Whether any of the shards that streams read has the journal of their switch."""
        if found is None:
            return False
        number = look.journal_id(to, found.streams)
        query = f"select id from _vt.resharding_journal where id = {number:d}"  # noqa: S608 - a number
        return any(
            look.has_rows(
                self._run(move, "ExecuteFetchAsDBA", "--json", "--max-rows=10", look.primary_of(shard), query)
            )
            for shard in shards.values()
        )

    def progress(self, move: ClusterMove, *, reverse: bool, verify_id: str = "") -> MoverProgress:
        """How far a direction is.

        :raises UnavailableError: the cluster does not say, or there are no streams of the direction.
        """
        found = self._streams(move, reverse=reverse)
        if found is None:
            raise UnavailableError(f"Vitess has no streams {look.direction_name(move, reverse=reverse)}")
        tablets = sorted({stream.tablet for stream in found.streams})
        live = {tablet: self._vars(move.branch_id, tablet) for tablet in tablets}
        verification = self._shown(move, verify_id) if verify_id else None
        return progress_of(move, found, live, reverse=reverse, verification=verification)

    def _streams(self, move: ClusterMove, *, reverse: bool) -> VMove | None:
        keyspace = move.source if reverse else move.target
        answer = self._run(move, "GetWorkflows", "--show-all", "--include-logs=false", keyspace)
        return look.move_of(answer, look.direction_name(move, reverse=reverse))

    # -- streams ---------------------------------------------------------------------------------------------

    def start(self, move: ClusterMove, *, reverse: bool) -> None:
        """Let the streams of a direction run; those that a switch has ended are left."""
        found = self._streams(move, reverse=reverse)
        if found is None:
            raise UnavailableError(f"Vitess has no streams {look.direction_name(move, reverse=reverse)}")
        if all(stream.handed_over for stream in found.streams):
            return
        if any(stream.state in {"Stopped", "Error"} for stream in found.streams):
            self._move(move, "start", reverse=reverse)

    def stop(self, move: ClusterMove, *, reverse: bool) -> None:
        """Stop them; none of them, and no comparison over them, goes on. No such streams: a no-op."""
        found = self._streams(move, reverse=reverse)
        if found is not None and any(stream.state != "Stopped" for stream in found.streams):
            self._move(move, "stop", reverse=reverse)

    # -- traffic ---------------------------------------------------------------------------------------------

    def check(self, move: ClusterMove, tablet_types: frozenset[TabletType], *, back: bool) -> None:
        """What a switch would do, done by nobody.

        :raises InvalidError: Vitess would refuse.
        """
        self._move(move, *_traffic(tablet_types, ANSWER_SECONDS, back=back), "--dry-run")

    def switch(
        self, move: ClusterMove, tablet_types: frozenset[TabletType], *, back: bool, timeout_seconds: float
    ) -> None:
        """Move traffic; replica reads and writes by a call each."""
        if TabletType.PRIMARY in tablet_types:
            if len(tablet_types) > 1:
                raise InvalidError("replica reads and writes are switched by a call each")
            self._switch_primaries(move, back=back, timeout_seconds=timeout_seconds)
        elif not self._replicas_at(move, back=back):
            try:
                self._move(move, *_traffic(tablet_types, timeout_seconds, back=back))
            except HomeworldError as error:
                if not self._replicas_at(move, back=back):
                    raise DeadlineExceededError(
                        f"replica reads could not be moved: {error.message}"
                    ) from error

    def _replicas_at(self, move: ClusterMove, *, back: bool) -> bool:
        rules = look.rules_of(self._run(move, "GetRoutingRules"))
        wanted = move.source if back else move.target
        return all(
            look.leads_to(rules, move, tablet_type) == wanted
            for tablet_type in (TabletType.REPLICA, TabletType.RDONLY)
        )

    def _switch_primaries(self, move: ClusterMove, *, back: bool, timeout_seconds: float) -> None:
        """Call Vitess until it has moved writes, or has left them where they were.

        :raises DeadlineExceededError: Vitess did not, and all is as it was.
        :raises UnavailableError: it was begun and is not at its end, or Vitess does not say.
        """
        deadline = time.monotonic() + timeout_seconds
        seen = self.look(move)
        while not seen.at(back=back):
            refusal: HomeworldError | None = None
            try:
                self._call(move, seen, back=back, seconds=deadline - time.monotonic())
            except HomeworldError as error:
                _log.warning("move %s: switching writes: %s", move.name, error)
                refusal = error
                if isinstance(error, UnavailableError):
                    time.sleep(SILENT_SECONDS)  # Vitess hears that nobody waits any more, and takes it back
            seen = self.look(move)
            if seen.at(back=back):
                return
            said = f": {refusal.message}" if refusal else ""
            if not seen.halfway:
                raise DeadlineExceededError(f"Vitess did not move writes{said}")
            if time.monotonic() > deadline:
                raise UnavailableError(f"Vitess has begun to move writes and has not ended it{said}")
            time.sleep(AGAIN_SECONDS)

    def _call(self, move: ClusterMove, seen: MoveLook, *, back: bool, seconds: float) -> None:
        arguments = _traffic(frozenset({TabletType.PRIMARY}), seconds, back=back)
        if not back or seen.exists:
            self._move(move, *arguments, timeout_seconds=seconds + ANSWER_SECONDS)
        else:
            # The way there was lost when a way back broke off: the way back stands for itself.
            arguments[0] = "SwitchTraffic"
            self._move(move, *arguments, reverse=True, timeout_seconds=seconds + ANSWER_SECONDS)

    def settle(self, move: ClusterMove, *, back: bool, timeout_seconds: float) -> None:
        """Bring a begun switch to an end, with writes where they are wanted.

        Vitess's own way out of a switch that stopped anywhere is to be called again: it goes on, or takes
        back what it did. Only where it refuses to do either, before its point of no return, the serving side
        is made to take writes again by hand.

        :raises UnavailableError: not there yet.
        """
        deadline = time.monotonic() + timeout_seconds
        said = ""
        while True:
            seen = self.look(move)
            if seen.at(back=back) and not seen.halfway:
                return
            if time.monotonic() > deadline:
                raise UnavailableError(f"Vitess has not ended a switch of writes that was begun{said}")
            # What was begun ends first, in its own direction.
            onward = seen.begun_back if seen.halfway else back
            try:
                self._call(move, seen, back=onward, seconds=deadline - time.monotonic())
            except InvalidError as error:
                _log.warning("move %s: settling: %s", move.name, error)
                said = f": {error.message}"
                journaled = seen.reverse_journaled if onward else seen.journaled
                if seen.denied and not journaled and self.look(move) == seen:
                    self._allow(move, move.target if seen.primaries_switched else move.source)
            time.sleep(AGAIN_SECONDS)

    def _allow(self, move: ClusterMove, keyspace: str) -> None:
        """Let the primaries of a keyspace take writes to the tables, and those of the other none."""
        for name in (move.source, move.target):
            remove = ["--remove"] if name == keyspace else []
            for shard in look.shards_of(self._run(move, "FindAllShardsInKeyspace", name)):
                place = f"{name}/{shard}"
                denied = f"--denied-tables={','.join(move.tables)}"
                self._run(move, "SetShardTabletControl", denied, *remove, place, "primary")
                self._run(move, "RefreshStateByShard", place)

    # -- comparing -------------------------------------------------------------------------------------------

    def verify(self, move: ClusterMove, verify_id: str) -> None:
        """Begin a VDiff, or go on with it. Older ones of the move go.

        :raises UnavailableError: it cannot be begun now.
        """
        wanted = uuid_of(verify_id)
        try:
            if not is_known(self._vdiff(move, "show", "all"), wanted):
                self._vdiff(move, "delete", "all")
                self._vdiff(
                    move,
                    "create",
                    wanted,
                    # Both sides' primaries: what is switched to is what has to be equal.
                    "--tablet-types=primary",
                    f"--max-report-sample-rows={SAMPLE_ROWS}",
                    f"--filtered-replication-wait-time={VDIFF_CATCH_UP}",
                    "--row-diff-column-truncate-at=512",
                )
            elif self._show(move, verify_id).stopped:
                self._vdiff(move, "resume", wanted)
        except InvalidError as error:
            raise UnavailableError(error.message) from error

    def stop_verifying(self, move: ClusterMove, verify_id: str) -> None:
        """Let Vitess compare no more; what it found stays."""
        if is_known(self._vdiff(move, "show", "all"), uuid_of(verify_id)):
            self._vdiff(move, "stop", uuid_of(verify_id))

    def _shown(self, move: ClusterMove, verify_id: str) -> Verification | None:
        if not is_known(self._vdiff(move, "show", "all"), uuid_of(verify_id)):
            return None
        return self._show(move, verify_id).verification

    def _show(self, move: ClusterMove, verify_id: str) -> Shown:
        answer = self._vdiff(move, "show", uuid_of(verify_id), "--verbose")
        return shown(answer, verify_id, move.tables, time.time())

    # -- commands --------------------------------------------------------------------------------------------

    def _run(self, move: ClusterMove, *args: str, timeout_seconds: float = ANSWER_SECONDS) -> object:
        return self._vtctld.run(move.branch_id, *args, timeout_seconds=timeout_seconds)

    def _move(
        self, move: ClusterMove, *args: str, reverse: bool = False, timeout_seconds: float = ANSWER_SECONDS
    ) -> object:
        return self._run(
            move,
            "MoveTables",
            *_named(move, reverse=reverse),
            *args,
            timeout_seconds=timeout_seconds,
        )

    def _vdiff(self, move: ClusterMove, *args: str) -> object:
        return self._run(move, "VDiff", *_named(move, reverse=False), *args)


def _named(move: ClusterMove, *, reverse: bool) -> list[str]:
    return [
        f"--workflow={look.direction_name(move, reverse=reverse)}",
        f"--target-keyspace={move.source if reverse else move.target}",
        "--format=json",
    ]


def _traffic(tablet_types: frozenset[TabletType], seconds: float, *, back: bool) -> list[str]:
    """The arguments of a switch.

    Without ``--initialize-target-sequences``: Vitess asks every shard for the largest id in a schema of the
    first shard's name, and ours have names of their own. Whoever switches raises the sequences.
    """
    wanted = {*tablet_types, TabletType.RDONLY} if TabletType.PRIMARY not in tablet_types else tablet_types
    return [
        "ReverseTraffic" if back else "SwitchTraffic",
        f"--tablet-types={','.join(sorted(wanted))}",
        f"--timeout={max(1, round(seconds))}s",
        f"--max-replication-lag-allowed={LAG_ALLOWED}",
        "--enable-reverse-replication",
    ]
