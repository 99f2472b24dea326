"""A running server's size: brought into force by dynamic variables, as far as the server lets them change.

Works on an open control connection. What a server does not take while it runs stands in its config file at
its next start; :func:`resize` says which that is. Nothing here restarts anything.
"""

from __future__ import annotations

import time

from homeworld.engines.connection import Control
from homeworld.model.errors import HomeworldError, UnavailableError
from homeworld.model.sizes import ServerSize

_MIB = 1024 * 1024
# The pool's steps where a server names none: newer MariaDB's.
_LEAST_STEP = 8 * _MIB
_LOOK_SECONDS = 0.05


def resize(owner: Control, size: ServerSize, timeout_seconds: float = 60.0) -> tuple[str, ...]:
    """Bring the size into force; idempotent.

    :returns: the variables that the server takes only with a restart.
    :raises UnavailableError: the pool is still changing after the time; calling again goes on.
    """
    now = _variables(owner)
    wanted = {
        "max_connections": size.max_connections,
        "tmp_table_size": size.tmp_table_mb * _MIB,
        "max_heap_table_size": size.tmp_table_mb * _MIB,
    }
    refused = [
        name
        for name, value in wanted.items()
        if now[name] != value and not _set(owner, name, value, exactly=True)
    ]
    if not _resize_pool(owner, size.buffer_pool_mb * _MIB, now, timeout_seconds):
        refused.append("innodb_buffer_pool_size")
    return tuple(refused)


def _variables(owner: Control) -> dict[str, int]:
    rows = owner.run(
        "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('max_connections', 'tmp_table_size', "
        "'max_heap_table_size', 'innodb_buffer_pool_size', 'innodb_buffer_pool_chunk_size', "
        "'innodb_buffer_pool_instances', 'innodb_buffer_pool_size_max')"
    )
    return {str(row["Variable_name"]): int(row["Value"]) for row in rows}


def _set(owner: Control, name: str, value: int, *, exactly: bool) -> bool:
    """Set a global variable; whether the server took it (``exactly``: and has that very value)."""
    try:
        owner.run(f"SET GLOBAL {name} = {value}")
    except UnavailableError:
        raise
    except HomeworldError:
        return False
    return not exactly or _variables(owner)[name] == value


def fits(actual: int, wanted: int, step: int) -> bool:
    """Whether a pool is as large as wanted: servers round up to their step.

    >>> fits(512, 512, 128), fits(640, 600, 128), fits(128, 512, 128)
    (True, True, False)
    """
    return wanted <= actual < wanted + max(step, _LEAST_STEP)


def _resize_pool(owner: Control, wanted: int, now: dict[str, int], timeout_seconds: float) -> bool:
    step = now.get("innodb_buffer_pool_chunk_size", 0) * now.get("innodb_buffer_pool_instances", 1)
    if fits(now["innodb_buffer_pool_size"], wanted, step):
        return True
    most = now.get("innodb_buffer_pool_size_max", 0)
    if most and wanted > most:
        return False  # the server would cut it to that without an error
    if not _set(owner, "innodb_buffer_pool_size", wanted, exactly=False):
        return False
    # It changes behind the statement, page by page where it shrinks.
    deadline = time.monotonic() + timeout_seconds
    while not fits(_variables(owner)["innodb_buffer_pool_size"], wanted, step) or _busy(owner):
        if time.monotonic() > deadline:
            raise UnavailableError(f"the buffer pool is not {wanted // _MIB} MiB yet: {_told(owner)}")
        time.sleep(_LOOK_SECONDS)
    return True


def _told(owner: Control) -> str:
    rows = owner.run("SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_resize_status'")
    return str(rows[0]["Value"]) if rows else ""


def _busy(owner: Control) -> bool:
    told = _told(owner).lower()
    return bool(told) and not told.startswith(("completed", "size did not change")) and "fail" not in told
