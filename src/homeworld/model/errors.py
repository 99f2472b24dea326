"""The one tree of errors.

Each class says whose fault it is by the HTTP status and the MySQL error number it carries; the edges
(api, gateway) translate from these attributes and from nothing else. The class docstring is the default
message. Two facts stand on every error because recovery depends on them:

* ``durable_change``: something was changed that an undo has to take back.
* ``ownership_ambiguous``: it is not known who owns writes; such an error is never retried by itself.
"""

from __future__ import annotations

from typing import ClassVar


class HomeworldError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "internal_error"
    http_status: ClassVar[int] = 500
    mysql_errno: ClassVar[int] = 1105
    sqlstate: ClassVar[str] = "HY000"
    retryable: ClassVar[bool] = False
    durable_change: ClassVar[bool] = False
    ownership_ambiguous: ClassVar[bool] = False

    def __init__(self, message: str | None = None, **facts: object) -> None:
        self.message: str = message or (type(self).__doc__ or "").strip()
        self.facts: dict[str, object] = facts
        super().__init__(self.message)


class NotFoundError(HomeworldError):
    """Not Found"""

    code = "not_found"
    http_status = 404


class UnauthorizedError(HomeworldError):
    """The access token is missing, wrong or expired."""

    code = "unauthorized"
    http_status = 401
    mysql_errno = 1045
    sqlstate = "28000"


class ForbiddenError(HomeworldError):
    """The token has no access to this resource."""

    code = "forbidden"
    http_status = 403
    mysql_errno = 1142
    sqlstate = "42000"


class BadRequestError(HomeworldError):
    """The request could not be understood."""

    code = "bad_request"
    http_status = 400


class InvalidError(HomeworldError):
    """The request is well formed but asks for something that is not allowed."""

    code = "unprocessable"
    http_status = 422


class TransitionRefusedError(InvalidError):
    """The resource is not in a state that allows this."""


class PreconditionsFailedError(InvalidError):
    """The preconditions are not met."""

    def __init__(self, reasons: tuple[str, ...]) -> None:
        self.reasons = reasons
        super().__init__("; ".join(reasons), reasons=reasons)


class ConflictError(HomeworldError):
    """The resource changed in the meantime."""

    code = "conflict"
    http_status = 409
    retryable = True


class UnavailableError(HomeworldError):
    """A part this needs does not answer right now."""

    code = "unavailable"
    http_status = 503
    retryable = True


class DeadlineExceededError(UnavailableError):
    """It took longer than its deadline."""


class FencedError(HomeworldError):
    """A newer owner has taken over; this one must stop at once."""

    code = "fenced"


class UnsupportedSqlError(HomeworldError):
    """VT12001: unsupported"""

    code = "unsupported"
    http_status = 422
    mysql_errno = 1235
    sqlstate = "42000"


class MalformedPacketError(HomeworldError):
    """Malformed communication packet."""

    code = "malformed_packet"
    http_status = 400
    mysql_errno = 1835
    sqlstate = "HY000"


class PacketsOutOfOrderError(MalformedPacketError):
    """Got packets out of order"""

    mysql_errno = 1156
    sqlstate = "08S01"


class ServerError(HomeworldError):
    """A MySQL server answered with an error.

    :param errno: the server's error number (``server_errno``).
    :param state: its SQLSTATE (``server_state``).
    """

    code = "server_error"
    http_status = 502

    def __init__(self, errno: int, state: str, message: str) -> None:
        self.server_errno = errno
        self.server_state = state
        super().__init__(message, errno=errno, sqlstate=state)

    def __str__(self) -> str:
        return f"{self.server_errno} ({self.server_state}): {self.message}"


# Too many connections (1040, 1203), shutting down (1053, 1184, 1927), read-only for a while (1290, 1836).
_PASSING_ERRNOS = frozenset({1040, 1053, 1184, 1203, 1290, 1836, 1927})


def is_outage(error: BaseException | None) -> bool:
    """Whether a part does not answer, or not now, so that waiting may mend it."""
    if isinstance(error, ServerError):
        return error.server_errno in _PASSING_ERRNOS
    return isinstance(error, UnavailableError)


class ConnectionLostError(UnavailableError):
    """Lost connection to MySQL server during query"""

    # Not 2013: client libraries keep 2000-2999 for themselves and call such an answer malformed.
    code = "connection_lost"


class SourceLogError(HomeworldError):
    """The source's binlog cannot be followed."""

    code = "source_log"


class PositionPurgedError(SourceLogError):
    """The source no longer has the binlogs that follow this position."""

    code = "position_purged"


class UnsupportedLogError(SourceLogError):
    """The source's binlog holds something that cannot be applied exactly."""

    code = "source_log_unsupported"


class SchemaDriftError(SourceLogError):
    """A table in the binlog is not as it was when the stream learned it."""

    code = "schema_drift"


class StoppedError(HomeworldError):
    """It was asked to stop."""

    code = "stopped"


class RowRefusedError(HomeworldError):
    """The target does not take a row exactly as it is on the source."""

    code = "row_refused"


class TooManyError(HomeworldError):
    """Too many requests; wait and try again."""

    code = "rate_limited"
    http_status = 429
    retryable = True

    def __init__(self, message: str | None = None, retry_after_seconds: float = 1.0) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(message, retry_after_seconds=retry_after_seconds)
