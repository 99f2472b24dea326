"""Requests read: JSON and Protocol Buffers in, :class:`~homeworld.edge.messages.Asked` out.

Both forms are read by the same law: fields that are not known are passed over, as both formats ask, and what
is known must be of its kind. The invariant: any bytes give a request or :class:`MessageError`.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Mapping
from typing import Any, Final, cast

from homeworld.edge import protobuf as pb
from homeworld.edge.fields import VitessType
from homeworld.edge.messages import Asked, BindVariable, SessionSeen, Shown, Workload
from homeworld.edge.protobuf import MessageError

_MOST_VARIABLES: Final = 65_535
_MOST_VALUES: Final = 1 << 18
"""Of one variable that is a list."""
_MOST_BESIDE: Final = 1 << 22
"""Bytes of JSON beside its texts: an empty list of two bytes takes many times as much when it is read."""
_BEGINS: Final = (b"[", b"{", b'"')
# A text that is never closed reaches to the end, so that looking costs no more than the length.
_TEXTS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


class _ManyValuesError(MessageError):
    """a variable has too many values"""


# -------------------------------------------------------------------- Protocol Buffers


def from_protobuf(data: bytes) -> Asked:
    """Read an ExecuteRequest; all other requests are less of the same.

    :raises MessageError: it is none.
    """
    session: SessionSeen | None = None
    query = b""
    variables: dict[str, BindVariable] = {}
    entries = 0
    for number, _, value in pb.fields(data):
        if number == 1:
            session = _pb_session(pb.raw(value))
        elif number == 2:
            # A text by its description; but dumps have bytes in their statements, and clients send them so.
            query = pb.raw(value)
        elif number == 3:
            name, variable = _pb_entry(pb.raw(value))
            variables[name] = variable
            entries += 1
            if entries > _MOST_VARIABLES:
                raise MessageError(f"a statement has at most {_MOST_VARIABLES} variables")
    return Asked(session, query, variables)


def _pb_session(data: bytes) -> SessionSeen:
    token, shown = b"", None
    for number, _, value in pb.fields(data):
        if number == 1:
            token = pb.raw(value)
        elif number == 2:
            shown = _pb_shown(pb.raw(value))
    return SessionSeen(token, shown)


def _pb_shown(data: bytes) -> Shown:
    in_transaction, autocommit, target, workload = False, False, "", Workload.UNSPECIFIED
    for number, _, value in pb.fields(data):
        match number:
            case 1:
                in_transaction = bool(pb.number(value))
            case 4:
                autocommit = bool(pb.number(value))
            case 5:
                target = pb.text(value)
            case 6:
                for inner, _, option in pb.fields(pb.raw(value)):
                    if inner == 6:
                        workload = _workload(pb.number(option))
            case _:
                pass
    return Shown(in_transaction, autocommit, target, workload)


def _pb_entry(data: bytes) -> tuple[str, BindVariable]:
    name, variable = "", BindVariable(VitessType.NULL_TYPE, b"")
    for number, _, value in pb.fields(data):
        if number == 1:
            name = pb.text(value)
        elif number == 2:
            variable = _pb_variable(pb.raw(value))
    return name, variable


def _pb_variable(data: bytes) -> BindVariable:
    kind, text = VitessType.NULL_TYPE, b""
    values: list[tuple[VitessType, bytes]] = []
    for number, _, value in pb.fields(data):
        if number == 1:
            kind = _type(pb.number(value))
        elif number == 2:
            text = pb.raw(value)
        elif number == 3:
            values.append(_pb_value(pb.raw(value)))
            if len(values) > _MOST_VALUES:
                raise _ManyValuesError
    return BindVariable(kind, text, tuple(values))


def _pb_value(data: bytes) -> tuple[VitessType, bytes]:
    """One value of a list, which has none of its own."""
    kind, text = VitessType.NULL_TYPE, b""
    for number, _, value in pb.fields(data):
        if number == 1:
            kind = _type(pb.number(value))
        elif number == 2:
            text = pb.raw(value)
    return kind, text


# -------------------------------------------------------------------- JSON


def from_json(data: bytes) -> Asked:
    """Read the JSON form of a request; an empty body is an empty request.

    :raises MessageError: it is none.
    """
    if not data.strip():
        return Asked()
    many = len(data) > _MOST_BESIDE and sum(map(data.count, _BEGINS)) > _MOST_BESIDE // 4
    # Perhaps they are all within one text, as of a statement that is a dump.
    if many and len(_TEXTS.sub(b"", data)) > _MOST_BESIDE:
        raise MessageError("the request has too much beside its texts")
    try:
        body: object = json.loads(data)
    except (ValueError, RecursionError):
        raise MessageError("the request is no JSON") from None
    found = _object(body, "the request")
    query = _string(found.get("query"), "query")
    variables = _object(_of(found, "bindVariables"), "bindVariables")
    if len(variables) > _MOST_VARIABLES:
        raise MessageError(f"a statement has at most {_MOST_VARIABLES} variables")
    session = found.get("session")
    return Asked(
        None if session is None else _session(_object(session, "session")),
        _utf8(query, "query"),
        {_utf8(name, "a name").decode(): _variable(value) for name, value in variables.items()},
    )


def _of(found: Mapping[str, Any], name: str) -> Any:
    """A field by its JSON name, or by the one it has in the message's description."""
    if name in found:
        return found[name]
    return found.get("".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name))


def _object(value: object, what: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MessageError(f"{what} must be an object")
    return cast("dict[str, Any]", value)


def _string(value: object, what: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MessageError(f"{what} must be a string")
    return value


def _utf8(text: str, what: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise MessageError(f"{what} has half of a character in it") from None


def _bytes(value: object, what: str) -> bytes:
    text = _string(value, what)
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return binascii.a2b_base64(plain + "=" * (-len(plain) % 4), strict_mode=True)
    except (binascii.Error, ValueError):
        raise MessageError(f"{what} must be base64") from None


def _bool(value: object, what: str) -> bool:
    if value is None:
        return False
    if not isinstance(value, bool):
        raise MessageError(f"{what} must be true or false")
    return value


def _session(found: Mapping[str, Any]) -> SessionSeen:
    shown = _of(found, "vitessSession")
    return SessionSeen(
        _bytes(found.get("signature"), "signature"),
        None if shown is None else _shown(_object(shown, "vitessSession")),
    )


def _shown(found: Mapping[str, Any]) -> Shown:
    options = _object(found.get("options"), "options")
    workload = options.get("workload")
    if isinstance(workload, str):
        if workload not in Workload.__members__:
            raise MessageError("workload must be one of UNSPECIFIED, OLTP, OLAP, DBA")
        of = Workload[workload]
    else:
        of = _workload(_int(workload, "workload"))
    return Shown(
        _bool(_of(found, "inTransaction"), "inTransaction"),
        _bool(found.get("autocommit"), "autocommit"),
        _string(_of(found, "targetString"), "targetString"),
        of,
    )


def _int(value: object, what: str) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise MessageError(f"{what} must be a number or a name")
    return value


def _variable(value: object) -> BindVariable:
    found = _object(value, "a variable")
    several = found.get("values")
    if several is not None and not isinstance(several, list):
        raise MessageError("values must be a list")
    inner = cast("list[object]", several or [])
    if len(inner) > _MOST_VALUES:
        raise _ManyValuesError
    kind, text = _value(found)
    return BindVariable(kind, text, tuple(_value(_object(one, "a value")) for one in inner))


def _value(found: Mapping[str, Any]) -> tuple[VitessType, bytes]:
    kind = found.get("type")
    if isinstance(kind, str):
        if kind not in VitessType.__members__:
            raise MessageError("a variable is of a type that is not known")
        of = VitessType[kind]
    else:
        of = _type(_int(kind, "type"))
    return of, _bytes(found.get("value"), "value")


# -------------------------------------------------------------------- both


def _type(value: int) -> VitessType:
    try:
        return VitessType(value)
    except ValueError:
        raise MessageError(f"a variable is of type {value}, which is not known") from None


def _workload(value: int) -> Workload:
    try:
        return Workload(value)
    except ValueError:
        raise MessageError("workload must be one of UNSPECIFIED, OLTP, OLAP, DBA") from None
