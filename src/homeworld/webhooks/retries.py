"""When a delivery is tried again. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retries:
    """Pauses that grow.

    :param attempts: of a delivery altogether; then it is given up.
    :param first_seconds: the pause after the first.
    :param factor: by which each further pause is longer.
    :param longest_seconds: no pause is longer.
    """

    attempts: int = 8
    first_seconds: float = 10.0
    factor: float = 3.0
    longest_seconds: float = 3600.0

    def pause(self, made: int, chance: float) -> float | None:
        """Seconds until the next attempt after ``made`` have failed; None: it is given up.

        :param chance: 0 to 1, at random: so that those that failed together do not come back together.
        """
        if made >= self.attempts:
            return None
        full = min(self.longest_seconds, self.first_seconds * self.factor ** (made - 1))
        return full * (0.5 + chance / 2)
