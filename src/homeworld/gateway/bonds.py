"""What statements leave on a connection that SETs cannot repeat on another: locks, temporary tables, user
variables assigned among rows.

Pure: reads texts, knows connections by their identity only. The invariant: no statement that reads such a
thing is let onto a connection that lacks it. Variables bind nobody who does not read them, so that a session
that counted rows with ``@n:=`` on one server can do so on the next.
"""

from __future__ import annotations

from dataclasses import dataclass

from homeworld.gateway.link import Link
from homeworld.gateway.sql_statement import significant
from homeworld.gateway.sql_tokens import LITERALS, Kind, Token
from homeworld.model.errors import UnavailableError

_BINDS = {
    b"GET_LOCK": "lock",
    b"TEMPORARY": "temporary table",
    b"PREPARE": "statement",
    b"EXECUTE": "statement",
    b"DEALLOCATE": "statement",
    b"HANDLER": "handler",
    b"CALL": "procedure",
}
_NEEDS = {b"RELEASE_LOCK": "lock", b"RELEASE_ALL_LOCKS": "lock"}
_CALLS_OF_LAST = frozenset({"FOUND_ROWS", "LAST_INSERT_ID", "ROW_COUNT"})
_VARIABLES_OF_LAST = frozenset({b"error_count", b"identity", b"last_insert_id", b"warning_count"})
_OWN_CALLS = _CALLS_OF_LAST | {
    "CONNECTION_ID", "DATABASE", "GET_LOCK", "IS_FREE_LOCK", "IS_USED_LOCK", "LASTVAL", "NEXTVAL",
    "RELEASE_ALL_LOCKS", "RELEASE_LOCK", "SCHEMA", "SETVAL",
}  # fmt: skip
_ENDS_VALUE = frozenset({b"", b")", b",", b"AS", b"FROM", b"WHERE", b"LIMIT", b"UNION"})


@dataclass(frozen=True, slots=True)
class Use:
    """What one statement leaves on its connection and needs there.

    * ``binds``, ``needs``, ``frees``: kinds of things other than variables.
    * ``own``: a SET takes a value that each connection has of its own; ``of_last``: of its last statement.
    * ``reads``: user variables whose values it takes from statements before it; ``sets``: those it assigns.
      Names are in lower case without ``@``. ``others``: a SET assigns something else, too.
    """

    binds: frozenset[str]
    needs: frozenset[str]
    frees: frozenset[str]
    reads: frozenset[bytes]
    sets: frozenset[bytes]
    others: bool = False
    own: bool = False
    of_last: bool = False


def use_of(sql: bytes) -> Use:
    """Read what a statement leaves and needs.

    :raises SqlSyntaxError: the text cannot be read.
    """
    words, _ = significant(sql)
    names = {token.upper for token in words if token.kind in (Kind.WORD, Kind.QUOTED)}
    first = words[0].upper if words else b""
    binds = {kind for word, kind in _BINDS.items() if word in names}
    needs = {kind for word, kind in _NEEDS.items() if word in names}
    frees = {"lock"} if b"RELEASE_ALL_LOCKS" in names else set[str]()
    if first == b"LOCK":
        binds.add("table lock")
    elif first == b"UNLOCK":
        needs.add("table lock")
        frees.add("table lock")
    reads, sets = _variables(words, first)
    own, of_last = _own_values(words) if first == b"SET" else (False, False)
    return Use(
        frozenset(binds),
        frozenset(needs),
        frozenset(frees),
        frozenset(reads),
        frozenset(sets),
        first == b"SET" and _sets_others(words),
        own,
        of_last,
    )


def _own_values(words: list[Token]) -> tuple[bool, bool]:
    """Whether a text takes values that each connection has of its own, and whether of its last statement."""
    own = of_last = False
    for at, token in enumerate(words):
        behind = words[at + 1].text if at + 1 < len(words) else b""
        if token.kind in (Kind.WORD, Kind.QUOTED) and behind == b"(":
            called = token.name().upper()
            own |= called in _OWN_CALLS
            of_last |= called in _CALLS_OF_LAST
        elif token.kind is Kind.VARIABLE and token.text.startswith(b"@@") and behind not in {b"=", b":="}:
            name = token.text[2:].replace(b"`", b"").lower().rpartition(b".")[2]
            of_last |= name in _VARIABLES_OF_LAST
    return own or of_last, of_last


def _sets_others(words: list[Token]) -> bool:
    depth = 0
    begins = True
    for token in words[1:]:
        if begins and (token.kind is not Kind.VARIABLE or token.text.startswith(b"@@")):
            return True
        depth += {b"(": 1, b")": -1}.get(token.text, 0) if token.kind is Kind.OP else 0
        begins = token.text == b"," and depth == 0
    return False


def _variables(words: list[Token], first: bytes) -> tuple[set[bytes], set[bytes]]:
    reads: set[bytes] = set()
    sets: set[bytes] = set()
    grounded: set[bytes] = set()
    into = False
    behind_set = first != b"LOAD"

    def text(at: int) -> bytes:
        return words[at].upper if 0 <= at < len(words) else b""

    for at, token in enumerate(words):
        if token.kind is not Kind.VARIABLE:
            into = token.upper == b"INTO" or (into and token.text == b",")
            behind_set = behind_set or token.upper == b"SET"
            continue
        if token.text.startswith(b"@@"):
            continue
        name = token.text[1:].strip(b"`'\"").lower()
        begins = first == b"SET" and text(at - 1) in {b"SET", b","} and text(at + 1) in {b"=", b":="}
        if into or begins:
            sets.add(name)
        elif not behind_set:  # LOAD DATA … (column, @variable): filled by each line
            sets.add(name)
            grounded.add(name)
        elif text(at + 1) == b":=":
            sets.add(name)
            constant = at + 2 < len(words) and words[at + 2].kind in LITERALS | {Kind.PARAM}
            if (constant or text(at + 2) == b"NULL") and text(at + 3) in _ENDS_VALUE:
                grounded.add(name)
        else:
            reads.add(name)
            if first in {b"CALL", b"BEGIN"}:
                sets.add(name)
    return reads - grounded, sets


class Bonds:
    """What one session has left where.

    * ``link``: where ``kinds`` of things are; None while there are none.
    * ``variables``: where the user variables are that no SET has given.
    """

    __slots__ = ("kinds", "link", "variables")

    def __init__(self) -> None:
        self.link: Link | None = None
        self.kinds: set[str] = set()
        self.variables: dict[bytes, Link] = {}

    def on(self, link: Link) -> bool:
        """Whether anything is left on the link."""
        return link is self.link or any(link is known for known in self.variables.values())

    def take(self, use: Use, link: Link) -> None:
        """A statement is about to be sent on the link.

        :raises UnavailableError: what it needs is on another.
        """
        elsewhere = self.link is not None and self.link is not link
        bound = elsewhere and (use.binds or use.needs & self.kinds)
        if bound or any(self.variables.get(name, link) is not link for name in use.reads):
            raise UnavailableError(
                "this session keeps state (variables, temporary tables, locks) on another server than the "
                "one this statement goes to; connect anew"
            )
        if use.binds:
            self.link = link
            self.kinds |= use.binds
        for name in use.sets:
            self.variables[name] = link

    def free(self, use: Use) -> None:
        """A statement has succeeded that may have given things up."""
        self.kinds -= use.frees
        if not self.kinds:
            self.link = None

    def home(self, use: Use) -> Link | None:
        """The link that has variables which the statement reads; None where any link does."""
        return next((self.variables[name] for name in use.reads if name in self.variables), None)

    def given(self, use: Use) -> None:
        """A SET has assigned variables that will be repeated on every link."""
        for name in use.sets:
            self.variables.pop(name, None)

    def clear(self) -> None:
        """The session has no links any more."""
        self.link = None
        self.kinds.clear()
        self.variables.clear()
