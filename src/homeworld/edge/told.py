"""Answers written: :class:`~homeworld.edge.messages.Told` in, JSON or Protocol Buffers out.

JSON leaves out what is zero or empty and writes 64-bit numbers as strings, as its mapping asks; clients take
what is missing for zero. The invariant: both forms say the same.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Iterable

from homeworld.edge import protobuf as pb
from homeworld.edge.answers import Row
from homeworld.edge.fields import Field
from homeworld.edge.messages import Result, SessionTold, Shown, Told
from homeworld.model.topology import BackendRole

_ROLES = {
    BackendRole.READER.value: 0,
    BackendRole.WRITER.value: 1,
    BackendRole.READWRITER.value: 2,
    BackendRole.ADMIN.value: 3,
}
_ALL_FIELDS = 2
"""``included_fields``: answers have everything that is known of a column."""

# -------------------------------------------------------------------- Protocol Buffers


def execute_protobuf(told: Told) -> bytes:
    """An ExecuteResponse."""
    parts = [_pb_session(1, told.session)]
    if told.result is not None:
        parts.append(pb.put_always(2, _pb_result(told.result)))
    return b"".join((*parts, _pb_fault(3, told), pb.put_double(4, told.timing)))


def prepare_protobuf(told: Told) -> bytes:
    """A PrepareResponse."""
    fields = b"".join(pb.put_always(2, _pb_field(one)) for one in told.fields)
    return _pb_session(1, told.session) + fields + _pb_fault(3, told)


def create_protobuf(told: Told) -> bytes:
    """A CreateSessionResponse."""
    name, role = told.user or ("", "")
    user = pb.put_text(1, name) + pb.put_number(3, _ROLES.get(role, 0))
    return pb.put_text(1, told.branch) + pb.put(2, user) + _pb_session(4, told.session)


def close_protobuf(told: Told) -> bytes:
    """A CloseSessionResponse."""
    return _pb_session(1, told.session) + _pb_fault(2, told)


def _pb_session(number: int, session: SessionTold | None) -> bytes:
    if session is None:
        return b""
    return pb.put_always(number, pb.put(1, session.token) + pb.put_always(2, _pb_shown(session.shown)))


def _pb_shown(shown: Shown) -> bytes:
    options = pb.put_number(4, _ALL_FIELDS) + pb.put_number(5, 1) + pb.put_number(6, shown.workload)
    return b"".join(
        (
            pb.put_number(1, shown.in_transaction),
            pb.put_number(4, shown.autocommit),
            pb.put_text(5, shown.target),
            pb.put_always(6, options),
            pb.put_number(11, shown.last_insert_id),
            pb.put_number(12, shown.found_rows),
            pb.put_number(15, shown.row_count),
            pb.put_text(22, shown.uuid),
        )
    )


def _pb_fault(number: int, told: Told) -> bytes:
    if told.fault is None:
        return b""
    return pb.put_always(number, pb.put_text(2, told.fault.message) + pb.put_number(3, told.fault.code))


def _pb_result(result: Result) -> bytes:
    return b"".join(
        (
            *(pb.put_always(1, _pb_field(field)) for field in result.fields),
            pb.put_number(2, result.rows_affected),
            pb.put_number(3, result.insert_id),
            *(
                pb.put_always(4, pb.put(1, pb.zigzags(lengths)) + pb.put(2, values))
                for lengths, values in result.rows
            ),
            pb.put_text(6, result.info),
        )
    )


def _pb_field(field: Field) -> bytes:
    return b"".join(
        (
            pb.put_text(1, field.name),
            pb.put_number(2, field.type),
            pb.put_text(3, field.table),
            pb.put_text(4, field.org_table),
            pb.put_text(5, field.database),
            pb.put_text(6, field.org_name),
            pb.put_number(7, field.column_length),
            pb.put_number(8, field.charset),
            pb.put_number(9, field.decimals),
            pb.put_number(10, field.flags),
            pb.put_text(11, field.column_type),
        )
    )


# -------------------------------------------------------------------- JSON


def execute_json(told: Told) -> bytes:
    """An ExecuteResponse."""
    parts = _json_session(told)
    if told.result is not None:
        parts.append('"result":' + _json_result(told.result))
    if told.fault is not None:
        parts.append('"error":' + _json_fault(told))
    if told.timing:
        parts.append(f'"timing":{told.timing!r}')
    return ("{" + ",".join(parts) + "}").encode()


def prepare_json(told: Told) -> bytes:
    """A PrepareResponse."""
    parts = _json_session(told)
    if told.fields:
        parts.append('"fields":' + _dumps([_json_field(field) for field in told.fields]))
    if told.fault is not None:
        parts.append('"error":' + _json_fault(told))
    return ("{" + ",".join(parts) + "}").encode()


def create_json(told: Told) -> bytes:
    """A CreateSessionResponse."""
    name, role = told.user or ("", "")
    user = {"username": name, "role": role} if _ROLES.get(role, 0) else {"username": name}
    parts = [f'"branch":{_dumps(told.branch)}', f'"user":{_dumps(user)}', *_json_session(told)]
    return ("{" + ",".join(parts) + "}").encode()


def close_json(told: Told) -> bytes:
    """A CloseSessionResponse."""
    parts = _json_session(told)
    if told.fault is not None:
        parts.append('"error":' + _json_fault(told))
    return ("{" + ",".join(parts) + "}").encode()


def _dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _base64(value: bytes) -> str:
    return binascii.b2a_base64(value, newline=False).decode()


def _json_session(told: Told) -> list[str]:
    session = told.session
    if session is None:
        return []
    return [
        '"session":' + _dumps({"signature": _base64(session.token), "vitessSession": _shown(session.shown)})
    ]


def _shown(shown: Shown) -> dict[str, object]:
    options: dict[str, object] = {"includedFields": "ALL", "clientFoundRows": True}
    if shown.workload:
        options["workload"] = shown.workload.name
    told: dict[str, object] = {}
    if shown.in_transaction:
        told["inTransaction"] = True
    if shown.autocommit:
        told["autocommit"] = True
    if shown.target:
        told["targetString"] = shown.target
    told["options"] = options
    counts = {
        "lastInsertId": shown.last_insert_id, "foundRows": shown.found_rows, "rowCount": shown.row_count,
    }  # fmt: skip
    told |= {name: str(number) for name, number in counts.items() if number}
    if shown.uuid:
        told["SessionUUID"] = shown.uuid
    return told


def _json_fault(told: Told) -> str:
    assert told.fault is not None  # noqa: S101 the callers have looked
    return _dumps({"code": told.fault.code.name, "message": told.fault.message})


def _json_result(result: Result) -> str:
    parts: list[str] = []
    if result.fields:
        parts.append('"fields":' + _dumps([_json_field(field) for field in result.fields]))
    if result.rows_affected:
        parts.append(f'"rowsAffected":"{result.rows_affected}"')
    if result.insert_id:
        parts.append(f'"insertId":"{result.insert_id}"')
    if result.rows:
        parts.append('"rows":[' + ",".join(_json_rows(result.rows)) + "]")
    if result.info:
        parts.append('"info":' + _dumps(result.info))
    return "{" + ",".join(parts) + "}"


def _json_rows(rows: Iterable[Row]) -> Iterable[str]:
    for lengths, values in rows:
        told = '{"lengths":["' + '","'.join(map(str, lengths)) + '"]'
        yield told + (',"values":"' + _base64(values) + '"}' if values else "}")


def _json_field(field: Field) -> dict[str, object]:
    told: dict[str, object] = {
        "name": field.name,
        "type": field.type.name if field.type else "",
        "table": field.table,
        "orgTable": field.org_table,
        "database": field.database,
        "orgName": field.org_name,
        "columnLength": field.column_length,
        "charset": field.charset,
        "decimals": field.decimals,
        "flags": field.flags,
        "columnType": field.column_type,
    }
    return {name: value for name, value in told.items() if value or name == "name"}
