"""Views, routines, events and other tables' triggers that name a moving table would go on using the old one.

The text is searched for the name as a word; a mention in a comment counts too, which a person can see.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from homeworld.workflows.move_tables.preconditions.world import Body, Rule, ShardFacts, World


def mentions(body: Body, tables: tuple[str, ...]) -> tuple[str, ...]:
    """The tables whose name stands in the body's text."""
    return tuple(
        name
        for name in tables
        if re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", body.text, re.IGNORECASE)
    )


def users(shard: ShardFacts, tables: tuple[str, ...]) -> Iterator[str]:
    """Each use of one of the tables on a shard."""
    for body in shard.bodies:
        for name in mentions(body, tables):
            yield f"{body.kind} {body.name} on {shard.where} uses table {name} and would be left behind"


def _check(world: World) -> Iterator[str]:
    for shard in world.source.shards:
        yield from users(shard, world.tables)


RULE = Rule("mentions", "no view, routine, event or other trigger of the source uses a moved table", _check)
