"""The packets of the connection phase, parsed and built; both ends use them.

Knows layouts only: who may log in is decided by whoever owns the dialogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from homeworld.model.errors import MalformedPacketError
from homeworld.wire.constants import NATIVE, Cap
from homeworld.wire.packets import Reader, lenenc, lenenc_int


@dataclass(frozen=True, slots=True)
class Greeting:
    """The server's first packet (protocol 10). ``scramble`` has 20 bytes, ``charset`` is a collation id."""

    server_version: str
    connection_id: int
    scramble: bytes
    capabilities: int
    charset: int
    status: int
    plugin: str

    @property
    def mariadb(self) -> bool:
        """Whether the server calls itself MariaDB."""
        return "MariaDB" in self.server_version

    def build(self) -> bytes:
        """The payload."""
        caps = int(self.capabilities)
        return b"".join(
            (
                b"\x0a",
                self.server_version.encode(),
                b"\0",
                self.connection_id.to_bytes(4, "little"),
                self.scramble[:8],
                b"\0",
                (caps & 0xFFFF).to_bytes(2, "little"),
                bytes((self.charset & 0xFF,)),
                self.status.to_bytes(2, "little"),
                (caps >> 16).to_bytes(2, "little"),
                bytes((len(self.scramble) + 1,)),
                bytes(10),
                self.scramble[8:],
                b"\0",
                self.plugin.encode(),
                b"\0",
            )
        )

    @classmethod
    def parse(cls, payload: bytes) -> Greeting:
        """Read the server's greeting.

        :raises MalformedPacketError: not protocol 10, or too short.
        """
        reader = Reader(payload)
        if reader.int(1) != 10:
            raise MalformedPacketError("the server does not speak protocol 10")
        version = reader.until_nul().decode("utf-8", "replace")
        # MariaDB up to 10.x puts this in front so that old replicas accept it.
        version = version.removeprefix("5.5.5-")
        connection_id = reader.int(4)
        scramble = reader.take(8)
        reader.skip(1)
        caps = reader.int(2)
        if not reader.left:
            return cls(version, connection_id, scramble, caps, 0, 0, NATIVE)
        charset = reader.int(1)
        status = reader.int(2)
        caps |= reader.int(2) << 16
        length = reader.int(1)
        reader.skip(10)
        scramble += reader.take(max(13, length - 8)).rstrip(b"\0")
        plugin = NATIVE
        if caps & Cap.PLUGIN_AUTH and reader.left:
            plugin = reader.rest().split(b"\0")[0].decode("ascii", "replace")
        return cls(version, connection_id, scramble, caps, charset, status, plugin)


def build_ssl_request(capabilities: int, max_packet: int, charset: int) -> bytes:
    """The payload by which a client asks for TLS before it says who it is."""
    return (
        (capabilities | Cap.SSL).to_bytes(4, "little")
        + max_packet.to_bytes(4, "little")
        + bytes((charset & 0xFF,))
        + bytes(23)
    )


@dataclass(frozen=True, slots=True)
class HandshakeResponse:
    """The client's answer to the greeting (protocol 4.1)."""

    capabilities: int
    max_packet: int
    charset: int
    user: str
    auth: bytes
    database: str = ""
    plugin: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict[str, str])

    def build(self) -> bytes:
        """The payload; CONNECT_WITH_DB, PLUGIN_AUTH and CONNECT_ATTRS must be set in ``capabilities`` for
        the parts they announce.
        """
        caps = int(self.capabilities)
        parts = [
            caps.to_bytes(4, "little"),
            self.max_packet.to_bytes(4, "little"),
            bytes((self.charset & 0xFF,)),
            bytes(23),
            self.user.encode(),
            b"\0",
        ]
        if caps & Cap.PLUGIN_AUTH_LENENC_DATA:
            parts.append(lenenc(self.auth))
        elif caps & Cap.SECURE_CONNECTION:
            parts.append(bytes((len(self.auth),)) + self.auth)
        else:
            parts.append(self.auth + b"\0")
        if caps & Cap.CONNECT_WITH_DB:
            parts.append(self.database.encode() + b"\0")
        if caps & Cap.PLUGIN_AUTH:
            parts.append(self.plugin.encode() + b"\0")
        if caps & Cap.CONNECT_ATTRS:
            pairs = b"".join(lenenc(k.encode()) + lenenc(v.encode()) for k, v in self.attributes.items())
            parts.append(lenenc_int(len(pairs)) + pairs)
        return b"".join(parts)


def is_ssl_request(payload: bytes) -> bool:
    """Whether this first client packet is an SSLRequest: it is cut off before the user name."""
    return len(payload) == 32 and bool(int.from_bytes(payload[:4], "little") & Cap.SSL)


def parse_response(payload: bytes) -> HandshakeResponse:
    """Read a client's HandshakeResponse41.

    :raises MalformedPacketError: too short, or a client from before MySQL 4.1.
    """
    reader = Reader(payload)
    caps = reader.int(4)
    if not caps & Cap.PROTOCOL_41:
        raise MalformedPacketError("the client is older than MySQL 4.1")
    max_packet = reader.int(4)
    charset = reader.int(1)
    reader.skip(23)
    user = reader.until_nul().decode("utf-8", "replace")
    if caps & Cap.PLUGIN_AUTH_LENENC_DATA:
        auth = reader.lenenc()
    elif caps & Cap.SECURE_CONNECTION:
        auth = reader.take(reader.int(1))
    else:
        auth = reader.until_nul()
    database = ""
    if caps & Cap.CONNECT_WITH_DB and reader.left:
        database = reader.until_nul().decode("utf-8", "replace")
    plugin = ""
    if caps & Cap.PLUGIN_AUTH and reader.left:
        plugin = reader.rest_until_nul().decode("ascii", "replace")
    attributes: dict[str, str] = {}
    if caps & Cap.CONNECT_ATTRS and reader.left:
        pairs = Reader(reader.lenenc())
        while pairs.left:
            key = pairs.lenenc().decode("utf-8", "replace")
            attributes[key] = pairs.lenenc().decode("utf-8", "replace")
    return HandshakeResponse(caps, max_packet, charset, user, auth, database, plugin, attributes)


def build_auth_switch(plugin: str, scramble: bytes) -> bytes:
    """AuthSwitchRequest: prove yourself again, by ``plugin``."""
    return b"\xfe" + plugin.encode() + b"\0" + scramble + b"\0"


def parse_auth_switch(payload: bytes) -> tuple[str, bytes]:
    """Plugin and scramble of an AuthSwitchRequest.

    :raises MalformedPacketError: it is none. The one-byte form of old servers is refused too.
    """
    reader = Reader(payload)
    if reader.int(1) != 0xFE or not reader.left:
        raise MalformedPacketError("expected an authentication switch")
    plugin = reader.until_nul().decode("ascii", "replace")
    return plugin, reader.rest().rstrip(b"\0")


def build_auth_more(data: bytes) -> bytes:
    """AuthMoreData."""
    return b"\x01" + data


@dataclass(frozen=True, slots=True)
class ChangeUser:
    """COM_CHANGE_USER's fields."""

    user: str
    auth: bytes
    database: str
    charset: int
    plugin: str


def parse_change_user(payload: bytes, capabilities: int) -> ChangeUser:
    """Read COM_CHANGE_USER (with its command byte).

    :raises MalformedPacketError: too short.
    """
    reader = Reader(payload, 1)
    user = reader.until_nul().decode("utf-8", "replace")
    auth = reader.take(reader.int(1)) if capabilities & Cap.SECURE_CONNECTION else reader.until_nul()
    database = reader.until_nul().decode("utf-8", "replace")
    charset = reader.int(2) if reader.left >= 2 else 0
    plugin = ""
    if capabilities & Cap.PLUGIN_AUTH and reader.left:
        plugin = reader.rest_until_nul().decode("ascii", "replace")
    return ChangeUser(user, auth, database, charset, plugin)
