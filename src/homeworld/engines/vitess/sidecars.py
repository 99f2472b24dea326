"""What servers have to have for Vitess: an account that clients' statements run as, and Vitess's own schema.

That account has what the four roles have together on the keyspaces' schemas, but runs no routines: those have
rights of their own, which Vitess's rights on tables do not know. What Vitess keeps of a keyspace must not
outlive it: another one of the same name would take up its streams.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Mapping
from dataclasses import replace

from homeworld.engines.connection import Control, control
from homeworld.engines.flavors import schema_of, schema_pattern
from homeworld.engines.local import LocalEngine
from homeworld.engines.vitess.arguments import sidecar
from homeworld.engines.vitess.records import Branch
from homeworld.model.errors import HomeworldError, NotFoundError, UnavailableError
from homeworld.model.names import quote
from homeworld.model.topology import BackendRole, Endpoint

USER = "homeworld_vttablet"
_NO_SUCH_THREAD = 1094
_ACCOUNT = f"'{USER}'@'127.0.0.1'"
_RIGHTS = (
    "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP, REFERENCES, LOCK TABLES, TRIGGER, "
    "CREATE VIEW, SHOW VIEW, CREATE TEMPORARY TABLES"
)


def clients(owner: Endpoint) -> Endpoint:
    """The server as the account that clients' statements run as.

    :param owner: the server as its administrator; from whose password the account's is made, so that it needs
        no place of its own.
    """
    password = hmac.new(owner.password.encode(), USER.encode(), hashlib.sha256).hexdigest()[:32]
    return replace(owner, user=USER, password=password)


def allow(engine: LocalEngine, branch: Branch) -> None:
    """Make the account with its rights on every primary of the spec; replicas get it from there. And let
    servers say how big tables are now, not as of a day ago.

    :raises UnavailableError: a primary does not answer.
    """
    servers: dict[str, dict[str, str]] = {}
    for keyspace in branch.spec.keyspaces:
        for shard in keyspace.shards:
            rights = servers.setdefault(shard.primary_server_id, {})
            rights[shard.schema] = _RIGHTS
            rights[sidecar(branch.branch_id, keyspace.name)] = "ALL PRIVILEGES"
    for server_id, rights in servers.items():
        endpoint = engine.endpoint(server_id, BackendRole.OWNER)
        with control(endpoint) as owner:
            if int(owner.value("SELECT @@GLOBAL.information_schema_stats_expiry")) != 0:
                owner.run("SET GLOBAL information_schema_stats_expiry = 0")
            there = _schemas(owner)
            if there is None:
                secret = clients(endpoint).password
                owner.run(f"CREATE USER {_ACCOUNT} IDENTIFIED WITH caching_sha2_password BY '{secret}'")
            for schema in sorted(rights.keys() - (there or set())):
                owner.run(f"GRANT {rights[schema]} ON {schema_pattern(schema)}.* TO {_ACCOUNT}")


def _schemas(owner: Control) -> set[str] | None:
    """The schemas on which the account has rights; None: there is no such account."""
    if not owner.value("SELECT COUNT(*) FROM mysql.user WHERE User = %s", (USER,)):
        return None
    rows = owner.run("SELECT Db AS pattern FROM mysql.db WHERE User = %s", (USER,))
    return {schema_of(str(row["pattern"])) for row in rows}


def tables_of(engine: LocalEngine, branch: Branch) -> Mapping[str, list[str]]:
    """The tables of each keyspace, as its first shard's primary has them; all shards have the same.

    :raises UnavailableError: a primary does not answer.
    """
    found: dict[str, list[str]] = {}
    for keyspace in branch.spec.keyspaces:
        for shard in keyspace.shards[:1]:
            with control(engine.endpoint(shard.primary_server_id, BackendRole.OWNER)) as owner:
                rows = owner.run(
                    "SELECT TABLE_NAME AS name FROM information_schema.TABLES "
                    "WHERE TABLE_SCHEMA = %s AND TABLE_TYPE = 'BASE TABLE'",
                    (shard.schema,),
                )
            found[keyspace.name] = [str(row["name"]) for row in rows]
    return found


def let_go(engine: LocalEngine, branch: Branch) -> list[str]:
    """End the transactions that clients of a vtgate that is dead have open on the branch's servers: nobody
    will commit them, and tablets do not notice. Locks by GET_LOCK cannot be told from idle connections, and
    stay.

    :returns: of servers that do not answer or refuse, why. Clients wait meanwhile: none is waited for long.
    """
    left: list[str] = []
    for server_id in sorted({tablet.server_id for tablet in branch.wanted}):
        try:
            with control(engine.endpoint(server_id, BackendRole.OWNER), timeout_seconds=2.0) as owner:
                rows = owner.run("SELECT trx_mysql_thread_id AS number FROM information_schema.INNODB_TRX")
                open_ = {int(row["number"]) for row in rows}
                # Only these: a tablet answers with an error once for each idle connection that has gone.
                for row in owner.run("SHOW PROCESSLIST"):
                    if row["User"] == USER and int(row["Id"]) in open_:
                        _end(owner, int(row["Id"]))
        except NotFoundError:
            continue
        except HomeworldError as error:
            left.append(error.message)
    return left


def _end(owner: Control, number: int) -> None:
    try:
        owner.run(f"KILL CONNECTION {number:d}")
    except HomeworldError as error:
        if error.facts.get("mysql_errno") != _NO_SUCH_THREAD:
            raise


def drop(engine: LocalEngine, branch: Branch, keyspaces: Collection[str]) -> list[str]:
    """Drop the sidecars of keyspaces from the servers on which the branch has had them. Servers that are gone
    took theirs along.

    :returns: of those that do not answer, why. Empty: nothing is left.
    """
    places = {
        (tablet.server_id, sidecar(branch.branch_id, tablet.keyspace))
        for tablet in branch.tablets
        if tablet.keyspace in keyspaces
    }
    left: list[str] = []
    for server_id, schema in sorted(places):
        if not engine.is_primary(server_id):
            continue  # it gets it from its primary, or is gone
        try:
            with control(engine.endpoint(server_id, BackendRole.OWNER)) as owner:
                owner.run(f"DROP DATABASE IF EXISTS {quote(schema)}")
                if schema in (_schemas(owner) or ()):
                    owner.run(f"REVOKE ALL PRIVILEGES ON {schema_pattern(schema)}.* FROM {_ACCOUNT}")
        except NotFoundError:
            continue
        except UnavailableError as error:
            left.append(error.message)
    return left
