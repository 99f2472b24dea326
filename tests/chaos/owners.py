"""Who owned writes, as the servers' own binlogs tell it: at each moment one side, for as often as it changed.

The text of each client's INSERT or DELETE of a transfer stands in the binlog of the server that ran it, and
nowhere else; what movers write has another text. So each committed piece of work has one server, and with the
times between which its client sent COMMIT and had the answer, the least number of times that ownership must
have changed can be told. It may not be more often than the workflow changed it. Pure, but for the reading.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pymysql

from tests.chaos.servers import Machines, Server

CLIENTS = re.compile(
    r"^(?:# )?(INSERT INTO transfers \(.*?\) VALUES \(|DELETE FROM transfers WHERE ref = )(\d+)\b"
)

_TORN = 1220


@dataclass(frozen=True, slots=True)
class Work:
    """A transfer (or its return) that a client committed. ``sent`` and ``told`` enclose the commit."""

    ref: int
    returns: bool
    sent: float
    told: float

    @property
    def key(self) -> tuple[int, bool]:
        """What names it."""
        return self.ref, self.returns


def beginning(machines: Machines) -> dict[str, tuple[str, int]]:
    """Where each primary's binlog ends now: its newest file and the size of that."""
    found: dict[str, tuple[str, int]] = {}
    for server in machines.primaries:
        newest = machines.run(server, "SHOW BINARY LOGS")[-1]
        found[server.server_id] = (str(newest[0]), int(newest[1]))
    return found


def written(machines: Machines, since: Mapping[str, tuple[str, int]]) -> dict[str, list[tuple[int, bool]]]:
    """What clients wrote on each side since then, in each server's order."""
    found: dict[str, list[tuple[int, bool]]] = {"source": [], "target": []}
    for server in machines.primaries:
        file, position = since[server.server_id]
        logs = [str(row[0]) for row in machines.run(server, "SHOW BINARY LOGS")]
        assert file in logs, f"the binlog {file} of {server.side} {server.shard} is gone"
        for name in logs[logs.index(file) :]:
            found[server.side] += _texts(machines, server, name, position if name == file else 4)
    return found


def _texts(machines: Machines, server: Server, file: str, position: int) -> list[tuple[int, bool]]:
    found: list[tuple[int, bool]] = []
    with machines.connect(server, 60) as connection, connection.cursor(pymysql.cursors.SSCursor) as cursor:
        cursor.execute(f"SHOW BINLOG EVENTS IN '{file}' FROM {position}")
        try:
            for row in cursor:
                matched = CLIENTS.match(str(row[5])) if row[2] in {"Annotate_rows", "Rows_query"} else None
                if matched:
                    found.append((int(matched[2]), matched[1].startswith("DELETE")))
        except pymysql.MySQLError as error:
            # A server that died with a full disk leaves a torn end; whatever it had committed is before it.
            if error.args[0] != _TORN:
                raise
    return found


def judge(
    works: Sequence[Work],
    doubtful: Iterable[int],
    sides: Mapping[str, Sequence[tuple[int, bool]]],
    changes: int,
) -> list[str]:
    """Everything that is not as it has to be, as sentences.

    :param works: what was acknowledged; ``doubtful``: refs of which a commit was sent and not answered.
    :param changes: how often the workflow moved the ownership of writes.
    """
    found: list[str] = []
    unsure = set(doubtful)
    counts = {side: Counter(keys) for side, keys in sides.items()}
    acknowledged = {work.key for work in works}
    for key in {*counts["source"], *counts["target"]} | acknowledged:
        times = counts["source"][key] + counts["target"][key]
        wanted = times == 1 or (times == 0 and key not in acknowledged)
        if not wanted or (times and key not in acknowledged and key[0] not in unsure):
            found.append(
                f"{'return' if key[1] else 'transfer'} {key[0]}: {counts['source'][key]} times in the "
                f"source's binlog, {counts['target'][key]} in the target's"
            )
    least = _changes(
        [work for work in works if counts["source"][work.key]],
        [work for work in works if counts["target"][work.key]],
    )
    if least > changes:
        found.append(
            f"writes changed sides at least {least} times, and the workflow moved them {changes} times"
        )
    return found


def _changes(source: Sequence[Work], target: Sequence[Work]) -> int:
    """How often ownership must have changed at least; it begins on the source.

    An epoch of one side lasts at most until the first answer of the other side's work that is still to come.
    """
    left = {0: sorted(source, key=lambda work: work.told), 1: sorted(target, key=lambda work: work.told)}
    side, changes = 0, 0
    while left[0] or left[1]:
        other = left[1 - side]
        until = other[0].told if other else float("inf")
        left[side] = [work for work in left[side] if work.sent > until]
        if not other:
            break
        side, changes = 1 - side, changes + 1
    return changes
