"""The page of the engines, made from what ``model/engines.py`` says that each can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields

from homeworld.model.engines import CAPABILITIES, Capabilities, EngineKind
from homeworld.model.topology import Flavor


def _yes(value: bool) -> str:
    return "yes" if value else "no"


# Every capability has a row: one that is added without is a KeyError here.
ROWS: Mapping[str, tuple[str, Callable[[Capabilities], str]]] = {
    "flavors": (
        "stands on servers of",
        lambda one: ", ".join(flavor for flavor in Flavor if flavor in one.flavors),
    ),
    "vitess": (
        "statements are planned, and rows moved, by",
        lambda one: "Vitess" if one.vitess else "homeworld",
    ),
    "makes_servers": (
        "servers, keyspaces and branches are made by",
        lambda one: "homeworld" if one.makes_servers else "whoever runs the cluster",
    ),
    "any_statement_over_shards": (
        "statements over shards",
        lambda one: (
            "all that Vitess plans"
            if one.any_statement_over_shards
            else "those whose answer is exact; the rest is refused with the reason"
        ),
    ),
    "switched_by": (
        "writes are switched, while clients wait, by",
        lambda one: one.switched_by,
    ),
    "atomic_over_shards": (
        "a transaction over shards is committed",
        lambda one: one.atomic_over_shards,
    ),
    "shards_share_servers": (
        "several shards of a keyspace on one server",
        lambda one: _yes(one.shards_share_servers),
    ),
    "moves_from_shards": (
        "tables move from a sharded keyspace",
        lambda one: _yes(one.moves_from_shards),
    ),
    "resumable_verification": (
        "a verification goes on where it was interrupted",
        lambda one: _yes(one.resumable_verification),
    ),
    "repair": ("a verification can repair what differs", lambda one: _yes(one.repair)),
}

_HEAD = """\
# Engines

What plans and carries a database's statements is its *engine*. The API, states, passwords and commands are
the same above each. Made by `make reference` from `src/homeworld/model/engines.py`.

"""
_TAIL = """
## Which one a database has

`POST …/databases` takes `engine` (`local` or `vitess`, homeworld's own field); without it the database gets
what `homeworld up --engine` (or `homeworld api --engine`) says, which is `local` unless it is told. The
answer tells it in `engine`, and so does `homeworld engine show DATABASE`. An engine that cannot be had,
because its programs are missing or the servers are of another flavor, is refused with 422 and what to do.

Keyspaces of `vitess` have a server for each shard, whatever `--placement` says, because Vitess wants one.

## Taking a running database into Vitess

    homeworld engine change DATABASE vitess

(By the API: `POST …/databases/{database}/engine-changes` with `{"engine": "vitess"}`, polled at the `id`
below it.)

Clusters of Vitess are made beside the database's branches, on the servers that they have; every table is
looked at through vtgate; then statements wait for a moment, and go on through Vitess. No row moves, and
nothing is copied. It is refused, with all reasons, where Vitess could not serve what is there: a table of a
sharded keyspace without an entry in the vschema, triggers or views in a sharded keyspace, two of its shards
on one server (`--placement shared`), names that Vitess takes for its own (`_vt_…`); and while a workflow, a
resize, a reparent or a maintenance window of the database is not over. Foreign keys stay what they are,
each within its shard. There is no way back but a copy of the data.

## Attaching a Vitess cluster that is there already

    homeworld engine attach DATABASE --vtctld HOST:15999 --vtgate HOST:15306 --vtgate-http HOST:15001 \\
        --logins FILE

makes a database of a Vitess 23 cluster that somebody else runs. Nothing in it changes. Its keyspaces, shards
and vschemas are read from it, and from then on clients reach it through homeworld's gateway: passwords with
roles, time limits and networks, TLS, HTTPS, the API, and MoveTables with everything held that Vitess would
fail. `FILE` is

    {"vtgate": {"user": "…", "password": "…"}, "mysql": {"user": "…", "password": "…"}}

with an account of vtgate's that may do all that clients may, and an administrator of the tablets' MySQL
servers (8.0.27 to 9.x), which have to take clients over the network: moves read definitions, raise ids and
compare positions there. It is a command for whoever runs homeworld and works on its data directory, so that
no caller of the API can name an address that homeworld would ask. vtctld is asked with `--vtctld-ca`,
`--vtctld-cert` and `--vtctld-key` over TLS; where anything else is on another machine, `--in-the-clear` says
that the network between is trusted, as vtgate and servers are reached without TLS. What cannot be used is
said before anything is made, all reasons together.

Whoever runs the cluster goes on doing so: keyspaces, shards, sizes, replicas and reparents are theirs, and
asking for them here is refused. A change of primaries, tablets, keyspaces, vschemas or routing rules there is
seen within seconds and followed; while a workflow is not over, its rules and vschemas are its own.
Homeworld's gateway is then one client of vtgate beside others: those that go past it meet what Vitess does at
a switch. There is one account behind all roles, so it is the gateway alone that keeps a reader from writing.
Progress of a move is told by the servers' own figures: `SET PERSIST information_schema_stats_expiry = 0`
there, or those are up to a day old.

Deleting the database lets go of the cluster: homeworld forgets it, and it has all of its data.
"""


def page() -> str:
    """The page as it is to be."""
    engines = list(EngineKind)
    lines = [f"| | {' | '.join(f'`{engine}`' for engine in engines)} |", "|---|" + "---|" * len(engines)]
    for field in sorted(fields(Capabilities), key=lambda one: list(ROWS).index(one.name)):
        title, show = ROWS[field.name]
        lines.append(f"| {title} | {' | '.join(show(CAPABILITIES[engine]) for engine in engines)} |")
    return _HEAD + "\n".join(lines) + "\n" + _TAIL
