"""Views, routines, events and other tables' triggers that name a moving table would go on using the old one.

Of views the server keeps a text in which every table stands with its schema, so their uses are exact. Other
texts are searched for the name as a word, behind the schema's where they are in another schema; a mention in
a comment counts too, which a person can see.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from homeworld.model.names import quote
from homeworld.workflows.move_tables.preconditions.world import Body, Rule, ShardFacts, World


def mentions(body: Body, schema: str, tables: tuple[str, ...]) -> tuple[str, ...]:
    """The tables of the schema that the body's text uses."""
    if body.kind == "view":
        text = body.text.lower()
        return tuple(name for name in tables if quote(schema, name).lower() in text)
    # Where ANSI_QUOTES was set a name stands in the other quotes.
    qualifier = rf"{re.escape(schema)}[`\"]?\s*\.\s*[`\"]?" if body.schema else ""
    return tuple(
        name
        for name in tables
        if re.search(rf"(?<![\w$]){qualifier}{re.escape(name)}(?![\w$])", body.text, re.IGNORECASE)
    )


def users(shard: ShardFacts, tables: tuple[str, ...]) -> Iterator[str]:
    """Each use of one of the tables on a shard."""
    for body in shard.bodies:
        for name in mentions(body, shard.schema, tables):
            which = f"{body.schema}.{body.name}" if body.schema else body.name
            yield f"{body.kind} {which} on {shard.where} uses table {name} and would be left behind"


def _check(world: World) -> Iterator[str]:
    for shard in world.source.shards:
        yield from users(shard, world.tables)


RULE = Rule(
    "mentions",
    "no view, routine, event or other trigger of the source uses a moved table",
    _check,
    lasting=True,
)
