"""Sends one request to an address that was checked, within a time that is over when it is over.

Invariants: a connection goes only to addresses that :class:`~homeworld.model.addresses.Reach` allows, asked
of exactly those that are connected to; a name is resolved once; every step has what is left of one deadline.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from homeworld.model.addresses import Reach
from homeworld.model.errors import HomeworldError, InvalidError
from homeworld.model.webhooks import Address, parse_url
from homeworld.webhooks.exchange import Answer, AnswerError, request, verdict

SECONDS = 5.0
_CHUNK = 4096

Resolve = Callable[[str, int], Sequence[str]]
"""Every address of a name; it may take long."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt."""

    success: bool
    result: str


class RefusedError(HomeworldError):
    """Nothing is sent there."""


def resolve(host: str, port: int) -> Sequence[str]:
    """Every address of a name, in the resolver's order.

    :raises OSError: it has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Post:
    """Sends bodies to URLs.

    :param reach: which addresses may be reached.
    :param seconds: for one request altogether, without resolving the name.
    :param tls: whom to trust; None: the system's certificate authorities (or ``SSL_CERT_FILE``'s).
    """

    def __init__(
        self,
        reach: Reach,
        *,
        seconds: float = SECONDS,
        tls: ssl.SSLContext | None = None,
        resolve: Resolve = resolve,
    ) -> None:
        self._reach = reach
        self.seconds = seconds
        self._tls = tls or ssl.create_default_context()
        self._resolve = resolve

    def __call__(
        self, url: str, content: bytes, headers: dict[str, str], ready: Callable[[], None]
    ) -> Outcome:
        """Send once; what came of it in a sentence.

        :param ready: called after the name was resolved and before anything is connected to; it raises
            where nothing may be sent any more.
        """
        try:
            address = parse_url(url)
            hosts = self._checked(address)
            ready()
            status = self._exchange(address, hosts, request(address, content, headers))
        except (RefusedError, InvalidError, AnswerError) as error:
            return Outcome(False, error.message)
        except TimeoutError:
            return Outcome(False, f"no answer within {self.seconds:g} s")
        except ssl.SSLCertVerificationError as error:
            return Outcome(False, f"the certificate is not valid: {error.verify_message}")
        except ssl.SSLError as error:
            return Outcome(False, f"TLS failed: {error.reason or 'the connection was closed'}")
        except (OSError, ValueError) as error:  # names that the resolver or TLS refuse are the latter
            told = error.strerror if isinstance(error, OSError) else ""
            return Outcome(False, f"the connection failed: {told or type(error).__name__}")
        return Outcome(*verdict(status))

    def _checked(self, address: Address) -> Sequence[str]:
        """The addresses of the host, all of which may be reached.

        :raises RefusedError: one may not, or plain HTTP goes to it from an allowed network no more.
        :raises OSError: there is none.
        """
        hosts = self._resolve(address.host, address.port)
        if not hosts:
            raise RefusedError("the host of the url has no address")
        for host in hosts:
            # One record that leads inside is enough: which of them is taken is nobody's promise.
            if why := self._reach.refusal(host):
                raise RefusedError(f"not sent: {why}")
            if not address.tls and not self._reach.inside(host):
                raise RefusedError("not sent: the url must begin with https://")
        return hosts

    def _exchange(self, address: Address, hosts: Sequence[str], sent: bytes) -> int:
        deadline = time.monotonic() + self.seconds
        with self._connect(address, hosts, deadline) as connection:
            rest = memoryview(sent)
            while rest:  # however much of it one send takes: the time is of all
                connection.settimeout(_left(deadline))
                rest = rest[connection.send(rest) :]
            answer = Answer()
            while True:
                connection.settimeout(_left(deadline))
                data = connection.recv(_CHUNK)
                status = answer.feed(data)
                if status is not None:
                    return status
                if not data:
                    raise AnswerError("the connection was closed without an answer")

    def _connect(self, address: Address, hosts: Sequence[str], deadline: float) -> socket.socket:
        failure: OSError | None = None
        for before, host in enumerate(hosts):
            try:
                # One that says nothing leaves the others their share.
                share = _left(deadline) / (len(hosts) - before)
                plain = socket.create_connection((host, address.port), share)
            except OSError as error:
                failure = error
                continue
            try:
                peer = str(plain.getpeername()[0])
                if why := self._reach.refusal(peer):
                    raise RefusedError(f"not sent: {why}")
                if not address.tls:
                    return plain
                plain.settimeout(_left(deadline))
                return self._tls.wrap_socket(plain, server_hostname=address.host)
            except BaseException:
                plain.close()
                raise
        raise failure or OSError("no address")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
