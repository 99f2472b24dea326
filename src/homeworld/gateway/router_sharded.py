"""Statements on a sharded keyspace."""

from __future__ import annotations

from collections.abc import Sequence

from homeworld.gateway.router_context import Compiled, Context
from homeworld.gateway.router_errors import unsupported
from homeworld.gateway.router_names import Found, Names
from homeworld.model.routing import KeyspaceRoute


class Sharded:
    """Plans statements on sharded keyspaces."""

    def __init__(self, names: Names) -> None:
        self.names = names

    def compile(
        self, context: Context, keyspace: KeyspaceRoute, found: Sequence[Found], *, prepared: bool
    ) -> Compiled:
        raise unsupported("sharded keyspaces")
