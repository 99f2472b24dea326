r"""Variables put into a statement as literals: Vitess's ``?`` (by ``v1``, ``v2`` …) and ``:name``.

Pure; where a string or a comment ends is known by the gateway's own tokens. A text without variables is
sent as it stands. The invariant: a value can be nothing but one literal, whatever it says it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from homeworld.edge.fields import VitessType
from homeworld.edge.messages import BindVariable
from homeworld.gateway.sql_tokens import Kind, tokens
from homeworld.model.errors import ServerError
from homeworld.wire.commands import quote_blob, quote_string
from homeworld.wire.packets import TOO_LARGE

_INTEGER = re.compile(rb"[+-]?[0-9]{1,80}")
_NUMBER = re.compile(rb"[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,5})?")
_HEX_NUMBER = re.compile(rb"0[xX][0-9a-fA-F]+")
_HEX_VALUE = re.compile(rb"[xX]'(?:[0-9a-fA-F]{2})*'")
_BIT_NUMBER = re.compile(rb"0[bB][01]+")
_V = VitessType
_INTEGERS = frozenset(
    {
        _V.INT8, _V.UINT8, _V.INT16, _V.UINT16, _V.INT24, _V.UINT24, _V.INT32, _V.UINT32, _V.INT64, _V.UINT64,
        _V.YEAR,
    }
)  # fmt: skip
_FORMS: Mapping[VitessType, re.Pattern[bytes]] = {
    **dict.fromkeys(_INTEGERS, _INTEGER),
    **dict.fromkeys((_V.FLOAT32, _V.FLOAT64, _V.DECIMAL), _NUMBER),
    _V.HEXNUM: _HEX_NUMBER,
    _V.HEXVAL: _HEX_VALUE,
    _V.BITNUM: _BIT_NUMBER,
}
_BYTES = frozenset({_V.BINARY, _V.VARBINARY, _V.BLOB, _V.BIT, _V.GEOMETRY, _V.VECTOR})
_MOST_USES = 65_535
_NEVER = frozenset({_V.EXPRESSION, _V.RAW, _V.TUPLE})


def _refused(message: str) -> ServerError:
    return ServerError(1210, "HY000", message)


def literal(kind: VitessType, value: bytes) -> bytes:
    """One value as a literal.

    :raises ServerError: it is not of the form that its type has.
    """
    if kind is _V.NULL_TYPE:
        return b"NULL"
    if kind in _NEVER:
        raise _refused(f"a variable of type {kind.name} cannot be a value")
    form = _FORMS.get(kind)
    if form is not None:
        if not form.fullmatch(value):
            raise _refused(f"a variable of type {kind.name} has a value that is none")
        return value
    if kind in _BYTES and not _is_text(value):
        return quote_blob(value)
    return quote_string(value)


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _written(variable: BindVariable) -> bytes:
    if variable.type is not VitessType.TUPLE:
        return literal(variable.type, variable.value)
    if not variable.values:
        raise _refused("a variable is an empty list")
    return b"(" + b", ".join(literal(kind, value) for kind, value in variable.values) + b")"


def bound(query: bytes, variables: Mapping[str, BindVariable], most: int) -> bytes:
    """The statement with its variables' values in it.

    :param most: bytes that it may have: a variable may stand in it many times.
    :raises ServerError: one has no value, or no value of its type; or the text cannot be read, or is longer.
    """
    if not variables:
        return query
    out: list[bytes] = []
    at = size = 0
    for start, end, name in _places(query):
        variable = variables.get(name)
        if variable is None:
            raise _refused(f"no value was given for the variable {name}")
        written = _written(variable)
        size += len(written)
        if size > most:
            raise ServerError(1153, "08S01", TOO_LARGE)
        if len(out) >= 2 * _MOST_USES:
            raise ServerError(1390, "HY000", "Prepared statement contains too many placeholders")
        out += (query[at:start], written)
        at = end
    return b"".join((*out, query[at:]))


def _places(query: bytes) -> Iterator[tuple[int, int, str]]:
    """Where variables stand in a statement, and their names."""
    number = 0
    colon = -1
    for token in tokens(query):
        if token.kind is Kind.PARAM:
            number += 1
            yield token.start, token.end, f"v{number}"
        elif token.kind is Kind.WORD and token.start == colon:
            yield colon - 1, token.end, token.name()
        colon = token.end if token.text == b":" else -1
