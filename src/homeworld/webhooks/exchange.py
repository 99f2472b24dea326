"""One HTTP/1.1 request and as much of its answer as says whether it was taken. Owns no socket.

Invariant: nothing of an answer is kept but its status, and no more of it is looked at than LIMIT.
"""

from __future__ import annotations

import re

from homeworld.model.errors import HomeworldError
from homeworld.model.webhooks import Address

LIMIT = 16 * 1024
_STATUS = re.compile(rb"^HTTP/1\.[01] ([1-5][0-9]{2})(?: |$)")


class AnswerError(HomeworldError):
    """What came back is no answer of an HTTP server."""


def request(address: Address, content: bytes, headers: dict[str, str]) -> bytes:
    """The bytes of a POST. The headers' values are our own."""
    lines = [
        f"POST {address.target} HTTP/1.1",
        f"Host: {address.authority}",
        "User-Agent: Homeworld",
        "Accept: */*",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii") + content


class Answer:
    """Reads an answer until its head is whole."""

    def __init__(self) -> None:
        self._read = b""
        self._seen = 0

    def feed(self, data: bytes) -> int | None:
        """Take what came; the status once the head is there.

        :raises AnswerError: it is no HTTP, or its head is too long.
        """
        self._read += data
        self._seen += len(data)
        while True:
            line, separator, _ = self._read.partition(b"\r\n")
            if not separator:
                self._limit()
                if self._read and not b"HTTP/1.".startswith(self._read[:7]):
                    raise AnswerError
                return None
            found = _STATUS.match(line)
            if found is None:
                raise AnswerError
            head, separator, rest = self._read.partition(b"\r\n\r\n")
            if not separator:
                self._limit()
                return None
            del head
            status = int(found[1])
            if status >= 200:
                return status
            # 100 Continue and its like announce the answer that follows.
            self._read = rest

    def _limit(self) -> None:
        if self._seen > LIMIT:
            raise AnswerError(f"the head of the answer is longer than {LIMIT} bytes")


def verdict(status: int) -> tuple[bool, str]:
    """Whether it was taken, and what to say of it."""
    if 200 <= status < 300:
        return True, str(status)
    if 300 <= status < 400:
        return False, f"{status}: redirects are not followed; set the url that it leads to"
    return False, str(status)
