"""Asking the servers of a LocalEngine in tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pymysql

from homeworld.engines.flavors import rules
from homeworld.engines.local import LocalEngine
from homeworld.model.topology import BackendRole, Endpoint


def run(endpoint: Endpoint, sql: str, *, tcp: bool = False) -> list[tuple[Any, ...]]:
    """One statement on a connection of its own, through the socket or over loopback."""
    where: dict[str, Any] = (
        {"host": endpoint.host, "port": endpoint.port} if tcp else {"unix_socket": endpoint.socket}
    )
    connection = pymysql.connect(
        user=endpoint.user, password=endpoint.password, autocommit=True, ssl_disabled=not tcp, **where
    )
    with closing(connection), connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


def as_role(engine: LocalEngine, server_id: str, role: BackendRole, sql: str) -> list[tuple[Any, ...]]:
    return run(engine.endpoint(server_id, role), sql)


def owner(engine: LocalEngine, server_id: str, sql: str) -> list[tuple[Any, ...]]:
    return as_role(engine, server_id, BackendRole.OWNER, sql)


def position(engine: LocalEngine, server_id: str) -> str:
    return str(owner(engine, server_id, rules(engine.flavor).position)[0][0])


def pid_of(engine: LocalEngine, server_id: str) -> int:
    pid = engine.status(server_id).pid
    assert pid is not None
    return pid


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Return once ``condition`` holds; a deadline only ends a test that would never end."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)
