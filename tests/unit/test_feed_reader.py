"""What becomes of the reader thread when its feed ends while the applier begins again."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import pytest

from homeworld.model.errors import SourceLogError, StoppedError
from homeworld.model.tables import Table
from homeworld.model.topology import Endpoint, Flavor
from homeworld.replication import reading
from homeworld.replication.changes import FeedBatch, TableName
from homeworld.replication.reading import FeedReader

NOWHERE = Endpoint("s", Flavor.MARIADB, "127.0.0.1", 1, "", "u", "p")
SECONDS = 30.0


class ScriptedFeed:
    """Gives one batch for its position, then ends: with an error the first time, else when it is stopped."""

    ends: list[Exception]

    def __init__(
        self, _endpoint: Endpoint, position: str, _tables: Mapping[TableName, Table], **_options: bool
    ) -> None:
        self._position = position
        self._given = False
        self._stopped = threading.Event()

    def read_batch(self, _events: int, wait_seconds: float) -> FeedBatch:
        if not self._given:
            self._given = True
            return FeedBatch([], (), self._position, 0, False, False, False)
        if self.ends:
            raise self.ends.pop()
        if self._stopped.wait(wait_seconds):
            raise StoppedError
        return FeedBatch([], (), self._position, 0, True, False, False)

    def give_singly(self, *, singly: bool) -> None:
        """All the same here."""

    def stop(self) -> None:
        self._stopped.set()

    close = stop


def taken(reader: FeedReader) -> FeedBatch:
    deadline = time.monotonic() + SECONDS
    while (batch := reader.take(0.1)) is None:
        assert time.monotonic() < deadline, "nothing is read any more"
    return batch


def test_an_error_behind_a_batch_that_is_read_again_does_not_end_the_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ScriptedFeed.ends = [SourceLogError("what follows cannot be read")]
    monkeypatch.setattr(reading, "Feed", ScriptedFeed)
    stopping = threading.Event()
    reader = FeedReader(NOWHERE, "0-1-1", {}, stopping)
    thread = threading.Thread(target=reader.run)
    thread.start()
    try:
        assert taken(reader).position == "0-1-1"
        deadline = time.monotonic() + SECONDS
        while not reader._queue.qsize():  # type: ignore[reportPrivateUsage]  it was ahead of its applier
            assert time.monotonic() < deadline
            time.sleep(0.01)
        reader.begin_again("0-1-5", {})
        assert taken(reader).position == "0-1-5"
        ScriptedFeed.ends = [SourceLogError("still")]
        with pytest.raises(SourceLogError, match="still"):
            list(iter(lambda: taken(reader), None))
    finally:
        stopping.set()
        reader.stop()
        thread.join(SECONDS)
    assert not thread.is_alive()
