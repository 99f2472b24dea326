"""Holds a JSON value against a schema of the published description (OpenAPI 3.0, as far as it uses it).

The published description has no ``$ref``, ``oneOf`` or formats; a keyword that is not known here is an error,
not a pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

Schema = Mapping[str, Any]

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
_KNOWN = {
    "type",
    "nullable",
    "enum",
    "properties",
    "required",
    "items",
    "additionalProperties",
    "description",
    "default",
    "title",
    "example",
    "deprecated",
}


def differences(value: object, schema: Schema, at: str = "") -> Iterator[str]:
    """Every place where the value is not what the schema says, as sentences."""
    unknown = set(schema) - _KNOWN
    if unknown:
        raise ValueError(f"{at}: the published schema uses {sorted(unknown)}, which is not known here")
    if value is None:
        # An enum without null in a nullable schema is how the published description writes it.
        if not schema.get("nullable"):
            yield f"{at or 'body'} is null"
        return
    wanted = cast("str | None", schema.get("type"))
    if wanted and (
        not isinstance(value, _TYPES[wanted]) or (isinstance(value, bool) and wanted != "boolean")
    ):
        yield f"{at or 'body'} is {type(value).__name__}, not {wanted}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at} is {value!r}, not one of {schema['enum']}"
    if isinstance(value, dict):
        yield from _object(cast("dict[str, object]", value), schema, at)
    elif isinstance(value, list):
        for index, item in enumerate(cast("list[object]", value)):
            yield from differences(item, schema.get("items", {}), f"{at}[{index}]")


def _object(value: Mapping[str, object], schema: Schema, at: str) -> Iterator[str]:
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{at}.{name} is missing"
    properties = cast("Mapping[str, Schema]", schema.get("properties", {}))
    for name, item in value.items():
        if name in properties:
            yield from differences(item, properties[name], f"{at}.{name}")
