"""Asking one gateway something: one connection, one question, one answer, within a deadline."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

from homeworld.control.frames import Asking, Words
from homeworld.control.words import Ask, result_of
from homeworld.model.errors import MalformedPacketError, UnauthorizedError, UnavailableError

_CHUNK = 65536


class NoAnswerError(UnavailableError):
    """A gateway does not answer."""


class Call:
    """One question to one gateway. :meth:`abandon` ends it from another thread.

    :param path: the gateway's control socket.
    :param seconds: how long connecting, asking and the answer may take together.
    """

    def __init__(self, path: str, secret: str, ask: Ask, words: Words, seconds: float) -> None:
        self._path = path
        self._seconds = seconds
        self._asking = Asking(secret, {"ask": ask.value, "seconds": seconds, **words})
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._given_up = threading.Event()

    def __call__(self) -> object:
        """Ask; the result.

        :raises NoAnswerError: it cannot be reached, ended, or did not answer in time; whether it did what it
            was asked is not known.
        :raises HomeworldError: what the gateway answered.
        """
        deadline = time.monotonic() + self._seconds
        try:
            with self._socket as connection:
                self._wait(connection, deadline)
                connection.connect(self._path)
                if self._given_up.is_set():
                    raise NoAnswerError("nobody waits for this call any more")
                while self._asking.answer is None:
                    self._wait(connection, deadline)
                    data = connection.recv(_CHUNK)
                    if not data:
                        raise NoAnswerError("a gateway closed its control connection")
                    if out := self._asking.feed(data):
                        connection.sendall(out)
        except (OSError, MalformedPacketError, UnauthorizedError) as error:
            raise NoAnswerError(f"a gateway does not answer: {error}") from error
        return result_of(self._asking.answer)

    @staticmethod
    def _wait(connection: socket.socket, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise NoAnswerError("a gateway did not answer in time")
        connection.settimeout(left)

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""
        self._given_up.set()  # before: what is not connected yet cannot be shut down
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
