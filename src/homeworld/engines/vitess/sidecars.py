"""What is asked of a cluster's servers themselves: Vitess's own schema on them, and which tables there are.

What Vitess has in it must not outlive the keyspace: another one of the same name would take up its streams.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from homeworld.engines.accounts import accounts_of, user_of
from homeworld.engines.connection import Control, control
from homeworld.engines.flavors import schema_pattern
from homeworld.engines.local import LocalEngine
from homeworld.engines.vitess.arguments import sidecar
from homeworld.engines.vitess.records import Branch
from homeworld.model.errors import NotFoundError, UnavailableError
from homeworld.model.names import grant_pattern, quote
from homeworld.model.topology import BackendRole

# Statements of clients run as this one; their table rights are Vitess's business.
CLIENTS = BackendRole.ADMIN


def allow(engine: LocalEngine, branch: Branch) -> None:
    """Let the account that clients' statements run as use the sidecars, on every primary of the spec;
    replicas get it from there. And let servers say how big tables are now, not as of a day ago.

    :raises UnavailableError: a primary does not answer.
    """
    servers: dict[str, set[str]] = {}
    for keyspace in branch.spec.keyspaces:
        for shard in keyspace.shards:
            servers.setdefault(shard.primary_server_id, set()).add(sidecar(branch.branch_id, keyspace.name))
    for server_id, schemas in servers.items():
        with control(engine.endpoint(server_id, BackendRole.OWNER)) as owner:
            if int(owner.value("SELECT @@GLOBAL.information_schema_stats_expiry")) != 0:
                owner.run("SET GLOBAL information_schema_stats_expiry = 0")
            for schema in sorted(schemas):
                if not _may(owner, schema):
                    for account in accounts_of(CLIENTS):
                        owner.run(f"GRANT ALL PRIVILEGES ON {schema_pattern(schema)}.* TO {account}")


def _may(owner: Control, schema: str) -> bool:
    rows = owner.run(
        "SELECT Host FROM mysql.db WHERE Db = %s AND User = %s", (grant_pattern(schema), user_of(CLIENTS))
    )
    return len(rows) == len(accounts_of(CLIENTS))


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
                if _may(owner, schema):
                    for account in accounts_of(CLIENTS):
                        owner.run(f"REVOKE ALL PRIVILEGES ON {schema_pattern(schema)}.* FROM {account}")
        except NotFoundError:
            continue
        except UnavailableError as error:
            left.append(error.message)
    return left
