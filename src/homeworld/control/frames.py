"""The control protocol between workers and gateways, both sides, without a socket.

The gateway greets with a nonce; the caller asks once, with a proof that it has the secret; the gateway
answers, with a proof of its own over question and answer; then the connection is over. Invariants: nothing is
believed before its proof was checked, in either direction; an answer proves that it is the one to this
question; the secret itself is never sent.

    gateway  len nonce(32)
    caller   len proof(32) question      proof  = HMAC-SHA256(secret, "ask" nonce question)
    gateway  len proof(32) answer        proof  = HMAC-SHA256(secret, "say" nonce question's-proof answer)

``len`` is four bytes, big-endian; questions and answers are JSON objects. Knows no method.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, cast

from homeworld.model.errors import MalformedPacketError, UnauthorizedError

MOST_BYTES = 16 * 1024 * 1024
NONCE_BYTES = 32
_PROOF_BYTES = 32
_LENGTH_BYTES = 4

Words = Mapping[str, Any]
"""A question or an answer: what JSON can say."""


class Frames:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._bytes = b""

    def feed(self, data: bytes) -> bytes | None:
        """Take bytes; the next whole frame, if it is there.

        :raises MalformedPacketError: a frame would be too large, or bytes follow one.
        """
        self._bytes += data
        if len(self._bytes) < _LENGTH_BYTES:
            return None
        size = int.from_bytes(self._bytes[:_LENGTH_BYTES], "big")
        if size > MOST_BYTES:
            raise MalformedPacketError(f"a control frame of {size} bytes")
        end = _LENGTH_BYTES + size
        if len(self._bytes) < end:
            return None
        if len(self._bytes) > end:
            raise MalformedPacketError("bytes behind a control frame")
        found, self._bytes = self._bytes[_LENGTH_BYTES:end], b""
        return found


def framed(payload: bytes) -> bytes:
    """The payload as it is sent."""
    return len(payload).to_bytes(_LENGTH_BYTES, "big") + payload


class Asking:
    """The caller's side of one connection.

    :param question: what is asked.
    """

    def __init__(self, secret: str, question: Words) -> None:
        self._secret = secret.encode()
        self._body = json.dumps(question).encode()
        self._frames = Frames()
        self._nonce = b""
        self._proof = b""
        self.answer: Words | None = None

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the gateway; bytes to send. ``answer`` is set once it is there.

        :raises MalformedPacketError: the gateway does not speak this protocol.
        :raises UnauthorizedError: it does not have the secret.
        """
        frame = self._frames.feed(data)
        if frame is None:
            return b""
        if not self._nonce:
            if len(frame) != NONCE_BYTES:
                raise MalformedPacketError("a control connection without a greeting")
            self._nonce = frame
            self._proof = _prove(self._secret, b"ask", frame, self._body)
            return framed(self._proof + self._body)
        proof, body = frame[:_PROOF_BYTES], frame[_PROOF_BYTES:]
        if not hmac.compare_digest(proof, _prove(self._secret, b"say", self._nonce, self._proof, body)):
            raise UnauthorizedError("who answers at a gateway's control socket is no gateway")
        self.answer = _words(body)
        return b""


class Answering:
    """The gateway's side of one connection.

    :param nonce: ``NONCE_BYTES`` random bytes, of this connection only.
    """

    def __init__(self, secret: str, nonce: bytes) -> None:
        self._secret = secret.encode()
        self._frames = Frames()
        self._nonce = nonce
        self._proof = b""
        self.question: Words | None = None

    def greeting(self) -> bytes:
        """What is sent first."""
        return framed(self._nonce)

    def feed(self, data: bytes) -> bool:
        """Take bytes of the caller; true once ``question`` is there.

        :raises MalformedPacketError: the caller does not speak this protocol.
        :raises UnauthorizedError: it does not have the secret.
        """
        frame = self._frames.feed(data)
        if frame is None:
            return False
        self._proof, body = frame[:_PROOF_BYTES], frame[_PROOF_BYTES:]
        if not hmac.compare_digest(self._proof, _prove(self._secret, b"ask", self._nonce, body)):
            raise UnauthorizedError("a caller without the secret of this store")
        self.question = _words(body)
        return True

    def say(self, answer: Words) -> bytes:
        """The answer as it is sent."""
        body = json.dumps(answer).encode()
        return framed(_prove(self._secret, b"say", self._nonce, self._proof, body) + body)


def _prove(secret: bytes, *parts: bytes) -> bytes:
    # Every part but the last has a fixed length: no two lists of parts are the same bytes.
    return hmac.digest(secret, b"".join(parts), hashlib.sha256)


def _words(body: bytes) -> Words:
    try:
        found: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedPacketError("a control frame that is no JSON") from error
    if not isinstance(found, dict):
        raise MalformedPacketError("a control frame that is no JSON object")
    return cast("Words", found)
