"""How errors are said: Vitess's codes and words within an answer, Connect's for a request that has none.

Pure. Two kinds never mix: an error of SQL (or of the session) is part of an answer, which is HTTP 200 and has
the session; a request that cannot be served as one is a :class:`RefusedError`, which has a status.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from homeworld.model.errors import (
    BadRequestError,
    ConnectionLostError,
    HomeworldError,
    ServerError,
    UnavailableError,
)


class Code(IntEnum):
    """The codes of errors, by the numbers that both vtrpc and Connect give them."""

    CANCELED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16
    CLUSTER_EVENT = 17


_ERRNOS: dict[Code, tuple[int, ...]] = {
    Code.UNIMPLEMENTED: (1235,),
    Code.RESOURCE_EXHAUSTED: (
        1021, 1037, 1038, 1040, 1041, 1114, 1129, 1135, 1151, 1153, 1203, 1206, 1226,
    ),
    Code.DEADLINE_EXCEEDED: (1205, 3024),
    Code.UNAVAILABLE: (1053, 2002, 2003, 2006, 3168),
    Code.NOT_FOUND: (1029, 1032, 1054, 1094, 1109, 1122, 1141, 1146, 1147, 1176),
    Code.PERMISSION_DENIED: (1044, 1045, 1095, 1142, 1143, 1211, 1227, 1370),
    Code.FAILED_PRECONDITION: (
        1046, 1082, 1091, 1099, 1100, 1104, 1148, 1162, 1165, 1169, 1173, 1179, 1215, 1216, 1217, 1223, 1230,
        1241, 1242, 1264, 1288, 1289, 1291, 1451, 1452, 1712, 1792,
    ),
    Code.CLUSTER_EVENT: (1290,),
    Code.ALREADY_EXISTS: (1050, 1062, 1086, 1125),
    Code.ABORTED: (1078, 1080, 1152, 1213, 1412),
    Code.CANCELED: (1317, 2013),
    Code.INVALID_ARGUMENT: (
        1047, 1048, 1049, 1051, 1052, 1055, 1056, 1057, 1058, 1059, 1060, 1061, 1063, 1064, 1065, 1066, 1067,
        1068, 1069, 1070, 1071, 1072, 1073, 1074, 1075, 1083, 1084, 1085, 1089, 1090, 1093, 1096, 1097, 1101,
        1102, 1103, 1106, 1107, 1108, 1110, 1111, 1113, 1115, 1116, 1117, 1118, 1120, 1121, 1128, 1136, 1138,
        1139, 1140, 1144, 1149, 1166, 1167, 1170, 1171, 1172, 1193, 1204, 1210, 1221, 1222, 1225, 1228, 1229,
        1231, 1232, 1233, 1234, 1238, 1239, 1240, 1245, 1253, 1265, 1267, 1270, 1271, 1272, 1273, 1280, 1281,
        1283, 1292, 1293, 1294, 1298, 1300, 1247, 1248, 1250, 1366, 1367, 1406, 1690,
    ),
}  # fmt: skip
_CODES = {errno: code for code, errnos in _ERRNOS.items() for errno in errnos}

_STATUS = {
    Code.CANCELED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """An error as part of an answer."""

    code: Code
    message: str


class SessionLostError(HomeworldError):
    """The session's transaction is not there any more."""

    mysql_errno: ClassVar[int] = 1317
    sqlstate: ClassVar[str] = "70100"


class RefusedError(HomeworldError):
    """The request cannot be served.

    :param status: of HTTP; None: the one that goes with the code.
    """

    code: ClassVar[str] = "refused"

    def __init__(self, code: Code, message: str, status: int | None = None) -> None:
        self.reason = code
        self.status = status or _STATUS.get(code, 500)
        super().__init__(message)


def code_of(errno: int) -> Code:
    """Vitess's code for a server's error number."""
    return _CODES.get(errno, Code.UNKNOWN)


def fault_of(error: HomeworldError) -> Fault:
    """What an answer says of an error: its sentence with number and state in Vitess's form, which is how they
    reach whoever makes a MySQL error of it again.
    """
    if isinstance(error, ServerError):
        errno, state, code = error.server_errno, error.server_state, code_of(error.server_errno)
    else:
        errno, state, code = error.mysql_errno, error.sqlstate, code_of(error.mysql_errno)
        if isinstance(error, SessionLostError):
            code = Code.ABORTED
        elif isinstance(error, ConnectionLostError | UnavailableError):
            code = Code.UNAVAILABLE
        elif isinstance(error, BadRequestError):
            code = Code.INVALID_ARGUMENT
        elif isinstance(error, RefusedError):
            code = error.reason
    return Fault(code, f"{error.message} (errno {errno}) (sqlstate {state})")


def refusal_body(error: RefusedError, *, plain_json: bool) -> bytes:
    """The JSON body of a refused request.

    :param plain_json: for a client that speaks JSON: beside Connect's own form also the one by which
        PlanetScale's JavaScript client reads an error.
    """
    told: dict[str, object] = {"code": error.reason.name.lower(), "message": error.message}
    if plain_json:
        told["error"] = {"code": error.reason.name, "message": error.message}
    return json.dumps(told).encode()


def end_of_stream(error: RefusedError | None) -> bytes:
    """The JSON of a stream's last envelope."""
    if error is None:
        return b"{}"
    return json.dumps({"error": {"code": error.reason.name.lower(), "message": error.message}}).encode()
