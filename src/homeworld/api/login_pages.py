"""The pages as HTML: templates filled in, with headers that let a browser load nothing and run nothing.

Invariant: everything that is filled in is escaped by the template engine; no page is framed, kept in a
cache, or told to another site.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from homeworld.api.errors import retry_after
from homeworld.api.login_forms import Visit, keep
from homeworld.model.errors import HomeworldError
from homeworld.model.names import new_secret

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "login_templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(
    template: str,
    visit: Visit | None = None,
    *,
    status: int = 200,
    session: str | None = None,
    may_lead_to: str = "",
    **values: Any,
) -> HTMLResponse:
    """A page.

    :param session: see :func:`~homeworld.api.login_forms.keep`.
    :param may_lead_to: the other origin that this page's form may lead to, after our answer.
    """
    nonce = new_secret(20)
    text = _templates.get_template(template).render(
        nonce=nonce, form_token=visit.form_token if visit else "", **values
    )
    answer = HTMLResponse(text, status)
    for name, value in _headers(nonce, may_lead_to).items():
        answer.headers[name] = value
    if visit is not None:
        keep(answer, visit, session)
    return answer


def _headers(nonce: str, may_lead_to: str) -> dict[str, str]:
    return {
        "Content-Security-Policy": (
            f"default-src 'none'; style-src 'nonce-{nonce}'; base-uri 'none'; frame-ancestors 'none'; "
            f"form-action {chr(39)}self{chr(39)} {may_lead_to}".rstrip()
        ),
        "X-Frame-Options": "DENY",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


def lead(url: str, visit: Visit, session: str | None = None) -> Response:
    """Send the browser on.

    :param session: see :func:`~homeworld.api.login_forms.keep`.
    """
    answer = RedirectResponse(
        url, 303, headers={"Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
    )
    keep(answer, visit, session)
    return answer


class PageRoute(APIRoute):
    """A route whose refusals people read, in a browser."""

    def get_route_handler(self) -> Any:
        """The handler, with its refusals as pages."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except HomeworldError as error:
                if error.http_status >= 500 and error.http_status != 503:
                    raise
                refused = page("told.html", status=error.http_status, title="Not done", told=error.message)
                refused.headers.update(retry_after(error))
                return refused
            except RequestValidationError:
                return page(
                    "told.html",
                    status=422,
                    title="Not done",
                    told="The address of this page is not complete.",
                )

        return answer
