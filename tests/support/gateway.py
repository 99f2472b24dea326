"""A gateway in front of test servers, with one branch and one password a role."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import mysql.connector
import pymysql

from homeworld.edge.server import Edge
from homeworld.edge.sessions import Limits, Sessions
from homeworld.gateway.branch import Lease, RouterFactory
from homeworld.gateway.router import Router
from homeworld.gateway.server import Gateway, TlsMode
from homeworld.gateway.tls import context_for, make_certificates
from homeworld.model.routing import Account, BranchRoutes, KeyspaceRoute, RoutingSnapshot, ShardRoute
from homeworld.model.topology import BackendRole, Endpoint
from homeworld.wire.auth import sha1_twice, sha256_twice
from tests.support.mysqld import TestServer, password_of, user_of

BRANCH = "branch1"
DATABASE = "app"
ROLES = (BackendRole.READER, BackendRole.WRITER, BackendRole.READWRITER, BackendRole.ADMIN)


def secret(role: BackendRole) -> str:
    """The branch password's text."""
    return f"pw-{role.value}"


def account(of: BackendRole, /, **changes: Any) -> Account:
    """A branch password of that role, its name the role's."""
    role = of
    made = Account(
        role.value,
        BRANCH,
        role,
        sha1_twice(secret(role)),
        sha256_twice(secret(role)),
        (),
        None,
        replica=False,
    )
    return replace(made, **changes)


def unsharded(keyspace: str, server: TestServer, *replicas: TestServer) -> KeyspaceRoute:
    """A keyspace that is one schema of its own name on one server."""

    def bare(where: TestServer) -> Endpoint:
        return replace(where.endpoint(), user="", password="")

    shard = ShardRoute("-", keyspace, bare(server), tuple(map(bare, replicas)))
    return KeyspaceRoute(keyspace, False, {}, (shard,))


@dataclass
class GatewayFixture:
    """A running gateway and its newest snapshot; change ``routes``/``accounts`` and :meth:`publish`."""

    gateway: Gateway
    routes: BranchRoutes
    accounts: dict[str, Account] = field(default_factory=dict[str, Account])
    version: int = 0
    ca: Path | None = None
    edge: Edge | None = None
    https: int = 0
    http: int = 0

    def publish(self) -> None:
        self.version += 1
        self.routes = replace(self.routes, version=self.version)
        self.gateway.publish(RoutingSnapshot(self.version, {BRANCH: self.routes}, dict(self.accounts)))

    def connect(
        self, role: BackendRole = BackendRole.ADMIN, database: str | None = DATABASE, **options: Any
    ) -> Any:
        """A PyMySQL connection; its own types say less than it does."""
        settings: dict[str, Any] = {
            "host": self.gateway.host, "port": self.gateway.port, "user": role.value,
            "password": secret(role), "database": database, "autocommit": None, "charset": "utf8mb4",
            "local_infile": True, "ssl_disabled": self.ca is None,
        }  # fmt: skip
        return pymysql.connect(**{**settings, **options})

    def query(self, sql: str, role: BackendRole = BackendRole.ADMIN, **options: Any) -> list[tuple[Any, ...]]:
        connection = self.connect(role, **options)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return list(cursor.fetchall())
        finally:
            connection.close()


def start_gateway(
    server: TestServer,
    keyspaces: Mapping[str, KeyspaceRoute],
    default: str,
    folder: Path,
    *,
    router: RouterFactory = Router,
    expires_at: datetime | None = None,
    tls_mode: TlsMode = TlsMode.AUTO,
    max_packet: int = 1 << 26,
    max_connections: int = 2000,
    on_alter_vschema: Callable[[str, str, str, str], None] | None = None,
    lease: Lease | None = None,
    edge: Limits | None = None,
) -> GatewayFixture:
    """Start a gateway that serves the keyspaces; the caller stops ``fixture.gateway``.

    :param edge: serve HTTPS and HTTP, too, within these limits.
    """
    ca, certificate, key = make_certificates(folder / "tls", ("localhost", "127.0.0.1"))
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)] if edge else []
    annex = None
    if edge is not None:
        annex = Edge(secret="secret", tls=(sockets[0], certificate, key), plain=sockets[1], limits=edge)
    gateway = Gateway(
        router_factory=router,
        tls=context_for(certificate, key),
        tls_mode=tls_mode,
        max_packet=max_packet,
        max_connections=max_connections,
        on_alter_vschema=on_alter_vschema,
        lease=lease,
        annex=annex,
    )
    routes = BranchRoutes(
        branch_id=BRANCH,
        organization="org",
        database=DATABASE,
        branch="main",
        flavor=server.flavor,
        version=0,
        keyspaces=dict(keyspaces),
        rules={},
        default_keyspace=default,
        credentials={role: (user_of(role), password_of(role)) for role in ROLES},
    )
    accounts = {role.value: account(role, expires_at=expires_at) for role in ROLES}
    ports = [int(one.getsockname()[1]) for one in sockets] or [0, 0]
    fixture = GatewayFixture(gateway, routes, accounts, ca=ca, https=ports[0], http=ports[1], edge=annex)
    gateway.start()
    fixture.publish()
    return fixture


def sessions_of(fixture: GatewayFixture) -> Sessions:
    """What is kept of sessions over HTTP."""
    assert fixture.edge is not None
    return fixture.edge.sessions


def rows(cursor: Any, sql: str, args: object = None) -> list[tuple[Any, ...]]:
    """Execute and fetch."""
    cursor.execute(sql, args)
    return list(cursor.fetchall())


def connector(gw: GatewayFixture, **options: Any) -> Any:
    """The same by mysql-connector-python, whose prepared cursors use the binary protocol."""
    settings: dict[str, Any] = {
        "host": "127.0.0.1", "port": gw.gateway.port, "user": "admin", "password": secret(BackendRole.ADMIN),
        "database": DATABASE, "use_pure": True, "ssl_disabled": True, "collation": "utf8mb4_general_ci",
    }  # fmt: skip
    return mysql.connector.connect(**{**settings, **options})


def ask_until_error(connection: Any) -> None:
    """Ask until the connection is ended from the other side."""
    for _ in range(6000):
        connection.cursor().execute("SELECT 1")
        time.sleep(0.01)
