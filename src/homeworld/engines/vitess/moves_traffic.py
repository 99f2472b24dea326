"""Moving traffic in a branch's cluster, and what is so of it.

Invariant: whether a switch happened is read from the rules and streams themselves, never from an answer that
came or did not; past Vitess's own point of no return (its journal) a switch is only ever called again, and
undone by one in the other direction.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from homeworld.engines.vitess import moves_look as look
from homeworld.engines.vitess.moves_commands import ANSWER_SECONDS, Commands
from homeworld.engines.vitess.moves_look import VMove
from homeworld.model.clusters import ClusterMove, MoveLook
from homeworld.model.errors import (
    DeadlineExceededError,
    HomeworldError,
    InvalidError,
    UnavailableError,
)
from homeworld.model.routing_rules import render
from homeworld.model.topology import TabletType

LAG_ALLOWED_SECONDS = 10.0
LAG_ALLOWED = f"{LAG_ALLOWED_SECONDS:.0f}s"
ANY_LAG = "87600h"  # Vitess asks for the lag of streams that it has stopped itself
AGAIN_SECONDS = 0.5  # between calls of a switch that was begun
SILENT_SECONDS = 1.0  # for Vitess to hear that nobody waits any more, and to take back what it did
PRIMARIES = frozenset({TabletType.PRIMARY})
_log = logging.getLogger(__name__)


class Traffic:
    """The part of ``model.clusters.ClusterMoves`` that moves traffic. Safe among threads."""

    def __init__(self, commands: Commands) -> None:
        self._ask = commands

    def look(self, move: ClusterMove) -> MoveLook:
        """What is so now.

        :raises UnavailableError: the cluster does not say.
        """
        forward, reverse = (self._ask.streams(move, reverse=way) for way in (False, True))
        rules = self._ask.rules(move)
        seen = look.look_of(move, forward, reverse, rules)
        serving = move.target if seen.primaries_switched else move.source
        shards = {
            name: look.shards_of(self._ask.run(move, "FindAllShardsInKeyspace", name))
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
            look.has_rows(self._ask.run(move, "ExecuteFetchAsDBA", "--json", look.primary_of(shard), query))
            for shard in shards.values()
        )

    def check(self, move: ClusterMove, tablet_types: frozenset[TabletType], *, back: bool) -> None:
        """What a switch would do, done by nobody.

        :raises InvalidError: Vitess would refuse, or the streams that writes would follow do not keep up.
        """
        if TabletType.PRIMARY in tablet_types:
            # Where rules lead away from a stream's target Vitess's dry run does not look at this.
            self._hold_close(move, back=back)
        try:
            if TabletType.PRIMARY in tablet_types:
                self._ask.move(
                    move,
                    *switch_arguments(tablet_types, ANSWER_SECONDS, back=False),
                    "--dry-run",
                    reverse=back,
                )
            else:
                self._ask.move(move, *switch_arguments(tablet_types, ANSWER_SECONDS, back=back), "--dry-run")
        except UnavailableError:
            raise
        except HomeworldError as error:
            raise InvalidError(error.message) from error

    def _hold_close(self, move: ClusterMove, *, back: bool) -> None:
        found = self._ask.streams(move, reverse=back)
        if found is None:
            return
        if wrong := look.error_of(found.streams):
            raise InvalidError(f"a stream is in error: {wrong}")
        if found.lag_seconds is None or found.lag_seconds > LAG_ALLOWED_SECONDS:
            told = "unknown" if found.lag_seconds is None else f"{found.lag_seconds:g} s"
            raise InvalidError(f"the streams are too far behind (lag: {told})")

    def switch_replicas(
        self, move: ClusterMove, tablet_types: frozenset[TabletType], *, back: bool, timeout_seconds: float
    ) -> None:
        """Move replica reads; done already: a no-op."""
        if not self._replicas_at(move, back=back):
            self._switch_replicas(move, tablet_types, back=back, seconds=timeout_seconds)

    def _switch_replicas(
        self, move: ClusterMove, tablet_types: frozenset[TabletType], *, back: bool, seconds: float
    ) -> None:
        """Move replica reads.

        :raises DeadlineExceededError: they are where they were.
        """
        at_target = look.leads_to(self._ask.rules(move), move, TabletType.PRIMARY) == move.target
        try:
            # As writes: once those are the target's, the way back has a name of its own.
            by_reverse = back and at_target
            arguments = switch_arguments(tablet_types, seconds, back=back and not by_reverse)
            if back or self._ask.streams(move, reverse=False) is not None:
                self._ask.move(move, *arguments, reverse=by_reverse)
            else:
                self._route_replicas(move)
        except HomeworldError as error:
            if not self._replicas_at(move, back=back):
                raise DeadlineExceededError(f"replica reads did not move: {error.message}") from error

    def _route_replicas(self, move: ClusterMove) -> None:
        """What Vitess does for replica reads where it has forgotten the way there: rules and no more."""
        rules = self._ask.rules(move)
        for table in move.tables:
            for name in (table, f"{move.source}.{table}", f"{move.target}.{table}"):
                for tablet_type in (TabletType.REPLICA, TabletType.RDONLY):
                    rules[f"{name}@{tablet_type}"] = f"{move.target}.{table}"
        self._ask.run_with_file(move, "--rules-file", render(rules), "ApplyRoutingRules")

    def _replicas_at(self, move: ClusterMove, *, back: bool) -> bool:
        rules = self._ask.rules(move)
        wanted = move.source if back else move.target
        return all(
            look.leads_to(rules, move, tablet_type) == wanted
            for tablet_type in (TabletType.REPLICA, TabletType.RDONLY)
        )

    def switch_primaries(
        self, move: ClusterMove, *, back: bool, timeout_seconds: float, untouched: bool
    ) -> Mapping[str, str]:
        """Call Vitess until it has moved writes, or has left them where they were. Clients wait meanwhile, so
        it asks for as little as can be.

        :param untouched: whoever calls has just seen that Vitess has begun no switch.
        :returns: the rules as Vitess has them then.
        :raises DeadlineExceededError: Vitess did not, and all is as it was.
        :raises UnavailableError: it was begun and is not at its end, or Vitess does not say.
        """
        deadline = time.monotonic() + timeout_seconds
        if not untouched and (rules := self._rules_there(move, back=back)) is not None:
            return rules
        journaled = False
        while True:
            refusal: HomeworldError | None = None
            try:
                self._call(move, back=back, seconds=deadline - time.monotonic(), journaled=journaled)
            except HomeworldError as error:
                _log.warning("move %s: switching writes: %s", move.name, error)
                refusal = error
                if isinstance(error, UnavailableError):
                    time.sleep(SILENT_SECONDS)
            # Everything is looked at only where what matters does not say it.
            if refusal is None:
                rules = self._rules_led(move, back=back) if untouched else self._rules_there(move, back=back)
                if rules is not None:
                    return rules
            untouched = False
            seen = self.look_closed(move)
            if seen.at(back=back):
                return self._ask.rules(move)
            journaled = seen.reverse_journaled if back else seen.journaled
            said = f": {refusal.message}" if refusal else ""
            if not seen.halfway:
                raise DeadlineExceededError(f"Vitess did not move writes{said}")
            if time.monotonic() > deadline:
                raise UnavailableError(f"Vitess has begun to move writes and has not ended it{said}")
            time.sleep(AGAIN_SECONDS)

    def _rules_led(self, move: ClusterMove, *, back: bool) -> Mapping[str, str] | None:
        """The rules, if writes go there by them. That is all to be asked where Vitess says that it has done
        the whole of a switch of which nothing was begun before: its last step comes behind its rules.
        """
        rules = self._ask.rules(move)
        wanted = move.source if back else move.target
        return rules if look.leads_to(rules, move, TabletType.PRIMARY) == wanted else None

    def _rules_there(self, move: ClusterMove, *, back: bool) -> Mapping[str, str] | None:
        """The rules, if writes are surely there and the streams that led there at their end: Vitess takes a
        switch for done once one of them is.
        """
        rules = self._rules_led(move, back=back)
        if rules is None:
            return None
        streams = self._ask.streams(move, reverse=back)
        at_end = back if streams is None else all(stream.frozen for stream in streams.streams)
        return rules if at_end else None  # no streams back: never moved

    def _call(self, move: ClusterMove, *, back: bool, seconds: float, journaled: bool) -> None:
        """Ask for the switch itself. The way back is asked for by its own name: Vitess forgets the way there
        whenever a switch back breaks off.

        :param journaled: it is past the point from which there is no way but on, whatever the lag.
        """
        arguments = switch_arguments(
            PRIMARIES, seconds, back=False, lag=ANY_LAG if journaled else LAG_ALLOWED
        )
        self._ask.move(move, *arguments, reverse=back, timeout_seconds=max(1.0, seconds) + ANSWER_SECONDS)

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
            seen = self.look_closed(move)
            if seen.at(back=back) and not seen.halfway:
                return
            if time.monotonic() > deadline:
                raise UnavailableError(f"Vitess has not ended a switch of writes that was begun{said}")
            # What was begun ends first, in its own direction.
            onward = seen.begun_back if seen.halfway else back
            journaled = seen.halfway and (seen.reverse_journaled if onward else seen.journaled)
            try:
                self._call(move, back=onward, seconds=deadline - time.monotonic(), journaled=journaled)
            except UnavailableError:
                raise
            except HomeworldError as error:
                _log.warning("move %s: settling: %s", move.name, error)
                said = f": {error.message}"
                if seen.denied and not journaled and self.look(move) == seen:
                    self.serve_from(move, move.target if seen.primaries_switched else move.source)
                    self._go_on(move, reverse=seen.primaries_switched)
            time.sleep(AGAIN_SECONDS)

    def look_closed(self, move: ClusterMove) -> MoveLook:
        """What is so, after what Vitess takes for ended is: once one stream is frozen it ends no other."""
        seen = self.look(move)
        if seen.halfway and self._freeze_rest(move, reverse=not seen.primaries_switched):
            return self.look(move)
        return seen

    def _freeze_rest(self, move: ClusterMove, *, reverse: bool) -> bool:
        """Where rules have moved and a death came between the shards: write what is missing. Whether anything
        was.
        """
        found = self._ask.streams(move, reverse=reverse)
        if found is None or not all(stream.handed_over for stream in found.streams):
            return False
        rest = [stream for stream in found.streams if stream.message != look.FROZEN]
        if not rest or len(rest) == len(found.streams):
            return False
        for stream in rest:
            query = (
                f"update _vt.vreplication set message = '{look.FROZEN}' where id = {stream.number:d} "  # noqa: S608
                f"and state = 'Stopped' and message = '{look.FOR_CUTOVER}'"
            )
            self._ask.run(move, "ExecuteFetchAsDBA", "--json", stream.tablet, query)
        return True

    def _go_on(self, move: ClusterMove, *, reverse: bool) -> None:
        """Let streams that a switch had stopped, and that it did not take further, run again."""
        found = self._ask.streams(move, reverse=reverse)
        # None that somebody else has stopped, and least of all in front of a schema statement.
        if found is not None and all(
            stream.message == look.FOR_CUTOVER or stream.state != "Stopped" for stream in found.streams
        ):
            self._ask.move(move, "start", reverse=reverse)

    def serve_from(self, move: ClusterMove, keyspace: str) -> None:
        """Let the primaries of a keyspace take writes to the tables, and those of the other none."""
        for name in (move.source, move.target):
            for shard in look.shards_of(self._ask.run(move, "FindAllShardsInKeyspace", name)):
                self._ask.deny(move, f"{name}/{shard}", denied=name != keyspace)


def switch_arguments(
    tablet_types: frozenset[TabletType],
    seconds: float,
    *,
    back: bool,
    lag: str = LAG_ALLOWED,
    reverse_replication: bool = True,
) -> list[str]:
    """The arguments of a switch.

    :param reverse_replication: whether the streams in the other direction run afterwards; made they are.

    Without ``--initialize-target-sequences``: Vitess asks every shard for the largest id in a schema of the
    first shard's name, and ours have names of their own. Whoever switches raises the sequences.
    """
    wanted = {*tablet_types, TabletType.RDONLY} if TabletType.PRIMARY not in tablet_types else tablet_types
    return [
        "ReverseTraffic" if back else "SwitchTraffic",
        f"--tablet-types={','.join(sorted(wanted))}",
        f"--timeout={max(1, round(seconds))}s",
        f"--max-replication-lag-allowed={lag}",
        f"--enable-reverse-replication={str(reverse_replication).lower()}",
    ]
