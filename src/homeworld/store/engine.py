"""Connections to SQLite and PostgreSQL that behave alike.

Invariants: one writer at a time on both (SQLite's own lock by BEGIN IMMEDIATE, an advisory lock on
PostgreSQL), so that counters and the outbox grow in commit order and no two writers deadlock; a reader sees
one snapshot; what is committed survives a crash of the machine. Knows no table.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from homeworld.model.errors import ConflictError, UnavailableError

LOCK_SECONDS = 10
# How long a PostgreSQL server may be silent beyond that.
ANSWER_SECONDS = 5
# Less than others wait for the lock, so that they get it; a transaction's own thinking takes milliseconds.
IDLE_SECONDS = 5
_BETWEEN_ATTEMPTS = 0.01
# Any constant will do as long as nothing else in the same PostgreSQL database locks the same number.
WRITER_LOCK = 0x486F6D65
_IDLE_IN_TRANSACTION = "25P03"
_READ_ONLY = "25006"


class SystemClock:
    """The machine's clock, as model.ports.Clock."""

    def now(self) -> datetime:
        """The current UTC time, aware."""
        return datetime.now(UTC)


def open_engine(url: str) -> Engine:
    """An engine for ``sqlite:///path`` or ``postgresql://user:password@host/name``.

    :raises ValueError: another kind of database, or SQLite in memory.
    """
    parsed = make_url(url)
    kind = parsed.get_backend_name()
    if kind == "postgresql":
        engine = create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_size=20,
            max_overflow=20,
            pool_pre_ping=True,
            connect_args={"connect_timeout": LOCK_SECONDS},
        )
        event.listen(engine, "before_cursor_execute", _without_nul, retval=True)
        event.listen(engine, "do_connect", _connect_patiently)
        event.listen(engine, "handle_error", _leave_what_cannot_write)
        return engine
    if kind != "sqlite" or parsed.database in {None, "", ":memory:"}:
        raise ValueError("the control plane is kept in an SQLite file or in PostgreSQL")
    engine = create_engine(parsed, pool_size=20, max_overflow=20, connect_args={"timeout": LOCK_SECONDS})
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    event.listen(engine, "before_cursor_execute", _without_nul, retval=True)
    return engine


def _without_nul(
    _connection: object, _cursor: object, statement: str, parameters: Any, _context: object, _many: object
) -> tuple[str, Any]:
    """Texts with NUL by its picture: what is told of a row's key may have one, and PostgreSQL takes none."""
    return statement, _shown(parameters)


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\N{SYMBOL FOR NULL}") if "\0" in value else value
    if isinstance(value, dict):
        return {name: _shown(each) for name, each in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list | tuple):
        return type(value)(map(_shown, value))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return value


def _leave_what_cannot_write(context: ExceptionContext) -> None:
    """A server that takes no writes is not the one to write to any more (it was demoted, or its disk is
    full): its connections are given up, and it counts as one that does not answer.
    """
    if getattr(context.original_exception, "sqlstate", None) != _READ_ONLY or context.connection is None:
        return
    if context.connection.get_execution_options().get("homeworld_writes"):
        context.is_disconnect = True


def _connect_patiently(_dialect: object, _record: object, args: list[Any], options: dict[str, Any]) -> Any:
    from homeworld.store.patience import Patient  # with SQLite nobody reads this driver

    return Patient.connect(*args, **options)


def _configure_sqlite(connection: Any, _record: object) -> None:
    # The driver must not begin transactions by itself: _begin_sqlite does, and chooses the kind.
    connection.isolation_level = None
    cursor = connection.cursor()
    _keep_a_write_ahead_log(cursor)
    # FULL: a stored commit point must survive a power cut, for the servers' own commits do.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA busy_timeout={LOCK_SECONDS * 1000}")
    cursor.close()


def _keep_a_write_ahead_log(cursor: sqlite3.Cursor) -> None:
    # Several that open a new file at once may each be refused the change, and SQLite does not wait here as
    # it does elsewhere (two that waited for each other would wait for ever). Once made, the change stays.
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                raise
            time.sleep(_BETWEEN_ATTEMPTS)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("homeworld_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def reading(engine: Engine) -> Generator[Connection]:
    """One read transaction: every statement sees the same snapshot.

    :raises UnavailableError: the database does not answer.
    """
    with _translated(), engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with connection.begin():
            yield connection


@contextmanager
def writing(engine: Engine) -> Generator[Connection]:
    """One write transaction; the only one in all processes until it ends. Commits unless the body raises.

    :raises UnavailableError: the database does not answer, the lock was not had within LOCK_SECONDS, or (on
        PostgreSQL) the body paused for IDLE_SECONDS. Where the answer to COMMIT was lost it is unknown
        whether it took place: read the state again.
    :raises ConflictError: a constraint refused.
    """
    with _translated(), engine.connect() as connection:
        connection.execution_options(homeworld_writes=True)
        with connection.begin():
            if engine.dialect.name == "postgresql":
                _set_deadlines(connection)
                connection.execute(text(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})"))
            yield connection


@contextmanager
def touching(engine: Engine) -> Generator[Connection]:
    """A write transaction that does not wait for other writers, for one statement on one row of which nothing
    depends in which order it is written among others'. On SQLite it is one as any other.

    :raises UnavailableError: the database does not answer.
    """
    with _translated(), engine.connect() as connection:
        connection.execution_options(homeworld_writes=True)
        with connection.begin():
            if engine.dialect.name == "postgresql":
                _set_deadlines(connection)
            yield connection


def _set_deadlines(connection: Connection) -> None:
    # A process that is stopped, or whose machine is cut off, in the middle of its transaction would keep the
    # one writer's lock from everybody for as long as its connection lives: the server ends it.
    connection.execute(
        text(
            f"SELECT set_config('lock_timeout', '{LOCK_SECONDS}s', true),"
            f" set_config('idle_in_transaction_session_timeout', '{IDLE_SECONDS}s', true)"
        )
    )


@contextmanager
def _translated() -> Generator[None]:
    try:
        yield
    except IntegrityError as error:
        raise ConflictError(f"a rule of the control plane's database refused: {error.orig}") from error
    except (DBAPIError, PoolTimeoutError) as error:
        if isinstance(error, DBAPIError) and not _is_outage(error):
            raise
        raise UnavailableError("the control plane's database does not answer") from error


def _is_outage(error: DBAPIError) -> bool:
    if isinstance(error.orig, sqlite3.Error):
        # The driver also calls a mistake in the SQL an operational error; that one is a bug, not an outage.
        name = getattr(error.orig, "sqlite_errorname", "")
        return name.startswith(
            ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_FULL")
        )
    # The driver calls the end of an idle transaction an internal error; the connection is gone as with any.
    return (
        isinstance(error, (OperationalError, InterfaceError))
        or error.connection_invalidated
        or (getattr(error.orig, "sqlstate", None) == _IDLE_IN_TRANSACTION)
    )
