"""What a vttablet publishes of itself at ``/debug/vars``: live figures that commands tell late or not at all.

Only loopback is ever asked, and what the topology of a cluster names that others run. Invariant: figures are
all that comes from here; where they cannot be had nothing is decided otherwise, so no error leaves this
module.
"""

from __future__ import annotations

import http.client
import json
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from homeworld.engines.vitess.answers import list_of, number_of, object_of, text_of
from homeworld.engines.vitess.moves_look import alias_of
from homeworld.model.errors import HomeworldError

SECONDS = 1.0
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_MOST_BYTES = 8 * 1024 * 1024
_log = logging.getLogger(__name__)


class _Vtctld(Protocol):
    def run(self, branch_id: str, *args: str, timeout_seconds: float) -> object: ...


class HttpVars:
    """Implements ``moves.TabletVars`` over HTTP. Safe among threads; remembers only where tablets are.

    :param foreign: whether others run a branch's cluster, so that its tablets may be on other machines.
    """

    def __init__(self, vtctld: _Vtctld, foreign: Callable[[str], bool] = lambda _branch_id: False) -> None:
        self._vtctld = vtctld
        self._foreign = foreign
        self._guard = threading.Lock()
        self._places: dict[tuple[str, str], tuple[str, int]] = {}

    def __call__(self, branch_id: str, tablet: str) -> Mapping[str, object]:
        """The tablet's variables; empty where it does not say."""
        try:
            place = self._place(branch_id, tablet)
            return {} if place is None else _ask(*place)
        except (HomeworldError, OSError, ValueError, http.client.HTTPException) as error:
            _log.debug("tablet %s tells no figures: %s", tablet, error)
            with self._guard:
                self._places.pop((branch_id, tablet), None)  # it may be elsewhere by now
            return {}

    def _place(self, branch_id: str, tablet: str) -> tuple[str, int] | None:
        with self._guard:
            known = self._places.get((branch_id, tablet))
        if known is not None:
            return known
        answer = self._vtctld.run(branch_id, "GetTablets", "--format=json", timeout_seconds=10.0)
        found = places_of(answer, anywhere=self._foreign(branch_id))
        with self._guard:
            self._places.update({(branch_id, alias): place for alias, place in found.items()})
        return found.get(tablet)


def places_of(answer: object, *, anywhere: bool = False) -> dict[str, tuple[str, int]]:
    """Alias to host and port of each tablet's HTTP server on loopback, of what ``GetTablets`` printed.

    :param anywhere: not on loopback only.
    """
    found: dict[str, tuple[str, int]] = {}
    for one in list_of(answer):
        tablet = object_of(one)
        host, port = text_of(tablet.get("hostname")), number_of(object_of(tablet.get("port_map")).get("vt"))
        if port and (anywhere or host in _LOOPBACK):
            found[alias_of(tablet.get("alias"))] = (host, port)
    return found


def _ask(host: str, port: int) -> Mapping[str, object]:
    connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
    try:
        connection.request("GET", "/debug/vars")
        response = connection.getresponse()
        if response.status != http.client.OK:
            return {}
        return object_of(json.loads(response.read(_MOST_BYTES)))
    finally:
        connection.close()
