"""What servers used, and the invoices that it adds up to.

Invariants: a server's hour is counted once; an invoice's amount is the sum of its lines', because both are
written with the hour that adds to them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import delete, select, update

from homeworld.model.names import new_id
from homeworld.store.pages import Page, PageRequest, fetch_page
from homeworld.store.tables import resources
from homeworld.store.tables import usage as tables
from homeworld.store.work import Work

KEPT_DAYS = 100


class Metric(StrEnum):
    """What is counted. A quantity of storage is bytes times hours."""

    SERVER_HOURS = "server_hours"
    STORAGE = "storage_gib_hours"


@dataclass(frozen=True, slots=True)
class UsedHour:
    """One server in one hour, and what that costs in billionths.

    :param hour: when it began.
    """

    server_id: str
    branch_id: str
    hour: datetime
    storage_bytes: int
    server_amount: int
    storage_amount: int


@dataclass(frozen=True, slots=True)
class Invoice:
    """A month of an organization; ``amount`` is in billionths."""

    id: str
    organization_id: str
    period_start: datetime
    period_end: datetime
    amount: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Line:
    """What one branch used of one thing in a month."""

    id: str
    invoice_id: str
    branch_id: str
    metric: Metric
    quantity: int
    amount: int
    created_at: datetime
    updated_at: datetime


def _line(metric: str, **columns: object) -> Line:
    return Line(metric=Metric(metric), **columns)  # pyright: ignore[reportArgumentType] - the row's own types


def month_of(moment: datetime) -> tuple[datetime, datetime]:
    """The month in which a UTC time is: its begin and the next one's."""
    start = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return start, (start + timedelta(days=32)).replace(day=1)


class Usage:
    """Usage within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def counted(self, hour: datetime) -> frozenset[str]:
        """The ids of the servers whose hour is counted already."""
        table = tables.usage_hours
        query = select(table.c.server_id).where(table.c.hour == hour)
        return frozenset(self._work.connection.execute(query).scalars())

    def count(self, hours: Collection[UsedHour]) -> None:
        """Count hours that were not counted yet; others are left."""
        for hour in {used.hour for used in hours}:
            counted = self.counted(hour)
            for used in hours:
                if used.hour == hour and used.server_id not in counted:
                    self._count(used)

    def _count(self, used: UsedHour) -> None:
        values = {
            "server_id": used.server_id,
            "hour": used.hour,
            "branch_id": used.branch_id,
            "storage_bytes": used.storage_bytes,
        }
        self._work.add(tables.usage_hours, values)
        invoice_id = self._invoice(used)
        self._add(invoice_id, used.branch_id, Metric.SERVER_HOURS, 1, used.server_amount)
        self._add(invoice_id, used.branch_id, Metric.STORAGE, used.storage_bytes, used.storage_amount)

    def _invoice(self, used: UsedHour) -> str:
        branch, database, table = resources.branches, resources.databases, tables.invoices
        organization_id = self._work.connection.execute(
            select(database.c.organization_id)
            .join(branch, branch.c.database_id == database.c.id)
            .where(branch.c.id == used.branch_id)
        ).scalar_one()
        start, end = month_of(used.hour)
        known = self._work.connection.execute(
            select(table.c.id).where(
                table.c.organization_id == organization_id, table.c.period_start == start
            )
        ).scalar_one_or_none()
        amount, now = used.server_amount + used.storage_amount, self._work.now
        if known is not None:
            changed = {"amount": table.c.amount + amount, "updated_at": now}
            self._work.change(table, table.c.id, known, changed)
            return str(known)
        made = Invoice(new_id(), organization_id, start, end, amount, now, now)
        self._work.add(table, {field: getattr(made, field) for field in made.__slots__})
        return made.id

    def _add(self, invoice_id: str, branch_id: str, metric: Metric, quantity: int, amount: int) -> None:
        table, now = tables.invoice_lines, self._work.now
        changed = self._work.connection.execute(
            update(table)
            .where(
                table.c.invoice_id == invoice_id,
                table.c.branch_id == branch_id,
                table.c.metric == metric.value,
            )
            .values(quantity=table.c.quantity + quantity, amount=table.c.amount + amount, updated_at=now)
        ).rowcount
        if not changed:
            made = Line(new_id(), invoice_id, branch_id, metric, quantity, amount, now, now)
            values = {field: getattr(made, field) for field in made.__slots__}
            self._work.add(table, {**values, "metric": metric.value})

    def forget_old(self) -> None:
        """Delete the rows of hours that are older than KEPT_DAYS."""
        table = tables.usage_hours
        old = self._work.now - timedelta(days=KEPT_DAYS)
        self._work.connection.execute(delete(table).where(table.c.hour < old))

    # -- invoices --------------------------------------------------------------------------------------------

    def invoices(self, organization_id: str, request: PageRequest) -> Page[Invoice]:
        """An organization's invoices, newest first."""
        table = tables.invoices
        query = (
            select(table)
            .where(table.c.organization_id == organization_id)
            .order_by(table.c.period_start.desc())
        )
        return fetch_page(self._work.connection, query, request, Invoice)

    def invoice(self, organization_id: str, invoice_id: str) -> Invoice:
        """An invoice.

        :raises NotFoundError: no such invoice.
        """
        table = tables.invoices
        query = select(table).where(table.c.organization_id == organization_id, table.c.id == invoice_id)
        return self._work.only(query, Invoice)

    def lines(self, invoice_id: str, request: PageRequest) -> Page[Line]:
        """An invoice's lines, by branch and metric."""
        table = tables.invoice_lines
        query = (
            select(table).where(table.c.invoice_id == invoice_id).order_by(table.c.branch_id, table.c.metric)
        )
        return fetch_page(self._work.connection, query, request, _line)
