"""How much of servers' answers one statement may hold in memory.

Pure: knows neither links nor the protocol. The invariant: once ``error`` is set nothing more is taken, so
what is held never grows beyond the limits by more than one piece that a server has sent.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from homeworld.model.errors import ServerError

MOST_ROWS = 300_000
"""Rows merged in memory for one statement; Vitess's limit."""
MOST_BYTES = 128 << 20
"""Bytes of answers, as servers send them, held for one statement."""


@dataclass(slots=True, eq=False)
class Budget:
    """Shared by all answers that are collected for one statement.

    :param kept: connections that must stay open although their answer is too large, because a transaction
        or other state is on them; others are closed, so that their servers stop.
    * ``error``: set once the answers are larger than allowed.
    """

    kept: Collection[object] = ()
    rows: int = 0
    bytes: int = 0
    error: ServerError | None = None

    def take(self, rows: int, size: int) -> bool:
        """So many more rows and bytes have come; false: that is too much."""
        self.rows += rows
        self.bytes += size
        if self.rows > MOST_ROWS:
            self.error = ServerError(
                1105, "HY000", f"in-memory row count exceeded allowed limit of {MOST_ROWS}"
            )
        elif self.bytes > MOST_BYTES:
            self.error = ServerError(
                1105, "HY000", f"in-memory result size exceeded allowed limit of {MOST_BYTES} bytes"
            )
        return self.error is None
