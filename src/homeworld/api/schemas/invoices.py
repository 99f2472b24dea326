"""Invoices and their lines as published."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from pydantic import BaseModel

from homeworld.api.calls import Call
from homeworld.api.schemas.common import ResourceOut
from homeworld.store.usage import Invoice, Line, Metric

_BILLION = Decimal(10**9)
_GIB = Decimal(2**30)
_CENT = Decimal("0.01")


class InvoiceOut(BaseModel):
    """An invoice. Nobody can pay here: it is paid where nothing is owed, and never overdue."""

    id: str
    total: str
    billing_period_start: datetime
    billing_period_end: datetime
    paid: bool
    overdue: bool = False

    @classmethod
    def of(cls, invoice: Invoice) -> InvoiceOut:
        """The invoice as published."""
        return cls(
            id=invoice.id,
            total=_exact(invoice.amount),
            billing_period_start=invoice.period_start,
            billing_period_end=invoice.period_end,
            paid=invoice.amount == 0,
        )


class LineItemOut(BaseModel):
    """What one branch used of one thing in the month; ``quantity`` is beyond the published fields."""

    id: str
    subtotal: float
    description: str
    metric_name: str
    cloudflare_billed: bool = False
    database_id: str
    database_name: str
    resource: ResourceOut
    quantity: float


def show_lines(call: Call, lines: Sequence[Line]) -> list[LineItemOut]:
    """Lines as published, in two queries however many there are."""
    branches = call.tx.branches.by_ids([line.branch_id for line in lines])
    databases = call.tx.databases.by_ids([branch.database_id for branch in branches.values()])
    shown: list[LineItemOut] = []
    for line in lines:
        branch = branches[line.branch_id]
        database = databases[branch.database_id]
        quantity, unit = Decimal(line.quantity), "server hours"
        if line.metric is Metric.STORAGE:
            quantity, unit = quantity / _GIB, "GiB hours of storage"
        shown.append(
            LineItemOut(
                id=line.id,
                subtotal=float(Decimal(line.amount) / _BILLION),
                description=f"{float(round(quantity, 3)):g} {unit} of branch {branch.name}",
                metric_name=line.metric,
                database_id=database.id,
                database_name=database.name,
                resource=ResourceOut(
                    id=branch.id,
                    name=branch.name,
                    created_at=branch.created_at,
                    updated_at=branch.updated_at,
                    deleted_at=branch.deleted_at,
                ),
                quantity=float(quantity),
            )
        )
    return shown


def _exact(billionths: int) -> str:
    """The exact amount, with two decimals at least."""
    amount = Decimal(billionths) / _BILLION
    if amount == amount.quantize(_CENT):
        return f"{amount.quantize(_CENT):f}"
    return f"{amount.normalize():f}"
