"""Pages of the reference made from the API's own description, and of what of the published one is mounted.

    python -m tests.contract.reference [PUBLISHED-FILE]

writes docs/reference/api/, docs/reference/coverage.md and docs/reference/engines.md. Without the published
file the coverage is made anew from the operations that the page names already, so only a newer published file
has to be given.
Nothing of the published file but names, methods and paths of operations comes into a page.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from homeworld.api.app import create_app
from homeworld.api.calls import Settings
from homeworld.api.scopes import SCOPES
from homeworld.store.store import Store
from tests.contract import engines
from tests.support.api import StatedPreconditions

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "reference"
Json = Mapping[str, Any]
METHODS = ("get", "post", "put", "patch", "delete")


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation by its name, method and path below /v1."""

    name: str
    method: str
    path: str

    @property
    def place(self) -> tuple[str, str]:
        """What makes it the same as another one, whatever its parameters are called."""
        return self.method, re.sub(r"{\w+}", "{}", self.path)


def own_description() -> Json:
    """The description that the API serves."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(f"sqlite:///{folder}/reference.db")
        try:
            return create_app(store, Settings(StatedPreconditions())).openapi()
        finally:
            store.close()


def operations_of(described: Json) -> list[Operation]:
    """All operations, by path."""
    return [
        Operation(operation["operationId"], method.upper(), path.removeprefix("/v1"))
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
        if method in METHODS
    ]


# -- coverage ------------------------------------------------------------------------------------------------

_ROW = re.compile(r"^\| `(\w+)` \| ([A-Z]+) \| `([^`]+)` \| (yes|no|beyond) \|$", re.MULTILINE)


def published_in(page: str) -> list[Operation]:
    """The published operations that a coverage page names."""
    return [
        Operation(name, method, path)
        for name, method, path, mounted in _ROW.findall(page)
        if mounted != "beyond"
    ]


def coverage(published: Iterable[Operation], own: Iterable[Operation]) -> str:
    """The page: which published operations are mounted, which are not, and what is beyond them."""
    mounted = {operation.place for operation in own}
    known = sorted(published, key=lambda one: (one.path, METHODS.index(one.method.lower())))
    places = {operation.place for operation in known}
    beyond = sorted((one for one in own if one.place not in places), key=lambda one: (one.path, one.method))
    there = [one for one in known if one.place in mounted]
    lines = [
        "# What of the published API is here",
        "",
        "Made by `make reference`; do not edit. An operation that does not do what it says is not mounted:",
        "it is answered with 404, as a path that does not exist.",
        "",
        f"{len(there)} of {len(known)} published operations are mounted; {len(beyond)} are homeworld's own.",
        "",
        "| operation | method | path | mounted |",
        "|---|---|---|---|",
    ]
    for one in known:
        lines.append(_row(one, "yes" if one.place in mounted else "no"))
    lines += [
        "",
        "## Beyond the published ones",
        "",
        "| operation | method | path | mounted |",
        "|---|---|---|---|",
    ]
    lines += [_row(one, "beyond") for one in beyond]
    return "\n".join(lines) + "\n"


def _row(one: Operation, mounted: str) -> str:
    return f"| `{one.name}` | {one.method} | `{one.path}` | {mounted} |"


# -- pages of the API ----------------------------------------------------------------------------------------


def pages(described: Json) -> dict[str, str]:
    """File name to text: one page for each tag, and their index."""
    by_tag: dict[str, list[tuple[str, str, Json]]] = {}
    for path, methods in described["paths"].items():
        for method in METHODS:
            if method in methods:
                operation = methods[method]
                by_tag.setdefault(operation["tags"][0], []).append((method, path, operation))
    found = {
        f"{_slug(tag)}.md": _page(tag, operations, described) for tag, operations in sorted(by_tag.items())
    }
    index = [
        "# The API",
        "",
        "Made by `make reference` from `/v1/openapi.json`; do not edit. Every call but of public operations",
        "has the header `Authorization: ID:TOKEN` of a service token, which needs one of the named accesses.",
        'Errors are `{"code", "message"}`; lists come in pages (`page`, `per_page` of at most 100).',
        "",
    ]
    for tag, operations in sorted(by_tag.items()):
        names = ", ".join(f"`{operation['operationId']}`" for _, _, operation in operations)
        index.append(f"* [{tag}]({_slug(tag)}.md): {names}")
    found["README.md"] = "\n".join(index) + "\n"
    return found


def _slug(tag: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", tag.lower()).strip("-")


def _page(tag: str, operations: Iterable[tuple[str, str, Json]], described: Json) -> str:
    lines = [f"# {tag}", "", "Made by `make reference` from the API's own description; do not edit.", ""]
    for method, path, operation in operations:
        lines += _operation(method, path, operation, described)
    return "\n".join(lines).rstrip() + "\n"


def _operation(method: str, path: str, operation: Json, described: Json) -> Iterator[str]:
    yield f"## {operation['operationId']}"
    yield ""
    yield f"`{method.upper()} {path}`"
    yield ""
    if text := operation.get("description", ""):
        yield " ".join(str(text).split())
        yield ""
    yield f"Access: {_access(operation['operationId'])}."
    yield ""
    query = [one for one in operation.get("parameters", ()) if one["in"] == "query"]
    if query:
        yield from _table(("parameter", "type", "default", "meaning"), (_parameter(one) for one in query))
    content = operation.get("requestBody", {}).get("content", {})
    if content:
        schema = _resolve(content["application/json"]["schema"], described)
        yield "Body" + (":" if operation["requestBody"].get("required") else " (may be left out):")
        yield ""
        yield from _fields(schema, described, "required")
    for status, answer in operation["responses"].items():
        if status.startswith("2"):
            yield from _answer(status, answer, described)


def _answer(status: str, answer: Json, described: Json) -> Iterator[str]:
    content = answer.get("content", {}).get("application/json")
    if content is None:
        yield f"Answer: {status}, without a body."
        yield ""
        return
    schema = _resolve(content["schema"], described)
    inner = cast("Json", schema.get("properties", {})).get("data")
    if inner is not None and "items" in inner:
        yield f"Answer: {status}, a page whose `data` are:"
        schema = _resolve(inner["items"], described)
    elif schema.get("type") == "array":
        yield f"Answer: {status}, a list of:"
        schema = _resolve(schema["items"], described)
    else:
        yield f"Answer: {status}:"
    yield ""
    yield from _fields(schema, described)


def _access(name: str) -> str:
    scope = SCOPES[name]
    if scope.public:
        return "anybody, without a token"
    if not scope.accesses:
        return "any valid token"
    told = _names(scope.accesses)
    if scope.production:
        told += f"; on a production branch {_names(scope.production)}"
    if scope.readers:
        told += f" (a reader's password: also {_names(scope.readers)})"
    return told


def _names(accesses: Iterable[str]) -> str:
    return " or ".join(f"`{access}`" for access in sorted(accesses))


def _parameter(one: Json) -> tuple[str, ...]:
    schema = one["schema"]
    default = schema.get("default")
    return (
        f"`{one['name']}`",
        _type(schema),
        "" if default is None else f"`{default}`",
        " ".join(str(one.get("description", "")).split()),
    )


def _fields(schema: Json, described: Json, always: str = "always there") -> Iterator[str]:
    properties = cast("Mapping[str, Json]", schema.get("properties", {}))
    if not properties:
        yield f"{_type(schema)}"
        yield ""
        return
    required = set(schema.get("required", ()))
    rows = (
        (f"`{name}`", _type(field), "yes" if name in required else "", _meaning(field, described))
        for name, field in properties.items()
    )
    yield from _table(("field", "type", always, "meaning"), rows)


def _meaning(field: Json, described: Json) -> str:
    told = " ".join(str(field.get("description", "")).split())
    for choice in (field, *field.get("anyOf", ()), field.get("items", {})):
        found = _resolve(choice, described) if "$ref" in choice else choice
        if "enum" in found:
            told = f"{told} One of {', '.join(f'`{value}`' for value in found['enum'])}.".strip()
    return told


def _type(schema: Json) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2].removesuffix("Out")
    if "anyOf" in schema:
        return " or ".join(_type(choice) for choice in schema["anyOf"])
    if "allOf" in schema:
        return _type(schema["allOf"][0])
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return f"{kind} ({schema['format']})" if "format" in schema else kind


def _resolve(schema: Json, described: Json) -> Json:
    if "anyOf" in schema:
        return _resolve(next(one for one in schema["anyOf"] if one.get("type") != "null"), described)
    if "$ref" not in schema:
        return schema
    return cast("Json", described["components"]["schemas"][str(schema["$ref"]).rpartition("/")[2]])


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


def main(published_file: str = "") -> None:
    """Write all pages; those of operations that are gone go."""
    described = own_description()
    folder = PAGES / "api"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = pages(described)
    for old in folder.glob("*.md"):
        if old.name not in wanted:
            old.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text)
    page = PAGES / "coverage.md"
    if published_file:
        from tests.contract.published import read

        published = operations_of(read(Path(published_file)))
    else:
        published = published_in(page.read_text())
    page.write_text(coverage(published, operations_of(described)))
    (PAGES / "engines.md").write_text(engines.page())
    print(page.read_text().splitlines()[5])


if __name__ == "__main__":
    main(*sys.argv[1:])
