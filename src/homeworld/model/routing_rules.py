"""Routing rules: which keyspace's table a name leads to, and what a MoveTables workflow makes of them.

A rule leads from ``t``, ``keyspace.t`` or either with ``@replica`` or ``@rdonly`` behind it to one
``keyspace.t``. A look-up follows one rule and no further, as in Vitess. Invariant: a set of rules made here
never needs a second step: where a rule leads, no other rule leads away from.

Rules are pure data; when they are stored and served is the business of workflows and gateways.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import cast

from homeworld.model.errors import InvalidError
from homeworld.model.json_text import load
from homeworld.model.topology import TabletType

_REPLICAS = (TabletType.REPLICA, TabletType.RDONLY)
_SUFFIXES = {"", *(f"@{tablet_type}" for tablet_type in TabletType)}


class TrafficPhase(StrEnum):
    """Where a workflow's traffic goes."""

    SOURCE = "source"  # running: either keyspace's name leads to the source
    REPLICAS = "replicas"  # replica reads lead to the target, the rest to the source
    TARGET = "target"  # primaries switched, or a cutover reversed: every name leads to the target
    CUTOVER = "cutover"  # the source's tables are gone; rules as before the workflow
    CANCELLED = "cancelled"  # the target's tables are gone; exactly the rules before the workflow


def split_name(name: str) -> tuple[str, str, str]:
    """``keyspace.table@type`` as (keyspace, table, suffix); the first and the last may be empty.

    :raises InvalidError: not of that form.
    """
    qualified, at, tablet_type = name.partition("@")
    suffix = at + tablet_type
    keyspace, dot, table = qualified.rpartition(".")
    if suffix not in _SUFFIXES:
        raise InvalidError(f"table {name!r}: unknown tablet type; expected @primary, @replica or @rdonly")
    if not table or (dot and not keyspace) or "." in keyspace:
        raise InvalidError(f"table {name!r} must be written table or keyspace.table")
    return keyspace, table, suffix


def look_up(
    rules: Mapping[str, str], keyspace: str, table: str, tablet_type: TabletType
) -> tuple[str, str] | None:
    """Where a name leads: the rule for the tablet type first, then the rule without one; None: no rule."""
    qualified = f"{keyspace}.{table}" if keyspace else table
    to = rules.get(f"{qualified}@{tablet_type}") or rules.get(qualified)
    if to is None:
        return None
    to_keyspace, _, to_table = to.partition(".")
    return to_keyspace, to_table


def parse(given: str | Mapping[str, object]) -> dict[str, str]:
    """Read Vitess's form ``{"rules":[{"from_table": …, "to_tables": [one]}]}``.

    :raises InvalidError: not that form, or a rule that could not be followed.
    """
    loaded: object = load(given, "the routing rules") if isinstance(given, str) else given
    if not isinstance(loaded, Mapping):
        raise InvalidError("routing rules must be an object with 'rules'")
    top = cast("Mapping[str, object]", loaded)
    if unknown := [name for name in top if name != "rules"]:
        raise InvalidError(f"routing rules: unknown field {unknown[0]!r}")
    listed: object = top.get("rules") or ()
    if not isinstance(listed, list | tuple):
        raise InvalidError("rules must be a list")
    rules: dict[str, str] = {}
    for entry in cast("Sequence[object]", listed):
        name, to = _rule(entry)
        if name in rules:
            raise InvalidError(f"table {name!r} has more than one rule")
        rules[name] = to
    check(rules)
    return rules


def _rule(entry: object) -> tuple[str, str]:
    if not isinstance(entry, Mapping):
        raise InvalidError("a routing rule must be an object")
    rule = cast("Mapping[str, object]", entry)
    name = rule.get("from_table", rule.get("fromTable"))
    targets = rule.get("to_tables", rule.get("toTables"))
    if not isinstance(name, str) or not name:
        raise InvalidError("a routing rule needs from_table")
    if not isinstance(targets, list) or not targets:
        raise InvalidError(f"table {name!r} has no targets")
    all_targets = cast("list[object]", targets)
    if len(all_targets) > 1:
        raise InvalidError(f"table {name!r} has more than one target")
    (to,) = all_targets
    if not isinstance(to, str):
        raise InvalidError(f"table {name!r}: a target must be text")
    return name, to


def render(rules: Mapping[str, str]) -> dict[str, object]:
    """Vitess's JSON object, sorted by name."""
    return {"rules": [{"from_table": name, "to_tables": [rules[name]]} for name in sorted(rules)]}


def check(rules: Mapping[str, str], keyspaces: Mapping[str, Collection[str] | None] | None = None) -> None:
    """Hold rules against themselves and against what exists.

    :param keyspaces: keyspace to its table names (None: tables not known); None: not judged.
    :raises InvalidError: the first rule that cannot be followed, or that leads in a circle.
    """
    for name, to in rules.items():
        split_name(name)
        keyspace, table, suffix = split_name(to)
        if not keyspace or suffix:
            raise InvalidError(f"table {to!r} must be qualified as keyspace.table")
        if keyspaces is not None:
            if keyspace not in keyspaces:
                raise InvalidError(f"keyspace {keyspace!r} not found in schema")
            tables = keyspaces[keyspace]
            if tables is not None and table not in tables:
                raise InvalidError(f"table {to!r} not found")
    for name, to in rules.items():
        _, _, suffix = split_name(name)
        onward = rules.get(to + suffix, rules.get(to, to)) if suffix else rules.get(to, to)
        if onward == to:
            continue
        if rules.get(onward, onward) == to:
            raise InvalidError(f"the rules of {name!r} and {onward!r} lead in a circle")
        raise InvalidError(f"table {name!r} leads to {to!r}, from where another rule leads to {onward!r}")


def _names(table: str, source: str, target: str) -> tuple[str, str, str]:
    return table, f"{source}.{table}", f"{target}.{table}"


def rules_for(
    phase: TrafficPhase,
    tables: Iterable[str],
    source_keyspace: str,
    target_keyspace: str,
    before: Mapping[str, str],
) -> dict[str, str]:
    """The branch's whole rules while a workflow's traffic is in ``phase``.

    Rules of other tables stay as they were. An older rule that leads to a moving table (left by an earlier
    workflow, or made by hand) goes on following the table wherever it is served.

    :param before: the rules as they were before the workflow began.
    """
    moving = sorted(set(tables))
    if phase is TrafficPhase.CANCELLED:
        return dict(before)
    at_source = {f"{source_keyspace}.{table}": f"{target_keyspace}.{table}" for table in moving}
    if phase is TrafficPhase.CUTOVER:
        return {name: at_source.get(to, to) for name, to in before.items() if not _stale(name, to, at_source)}
    own = {name for table in moving for name in _names(table, source_keyspace, target_keyspace)}
    rules: dict[str, str] = {}
    for name, to in before.items():
        qualified, _, _ = name.partition("@")
        if qualified in own:
            continue
        rules[name] = to
        if to in at_source:
            rules.update(_following(name, to, at_source[to], phase))
    for table in moving:
        source, target = f"{source_keyspace}.{table}", f"{target_keyspace}.{table}"
        for name in _names(table, source_keyspace, target_keyspace):
            rules[name] = target if phase is TrafficPhase.TARGET else source
            for replica in _REPLICAS:
                rules[f"{name}@{replica}"] = source if phase is TrafficPhase.SOURCE else target
    return rules


def switched_rules(rules: Mapping[str, str], tables: Iterable[str], origin: str, to: str) -> dict[str, str]:
    """All rules as Vitess's own switch of writes leaves them (its ``changeWriteRoute``): the tables' names
    without a keyspace and in ``origin`` lead to ``to``, whose own names need no rule.

    >>> switched_rules({"wide.t": "shop.t", "t@replica": "wide.t"}, ["t"], "shop", "wide")
    {'t@replica': 'wide.t', 't': 'wide.t', 'shop.t': 'wide.t'}
    """
    found = dict(rules)
    for table in tables:
        found.pop(f"{to}.{table}", None)
        found[table] = found[f"{origin}.{table}"] = f"{to}.{table}"
    return found


def _stale(name: str, to: str, at_source: Mapping[str, str]) -> bool:
    """Whether after a cutover the rule would lead the target's own name away from the target.

    Rules such as ``target.t`` to ``source.t`` were right only while the table was at the source.
    """
    qualified, _, _ = name.partition("@")
    return to in at_source and qualified == at_source[to]


def _following(name: str, to: str, target: str, phase: TrafficPhase) -> dict[str, str]:
    """What an older rule to a moving table becomes."""
    if phase is TrafficPhase.SOURCE:
        return {}
    if phase is TrafficPhase.TARGET:
        return {name: target}
    if "@" in name:
        return {name: to if name.endswith(f"@{TabletType.PRIMARY}") else target}
    return {f"{name}@{replica}": target for replica in _REPLICAS}
