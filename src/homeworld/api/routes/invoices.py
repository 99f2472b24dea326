"""Invoices: what an organization's servers used, month by month."""

from __future__ import annotations

from homeworld.api.calls import ApiDep, CallerDep, Id, InOrganization
from homeworld.api.listing import Routes
from homeworld.api.pages import Listing, PageDep, listing
from homeworld.api.schemas.invoices import InvoiceOut, LineItemOut, show_lines

router = Routes(tags=["Invoices"])

_ALL = "/organizations/{organization}/invoices"
_ONE = _ALL + "/{id}"


@router.get(_ALL, operation_id="list_invoices")
def list_invoices(api: ApiDep, caller: CallerDep, path: InOrganization, page: PageDep) -> Listing[InvoiceOut]:
    """The organization's invoices, newest first; the newest is that of the present month so far."""
    with api.read(caller, "list_invoices", path) as call:
        found = call.tx.usage.invoices(call.organization.id, page)
        return listing(caller, found, [InvoiceOut.of(invoice) for invoice in found.items])


@router.get(_ONE, operation_id="get_invoice")
def get_invoice(api: ApiDep, caller: CallerDep, path: InOrganization, invoice_id: Id) -> InvoiceOut:
    """An invoice."""
    with api.read(caller, "get_invoice", path) as call:
        return InvoiceOut.of(call.tx.usage.invoice(call.organization.id, invoice_id))


@router.get(_ONE + "/line-items", operation_id="get_invoice_line_items")
def get_invoice_line_items(
    api: ApiDep, caller: CallerDep, path: InOrganization, invoice_id: Id, page: PageDep
) -> Listing[LineItemOut]:
    """What makes an invoice up, by branch."""
    with api.read(caller, "get_invoice_line_items", path) as call:
        invoice = call.tx.usage.invoice(call.organization.id, invoice_id)
        found = call.tx.usage.lines(invoice.id, page)
        return listing(caller, found, show_lines(call, found.items))
