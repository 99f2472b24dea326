"""What a gateway needs to know to serve a branch: immutable, versioned, published whole.

A gateway never reads the control plane's database while it answers a query; it answers from the newest
:class:`RoutingSnapshot` it was given and goes on serving that one when the control plane is away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from homeworld.model.topology import BackendRole, Endpoint, Flavor, TabletType


@dataclass(frozen=True, slots=True)
class ShardRoute:
    """A shard's servers. Endpoints carry no role's account: ``accounts`` of the branch does.

    ``schema`` is the MySQL schema that holds this shard's tables on its servers. For an unsharded keyspace it
    is the keyspace's own name, so that statements pass through untouched.
    """

    name: str
    schema: str
    primary: Endpoint
    replicas: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class KeyspaceRoute:
    """A keyspace. ``vschema`` is the Vitess JSON object, already validated. Shards are ordered by range."""

    name: str
    sharded: bool
    vschema: Mapping[str, object]
    shards: tuple[ShardRoute, ...]


@dataclass(frozen=True, slots=True)
class Account:
    """A branch password as the gateway checks it. The plain text is not kept.

    :param sha1_twice: SHA1(SHA1(password)), for mysql_native_password.
    :param sha256_twice: SHA256(SHA256(password)), for caching_sha2_password.
    :param cidrs: networks that may connect; empty means any.
    :param replica: whether this password serves only from replicas.
    """

    username: str
    branch_id: str
    role: BackendRole
    sha1_twice: bytes
    sha256_twice: bytes
    cidrs: tuple[str, ...]
    expires_at: datetime | None
    replica: bool


@dataclass(frozen=True, slots=True)
class Closing:
    """Tables whose traffic has moved in the store and may not be served at its new place yet.

    A gateway takes the moved rules only while a hold of this subject is in force there, and from then on lets
    no primary statement on the tables go on until it is told to open them.

    :param subject: the run that moves them; unlike that of any other run.
    :param tables: physical (keyspace, table) names on both sides.
    :param before: each rule that moved, as it was: name to ``ks.t``, or to nothing where there was none.
    """

    subject: str
    tables: frozenset[tuple[str, str]]
    before: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Moving:
    """Tables of a workflow that is not over: their traffic may move at any time.

    A gateway serves primary statements on them only while it has a living lease; whoever moves them relies on
    it. Where there is one gateway only, in the workflows' own process, it needs none.

    :param tables: physical (keyspace, table) names on both sides.
    :param since: the version of the routes that told it first.
    """

    tables: frozenset[tuple[str, str]]
    since: int


@dataclass(frozen=True, slots=True)
class BranchRoutes:
    """All of one branch.

    :param database: the database's name, which clients may also name as their schema.
    :param rules: Vitess routing rules, ``t`` or ``ks.t`` (also with ``@replica``, ``@rdonly``) to ``ks.t``.
    :param default_keyspace: where statements go whose tables decide nothing.
    :param credentials: backend account for each role, the same on all servers of the branch.
    :param closing: what of the rules may not simply be served.
    :param moving: what is served under a lease only.
    :param most_clients: how many clients of the branch a gateway takes at once; 0: as many as it can.
    :param vtgate: what plans the branch's statements; None: the gateway does. Whoever reads what tables there
        are asks the shards' servers either way.
    """

    branch_id: str
    organization: str
    database: str
    branch: str
    flavor: Flavor
    version: int
    keyspaces: Mapping[str, KeyspaceRoute]
    rules: Mapping[str, str]
    default_keyspace: str
    credentials: Mapping[BackendRole, tuple[str, str]]
    closing: Closing | None = None
    moving: Moving | None = None
    most_clients: int = 0
    vtgate: Endpoint | None = None

    def without_closing(self) -> BranchRoutes:
        """The same with the rules that the closing moved as they were before."""
        if self.closing is None:
            return self
        rules = {**self.rules, **self.closing.before}
        return replace(self, rules={name: to for name, to in rules.items() if to}, closing=None)


@dataclass(frozen=True, slots=True)
class RoutingSnapshot:
    """Everything a gateway serves. ``version`` only grows; a gateway ignores an older one."""

    version: int
    branches: Mapping[str, BranchRoutes]
    accounts: Mapping[str, Account]


EVERY_TABLE = "*"
"""As the table of a hold: every statement that goes to the keyspace, whether or not it names tables."""


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """Ask every gateway to hold new statements on tables while traffic moves.

    :param tables: physical (keyspace, table) names as routed at this moment, or EVERY_TABLE of a keyspace.
    :param tablet_types: whose statements are held; usually only PRIMARY.
    :param drain_seconds: how long transactions under way may take to end before the hold is given up.
    :param hold_seconds: after this long the gateway releases by itself, whatever happened to the holder.
    :param subject: the run that holds (see :class:`Closing`); empty: a hold of no run.
    :param turn: orders the holds of one subject: a later one takes the place of an earlier one.
    """

    hold_id: str
    branch_id: str
    tables: frozenset[tuple[str, str]]
    tablet_types: frozenset[TabletType]
    drain_seconds: float
    hold_seconds: float
    subject: str = ""
    turn: tuple[int, int] = (0, 0)
