"""The gateway's control socket: takes calls of workers and APIs, and does what they ask.

Invariants: only who has the store's secret is heard; a call that nobody waits for any more changes nothing,
and a hold that it has made is let go.
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

from homeworld.control.frames import NONCE_BYTES, Answering, Words
from homeworld.control.member import Member
from homeworld.control.words import Ask, connection_words, failed, hold_request, said
from homeworld.model.errors import HomeworldError, MalformedPacketError, UnavailableError

_log = logging.getLogger(__name__)
_CHUNK = 65536
_HANDSHAKE_SECONDS = 5.0
_MOST_SECONDS = 120.0
_MOST_CALLS = 64
_PAUSE_SECONDS = 0.1


class ControlServer:
    """Listens on a unix socket; a thread for each call.

    :param path: made anew; its folder is its owner's only.
    """

    def __init__(self, path: Path, secret: str, member: Member) -> None:
        self._path = path
        self._secret = secret
        self._member = member
        self._calls = threading.BoundedSemaphore(_MOST_CALLS)
        self._stopping = threading.Event()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._accept, name="control", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more calls."""
        self._stopping.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if self._stopping.is_set():
                    return  # closed by stop()
                # Too many files are open, for now. A gateway that never listens again would renew its lease
                # all the same, and nothing could move any more.
                _log.warning("a control call could not be taken: %s", error)
                self._stopping.wait(_PAUSE_SECONDS)
                continue
            if not self._calls.acquire(blocking=False):
                connection.close()
                continue
            try:
                threading.Thread(
                    target=self._serve, args=(connection,), name="control-call", daemon=True
                ).start()
            except RuntimeError as error:  # the machine gives no more threads, for now
                _log.warning("a control call could not be taken: %s", error)
                connection.close()
                self._calls.release()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                self._talk(connection)
        except (OSError, MalformedPacketError) as error:
            _log.debug("a control call ended: %s", error)
        except HomeworldError as error:
            _log.warning("a control call was refused: %s", error)
        finally:
            self._calls.release()

    def _talk(self, connection: socket.socket) -> None:
        connection.settimeout(_HANDSHAKE_SECONDS)
        answering = Answering(self._secret, secrets.token_bytes(NONCE_BYTES))
        connection.sendall(answering.greeting())
        while not answering.feed(data := connection.recv(_CHUNK)):
            if not data:
                return
        question = answering.question or {}
        if _hung_up(connection):
            return  # asked while this process was stopped, and given up since
        try:
            answer = said(self._do(question, connection))
        except HomeworldError as error:
            if not self._member.serves:
                return  # it ends: it is asked again until it has left
            answer = failed(error)
        except Exception as error:  # noqa: BLE001 - whoever asked must hear of a fault of ours; it is logged
            _log.exception("a control call failed")
            answer = failed(HomeworldError(f"internal error: {type(error).__name__}"))
        connection.sendall(answering.say(answer))

    def _do(self, question: Words, connection: socket.socket) -> object:
        try:
            ask = Ask(str(question.get("ask")))
            seconds = min(_MOST_SECONDS, float(question.get("seconds", 0.0)))
        except (TypeError, ValueError) as error:
            raise MalformedPacketError("a question that is none") from error
        deadline = time.monotonic() + seconds
        gateway = self._member.wait_joined(seconds)
        match ask:
            case Ask.PING:
                return gateway.version
            case Ask.PUBLISH:
                self._member.serve(int(question["version"]), max(0.0, deadline - time.monotonic()))
                return gateway.version
            case Ask.HOLD:
                request = hold_request(question)
                gateway.hold(request)
                if _hung_up(connection):
                    # Not let go of here: whoever gave up may have asked again, and was told that it is held.
                    # If not it is on nobody's board any more, and the next look ends it.
                    raise UnavailableError("nobody waits for this hold")
            case Ask.RELEASE:
                gateway.release(str(question["hold_id"]))
            case Ask.OPEN:
                gateway.open(str(question["subject"]))
            case Ask.IS_HELD:
                return gateway.is_held(str(question["hold_id"]))
            case Ask.CONNECTIONS:
                return connection_words(gateway.connections())
        return None


def _hung_up(connection: socket.socket) -> bool:
    """Whether the caller has closed its end. It sends nothing behind its question."""
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(_HANDSHAKE_SECONDS)
