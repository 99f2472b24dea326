"""What a request says, whichever form it is written in.

Values only; ``asked`` reads them and ``told`` writes answers. The session's ``shown`` part is for the
client's eyes: what is true of a session is in its signed token (``tokens``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from homeworld.edge.answers import Row
from homeworld.edge.codes import Fault
from homeworld.edge.fields import Field, VitessType


class Workload(IntEnum):
    """What a session's statements are for; by OLAP clients stream their answers."""

    UNSPECIFIED = 0
    OLTP = 1
    OLAP = 2
    DBA = 3


@dataclass(frozen=True, slots=True)
class Shown:
    """A session as clients see it.

    * ``target``: what it is aimed at, as ``USE`` takes it.
    * ``last_insert_id``, ``found_rows``, ``row_count``: of the last statement that had any.
    """

    in_transaction: bool = False
    autocommit: bool = True
    target: str = ""
    workload: Workload = Workload.UNSPECIFIED
    last_insert_id: int = 0
    found_rows: int = 0
    row_count: int = 0
    uuid: str = ""


@dataclass(frozen=True, slots=True)
class SessionSeen:
    """A session as a client sent it: the token, and what it was shown; None where it left that out."""

    token: bytes
    shown: Shown | None


@dataclass(frozen=True, slots=True)
class BindVariable:
    """A statement's variable; ``values`` (type, text) of a TUPLE."""

    type: VitessType
    value: bytes
    values: tuple[tuple[VitessType, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of any of the methods; what a method does not have is empty."""

    session: SessionSeen | None = None
    query: bytes = b""
    variables: Mapping[str, BindVariable] = field(default_factory=dict[str, BindVariable])


@dataclass(frozen=True, slots=True)
class SessionTold:
    """A session as a client is to send it next."""

    token: bytes
    shown: Shown


@dataclass(frozen=True, slots=True)
class Result:
    """What a statement gave."""

    fields: tuple[Field, ...] = ()
    rows: tuple[Row, ...] = ()
    rows_affected: int = 0
    insert_id: int = 0
    info: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """An answer of any of the methods; what a method does not have is None.

    :param fields: of a prepared statement.
    :param timing: seconds that the statement took.
    :param branch: of CreateSession, with the ``user``'s name and role.
    """

    session: SessionTold | None = None
    result: Result | None = None
    fault: Fault | None = None
    timing: float = 0.0
    fields: tuple[Field, ...] = ()
    branch: str = ""
    user: tuple[str, str] | None = None
