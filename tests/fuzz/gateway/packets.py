"""Packets as no client and no server should send them, drawn from a seeded random source.

Knows the protocol's layouts well enough to come close to what is right: most bytes that break something are
nearly right. Knows nothing of sessions. The same seed gives the same bytes.
"""

from __future__ import annotations

import random

from homeworld.wire.constants import Cap, Com, Status, Type
from homeworld.wire.packets import frame, lenenc, lenenc_int
from homeworld.wire.results import ColumnDefinition, Ok, build_eof, build_err, build_result, build_text_row

STATEMENTS = (
    b"select * from a1", b"select * from a1 where id = 17", b"select 1", b"update a1 set n = 1",
    b"insert into b1 values (1)", b"begin", b"commit", b"rollback", b"savepoint s", b"rollback to s",
    b"release savepoint s", b"set @x = 1", b"set names latin1", b"set sql_mode = ''", b"set autocommit = 0",
    b"set autocommit = 1", b"select @x", b"create table a1 (id int)", b"select 1; select * from b1",
    b"begin; update a1 set n = 1; commit", b"lock tables a1 write", b"unlock tables",
    b"use b", b"use nowhere",
    b"start transaction with consistent snapshot", b"load data local infile 'x' into table a1",
    b"select 1; load data local infile 'x' into table a1", b"commit and chain", b"rollback release",
    b"kill 5", b"kill query 268435457", b"show warnings", b"select get_lock('l', 1)", b"call p()",
    b"select * from a1 for update", b"set transaction read only",
    b"select last_insert_id()", b"drop table b1",
    b"select * from a1 where id = ?", b"insert into a1 values (?, ?, ?)", b"", b";", b"--", b"/*", b"'",
    b"select row_count()", b"create temporary table a1 (id int)",
    b"alter vschema add table a1", b"show tables",
)  # fmt: skip
_TYPES = [int(kind) for kind in Type]


def random_bytes(rng: random.Random, most: int = 40) -> bytes:
    """Up to ``most`` bytes, many of them those that mean something in the protocol."""
    odd = (0, 1, 2, 3, 5, 8, 9, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF)
    return bytes(
        rng.choice(odd) if rng.random() < 0.5 else rng.randrange(256) for _ in range(rng.randrange(most))
    )


def mutated(rng: random.Random, data: bytes) -> bytes:
    """``data`` with a few bytes changed, left out, doubled or cut off."""
    out = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(6):
            case 0 if at < len(out):
                out[at] = rng.choice((0, 1, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF, rng.randrange(256)))
            case 1:
                del out[at:]
            case 2:
                out[at:at] = random_bytes(rng, 12)
            case 3:
                del out[at : at + rng.randrange(1, 9)]
            case 4:
                out[at:at] = out[at : at + rng.randrange(1, 30)]
            case _ if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case _:
                pass
    return bytes(out)


# ---------------------------------------------------------------------------------------- a client's


def handshake_response(rng: random.Random) -> bytes:
    """The payload of a HandshakeResponse41, right or nearly so."""
    caps = int(Cap.PROTOCOL_41 | Cap.SECURE_CONNECTION)
    for cap in (
        Cap.PLUGIN_AUTH, Cap.PLUGIN_AUTH_LENENC_DATA, Cap.CONNECT_WITH_DB, Cap.CONNECT_ATTRS, Cap.COMPRESS,
        Cap.SSL, Cap.MULTI_STATEMENTS, Cap.DEPRECATE_EOF, Cap.SESSION_TRACK,
    ):  # fmt: skip
        if rng.random() < 0.6:
            caps |= cap
    if rng.random() < 0.05:
        caps = rng.getrandbits(32)
    auth = rng.choice((b"", b"\0", bytes(20), bytes(32), b"\x02", b"secret\0", random_bytes(rng, 60)))
    parts = [
        caps.to_bytes(4, "little"),
        rng.getrandbits(32).to_bytes(4, "little"),
        bytes((rng.choice((45, 33, 255, 8, 28, 0)),)),
        bytes(23),
        rng.choice((b"admin", b"nobody", b"", b"x" * 300, b"\xff\xfe\n")),
        b"\0",
    ]
    if caps & Cap.PLUGIN_AUTH_LENENC_DATA:
        parts.append(lenenc(auth))
    else:
        parts.append(bytes((min(len(auth), 255),)) + auth)
    if caps & Cap.CONNECT_WITH_DB:
        parts.append(rng.choice((b"app", b"b", b"", b"`;", b"nowhere")) + b"\0")
    if caps & Cap.PLUGIN_AUTH:
        plugins = (b"mysql_native_password", b"caching_sha2_password", b"mysql_clear_password", b"", b"\xff")
        parts.append(rng.choice(plugins) + b"\0")
    if caps & Cap.CONNECT_ATTRS:
        pairs = b"".join(lenenc(b"k%d" % at) + lenenc(b"v" * at) for at in range(rng.randrange(5)))
        parts.append(lenenc(pairs) if rng.random() < 0.8 else lenenc_int(rng.getrandbits(30)) + pairs)
    whole = b"".join(parts)
    return whole if rng.random() < 0.5 else mutated(rng, whole)


def _parameter(rng: random.Random, kind: int) -> bytes:
    if kind == Type.TINY:
        return random_bytes(rng, 2).ljust(1, b"\1")[:1]
    if kind in {Type.LONG, Type.INT24, Type.FLOAT}:
        return rng.getrandbits(32).to_bytes(4, "little")
    if kind in {Type.LONGLONG, Type.DOUBLE}:
        return rng.getrandbits(64).to_bytes(8, "little")
    if kind in {Type.DATE, Type.DATETIME, Type.TIMESTAMP}:
        length = rng.choice((0, 4, 7, 11, 5))
        return bytes((length,)) + bytes(rng.randrange(256) for _ in range(length))
    if kind == Type.TIME:
        length = rng.choice((0, 8, 12, 3))
        return bytes((length,)) + bytes(rng.randrange(256) for _ in range(length))
    return lenenc(random_bytes(rng))


def execute(rng: random.Random) -> bytes:
    """COM_STMT_EXECUTE with a parameter block that may fit the statement."""
    number = rng.choice((1, 1, 2, 3, 0, 0xFFFFFFFF)).to_bytes(4, "little")
    head = b"\x17" + number + bytes((rng.choice((0, 0, 0, 1, 255)),)) + b"\1\0\0\0"
    count = rng.choice((0, 0, 1, 3, 20))
    if not count:
        return head[: rng.choice((5, 6, 9, 10, 10, 10))]
    types = [rng.choice(_TYPES) if rng.random() < 0.9 else rng.randrange(256) for _ in range(count)]
    block = bytes(rng.choice((0, 0, 255)) for _ in range((count + 7) // 8))
    if rng.random() < 0.7:
        block += b"\1" + b"".join(bytes((kind, rng.choice((0, 0x80)))) for kind in types)
    else:
        block += b"\0"
    return head + block + b"".join(_parameter(rng, kind) for kind in types)


def command(rng: random.Random) -> bytes:
    """The payload of one command."""
    number = rng.choice((1, 1, 2, 3, 7)).to_bytes(4, "little")
    sql = rng.choice(STATEMENTS)
    if rng.random() < 0.1:
        sql = mutated(rng, sql)
    match rng.randrange(22):
        case 0 | 1 | 2 | 3 | 4 | 5 | 6:
            found = b"\x03" + sql
        case 7 | 8:
            found = b"\x16" + sql
        case 9 | 10 | 11:
            found = execute(rng)
        case 12:
            found = b"\x18" + number + rng.randrange(4).to_bytes(2, "little") + random_bytes(rng, 300)
        case 13:
            found = bytes((rng.choice((0x19, 0x1A, 0x1C)),)) + number + rng.choice((b"", b"\1\0\0\0"))
        case 14:
            found = b"\x02" + rng.choice((b"b", b"app", b"", b"nowhere", b"`", b"a@replica"))
        case 15:
            found = b"\x04" + rng.choice((b"a1\0", b"", b"\0", b"x" * 90, b"a1")) + random_bytes(rng, 3)
        case 16:
            found = b"\x11" + rng.choice((b"admin", b"nobody")) + b"\0" + lenenc(random_bytes(rng, 22))
            found += rng.choice((b"app", b"")) + b"\0" + b"\x2d\0" + b"caching_sha2_password\0"
        case 17:
            found = b"\x1b" + rng.choice((b"\0\0", b"\1\0", b"", b"\5\0"))
        case 18:
            found = bytes((rng.choice((0x0C, 0x09, 0x0E, 0x1F, 0x0E)),)) + number
        case 19:
            found = bytes((rng.choice([int(com) for com in Com]),)) + random_bytes(rng)
        case 20:
            found = random_bytes(rng)
        case _:
            found = bytes((rng.randrange(256),)) + random_bytes(rng)
    return mutated(rng, found) if rng.random() < 0.15 else found


def client_chunk(rng: random.Random) -> bytes:
    """Bytes from a client: some commands, pipelined, framed well or badly."""
    out = bytearray()
    for _ in range(rng.choice((1, 1, 1, 1, 2, 5, 30))):
        payload = command(rng)
        match rng.randrange(20):
            case 0:
                out += frame(payload, rng.randrange(256))
            case 1:
                out += rng.randrange(1 << 24).to_bytes(3, "little") + b"\0" + payload
            case 2:
                out += b"\xff\xff\xff\0" + payload
            case 3:
                out += b"\0\0\0" + bytes((rng.randrange(3),))
            case 4:
                out += random_bytes(rng)
            case _:
                out += frame(payload)
    if rng.random() < 0.05:
        out = out[: rng.randrange(len(out) + 1)]
    return bytes(out)


def file_chunk(rng: random.Random) -> bytes:
    """Bytes of a LOAD DATA LOCAL stream."""
    out = bytearray()
    for number in range(rng.randrange(1, 4)):
        out += frame(random_bytes(rng, 60), number + 2) if rng.random() < 0.8 else random_bytes(rng)
    if rng.random() < 0.6:
        out += b"\0\0\0\5"
    return bytes(out)


# ---------------------------------------------------------------------------------------- a server's


def greeting(rng: random.Random) -> bytes:
    """A server's first packet, right or nearly so."""
    from homeworld.wire.handshake import Greeting

    caps = rng.choice((0xFFFFFFFF & ~int(Cap.SSL), 0xFFFF, rng.getrandbits(32)))
    plugin = rng.choice(("mysql_native_password", "caching_sha2_password", "sha256_password", "x" * 40, ""))
    whole = Greeting("8.0.1", rng.getrandbits(32), bytes(range(1, 21)), caps, 45, 2, plugin).build()
    return whole if rng.random() < 0.5 else mutated(rng, whole)


def login_answer(rng: random.Random, caps: int) -> bytes:
    """What may follow a client's proof."""
    payload = rng.choice(
        (
            Ok().build(caps),
            b"\x01\x03",
            b"\x01\x04",
            b"\x01" + random_bytes(rng, 300),
            b"\xfe" + rng.choice((b"mysql_native_password", b"sha256_password", b"")) + b"\0" + bytes(21),
            b"\xfe",
            build_err(1045, "28000", "no"),
            b"\xff",
            random_bytes(rng),
        )
    )
    return payload if rng.random() < 0.7 else mutated(rng, payload)


def _status(rng: random.Random) -> int:
    status = rng.choice((0, Status.AUTOCOMMIT, Status.AUTOCOMMIT, Status.IN_TRANS, Status.IN_TRANS | 2))
    for flag in (Status.MORE_RESULTS_EXISTS, Status.CURSOR_EXISTS, Status.SESSION_STATE_CHANGED):
        if rng.random() < 0.05:
            status |= flag
    return int(status)


def right_answer(rng: random.Random, asked: int, caps: int) -> bytes:
    """An answer as a server may give it to the command ``asked``."""
    status = _status(rng)
    if asked == Com.STMT_PREPARE and rng.random() < 0.9:
        parameters, columns = rng.choice(((0, 0), (0, 1), (1, 1), (3, 0)))
        head = b"\0" + rng.randrange(1, 50).to_bytes(4, "little") + columns.to_bytes(2, "little")
        packets = [head + parameters.to_bytes(2, "little") + b"\0\0\0"]
        for count in (parameters, columns):
            packets += [ColumnDefinition(b"c", 253).build()] * count
            if count and not caps & Cap.DEPRECATE_EOF:
                packets.append(build_eof(status))
        return b"".join(frame(packet, at + 1) for at, packet in enumerate(packets))
    if asked == Com.STATISTICS:
        return frame(b"Uptime: 5", 1)
    if asked == Com.FIELD_LIST:
        packets = [ColumnDefinition(b"c", 253).build()] * rng.randrange(3)
        end = Ok(status=2).build(caps, 0xFE) if caps & Cap.DEPRECATE_EOF else build_eof(2)
        return b"".join(frame(packet, at + 1) for at, packet in enumerate([*packets, end]))
    match rng.randrange(8):
        case 0 | 1 | 2:
            return frame(Ok(rng.randrange(4), rng.randrange(3), status).build(caps), 1)
        case 3:
            errno = rng.choice((1213, 1146, 1064, 1205, 1317, 3101, 1045))
            return frame(build_err(errno, "HY000", "sorry"), 1)
        case 4 if rng.random() < 0.3:
            return frame(b"\xfb" + b"file", 1)
        case _:
            width = rng.choice((1, 1, 1, 3))
            columns = [ColumnDefinition(b"c", rng.choice((253, 8, 3))).build()] * width
            values = (b"1", b"17", None, b"utf8mb4", b"x" * 30)
            rows = [
                build_text_row([rng.choice(values) for _ in range(width)])
                for _ in range(rng.choice((0, 1, 1, 2, 30)))
            ]
            return build_result(columns, rows, caps, status, 1)[0]


def server_chunk(rng: random.Random, asked: int, caps: int) -> bytes:
    """Bytes from a server: an answer, right most of the time."""
    data = right_answer(rng, asked, caps)
    match rng.randrange(16):
        case 0:
            return mutated(rng, data)
        case 1:
            return data[: rng.randrange(len(data) + 1)]
        case 2:
            return data + random_bytes(rng)
        case 3:
            return random_bytes(rng, 80)
        case 4:
            return b"".join(frame(random_bytes(rng), at) for at in range(rng.randrange(1, 5)))
        case _:
            return data
