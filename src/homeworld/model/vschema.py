"""A keyspace's vschema in Vitess's own JSON form: read, checked, written back.

It knows no server: whether a table or column exists is judged against what the caller says exists.
Invariant: what :func:`parse` accepts can be routed by; what the gateway could not honour is refused with the
path of the entry, never dropped. Reading and writing back gives the same canonical object.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import cast

from homeworld.model.errors import InvalidError
from homeworld.model.json_text import load
from homeworld.model.vindexes import make_vindex

SEQUENCE = "sequence"
REFERENCE = "reference"


@dataclass(frozen=True, slots=True)
class VindexDef:
    """A vindex as a keyspace defines it; tables refer to it by name."""

    name: str
    type: str
    params: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class ColumnVindex:
    """A vindex bound to columns of one table. A table's first one is its primary vindex."""

    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AutoIncrement:
    """The column that a sequence fills; ``sequence`` may be written ``keyspace.table``."""

    column: str
    sequence: str


@dataclass(frozen=True, slots=True)
class TableEntry:
    """One table. ``type`` is empty, ``sequence`` or ``reference``; ``columns`` are (name, type) as told, and
    ``described`` is what else was told of a column, by its name: it changes nothing of where a row belongs.
    """

    name: str
    type: str = ""
    column_vindexes: tuple[ColumnVindex, ...] = ()
    auto_increment: AutoIncrement | None = None
    columns: tuple[tuple[str, str], ...] = ()
    column_list_authoritative: bool = False
    source: str = ""
    described: Mapping[str, Mapping[str, object]] = field(default_factory=dict[str, Mapping[str, object]])

    @property
    def primary(self) -> ColumnVindex | None:
        """The vindex that places the rows."""
        return self.column_vindexes[0] if self.column_vindexes else None


@dataclass(frozen=True, slots=True)
class VSchema:
    """A whole keyspace."""

    sharded: bool = False
    vindexes: Mapping[str, VindexDef] = field(default_factory=dict[str, VindexDef])
    tables: Mapping[str, TableEntry] = field(default_factory=dict[str, TableEntry])
    require_explicit_routing: bool = False

    def render(self) -> dict[str, object]:
        """The canonical JSON object: defaults left out, names sorted, ``column`` for a single column."""
        out: dict[str, object] = {}
        if self.sharded:
            out["sharded"] = True
        if self.vindexes:
            out["vindexes"] = {name: _render_vindex(self.vindexes[name]) for name in sorted(self.vindexes)}
        if self.tables:
            out["tables"] = {name: _render_table(self.tables[name]) for name in sorted(self.tables)}
        if self.require_explicit_routing:
            out["require_explicit_routing"] = True
        return out

    def to_json(self) -> str:
        """The canonical object as indented text, as the API shows it."""
        return json.dumps(self.render(), indent=2, ensure_ascii=False)


def _render_vindex(vindex: VindexDef) -> dict[str, object]:
    out: dict[str, object] = {"type": vindex.type}
    if vindex.params:
        out["params"] = {name: vindex.params[name] for name in sorted(vindex.params)}
    return out


def _render_table(table: TableEntry) -> dict[str, object]:
    out: dict[str, object] = {}
    if table.type:
        out["type"] = table.type
    if table.column_vindexes:
        out["column_vindexes"] = [
            {"column": bound.columns[0], "name": bound.name}
            if len(bound.columns) == 1
            else {"columns": list(bound.columns), "name": bound.name}
            for bound in table.column_vindexes
        ]
    if table.auto_increment:
        out["auto_increment"] = {
            "column": table.auto_increment.column,
            "sequence": table.auto_increment.sequence,
        }
    if table.columns:
        out["columns"] = [
            ({"name": name, "type": type_} if type_ else {"name": name}) | dict(table.described.get(name, {}))
            for name, type_ in table.columns
        ]
    if table.column_list_authoritative:
        out["column_list_authoritative"] = True
    if table.source:
        out["source"] = table.source
    return out


# --- reading

_KEYSPACE = {
    "sharded",
    "vindexes",
    "tables",
    "require_explicit_routing",
    "foreign_key_mode",
    "multi_tenant_spec",
}
_TABLE = {
    "type",
    "column_vindexes",
    "auto_increment",
    "columns",
    "pinned",
    "column_list_authoritative",
    "source",
}
_CAMEL = {
    "requireExplicitRouting": "require_explicit_routing",
    "foreignKeyMode": "foreign_key_mode",
    "multiTenantSpec": "multi_tenant_spec",
    "columnVindexes": "column_vindexes",
    "autoIncrement": "auto_increment",
    "columnListAuthoritative": "column_list_authoritative",
}


def parse(given: str | Mapping[str, object]) -> VSchema:
    """Read a vschema from its JSON text or object and check it in itself.

    :raises InvalidError: with the path of the first entry that cannot be honoured.
    """
    loaded: object = load(given, "the vschema") if isinstance(given, str) else given
    top = _object(loaded, "vschema", _KEYSPACE)
    for unusable in ("foreign_key_mode", "multi_tenant_spec"):
        if top.get(unusable) not in (None, "", "unspecified", "FK_UNMANAGED", "unmanaged"):
            raise InvalidError(f"{unusable} is not offered")
    vindexes = {name: _vindex(name, entry) for name, entry in _map(top.get("vindexes"), "vindexes").items()}
    tables = {name: _table(name, entry) for name, entry in _map(top.get("tables"), "tables").items()}
    found = VSchema(
        sharded=_flag(top.get("sharded"), "sharded"),
        vindexes=vindexes,
        tables=tables,
        require_explicit_routing=_flag(top.get("require_explicit_routing"), "require_explicit_routing"),
    )
    check(found)
    return found


def _object(value: object, path: str, known: set[str]) -> dict[str, object]:
    found = {_CAMEL.get(name, name): entry for name, entry in _map(value, path).items()}
    for name in found:
        if name not in known:
            raise InvalidError(f"{path}: unknown field {name!r}")
    return found


def _map(value: object, path: str) -> dict[str, object]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidError(f"{path} must be an object")
    return {str(name): entry for name, entry in cast("Mapping[object, object]", value).items()}


def _list(value: object, path: str) -> list[object]:
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise InvalidError(f"{path} must be a list")
    return list(cast("Iterable[object]", value))


def _flag(value: object, path: str) -> bool:
    if value is None:
        return False
    if not isinstance(value, bool):
        raise InvalidError(f"{path} must be true or false")
    return value


def _text(value: object, path: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidError(f"{path} must be text")
    return value


def _vindex(name: str, value: object) -> VindexDef:
    path = f"vindexes.{name}"
    entry = _object(value, path, {"type", "params", "owner"})
    if _text(entry.get("owner"), f"{path}.owner"):
        raise InvalidError(f"{path}: vindexes with an owner (lookup vindexes) are not offered")
    params = {
        key: _text(text, f"{path}.params.{key}")
        for key, text in _map(entry.get("params"), f"{path}.params").items()
    }
    return VindexDef(name, _text(entry.get("type"), f"{path}.type"), params)


def _column_vindex(value: object, path: str) -> ColumnVindex:
    entry = _object(value, path, {"column", "columns", "name"})
    column = _text(entry.get("column"), f"{path}.column")
    columns = tuple(_text(name, f"{path}.columns") for name in _list(entry.get("columns"), f"{path}.columns"))
    if bool(column) == bool(columns):
        raise InvalidError(f"{path} must have either 'column' or 'columns'")
    return ColumnVindex(_text(entry.get("name"), f"{path}.name"), columns or (column,))


def _table(name: str, value: object) -> TableEntry:
    path = f"tables.{name}"
    entry = _object(value, path, _TABLE)
    if entry.get("pinned"):
        raise InvalidError(f"{path}: pinned tables are not offered")
    increment = None
    if entry.get("auto_increment") is not None:
        told = _object(entry["auto_increment"], f"{path}.auto_increment", {"column", "sequence"})
        increment = AutoIncrement(
            _text(told.get("column"), f"{path}.auto_increment.column"),
            _text(told.get("sequence"), f"{path}.auto_increment.sequence"),
        )
    columns: list[tuple[str, str]] = []
    described: dict[str, Mapping[str, object]] = {}
    for at, column in enumerate(_list(entry.get("columns"), f"{path}.columns")):
        where = f"{path}.columns[{at}]"
        # Vitess keeps more about a column (size, default …); none of it changes where a row belongs.
        told = _map(column, where)
        columns.append((_text(told.get("name"), f"{where}.name"), _text(told.get("type"), f"{where}.type")))
        if more := {key: value for key, value in told.items() if key not in {"name", "type"}}:
            described[columns[-1][0]] = more
    bound = _list(entry.get("column_vindexes"), f"{path}.column_vindexes")
    return TableEntry(
        name=name,
        type=_text(entry.get("type"), f"{path}.type").lower(),
        column_vindexes=tuple(
            _column_vindex(one, f"{path}.column_vindexes[{at}]") for at, one in enumerate(bound)
        ),
        auto_increment=increment,
        columns=tuple(columns),
        column_list_authoritative=_flag(
            entry.get("column_list_authoritative"), f"{path}.column_list_authoritative"
        ),
        source=_text(entry.get("source"), f"{path}.source"),
        described=described,
    )


# --- checking


def check(vschema: VSchema) -> None:
    """Hold a vschema against itself: what can be said without knowing servers or other keyspaces.

    :raises InvalidError: the first thing that is wrong, with its path.
    """
    for vindex in vschema.vindexes.values():
        try:
            make_vindex(vindex.type, vindex.params)
        except InvalidError as error:
            raise InvalidError(f"vindexes.{vindex.name}: {error.message}") from None
    if vschema.vindexes and not vschema.sharded:
        raise InvalidError("an unsharded keyspace has no vindexes; set sharded to true")
    for table in vschema.tables.values():
        _check_table(vschema, table)


def _check_table(vschema: VSchema, table: TableEntry) -> None:
    path = f"tables.{table.name}"
    if not table.name:
        raise InvalidError("tables: a table without a name")
    if table.type not in {"", SEQUENCE, REFERENCE}:
        raise InvalidError(f"{path}: unknown type {table.type!r}; expected sequence or reference")
    if table.source and table.type != REFERENCE:
        raise InvalidError(f"{path}: only a reference table has a source")
    if table.column_list_authoritative and not table.columns:
        raise InvalidError(f"{path}: column_list_authoritative without columns")
    if table.type and (table.column_vindexes or table.auto_increment):
        raise InvalidError(f"{path}: a {table.type} table has neither vindexes nor auto_increment")
    if vschema.sharded:
        if table.type == SEQUENCE:
            raise InvalidError(f"{path}: a sequence table must be in an unsharded keyspace")
        if table.type != REFERENCE and not table.column_vindexes:
            raise InvalidError(f"{path}: missing primary vindex; a table of a sharded keyspace needs one")
    elif table.column_vindexes:
        raise InvalidError(f"{path}: an unsharded keyspace has no column_vindexes")
    for at, bound in enumerate(table.column_vindexes):
        _check_bound(vschema, table, bound, f"{path}.column_vindexes[{at}]")
    increment = table.auto_increment
    if increment is not None:
        if not (increment.column and increment.sequence):
            raise InvalidError(f"{path}.auto_increment needs a column and a sequence")
        if table.column_list_authoritative:
            _check_listed(table, (increment.column,), f"{path}.auto_increment")


def _check_bound(vschema: VSchema, table: TableEntry, bound: ColumnVindex, path: str) -> None:
    vindex = vschema.vindexes.get(bound.name)
    if vindex is None:
        raise InvalidError(f"{path}: vindex {bound.name!r} not found")
    needed = make_vindex(vindex.type, vindex.params).columns
    if len(bound.columns) != needed:
        raise InvalidError(f"{path}: vindex {bound.name!r} needs {needed} columns, not {len(bound.columns)}")
    if any(not column for column in bound.columns):
        raise InvalidError(f"{path}: a column without a name")
    if len({column.lower() for column in bound.columns}) != len(bound.columns):
        raise InvalidError(f"{path}: a column is named twice")
    if table.column_list_authoritative:
        _check_listed(table, bound.columns, path)


def _check_listed(table: TableEntry, columns: Iterable[str], path: str) -> None:
    listed = {name.lower() for name, _ in table.columns}
    for column in columns:
        if column.lower() not in listed:
            raise InvalidError(f"{path}: column {column!r} not found")


def problems(
    keyspace: str,
    vschema: VSchema,
    columns: Mapping[str, Collection[str]] | None = None,
    others: Mapping[str, VSchema] | None = None,
) -> tuple[str, ...]:
    """Everything that does not fit the tables on the servers and the other keyspaces, as sentences.

    :param columns: each existing table's column names; None: not known, not judged.
    :param others: the branch's keyspaces by name; this one may be among them and is then replaced.
    """
    known = {**(others or {}), keyspace: vschema}
    found: list[str] = []
    for table in vschema.tables.values():
        found += _unknown_columns(table, columns)
        if table.auto_increment is not None:
            found += _sequence_problems(known, table, table.auto_increment)
        if table.source and others is not None:
            source_keyspace = table.source.partition(".")[0]
            if source_keyspace not in known:
                found.append(f"tables.{table.name}.source: keyspace {source_keyspace!r} not found")
    return tuple(found)


def _unknown_columns(table: TableEntry, columns: Mapping[str, Collection[str]] | None) -> list[str]:
    if columns is None:
        return []
    if table.name not in columns:
        return [f"tables.{table.name}: table not found"]
    there = {name.lower() for name in columns[table.name]}
    named = [column for bound in table.column_vindexes for column in bound.columns]
    if table.auto_increment is not None:
        named.append(table.auto_increment.column)
    if table.type == SEQUENCE:
        named += ["id", "next_id", "cache"]
    return [
        f"tables.{table.name}: column {column!r} not found" for column in named if column.lower() not in there
    ]


def _sequence_problems(known: Mapping[str, VSchema], table: TableEntry, told: AutoIncrement) -> list[str]:
    path = f"tables.{table.name}.auto_increment"
    try:
        keyspace, name = find_sequence(known, told.sequence)
    except InvalidError as error:
        return [f"{path}: {error.message}"]
    entry = known[keyspace].tables.get(name)
    if entry is None or entry.type != SEQUENCE:
        return [f"{path}: sequence table {told.sequence!r} needs to be marked as sequence type"]
    return []


def find_sequence(known: Mapping[str, VSchema], sequence: str) -> tuple[str, str]:
    """The (keyspace, table) that a sequence's name means among the branch's keyspaces.

    :raises InvalidError: nowhere, or in several keyspaces.
    """
    keyspace, dot, name = sequence.partition(".")
    if dot:
        if keyspace not in known:
            raise InvalidError(f"sequence {sequence!r}: keyspace {keyspace!r} not found")
        return keyspace, name
    places = [
        place
        for place, vschema in known.items()
        if sequence in vschema.tables and vschema.tables[sequence].type == SEQUENCE
    ]
    if len(places) != 1:
        raise InvalidError(
            f"sequence {sequence!r} " + ("not found" if not places else "is in several keyspaces; qualify it")
        )
    return places[0], sequence
