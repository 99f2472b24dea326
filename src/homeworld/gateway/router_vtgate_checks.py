"""What is not handed to a vtgate: texts that it reads otherwise than the gateway, and what only its tablets
may see.

Tablets connect to their servers by one account, whoever asks. The invariant: of two readers of a text neither
finds a statement or a table in it that the other does not, as far as it is let through.
"""

from __future__ import annotations

from itertools import pairwise

from homeworld.gateway.plan import Pass, Plan, Refuse, Scatter, SessionView, Verb
from homeworld.gateway.router_context import Context
from homeworld.gateway.router_errors import RefusedError, unsupported
from homeworld.gateway.router_programs import check_programs
from homeworld.gateway.router_session import check_hints
from homeworld.gateway.sql_tables import Scan
from homeworld.gateway.sql_tokens import Kind, tokenize
from homeworld.gateway.vtgate import UTF8

_MAY_SEE = "information_schema"
# What the account by which tablets connect may see and a password may not.
_SECRET = frozenset(
    {
        "applicable_roles", "column_privileges", "enabled_roles", "innodb_trx", "processlist",
        "role_column_grants", "role_routine_grants", "role_table_grants", "schema_privileges",
        "table_privileges", "user_attributes", "user_privileges",
    }
)  # fmt: skip
_FOREIGN = Refuse(
    1235,
    "42000",
    "VT12001: unsupported: a connection's character set other than utf8mb4 on Vitess; connect with utf8mb4, "
    "or SET NAMES utf8mb4",
)


def read_alike(plan: Plan, view: SessionView) -> Plan:
    """A plan, or the refusal of what would be sent in another character set than vtgate's: it would take the
    bytes for utf8mb4.
    """
    if view.charset in UTF8 or not isinstance(plan, Pass | Scatter):
        return plan
    return _FOREIGN


def check_read_alike(context: Context) -> None:
    """Refuse a text that vtgate would read otherwise.

    :raises RefusedError: it would.
    """
    found = context.scan
    if found.doubtful:
        raise unsupported("executable comments for some servers only that change what the statement is")
    # vtgate takes the rest of the line for a comment.
    if b"//" in context.sql and any(
        one.text == two.text == b"/" and one.end == two.start for one, two in pairwise(found.words)
    ):
        raise unsupported("// in a statement")
    if b"/*+" in context.sql:
        check_hints(token for token in tokenize(context.sql) if token.kind in {Kind.HINT, Kind.CODE})
    check_programs(context.names, context.aim.target, found)


def check_system(schema: str, table: str, found: Scan) -> None:
    """Refuse what the tablets' own account may read and a password may not.

    :raises RefusedError: it is that, or would be changed.
    """
    if found.verb not in {Verb.SELECT, Verb.SHOW}:
        raise unsupported("changing tables of system schemas")
    if schema.lower() != _MAY_SEE or table.lower() in _SECRET:
        raise RefusedError(
            1142, "42000", f"SELECT command denied for table '{schema}.{table}' (ACL check error)"
        )
