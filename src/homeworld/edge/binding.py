r"""Variables put into a statement as literals: Vitess's ``?`` (by ``v1``, ``v2`` …) and ``:name``.

Pure; where a string or a comment ends is known by the gateway's own tokens. A text without variables is
sent as it stands. The invariant: a value can be nothing but one literal, whatever it says it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from homeworld.edge.fields import VitessType
from homeworld.edge.messages import BindVariable
from homeworld.gateway.sql_tokens import Kind, tokenize
from homeworld.model.errors import ServerError
from homeworld.wire.commands import quote_blob, quote_string

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


def bound(query: bytes, variables: Mapping[str, BindVariable]) -> bytes:
    """The statement with its variables' values in it.

    :raises ServerError: one has no value, or no value of its type; or the text cannot be read.
    """
    if not variables:
        return query
    out: list[bytes] = []
    at = number = 0
    tokens = tokenize(query)
    for place, token in enumerate(tokens):
        if token.kind is Kind.PARAM:
            number += 1
            name, end = f"v{number}", token.end
        elif token.text == b":" and place + 1 < len(tokens) and tokens[place + 1].start == token.end:
            following = tokens[place + 1]
            if following.kind is not Kind.WORD:
                continue
            name, end = following.name(), following.end
        else:
            continue
        variable = variables.get(name)
        if variable is None:
            raise _refused(f"no value was given for the variable {name}")
        out += (query[at : token.start], _written(variable))
        at = end
    return b"".join((*out, query[at:]))
