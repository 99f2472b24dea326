"""The commands of vtctldclient that a move is made of: how they are named and what they are asked with.

It reads streams and rules from what they print, and decides nothing.
"""

from __future__ import annotations

from typing import Protocol

from homeworld.engines.vitess import moves_look as look
from homeworld.engines.vitess.moves_look import VMove
from homeworld.model.clusters import ClusterMove

ANSWER_SECONDS = 30.0


class Vtctld(Protocol):
    """Runs a command of vtctldclient against a branch's vtctld."""

    def run(self, branch_id: str, *args: str, timeout_seconds: float) -> object:
        """The JSON that the command prints, parsed; None where it prints none.

        :raises UnavailableError: it was not reached, or did not say in time what came of it.
        :raises HomeworldError: any other: vtctld refused, in its words.
        """
        ...

    def run_with_file(
        self, branch_id: str, flag: str, content: object, *args: str, timeout_seconds: float
    ) -> None:
        """The same with JSON in a file that ``flag`` names: a command line may not be that long."""
        ...


class Commands:
    """Commands about moves. Safe among threads."""

    def __init__(self, vtctld: Vtctld) -> None:
        self._vtctld = vtctld

    def run(self, move: ClusterMove, *args: str, timeout_seconds: float = ANSWER_SECONDS) -> object:
        """Any command in the move's cluster."""
        return self._vtctld.run(move.branch_id, *args, timeout_seconds=timeout_seconds)

    def run_with_file(self, move: ClusterMove, flag: str, content: object, *args: str) -> None:
        """A command that reads JSON of any length."""
        self._vtctld.run_with_file(move.branch_id, flag, content, *args, timeout_seconds=ANSWER_SECONDS)

    def move(
        self, move: ClusterMove, *args: str, reverse: bool = False, timeout_seconds: float = ANSWER_SECONDS
    ) -> object:
        """A command of MoveTables, of the move or of its way back."""
        return self.run(
            move, "MoveTables", *_named(move, reverse=reverse), *args, timeout_seconds=timeout_seconds
        )

    def deny(self, move: ClusterMove, place: str, *, denied: bool) -> None:
        """Have a shard's primary refuse the move's tables, or take them again.

        :param place: the shard, as ``keyspace/shard``.
        """
        tables, remove = f"--denied-tables={','.join(move.tables)}", [] if denied else ["--remove"]
        self.run(move, "SetShardTabletControl", tables, *remove, place, "primary")
        self.run(move, "RefreshStateByShard", place)

    def vdiff(self, move: ClusterMove, *args: str) -> object:
        """A command of VDiff over the streams to the target."""
        return self.run(move, "VDiff", *_named(move, reverse=False), *args)

    def streams(self, move: ClusterMove, *, reverse: bool) -> VMove | None:
        """The streams of a direction; None: there are none."""
        keyspace = move.source if reverse else move.target
        answer = self.run(move, "GetWorkflows", "--show-all", "--include-logs=false", keyspace)
        return look.move_of(answer, look.direction_name(move, reverse=reverse))

    def rules(self, move: ClusterMove) -> dict[str, str]:
        """The routing rules, in homeworld's form."""
        return look.rules_of(self.run(move, "GetRoutingRules"))


def _named(move: ClusterMove, *, reverse: bool) -> list[str]:
    return [
        f"--workflow={look.direction_name(move, reverse=reverse)}",
        f"--target-keyspace={move.source if reverse else move.target}",
        "--format=json",
    ]
