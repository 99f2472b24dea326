"""The config file of a managed server, as text. Pure: the same input gives the same file.

What stands here is what the rest of homeworld relies on: full row images with metadata in a GTID binlog that
is on disk before a commit returns, UTC, utf8mb4, loopback only.
"""

from __future__ import annotations

from dataclasses import dataclass

from homeworld.engines.flavors import rules
from homeworld.engines.layout import Place, Record


@dataclass(frozen=True, slots=True)
class Sizes:
    """What an installation may choose. ``options`` are more lines (``name=value``) that win over ours.

    :param binlog_seconds: how long binlogs are kept. A workflow or a replica that was stopped for longer
        cannot go on by itself, so it is long.
    """

    buffer_pool_mb: int = 128
    max_connections: int = 500
    binlog_seconds: int = 14 * 24 * 3600
    options: tuple[str, ...] = ()


_COMMON = (
    "bind-address=127.0.0.1",
    "skip-name-resolve",
    "default-time-zone=+00:00",
    "character-set-server=utf8mb4",
    "local-infile=ON",
    "log-bin=binlog",
    "relay-log=relay",
    "relay-log-recovery=ON",
    "binlog-row-image=FULL",
    "binlog-row-metadata=FULL",
    "sync-binlog=1",
    "innodb-flush-log-at-trx-commit=1",
    "innodb-file-per-table=ON",
    "innodb-log-buffer-size=16M",
    # Each thread reserves 256 of the machine's asynchronous requests (fs.aio-max-nr), used or not.
    "innodb-read-io-threads=2",
    "innodb-write-io-threads=2",
    "max-allowed-packet=256M",
    "max-binlog-size=256M",
    # The gateway gathers insights itself; the server's own instruments would double its memory.
    "performance-schema=OFF",
)


def render(
    record: Record, place: Place, sizes: Sizes, *, native_aio: bool = True, most_pool_mb: int = 0
) -> str:
    """The text of ``my.cnf`` for the server.

    :param most_pool_mb: how far a running server's buffer pool may ever grow, in MiB.
    :param native_aio: let InnoDB use the kernel's asynchronous I/O.
    """
    rule = rules(record.flavor)
    lines: list[str] = [
        "# Written by homeworld at each start; changes here are lost.",
        "[mysqld]",
        f"datadir={_quoted(place.data)}",
        f"socket={_quoted(record.socket)}",
        f"pid-file={_quoted(place.data / 'mysqld.pid')}",
        f"secure-file-priv={_quoted(place.files)}",
        # A starting MariaDB deletes whatever temporary tables it finds in its tmpdir, also those of others.
        f"tmpdir={_quoted(place.files)}",
        f"port={record.port}",
        f"server-id={record.mysql_server_id}",
        *_memory(record, sizes),
        # Newer MariaDB keeps so much address space (no memory) for a pool that grows while it runs.
        f"loose-innodb-buffer-pool-size-max={max(most_pool_mb, _pool_mb(record, sizes))}M",
        f"binlog-expire-logs-seconds={sizes.binlog_seconds}",
        *_COMMON,
        *(() if native_aio else ("innodb-use-native-aio=OFF",)),
        *rule.options,
        *(rule.replica_options if record.replica_of is not None else ()),
        *sizes.options,
    ]
    return "\n".join(lines) + "\n"


def _pool_mb(record: Record, sizes: Sizes) -> int:
    return record.size.buffer_pool_mb if record.size else sizes.buffer_pool_mb


def _memory(record: Record, sizes: Sizes) -> tuple[str, ...]:
    size = record.size
    if size is None:
        return (
            f"innodb-buffer-pool-size={sizes.buffer_pool_mb}M",
            f"max-connections={sizes.max_connections}",
        )
    return (
        f"innodb-buffer-pool-size={size.buffer_pool_mb}M",
        f"max-connections={size.max_connections}",
        f"tmp-table-size={size.tmp_table_mb}M",
        f"max-heap-table-size={size.tmp_table_mb}M",
    )


def _quoted(path: object) -> str:
    """A path as an option file's value; blanks and ``#`` are kept by the quotes."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
