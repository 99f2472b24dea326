"""The rules that a workflow's phases are computed from: those before it, with what others changed since.

Pure. Invariant: a rule that this workflow makes or moves is computed from what stood before the workflow; any
other rule is as it stands now, so a user's edit made meanwhile is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def baseline(
    before: Mapping[str, str], current: Mapping[str, str], tables: Sequence[str], source: str, target: str
) -> dict[str, str]:
    """What :func:`~homeworld.model.routing_rules.rules_for` takes as the rules before the workflow.

    >>> baseline({"t": "a.t"}, {"t": "b.t", "x": "c.x"}, ["t"], "a", "b")
    {'t': 'a.t', 'x': 'c.x'}
    """
    own = {name for table in tables for name in (table, f"{source}.{table}", f"{target}.{table}")}
    # Older rules that lead to a moving table follow it; what they became is computed anew each time.
    moving = {f"{keyspace}.{table}" for keyspace in (source, target) for table in tables}
    following = {_plain(name) for name, to in before.items() if to in moving}
    ours = own | following
    return {name: to for name, to in before.items() if _plain(name) in ours} | {
        name: to for name, to in current.items() if _plain(name) not in ours
    }


def _plain(name: str) -> str:
    return name.partition("@")[0]
