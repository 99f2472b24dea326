"""``psdb.v1alpha1.Database`` over HTTP as Connect describes it: which requests are served, in which forms.

A request is judged by its head (method, form, password) before anything of its body is kept, and answered
once all of it is there; what its method does is ``calls``'.

The invariant: only what is no request for this service, or comes from nobody who may send it, has another
status than 200.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar, cast

from homeworld.edge import told as write
from homeworld.edge.answers import Row
from homeworld.edge.asked import from_json, from_protobuf
from homeworld.edge.calls import Calls, Turn
from homeworld.edge.codes import Code, RefusedError, end_of_stream
from homeworld.edge.exchange import Head, Out, Refusal, header_of
from homeworld.edge.messages import Asked, Told
from homeworld.edge.purse import Charge, Purse
from homeworld.edge.s2 import CompressionError, TooLargeError, decode
from homeworld.edge.sessions import Limits, Sessions
from homeworld.gateway.accounts import Proof
from homeworld.gateway.branch import Branch
from homeworld.gateway.connection import House
from homeworld.model.errors import BadRequestError, UnauthorizedError
from homeworld.model.routing import Account
from homeworld.wire.constants import CLEAR

_LOG = logging.getLogger(__name__)
_SERVICE = "/psdb.v1alpha1.Database/"
_SMALL = 1 << 16
"""What is larger is unpacked, read and written beside the loop."""
_EACH = 8
_ENVELOPE = 5
_COMPRESSED, _LAST = 1, 2
Write = Callable[[Told], bytes]
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Method:
    """A method. ``json`` and ``protobuf`` write its answers."""

    name: str
    json: Write
    protobuf: Write
    streams: bool = False


METHODS = {
    method.name: method
    for method in (
        Method("CreateSession", write.create_json, write.create_protobuf),
        Method("Execute", write.execute_json, write.execute_protobuf),
        Method("StreamExecute", write.execute_json, write.execute_protobuf, streams=True),
        Method("Prepare", write.prepare_json, write.prepare_protobuf),
        Method("CloseSession", write.close_json, write.close_protobuf),
    )
}


@dataclass(frozen=True, slots=True)
class Ready:
    """A request that will be served.

    :param seconds: that its client gives it; 0: all.
    :param organization: whose it is, as it was called when the request came.
    """

    method: Method
    account: Account
    branch: Branch
    peer: str
    json: bool
    encoding: str
    secure: bool
    seconds: float
    organization: str

    @property
    def write(self) -> Write:
        """Writes the answer in the client's form."""
        return self.method.json if self.json else self.method.protobuf

    @property
    def content_type(self) -> str:
        """The answer's."""
        form = "json" if self.json else "proto"
        return f"application/connect+{form}" if self.method.streams else f"application/{form}"


class Service:
    """Answers requests (``exchange.Answering``)."""

    def __init__(self, house: House, sessions: Sessions, limits: Limits) -> None:
        self._house = house
        self._limits = limits
        self._purse = Purse(limits.most_held)
        self._calls = Calls(house, sessions, largest_answer=limits.largest_answer)
        self._beside = asyncio.Semaphore(2)

    # ---------------------------------------------------------------- heads

    def judge(self, head: Head, peer: str, *, secure: bool) -> object | Refusal:
        """See ``exchange.Answering``."""
        try:
            method = _method(head)
            json, encoding = _form(head, method)
            seconds = _seconds(head)
        except RefusedError as error:
            return Refusal(error, headers=(("Allow", "POST"),) if error.status == 405 else ())
        try:
            account = self._account(head, peer)
        except UnauthorizedError as error:
            return self._unknown(error, peer)
        branch = self._house.branch_of(account)
        if branch is None:
            return Refusal(RefusedError(Code.UNAVAILABLE, "the branch is not served yet"))
        organization = branch.routes.organization
        return Ready(method, account, branch, peer, json, encoding, secure, seconds, organization)

    def _account(self, head: Head, peer: str) -> Account:
        scheme, _, coded = head.headers.get("authorization", "").partition(" ")
        try:
            if scheme.lower() != "basic":
                raise ValueError
            user, colon, password = base64.b64decode(coded.strip(), validate=True).partition(b":")
            name = user.decode()
            if not colon:
                raise ValueError
        except (ValueError, binascii.Error):
            raise UnauthorizedError(
                "Access denied: send the name and the text of a branch's password as Basic authorization"
            ) from None
        return self._house.accounts.check(Proof(name, CLEAR, password, b""), peer, self._house.clock.now())

    def _unknown(self, error: UnauthorizedError, peer: str) -> Refusal:
        accounts, counts = self._house.accounts, self._house.counts
        counts.refused += 1
        failures = accounts.failures(peer)
        if failures and not failures & (failures - 1):  # the first, second, fourth …, as for MySQL clients
            _LOG.warning("a request (%d refused from there): %s", failures, error)
        refused = RefusedError(Code.UNAUTHENTICATED, error.message)
        if not accounts.begin_waiting(peer):
            # Many of them wait for their answer already; more would take the place of others.
            return Refusal(refused, hang_up=True)
        delay = accounts.delay(peer)
        asyncio.get_running_loop().call_later(delay, accounts.end_waiting, peer)
        return Refusal(refused, delay, headers=(("WWW-Authenticate", 'Basic realm="homeworld"'),))

    def largest_body(self, ready: object) -> int:  # noqa: ARG002 the same for all
        """See ``exchange.Answering``."""
        return self._limits.largest_body

    def hold(self, ready: object, size: int) -> bool:
        """See ``exchange.Answering``."""
        whose = cast("Ready", ready).organization
        if size > 0:
            return self._purse.take(whose, size)
        self._purse.give(whose, -size)
        return True

    # ---------------------------------------------------------------- bodies

    async def answer(self, ready: object, body: bytes, out: Out) -> None:
        """See ``exchange.Answering``."""
        request = cast("Ready", ready)
        if not request.seconds:
            await self._answer(request, body, out)
            return
        try:
            async with asyncio.timeout(request.seconds):
                await self._answer(request, body, out)
        except TimeoutError:
            error = RefusedError(Code.DEADLINE_EXCEEDED, "the request took longer than its client gave it")
            if not out.sent:
                raise error from None
            if out.streaming:
                out.part(_enveloped(_LAST, end_of_stream(error)))
                out.end()
            else:
                raise

    async def _answer(self, request: Ready, body: bytes, out: Out) -> None:
        whose = request.organization
        unpacked, charge = Charge(self._purse, whose), Charge(self._purse, whose)
        try:
            asked = await self._asked(request, body, unpacked)
            turn = Turn(request.account, request.branch, request.peer, asked, charge)
            match request.method.name:
                case "CreateSession":
                    told = self._calls.create(turn)
                case "CloseSession":
                    told = self._calls.close(turn)
                case "Prepare":
                    told = await self._calls.prepare(turn)
                case "StreamExecute":
                    out.begin(request.content_type)
                    await self._calls.stream(turn, _Parts(request, out))
                    out.part(_enveloped(_LAST, end_of_stream(None)))
                    out.end()
                    return
                case _:
                    told = await self._calls.execute(turn)
            await self._send(request, told, out)
        finally:
            charge.give_back()
            unpacked.give_back()

    async def _asked(self, request: Ready, body: bytes, unpacked: Charge) -> Asked:
        """The request's message. How large it is, and so where it is read, is known once it is unpacked.

        :param unpacked: bears what the body has become.
        :raises RefusedError: it has none.
        """
        try:
            if len(body) <= _SMALL:
                try:
                    return _message(request, _unpacked(request, body, _SMALL))
                except TooLargeError:
                    pass  # of few bytes many are made: as other large ones
            text = await self._aside(_unpacked, request, body, self._limits.largest_body)
            if text is not body and not unpacked.reach(len(text)):
                raise RefusedError(Code.RESOURCE_EXHAUSTED, "too much is being sent at once; try again", 503)
            return await self._aside(_message, request, text)
        except TooLargeError:
            raise RefusedError(Code.RESOURCE_EXHAUSTED, "the request is too large", 413) from None
        except BadRequestError as error:
            raise RefusedError(Code.INVALID_ARGUMENT, error.message) from None

    async def _aside(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do it in a thread, two at a time; what nobody waits for any more is still being done."""
        await self._beside.acquire()
        loop = asyncio.get_running_loop()
        doing = loop.run_in_executor(None, lambda: work(*args, **kwargs))

        def done(found: asyncio.Future[T]) -> None:
            self._beside.release()
            if not found.cancelled():
                found.exception()  # whoever waits is told; nobody may

        doing.add_done_callback(done)
        return await asyncio.shield(doing)

    async def _send(self, request: Ready, told: Told, out: Out) -> None:
        if told.result is not None and _large(told.result.rows):
            data = await self._aside(request.write, told)
        else:
            data = request.write(told)
        await out.send(200, request.content_type, data)


class _Parts:
    """A streamed answer's parts, each in its envelope (``calls.Stream``)."""

    def __init__(self, request: Ready, out: Out) -> None:
        self._request = request
        self._out = out

    def tell(self, told: Told) -> None:
        """The next part."""
        self._out.part(_enveloped(0, self._request.write(told)))

    def listen(self, on_full: Callable[[bool], None] | None) -> None:
        """See ``calls.Stream``."""
        self._out.on_full = on_full


def _method(head: Head) -> Method:
    if not head.path.startswith(_SERVICE):
        raise RefusedError(Code.NOT_FOUND, f"there is nothing at {head.path[:200]}")
    method = METHODS.get(head.path.removeprefix(_SERVICE))
    if method is None:
        raise RefusedError(Code.UNIMPLEMENTED, f"{_SERVICE.strip('/')} has no such method", 404)
    if head.method != "POST":
        raise RefusedError(Code.UNIMPLEMENTED, "use POST", 405)
    return method


def _form(head: Head, method: Method) -> tuple[bool, str]:
    """Whether the request is JSON, and how it is compressed."""
    kind = header_of(head, "content-type")
    prefix = "application/connect+" if method.streams else "application/"
    if kind not in {f"{prefix}json", f"{prefix}proto"}:
        raise RefusedError(Code.INVALID_ARGUMENT, f"Content-Type must be {prefix}json or {prefix}proto", 415)
    name = "connect-content-encoding" if method.streams else "content-encoding"
    encoding = header_of(head, name) or "identity"
    if encoding not in {"identity", "gzip", "s2"}:
        raise RefusedError(Code.UNIMPLEMENTED, f"{name} must be identity, gzip or s2")
    return kind.endswith("json"), encoding


def _seconds(head: Head) -> float:
    timeout = head.headers.get("connect-timeout-ms", "")
    if not timeout:
        return 0.0
    if not (timeout.isascii() and timeout.isdigit() and len(timeout) <= 10):
        raise RefusedError(Code.INVALID_ARGUMENT, "Connect-Timeout-Ms must be a number of up to 10 digits")
    return max(int(timeout), 1) / 1000


def _enveloped(flags: int, message: bytes) -> bytes:
    return bytes((flags,)) + len(message).to_bytes(4, "big") + message


def _opened(body: bytes) -> tuple[bytes, bool]:
    """The one message of a streamed request's body, and whether it is compressed.

    :raises BadRequestError: it has none, or several.
    """
    if len(body) < _ENVELOPE or len(body) != _ENVELOPE + int.from_bytes(body[1:_ENVELOPE], "big"):
        raise BadRequestError("the body must be one message in an envelope")
    if body[0] not in {0, _COMPRESSED}:
        raise BadRequestError("the envelope has flags that are not known")
    return body[_ENVELOPE:], body[0] == _COMPRESSED


def _unpacked(request: Ready, body: bytes, limit: int) -> bytes:
    """The text of a message.

    :raises BadRequestError: it is not packed as it says. :raises TooLargeError: it would be larger.
    """
    encoding = request.encoding
    if request.method.streams:
        body, compressed = _opened(body)
        encoding = encoding if compressed else "identity"
    if encoding == "s2":
        return decode(body, limit, checked=not request.secure)
    return _gunzip(body, limit) if encoding == "gzip" else body


def _message(request: Ready, text: bytes) -> Asked:
    """:raises BadRequestError: it is none."""
    return from_json(text) if request.json else from_protobuf(text)


def _large(rows: Iterable[Row]) -> bool:
    """Whether rows take long to write: a NULL does, too."""
    size = 0
    for lengths, values in rows:
        size += len(values) + _EACH * len(lengths)
        if size > _SMALL:
            return True
    return False


def _gunzip(body: bytes, limit: int) -> bytes:
    """:raises CompressionError: it is no gzip. :raises TooLargeError: the text would be larger."""
    if not body:
        return b""
    unpacking = zlib.decompressobj(wbits=31)
    try:
        text = unpacking.decompress(body, limit + 1)
    except zlib.error:
        raise CompressionError from None
    if len(text) > limit:
        raise TooLargeError
    if not unpacking.eof or unpacking.unused_data:
        raise CompressionError
    return text
