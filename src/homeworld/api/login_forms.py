"""Forms, cookies and ways back: what every page with a form has to get right.

Invariants: a form is taken only from the browser that got it from here (a token in the form that a cookie's
holder alone can have, and the browser's own word of where the form came from); nobody is sent anywhere but to
our own pages by what stands in an address.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from fastapi import Depends, Request, Response

from homeworld.api.calls import ApiDep, CallerDep
from homeworld.model.errors import BadRequestError, ForbiddenError
from homeworld.model.names import new_secret
from homeworld.store.users_sessions import SESSION_FOR

SESSION = "homeworld_session"
VISIT = "homeworld_visit"
_MOST_BYTES = 64 * 1024
_MOST_FIELDS = 50
_LONGEST_FIELD = 4096
# Where a login may lead.
_WAYS = ("/oauth/device", "/oauth/authorize", "/invitations/", "/login")


async def _form(request: Request) -> Mapping[str, str]:
    """The fields of a form; of one that is given twice the last. Clients send some in the address, too."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BYTES:  # looked at as it comes: with GET nobody has bounded it before
            raise BadRequestError("the form is too large")
    try:
        sent = body.decode()
        fields = [
            pair
            for text in (request.url.query, sent)
            for pair in parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
        ]
    except ValueError:
        raise BadRequestError("the form cannot be read; send application/x-www-form-urlencoded") from None
    if any("\0" in text or len(text) > _LONGEST_FIELD for pair in fields for text in pair):
        raise BadRequestError("the form has characters that cannot be, or a field that is too long")
    return dict(fields)


Form = Annotated[Mapping[str, str], Depends(_form)]


@dataclass(frozen=True, slots=True)
class Visit:
    """A browser that looks at a page.

    :param user_id: who is logged in with it, if anybody.
    :param secret: of the session; empty where nobody is.
    """

    visit: str
    secret: str
    user_id: str | None
    address: str
    base_url: str
    fetch_site: str

    @property
    def form_token(self) -> str:
        """What a form that is shown to this browser carries."""
        return hmac.new(f"{self.visit}:{self.secret}".encode(), b"form", hashlib.sha256).hexdigest()

    def require_own_form(self, form: Mapping[str, str]) -> None:
        """Hold that the form was shown to this browser by us.

        :raises ForbiddenError: it was not.
        """
        given = form.get("form_token", "").encode()
        if self.fetch_site not in {"", "same-origin", "none"} or not hmac.compare_digest(
            given, self.form_token.encode()
        ):
            raise ForbiddenError("this form is not from here or too old; open the page again")


async def _visit(request: Request, caller: CallerDep) -> Visit:
    return Visit(
        visit=request.cookies.get(VISIT) or new_secret(),
        secret=request.cookies.get(SESSION, ""),
        user_id=None,
        address=caller.remote_ip,
        base_url=caller.base_url,
        fetch_site=request.headers.get("sec-fetch-site", ""),
    )


def _known(visit: Annotated[Visit, Depends(_visit)], api: ApiDep) -> Visit:
    """The visit with its user, read in a worker thread."""
    if not visit.secret:
        return visit
    with api.store.read() as tx:
        user_id = tx.sessions.user_of(visit.secret)
    return Visit(visit.visit, visit.secret, user_id, visit.address, visit.base_url, visit.fetch_site)


VisitDep = Annotated[Visit, Depends(_known)]


def keep(response: Response, visit: Visit, session: str | None = None) -> None:
    """Set the cookies.

    :param session: the secret of a session that begins; empty: it ends; None: as it is.
    """
    secure = visit.base_url.startswith("https://")
    response.set_cookie(VISIT, visit.visit, httponly=True, samesite="lax", secure=secure)
    if session:
        response.set_cookie(
            SESSION,
            session,
            max_age=int(SESSION_FOR.total_seconds()),
            httponly=True,
            samesite="lax",
            secure=secure,
        )
    elif session is not None:
        response.delete_cookie(SESSION, httponly=True, samesite="lax", secure=secure)


def way_back(asked: str) -> str:
    """Where a login leads: a page of ours that was asked for, or else the login page itself."""
    try:
        parts = urlsplit(asked)
    except ValueError:
        return "/login"
    own = not parts.scheme and not parts.netloc and asked.startswith(_WAYS)
    return asked if own and asked.isprintable() and asked.isascii() and "\\" not in asked else "/login"
