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


def check_compound(words: Sequence[Token], not_offered: frozenset[bytes]) -> None:
    """Refuse a block with a statement that is not for blocks.

    :param not_offered: kinds of things that CREATE, ALTER and DROP may not be for.
    :raises RefusedError: it has one.
    :raises SqlSyntaxError: its statements cannot be told apart.
    """
    statements = statements_of_block(words)
    local = {
        token.text.strip(b"`").lower()
        for statement in statements
        if statement[0].upper == b"DECLARE"
        for token in statement[1:]
        if token.kind in (Kind.WORD, Kind.QUOTED)
    }
    for statement in statements:
        first = statement[0].upper
        if first not in _OFFERED or (len(statement) > 1 and statement[1].upper in not_offered):
            raise unsupported(
                f"{first.decode('utf-8', 'replace')} in BEGIN NOT ATOMIC … END; send it by itself"
            )
        if first == b"SET":
            _check_set(statement, local)


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
