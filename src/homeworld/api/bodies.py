"""Request bodies within bounds: what is too large or too deeply nested is refused before anybody reads it.

Knows no operation. Invariant: an app behind it sees whole bodies, at most ``MOST_BYTES`` long and
``MOST_DEPTH`` levels deep, so that reading and validating one cannot exhaust memory or the stack.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from homeworld.api.errors import answer
from homeworld.model.errors import InvalidError
from homeworld.model.json_text import MOST_BYTES, check_bounds


class Bodies:
    """Reads a request's body, looks at it, and hands it on in one piece."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 422."""
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD", "OPTIONS"}:
            await self._app(scope, receive, send)
            return
        body = bytearray()
        more = True
        while more and len(body) <= MOST_BYTES:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client is gone; nobody waits for an answer
            body += message.get("body", b"")
            more = message.get("more_body", False)
        try:
            # As Latin-1 every byte is a character, and the marks of JSON are what they are in UTF-8.
            check_bounds(body.decode("latin-1"), "the request body")
            if b"\0" in body:
                # Python's reader takes UTF-16 and UTF-32 for JSON, too: there the same bytes are other marks.
                raise InvalidError("the request body must be JSON in UTF-8, without bytes of 0")
        except InvalidError as error:
            await answer(422, "invalid_params", error.message)(scope, receive, send)
            return
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def again() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, again, send)
