"""What two versions of a branch's routes say about tables: which are served elsewhere, and of which keyspaces
what is known has to be read anew.

Pure, over routes only: knows no servers and no sessions. The invariant: a table that another was a copy of,
and that clients are led to from now on, is among those newly served.
"""

from __future__ import annotations

from collections.abc import Iterable

from homeworld.model.routing import BranchRoutes
from homeworld.model.routing_rules import look_up
from homeworld.model.topology import TabletType

Served = tuple[TabletType, str, str]
"""A table of a keyspace as clients of one tablet type meet it: tablet type, keyspace, table."""


def newly_served(old: BranchRoutes, new: BranchRoutes) -> frozenset[Served]:
    """Tables whose own names led elsewhere, and lead to themselves now: up to now they were no more than
    copies, behind the tables that clients wrote to.
    """
    if old.rules == new.rules:
        return frozenset()
    found: set[Served] = set()
    for keyspace, table in _own_names(old.rules):
        for tablet_type in TabletType:
            before, now = (
                look_up(routes.rules, keyspace, table, tablet_type) or (keyspace, table)
                for routes in (old, new)
            )
            if now == (keyspace, table) != before:
                found.add((tablet_type, keyspace, table))
    return frozenset(found)


def _own_names(rules: Iterable[str]) -> set[tuple[str, str]]:
    """The (keyspace, table) of rules' qualified names."""
    return {(keyspace, table) for keyspace, table in map(_parts, rules) if keyspace}


def _parts(name: str) -> tuple[str, str]:
    """The keyspace, which may be empty, and the table of a rule's name or target."""
    keyspace, _, table = name.partition("@")[0].rpartition(".")
    return keyspace, table


def concerned(old: BranchRoutes, new: BranchRoutes) -> dict[str, set[str]]:
    """Keyspaces of which something in the routes has changed, rules that name them or lead there included:
    tables are made before routes lead to them, and dropped before routes forget them.

    :returns: for each the tables whose rules have changed; among them the empty name where the change is
        another.
    """
    found = {name: {""} for name, route in new.keyspaces.items() if old.keyspaces.get(name) != route}
    for name in old.rules.keys() | new.rules.keys():
        before, now = old.rules.get(name), new.rules.get(name)
        if before == now:
            continue
        for keyspace, table in (_parts(one) for one in (name, before, now) if one):
            if keyspace in new.keyspaces:
                found.setdefault(keyspace, set()).add(table)
    return found


def same_place(old: BranchRoutes, new: BranchRoutes, keyspace: str) -> bool:
    """Whether the keyspace is read where it was: on the same servers, in the same schemas."""
    before, now = (routes.keyspaces.get(keyspace) for routes in (old, new))
    return before is not None and now is not None and before.shards == now.shards


def counterparts(routes: BranchRoutes, tables: Iterable[tuple[str, str]]) -> frozenset[str]:
    """The keyspaces of these (keyspace, table) and of every rule about tables of their names: between them
    traffic may be about to move.
    """
    tables = frozenset(tables)
    names = {table for _, table in tables}
    found = {keyspace for keyspace, _ in tables}
    for name, to in routes.rules.items():
        for keyspace, table in (_parts(name), _parts(to)):
            if table in names:
                found.add(keyspace)
    return frozenset(found & routes.keyspaces.keys())
