"""Stored programs by qualified names: only those of the keyspace that the statement goes to.

``CALL other.p()`` is sent where the session is aimed at, whatever ``other`` is, and is held there. So a
program of another keyspace would run past the holds on its tables, and one of a schema that is no keyspace is
nobody's.
Knows words only; what a program's body does is the server's to allow.
"""

from __future__ import annotations

from collections.abc import Iterator

from homeworld.gateway.plan import Target
from homeworld.gateway.router_errors import unknown_database, unsupported
from homeworld.gateway.router_names import Names
from homeworld.gateway.router_target import SYSTEM_SCHEMAS
from homeworld.gateway.sql_statement import NAMES, Scan, behind_program_kind
from homeworld.gateway.sql_tokens import Kind, Token

_KINDS = frozenset({b"PROCEDURE", b"FUNCTION", b"TRIGGER", b"EVENT", b"PACKAGE"})
_IF = frozenset({b"IF", b"NOT", b"EXISTS"})


def check_programs(names: Names, target: Target, scan: Scan) -> None:
    """Look at the schemas of all programs that a statement names or calls.

    :raises RefusedError: one is not of the keyspace that the statement goes to.
    """
    for token in (*_defined(scan), *_called(scan)):
        schema = token.name()
        if schema.lower() in SYSTEM_SCHEMAS:
            continue  # the server knows who may
        if schema not in names.routes.keyspaces:
            raise unknown_database(schema)
        if names.only is None and schema != names.default(target).name:
            raise unsupported(
                f"stored functions and procedures of keyspace {schema} while the session is aimed elsewhere; "
                f"USE `{schema}`"
            )


def _defined(scan: Scan) -> Iterator[Token]:
    """The schemas of programs that the statement calls by CALL, makes, changes, drops or shows."""
    words = scan.words
    first = scan.word(0)
    at = 0
    if first == b"CALL":
        at = 1
    elif first == b"CREATE" and scan.program:
        at = behind_program_kind(words, 0)
    elif first in {b"ALTER", b"DROP", b"SHOW"}:
        kind = next((at for at, token in enumerate(words[:8]) if token.upper in _KINDS), -1)
        at = kind + 1
        if scan.word(at) in {b"BODY", b"CODE"}:
            at += 1
    if not at:
        return
    while scan.word(at) in _IF and words[at].kind is Kind.WORD:
        at += 1
    places = [at]
    if first == b"ALTER":
        places += [
            at + 2
            for at, token in enumerate(words)
            if token.upper == b"RENAME"
            and scan.word(at + 1) == b"TO"
            and b"EVENT" in {scan.word(1), scan.word(4)}
        ]
    for place in places:
        if place + 2 < len(words) and words[place].kind in NAMES and words[place + 1].text == b".":
            yield words[place]


def _called(scan: Scan) -> Iterator[Token]:
    """The schemas of functions: whatever is ``schema.name(`` and no table with its columns behind it."""
    words = scan.words
    tables = {ref.start for ref in scan.tables}
    for at in range(3, len(words)):
        schema, dot, name, behind = words[at - 3 : at + 1]
        called = behind.text == b"(" and dot.text == b"." and schema.kind in NAMES and name.kind in NAMES
        if called and schema.start not in tables:
            yield schema
