"""``ALTER VSCHEMA``, read from a statement's words into an edit of one keyspace's vschema."""

from __future__ import annotations

from homeworld.gateway.plan import AlterVschema, Plan, Target
from homeworld.gateway.router_errors import RefusedError
from homeworld.gateway.router_names import Names
from homeworld.gateway.router_target import SYSTEM_SCHEMAS
from homeworld.gateway.sql_tables import Scan
from homeworld.gateway.sql_tokens import Kind, SqlSyntaxError, Token, string_value
from homeworld.model import vschema_edits as edits
from homeworld.model.errors import InvalidError
from homeworld.model.vschema import VSchema


class _Words:
    """The words behind ALTER VSCHEMA, taken one after the other."""

    def __init__(self, words: list[Token]) -> None:
        self.words = words
        self.at = 0

    def peek(self) -> bytes:
        return self.words[self.at].upper if self.at < len(self.words) else b""

    def take(self, *expected: bytes) -> bytes:
        if self.peek() not in expected:
            raise self.error()
        self.at += 1
        return self.words[self.at - 1].upper

    def error(self) -> SqlSyntaxError:
        near = b" ".join(word.text for word in self.words[self.at :]) or b"the end"
        return SqlSyntaxError(
            f"You have an error in your SQL syntax; ALTER VSCHEMA is not understood near {near.decode()!r}"
        )

    def name(self) -> str:
        if self.at >= len(self.words):
            raise self.error()
        token = self.words[self.at]
        if token.kind not in (Kind.WORD, Kind.QUOTED):
            raise self.error()
        self.at += 1
        return token.name()

    def qualified(self) -> tuple[str, str]:
        first = self.name()
        if self.peek() != b".":
            return "", first
        self.at += 1
        return first, self.name()

    def value(self) -> str:
        token = self.words[self.at] if self.at < len(self.words) else None
        if token is None or token.kind not in (Kind.WORD, Kind.QUOTED, Kind.STRING, Kind.NUMBER):
            raise self.error()
        self.at += 1
        if token.kind is Kind.STRING:
            return string_value(token.text).decode("utf-8", "replace")
        return token.name()

    def end(self) -> None:
        if self.at != len(self.words):
            raise self.error()

    def columns(self) -> tuple[str, ...]:
        self.take(b"(")
        found = [self.name()]
        while self.take(b",", b")") == b",":
            found.append(self.name())
        return tuple(found)

    def using(self) -> tuple[str, dict[str, str]]:
        """``USING type [WITH a=b, c=d]``; an empty type where there is none."""
        if self.peek() != b"USING":
            return "", {}
        self.at += 1
        type_ = self.name()
        params: dict[str, str] = {}
        if self.peek() == b"WITH":
            self.at += 1
            while True:
                key = self.name()
                self.take(b"=")
                params[key] = self.value()
                if self.peek() != b",":
                    break
                self.at += 1
        return type_, params


def alter_vschema(names: Names, found: Scan, target: Target) -> Plan:
    """Plan one ALTER VSCHEMA.

    :raises RefusedError: no keyspace, or the edit is refused.
    :raises SqlSyntaxError: not understood.
    """
    words = _Words(found.words[2:])
    if words.peek() == b"ON":
        words.at += 1
        keyspace, table = words.qualified()
        keyspace = _keyspace(names, keyspace, target)
        edit = _edit_of_table(words, names.vschemas[keyspace], table)
    else:
        act = words.take(b"ADD", b"DROP", b"CREATE")
        kind = words.take(*((b"VINDEX",) if act == b"CREATE" else (b"TABLE", b"SEQUENCE", b"VINDEX")))
        if act == b"ADD" and kind == b"VINDEX":
            raise words.error()
        keyspace, name = words.qualified()
        keyspace = _keyspace(names, keyspace, target)
        edit = _edit_of_keyspace(words, names.vschemas[keyspace], act, kind, name)
    words.end()
    return AlterVschema(keyspace, edit.to_json(), names.vschemas[keyspace].to_json())


def _keyspace(names: Names, keyspace: str, target: Target) -> str:
    chosen = keyspace or target.keyspace
    if not chosen and len(names.routes.keyspaces) == 1:
        chosen = names.routes.default_keyspace
    if not chosen or chosen in SYSTEM_SCHEMAS:
        raise RefusedError(1046, "3D000", "VT09005: no database selected: use keyspace<:shard><@type>")
    names.keyspace(chosen)
    return chosen


def _refusing(error: InvalidError) -> RefusedError:
    return RefusedError(1105, "HY000", error.message)


def _edit_of_keyspace(words: _Words, vschema: VSchema, act: bytes, kind: bytes, name: str) -> VSchema:
    type_, params = words.using() if act == b"CREATE" else ("", {})
    try:
        match act, kind:
            case b"ADD", b"TABLE":
                return edits.add_table(vschema, name)
            case b"ADD", b"SEQUENCE":
                return edits.add_sequence(vschema, name)
            case b"DROP", b"TABLE":
                return edits.drop_table(vschema, name)
            case b"DROP", b"SEQUENCE":
                return edits.drop_sequence(vschema, name)
            case b"DROP", b"VINDEX":
                return edits.drop_vindex(vschema, name)
            case _:
                if not type_:
                    raise words.error()
                return edits.create_vindex(vschema, name, type_, params)
    except InvalidError as error:
        raise _refusing(error) from None


def _edit_of_table(words: _Words, vschema: VSchema, table: str) -> VSchema:
    act = words.take(b"ADD", b"DROP")
    kind = words.take(b"VINDEX", b"AUTO_INCREMENT")
    try:
        if kind == b"AUTO_INCREMENT":
            if act == b"DROP":
                return edits.drop_auto_increment(vschema, table)
            column = words.name()
            words.take(b"USING")
            keyspace, sequence = words.qualified()
            qualified = f"{keyspace}.{sequence}" if keyspace else sequence
            return edits.add_auto_increment(vschema, table, column, qualified)
        name = words.name()
        if act == b"DROP":
            return edits.drop_column_vindex(vschema, table, name)
        columns = words.columns()
        type_, params = words.using()
        return edits.add_column_vindex(vschema, table, name, columns, type_, params)
    except InvalidError as error:
        raise _refusing(error) from None
