"""Errors as clients read them: ``{"code", "message"}``, in one place.

Knows no resource: what an error means stands on its class in model.errors. Invariant: nothing of an
unexpected error but its existence reaches a client.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from homeworld.model.errors import HomeworldError, TooManyError, UnauthorizedError

_log = logging.getLogger(__name__)

_CODES = {400: "bad_request", 401: "unauthorized", 403: "forbidden", 404: "not_found"}


class ErrorOut(BaseModel):
    """Every error's body."""

    code: str
    message: str


def described(description: str) -> dict[str, Any]:
    """An error as one of a route's ``responses``. It names the schema instead of giving the model: FastAPI
    would put the model together once for each error of each route.
    """
    schema = {"$ref": f"#/components/schemas/{ErrorOut.__name__}"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


DESCRIBED: dict[int | str, dict[str, Any]] = {
    400: described("The body is not JSON"),
    401: described("No valid token"),
    403: described("The token lacks the access"),
    404: described("No such resource"),
    409: described("The resource changed in the meantime; read it again"),
    422: described("Refused; the message says why"),
    429: described("Too many requests; Retry-After says how many seconds to wait"),
    503: described("A part that this needs does not answer right now"),
}


class InvalidBearerError(UnauthorizedError):
    """The access token is invalid or has expired."""


def answer(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error as clients read it."""
    return JSONResponse({"code": code, "message": message}, status, headers)


def _known(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HomeworldError)  # noqa: S101 - the class this handler is registered for
    if isinstance(error, InvalidBearerError):
        # In this form, without a code, clients of OAuth tokens see that they have to log in again.
        return JSONResponse({"error": "invalid_token", "error_description": error.message}, 401)
    if error.http_status >= 500:
        _log.warning("answered %s: %s", error.code, error, exc_info=error)
    return answer(error.http_status, error.code, error.message, retry_after(error))


def retry_after(error: HomeworldError) -> dict[str, str]:
    """The header that says when to ask again, where that is known."""
    if not isinstance(error, TooManyError):
        return {}
    return {"Retry-After": str(max(1, math.ceil(error.retry_after_seconds)))}


def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - the class this handler is registered for
    faults = error.errors()
    if any(fault["type"] == "json_invalid" for fault in faults):
        return answer(400, "bad_request", "The request body is not valid JSON.")
    return answer(422, "invalid_params", "; ".join(_sentence(fault) for fault in faults))


def _sentence(fault: dict[str, Any]) -> str:
    place: Sequence[str | int] = fault["loc"]
    name = ".".join(str(part) for part in place[1:]) or "the request body"
    if fault["type"] == "missing":
        return f"{name} is required"
    return f"{name}: {fault['msg']}"


def _http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - the class this handler is registered for
    code = _CODES.get(error.status_code, "method_not_allowed" if error.status_code == 405 else "error")
    return answer(error.status_code, code, str(error.detail))


class UnexpectedErrors:
    """Answers what nobody foresaw, so that it ends one request and not its connection."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; answer 500 if that raises before the answer has begun."""
        begun = False

        async def watch(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception:
            _log.exception("unexpected error in %s", scope.get("path"))
            if begun:
                raise
            await answer(500, "internal_error", "Something went wrong.")(scope, receive, send)


def install(app: FastAPI) -> None:
    """Answer every error of the app in the published form."""
    app.add_exception_handler(HomeworldError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_middleware(UnexpectedErrors)
