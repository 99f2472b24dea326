"""What the host has, and keeping a server's threads to some of its CPUs.

Linux lets every user keep own processes to a set of CPUs (as ``taskset`` does), without cgroups and without
rights; a limit of less than a CPU would need a cgroup that the system has given to this user, so none is
promised. Where a system has no such call, servers run on all CPUs, and :class:`~homeworld.model.sizes.Host`
says so. Knows no SQL.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from pathlib import Path

from homeworld.model.sizes import Host

_PROC = Path("/proc")
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_MIB = 1024 * 1024


def host() -> Host:
    """The machine, as far as this process may use it."""
    return Host(cpus=len(_allowed()), memory_mb=_memory_mb(), limits_cpus=hasattr(os, "sched_setaffinity"))


def _allowed() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def _memory_mb() -> int:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in _CGROUP_LIMITS:
        # ValueError: "max", which is no limit.
        with contextlib.suppress(OSError, ValueError):
            memory = min(memory, int(file.read_text()))
    return memory // _MIB


def choose_cpus(server_id: str, count: int, allowed: frozenset[int]) -> frozenset[int]:
    """Which CPUs a server runs on: always the same for its id, and different ones for different ids as far as
    that goes.

    :param count: how many; 0, or as many as there are: all.

    >>> sorted(choose_cpus("one", 0, frozenset({0, 1})))
    [0, 1]
    >>> len(choose_cpus("one", 1, frozenset({0, 1})))
    1
    """
    ordered = sorted(allowed)
    if not 0 < count < len(ordered):
        return allowed
    begin = zlib.crc32(server_id.encode()) % len(ordered)
    return frozenset((ordered * 2)[begin : begin + count])


def keep_to(pid: int, server_id: str, count: int) -> None:
    """Keep all threads of the process to ``count`` CPUs; 0: let them run on all. Idempotent.

    A thread that begins meanwhile has what the thread had that began it, so it is looked twice.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    cpus = choose_cpus(server_id, count, _allowed())
    for _ in range(2):
        for thread in _threads(pid):
            # ESRCH: it has ended meanwhile.
            with contextlib.suppress(ProcessLookupError):
                if frozenset(os.sched_getaffinity(thread)) != cpus:
                    os.sched_setaffinity(thread, cpus)


def kept_to(pid: int) -> int:
    """How many CPUs the process runs on.

    :raises ProcessLookupError: there is no such process.
    """
    return len(os.sched_getaffinity(pid)) if hasattr(os, "sched_getaffinity") else len(_allowed())


def _threads(pid: int) -> list[int]:
    try:
        return [int(entry.name) for entry in (_PROC / str(pid) / "task").iterdir()]
    except FileNotFoundError:
        return []
