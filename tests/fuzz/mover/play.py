"""Plays a case on servers and says how it ended: the rows are equal, or it was refused before it began.

Anything else is a :class:`Failure`: rows differ, the verifier does not agree with the comparison of all
bytes, the mover ended, or did not come to its end. The comparison reads every row and uses nothing of the
verifier.
"""

from __future__ import annotations

import contextlib
import faulthandler
import random
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import pymysql

from homeworld.engines.accounts import user_of
from homeworld.model.errors import DeadlineExceededError, FencedError, HomeworldError, UnavailableError
from homeworld.model.movers import MoverSpec, Phase, Verification
from homeworld.model.names import new_id, quote
from homeworld.model.topology import BackendRole, ShardPlace
from homeworld.replication import reading
from homeworld.replication.mover import RunningMover
from tests.fuzz.mover.case import Act, Case, unsharded
from tests.fuzz.mover.design import TableDesign
from tests.fuzz.mover.writes import Transaction
from tests.support.judging import reasons
from tests.support.moves import Move, make_move
from tests.support.mysqld import TestServer

PATIENCE = 90.0  # only ends what would never end: others may be at work on the machine
_ASKED = (
    "SHOW FULL PROCESSLIST",
    "SELECT 'transaction', trx_mysql_thread_id, trx_state, trx_started, trx_rows_locked, trx_query "
    "FROM information_schema.INNODB_TRX",
)
_LOST = frozenset({2003, 2006, 2013, 1053})
_SEVERAL = "several source shards have rows with the same key"
# Vindexes that have no place for some values; which those are is found out by the row that has one.
_UNPLACEABLE = (
    "has no keyspace id for",
    "unicode_loose",
    "has no known collation weight",
    "the collation weight of",
)


class Failure(AssertionError):  # noqa: N818 - what a case ends in
    """The case shows a fault."""


@dataclass(frozen=True, slots=True)
class Played:
    """How it ended. ``refused``: why it was no case; ``rows``: how many were compared."""

    refused: str = ""
    tables: int = 0
    rows: int = 0
    changes: int = 0
    restarts: int = 0


class Clients:
    """One session on each shard."""

    def __init__(self, move: Move, places: Sequence[ShardPlace], settings: Sequence[str]) -> None:
        self.done = 0
        self._connections = [move.server_of(place).connect(schema=place.schema) for place in places]
        for connection in self._connections:
            with connection.cursor() as cursor:
                for setting in settings:
                    cursor.execute(setting)

    def run(self, transaction: Transaction) -> None:
        """Run it; a statement that the server refuses has done nothing."""
        connection = self._connections[transaction.shard]
        connection.begin()
        with connection.cursor() as cursor:
            for statement in transaction.statements:
                try:
                    self.done += cursor.execute(statement)
                except pymysql.err.Error as error:
                    if error.args[0] in _LOST:
                        raise
        if transaction.commit:
            connection.commit()
        else:
            connection.rollback()

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


class Runner:
    """A mover that is started again whenever it ended by an outage, with a newer epoch each time."""

    def __init__(self, move: Move, spec: MoverSpec, case: Case) -> None:
        self.spec = spec
        self.restarts = -1
        self._move = move
        self._case = case
        self._mover: RunningMover | None = None
        self._deadline = time.monotonic() + PATIENCE

    @property
    def mover(self) -> RunningMover:
        assert self._mover is not None
        return self._mover

    def start(self) -> None:
        """Start, and again while servers that lost their connections just now are not ready for it."""
        while True:
            self.restarts += 1
            self._mover = RunningMover(
                replace(self.spec, epoch=self.spec.epoch + self.restarts), chunk_bytes=self._case.chunk_bytes
            )
            try:
                self._mover.start()
            except UnavailableError:
                self._in_time("it does not start")
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        if self._mover is not None:
            try:
                self._mover.stop(PATIENCE)
            except DeadlineExceededError as error:
                raise self._failure(str(error)) from error

    def restart(self) -> None:
        self.stop()
        self.start()

    def kill(self) -> None:
        """End the sessions of movers on every server, as a cut cable would."""
        for server in dict.fromkeys(self._move.servers):
            with server.connect() as connection, connection.cursor() as cursor:
                cursor.execute(
                    "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = %s",
                    (user_of(BackendRole.MOVER),),
                )
                for (number,) in cursor.fetchall():
                    with contextlib.suppress(pymysql.err.Error):  # it has ended by itself
                        cursor.execute(f"KILL {number}")

    def look(self) -> bool:
        """Start it again where it has failed for a while; whether it is copied.

        :raises Failure: it has ended for another reason.
        """
        progress = self.mover.progress()
        if progress.phase is Phase.FAILED and progress.retryable and not _is_fault(progress.error):
            self._in_time(f"it fails over and over: {progress.error}")
            self.restart()
            return False
        if progress.phase in {Phase.FAILED, Phase.DDL, Phase.STOPPED}:
            raise Failure(f"the mover ended: {progress.phase}: {progress.error or progress.ddl}")
        return progress.copied

    def copied(self) -> None:
        while not self.look():
            self._in_time("the copy does not end")
            time.sleep(0.01)

    def drain(self, places: Sequence[ShardPlace]) -> None:
        positions = self._move.positions(places)
        while True:
            self.look()
            try:
                self.mover.drain(positions, 5.0)
            except (DeadlineExceededError, UnavailableError, FencedError) as error:
                self._in_time(f"it does not come to the end of the log: {error}")
            else:
                return

    def verified(self) -> Verification:
        for attempt in range(20):
            self.look()
            try:
                self.mover.verify(f"v{attempt}")
            except UnavailableError:
                time.sleep(0.05)
                continue
            while True:
                told = self.mover.progress().verification
                if (
                    told is not None
                    and told.verify_id == f"v{attempt}"
                    and told.state in {"completed", "error"}
                ):
                    break
                self._in_time("the verification does not end")
                self.look()
                time.sleep(0.01)
            if told.state == "completed":
                return told
        raise Failure(f"nothing was compared: {self.mover.progress().verification}")

    def _in_time(self, what: str) -> None:
        if time.monotonic() > self._deadline:
            raise self._failure(what)

    def _failure(self, what: str) -> Failure:
        return Failure("\n".join((f"{what}: {self.mover.progress()}", *_threads(), *_sessions(self._move))))


def _threads() -> list[str]:
    """Where every thread is."""
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return [f"  {line}" for line in file.read().decode().splitlines()]


def _sessions(move: Move) -> Iterator[str]:
    """What the servers do, and which transactions are open."""
    for server in dict.fromkeys(move.servers):
        yield f"  server {server.port}:"
        try:
            for asked in _ASKED:
                for row in server.query(asked):
                    yield f"    {row}"
        except pymysql.err.Error as error:  # perhaps it is what does not answer
            yield f"    {error}"


def _is_fault(error: str) -> bool:
    """Whether it is an exception of Python's, which no retry mends."""
    kind = error.partition(":")[0]
    return (
        kind.endswith("Error") and kind not in {"ConnectionLostError", "ServerError"} and kind.isidentifier()
    )


class Ground:
    """Schemas on servers, made once for each shape of a move; a case leaves no table in them."""

    def __init__(self, servers: Sequence[TestServer]) -> None:
        self._servers = servers
        self._moves: dict[tuple[str, str], Move] = {}

    @contextlib.contextmanager
    def move(self, sources: str, targets: str) -> Generator[Move]:
        """A move of a workflow that nobody else is."""
        shape = (sources, targets)
        if shape not in self._moves:
            self._moves[shape] = make_move(self._servers, sources, targets)
        made = self._moves[shape]
        try:
            yield replace(made, workflow_id=new_id(), placements=())
        finally:
            for place in (*made.sources, *made.targets):
                self._clear(made.server_of(place), place.schema)

    def _clear(self, server: TestServer, schema: str) -> None:
        with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
            find = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s"
            cursor.execute(find, (schema,))
            if names := [quote(schema, name) for (name,) in cursor.fetchall()]:
                cursor.execute(f"DROP TABLE {', '.join(names)}")


def play(case: Case, ground: Ground) -> Played:
    """Play it.

    :raises Failure: it shows a fault.
    """
    reading.EVENTS_A_BATCH = case.events_a_batch
    with ground.move(case.sources, case.targets) as move:
        tables, refused = _create(move, case)
        if not tables:
            return Played(refused or "the server takes none of the tables")
        with contextlib.closing(Clients(move, move.sources, case.settings)) as clients:
            for transaction in case.before:
                clients.run(transaction)
            move.prepare(*(table.placement for table in tables))
            return _move(move, case, clients, tables)


def _create(move: Move, case: Case) -> tuple[list[TableDesign], str]:
    """The tables that the server takes and the preconditions do not refuse; and why they refused others."""
    made: list[TableDesign] = []
    refused: list[str] = []
    for table in case.tables:
        try:
            move.create(*case.settings, *table.settings, table.create)
        except pymysql.err.Error:
            continue
        told = reasons(move, [table.placement])
        refused += told
        if not told:
            made.append(table)
    return made, "; ".join(refused)


def _move(move: Move, case: Case, clients: Clients, tables: Sequence[TableDesign]) -> Played:
    runner = Runner(move, move.spec(copy_threads=case.copy_threads), case)
    try:
        runner.start()
        for step in case.steps:
            if isinstance(step, Transaction):
                clients.run(step)
            elif step is Act.RESTART:
                runner.restart()
            elif step is Act.KILL:
                runner.kill()
            elif step is Act.DRAIN:
                runner.drain(move.sources)
            else:
                runner.copied()
        runner.copied()
        runner.drain(move.sources)
        _compare(move, runner)
        if case.spoil:
            _spoil(move, runner, random.Random(case.seed), tables)
    except Failure as failure:
        if any(text in str(failure) for text in _UNPLACEABLE):
            return Played(f"a row cannot be placed: {failure}")
        raise
    except HomeworldError as error:
        raise Failure(f"{type(error).__name__}: {error}") from error
    finally:
        runner.stop()
    restarts = runner.restarts
    if case.back and not case.spoil:
        restarts += _back(move, case)
    rows = sum(
        move.source.query(f"SELECT COUNT(*) FROM {quote(move.schema, table.name)}")[0][0] for table in tables
    )
    return Played("", len(tables), int(rows), clients.done, restarts)


def _compare(move: Move, runner: Runner) -> None:
    try:
        move.assert_equal()
    except AssertionError as error:
        found = runner.verified()
        raise Failure(f"rows differ (the verifier says {found.equal}): {error}") from error
    found = runner.verified()
    if not found.equal:
        raise Failure(f"the verifier finds differences where there are none: {found}")


def _spoil(move: Move, runner: Runner, numbers: random.Random, tables: Sequence[TableDesign]) -> None:
    """Change a row on a target: the verifier has to find it wherever the comparison of bytes does."""
    place = numbers.choice(move.targets)
    table = numbers.choice(list(tables))
    column = numbers.choice(table.settable())
    with move.server_of(place).connect(schema=place.schema) as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_mode='ALLOW_INVALID_DATES'")
        try:
            cursor.execute(
                f"UPDATE {quote(table.name)} SET {quote(column.name)} = {column.kind.value(numbers)} LIMIT 1"
            )
        except pymysql.err.Error:
            return
    try:
        move.assert_equal()
    except AssertionError as error:
        if runner.verified().equal:
            raise Failure(f"the verifier finds no difference where there is one: {error}") from error
    else:
        found = runner.verified()
        if not found.equal:
            raise Failure(f"the verifier finds differences where there are none: {found}")


def _back(move: Move, case: Case) -> int:
    """The way back: changes on the targets arrive on the source. How often it was restarted."""
    placements = [
        placement for placement in unsharded(case) if placement.table in {p.table for p in move.placements}
    ]
    spec = move.reverse_spec(placements, 1)
    runner = Runner(move, spec, case)
    try:
        runner.start()
        with contextlib.closing(Clients(move, move.targets, case.settings)) as clients:
            for at, transaction in enumerate(case.back):
                clients.run(replace(transaction, shard=at % len(move.targets)))
                if at % 3 == 2:
                    runner.restart()
        runner.drain(move.targets)
        _compare(move, runner)
    except Failure as failure:
        # Keys that are one for a collation may lie on several shards, and come to meet only on the way back.
        if _SEVERAL in str(failure) and any(_by_text(table) for table in case.tables):
            return runner.restarts
        raise
    except HomeworldError as error:
        raise Failure(f"on the way back: {type(error).__name__}: {error}") from error
    finally:
        runner.stop()
    return runner.restarts


def _by_text(table: TableDesign) -> bool:
    placed = table.placement.vindex_columns
    return any(c.name in placed and "CHAR" in c.kind.declared for c in table.columns)
