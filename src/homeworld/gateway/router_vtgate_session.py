"""Transaction control, ``USE`` and ``SET`` on a branch that vtgate plans.

vtgate takes many settings without a word and does nothing with them, and some of Vitess's own make it do
what is this gateway's to do. The invariant: a setting that is taken has the effect that it has on a server,
or none that a client could see; anything else is refused here, in words, or by vtgate itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from homeworld.gateway.plan import Control, Done, Plan, Refuse, SessionView, Verb
from homeworld.gateway.router_context import Compiled, apply
from homeworld.gateway.router_errors import RefusedError, unsupported
from homeworld.gateway.router_names import Edit, Names
from homeworld.gateway.router_session import (
    ASSIGNS,
    BREAKS_REPLICATION,
    SCOPES,
    assignments,
    check_no_query,
    check_sql_mode,
    is_plain,
    plain_value,
    setting_name,
    use_name,
)
from homeworld.gateway.router_target import parse_target
from homeworld.gateway.sql_functions import BUILT_IN, GRAMMAR
from homeworld.gateway.sql_tables import Scan
from homeworld.gateway.sql_tokens import Kind, Token
from homeworld.gateway.vtgate import UTF8, served_type
from homeworld.model.topology import TabletType

_OFF = frozenset({"0", "off", "false"})
_ON = frozenset({"1", "on", "true"})
_INNODB = frozenset({"innodb", "default"})
_ONLY: Mapping[str, frozenset[str]] = {
    "block_encryption_mode": frozenset({"aes-128-ecb"}),
    "collation_database": frozenset(),
    "collation_server": frozenset(),
    "character_set_database": UTF8,
    "character_set_filesystem": frozenset({"binary"}),
    "character_set_server": UTF8,
    "completion_type": frozenset({"0", "no_chain"}),
    "ddl_strategy": frozenset({"direct"}),
    "default_storage_engine": _INNODB,
    "default_tmp_storage_engine": _INNODB,
    "div_precision_increment": frozenset({"4"}),
    "enable_system_settings": _ON,
    "innodb_strict_mode": _ON,
    "lc_time_names": frozenset({"en_us"}),
    "lock_wait_timeout": frozenset(),
    "max_error_count": frozenset(),
    "max_execution_time": frozenset({"0"}),
    "max_join_size": frozenset({"18446744073709551615", "default"}),
    "max_length_for_sort_data": frozenset(),
    "max_sort_length": frozenset({"1024"}),
    "session_enable_system_settings": _ON,
    "sql_auto_is_null": _OFF,
    "transaction_read_only": _OFF,
    "tx_read_only": _OFF,
}
"""Settings of which vtgate takes any value and has the server's own all the same, or would do something else
by (deploy requests change schemas here, and not Vitess's own scheduler): the values that mean what is so
anyway.
"""
_INSTEAD: Mapping[str, str] = {
    "max_execution_time": "; use SET query_timeout, or the comment /*vt+ QUERY_TIMEOUT_MS=… */",
    "ddl_strategy": "; schemas are changed by deploy requests",
    "transaction_read_only": "; use START TRANSACTION READ ONLY",
    "tx_read_only": "; use START TRANSACTION READ ONLY",
}
_CHARSETS = frozenset({"character_set_client", "character_set_connection", "character_set_results"})
_OF_NOBODY = frozenset({"boost_cached_queries"})
_ACTIVE = Refuse(
    1192, "HY000", "Can't execute the given command because you have an active transaction or locked tables"
)


def vtgate_control(names: Names, sql: bytes, found: Scan) -> Compiled:
    """Plan BEGIN, COMMIT, ROLLBACK, savepoints, USE and SET.

    :raises RefusedError: not what it would be on a server.
    """
    match found.verb:
        case Verb.USE:
            return _use(names, sql, found)
        case Verb.SET:
            acted = _set(sql, found)
        case Verb.BEGIN:
            acted = _begin(sql, found)
        case Verb.COMMIT | Verb.ROLLBACK:
            acted = _end(sql, found)
        case _:
            acted = Control(found.verb, sql)
    return Compiled(_always(acted), shape=False)


def _always(plan: Plan) -> Callable[[bytes, SessionView], Plan]:
    return lambda _sql, _view: plan


def _use(names: Names, sql: bytes, found: Scan) -> Compiled:
    target = parse_target(use_name(found), names.routes)
    acted = Control(Verb.USE, sql, target)

    def template(_sql: bytes, view: SessionView) -> Plan:
        asked = TabletType.REPLICA if view.replica_only else target.tablet_type
        primary = served_type(names.routes, target.keyspace, asked) is TabletType.PRIMARY
        # vtgate aims no session elsewhere than at primaries while a transaction is open.
        return acted if primary or not view.in_transaction else _ACTIVE

    return Compiled(template, shape=False)


def _begin(sql: bytes, found: Scan) -> Plan:
    words = {token.upper for token in found.words}
    if found.word(0) == b"BEGIN":
        if found.word(1) not in {b"", b"WORK"}:
            raise unsupported("compound statements")
        return Control(Verb.BEGIN, b"BEGIN")
    if b"SNAPSHOT" in words:
        raise unsupported("WITH CONSISTENT SNAPSHOT on Vitess: each shard's would be of another moment")
    return Control(Verb.BEGIN, sql)


def _end(sql: bytes, found: Scan) -> Plan:
    words = [token.upper for token in found.words]
    if b"CHAIN" in words and words[words.index(b"CHAIN") - 1] != b"NO":
        raise unsupported("AND CHAIN on Vitess; send BEGIN behind it")
    if b"RELEASE" in words and words[words.index(b"RELEASE") - 1] != b"NO":
        return Control(found.verb, sql)
    return Control(found.verb, words[0])


def _set(sql: bytes, found: Scan) -> Plan:
    first, second = found.word(1), found.word(2)
    if first in {b"PASSWORD", b"DEFAULT", b"ROLE", b"RESOURCE", b"GLOBAL", b"STATEMENT"}:
        raise unsupported(f"SET {first.decode()}")
    if first == b"TRANSACTION":
        raise unsupported(
            "SET TRANSACTION for the next transaction only on Vitess, which sets it for the session; "
            "use SET SESSION TRANSACTION"
        )
    if first in SCOPES and second == b"TRANSACTION":
        if any(token.upper == b"ONLY" for token in found.words):
            raise unsupported("a session that only reads on Vitess; use START TRANSACTION READ ONLY")
        return Control(Verb.SET, sql)
    nothing = 0
    edits: list[Edit] = []
    parts = list(assignments(found.words[1:]))
    for part in parts:
        nothing += _check_part(part, edits)
    if nothing == len(parts):
        return Done()
    if nothing:
        raise unsupported(f"SET of {', '.join(sorted(_OF_NOBODY))} together with others")
    return Control(Verb.SET, apply(sql, edits) if edits else sql)


def _check_part(part: list[Token], edits: list[Edit]) -> bool:
    """Look at one of the things that a SET sets; True: nobody has it. ``edits`` gets what must be changed."""
    words = [token.upper for token in part[:2]]
    if words[:1] in ([b"NAMES"], [b"CHARSET"]) or words == [b"CHARACTER", b"SET"]:
        at = 2 if words[0] == b"CHARACTER" else 1
        if len(part) > at and part[at].text not in ASSIGNS:
            _check_names(part[at:])
            return False
    at = next((at for at, token in enumerate(part) if token.text in ASSIGNS), 0)
    if not at:
        raise unsupported("a SET that assigns nothing")
    head, value = part[:at], part[at + 1 :]
    for at, token in enumerate(value):
        check_no_query(token)
        called = token.kind in (Kind.WORD, Kind.QUOTED) and at + 1 < len(value) and value[at + 1].text == b"("
        name = token.name().upper()
        if called and name not in BUILT_IN and name not in GRAMMAR:
            raise unsupported(f"SET by {name.lower()}(), whose tables nobody would look for")
    if len(head) == 1 and head[0].kind is Kind.VARIABLE and not head[0].text.startswith(b"@@"):
        if b"sql_mode" in head[0].text.lower():
            check_sql_mode(value, [])
        return False
    name = setting_name(head)
    if name in _OF_NOBODY:
        return True
    _check_value(name, value, edits)
    return False


def _check_names(words: list[Token]) -> None:
    """SET NAMES charset [COLLATE collation]: vtgate has utf8mb4 and the server's collation, whatever is said.

    :raises RefusedError: that makes a difference.
    """
    charset = plain_value(words[0])
    if charset not in UTF8 | {"default"}:
        raise unsupported(f"character set {charset} on Vitess; use utf8mb4")
    if len(words) > 1:
        if len(words) != 3 or words[1].upper != b"COLLATE":
            raise unsupported("this name of a character set")
        _check_collation(plain_value(words[2]))


def _check_collation(collation: str) -> None:
    """Of a connection: it decides how literals compare with each other, and nothing of tables."""
    if collation.partition("_")[0] not in UTF8 or not collation.endswith("_ci"):
        raise unsupported(
            f"collation {collation} for a connection on Vitess: texts would compare by the server's own; "
            "say COLLATE where it matters"
        )


def _check_value(name: str, value: list[Token], edits: list[Edit]) -> None:
    if name in BREAKS_REPLICATION:
        raise RefusedError(1231, "42000", f"VT05006: {name} cannot be changed through a gateway")
    if name.partition(".")[0] == "vitess_metadata":
        raise unsupported("vitess_metadata: it is the whole cluster's")
    plain = plain_value(value[0]) if is_plain(value) or len(value) == 1 else ""
    if name == "sql_mode":
        check_sql_mode(value, edits)
    elif name in _CHARSETS:
        # Dumps put back what they have saved, and none but UTF-8 was there to be saved.
        saved = len(value) == 1 and value[0].kind is Kind.VARIABLE and not value[0].text.startswith(b"@@")
        if not saved and plain not in UTF8 and not (name == "character_set_results" and plain == "null"):
            raise unsupported(f"{name} other than utf8mb4 on Vitess")
    elif name == "collation_connection":
        if not value or value[0].kind is not Kind.VARIABLE:
            _check_collation(plain)
    elif name in _ONLY and plain not in _ONLY[name]:
        raise unsupported(f"this value of {name} on Vitess{_INSTEAD.get(name, '')}")
