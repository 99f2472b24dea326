"""What each password role may do, as data, for refusals a client can understand.

The server enforces the same by the role's account; this only speaks first and clearer. The one exception is
the writer: a server takes no UPDATE or DELETE with a WHERE from an account that may not read, so the account
may, and that no rows come out is held here. Hence what a writer may do is listed, and all else is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from homeworld.gateway.plan import Footprint, Verb
from homeworld.model.errors import ServerError
from homeworld.model.routing import Account
from homeworld.model.topology import BackendRole

_CHANGES = frozenset({Verb.INSERT, Verb.UPDATE, Verb.DELETE, Verb.REPLACE, Verb.LOAD})

DENIED: Mapping[BackendRole, frozenset[Verb]] = {
    BackendRole.READER: _CHANGES | {Verb.DDL},
    BackendRole.WRITER: frozenset({Verb.SELECT, Verb.DDL}),
    BackendRole.READWRITER: frozenset({Verb.DDL}),
    BackendRole.ADMIN: frozenset(),
}
"""Verbs on tables that a role is refused. A SELECT without tables is nobody's secret."""

READS = frozenset({Verb.SELECT, Verb.SHOW})
"""Verbs that replicas serve."""

PLAIN = frozenset({Verb.SELECT, Verb.INSERT, Verb.UPDATE, Verb.DELETE, Verb.REPLACE})
"""Verbs that change nothing but rows, so that nothing has to be done before or after them."""


def plain_verbs(role: BackendRole) -> frozenset[Verb]:
    """The verbs that need no second look for ``role``."""
    if role is BackendRole.WRITER:
        return frozenset()
    return PLAIN - DENIED.get(role, frozenset())


def check_sequence(account: Account, keyspace: str, table: str) -> None:
    """Refuse to take ids from a sequence for who may not write: taking them moves it on, on its primary, by
    an account of the gateway's own.

    :raises ServerError: 1142, or 1290 for a password that is for replicas.
    """
    check(account.role, account.username, Footprint(Verb.UPDATE, frozenset({(keyspace, table)})))
    if account.replica:
        raise ServerError(
            1290, "HY000", "VT09031: replicas are read-only; ids of sequences are the primary's"
        )


def check(role: BackendRole, user: str, footprint: Footprint) -> None:
    """Refuse what the role may not do.

    :raises ServerError: 1142, in Vitess's words.
    """
    verb = footprint.verb
    locks = footprint.locking_read and role is BackendRole.READER
    reads = role is BackendRole.WRITER and (
        footprint.queries or (bool(footprint.tables) and verb not in _CHANGES | {Verb.SHOW})
    )
    if not (locks or reads) and (
        verb not in DENIED.get(role, frozenset()) or (verb is Verb.SELECT and not footprint.tables)
    ):
        return
    if reads and verb is not Verb.DDL:
        verb = Verb.SELECT
    table = min(footprint.tables)[1] if footprint.tables else "*"
    raise ServerError(
        1142,
        "42000",
        f"{verb.value.capitalize() if verb is not Verb.DDL else 'DDL'} command denied to user '{user}' "
        f"for table '{table}' (ACL check error): the password's role is {role}",
    )
