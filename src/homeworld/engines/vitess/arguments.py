"""What each process of a cluster is started with, and the files that it reads. Pure.

What stands here is what the rest relies on: everything listens on loopback, takes our own certificate or one
of the engine's four role accounts and nobody else, and has no limits of its own where MySQL has none. Secrets
stand in files, never on a command line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from homeworld.engines.vitess.attachments import Certificates
from homeworld.engines.vitess.certificates import Identity
from homeworld.engines.vitess.records import Branch, Installation, Tablet
from homeworld.model.topology import BackendRole, Endpoint

CELL = "local"
_LOOPBACK = "127.0.0.1"
# As big as MySQL's own packets may be.
_MESSAGE = str(256 * 1024 * 1024)
# What gateways connect as; each has in Vitess what it has on the servers.
ROLES = (BackendRole.READER, BackendRole.WRITER, BackendRole.READWRITER, BackendRole.ADMIN)


@dataclass(frozen=True, slots=True)
class Folder:
    """The files of one process.

    :param path: the folder: homeworld writes into it, who runs the process may read it. Nothing that the
        process could change is ever written to by homeworld, who may be root.
    """

    path: Path

    @property
    def pid(self) -> Path:
        """Where homeworld writes the pid."""
        return self.path / "pid"

    @property
    def log(self) -> Path:
        """What the process prints: its errors and how it ended."""
        return self.path / "output.log"

    @property
    def work(self) -> Path:
        """What the process writes."""
        return self.path / "work"

    @property
    def own_logs(self) -> Path:
        """Where Vitess keeps its own logs."""
        return self.path / "logs"

    @property
    def mark(self) -> str:
        """The argument by which a process of Vitess is known."""
        return f"--pid-file={self.work / 'pid'}"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all processes of a cluster share.

    :param server_version: of the MySQL servers, as ``9.7.4``.
    """

    programs: Mapping[str, Path]
    identity: Identity
    installation: Installation
    server_version: str


def topology_root(branch_id: str) -> str:
    """Under which a branch's topology stands in etcd."""
    return f"/homeworld/{branch_id}"


def global_root(branch_id: str) -> str:
    """Under which what all cells of a branch share stands in etcd."""
    return f"{topology_root(branch_id)}/global"


def sidecar(branch_id: str, keyspace: str) -> str:
    """The schema in which Vitess keeps what it has to know of a keyspace, on each of its servers. Several
    keyspaces can be on one server.
    """
    return "_vt_" + hashlib.sha256(f"{branch_id}/{keyspace}".encode()).hexdigest()[:16]


def etcd(around: Surroundings, folder: Folder) -> tuple[str, ...]:
    """etcd, known by its data directory."""
    mine, here = around.identity, around.installation
    client, peer = f"https://{_LOOPBACK}:{here.etcd_port}", f"https://{_LOOPBACK}:{here.etcd_peer_port}"
    return (
        str(around.programs["etcd"]),
        etcd_mark(folder),
        "--name=homeworld",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=homeworld={peer}",
        f"--cert-file={mine.certificate}",
        f"--key-file={mine.key}",
        f"--trusted-ca-file={mine.ca}",
        "--client-cert-auth",
        f"--peer-cert-file={mine.certificate}",
        f"--peer-key-file={mine.key}",
        f"--peer-trusted-ca-file={mine.ca}",
        "--peer-client-cert-auth",
        # Every change of the topology is a revision; only the newest are of use.
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=1h",
        "--log-level=warn",
    )


def etcd_mark(folder: Folder) -> str:
    """The argument by which etcd is known."""
    return f"--data-dir={folder.work / 'data'}"


def vtctld(around: Surroundings, branch: Branch, folder: Folder) -> tuple[str, ...]:
    """The branch's vtctld."""
    return (
        str(around.programs["vtctld"]),
        *_common(folder, branch.vtctld_http_port),
        *_topology(around, branch.branch_id),
        *_grpc_server(around.identity, branch.vtctld_port, "grpc-vtctld"),
        *_grpc_client(around.identity, "tablet-manager"),
        *_grpc_client(around.identity, "tablet"),
        f"--cell={CELL}",
        f"--mysql-server-version={around.server_version}",
        # Locks of one that was killed are in the way for so long.
        "--topo-etcd-lease-ttl=10",
        "--vtctld-sanitize-log-messages",
    )


def vtgate(around: Surroundings, branch: Branch, folder: Folder) -> tuple[str, ...]:
    """The branch's vtgate."""
    return (
        str(around.programs["vtgate"]),
        *_common(folder, branch.vtgate_http_port),
        *_topology(around, branch.branch_id),
        *_grpc_client(around.identity, "tablet"),
        f"--grpc-max-message-size={_MESSAGE}",
        f"--cell={CELL}",
        f"--cells-to-watch={CELL}",
        "--tablet-types-to-wait=PRIMARY",
        "--gateway-initial-tablet-timeout=10s",
        f"--mysql-server-port={branch.vtgate_port}",
        f"--mysql-server-bind-address={_LOOPBACK}",
        "--mysql-tcp-version=tcp4",
        f"--mysql-server-version={around.server_version}-Vitess",
        "--mysql-auth-server-impl=static",
        f"--mysql-auth-server-static-file={folder.path / 'accounts.json'}",
        "--allow-kill-statement",
        # New tablets are seen soon, and dead ones.
        "--tablet-refresh-interval=1s",
        "--healthcheck-timeout=15s",
        "--healthcheck-retry-delay=100ms",
        # Through a change of primaries statements wait instead of failing; one may follow the other at once.
        "--enable-buffer",
        "--buffer-size=10000",
        "--buffer-window=10s",
        "--buffer-max-failover-duration=20s",
        "--buffer-min-time-between-failovers=1s",
        "--buffer-drain-concurrency=16",
        # Schema changes that nobody would write down.
        "--enable-online-ddl=false",
        "--max-memory-rows=1000000",
        "--redact-debug-ui-queries",
    )


def vttablet(
    around: Surroundings, branch: Branch, tablet: Tablet, folder: Folder, server: Endpoint, owner: Endpoint
) -> tuple[str, ...]:
    """A tablet beside a server.

    :param server: as the account that statements of clients run as; ``owner``: the administrator's.
    """
    privileged = ("dba", "allprivs", "filtered", "repl", "appdebug")
    return (
        str(around.programs["vttablet"]),
        *_common(folder, tablet.http_port),
        *_topology(around, branch.branch_id),
        *_grpc_server(
            around.identity, tablet.grpc_port, "grpc-queryservice,grpc-tabletmanager,grpc-updatestream"
        ),
        *_grpc_client(around.identity, "tablet"),
        *_grpc_client(around.identity, "tablet-manager"),
        *_grpc_client(around.identity, "binlog-player"),
        f"--grpc-max-message-size={_MESSAGE}",
        f"--tablet-path={tablet.alias}",
        f"--tablet-hostname={_LOOPBACK}",
        f"--init-keyspace={tablet.keyspace}",
        f"--init-shard={tablet.shard}",
        f"--init-db-name-override={tablet.schema}",
        # Which one is the primary stands in the topology.
        "--init-tablet-type=replica",
        "--unmanaged",
        f"--db-host={server.host}",
        f"--db-port={server.port}",
        f"--db-app-user={server.user}",
        *(f"--db-{role}-user={owner.user}" for role in privileged),
        f"--db-credentials-file={folder.path / 'servers.json'}",
        "--db-charset=utf8mb4",
        f"--mysql-server-version={around.server_version}",
        f"--table-acl-config={folder.path / 'acl.json'}",
        "--enforce-tableacl-config",
        "--queryserver-config-strict-table-acl",
        "--enable-replication-reporter",
        "--health-check-interval=2s",
        "--shard-sync-retry-delay=1s",
        "--publish-retry-interval=2s",
        "--topo-etcd-lease-ttl=10",
        # What others change on the server is seen; what comes through Vitess is seen at once.
        "--queryserver-config-schema-reload-time=10s",
        # As much at a time as a server has connections for, and no limits in time or rows that it has not.
        "--queryserver-config-pool-size=40",
        "--queryserver-config-stream-pool-size=50",
        "--queryserver-config-transaction-cap=120",
        "--queryserver-config-txpool-timeout=20s",
        "--queryserver-config-query-timeout=0s",
        "--queryserver-config-transaction-timeout=0s",
        "--queryserver-config-olap-transaction-timeout=0s",
        "--queryserver-config-max-result-size=10000000",
        # One client's answer is another's only where both may be a little late.
        "--enable-consolidator=false",
        "--enable-consolidator-replicas",
        "--queryserver-enable-online-ddl=false",
        "--queryserver-enable-views",
        "--sanitize-log-messages",
        "--redact-debug-ui-queries",
        "--vreplication-retry-delay=1s",
        "--shutdown-grace-period=1s",
        "--lock-timeout=15s",
    )


def _common(folder: Folder, http_port: int) -> tuple[str, ...]:
    return (
        folder.mark,
        f"--log_dir={folder.own_logs}",
        "--stderrthreshold=ERROR",
        "--log-rotate-max-size=16777216",
        "--keep-logs-by-mtime=72h",
        f"--bind-address={_LOOPBACK}",
        f"--port={http_port}",
        # Others on this machine may look at figures, and change nothing.
        "--security-policy=read-only",
        "--onterm-timeout=3s",
        "--onclose-timeout=3s",
        # Else it looks for one in whatever folder homeworld was started in.
        f"--config-path={folder.work}",
        "--config-file-not-found-handling=ignore",
    )


def _topology(around: Surroundings, branch_id: str) -> tuple[str, ...]:
    return (
        "--topo-implementation=etcd2",
        f"--topo-global-server-address={etcd_address(around.installation)}",
        f"--topo-global-root={global_root(branch_id)}",
        f"--topo-etcd-tls-ca={around.identity.ca}",
        f"--topo-etcd-tls-cert={around.identity.certificate}",
        f"--topo-etcd-tls-key={around.identity.key}",
    )


def etcd_address(installation: Installation) -> str:
    """Where etcd is, as Vitess is told."""
    return f"{_LOOPBACK}:{installation.etcd_port}"


def _grpc_server(mine: Identity, port: int, services: str) -> tuple[str, ...]:
    return (
        f"--grpc-bind-address={_LOOPBACK}",
        f"--grpc-port={port}",
        f"--service-map={services}",
        f"--grpc-cert={mine.certificate}",
        f"--grpc-key={mine.key}",
        f"--grpc-ca={mine.ca}",
    )


def _grpc_client(mine: Identity, of: str) -> tuple[str, ...]:
    return (
        f"--{of}-grpc-cert={mine.certificate}",
        f"--{of}-grpc-key={mine.key}",
        f"--{of}-grpc-ca={mine.ca}",
    )


def vtctldclient(around: Surroundings, branch: Branch, timeout_seconds: float) -> tuple[str, ...]:
    """The client of the branch's vtctld, up to its command."""
    return (
        str(around.programs["vtctldclient"]),
        f"--server={_LOOPBACK}:{branch.vtctld_port}",
        *_grpc_client(around.identity, "vtctld"),
        f"--action-timeout={timeout_seconds:.1f}s",
        f"--grpc-max-message-size={_MESSAGE}",
        "--logtostderr",
    )


def foreign_vtctldclient(
    program: Path, address: str, certificates: Certificates | None, server_name: str, timeout_seconds: float
) -> tuple[str, ...]:
    """The client of a vtctld that others run, up to its command.

    :param address: ``host:port``.
    :param certificates: None: it takes clients without TLS.
    :param server_name: what its certificate is to name; empty: its host.
    """
    tls: list[str] = []
    if certificates is not None:
        tls.append(f"--vtctld-grpc-ca={certificates.ca}")
        if certificates.certificate is not None:
            tls += [
                f"--vtctld-grpc-cert={certificates.certificate}",
                f"--vtctld-grpc-key={certificates.key}",
            ]
        if server_name:
            tls.append(f"--vtctld-grpc-server-name={server_name}")
    return (
        str(program),
        f"--server={address}",
        *tls,
        f"--action-timeout={timeout_seconds:.1f}s",
        f"--grpc-max-message-size={_MESSAGE}",
        "--logtostderr",
    )


# -- files -------------------------------------------------------------------------------------------------


def table_acl(users: Mapping[BackendRole, str]) -> str:
    """What each role's account may do with every table. A writer may read for a WHERE, as on the servers; the
    gateways keep it from reading.
    """
    everybody = [users[role] for role in ROLES]
    return json.dumps(
        {
            "table_groups": [
                {
                    "name": "all",
                    "table_names_or_prefixes": ["%"],
                    "readers": everybody,
                    "writers": [user for user in everybody if user != users[BackendRole.READER]],
                    "admins": [users[BackendRole.ADMIN]],
                }
            ]
        },
        indent=1,
    )


def accounts(credentials: Mapping[BackendRole, tuple[str, str]]) -> str:
    """Who may connect to vtgate, with hashes of the passwords."""
    entries: dict[str, list[dict[str, str]]] = {}
    for role in ROLES:
        user, password = credentials[role]
        entries[user] = [{"MysqlNativePassword": _native_hash(password), "UserData": user}]
    return json.dumps(entries, indent=1)


def server_credentials(*endpoints: Endpoint) -> str:
    """The passwords with which a tablet connects to its server."""
    return json.dumps({endpoint.user: [endpoint.password] for endpoint in endpoints}, indent=1)


def _native_hash(password: str) -> str:
    # The form that mysql_native_password stores, and vtgate takes; it is no choice of ours.
    once = hashlib.sha1(password.encode(), usedforsecurity=False).digest()
    return "*" + hashlib.sha1(once, usedforsecurity=False).hexdigest().upper()
