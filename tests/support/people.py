"""Users who log in, for tests: by the pages, as a browser does, or straight from the store."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from html import unescape

import httpx

from homeworld.store.store import Store
from homeworld.store.users import User
from homeworld.store.users_secrets import hash_password
from tests.support.api import ServedApi

PASSWORD = "correct horse battery"
_digests: list[str] = []


def make_user(store: Store, email: str, organization_id: str | None, role: str = "member") -> User:
    """A user with the password ``PASSWORD``."""
    if not _digests:
        _digests.append(hash_password(PASSWORD))
    with store.write() as tx:
        user = tx.users.add(email, email.partition("@")[0].title(), password_hash=_digests[0])
        if organization_id is not None:
            tx.members.add(organization_id, user.id, role)
    return user


@contextmanager
def acting_as(served: ServedApi, store: Store, user: User) -> Generator[httpx.Client]:
    """An HTTP client with a token by which everything that the user may is allowed."""
    with store.write() as tx:
        issued = tx.oauth_tokens.issue(user.id, "tests", application_id=None, scopes=None)
    headers = {"Authorization": f"Bearer {issued.access}"}
    with httpx.Client(base_url=served.url, headers=headers, timeout=30, trust_env=False) as client:
        yield client


class Browser:
    """A browser as far as the pages need one: cookies, forms, and the word where a form came from."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=30, trust_env=False, follow_redirects=False)
        self.page = ""
        self.status = 0
        self.place = ""

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def open(self, path: str) -> str:
        """Look at a page, following where it leads on this host; its text."""
        return self._follow(self.http.get(path))

    def submit(self, path: str, **fields: str) -> str:
        """Send a form with the hidden fields of the present page; the text of the page it leads to."""
        sent = self.http.post(
            path, data={**self.hidden(), **fields}, headers={"Sec-Fetch-Site": "same-origin"}
        )
        return self._follow(sent)

    def hidden(self) -> dict[str, str]:
        """The hidden fields of the present page."""
        found = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', self.page)
        return {unescape(name): unescape(value) for name, value in found}

    def log_in(self, email: str, password: str = PASSWORD) -> str:
        """Log in on the present page."""
        return self.submit("/login", email=email, password=password)

    def _follow(self, answer: httpx.Response) -> str:
        self.place = str(answer.url)
        while answer.has_redirect_location:
            place = answer.headers["location"]
            self.place = place
            if not place.startswith(("/", str(self.http.base_url))):
                self.page = ""
                break
            answer = self.http.get(place)
        else:
            self.page = answer.text
        self.status = answer.status_code
        self.headers = answer.headers
        return self.page
