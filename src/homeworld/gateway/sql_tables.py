"""Which tables a statement names, found without knowing the whole grammar.

For statements that a server will parse anyway it is enough to know their verb, the tables they name and
whether they lock, and to know it for certain in one direction: a table that the server will touch because the
text names it is found here. A name too many (a common table expression's, an alias) is possible in odd texts
and only makes a hold wait or a qualifier be asked for.
"""

from __future__ import annotations

from homeworld.gateway.plan import Verb
from homeworld.gateway.sql_functions import BUILT_IN, GRAMMAR, KEEPS_STATE
from homeworld.gateway.sql_split import statements_of_block
from homeworld.gateway.sql_statement import NAMES, VERBS, Scan, TableRef, program_kind, readings, significant
from homeworld.gateway.sql_tokens import Kind, SqlSyntaxError, Token
from homeworld.gateway.sql_walk import Walk

__all__ = ["Scan", "SqlSyntaxError", "TableRef", "scan", "significant", "tables_in"]

# Verbs whose words before a parenthesis are functions.
_CALLING = frozenset({Verb.SELECT, Verb.INSERT, Verb.UPDATE, Verb.DELETE, Verb.REPLACE})

# Verbs of which the gateway reads every word by itself.
_READ_WHOLE = frozenset(
    {Verb.BEGIN, Verb.COMMIT, Verb.ROLLBACK, Verb.SAVEPOINT, Verb.SET, Verb.SHOW, Verb.USE}
)
_HEAD = 3
"""So many words say what kind of statement it is."""


def scan(sql: bytes) -> Scan:
    """Read a statement's verb and tables.

    :raises SqlSyntaxError: the text cannot be read, or is empty.
    """
    words, code = significant(sql)
    found = _scanned(words, code=code)
    if code:
        # A statement of which nothing is left is itself or nothing.
        found.doubtful = any(
            reading and len(reading) != len(words) and _differ(found, _scanned(reading, code=code))
            for reading in readings(sql)
        )
    return found


def _differ(one: Scan, other: Scan) -> bool:
    """Whether two readings of a text are statements of different kinds or on different tables."""
    if one.verb in _READ_WHOLE or other.verb in _READ_WHOLE:
        return True
    return _kind(one) != _kind(other)


def _kind(found: Scan) -> tuple[object, ...]:
    heads = [found.word(at) for at in range(_HEAD)]
    tables = {(ref.schema, ref.name) for ref in found.tables}
    states = (found.locking_read, found.keeps_state, found.unknown_functions, found.qualified_functions)
    return found.verb, heads, tables, states, found.calls if found.verb in _CALLING else ()


def _scanned(words: list[Token], *, code: bool) -> Scan:
    first = next((word for word in words if word.text != b"("), None)
    if first is None:
        raise SqlSyntaxError("Query was empty")
    found = Scan(VERBS.get(first.upper, Verb.OTHER), words, code=code)
    if first.upper == b"WITH":
        found.verb = _verb_behind_with(words)
    if first.upper == b"START" and found.word(1) != b"TRANSACTION":
        found.verb = Verb.OTHER
    if first.upper == b"ROLLBACK" and b"TO" in {found.word(1), found.word(2)}:
        found.verb = Verb.SAVEPOINT
    found.program = program_kind(words)
    if found.program == b"BEGIN":  # as a procedure that has no name
        found.verb = Verb.CALL
    walk = Walk(found)
    walk.run(words.index(first))
    if found.program == b"BEGIN":
        _look_into_block(found)
    _look_at_words(found)
    if found.program and found.verb is Verb.DDL:
        # What stands in its body is done when it runs.
        found.keeps_state = False
        found.calls.clear()
    return found


def tables_in(sql: bytes) -> frozenset[tuple[str, str]]:
    """The (schema, table) names in a statement, such as a view's definition; schema is empty where unnamed.

    :raises SqlSyntaxError: the text cannot be read.
    """
    return frozenset((ref.schema, ref.name) for ref in scan(sql).tables)


def _look_into_block(found: Scan) -> None:
    """The tables that a block's statements name."""
    known = {ref.start for ref in found.tables}
    for statement in statements_of_block(found.words):
        part = Scan(VERBS.get(statement[0].upper, Verb.OTHER), statement)
        Walk(part).run(0)
        found.tables += [ref for ref in part.tables if ref.start not in known]
        if part.verb is Verb.DDL and b"TEMPORARY" in {part.word(1), part.word(3)}:
            found.keeps_state = True


def _verb_behind_with(words: list[Token]) -> Verb:
    depth = 0
    for token in words:
        if token.text == b"(":
            depth += 1
        elif token.text == b")":
            depth -= 1
        elif depth == 0 and token.upper in {b"SELECT", b"UPDATE", b"DELETE", b"TABLE", b"VALUES"}:
            return VERBS[token.upper]
    return Verb.SELECT


def _look_at_words(found: Scan) -> None:
    """Functions, variables and locks, wherever they stand."""
    words = found.words
    tables = {ref.name_start for ref in found.tables}
    for at, token in enumerate(words):
        if token.kind is Kind.VARIABLE:
            if not token.text.startswith(b"@@"):
                found.keeps_state = True
            continue
        if token.kind not in NAMES:
            continue
        upper = token.upper
        follower = words[at + 1].text if at + 1 < len(words) else b""
        # INSERT INTO keyspace.table (columns) calls nothing.
        if follower == b"(" and token.start not in tables:
            name = upper.decode("utf-8", "replace")
            found.calls.add(upper)
            if name in KEEPS_STATE or (name == "LAST_INSERT_ID" and found.word(at + 2) != b")"):
                found.keeps_state = True
            behind = words[at - 1] if at else None
            declares = behind is not None and behind.upper in {b"TABLE", b"INTO", b"EXISTS", b"KEY", b"INDEX"}
            if (
                found.verb in _CALLING
                and not declares
                and (token.kind is Kind.QUOTED or (name not in BUILT_IN and name not in GRAMMAR))
            ):
                found.unknown_functions = True
                found.qualified_functions |= behind is not None and behind.text == b"."
        elif token.kind is Kind.WORD and found.verb is Verb.SELECT:
            nxt = found.word(at + 1)
            if (upper == b"FOR" and nxt in {b"UPDATE", b"SHARE"}) or (
                upper == b"LOCK" and nxt == b"IN" and found.word(at + 2) == b"SHARE"
            ):
                found.locking_read = True
            elif upper in {b"SQL_CALC_FOUND_ROWS", b"NEXTVAL"}:
                found.keeps_state = True
    if found.verb is Verb.LOCK:
        found.keeps_state = True
    if found.verb is Verb.DDL and b"TEMPORARY" in {found.word(1), found.word(3)}:
        found.keeps_state = True
