"""Transaction control, ``USE`` and ``SET``: what the session performs on all its servers.

Refused here is what would make the router's own reading of later statements wrong (modes that change the
lexical rules, character sets with ASCII bytes inside characters), and what would break replication or reach
the whole server.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from homeworld.gateway.plan import Control, Done, Plan, Verb
from homeworld.gateway.router_context import apply
from homeworld.gateway.router_errors import RefusedError, unsupported
from homeworld.gateway.router_names import Edit, Names
from homeworld.gateway.router_target import parse_target
from homeworld.gateway.sql_functions import CONNECTION, PURE
from homeworld.gateway.sql_tables import Scan
from homeworld.gateway.sql_tokens import Kind, Token, string_value

_BAD_MODES = re.compile(
    rb"\b(ANSI(?:_QUOTES)?|NO_BACKSLASH_ESCAPES|PIPES_AS_CONCAT|HIGH_NOT_PRECEDENCE|ORACLE|MSSQL|DB2"
    rb"|POSTGRESQL|MAXDB|MYSQL323|MYSQL40|EMPTY_STRING_IS_NULL|PAD_CHAR_TO_FULL_LENGTH)\b",
    re.IGNORECASE,
)
# The same for a server, which looks at a value that only it knows; numbers stand for modes, too.
_BAD_MODES_ON_SERVER = (
    b"ANSI|NO_BACKSLASH_ESCAPES|PIPES_AS_CONCAT|HIGH_NOT_PRECEDENCE|ORACLE|MSSQL|DB2|POSTGRESQL|MAXDB|MYSQL323"
    b"|MYSQL40|EMPTY_STRING_IS_NULL|PAD_CHAR_TO_FULL_LENGTH|^ *[0-9]"
)
_MULTIBYTE = frozenset(
    {"big5", "cp932", "gb18030", "gb2312", "gbk", "sjis", "euckr", "eucjpms", "ujis", "swe7"}
)
# Character sets in which every byte below 0x80 is the ASCII character, and part of no other.
_ASCII_STAYS = (
    b"^(utf8(mb[34])?|ascii|latin[1257]|binary|cp(1250|1251|1256|1257|850|852|866)|koi8[ru]|greek|hebrew|tis620"
    b"|armscii8|geostd8|dec8|hp8|keybcs2|macce|macroman)$"
)
_UTF8 = frozenset({"utf8", "utf8mb3", "utf8mb4"})
BREAKS_REPLICATION = frozenset(
    {
        "binlog_alter_two_phase",
        "binlog_annotate_row_events",
        "binlog_ddl_skip_rewrite",
        "binlog_direct_non_transactional_updates",
        "binlog_format",
        "binlog_row_image",
        "binlog_row_metadata",
        "binlog_row_value_options",
        "binlog_rows_query_log_events",
        "binlog_transaction_compression",
        "gtid_domain_id",
        "gtid_next",
        "gtid_seq_no",
        "immediate_server_version",
        "original_commit_timestamp",
        "original_server_version",
        "pseudo_replica_mode",
        "pseudo_slave_mode",
        "server_id",
        "skip_parallel_replication",
        "skip_replication",
        "sql_log_bin",
        "wsrep_on",
    }
)
# Settings of Vitess that have no meaning here: accepted, as clients made for it send them.
_VITESS = frozenset(
    {
        "boost_cached_queries",
        "ddl_strategy",
        "enable_system_settings",
        "migration_context",
        "query_timeout",
        "read_after_write_gtid",
        "read_after_write_timeout",
        "session_enable_system_settings",
        "session_track_gtids",
        "skip_query_plan_cache",
        "transaction_mode",
        "transaction_timeout",
        "vitess_metadata",
        "workload",
    }
)
_READS_TEXTS = frozenset(
    {
        "character_set_client",
        "character_set_connection",
        "collation_connection",
        "sql_auto_is_null",
        "sql_mode",
    }
)
_NOT_SCATTERED = frozenset({"sql_select_limit", "div_precision_increment", "max_sort_length"})
SCOPES = frozenset({b"SESSION", b"LOCAL"})
ASSIGNS = frozenset({b"=", b":="})
_SETTING = re.compile(r"[a-z0-9_$]+(\.[a-z0-9_$]+)*")
_HINT = re.compile(rb"\bset_var\b\s*\(\s*`?([^`=\s]*)", re.IGNORECASE)


def control(names: Names, sql: bytes, found: Scan) -> Plan:
    """Plan BEGIN, COMMIT, ROLLBACK, savepoints, USE and SET.

    :raises RefusedError: not allowed through a gateway.
    """
    match found.verb:
        case Verb.USE:
            return Control(Verb.USE, sql, parse_target(use_name(found), names.routes))
        case Verb.SET:
            return _set(names, sql, found)
        case Verb.BEGIN:
            if found.word(0) == b"BEGIN" and found.word(1) not in {b"", b"WORK"}:
                raise unsupported("compound statements")
        case _:
            pass
    return Control(found.verb, sql)


def check_hints(hints: Iterable[Token]) -> None:
    """Look at optimizer hints: what SET may not set, SET_VAR may not for one statement either.

    :raises RefusedError: it may not.
    """
    for hint in hints:
        for written in _HINT.findall(hint.text):
            name = written.decode("utf-8", "replace").lower()
            if name in BREAKS_REPLICATION | _NOT_SCATTERED or name in _READS_TEXTS:
                raise unsupported(f"SET_VAR({name}); use SET")


def use_name(found: Scan) -> str:
    """The name that a USE names."""
    words = found.words[1:]
    if len(words) == 1 and words[0].kind is Kind.STRING:
        return string_value(words[0].text).decode("utf-8", "replace")
    if len(words) == 1 and words[0].kind is Kind.QUOTED:
        return words[0].name()
    return b"".join(word.text.strip(b"`") for word in words).decode("utf-8", "replace")


def assignments(words: list[Token]) -> Iterable[list[Token]]:
    """The things that a SET sets, each as its words."""
    depth = 0
    part: list[Token] = []
    for token in words:
        depth += {b"(": 1, b")": -1}.get(token.text, 0)
        if token.text == b"," and depth == 0:
            yield part
            part = []
        else:
            part.append(token)
    yield part


def _set(names: Names, sql: bytes, found: Scan) -> Plan:
    first, second = found.word(1), found.word(2)
    if first in {b"PASSWORD", b"DEFAULT", b"ROLE", b"RESOURCE", b"GLOBAL", b"STATEMENT"}:
        raise unsupported(f"SET {first.decode()}")
    if first == b"TRANSACTION" or (first in SCOPES and second == b"TRANSACTION"):
        return Control(Verb.SET, sql)
    ours = 0
    edits: list[Edit] = []
    parts = list(assignments(found.words[1:]))
    for part in parts:
        ours += _check_part(names, part, edits)
    if ours == len(parts):
        return Done()
    if ours:
        raise unsupported("SET of Vitess settings together with others")
    return Control(Verb.SET, apply(sql, edits) if edits else sql)


def plain_value(token: Token) -> str:
    """A value of one word, in lower case."""
    if token.kind is Kind.STRING:
        return string_value(token.text).decode("utf-8", "replace").lower()
    return token.name().lower()


def _check_charset(charset: str) -> None:
    if charset in _MULTIBYTE:
        raise unsupported(f"character set {charset} for statements; use utf8mb4")


def _check_part(names: Names, part: list[Token], edits: list[Edit]) -> bool:
    """Look at one of the things that a SET sets; True: it is a setting that only Vitess has. ``edits`` gets
    what must be changed in the text.
    """
    words = [token.upper for token in part[:2]]
    if words[:1] in ([b"NAMES"], [b"CHARSET"]) or words == [b"CHARACTER", b"SET"]:
        at = 2 if words[0] == b"CHARACTER" else 1
        if len(part) > at and part[at].text not in ASSIGNS:
            if part[at].kind not in {Kind.WORD, Kind.QUOTED, Kind.STRING}:
                raise unsupported("this name of a character set")
            _check_charset(plain_value(part[at]))
            return False
    at = next((at for at, token in enumerate(part) if token.text in ASSIGNS), 0)
    if not at:
        raise unsupported("a SET that assigns nothing")
    head, value = part[:at], part[at + 1 :]
    variable = head[0]
    if len(head) == 1 and variable.kind is Kind.VARIABLE and not variable.text.startswith(b"@@"):
        _check_user_variable(names, variable.text, value)
        return False
    name = setting_name(head)
    if name.partition(".")[0] in _VITESS:
        return True
    _check_value(names, name, value, edits)
    return False


def setting_name(head: list[Token]) -> str:
    """The name of a system variable without its scope, however it is written.

    :raises RefusedError: it is the server's, or cannot be read.
    """
    scoped = head[0].kind is Kind.WORD and len(head) > 1 and head[1].text != b"."
    scope = head[0].upper.decode("utf-8", "replace").lower() if scoped else ""
    if any(
        token.kind not in {Kind.WORD, Kind.QUOTED, Kind.VARIABLE} and token.text != b"." for token in head
    ):
        raise unsupported("this SET")
    name = (
        b"".join(token.text for token in head[scoped:]).replace(b"`", b"").decode("utf-8", "replace").lower()
    )
    first, dot, rest = name.removeprefix("@@").partition(".")
    if dot and not scope and first in {"global", "persist", "persist_only", "session", "local"}:
        scope, name = first, rest
    else:
        name = name.removeprefix("@@")
    if scope in {"global", "persist", "persist_only"}:
        raise unsupported("SET GLOBAL")
    if scope not in {"", "session", "local"} or not _SETTING.fullmatch(name):
        raise unsupported("this SET")
    return name


def _check_user_variable(names: Names, text: bytes, value: list[Token]) -> None:
    if b"sql_mode" in text.lower() and _BAD_MODES.search(b" ".join(token.text for token in value)):
        raise unsupported("this sql_mode")
    for at, token in enumerate(value):
        check_no_query(token)
        follows = value[at + 1].text if at + 1 < len(value) else b""
        calls = token.kind in (Kind.WORD, Kind.QUOTED) and follows == b"("
        name = token.upper.decode("utf-8", "replace")
        if calls and name not in PURE and name not in CONNECTION and names.only is None:
            raise unsupported(f"SET of a variable by {name.lower()}(), which other servers would repeat")


def check_no_query(token: Token) -> None:
    """Nobody would look for its tables, and whoever may not read them would."""
    if token.kind is Kind.WORD and token.upper in {b"SELECT", b"TABLE", b"VALUES"}:
        raise unsupported("subqueries in SET")


def _check_literals_stay(names: Names, name: str, value: list[Token], edits: list[Edit]) -> None:
    """Servers convert literals to this character set before they compare them with bytes; the router, which
    chooses shards by literals, must see them as the server does. Dumps put back what they have saved in a
    user variable: only the server knows it, and is made to refuse anything else.
    """
    sharded = any(keyspace.sharded for keyspace in names.routes.keyspaces.values())
    if sharded and len(value) == 1 and value[0].kind is Kind.VARIABLE and not value[0].text.startswith(b"@@"):
        saved = value[0].text
        guarded = b"IF(%b LIKE 'utf8%%', %b, CONCAT('VT12001: unsupported: ', %b))" % (saved, saved, saved)
        edits.append((value[0].start, value[0].end, guarded))
        return
    plain = len(value) == 1 and value[0].kind in (Kind.WORD, Kind.QUOTED, Kind.STRING)
    if sharded and not (plain and plain_value(value[0]).partition("_")[0] in _UTF8 | {"default"}):
        raise unsupported(f"{name} other than utf8mb4 on a branch with a sharded keyspace")


def _refused_on_server(name: str, value: list[Token], regexp: bytes, *, wanted: bool) -> bytes:
    """An expression for ``value`` whose text only the server knows: it refuses what the router would have to.

    :param regexp: what the value must match, or (not ``wanted``) may not.
    :raises RefusedError: the value is no variable and no function of such.
    """
    for at, token in enumerate(value):
        calls = at + 1 < len(value) and value[at + 1].text == b"("
        words = token.kind in (Kind.WORD, Kind.QUOTED)
        if token.text == b":=" or token.kind is Kind.PARAM:
            raise unsupported(f"{name} by this expression")
        if words and calls and token.upper.decode("utf-8", "replace") not in PURE:
            raise unsupported(f"{name} by this expression")
    # With a space before its parenthesis a function may be taken for a stored one.
    given = b"".join(token.text if token.text == b"(" else b" " + token.text for token in value).strip()
    match = b"LOWER" if wanted else b"UPPER"
    found = b"%b(CONVERT(%b USING utf8mb4)) %bREGEXP '%b'" % (
        match, given, b"NOT " if wanted else b"", regexp,
    )  # fmt: skip
    return b"IF(%b, CONCAT('VT12001: unsupported: ', %b), %b)" % (found, given, given)


def is_plain(value: list[Token]) -> bool:
    """Whether a value is one word or string."""
    return len(value) == 1 and value[0].kind in (Kind.WORD, Kind.QUOTED, Kind.STRING)


def check_sql_mode(value: list[Token], edits: list[Edit]) -> None:
    """Look at a value for sql_mode; where only a server knows it, ``edits`` get what lets the server refuse.

    :raises RefusedError: it changes how statements are read.
    """
    if _BAD_MODES.search(b" ".join(token.text for token in value)):
        raise unsupported("this sql_mode: it changes how statements are read")
    for token in value:
        if token.kind in (Kind.NUMBER, Kind.HEX) and token.text != b"0":
            raise unsupported("sql_mode from a number; write its modes out")
    if value and not is_plain(value) and [token.text for token in value] != [b"0"]:
        guarded = _refused_on_server("sql_mode", value, _BAD_MODES_ON_SERVER, wanted=False)
        edits.append((value[0].start, value[-1].end, guarded))


def _check_client_charset(value: list[Token], edits: list[Edit]) -> None:
    if is_plain(value):
        _check_charset(plain_value(value[0]))
    elif len(value) == 1 and value[0].kind is Kind.VARIABLE:
        guarded = _refused_on_server("character_set_client", value, _ASCII_STAYS, wanted=True)
        edits.append((value[0].start, value[0].end, guarded))
    elif value:
        raise unsupported("character_set_client by an expression; use utf8mb4")


def _check_value(names: Names, name: str, value: list[Token], edits: list[Edit]) -> None:
    if name in BREAKS_REPLICATION:
        raise RefusedError(1231, "42000", f"VT05006: {name} cannot be changed through a gateway")
    if name == "sql_mode":
        check_sql_mode(value, edits)
    elif name == "character_set_client":
        _check_client_charset(value, edits)
    elif name in {"character_set_connection", "collation_connection"}:
        _check_literals_stay(names, name, value, edits)
    elif name == "sql_auto_is_null":
        if value and value[-1].upper not in {b"0", b"OFF", b"FALSE"}:
            raise unsupported("sql_auto_is_null")
    elif name in _NOT_SCATTERED:
        sharded = any(keyspace.sharded for keyspace in names.routes.keyspaces.values())
        if sharded and value and value[-1].upper != b"DEFAULT":
            raise unsupported(f"{name} on a branch with a sharded keyspace")
    for token in value:
        check_no_query(token)
