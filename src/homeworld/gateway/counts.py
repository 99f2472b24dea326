"""What a gateway counts of clients that were sent away, for whoever watches it.

Only the gateway's own thread adds; other threads may read at any time. Numbers only grow.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """Since the gateway was made.

    * ``refused``: wrong names and passwords (and right ones that have expired or are not for the address).
    * ``garbled``: logins in no form that the protocol has, or TLS that was broken.
    * ``too_many``: connections beyond the most that are taken, or for which there was no file descriptor.
    * ``slow_logins``: logins that were not through in time.
    * ``half_sent``: sessions whose client stopped in the middle of a packet or of a file.
    * ``not_reading``: sessions whose client did not read its answers.
    * ``idle``: sessions that were ended because no command came for long.
    """

    refused: int = 0
    garbled: int = 0
    too_many: int = 0
    slow_logins: int = 0
    half_sent: int = 0
    not_reading: int = 0
    idle: int = 0
