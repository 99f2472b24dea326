"""What a replica says to get the binlog: the commands and the statements before them, for both flavours.

Builds bytes and SQL only; who sends them and what comes back is not known here.
"""

from __future__ import annotations

from struct import Struct

from homeworld.model.errors import InvalidError
from homeworld.model.gtid import MariadbPosition, MysqlPosition, Position, Source

_BINLOG_DUMP = 0x12
_BINLOG_DUMP_GTID = 0x1E
_THROUGH_GTID = 4
_FIRST_EVENT = 4
_NUMBER = Struct("<Q")
_INTERVAL = Struct("<QQ")
_SUPPORTS_GTID = 4  # MariaDB's capability level: whatever 10.x and later can send


def announcements(position: Position, *, heartbeat_seconds: float, replica_uuid: str) -> tuple[str, ...]:
    """The statements that prepare the session: checksums, heartbeats, and on MariaDB the position.

    :param replica_uuid: names this replica to the server; another dump with the same one ends the first.
    """
    period = int(heartbeat_seconds * 1_000_000_000)
    if isinstance(position, MariadbPosition):
        return (
            "SET @master_binlog_checksum = @@global.binlog_checksum",
            f"SET @master_heartbeat_period = {period:d}",
            f"SET @mariadb_slave_capability = {_SUPPORTS_GTID:d}",
            f"SET @slave_connect_state = '{position}'",
            "SET @slave_gtid_strict_mode = 0",
            "SET @slave_gtid_ignore_duplicates = 0",
        )
    return (
        "SET @source_binlog_checksum = @@global.binlog_checksum",
        "SET @master_binlog_checksum = @source_binlog_checksum",
        f"SET @source_heartbeat_period = {period:d}, @master_heartbeat_period = {period:d}",
        f"SET @replica_uuid = '{replica_uuid}', @slave_uuid = '{replica_uuid}'",
    )


def dump_command(position: Position, server_id: int) -> bytes:
    """The payload that begins the stream behind ``position``.

    :param server_id: 1 to 2**32-1, unlike that of any other replica of the server.
    """
    if not 0 < server_id < 1 << 32:
        raise InvalidError("a replica's server id is between 1 and 4294967295")
    server = server_id.to_bytes(4, "little")
    if isinstance(position, MysqlPosition):
        data = encode_gtid_set(position)
        return b"".join(
            (
                bytes((_BINLOG_DUMP_GTID,)),
                _THROUGH_GTID.to_bytes(2, "little"),
                server,
                bytes(4),
                _FIRST_EVENT.to_bytes(8, "little"),
                len(data).to_bytes(4, "little"),
                data,
            )
        )
    return b"".join((bytes((_BINLOG_DUMP,)), _FIRST_EVENT.to_bytes(4, "little"), bytes(2), server))


def encode_gtid_set(position: MysqlPosition) -> bytes:
    """A GTID set in the binary form of COM_BINLOG_DUMP_GTID.

    Servers before 8.3 know only the form without tags; the tagged form, marked by a 1 in the first and the
    last byte of the count, is written only where there are tags.
    """
    sources = position.sources
    tagged = any(tag for _, tag in sources)
    count = len(sources) << 8 | 1 | 1 << 56 if tagged else len(sources)
    parts = [_NUMBER.pack(count)]
    # Servers of 8.3 and later insist on this order: by UUID, then by tag.
    for source in sorted(sources):
        parts.append(_encode_source(source, tagged=tagged))
        intervals = list(sources[source])
        parts.append(_NUMBER.pack(len(intervals)))
        parts += [_INTERVAL.pack(first, last + 1) for first, last in intervals]
    return b"".join(parts)


def _encode_source(source: Source, *, tagged: bool) -> bytes:
    uuid, tag = source
    # A tag's length is a number of mysql::serialization: below 64 (a tag has up to 32) one even byte.
    return uuid + bytes((len(tag) << 1,)) + tag.encode() if tagged else uuid
