"""Looking at what a database has, and at whether its cluster serves it. Judges are pure, eyes are a port.

Knows information_schema and what vtgate answers to a SELECT; changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from homeworld.model.errors import ServerError
from homeworld.model.names import quote
from homeworld.model.topology import Endpoint, ShardPlace
from homeworld.model.vschema import parse
from homeworld.replication.connection import Connection
from homeworld.replication.tables import literal

ANSWER_SECONDS = 15.0
INTERNAL = "_vt_"
"""How names of tables begin that Vitess takes for its own, and drops one day."""
NO_COLUMNS = "VT09004"
"""vtgate's code of an INSERT without columns into a table whose columns it does not know."""
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Content:
    """What a shard's schema has: names of its tables, views and stored routines, and triggers with the table
    of each.
    """

    tables: tuple[str, ...]
    views: tuple[str, ...] = ()
    triggers: tuple[tuple[str, str], ...] = ()
    routines: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All that statements may name like a table."""
        return (*self.tables, *self.views)


class Sight(Protocol):
    """Looks at servers and clusters."""

    def content(self, place: ShardPlace, seconds: float = ANSWER_SECONDS) -> Content:
        """What the shard has; its server is waited for no longer than that for an answer.

        :raises HomeworldError: its server does not answer.
        """
        ...

    def unserved(self, vtgate: Endpoint, keyspace: str, names: Sequence[str]) -> Mapping[str, str]:
        """Which of these tables and views vtgate does not serve, with its words.

        :raises HomeworldError: it does not answer.
        """
        ...


class ServerSight:
    """The real :class:`Sight`."""

    def content(self, place: ShardPlace, seconds: float = ANSWER_SECONDS) -> Content:
        """See :class:`Sight`."""
        with Connection(place.endpoint, connect_seconds=seconds, timeout_seconds=seconds) as connection:
            rows = connection.query_all(
                "SELECT TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES "  # noqa: S608 - a hex literal
                f"WHERE TABLE_SCHEMA = {literal(place.schema)} ORDER BY TABLE_NAME"
            )
            triggers = connection.query_all(
                "SELECT TRIGGER_NAME, EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS "  # noqa: S608 - the same
                f"WHERE TRIGGER_SCHEMA = {literal(place.schema)} ORDER BY TRIGGER_NAME"
            )
            routines = connection.query_all(
                "SELECT ROUTINE_NAME FROM information_schema.ROUTINES "  # noqa: S608 - the same
                f"WHERE ROUTINE_SCHEMA = {literal(place.schema)} ORDER BY ROUTINE_NAME"
            )
        kinds = [((name or b"").decode(), (kind or b"").decode()) for name, kind in rows]
        return Content(
            tuple(name for name, kind in kinds if kind != "VIEW"),
            tuple(name for name, kind in kinds if kind == "VIEW"),
            tuple(((name or b"").decode(), (table or b"").decode()) for name, table in triggers),
            tuple((name or b"").decode() for (name,) in routines),
        )

    def unserved(self, vtgate: Endpoint, keyspace: str, names: Sequence[str]) -> Mapping[str, str]:
        """See :class:`Sight`."""
        found: dict[str, str] = {}
        with Connection(vtgate, fidelity=False, timeout_seconds=ANSWER_SECONDS) as connection:
            for name in names:
                table = quote(keyspace, name)
                try:
                    connection.query_all(f"SELECT 1 FROM {table} LIMIT 1")  # noqa: S608 - quoted
                except ServerError as error:
                    found[name] = error.message
                    continue
                try:
                    # Planned, not carried out. It knows a table's columns a little later than the table.
                    connection.query_all(f"VEXPLAIN PLAN INSERT INTO {table} VALUES (NULL)")  # noqa: S608 - quoted
                except ServerError as error:
                    if NO_COLUMNS in error.message:
                        found[name] = error.message
        return found


def hindrances(
    branch: str,
    keyspace: str,
    vschema: Mapping[str, object],
    contents: Sequence[Content],
    servers: Sequence[str] = (),
) -> list[str]:
    """Why Vitess could not serve what a keyspace has; empty: it can, as far as that can be seen beforehand.

    :param contents: of its shards. ``servers``: of its primaries, one for each shard.
    """
    where = f"keyspace {keyspace} of branch {branch}"
    wanted = parse(vschema)
    tables = {name for content in contents for name in content.tables}
    found: list[str] = []
    if wanted.sharded:
        missing = sorted(name for name in tables if name not in wanted.tables)
        if missing:
            found.append(
                f"{where}: its vschema has no entry for {_listed(missing)}, so that vtgate would not know "
                "how the rows are placed; add entries, or drop the tables"
            )
        # On a shard they see that shard's rows only. MoveTables of either engine refuses them; so that nobody
        # finds out after the change, it is said before.
        fired = sorted({f"{name} (on {table})" for one in contents for name, table in one.triggers})
        if fired:
            found.append(f"{where}: Vitess has no triggers in sharded keyspaces; drop {_listed(fired)}")
        seen = sorted({name for one in contents for name in one.views})
        if seen:
            found.append(
                f"{where}: a view in a sharded keyspace would be one of each shard for itself; drop "
                f"{_listed(seen)}"
            )
    stored = sorted({name for one in contents for name in one.routines})
    if stored:
        found.append(
            f"{where}: behind Vitess nobody may run stored routines, whose rights are not tables'; drop "
            f"{_listed(stored)}"
        )
    if len(set(servers)) < len(servers):
        found.append(
            f"{where}: its shards share a server, and Vitess wants one for each; start homeworld with "
            "--placement dedicated and move the tables to a new keyspace first"
        )
    taken = sorted(name for name in tables if name.lower().startswith(INTERNAL))
    if taken:
        found.append(f"{where}: names that begin with {INTERNAL} are Vitess's own; rename {_listed(taken)}")
    return found


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
