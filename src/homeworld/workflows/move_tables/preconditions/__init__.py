"""What must hold before tables move. One rule a file; all are asked, and all reasons are told at once."""

from __future__ import annotations

from homeworld.workflows.move_tables.preconditions import (
    binlog,
    branch,
    column_types,
    durability,
    foreign_keys,
    grants,
    keyspaces,
    layouts,
    mentions,
    prepared,
    row_key,
    sequences,
    storage,
    tables_exist,
    target_tables,
    triggers,
    upstream,
    vindexes,
    vitess,
)
from homeworld.workflows.move_tables.preconditions.world import Rule, World

RULES: tuple[Rule, ...] = (
    keyspaces.RULE,
    branch.RULE,
    tables_exist.RULE,
    row_key.RULE,
    storage.RULE,
    column_types.RULE,
    foreign_keys.RULE,
    triggers.RULE,
    mentions.RULE,
    target_tables.RULE,
    layouts.RULE,
    vindexes.RULE,
    sequences.RULE,
    binlog.RULE,
    durability.RULE,
    upstream.RULE,
    prepared.RULE,
    grants.RULE,
    vitess.RULE,
)


def judge(world: World, *, lasting: bool = False) -> tuple[str, ...]:
    """Every reason of every rule, each once, in the order of the rules.

    :param lasting: only of those rules that have to hold until traffic has moved.
    """
    rules = [rule for rule in RULES if rule.lasting or not lasting]
    return tuple(dict.fromkeys(reason for rule in rules for reason in rule.check(world)))
