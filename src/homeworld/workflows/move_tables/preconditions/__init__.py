"""What must hold before tables move. One rule a file; all are asked, and all reasons are told at once."""

from __future__ import annotations

from homeworld.workflows.move_tables.preconditions import (
    binlog,
    branch,
    column_types,
    foreign_keys,
    grants,
    keyspaces,
    mentions,
    row_key,
    sequences,
    storage,
    tables_exist,
    target_tables,
    triggers,
    vindexes,
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
    vindexes.RULE,
    sequences.RULE,
    binlog.RULE,
    grants.RULE,
)


def judge(world: World) -> tuple[str, ...]:
    """Every reason of every rule, each once, in the order of the rules."""
    return tuple(dict.fromkeys(reason for rule in RULES for reason in rule.check(world)))
