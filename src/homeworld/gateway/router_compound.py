"""MariaDB's ``BEGIN NOT ATOMIC … END``: which blocks may be handed to a server.

Invariant: a block does nothing that the gateway would have to know and cannot see: no hidden text, and no
settings of the session, which would be on one connection only.
"""

from __future__ import annotations

from collections.abc import Sequence

from homeworld.gateway.router_errors import unsupported
from homeworld.gateway.sql_split import statements_of_block
from homeworld.gateway.sql_tokens import Kind, Token

_OFFERED = frozenset(
    {b"ALTER", b"CALL", b"CLOSE", b"COMMIT", b"CREATE", b"DECLARE", b"DELETE", b"DO", b"DROP", b"FETCH",
     b"GET", b"INSERT", b"ITERATE", b"LEAVE", b"OPEN", b"RELEASE", b"RENAME", b"REPLACE", b"RESIGNAL",
     b"ROLLBACK", b"SAVEPOINT", b"SELECT", b"SET", b"SIGNAL", b"START", b"TRUNCATE", b"UPDATE", b"VALUES",
     b"WITH", b"(", b"ANALYZE", b"OPTIMIZE", b"NULL"}
)  # fmt: skip

_NO_VARIABLES = frozenset({b"CURSOR", b"CONDITION", b"HANDLER"})
_SETTINGS = frozenset(
    {b"autocommit", b"big_tables", b"character", b"charset", b"completion_type", b"default", b"default_role",
     b"div_precision_increment", b"foreign_key_checks", b"global", b"group_concat_max_len", b"identity",
     b"insert_id", b"last_insert_id", b"local", b"lock_wait_timeout", b"max_sort_length", b"names",
     b"old_mode", b"password", b"persist", b"pseudo_slave_mode", b"pseudo_thread_id", b"rand_seed1",
     b"rand_seed2", b"role", b"server_id", b"session", b"statement", b"time_zone", b"timestamp",
     b"transaction", b"tx_isolation", b"tx_read_only", b"unique_checks"}
)  # fmt: skip
_SETTINGS_BEGIN = (b"auto_increment_", b"binlog_", b"character_set_", b"collation_", b"gtid_", b"sql_",
                   b"transaction_", b"system_versioning_")  # fmt: skip


def check_compound(words: Sequence[Token], not_offered: frozenset[bytes]) -> None:
    """Refuse a block with a statement that is not for blocks.

    :param not_offered: kinds of things that CREATE, ALTER and DROP may not be for.
    :raises RefusedError: it has one.
    :raises SqlSyntaxError: its statements cannot be told apart.
    """
    statements = statements_of_block(words)
    local = {name for statement in statements for name in _declared(statement)}
    for statement in statements:
        first = statement[0].upper
        if first not in _OFFERED or _is_other(statement, not_offered):
            raise unsupported(
                f"{first.decode('utf-8', 'replace')} in BEGIN NOT ATOMIC … END; send it by itself"
            )
        if first == b"SET":
            _check_set(statement, local)


def _is_other(statement: Sequence[Token], not_offered: frozenset[bytes]) -> bool:
    """Whether its first word begins something that is not for blocks."""
    first, second, _, fourth = ([word.upper for word in statement[:4]] + [b""] * 3)[:4]
    if first == b"START":
        return second != b"TRANSACTION"
    if first == b"ANALYZE":  # of a statement
        return second not in {b"TABLE", b"TABLES", b"LOCAL", b"NO_WRITE_TO_BINLOG"}
    return second in not_offered or (second == b"OR" and fourth in not_offered)  # CREATE OR REPLACE …


def _declared(statement: Sequence[Token]) -> set[bytes]:
    """The variables that ``DECLARE a, b TYPE …`` makes, lower case. Those that may be taken for settings of
    the session are left out: outside of the block that declares them the name means the setting.
    """
    if statement[0].upper != b"DECLARE" or any(word.upper in _NO_VARIABLES for word in statement[1:4]):
        return set()
    found: set[bytes] = set()
    for at in range(1, len(statement), 2):
        if statement[at].kind not in (Kind.WORD, Kind.QUOTED):
            break
        found.add(statement[at].text.strip(b"`").lower())
        if at + 1 >= len(statement) or statement[at + 1].text != b",":
            break
    return {name for name in found if name not in _SETTINGS and not name.startswith(_SETTINGS_BEGIN)}


def _check_set(statement: Sequence[Token], local: set[bytes]) -> None:
    depth = 0
    begins = True
    for token in statement[1:]:
        if begins and not (
            (token.kind is Kind.VARIABLE and not token.text.startswith(b"@@"))
            or (token.kind in (Kind.WORD, Kind.QUOTED) and token.text.strip(b"`").lower() in local)
        ):
            raise unsupported(
                "SET of something other than variables in BEGIN NOT ATOMIC … END; send it before"
            )
        depth += {b"(": 1, b")": -1}.get(token.text, 0) if token.kind is Kind.OP else 0
        begins = token.text == b"," and depth == 0
