"""The application of the demo: writers and readers which know nothing of the move.

Writers use transactions over both moving tables, half of them with text statements (PyMySQL), half with
prepared ones (mysql-connector); readers read from ``@replica`` and from the primary. Any error is an error of
the system under test: nothing is retried, everything is counted. The longest time one statement took is the
stall that a user would have felt.
"""

from __future__ import annotations

import random
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import mysql.connector
import pymysql

from homeworld.cli.demo.ledger import Ledger

BOOK = (
    "INSERT INTO flights (year, month, day, dep_time, sched_dep_time, dep_delay, arr_time, sched_arr_time,"
    " arr_delay, carrier, flight, tailnum, origin, dest, air_time, distance, hour, minute, time_hour)"
    " VALUES (2013, 12, 31, NULL, 1200, NULL, NULL, 1500, NULL, 'HW', %s, %s, 'JFK', 'SFO', NULL, 2586, 12,"
    " 0, '2013-12-31 17:00:00')"
)
SEAT = "UPDATE planes SET seats = seats + 1 WHERE tailnum = %s"
CANCEL = "DELETE FROM flights WHERE id = %s"
DELAY = "UPDATE flights SET dep_delay = COALESCE(dep_delay, 0) + 1 WHERE id = %s"
FIND = "SELECT id, carrier, flight, tailnum, dep_delay FROM flights WHERE id = %s"
PLANE = "SELECT tailnum, manufacturer, model, seats FROM planes WHERE tailnum = %s"
MANY = "SELECT id, dep_delay FROM flights WHERE id IN (%s, %s, %s)"
PAUSE_SECONDS = 0.02  # an application thinks between its transactions


@dataclass(frozen=True, slots=True)
class Address:
    """How the application reaches the gateway."""

    host: str
    port: int
    ca_file: str
    user: str
    password: str = field(repr=False)


class Meter:
    """What clients felt, between two calls of :meth:`lap`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.statements = 0
        self.errors: list[str] = []
        self._lap: list[float] = []
        self.longest = 0.0

    def felt(self, seconds: float) -> None:
        """One statement took this long."""
        with self._lock:
            self.statements += 1
            self._lap.append(seconds)
            self.longest = max(self.longest, seconds)

    def failed(self, what: str) -> None:
        """A client saw an error."""
        with self._lock:
            self.errors.append(what)

    def lap(self) -> tuple[float, int]:
        """(longest seconds, statements) since the last call."""
        with self._lock:
            lap, self._lap = self._lap, []
        return max(lap, default=0.0), len(lap)


class Client(threading.Thread):
    """One connection of the application, on its own thread, until it is told to stop."""

    def __init__(self, name: str, address: Address, schema: str, meter: Meter, ledger: Ledger) -> None:
        super().__init__(name=name, daemon=True)
        self._address = address
        self._schema = schema
        self._meter = meter
        self._ledger = ledger
        self._halt = threading.Event()
        self._reconnect = threading.Event()
        self._random = random.Random(name)  # noqa: S311 - a workload, not a secret
        self._connection: Any = None  # two drivers, one shape (DB-API)
        self._ids = sorted(ledger.delays_before)
        self._tails = sorted(ledger.seats_before)

    def aim(self, schema: str) -> None:
        """Reconnect with another schema name after the present transaction, as a deploy would."""
        self._schema = schema
        self._reconnect.set()

    def stop(self) -> None:
        """End after the present transaction; the caller joins."""
        self._halt.set()

    def run(self) -> None:
        """Work until stopped. An error is counted, shown, and the connection made anew."""
        while not self._halt.is_set():
            try:
                self._reconnect.clear()  # first: who aims from here on is heard
                self._connection = self.connect(self._schema)
                while not (self._halt.is_set() or self._reconnect.is_set()):
                    self.turn()
                    self._halt.wait(PAUSE_SECONDS * (0.5 + self._random.random()))
            except (pymysql.MySQLError, mysql.connector.Error, AssertionError, OSError) as error:
                self._meter.failed(f"{type(self).__name__}: {type(error).__name__}: {error}")
                self._halt.wait(0.2)
            finally:
                connection, self._connection = self._connection, None
                if connection is not None:
                    connection.close()

    @abstractmethod
    def connect(self, schema: str) -> Any:
        """A connection of this client's driver."""

    @abstractmethod
    def turn(self) -> None:
        """One piece of the application's work."""

    def statement(self, cursor: Any, sql: str, values: Sequence[object] = ()) -> None:
        """Execute and feel how long it took, results included."""
        self._timed(lambda: cursor.execute(sql, tuple(values)))

    def commit(self) -> None:
        """Commit and feel how long it took."""
        self._timed(self._connection.commit)

    def _timed(self, act: Callable[[], object]) -> None:
        begun = time.perf_counter()
        act()
        self._meter.felt(time.perf_counter() - begun)


class TextDriver(Client):
    """PyMySQL: text statements."""

    def connect(self, schema: str) -> Any:
        """Over TLS, checked against the installation's own authority."""
        a = self._address
        return pymysql.connect(
            host=a.host, port=a.port, user=a.user, password=a.password, database=schema,
            ssl={"ca": a.ca_file}, read_timeout=30, write_timeout=30,
        )  # fmt: skip

    def cursor(self) -> Any:
        """A plain cursor."""
        return self._connection.cursor()


class PreparedDriver(Client):
    """mysql-connector: prepared statements, one cursor a statement text as applications keep them."""

    def connect(self, schema: str) -> Any:
        """Over TLS, checked against the installation's own authority."""
        a = self._address
        self._cursors: dict[str, Any] = {}
        return mysql.connector.connect(
            host=a.host, port=a.port, user=a.user, password=a.password, database=schema,
            ssl_ca=a.ca_file, ssl_verify_cert=True, connection_timeout=30, use_pure=True,
            # The driver's own default is a collation that MariaDB does not know.
            collation="utf8mb4_general_ci",
        )  # fmt: skip

    def prepared(self, sql: str, values: Sequence[object]) -> Any:
        """Execute a prepared statement; returns its cursor."""
        cursor = self._cursors.get(sql)
        if cursor is None:
            cursor = self._cursors[sql] = self._connection.cursor(prepared=True)
        self.statement(cursor, sql, values)
        return cursor


class Booker(TextDriver):
    """Books flights (both tables in one transaction), reads what it wrote, cancels some."""

    def __init__(self, number: int, *rest: Any) -> None:
        super().__init__(f"booker-{number}", *rest)
        self._next = number * 1_000_000
        self._mine: list[int] = []

    def turn(self) -> None:
        """One booking; every fifth turn also a cancellation."""
        self._next += 1
        tail = self._random.choice(self._tails)
        with self.cursor() as cursor:
            self.statement(cursor, BOOK, (self._next, tail))
            row_id = int(cursor.lastrowid)
            self.statement(cursor, SEAT, (tail,))
            self.commit()
            self._ledger.booking(self._next, row_id, tail)
            self._mine.append(self._next)
            self.statement(cursor, FIND, (row_id,))
            row = cursor.fetchone()
            if row is None or row[2] != self._next:
                raise AssertionError(
                    f"flight {self._next} was committed with id {row_id}, read back as {row}"
                )
            self.commit()
            if self._next % 5 == 0:
                number = self._mine.pop(self._random.randrange(len(self._mine)))
                self.statement(cursor, CANCEL, (self._ledger.booked[number],))
                if cursor.rowcount != 1:
                    raise AssertionError(
                        f"flight {number} was booked; deleting it changed {cursor.rowcount} rows"
                    )
                self.commit()
                self._ledger.cancellation(number)


class Delayer(PreparedDriver):
    """Delays two flights in one transaction, by prepared statements."""

    def turn(self) -> None:
        """Two updates in key order (applications that do otherwise cause their own deadlocks)."""
        pool = sorted(self._random.sample(self._ids, 2))
        for row_id in pool:
            cursor = self.prepared(DELAY, (row_id,))
            if cursor.rowcount != 1:
                raise AssertionError(f"delaying flight id {row_id} changed {cursor.rowcount} rows")
        self.commit()
        self._ledger.delayed(*pool)


class TextReader(TextDriver):
    """Reads by key and by a few keys."""

    def turn(self) -> None:
        """One read of each kind."""
        ids = self._random.sample(self._ids, 3)
        with self.cursor() as cursor:
            self.statement(cursor, MANY, ids)
            found = cursor.fetchall()
            if len(found) != len(ids):
                raise AssertionError(f"{len(found)} of {len(ids)} flights found")
            self.statement(cursor, PLANE, (self._random.choice(self._tails),))
            if len(cursor.fetchall()) != 1:
                raise AssertionError("a plane is gone")
        self.commit()


class PreparedReader(PreparedDriver):
    """Reads by key with prepared statements."""

    def turn(self) -> None:
        """One read."""
        cursor = self.prepared(FIND, (self._random.choice(self._ids),))
        if len(cursor.fetchall()) != 1:
            raise AssertionError("a flight is gone")
        self._connection.commit()


class Application:
    """All clients together.

    :param schema: the schema name that writers connect with; replica readers use ``schema@replica``.
    """

    def __init__(self, address: Address, schema: str, ledger: Ledger, writers: int, readers: int) -> None:
        self.meter = Meter()
        self.ledger = ledger
        shared = (address, schema, self.meter, ledger)
        replica = (address, f"{schema}@replica", self.meter, ledger)
        self._primary: list[Client] = [Booker(i + 1, *shared) for i in range(writers)]
        self._primary += [Delayer(f"delayer-{i + 1}", *shared) for i in range(writers)]
        self._primary += [TextReader("reader-primary", *shared)]
        self._replica: list[Client] = [TextReader(f"reader-text-{i + 1}", *replica) for i in range(readers)]
        self._replica += [PreparedReader(f"reader-prepared-{i + 1}", *replica) for i in range(readers)]

    @property
    def clients(self) -> int:
        """How many connections work."""
        return len(self._primary) + len(self._replica)

    def start(self) -> None:
        """Start every client."""
        for client in (*self._primary, *self._replica):
            client.start()

    def aim(self, primary: str, replica: str) -> None:
        """Let all clients reconnect with other schema names."""
        for client in self._primary:
            client.aim(primary)
        for client in self._replica:
            client.aim(replica)

    def stop(self, timeout_seconds: float = 30.0) -> None:
        """Stop all clients after their present transaction.

        :raises TimeoutError: one did not end in time; its statement hangs.
        """
        clients = (*self._primary, *self._replica)
        for client in clients:
            client.stop()
        deadline = time.monotonic() + timeout_seconds
        for client in clients:
            client.join(max(0.0, deadline - time.monotonic()))
        hanging = [client.name for client in clients if client.is_alive()]
        if hanging:
            raise TimeoutError(f"these clients hang in a statement: {', '.join(hanging)}")
