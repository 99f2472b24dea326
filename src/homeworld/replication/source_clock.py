"""When something happened, by this process's monotonic clock, that a server stamped by its own wall clock.

How far a stream is behind must not depend on whose wall clock is right: a server's may be minutes off, and
either may be set while the stream runs. So the server's is asked, and asked again where what it stamps looks
late. Invariant: no wall clock of this machine is read, and an unreachable server leaves what is known.
"""

from __future__ import annotations

import logging
import time

from homeworld.model.errors import HomeworldError
from homeworld.model.topology import Endpoint
from homeworld.replication.connection import Connection

LATE_SECONDS = 2.0
AGAIN_SECONDS = 10.0
_ASK_SECONDS = 2.0
_log = logging.getLogger(__name__)


class SourceClock:
    """The wall clock of one server. Asked from one thread."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._ahead: float | None = None  # of the server's wall clock, to this process's monotonic one
        self._asked = float("-inf")

    def moment(self, stamp: float) -> float | None:
        """The monotonic time at which the server's clock showed ``stamp`` (unix seconds), not in the future;
        None where the server's clock is not known.
        """
        now = time.monotonic()
        if self._ahead is None or not -LATE_SECONDS < now - (stamp - self._ahead) < LATE_SECONDS:
            self._ask(now)
        return None if self._ahead is None else min(stamp - self._ahead, time.monotonic())

    def _ask(self, now: float) -> None:
        if now - self._asked < AGAIN_SECONDS:
            return
        self._asked = now
        try:
            with Connection(
                self._endpoint, fidelity=False, connect_seconds=_ASK_SECONDS, timeout_seconds=_ASK_SECONDS
            ) as connection:
                begun = time.monotonic()
                row = connection.query_one("SELECT UNIX_TIMESTAMP(NOW(6))")
                ended = time.monotonic()
        except HomeworldError as error:
            _log.info("server %s did not say what time it has: %s", self._endpoint.server_id, error)
            return
        if row[0] is not None:
            self._ahead = float(row[0]) - (begun + ended) / 2
