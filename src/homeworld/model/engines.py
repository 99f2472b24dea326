"""Which engine a database runs on, and what each of them can do: one table that API, documents and CLI read.

Invariant: whatever differs between engines for a user is a row here; nobody asks for an engine's name to
decide what to offer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from homeworld.model.topology import Flavor


class EngineKind(StrEnum):
    """What plans and carries statements of a database."""

    LOCAL = "local"
    VITESS = "vitess"
    ATTACHED = "attached"
    """A Vitess cluster that somebody else runs."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do.

    :param flavors: the servers it can stand on.
    :param vitess: whether vtgate plans statements and VReplication moves rows.
    :param makes_servers: whether homeworld makes, sizes, restarts and ends its servers, and so keyspaces and
        branches. Else whoever runs them does, and homeworld reads what there is.
    :param shards_share_servers: whether a server may have several shards of a keyspace.
    :param moves_from_shards: whether tables may leave a sharded keyspace by a move.
    :param repair: whether a verification can repair what differs.
    :param resumable_verification: whether a verification goes on where it was interrupted.
    :param any_statement_over_shards: whether it plans all that Vitess plans, or refuses beyond what is exact.
    :param switched_by: who moves writes while clients wait; others may write past homeworld only where it is
        Vitess.
    :param atomic_over_shards: how a transaction over several shards ends: ``one after the other`` or
        ``two-phase``.
    """

    flavors: frozenset[Flavor]
    vitess: bool
    makes_servers: bool
    shards_share_servers: bool
    moves_from_shards: bool
    repair: bool
    resumable_verification: bool
    any_statement_over_shards: bool
    switched_by: str
    atomic_over_shards: str


_VITESS = Capabilities(
    flavors=frozenset({Flavor.MYSQL}),
    vitess=True,
    makes_servers=True,
    shards_share_servers=False,
    moves_from_shards=False,
    repair=False,
    resumable_verification=True,
    any_statement_over_shards=True,
    switched_by="homeworld; Vitess follows",
    atomic_over_shards="one after the other",
)
CAPABILITIES: Mapping[EngineKind, Capabilities] = {
    EngineKind.LOCAL: Capabilities(
        flavors=frozenset(Flavor),
        vitess=False,
        makes_servers=True,
        shards_share_servers=True,
        moves_from_shards=True,
        repair=True,
        resumable_verification=True,
        any_statement_over_shards=False,
        switched_by="homeworld",
        atomic_over_shards="one after the other",
    ),
    EngineKind.VITESS: _VITESS,
    EngineKind.ATTACHED: replace(_VITESS, makes_servers=False, switched_by="Vitess"),
}

ON_VITESS = frozenset(engine for engine, can in CAPABILITIES.items() if can.vitess)
"""The engines whose statements vtgate plans."""
MAKES_SERVERS = frozenset(engine for engine, can in CAPABILITIES.items() if can.makes_servers)
"""The engines whose servers are homeworld's."""
ASKED_FOR = (EngineKind.LOCAL, EngineKind.VITESS)
"""The engines that a new database can have."""

NO_VITESS: Mapping[EngineKind, str] = {EngineKind.VITESS: "there is no Vitess on this machine"}
"""What an installation lacks that has looked for nothing."""


def no_servers(engine: EngineKind, database: str, what: str) -> str:
    """Why homeworld does not do what changes servers that are not its own, in a sentence; empty: they are.

    :param what: that is asked for, such as "keyspaces are made".

    >>> no_servers(EngineKind.ATTACHED, "shop", "keyspaces are made")
    'database shop is a Vitess cluster that others run: keyspaces are made there, and homeworld follows'
    >>> no_servers(EngineKind.LOCAL, "shop", "keyspaces are made")
    ''
    """
    if CAPABILITIES[engine].makes_servers:
        return ""
    return f"database {database} is a Vitess cluster that others run: {what} there, and homeworld follows"


def refusal(engine: EngineKind, flavor: Flavor, missing: Mapping[EngineKind, str]) -> str:
    """Why a database cannot be this engine's, in a sentence that says what to do; empty: it can.

    :param missing: engines that an installation does not have, and why.

    >>> refusal(EngineKind.VITESS, Flavor.MARIADB, {})
    'engine vitess stands on mysql servers only, not on mariadb; ask for engine local'
    >>> refusal(EngineKind.LOCAL, Flavor.MARIADB, NO_VITESS)
    ''
    """
    others = ", ".join(one for one in ASKED_FOR if one is not engine)
    if engine not in ASKED_FOR:
        return (
            f"a database of engine {engine} is a Vitess cluster that is there already; whoever runs "
            f"homeworld attaches it by 'homeworld engine attach'. For a new database ask for engine {others}"
        )
    flavors = CAPABILITIES[engine].flavors
    if flavor not in flavors:
        on = ", ".join(sorted(flavors))
        return f"engine {engine} stands on {on} servers only, not on {flavor}; ask for engine {others}"
    if why := missing.get(engine):
        return f"engine {engine} cannot be had here: {why}; until then ask for engine {others}"
    return ""
