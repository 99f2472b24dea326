"""MoveTables and VDiff in a branch's cluster, through vtctldclient.

It decides nothing: what is so is read by :mod:`homeworld.engines.vitess.moves_look`, and each call asks first
and does what is missing, unless its caller has just asked and clients wait. Traffic is moved in
:mod:`homeworld.engines.vitess.moves_traffic` and :mod:`homeworld.engines.vitess.moves_conclusion`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from homeworld.engines.vitess import moves_look as look
from homeworld.engines.vitess.moves_commands import Commands, Vtctld
from homeworld.engines.vitess.moves_conclusion import Conclusion
from homeworld.engines.vitess.moves_look import VMove
from homeworld.engines.vitess.moves_progress import progress_of
from homeworld.engines.vitess.moves_traffic import Traffic
from homeworld.engines.vitess.vdiff import Shown, is_known, shown, uuid_of
from homeworld.model.clusters import ClusterMove, ClusterStream, MoveLook
from homeworld.model.errors import HomeworldError, UnavailableError
from homeworld.model.movers import MoverProgress, Verification
from homeworld.model.topology import TabletType

CREATE_SECONDS = 120.0
END_SECONDS = 600.0  # dropping tables may take long
VDIFF_CATCH_UP = "60s"
SAMPLE_ROWS = 20
_log = logging.getLogger(__name__)


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
        self._ask = Commands(vtctld)
        self._traffic = Traffic(self._ask)
        self._conclusion = Conclusion(self._ask, self._traffic)
        self._vars = tablet_vars

    # -- making and ending -----------------------------------------------------------------------------------

    def create(self, move: ClusterMove) -> None:
        """Make the workflow, not started."""
        if (found := self._ask.streams(move, reverse=False)) is not None:
            if self._is_whole(move, found):
                return
            self.cancel(move)  # whoever made it has died over it
        handling = ["--sharded-auto-increment-handling=REMOVE"]
        if move.global_keyspace:
            handling = [
                "--sharded-auto-increment-handling=REPLACE",
                f"--global-keyspace={move.global_keyspace}",
            ]
        self._ask.move(
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

    def _is_whole(self, move: ClusterMove, found: VMove) -> bool:
        """Whether every shard of the target has streams, and lets nobody else write."""
        shards = look.shards_of(self._ask.run(move, "FindAllShardsInKeyspace", move.target))
        return {stream.shard for stream in found.streams} == set(shards) and all(
            look.denied_tables(shard) >= frozenset(move.tables) for shard in shards.values()
        )

    def complete(self, move: ClusterMove) -> None:
        """End the move; the rules stay."""
        if self._ask.streams(move, reverse=False) is not None:
            self._ask.move(move, "complete", "--keep-routing-rules", timeout_seconds=END_SECONDS)
        elif self._ask.streams(move, reverse=True) is not None:
            self._end_reverse(move)

    def _end_reverse(self, move: ClusterMove) -> None:
        """End the streams back where Vitess has forgotten the way there, and so refuses to complete: whoever
        asked drops the source's tables.
        """
        self._ask.move(move, "stop", reverse=True)
        name = look.direction_name(move, reverse=True)
        for keyspace in (move.source, move.target):
            shards = look.shards_of(self._ask.run(move, "FindAllShardsInKeyspace", keyspace))
            for shard, record in shards.items():
                if look.denied_tables(record) & frozenset(move.tables):
                    self._ask.deny(move, f"{keyspace}/{shard}", denied=False)
                if keyspace == move.source:
                    query = f"delete from _vt.vreplication where workflow = {_literal(name)}"  # noqa: S608
                    self._ask.run(move, "ExecuteFetchAsDBA", "--json", look.primary_of(record), query)

    def cancel(self, move: ClusterMove) -> None:
        """End the move with traffic on the source; the rules stay."""
        if self._ask.streams(move, reverse=False) is not None:
            self._ask.move(move, "cancel", "--keep-routing-rules", timeout_seconds=END_SECONDS)

    # -- looking ---------------------------------------------------------------------------------------------

    def look(self, move: ClusterMove) -> MoveLook:
        """What is so now.

        :raises UnavailableError: the cluster does not say.
        """
        return self._traffic.look(move)

    def progress(self, move: ClusterMove, *, reverse: bool, verify_id: str = "") -> MoverProgress:
        """How far a direction is.

        :raises UnavailableError: the cluster does not say, or there are no streams of the direction.
        """
        found = self._ask.streams(move, reverse=reverse)
        if found is None:
            raise UnavailableError(f"Vitess has no streams {look.direction_name(move, reverse=reverse)}")
        tablets = sorted({stream.tablet for stream in found.streams})
        live = {tablet: self._vars(move.branch_id, tablet) for tablet in tablets}
        verification = self._shown(move, verify_id) if verify_id else None
        return progress_of(move, found, live, reverse=reverse, verification=verification)

    # -- streams ---------------------------------------------------------------------------------------------

    def start(self, move: ClusterMove, *, reverse: bool) -> None:
        """Let the streams of a direction run; those that a switch has ended are left."""
        found = self._ask.streams(move, reverse=reverse)
        if found is None:
            raise UnavailableError(f"Vitess has no streams {look.direction_name(move, reverse=reverse)}")
        # One is enough: a switch that is under way ends them one after the other.
        if any(stream.handed_over for stream in found.streams):
            seen = self.look(move)
            if seen.halfway or seen.primaries_switched is not reverse:
                return  # they would read what those in the other direction write
        if any(stream.state in {"Stopped", "Error"} for stream in found.streams):
            self._ask.move(move, "start", reverse=reverse)

    def stop(self, move: ClusterMove, *, reverse: bool) -> None:
        """Stop them; none of them, and no comparison over them, goes on. No such streams: a no-op."""
        found = self._ask.streams(move, reverse=reverse)
        if found is not None and any(stream.state != "Stopped" for stream in found.streams):
            self._ask.move(move, "stop", reverse=reverse)

    # -- traffic ---------------------------------------------------------------------------------------------

    def check(self, move: ClusterMove, tablet_types: frozenset[TabletType], *, back: bool) -> None:
        """What a switch would do, done by nobody.

        :raises InvalidError: Vitess would refuse.
        """
        self._traffic.check(move, tablet_types, back=back)

    def switch_replicas(
        self, move: ClusterMove, tablet_types: frozenset[TabletType], *, back: bool, timeout_seconds: float
    ) -> None:
        """Move replica reads.

        :raises DeadlineExceededError: they are where they were.
        """
        self._traffic.switch_replicas(move, tablet_types, back=back, timeout_seconds=timeout_seconds)

    def switch_primaries(
        self, move: ClusterMove, *, back: bool, timeout_seconds: float, untouched: bool = False
    ) -> Mapping[str, str]:
        """Move writes; the rules then.

        :raises DeadlineExceededError: Vitess did not, and all is as it was.
        :raises UnavailableError: it was begun and is not at its end, or Vitess does not say.
        """
        return self._traffic.switch_primaries(
            move, back=back, timeout_seconds=timeout_seconds, untouched=untouched
        )

    def settle(self, move: ClusterMove, *, back: bool, timeout_seconds: float) -> None:
        """Bring a begun switch to an end, with writes where they are wanted.

        :raises UnavailableError: not there yet.
        """
        self._traffic.settle(move, back=back, timeout_seconds=timeout_seconds)

    def streams(self, move: ClusterMove, *, reverse: bool) -> tuple[ClusterStream, ...]:
        """The streams of a direction; empty: there are none."""
        found = self._ask.streams(move, reverse=reverse)
        return tuple(
            ClusterStream(stream.number, stream.shard, stream.source_shard)
            for stream in (found.streams if found is not None else ())
        )

    def admit(self, move: ClusterMove) -> None:
        """Let the primaries of both sides take writes to the tables."""
        self._conclusion.admit(move)

    def serve_from(self, move: ClusterMove, keyspace: str) -> None:
        """Let the primaries of a keyspace take writes to the tables, and those of the other side none."""
        self._traffic.serve_from(move, keyspace)

    def conclude(
        self,
        move: ClusterMove,
        *,
        back: bool,
        starts: Mapping[str, str],
        timeout_seconds: float,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Let Vitess make the switch that its rules have made, and place the streams in the other direction.

        :raises UnavailableError: it is not there yet; calling again goes on.
        """
        self._conclusion.conclude(
            move, back=back, starts=starts, timeout_seconds=timeout_seconds, check=check
        )

    # -- comparing -------------------------------------------------------------------------------------------

    def verify(self, move: ClusterMove, verify_id: str) -> None:
        """Begin a VDiff, or go on with it. Older ones of the move go.

        :raises UnavailableError: it cannot be begun now.
        """
        wanted = uuid_of(verify_id)
        try:
            if not is_known(self._ask.vdiff(move, "show", "all"), wanted):
                self._ask.vdiff(move, "delete", "all")
                self._ask.vdiff(
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
                self._ask.vdiff(move, "resume", wanted)
        except HomeworldError as error:
            raise UnavailableError(error.message) from error

    def stop_verifying(self, move: ClusterMove, verify_id: str) -> None:
        """Let Vitess compare no more; what it found stays."""
        if is_known(self._ask.vdiff(move, "show", "all"), uuid_of(verify_id)):
            self._ask.vdiff(move, "stop", uuid_of(verify_id))

    def _shown(self, move: ClusterMove, verify_id: str) -> Verification | None:
        try:
            return self._show(move, verify_id).verification
        except UnavailableError:
            raise
        except HomeworldError as error:
            _log.debug("move %s: verification %s: %s", move.name, verify_id, error)
            return None  # Vitess knows of none under this id

    def _show(self, move: ClusterMove, verify_id: str) -> Shown:
        answer = self._ask.vdiff(move, "show", uuid_of(verify_id), "--verbose")
        return shown(answer, verify_id, move.tables, time.time())


def _literal(text: str) -> str:
    """A text in a statement for MySQL: of its bytes, so that nothing in it ends it."""
    return f"x'{text.encode().hex()}'"
