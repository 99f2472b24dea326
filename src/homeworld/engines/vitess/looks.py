"""What processes of a cluster say of themselves: over HTTP, and vtgate's answers to statements.

Nobody else is asked: whether vtgate serves by a rule is known to that vtgate alone. Pure functions read the
answers; whoever asks has a time limit.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, cast

import pymysql

from homeworld.model.clusters import ClusterKeyspace
from homeworld.model.errors import UnavailableError
from homeworld.model.topology import Endpoint

_LOOPBACK = "127.0.0.1"


def get_json(port: int, path: str, timeout_seconds: float = 2.0, *, host: str = _LOOPBACK) -> dict[str, Any]:
    """An object that a process tells over HTTP.

    :param host: of another machine only where whoever runs homeworld has named it.
    :raises UnavailableError: it does not answer, or with something else.
    """
    try:
        with closing(http.client.HTTPConnection(host, port, timeout=timeout_seconds)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read()
        if answer.status != http.client.OK:
            raise UnavailableError(f"the process at port {port} answers {answer.status} to {path}")
        found: object = json.loads(text)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UnavailableError(f"the process at port {port} does not answer: {error}") from error
    if not isinstance(found, dict):
        raise UnavailableError(f"the process at port {port} answers no object to {path}")
    return cast("dict[str, Any]", found)


def variables(port: int) -> dict[str, Any]:
    """A process's figures (``/debug/vars``).

    :raises UnavailableError: it does not answer.
    """
    return get_json(port, "/debug/vars")


def is_primary(tablet_variables: Mapping[str, object]) -> bool:
    """Whether a tablet takes itself for its shard's primary."""
    return str(tablet_variables.get("TabletType", "")).lower() == "primary"


@dataclass(frozen=True, slots=True)
class VtgateView:
    """By what a vtgate serves.

    :param rules: routing rules, in homeworld's form.
    :param refused: of those, what vtgate says of such as it cannot follow, by name.
    :param keyspaces: its vschemas, as it tells them.
    """

    rules: Mapping[str, str]
    refused: Mapping[str, str]
    keyspaces: Mapping[str, Any]


def vtgate_view(vschema: Mapping[str, Any]) -> VtgateView:
    """Read a vtgate's ``/debug/vschema``."""
    rules: dict[str, str] = {}
    refused: dict[str, str] = {}
    for name, to in cast("dict[str, object]", vschema.get("routing_rules") or {}).items():
        if isinstance(to, list):
            targets = cast("list[str]", to)
            if targets:
                rules[name] = targets[0]
        else:
            refused[name] = str(to)
    return VtgateView(rules, refused, cast("dict[str, Any]", vschema.get("keyspaces") or {}))


def rules_of(answer: Mapping[str, Any]) -> dict[str, str]:
    """Routing rules in homeworld's form from Vitess's; rules that lead nowhere are none.

    Not judged: while a move switches, Vitess has rules for a moment that nobody would set.
    """
    listed = cast("Sequence[Mapping[str, Any]]", answer.get("rules") or ())
    return {
        str(rule["from_table"]): str(rule["to_tables"][0])
        for rule in listed
        if rule.get("from_table") and rule.get("to_tables")
    }


# Of these objects the names are the caller's, and count although what is under them is empty.
_NAMED = frozenset({"vindexes", "tables", "params"})


def canonical(vschema: Mapping[str, object]) -> dict[str, object]:
    """A vschema without what is at its default, so that two that mean the same are the same."""
    return _bare(vschema, named=False)


def _bare(value: Mapping[str, object], *, named: bool) -> dict[str, object]:
    bare = {name: _bare_value(inner, named=not named and name in _NAMED) for name, inner in value.items()}
    return (
        bare
        if named
        else {name: inner for name, inner in bare.items() if inner not in (False, "", 0, None, [], {})}
    )


def _bare_value(value: object, *, named: bool) -> object:
    if isinstance(value, Mapping):
        return _bare(cast("Mapping[str, object]", value), named=named)
    if isinstance(value, list | tuple):
        return [_bare_value(inner, named=False) for inner in cast("Sequence[object]", value)]
    return value


def knows(view: VtgateView, keyspace: ClusterKeyspace) -> bool:
    """Whether a vtgate places the keyspace's rows as its vschema says."""
    seen = cast("dict[str, Any] | None", view.keyspaces.get(keyspace.name))
    if seen is None or bool(seen.get("sharded", False)) is not keyspace.sharded:
        return False
    if not keyspace.sharded:
        return True
    tables = cast("dict[str, dict[str, Any]]", seen.get("tables") or {})
    wanted = cast("dict[str, dict[str, Any]]", keyspace.vschema.get("tables") or {})
    vindexes = cast("dict[str, dict[str, Any]]", keyspace.vschema.get("vindexes") or {})
    types = {name: str(vindex.get("type", "")) for name, vindex in vindexes.items()}
    return all(
        name in tables and _placed(tables[name], {}) == _placed(wanted[name], types) for name in wanted
    )


def unread(view: VtgateView, keyspace: str, tables: Iterable[str]) -> list[str]:
    """Of these tables of a keyspace, those whose columns a vtgate has not read yet: it refuses an INSERT
    without a column list for them, and joins of which it has to know whose a column is.
    """
    seen = cast("dict[str, Any]", view.keyspaces.get(keyspace) or {})
    known = cast("dict[str, dict[str, Any]]", seen.get("tables") or {})
    return [name for name in tables if not known.get(name, {}).get("column_list_authoritative")]


def _placed(table: Mapping[str, Any], types: Mapping[str, str]) -> list[tuple[str, str, tuple[str, ...]]]:
    """A table's vindexes with type and columns, the one that places rows first.

    :param types: by a vindex's name, where the table's own entry does not say it.
    """
    return [
        (
            str(bound.get("name", "")),
            str(bound.get("type") or types.get(str(bound.get("name", "")), "")),
            tuple(str(column).lower() for column in bound.get("columns") or [bound.get("column", "")]),
        )
        for bound in table.get("column_vindexes") or ()
    ]


@dataclass(frozen=True, slots=True)
class Serving:
    """A tablet as vtgate has it. ``alias`` as ``local-100``."""

    keyspace: str
    shard: str
    tablet_type: str
    serves: bool
    alias: str


def short_alias(alias: str) -> str:
    """``local-0000000100`` as ``local-100``."""
    cell, _, number = alias.rpartition("-")
    return f"{cell}-{int(number)}" if number.isdigit() else alias


def tablets_of(vtgate: Endpoint, timeout_seconds: float = 2.0) -> list[Serving]:
    """The tablets that a vtgate knows.

    :param vtgate: with the user and password of a role.
    :raises UnavailableError: it does not answer.
    """
    try:
        connection = pymysql.connect(
            host=vtgate.host,
            port=vtgate.port,
            user=vtgate.user,
            password=vtgate.password,
            connect_timeout=max(1, int(timeout_seconds)),
            read_timeout=timeout_seconds,
            write_timeout=timeout_seconds,
            ssl_disabled=True,  # as the gateway; and to read what authorities there are takes 40 ms each time
        )
        with closing(connection), connection.cursor() as cursor:
            cursor.execute("SHOW VITESS_TABLETS")
            columns = [str(column[0]).lower() for column in cursor.description or ()]
            rows = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
    except (pymysql.MySQLError, OSError) as error:
        raise UnavailableError(f"vtgate at port {vtgate.port} does not answer: {error}") from error
    return [
        Serving(
            keyspace=str(row["keyspace"]),
            shard=str(row["shard"]),
            tablet_type=str(row["tablettype"]).lower(),
            serves=str(row["state"]).upper() == "SERVING",
            alias=short_alias(str(row["alias"])),
        )
        for row in rows
    ]
