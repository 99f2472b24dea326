"""All that differs between MySQL and MariaDB, as data: options, rights, statements, shapes of answers.

Nothing here runs anything. Whoever needs a statement asks ``rules(flavor)``; an ``if flavor`` elsewhere in
this room is a mistake (but for making a data directory, where the programs themselves differ).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from homeworld.engines.accounts import Accounts, accounts_of, user_of
from homeworld.model.names import grant_pattern, quote
from homeworld.model.topology import BackendRole, Flavor

SIDECAR = "_homeworld"

_ROWS = "SELECT, INSERT, UPDATE, DELETE"
# What each role may do in the schema of a keyspace. No role may hand on its rights or touch other schemas.
SCHEMA_RIGHTS: Mapping[BackendRole, str] = {
    BackendRole.READER: "SELECT, SHOW VIEW",
    # Without SELECT no UPDATE or DELETE may have a WHERE; the gateway keeps writers from reading.
    BackendRole.WRITER: _ROWS,
    BackendRole.READWRITER: f"{_ROWS}, SHOW VIEW",
    BackendRole.ADMIN: "ALL PRIVILEGES",
    # TRIGGER because without it information_schema hides the triggers that must be found before a move.
    BackendRole.MOVER: f"{_ROWS}, CREATE, ALTER, INDEX, DROP, REFERENCES, LOCK TABLES, TRIGGER, SHOW VIEW",
}


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """What a replica says about itself: its receiver fetches the binlog, its applier carries it out.
    ``lag_seconds`` is None while it cannot know.
    """

    source_port: int
    receiver_running: bool
    receiver_connecting: bool
    applier_running: bool
    lag_seconds: float | None
    receiver_error: str
    applier_error: str

    @property
    def error(self) -> str:
        """Why replication is broken; empty while both threads run."""
        if self.receiver_running and self.applier_running:
            return ""
        waiting = "it is connecting to its primary" if self.receiver_connecting else "replication is stopped"
        return self.applier_error or self.receiver_error or waiting


@dataclass(frozen=True, slots=True)
class Rules:
    """One server family.

    :param options: lines of the config file; ``replica_options`` more of them on a replica.
    :param global_rights: server-wide rights of roles; SCHEMA_RIGHTS come with each schema.
    :param create_user: with ``{account}`` and ``{password}``; a no-op where the account exists.
    :param alter_user: the same for an account that exists.
    :param drop_root: statements that remove the administrators without a password that initialisation made.
    :param position: one value: the GTID set of all that the server has in its binlog.
    :param executed: one value: the GTID set that a replica has applied.
    :param point_replica: with ``{port}``, ``{user}``, ``{password}``: follow the server there, by GTID.
    :param stop_receiving: a replica fetches nothing more and applies what it has; ``forget_source``: it is no
        replica any more.
    :param received: of ``replica_status``, two pairs of columns (file, offset) that are equal once everything
        received is applied.
    :param adopt_position: let a former primary take its own log's end for what it has applied; or empty.
    :param writable: everybody may write; ``read_only`` forbids it, ``owner_writable`` lets the owner alone
        write where it was forbidden (empty: it may always).
    :param wait_applied: a query with the parameters (position, seconds), 0 once all of it is applied.
    :param first_binlog: a query for the oldest binlog's name, or empty where ``purged`` needs none.
    :param purged: one value: the GTID set that the server's binlogs no longer have; with the oldest binlog's
        name as parameter where there is a ``first_binlog``.
    :param replica_status: a query; ``replica_columns`` are its columns for ReplicaState's fields, in order.
    :param applier_errors: a query for the applier's first error where the status tells less; or empty.
    """

    flavor: Flavor
    options: tuple[str, ...]
    replica_options: tuple[str, ...]
    global_rights: Mapping[BackendRole, str]
    create_user: str
    drop_root: tuple[str, ...]
    alter_user: str
    position: str
    executed: str
    point_replica: str
    start_replica: str
    stop_replica: str
    stop_receiving: str
    forget_source: str
    received: tuple[tuple[str, str], tuple[str, str]]
    adopt_position: str
    writable: str
    owner_writable: str
    read_only: str
    wait_applied: str
    first_binlog: str
    purged: str
    replica_status: str
    applier_errors: str
    replica_columns: tuple[str, str, str, str, str, str]

    def account_statements(self, accounts: Accounts) -> list[str]:
        """Every account with its server-wide rights. Idempotent; to be run with the binlog off."""
        statements: list[str] = []
        for role in BackendRole:
            for account in accounts_of(role):
                facts = {"account": account, "password": accounts.passwords[role]}
                statements.append(self.create_user.format(**facts))
                statements.append(self.alter_user.format(**facts))
                if role in self.global_rights:
                    option = " WITH GRANT OPTION" if role is BackendRole.OWNER else ""
                    statements.append(f"GRANT {self.global_rights[role]} ON *.* TO {account}{option}")
                if role is BackendRole.MOVER:
                    statements.append(f"GRANT ALL PRIVILEGES ON {schema_pattern(SIDECAR)}.* TO {account}")
        return [*statements, *self.drop_root]

    def replicate_from(self, port: int, accounts: Accounts) -> str:
        """The statement that makes a server the replica of the one on that loopback port."""
        role = BackendRole.REPLICATION
        return self.point_replica.format(port=port, user=user_of(role), password=accounts.passwords[role])

    def parse_replica(self, row: Mapping[str, Any]) -> ReplicaState:
        """Read a row of ``replica_status``."""
        port, receiver, applier, lag, receiver_error, applier_error = (row[c] for c in self.replica_columns)
        return ReplicaState(
            source_port=int(port),
            receiver_running=receiver == "Yes",
            # The third value, Connecting (MariaDB also says Preparing): it tries again by itself.
            receiver_connecting=receiver not in ("Yes", "No"),
            applier_running=applier == "Yes",
            lag_seconds=None if lag is None else float(lag),
            receiver_error=str(receiver_error or ""),
            applier_error=str(applier_error or ""),
        )


def schema_of(pattern: str) -> str:
    """The schema that a stored pattern means: the inverse of ``grant_pattern``."""
    return re.sub(r"\\(.)", r"\1", pattern)


def schema_pattern(schema: str) -> str:
    """The schema as GRANT and REVOKE name it."""
    return quote(grant_pattern(schema))


def grant_statements(schema: str) -> list[str]:
    """Each role's rights on one keyspace's schema."""
    return [
        f"GRANT {rights} ON {schema_pattern(schema)}.* TO {account}"
        for role, rights in SCHEMA_RIGHTS.items()
        for account in accounts_of(role)
    ]


# MySQL tells who waits for whose lock only with this switched on. Its instruments take 250 MB; without any,
# and with room for none, it tells all the same, for 2 MB.
_NO_INSTRUMENTS = (
    "performance-schema=ON",
    "performance-schema-instrument='%=OFF'",
    *(
        f"loose-performance-schema-{name}=0"
        for name in (
            "accounts-size", "digests-size", "error-size", "events-stages-history-long-size",
            "events-stages-history-size", "events-statements-history-long-size",
            "events-statements-history-size", "events-transactions-history-long-size",
            "events-transactions-history-size", "events-waits-history-long-size",
            "events-waits-history-size", "hosts-size", "max-cond-classes", "max-cond-instances",
            "max-digest-length", "max-file-classes", "max-file-handles", "max-file-instances",
            "max-index-stat", "max-memory-classes", "max-metadata-locks", "max-mutex-classes",
            "max-mutex-instances", "max-prepared-statements-instances", "max-program-instances",
            "max-rwlock-classes", "max-rwlock-instances", "max-socket-classes", "max-socket-instances",
            "max-sql-text-length", "max-stage-classes", "max-statement-classes", "max-table-handles",
            "max-table-instances", "max-table-lock-stat", "max-thread-classes", "max-thread-instances",
            "session-connect-attrs-size", "setup-actors-size", "setup-objects-size", "users-size",
        )
    ),
)  # fmt: skip

_MYSQL = Rules(
    flavor=Flavor.MYSQL,
    options=(
        *_NO_INSTRUMENTS,
        "gtid-mode=ON",
        "enforce-gtid-consistency=ON",
        "mysqlx=OFF",
        # How big tables are is told as of now, not as of a day ago: progress is read from it.
        "information-schema-stats-expiry=0",
        # Rows are logged, not statements: a routine cannot make replicas differ, its author needs no SUPER.
        "loose-log-bin-trust-function-creators=ON",
        "loose-innodb-redo-log-capacity=256M",
        "loose-replica-parallel-workers=4",
        "loose-replica-preserve-commit-order=ON",
    ),
    replica_options=("super-read-only=ON",),
    global_rights={
        BackendRole.OWNER: "ALL PRIVILEGES",
        # PROCESS: to see the transactions that a lock waits for.
        BackendRole.MOVER: "REPLICATION SLAVE, REPLICATION CLIENT, PROCESS",
        BackendRole.REPLICATION: "REPLICATION SLAVE",
    },
    create_user="CREATE USER IF NOT EXISTS {account} IDENTIFIED WITH caching_sha2_password BY '{password}'",
    alter_user="ALTER USER {account} IDENTIFIED WITH caching_sha2_password BY '{password}'",
    drop_root=("DROP USER IF EXISTS 'root'@'localhost'",),
    position="SELECT @@GLOBAL.gtid_executed",
    executed="SELECT @@GLOBAL.gtid_executed",
    # The password goes encrypted with the source's public key; both ends are this host. A source that shuts
    # down waits for a few heartbeats of its replicas, so they come often.
    point_replica=(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={port}, SOURCE_USER='{user}', "
        "SOURCE_PASSWORD='{password}', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1, "
        "SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=4294967295, SOURCE_HEARTBEAT_PERIOD=0.5"
    ),
    start_replica="START REPLICA",
    stop_replica="STOP REPLICA",
    stop_receiving="STOP REPLICA IO_THREAD",
    forget_source="RESET REPLICA ALL",
    received=(("Source_Log_File", "Read_Source_Log_Pos"), ("Relay_Source_Log_File", "Exec_Source_Log_Pos")),
    adopt_position="",
    writable="SET GLOBAL read_only=OFF",
    owner_writable="SET GLOBAL super_read_only=OFF",
    read_only="SET GLOBAL super_read_only=ON",
    wait_applied="SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s)",
    first_binlog="",
    purged="SELECT @@GLOBAL.gtid_purged",
    replica_status="SHOW REPLICA STATUS",
    # With several appliers the status only says that one of them failed.
    applier_errors=(
        "SELECT LAST_ERROR_MESSAGE FROM performance_schema.replication_applier_status_by_worker "
        "WHERE LAST_ERROR_NUMBER <> 0 ORDER BY LAST_ERROR_TIMESTAMP LIMIT 1"
    ),
    replica_columns=(
        "Source_Port", "Replica_IO_Running", "Replica_SQL_Running", "Seconds_Behind_Source",
        "Last_IO_Error", "Last_SQL_Error",
    ),
)  # fmt: skip

_MARIADB = Rules(
    flavor=Flavor.MARIADB,
    options=(
        "binlog-format=ROW",
        "gtid-strict-mode=ON",
        "gtid-domain-id=0",
        "log-slave-updates=ON",
        "log-bin-trust-function-creators=ON",
        "innodb-log-file-size=256M",
        "slave-parallel-threads=4",
    ),
    replica_options=("read-only=ON",),
    global_rights={
        BackendRole.OWNER: "ALL PRIVILEGES",
        BackendRole.MOVER: "REPLICATION SLAVE, BINLOG MONITOR, SLAVE MONITOR, PROCESS",
        BackendRole.REPLICATION: "REPLICATION SLAVE",
    },
    create_user=(
        "CREATE USER IF NOT EXISTS {account} "
        "IDENTIFIED VIA mysql_native_password USING PASSWORD('{password}')"
    ),
    alter_user="ALTER USER {account} IDENTIFIED VIA mysql_native_password USING PASSWORD('{password}')",
    # One of them is for this host's own name, which nobody here knows.
    drop_root=(
        "DELETE FROM mysql.global_priv WHERE User IN ('root', '')",
        "DELETE FROM mysql.proxies_priv WHERE User IN ('root', '')",
        "FLUSH PRIVILEGES",
    ),
    position="SELECT @@GLOBAL.gtid_binlog_pos",
    executed="SELECT @@GLOBAL.gtid_slave_pos",
    point_replica=(
        "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='{user}', "
        "MASTER_PASSWORD='{password}', MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1, "
        "MASTER_HEARTBEAT_PERIOD=0.5"
    ),
    start_replica="START SLAVE",
    stop_replica="STOP SLAVE",
    stop_receiving="STOP SLAVE IO_THREAD",
    forget_source="RESET SLAVE ALL",
    received=(("Master_Log_File", "Read_Master_Log_Pos"), ("Relay_Master_Log_File", "Exec_Master_Log_Pos")),
    adopt_position="SET GLOBAL gtid_slave_pos = @@GLOBAL.gtid_binlog_pos",
    writable="SET GLOBAL read_only=OFF",
    owner_writable="",
    read_only="SET GLOBAL read_only=ON",
    wait_applied="SELECT MASTER_GTID_WAIT(%s, %s)",
    first_binlog="SHOW BINARY LOGS",
    # The position at the start of the oldest binlog: what came before it is gone.
    purged="SELECT BINLOG_GTID_POS(%s, 4)",
    replica_status="SHOW SLAVE STATUS",
    applier_errors="",
    replica_columns=(
        "Master_Port", "Slave_IO_Running", "Slave_SQL_Running", "Seconds_Behind_Master",
        "Last_IO_Error", "Last_SQL_Error",
    ),
)  # fmt: skip

_RULES: Mapping[Flavor, Rules] = {Flavor.MYSQL: _MYSQL, Flavor.MARIADB: _MARIADB}


def rules(flavor: Flavor) -> Rules:
    """The rules of a flavour."""
    return _RULES[flavor]
