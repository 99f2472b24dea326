"""Native replication, the peer of the catch-up: a replica with four parallel workers, as durable as ours."""

from __future__ import annotations

from tests.support.mysqld import TestServer, password_of, user_of

from bench.lab import BenchError
from homeworld.model.topology import BackendRole, Flavor

WORKERS = 4
OPTIONS = {
    Flavor.MYSQL: (f"replica-parallel-workers={WORKERS}", "skip-replica-start=ON"),
    # The mode that takes most at once: it runs transactions side by side and repeats one that was in the way.
    Flavor.MARIADB: (
        f"slave-parallel-threads={WORKERS}", "slave-parallel-mode=optimistic", "skip-slave-start=ON",
    ),
}  # fmt: skip
_USER = user_of(BackendRole.REPLICATION)
_PASSWORD = password_of(BackendRole.REPLICATION)


def attach(source: TestServer, replica: TestServer) -> None:
    """Point ``replica``, a copy of the source at its present position, at the source without starting it."""
    where = f"_HOST='127.0.0.1', {{0}}_PORT={source.port}, {{0}}_USER='{_USER}', {{0}}_PASSWORD='{_PASSWORD}'"
    if source.flavor is Flavor.MYSQL:
        replica.query(
            f"CHANGE REPLICATION SOURCE TO SOURCE{where.format('SOURCE')}, SOURCE_AUTO_POSITION=1,"
            " GET_SOURCE_PUBLIC_KEY=1"
        )
        return
    replica.query("SET GLOBAL gtid_slave_pos=@@gtid_binlog_pos")
    replica.query(f"CHANGE MASTER TO MASTER{where.format('MASTER')}, MASTER_USE_GTID=slave_pos")


def start(replica: TestServer) -> None:
    """Let it follow."""
    replica.query("START REPLICA")


def stop(replica: TestServer) -> None:
    """Let it rest."""
    replica.query("STOP REPLICA")


def wait(replica: TestServer, position: str, timeout_seconds: float) -> None:
    """Return once everything up to ``position`` is applied.

    :raises BenchError: not in time, or replication broke.
    """
    wait_for = (
        "SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s)"
        if replica.flavor is Flavor.MYSQL
        else "SELECT MASTER_GTID_WAIT(%s, %s)"
    )
    if replica.query(wait_for, args=(position, timeout_seconds))[0][0] != 0:
        raise BenchError(f"replication did not reach the end: {replica.query('SHOW REPLICA STATUS')}")
