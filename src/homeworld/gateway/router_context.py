"""What the router's parts hand to each other about one statement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from homeworld.gateway.plan import Destination, Footprint, Pass, Plan, SessionView, Verb
from homeworld.gateway.router_bulk import BulkInsert, BulkPass
from homeworld.gateway.router_names import Aim, Edit, Found, Names
from homeworld.gateway.sql_tables import Scan
from homeworld.gateway.sql_tokens import Kind
from homeworld.model.routing import KeyspaceRoute, ShardRoute

_QUERIES = frozenset({b"SELECT", b"TABLE", b"WITH", b"RETURNING", b":="})

Template = Callable[[bytes, SessionView], Plan]
"""Plans any text of the fingerprint it was made from. May raise what the router turns into plans."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A template and how far it reaches.

    :param shape: it is for every text of the same fingerprint; otherwise for this text only.
    :param fixed: it gives the same Pass whatever literals and session, but for the text.
    :param bulk: makes what plans the same INSERT with any number of rows, where it can be had.
    :param prepare: where to prepare the statement, where that is not what the template says.
    """

    template: Template
    shape: bool = True
    fixed: bool = False
    prepare: Pass | None = None
    bulk: Callable[[], BulkInsert] | None = None

    def of_many(self, sample: bytes, view: SessionView) -> BulkInsert | BulkPass | None:
        """What plans the same INSERT with any number of rows; None: nothing does.

        :param sample: the text with one row, of which this was made.
        """
        if self.bulk is not None:
            return self.bulk()
        plan = self.template(sample, view) if self.fixed else None
        if isinstance(plan, Pass) and plan.sql == sample:
            return BulkPass(plan.destination, plan.footprint)
        return None


@dataclass(frozen=True, slots=True)
class Context:
    """One statement being planned for the first time."""

    names: Names
    aim: Aim
    sql: bytes
    scan: Scan
    view: SessionView

    def footprint(self, found: Iterable[Found], keyspace: str) -> Footprint:
        """What the statement touches; a function that is not built in may touch all of ``keyspace``."""
        if self.scan.verb is Verb.CALL:  # what it names as an argument is not what the procedure touches
            return Footprint(Verb.CALL, keeps_state=self.scan.keeps_state, queries=self.queries)
        tables = self.names.beneath(found)
        if self.scan.unknown_functions and tables:
            tables |= self.names.all_tables(keyspace)
        return Footprint(self.scan.verb, tables, self.scan.locking_read, self.scan.keeps_state, self.queries)

    @property
    def queries(self) -> bool:
        """See :class:`~homeworld.gateway.plan.Footprint`. Says yes to what is hard to tell."""
        scan = self.scan
        if scan.verb is Verb.SELECT:
            return False
        # SHOW CREATE TABLE and LOAD DATA … INTO TABLE are no queries.
        plain = scan.verb in {Verb.SHOW, Verb.LOAD}
        return scan.word(0) == b"CHECKSUM" or any(
            token.upper in _QUERIES
            and token.kind in (Kind.WORD, Kind.OP)
            and not (plain and token.upper == b"TABLE" and scan.word(at - 1) != b"(")
            for at, token in enumerate(scan.words)
        )

    def first(self, keyspace: KeyspaceRoute) -> tuple[Destination, ShardRoute]:
        """The shard to ask where any will do: the session's own, or the first."""
        target = self.aim.target
        shard = self.names.shard(keyspace, target.shard if target.keyspace == keyspace.name else "")
        return self.aim.at(keyspace.name, shard.name), shard


def fixed(plan: Plan) -> Compiled:
    """The same answer for every text of the fingerprint."""
    return Compiled(lambda _sql, _view: plan)


def passing(destination: Destination, footprint: Footprint) -> Compiled:
    """Hand the text through as it is."""

    def template(sql: bytes, _view: SessionView) -> Plan:
        return Pass(destination, sql, footprint)

    return Compiled(template, fixed=True)


def passing_edited(
    context: Context, destination: Destination, footprint: Footprint, edits: Sequence[Edit]
) -> Compiled:
    """Hand the text through with changes that lie outside of literals."""
    if not edits:
        return passing(destination, footprint)
    plan = Pass(destination, apply(context.sql, edits), footprint)
    return Compiled(lambda _sql, _view: plan, shape=False, fixed=True)


def apply(sql: bytes, edits: Iterable[Edit]) -> bytes:
    """The text with the edits made."""
    parts: list[bytes] = []
    at = 0
    for start, end, text in sorted(edits):
        parts += (sql[at:start], text)
        at = end
    parts.append(sql[at:])
    return b"".join(parts)
