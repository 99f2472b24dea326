"""A client of the data plane over HTTP, in both forms: JSON as the JavaScript client speaks it, Protocol
Buffers as Connect clients do. Written from the messages' description; it shares no reader with what it tests.
"""

from __future__ import annotations

import base64
import json
import ssl
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx

SERVICE = "/psdb.v1alpha1.Database/"


class HttpSqlError(Exception):
    """An answer's error."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(f"{code}: {message}")


@dataclass
class Table:
    """A result: values as bytes, None for NULL."""

    fields: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    rows: list[tuple[bytes | None, ...]] = field(default_factory=list[tuple[bytes | None, ...]])
    affected: int = 0
    insert_id: int = 0


def basic(user: str, password: str) -> str:
    """An Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def cut(lengths: list[int], values: bytes) -> tuple[bytes | None, ...]:
    """A row's values."""
    out: list[bytes | None] = []
    at = 0
    for length in lengths:
        out.append(None if length < 0 else values[at : at + length])
        at += max(length, 0)
    assert at == len(values)
    return tuple(out)


class JsonClient:
    """Speaks JSON, with a session like a ``Connection`` of JavaScript's client."""

    def __init__(self, url: str, user: str, password: str, ca: Path | None = None) -> None:
        # Making a context takes longer than all a client in the clear does.
        verify = ssl.create_default_context(cafile=str(ca)) if ca else False
        self.http = httpx.Client(
            base_url=url, verify=verify, timeout=60, headers={"Authorization": basic(user, password)},
            trust_env=False,
        )  # fmt: skip
        self.session: Any = None

    def close(self) -> None:
        """Close the connection; the session is the server's to end."""
        self.http.close()

    def call(self, method: str, body: object) -> httpx.Response:
        """A request."""
        return self.http.post(SERVICE + method, json=body)

    def execute(self, query: str, variables: dict[str, Any] | None = None) -> Table:
        """A statement in the session.

        :raises HttpSqlError: it failed.
        """
        body: dict[str, Any] = {"query": query, "session": self.session}
        if variables is not None:
            body["bindVariables"] = variables
        response = self.call("Execute", body)
        assert response.status_code == 200, response.text
        told = response.json()
        if "session" in told:
            self.session = told["session"]
        if "error" in told:
            raise HttpSqlError(told["error"]["code"], told["error"]["message"])
        return table_of(told["result"])

    def column(self, query: str) -> list[str | None]:
        """The first column of a result, as text."""
        return [row[0].decode() if row[0] is not None else None for row in self.execute(query).rows]

    def one(self, query: str) -> str | None:
        """The only value of a result, as text."""
        (value,) = self.column(query)
        return value

    @property
    def shown(self) -> dict[str, Any]:
        """The session as it is shown."""
        return cast("dict[str, Any]", self.session["vitessSession"])


def table_of(result: dict[str, Any]) -> Table:
    """A result of the JSON form."""
    rows = [
        cut([int(length) for length in row["lengths"]], base64.b64decode(row.get("values", "")))
        for row in result.get("rows", [])
    ]
    return Table(
        result.get("fields", []), rows, int(result.get("rowsAffected", 0)), int(result.get("insertId", 0))
    )


# -------------------------------------------------------------------- Protocol Buffers


def varint(value: int) -> bytes:
    """A number."""
    out = b""
    while value > 0x7F:
        out += bytes((value & 0x7F | 0x80,))
        value >>= 7
    return out + bytes((value,))


def message(number: int, data: bytes) -> bytes:
    """A field with a length."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def parse(data: bytes) -> dict[int, list[Any]]:
    """The fields of a message by number, in order."""
    found: dict[int, list[Any]] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = number()
        match key & 7:
            case 0:
                value: Any = number()
            case 1:
                (value,) = struct.unpack("<d", data[at : at + 8])
                at += 8
            case 2:
                length = number()
                value = data[at : at + length]
                at += length
            case _:
                raise AssertionError("unknown wire type")
        found.setdefault(key >> 3, []).append(value)
    return found


NAMES = {
    1: "name", 2: "type", 3: "table", 4: "orgTable", 5: "database", 6: "orgName", 7: "columnLength",
    8: "charset", 9: "decimals", 10: "flags", 11: "columnType",
}  # fmt: skip


def pb_field(data: bytes) -> dict[str, Any]:
    """A column."""
    return {
        NAMES[number]: value.decode() if isinstance(value, bytes) else value
        for number, (value,) in parse(data).items()
    }


def pb_table(data: bytes) -> Table:
    """A QueryResult."""
    found = parse(data)
    rows: list[tuple[bytes | None, ...]] = []
    for row in found.get(4, []):
        inner = parse(row)
        packed = inner.get(1, [b""])[0]
        lengths: list[int] = []
        value = shift = 0
        for byte in packed:
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                lengths.append(value >> 1 ^ -(value & 1))
                value = shift = 0
        rows.append(cut(lengths, inner.get(2, [b""])[0]))
    return Table(
        [pb_field(one) for one in found.get(1, [])], rows, found.get(2, [0])[0], found.get(3, [0])[0]
    )


class ProtoClient:
    """Speaks Protocol Buffers, uncompressed."""

    def __init__(self, url: str, user: str, password: str, ca: Path | None = None) -> None:
        self.json = JsonClient(url, user, password, ca)
        self.session = b""

    def close(self) -> None:
        """Close the connection."""
        self.json.close()

    def post(self, method: str, body: bytes, content_type: str, **headers: str) -> httpx.Response:
        """A request."""
        return self.json.http.post(
            SERVICE + method, content=body, headers={"Content-Type": content_type, **headers}
        )

    def request(self, query: str) -> bytes:
        """An ExecuteRequest."""
        session = message(1, self.session) if self.session else b""
        return session + message(2, query.encode())

    def take(self, data: bytes) -> Table:
        """An ExecuteResponse."""
        found = parse(data)
        if 1 in found:
            self.session = found[1][-1]
        if 3 in found:
            error = parse(found[3][0])
            raise HttpSqlError(str(error.get(3, [0])[0]), error[2][0].decode())
        return pb_table(found[2][0]) if 2 in found else Table()

    def execute(self, query: str) -> Table:
        """A statement in the session."""
        response = self.post("Execute", self.request(query), "application/proto")
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/proto"
        return self.take(response.content)

    def prepare(self, query: str) -> list[dict[str, Any]]:
        """The columns of a statement."""
        response = self.post("Prepare", self.request(query), "application/proto")
        assert response.status_code == 200, response.text
        found = parse(response.content)
        if 1 in found:
            self.session = found[1][-1]
        if 3 in found:
            error = parse(found[3][0])
            raise HttpSqlError(str(error.get(3, [0])[0]), error[2][0].decode())
        return [pb_field(one) for one in found.get(2, [])]

    def stream(self, query: str) -> tuple[Table, int]:
        """A statement whose answer is streamed; the result, and in how many parts it came."""
        body = self.request(query)
        response = self.post(
            "StreamExecute", b"\0" + len(body).to_bytes(4, "big") + body, "application/connect+proto"
        )
        assert response.status_code == 200, response.text
        whole, parts = Table(), 0
        data = response.content
        while data:
            flags, length = data[0], int.from_bytes(data[1:5], "big")
            body, data = data[5 : 5 + length], data[5 + length :]
            if flags & 2:
                assert json.loads(body) == {}
                assert not data
                return whole, parts
            part = self.take(body)
            whole.fields = whole.fields or part.fields
            whole.rows += part.rows
            whole.affected += part.affected
            whole.insert_id = part.insert_id or whole.insert_id
            parts += 1
        raise AssertionError("the stream has no end")
