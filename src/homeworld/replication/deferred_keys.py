"""Building the secondary keys that the targets' tables were made without, once their rows are there.

What is missing is found by looking: the source's keys that are not unique, less those the target has by name.
So it can be interrupted and called again at any time. It knows no feed; changes go on meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from homeworld.model.errors import HomeworldError, ServerError, StoppedError
from homeworld.model.tables import Table
from homeworld.model.topology import ShardPlace
from homeworld.replication import sidecar
from homeworld.replication.connection import Connection, kill_query
from homeworld.replication.ddl import TargetForm, add_keys_sql, target_table
from homeworld.replication.sidecar import StreamId
from homeworld.replication.tables import definition_session, read_table

_log = logging.getLogger(__name__)
_ALL = TargetForm(defer_keys=True, keep_auto_increment=False, keep_foreign_keys=False)
_DUPLICATE_KEY_NAME = 1061
_WAIT_SECONDS = 0.1


class KeyBuilder:
    """Builds missing keys on all targets side by side.

    :param tables: definitions of the source's tables, by name.
    :param streams: one stream of each target, for the epoch.
    :param wait: the reason to wait before the next table, or empty.
    """

    def __init__(
        self,
        tables: Mapping[str, Table],
        targets: Sequence[ShardPlace],
        streams: Sequence[StreamId],
        epoch: int,
        stopping: threading.Event,
        wait: Callable[[], str] = str,
    ) -> None:
        self._wait = wait
        self._tables = tables
        self._targets = tuple(zip(targets, streams, strict=True))
        self._epoch = epoch
        self._stopping = stopping
        self._running: dict[int, Connection] = {}

    def run(self) -> None:
        """Return once every key is there, or stopped.

        :raises ServerError: a server refused to build one.
        :raises FencedError: another epoch has taken over.
        """
        with ThreadPoolExecutor(len(self._targets), "keys") as pool:
            for done in [pool.submit(self._build, place, stream) for place, stream in self._targets]:
                done.result()

    def cut(self) -> None:
        """End the statements under way, from any thread."""
        for connection in tuple(self._running.values()):
            if connection.closed:
                continue
            try:
                kill_query(connection.endpoint, connection.connection_id)
            except HomeworldError as error:
                # Nobody can end it there now; our thread has to end, and the server finds its client gone.
                _log.info("the building of a key could not be ended by the server: %s", error)
                connection.abort()

    def _build(self, place: ShardPlace, stream: StreamId) -> None:
        with definition_session(place.endpoint) as connection:
            self._running[id(stream)] = connection
            try:
                for name, table in self._tables.items():
                    while statements := self._missing(connection, place, name, table):
                        while self._wait() and not self._stopping.wait(_WAIT_SECONDS):
                            pass
                        if self._stopping.is_set():
                            return
                        sidecar.check_epoch(connection, stream, self._epoch)
                        self._alter(connection, statements[0])
            finally:
                del self._running[id(stream)]

    @staticmethod
    def _missing(connection: Connection, place: ShardPlace, name: str, table: Table) -> tuple[str, ...]:
        have = {index.name.lower() for index in read_table(connection, place.schema, name).indexes}
        wanted = target_table(table, _ALL).deferred
        return add_keys_sql(place.schema, name, tuple(key for key in wanted if key.name.lower() not in have))

    def _alter(self, connection: Connection, statement: str) -> None:
        try:
            connection.execute(statement)
        except ServerError as error:
            if self._stopping.is_set():
                raise StoppedError from error
            # A mover that was taken over may have built one just before: look again.
            if error.server_errno != _DUPLICATE_KEY_NAME:
                raise
