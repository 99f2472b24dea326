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
    "any_statement_over_shards": (
        "statements over shards",
        lambda one: (
            "all that Vitess plans"
            if one.any_statement_over_shards
            else "those whose answer is exact; the rest is refused with the reason"
        ),
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
"""


def page() -> str:
    """The page as it is to be."""
    engines = list(EngineKind)
    lines = [f"| | {' | '.join(f'`{engine}`' for engine in engines)} |", "|---|" + "---|" * len(engines)]
    for field in sorted(fields(Capabilities), key=lambda one: list(ROWS).index(one.name)):
        title, show = ROWS[field.name]
        lines.append(f"| {title} | {' | '.join(show(CAPABILITIES[engine]) for engine in engines)} |")
    return _HEAD + "\n".join(lines) + "\n" + _TAIL
