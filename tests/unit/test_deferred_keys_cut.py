"""Ending what builds keys where its server cannot be asked."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from homeworld.model.errors import ConnectionLostError
from homeworld.replication import deferred_keys
from homeworld.replication.deferred_keys import KeyBuilder


def test_sessions_of_servers_that_do_not_answer_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    aborted: list[str] = []

    class Session:
        closed = False
        connection_id = 1

        def __init__(self, endpoint: str) -> None:
            self.endpoint = endpoint

        def abort(self) -> None:
            aborted.append(self.endpoint)

    def kill(endpoint: str, _number: int) -> None:
        if endpoint == "away":
            raise ConnectionLostError("it does not answer")

    monkeypatch.setattr(deferred_keys, "kill_query", kill)
    builder = KeyBuilder({}, (), (), 1, threading.Event())
    running: dict[int, Any] = {1: Session("away"), 2: Session("there")}
    monkeypatch.setattr(builder, "_running", running)
    builder.cut()
    assert aborted == ["away"]
