"""What ``stalls.lua`` printed: the longest statement of each stretch, and errors. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# sysbench's own word for an error that the script is told of as well.
_TOLD = "mysql_drv_query() returned error"
SCRIPT = Path(__file__).with_suffix(".lua")


@dataclass(frozen=True, slots=True)
class Stretch:
    """A short time of one client.

    :param end: unix seconds.
    :param longest: seconds of the longest statement that ended in it.
    """

    client: int
    end: float
    longest: float


@dataclass(frozen=True, slots=True)
class Felt:
    """All that clients felt."""

    stretches: tuple[Stretch, ...]
    errors: tuple[str, ...]

    def longest(self, begin: float, end: float) -> float:
        """The longest statement, in seconds, that was under way at some time between two unix times."""
        return max(
            (s.longest for s in self.stretches if s.end >= begin and s.end - s.longest <= end), default=0.0
        )

    def clients_since(self, begin: float) -> set[int]:
        """The clients that had a statement answered after that unix time."""
        return {stretch.client for stretch in self.stretches if stretch.end > begin}


def read(lines: Iterable[str]) -> Felt:
    """Read the load's output; lines of other kinds are sysbench's own."""
    stretches: list[Stretch] = []
    errors: list[str] = []
    for line in lines:
        kind, _, rest = line.partition(" ")
        if kind == "B":
            client, end, longest = rest.split()
            stretches.append(Stretch(int(client), float(end), float(longest)))
        elif kind == "E" or (kind == "FATAL:" and not rest.startswith(_TOLD)):
            errors.append(rest.strip())
    return Felt(tuple(stretches), tuple(errors))
