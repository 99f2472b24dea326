"""How the router's parts say no, or not yet, from deep inside.

:class:`~homeworld.gateway.router.Router` turns both into plans, so that nothing is raised to a session.
"""

from __future__ import annotations

from collections.abc import Iterable

from homeworld.gateway.plan import NeedLastId, NeedSchema, NeedSequence, Refuse
from homeworld.model.errors import HomeworldError


class RefusedError(HomeworldError):
    """The statement is refused; nothing was sent anywhere."""

    code = "refused"
    http_status = 422

    def __init__(self, errno: int, sqlstate: str, message: str, keyspaces: Iterable[str] = ()) -> None:
        """:param keyspaces: see :class:`~homeworld.gateway.plan.Refuse`."""
        self.plan: Refuse = Refuse(errno, sqlstate, message, frozenset(keyspaces))
        super().__init__(message)


class NeedsError(HomeworldError):
    """Something must be known before the statement can be planned."""

    code = "needs"

    def __init__(self, plan: NeedSchema | NeedSequence | NeedLastId) -> None:
        self.plan: NeedSchema | NeedSequence | NeedLastId = plan
        super().__init__()


def unsupported(what: str) -> RefusedError:
    """What the gateway cannot do exactly, in Vitess's words."""
    return RefusedError(1235, "42000", f"VT12001: unsupported: {what}")


def no_such_table(keyspace: str, table: str) -> RefusedError:
    """The table is nowhere."""
    return RefusedError(1146, "42S02", f"Table '{keyspace}.{table}' doesn't exist")


def unknown_database(name: str) -> RefusedError:
    """The name is neither the database nor a keyspace."""
    return RefusedError(1049, "42000", f"VT05003: unknown database '{name}' in vschema")
