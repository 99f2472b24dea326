"""How many file descriptors the process may have, and who gets none of the last ones.

The kernel gives the lowest number that is free: the number of a new connection tells how many are in use.
"""

from __future__ import annotations

import resource

KEPT_FROM_CLIENTS = 64
"""The last ones are for anything but clients."""
KEPT_FROM_SERVERS = 32
"""The very last ones are for telling clients that there are no more."""


def ask_for(wanted: int) -> int:
    """Raise the process's limit towards ``wanted`` as far as it may.

    :returns: how many it may have now.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return soft
