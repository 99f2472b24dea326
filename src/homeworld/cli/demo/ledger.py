"""What the application knows to be committed: the measure of "nothing lost".

An entry is made only after the server acknowledged the commit. At the end the tables are held against it:
every acknowledged row is there exactly once, nothing else is, and every counter has its sum.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

import pymysql.connections


@dataclass(slots=True)
class Ledger:
    """Shared by all workers; every method is atomic."""

    flights_before: int = 0
    delays_before: dict[int, int] = field(default_factory=dict[int, int])
    seats_before: dict[str, int] = field(default_factory=dict[str, int])
    booked: dict[int, int] = field(default_factory=dict[int, int])  # flight number to row id
    cancelled: set[int] = field(default_factory=set[int])
    delays: Counter[int] = field(default_factory=Counter[int])
    seats: Counter[str] = field(default_factory=Counter[str])
    commits: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def booking(self, number: int, row_id: int, tailnum: str) -> None:
        """A flight was inserted and its plane got one more seat, in one transaction."""
        with self._lock:
            self.booked[number] = row_id
            self.seats[tailnum] += 1
            self.commits += 1

    def cancellation(self, number: int) -> None:
        """A flight booked before was deleted."""
        with self._lock:
            del self.booked[number]
            self.cancelled.add(number)
            self.commits += 1

    def delayed(self, *row_ids: int) -> None:
        """Each of these flights was delayed by one more minute, in one transaction."""
        with self._lock:
            self.delays.update(row_ids)
            self.commits += 1

    def read_before(self, connection: pymysql.connections.Connection, pool: int) -> None:
        """Note what is there before the application starts; ``pool`` flights will be delayed."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM flights")
            row = cursor.fetchone()
            assert row is not None  # noqa: S101 - COUNT(*) gives one row
            self.flights_before = int(row[0])
            cursor.execute(
                "SELECT id, COALESCE(dep_delay, 0) FROM flights WHERE id %% %s = 1",
                (self.flights_before // pool,),
            )
            self.delays_before = {int(row[0]): int(row[1]) for row in cursor.fetchall()}
            cursor.execute("SELECT tailnum, seats FROM planes")
            self.seats_before = {str(row[0]): int(row[1]) for row in cursor.fetchall()}

    def losses(self, connection: pymysql.connections.Connection) -> list[str]:
        """Hold the tables against the ledger; one sentence for each thing that is not as acknowledged."""
        found: list[str] = []
        with connection.cursor() as cursor:
            cursor.execute("SELECT flight, id FROM flights WHERE carrier = 'HW'")
            rows = [(int(row[0]), int(row[1])) for row in cursor.fetchall()]
            seen = Counter(number for number, _ in rows)
            ids = dict(rows)
            for number, row_id in self.booked.items():
                if seen[number] != 1:
                    found.append(f"flight {number} was acknowledged once and is there {seen[number]} times")
                elif ids[number] != row_id:
                    found.append(f"flight {number} has id {ids[number]}, the application was told {row_id}")
            found += [
                f"flight {n} is there, but was never acknowledged" for n in seen if n not in self.booked
            ]
            cursor.execute("SELECT COUNT(*) FROM flights")
            row = cursor.fetchone()
            assert row is not None  # noqa: S101 - COUNT(*) gives one row
            expected = self.flights_before + len(self.booked)
            if int(row[0]) != expected:
                found.append(f"{row[0]} flights where {expected} are expected")
            for row_id, before in self.delays_before.items():
                cursor.execute("SELECT COALESCE(dep_delay, 0) FROM flights WHERE id = %s", (row_id,))
                row = cursor.fetchone()
                if row is None or int(row[0]) != before + self.delays[row_id]:
                    found.append(f"flight id {row_id}: delay {row}, expected {before + self.delays[row_id]}")
            cursor.execute("SELECT tailnum, seats FROM planes")
            seats = {str(row[0]): int(row[1]) for row in cursor.fetchall()}
            expected_seats = {t: n + self.seats[t] for t, n in self.seats_before.items()}
            if seats != expected_seats:
                wrong = [t for t in expected_seats if seats.get(t) != expected_seats[t]]
                found.append(f"{len(wrong)} planes have other seats than acknowledged, e.g. {wrong[:3]}")
        return found
