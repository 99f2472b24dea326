"""What users ask, through the API's own process: for the layout in which it is one.

It knows no fault. The invariant: an API that is dead, stopped, or does not reach its store refuses, and never
hangs the run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import httpx

from homeworld.model.states.move_tables import Trigger

SECONDS = 6.0
ACTIONS: Mapping[Trigger, tuple[str, str]] = {
    Trigger.VERIFY_DATA: ("PATCH", "/verify-data"),
    Trigger.SWITCH_REPLICAS: ("PATCH", "/switch-replicas"),
    Trigger.SWITCH_PRIMARIES: ("PATCH", "/switch-primaries"),
    Trigger.REVERSE_TRAFFIC: ("PATCH", "/reverse-traffic"),
    Trigger.CUTOVER: ("PATCH", "/cutover"),
    Trigger.REVERSE_CUTOVER: ("PATCH", "/reverse-cutover"),
    Trigger.COMPLETE: ("PATCH", "/complete"),
    Trigger.RETRY: ("PATCH", "/retry"),
    Trigger.CANCEL: ("DELETE", ""),
}


class Asking:
    """The API at ``port``, with the installation's own token out of ``folder``."""

    def __init__(self, folder: Path, port: int) -> None:
        kept = json.loads((folder / "service-token.json").read_text())
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}/v1/organizations/acme/databases/shop/workflows/",
            headers={"Authorization": f"{kept['id']}:{kept['token']}"},
            timeout=SECONDS,
        )

        self.in_doubt = False

    def close(self) -> None:
        """No more."""
        self._client.close()

    def ask(self, number: int, trigger: Trigger) -> str:
        """Ask for a transition of workflow ``number``; empty, or why it was not granted. ``in_doubt`` tells
        then whether there was no answer at all: it may have been.
        """
        self.in_doubt = False
        method, path = ACTIONS[trigger]
        try:
            answer = self._client.request(method, f"{number}{path}")
        except httpx.TransportError as error:
            self.in_doubt = True
            return repr(error)
        return "" if answer.is_success else f"{answer.status_code} {answer.text[:200]}"
