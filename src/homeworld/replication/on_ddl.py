"""What becomes of a stream when the source's schema changes under it.

The four published answers: IGNORE goes on without the statement, STOP stops in front of it until the target's
tables fit (a stream that comes back to a statement it stopped at goes on once they do), EXEC runs it on every
target and stops where that fails, EXEC_IGNORE runs it and goes on all the same. It is called while nothing of
the tables is under way and knows no feed.

Invariants: whatever the answer, no row change that comes after the statement is applied unless each source
column has a column of the same shape on every target; and with STOP and EXEC none is applied to rows that the
statement changed on the source unseen (see :mod:`homeworld.replication.row_effects` and
:mod:`homeworld.replication.fresh_values`) and not in the same way on the target.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from homeworld.model.errors import HomeworldError, NotFoundError, ServerError
from homeworld.model.movers import OnDdl
from homeworld.model.names import quote
from homeworld.model.tables import Table
from homeworld.model.topology import ShardPlace
from homeworld.replication import sidecar
from homeworld.replication.changes import DdlEvent, TableName
from homeworld.replication.ddl import layout_differences, split_create, without_counter
from homeworld.replication.fresh_values import fresh_values
from homeworld.replication.log_statements import classify
from homeworld.replication.moving import MovingTable
from homeworld.replication.row_effects import RowEffect, Rows, row_effect
from homeworld.replication.sidecar import StreamId
from homeworld.replication.tables import definition_session, is_empty, read_table

_CARRIED = re.compile(
    r"\s*(?:ALTER|TRUNCATE|(?:CREATE|DROP)\s+(?:UNIQUE\s+|FULLTEXT\s+|SPATIAL\s+)?INDEX)\b", re.IGNORECASE
)
_STRINGS = r"'(?:[^'\\]|''|\\.)*'|\"(?:[^\"\\]|\"\"|\\.)*\"|/\*.*?\*/"


_CARRYING = frozenset({OnDdl.EXEC, OnDdl.EXEC_IGNORE})


class DdlStopError(HomeworldError):
    """The source's schema changed; the stream stands in front of the statement."""

    code = "ddl"
    retryable = True

    def __init__(self, message: str, *, final: bool = False, emptied: Sequence[str] = ()) -> None:
        """:param final: no later mover may go on from here: the statement changed rows in a way that nobody
            can tell from the log, so only copying them anew gives the same.
        :param emptied: the tables that have to be empty on the targets before a mover goes on.
        """
        super().__init__(message)
        self.final = final
        self.emptied = tuple(emptied)


class OnDdlRule:
    """The answer of one mover for one source server.

    :param several_sources: rows of other sources live in the same target tables.
    """

    def __init__(self, answer: OnDdl, epoch: int, *, several_sources: bool) -> None:
        self.answer = answer
        self._epoch = epoch
        self._several = several_sources
        #: How many statements this mover went on behind; what was compared before them says nothing any more.
        self.passed = 0
        #: Where the streams had stopped before, as the sidecar says.
        self.stopped_before: frozenset[str] = frozenset()

    def pass_over(self, ddl: DdlEvent, tables: Sequence[MovingTable]) -> Mapping[TableName, Table]:
        """Deal with the statement; the tables as they are on the source from here on.

        :raises DdlStopError: the stream has to stop in front of the statement.
        """
        effect = row_effect(ddl.sql)
        lost = self._lost(effect, tables) or self._fresh(ddl, tables)
        if lost and self.answer in {OnDdl.STOP, OnDdl.EXEC}:
            raise DdlStopError(_message(ddl, (lost,)), final=True)
        carried = self.answer in _CARRYING and not lost and self._carry(ddl, tables, effect)
        found = {table.name: self._after(table, carried=carried) for table in tables}
        differences = self._differences(tables, found)
        emptied: list[str] = []
        if self.answer is OnDdl.STOP and effect.rows is Rows.EMPTIED:
            # Where the target's are empty now, both sides are as the source was behind the statement.
            emptied = [table.table.name for table in tables]
            differences = differences or _filled(tables)
        if differences or (self.answer is OnDdl.STOP and self._first_time(ddl)):
            raise DdlStopError(_message(ddl, differences), emptied=emptied)
        self.passed += 1
        return {table.name: found[table.name] or table.table for table in tables}

    def _first_time(self, ddl: DdlEvent) -> bool:
        return ddl.position_before not in self.stopped_before

    def _lost(self, effect: RowEffect, tables: Sequence[MovingTable]) -> str:
        """Why nothing that is done to the targets' tables is known to give them the rows that the source's
        have behind the statement; empty: something is.
        """
        if effect.rows is Rows.EXCHANGED:
            return "it takes, brings or exchanges rows without a word in the log"
        if effect.rows is not Rows.KEPT and self._several:
            return "it takes rows without a word in the log, and the target's table has rows of other shards"
        if effect.rows is Rows.CUT and self.answer not in _CARRYING:
            return "it takes the rows of partitions without a word in the log"
        if effect.gone and (self._several or self.answer not in _CARRYING):
            for table in tables:
                now = _read(table.source, table.table.name)
                again = sorted(effect.gone.intersection(_names(now))) if now is not None else []
                if again:
                    return f"the values of column {again[0]!r} were exchanged without a word in the log"
        return ""

    def _fresh(self, ddl: DdlEvent, tables: Sequence[MovingTable]) -> str:
        """Why rows would have other values where the statement is run once more; empty: they would not.

        Where going on behind whatever happens was asked for, it is run all the same, for its columns' sake.
        """
        if self.answer not in {OnDdl.STOP, OnDdl.EXEC}:
            return ""
        explicit = ddl.explicit_timestamps and all(
            _explicit_timestamps(place) for table in tables[:1] for place in table.targets
        )
        told = (
            fresh_values(
                ddl.sql,
                table.table,
                _read(table.source, table.table.name),
                explicit_timestamps=explicit,
            )
            for table in tables
            if self._several or not table.map.untouched  # else no row is there whose values could differ
        )
        return next(filter(None, told), "")

    def _after(self, table: MovingTable, *, carried: bool) -> Table | None:
        """The source's table behind the statement; None where it is gone.

        What the source has now may be newer than the statement. Where the statement was carried over and the
        columns are not those of now, the target's table is what the source's was then.
        """
        now = _read(table.source, table.table.name)
        if not carried:
            return now
        there = _read(table.targets[0], table.table.name)
        if there is None or (now is not None and _names(now) == _names(there)):
            return now
        return there

    def _differences(
        self, tables: Iterable[MovingTable], found: Mapping[TableName, Table | None]
    ) -> tuple[str, ...]:
        told: list[str] = []
        for table in tables:
            source = found[table.name]
            if source is None:
                if self.answer is not OnDdl.IGNORE:
                    told.append(f"table {table.table.name!r} is gone from the source")
                elif not table.map.complete:
                    told.append(
                        f"table {table.table.name!r} is gone from the source, with rows not copied yet"
                    )
                continue
            for place in table.targets:
                target = _read(place, table.table.name)
                if target is None:
                    told.append(f"table {table.table.name!r} is gone from target shard {place.shard}")
                else:
                    ours, theirs = (f"{at.keyspace}/{at.shard}" for at in (table.source, place))
                    told += layout_differences(source, target, ours, theirs)
        return tuple(told)

    def _carry(self, ddl: DdlEvent, tables: Sequence[MovingTable], effect: RowEffect) -> bool:
        """Run the statement on each target. Whether it is known to be in force there."""
        statement = classify(ddl.sql)
        if len(statement.names) != 1 or not _CARRIED.match(ddl.sql):
            if self.answer is OnDdl.EXEC_IGNORE or not self._first_time(ddl):
                return False
            raise DdlStopError(_message(ddl, ("it cannot be carried over safely",)))
        (table,) = tables
        if self._several:
            # Each source brings the statement once; the first to come has changed the target already.
            source = _read(table.source, table.table.name)
            if source is not None and not self._differences([table], {table.name: source}):
                return True
        done = [
            self._carry_to(ddl, table, place, stream, effect)
            for place, stream in zip(table.targets, table.streams, strict=True)
        ]
        return all(done)

    def _carry_to(
        self, ddl: DdlEvent, table: MovingTable, place: ShardPlace, stream: StreamId, effect: RowEffect
    ) -> bool:
        with definition_session(place.endpoint) as connection:
            sidecar.check_epoch(connection, stream, self._epoch)
            there = read_table(connection, place.schema, table.table.name)
            now = without_counter(there.create_sql)
            before = sidecar.ddl_begun(connection, stream, ddl.position_before)
            if before is not None and before != now:
                return True  # it was run, and then the mover died
            if before is None and effect.rows is Rows.CUT and _partitions(there) != _partitions(table.table):
                if self.answer is OnDdl.EXEC_IGNORE:
                    return False
                told = f"it takes the rows of partitions, and target shard {place.shard} has others"
                raise DdlStopError(_message(ddl, (told,)), final=True)
            if before is None:
                sidecar.begin_ddl(connection, stream, ddl.position_before, now)
            connection.execute(f"USE {quote(place.schema)}")
            try:
                connection.execute(in_target(ddl.sql, table.source.schema, table.table.name, place.schema))
            except ServerError as error:
                if self.answer is OnDdl.EXEC_IGNORE:
                    return False
                raise DdlStopError(_message(ddl, (f"target shard {place.shard} says: {error}",))) from error
        return True


def in_target(sql: str, source_schema: str, table: str, target_schema: str) -> str:
    """The statement with the table's schema, where it is named, exchanged."""
    schema = rf"(?:{re.escape(quote(source_schema))}|(?<![\w$`]){re.escape(source_schema)})"
    behind = rf"(?:{re.escape(quote(table))}|{re.escape(table)}(?![\w$]))"
    pattern = re.compile(rf"{_STRINGS}|(?P<schema>{schema}\s*\.)(?=\s*{behind})", re.DOTALL | re.IGNORECASE)
    return pattern.sub(lambda found: f"{quote(target_schema)}." if found["schema"] else found[0], sql)


def _filled(tables: Iterable[MovingTable]) -> tuple[str, ...]:
    """The targets' tables that have rows, of those that the statement emptied on the source."""
    return tuple(
        f"table {table.table.name!r} has rows on target shard {place.shard}, which has to be empty, too"
        for table in tables
        for place in table.targets
        if not is_empty(place, table.table.name)
    )


def _partitions(table: Table) -> str:
    """How the table is partitioned, as its server says it: on lines of its own, behind all options."""
    return split_create(table.create_sql)[1].partition("\n")[2]


def _read(place: ShardPlace, table: str) -> Table | None:
    with definition_session(place.endpoint) as connection:
        try:
            return read_table(connection, place.schema, table)
        except NotFoundError:
            return None


def _explicit_timestamps(place: ShardPlace) -> bool:
    """Whether a statement that is run there now says itself what TIMESTAMP columns are filled with."""
    with definition_session(place.endpoint) as connection:
        return connection.query_one("SELECT @@explicit_defaults_for_timestamp") == (b"1",)


def _names(table: Table) -> list[str]:
    return [column.name.lower() for column in table.columns]


def _message(ddl: DdlEvent, reasons: Sequence[str]) -> str:
    text = f"the source's schema changed: {ddl.sql.strip()[:500]}"
    return f"{text} — {'; '.join(reasons)}" if reasons else text
