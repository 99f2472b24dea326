"""What a cluster that others run and the store had alike last, and what either has changed since. Pure.

Each side may change vschemas and routing rules. What both had alike last tells whose a change is: what is
stored otherwise is ours to give, what is seen otherwise is theirs to be taken over. Where both have changed
the same thing, what is stored here stays.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast


@dataclass(frozen=True, slots=True)
class Agreement:
    """Vschemas by keyspace, and routing rules; what is not in it nobody knows to be alike."""

    vschemas: Mapping[str, Mapping[str, object]]
    rules: Mapping[str, str]

    @classmethod
    def stored(cls, fields: Mapping[str, Mapping[str, Any]] | None) -> Agreement:
        """As it is stored; None: nothing is known to be alike."""
        if fields is None:
            return cls({}, {})
        return cls(fields["vschemas"], cast("Mapping[str, str]", fields["rules"]))

    def fields(self) -> dict[str, Mapping[str, Any]]:
        """As it is stored."""
        return {"vschemas": dict(self.vschemas), "rules": dict(self.rules)}

    def with_vschemas(self, vschemas: Mapping[str, Mapping[str, object]]) -> Agreement:
        """The same, where these are alike."""
        return Agreement({**self.vschemas, **vschemas}, self.rules)

    def with_rules(self, rules: Mapping[str, str], names: Collection[str]) -> Agreement:
        """The same, where the rules of these names are alike; of those that are not in it there is none."""
        kept = {name: to for name, to in self.rules.items() if name not in names}
        return Agreement(self.vschemas, kept | {name: rules[name] for name in names if name in rules})

    def changed_vschemas(self, vschemas: Mapping[str, Mapping[str, object]]) -> frozenset[str]:
        """The keyspaces whose vschemas are not what they were."""
        return frozenset(name for name, one in vschemas.items() if self.vschemas.get(name) != one)

    def changed_rules(self, rules: Mapping[str, str]) -> frozenset[str]:
        """The names whose rules are not what they were."""
        return frozenset(name for name in {*self.rules, *rules} if self.rules.get(name) != rules.get(name))


def merged(into: Mapping[str, str], rules: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """Rules with those of some names as others have them.

    >>> merged({"a": "k.a", "b": "k.b"}, {"a": "l.a"}, ["a", "b"])
    {'a': 'l.a'}
    """
    kept = {name: to for name, to in into.items() if name not in names}
    return kept | {name: rules[name] for name in names if name in rules}
