"""One running mover: the threads of a MoverSpec, watched; the first failure stops them all.

It orders the parts and knows none of their insides. Its phases: starting, copying, indexing, following; at
the end stopped, ddl or failed. Invariant: when :meth:`RunningMover.stop` has returned, or the phase is one of
the last three, no thread of it writes any more.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from homeworld.model.errors import (
    DeadlineExceededError,
    FencedError,
    HomeworldError,
    InvalidError,
    NotFoundError,
    RowRefusedError,
    ServerError,
    SourceLogError,
    StoppedError,
    UnavailableError,
    is_outage,
)
from homeworld.model.movers import (
    MoverProgress,
    MoverSpec,
    Phase,
    StreamProgress,
    TableProgress,
    ThrottleLimits,
)
from homeworld.replication.applier import TryAgainError, or_again
from homeworld.replication.assembly import Assembly, assemble, stream_id
from homeworld.replication.copier import AIM_BYTES, Copier, CopyBoard
from homeworld.replication.deferred_keys import KeyBuilder
from homeworld.replication.follower import Follower
from homeworld.replication.gauges import Gauges
from homeworld.replication.moving import MovingTable
from homeworld.replication.on_ddl import DdlStopError
from homeworld.replication.throttle import Throttle, ThrottleRule, limit
from homeworld.replication.verifier import Verifier

_FINAL = (SourceLogError, FencedError, RowRefusedError, InvalidError, NotFoundError)
_RATE_SECONDS = 10.0
_STOP_GRACE = 2.0
_AGAIN_SECONDS = 0.1


class RunningMover:
    """A mover in this process (ports.Mover). Made by :meth:`start`.

    :param throttle: further rules that slow the copy down.
    :param chunk_bytes: about how much is copied in one transaction a target.
    """

    def __init__(
        self, spec: MoverSpec, throttle: Sequence[ThrottleRule] = (), chunk_bytes: int = AIM_BYTES
    ) -> None:
        self.spec = spec
        self._chunk_bytes = chunk_bytes
        self._rules = tuple(throttle)
        self._stopping = threading.Event()
        lag = limit("lag of the stream", lambda: self.lag_seconds, spec.max_lag_seconds)
        self._gauges = Gauges(spec, self._stopping)
        self._throttle = Throttle((lag, *self._rules), readings=self._gauges.readings, limits=spec.limits)
        self._ended = threading.Event()
        self._news = threading.Event()
        self._grace = _STOP_GRACE
        self._lock = threading.Lock()
        self._phase = Phase.STARTING
        self._ddl = ""
        self._failure: BaseException | None = None
        self._copied = not spec.copy_rows
        self._threads: list[threading.Thread] = []
        self._copiers: list[Copier] = []
        self._builder: KeyBuilder | None = None
        self._assembly: Assembly | None = None
        self._board: CopyBoard | None = None
        self._verifier: Verifier | None = None
        self._samples: deque[tuple[float, int]] = deque()

    def start(self) -> None:
        """Claim the streams and start the threads.

        :raises FencedError: a newer epoch has the streams.
        :raises PreconditionsFailedError: the tables cannot be moved as they are.
        :raises UnavailableError: a server cannot be reached.
        """
        made = self._assembly = assemble(self.spec, self._stopping)
        self._board = CopyBoard(
            epoch=self.spec.epoch,
            tables=sorted(made.tables, key=lambda table: -table.rows_total),
            targets=self.spec.targets,
            followers=made.followers,
            throttle=self._throttle,
            stopping=self._stopping,
            several_sources=len(self.spec.sources) > 1,
            chunk_bytes=self._chunk_bytes,
        )
        for table in made.tables:
            table.rows_a_chunk = max(1, min(table.rows_a_chunk, self._chunk_bytes // 100))
        self._copied = self._board.complete() and not self.spec.defer_secondary_keys
        self._phase = Phase.FOLLOWING if self._copied else Phase.COPYING
        self._gauges.start()
        for server, follower in made.followers.items():
            follower.throttle = self._throttle
            self._spawn(f"read {server}", follower.reader.run)
            self._spawn(f"apply {server}", follower.run)
        if not self._copied:
            self._spawn("copy", self._copy)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def _spawn(self, name: str, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=self._guarded, args=(work,), name=name, daemon=True)
        with self._lock:
            self._threads.append(thread)
        thread.start()
        return thread

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except StoppedError:
            if not self._stopping.is_set():
                self._fail(UnavailableError("a part of the mover has stopped by itself"))
        except BaseException as error:  # noqa: BLE001  kept, told by progress(), and all others are stopped
            self._fail(error)
        finally:
            self._news.set()

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            # What comes after the first failure, or after stop(), is its consequence.
            if self._failure is None and not self._stopping.is_set():
                self._failure = error
        self._let_go()

    def _let_go(self) -> None:
        self._stopping.set()
        if self._assembly is not None:
            for follower in self._assembly.followers.values():
                follower.reader.stop()

    def _copy(self) -> None:
        """Copy all rows, then build what keys were left out."""
        board = self._board
        made = self._assembly
        if board is None or made is None:
            return
        if not board.complete():
            self._copiers = [Copier(board) for _ in range(max(1, self.spec.copy_threads))]
            for thread in [self._spawn(f"copy {at}", copier.run) for at, copier in enumerate(self._copiers)]:
                thread.join()
        if not self._stopping.is_set() and self.spec.defer_secondary_keys and self.spec.copy_rows:
            self._phase = Phase.INDEXING
            first = self.spec.sources[0]
            streams = [stream_id(self.spec, first, target) for target in self.spec.targets]
            # As they are by now, after whatever DDL was carried over.
            now = {table.table.name: table.table for table in made.tables if table.source == first}
            self._builder = KeyBuilder(
                now, self.spec.targets, streams, self.spec.epoch, self._stopping, self._throttle.reason
            )
            self._builder.run()
        if not self._stopping.is_set():
            self._copied = True
            self._phase = Phase.FOLLOWING

    def _watch(self) -> None:
        """Wait for the end; then cut what does not end by itself, and say what the end was."""
        self._stopping.wait()
        deadline = time.monotonic() + self._grace
        while alive := [thread for thread in self._threads if thread.is_alive()]:
            alive[0].join(max(0.05, deadline - time.monotonic()))
            if time.monotonic() > deadline:
                self._cut()
                deadline = time.monotonic() + 0.5
        if self._assembly is not None:
            for follower in self._assembly.followers.values():
                follower.appliers.close()
        with self._lock:
            if isinstance(self._failure, DdlStopError):
                self._ddl = self._failure.message
                self._phase = Phase.DDL
            else:
                self._phase = Phase.STOPPED if self._failure is None else Phase.FAILED
        self._ended.set()
        self._news.set()

    def _cut(self) -> None:
        for copier in self._copiers:
            copier.cut()
        if self._builder is not None:
            self._builder.cut()
        if self._verifier is not None:
            self._verifier.cut()
        if self._assembly is not None:
            for follower in self._assembly.followers.values():
                follower.appliers.cut()

    @property
    def tables(self) -> tuple[MovingTable, ...]:
        """The moving tables, each of each source shard."""
        return self._assembly.tables if self._assembly is not None else ()

    def follower_of(self, shard: str) -> Follower:
        """Who follows the server of a source shard.

        :raises UnavailableError: the mover has not started.
        """
        if self._assembly is None:
            raise UnavailableError("the mover has not started")
        return self._assembly.follower_of(shard)

    @property
    def lag_seconds(self) -> float:
        """The largest lag of any source server."""
        followers = self._assembly.followers.values() if self._assembly is not None else ()
        return max((follower.lag_seconds for follower in followers), default=0.0)

    def progress(self) -> MoverProgress:
        """The newest state."""
        phase = self._phase  # read once, and first: whatever belongs to its end was there before it was said
        failure = self._failure if phase is Phase.FAILED else None
        stop = self._failure if phase is Phase.DDL else None
        stopped = isinstance(stop, DdlStopError)
        tables = self._tables()
        copied = sum(table.rows_copied for table in tables)
        rate = self._rate(copied)
        made = self._assembly
        left = sum(max(0, table.rows_total - table.rows_copied) for table in tables)
        return MoverProgress(
            phase=phase,
            copied=self._copied,
            tables=tables,
            streams=self._streams(),
            lag_seconds=self.lag_seconds,
            rows_per_second=0.0 if self._copied else rate,
            eta_seconds=left / rate if rate and not self._copied else 0.0,
            verification=self._verifier.progress() if self._verifier is not None else None,
            ddl=self._ddl if phase is Phase.DDL else "",
            error=_told(failure) if failure is not None else "",
            retryable=not isinstance(failure, _FINAL) and not (stopped and stop.final),
            emptied=stop.emptied if stopped else (),
            outage=is_outage(failure),
            passed=sum(rule.passed for rule in made.rules) if made is not None else 0,
        )

    def _tables(self) -> tuple[TableProgress, ...]:
        totals: dict[str, tuple[int, int, bool]] = {}
        for table in self.tables:
            copied, total, complete = totals.get(table.table.name, (0, 0, True))
            totals[table.table.name] = (
                copied + sum(table.rows_copied),
                total + table.rows_total,
                complete and table.map.complete,
            )
        return tuple(
            TableProgress(name, copied, copied if complete else max(total, copied))
            for name, (copied, total, complete) in totals.items()
        )

    def _streams(self) -> tuple[StreamProgress, ...]:
        made = self._assembly
        if made is None:
            return ()
        working = not self._copied and self._phase in (Phase.COPYING, Phase.INDEXING)
        copying = self._throttle.told() if working else ""
        unmeasured = self._throttle.unknown()
        found: list[StreamProgress] = []
        for source in self.spec.sources:
            follower = made.follower_of(source.shard)
            mine = [table for table in made.tables if table.source == source]
            found += (
                StreamProgress(
                    source_shard=source.shard,
                    target_shard=target.shard,
                    position=follower.position,
                    rows_copied=sum(table.rows_copied[at] for table in mine),
                    events_applied=follower.appliers.targets[at].events,
                    lag_seconds=follower.lag_seconds,
                    throttled_by=_throttled(copying, follower.throttled_by),
                    unmeasured=unmeasured,
                )
                for at, target in enumerate(self.spec.targets)
            )
        return tuple(found)

    def _rate(self, copied: int) -> float:
        """Rows a second over the last seconds that somebody asked."""
        now = time.monotonic()
        with self._lock:
            samples = self._samples
            samples.append((now, copied))
            while len(samples) > 2 and now - samples[0][0] > _RATE_SECONDS:
                samples.popleft()
            since, before = samples[0]
        return (copied - before) / (now - since) if now > since else 0.0

    def drain(self, positions: Mapping[str, str], timeout_seconds: float) -> None:
        """Return once every target has applied everything up to ``positions`` (source shard to position), and
        its sidecar says so.

        :raises DeadlineExceededError: not within the time, or the mover has ended.
        """
        deadline = time.monotonic() + timeout_seconds
        self.hurry(timeout_seconds)
        for shard, position in positions.items():
            follower = self.follower_of(shard)
            try:
                follower.wait(position, deadline - time.monotonic())
            except DeadlineExceededError:
                if self._failure is not None:
                    raise UnavailableError(f"the mover has ended: {_told(self._failure)}") from None
                raise
            try:
                self._catch_up(follower, deadline)
            except DeadlineExceededError:
                raise
            except BaseException as error:
                # While nothing comes from the source, nobody else would find out that a target is lost.
                self._fail(error)
                raise

    def _catch_up(self, follower: Follower, deadline: float) -> None:
        while True:
            try:
                follower.catch_up()
            except ServerError as error:  # somebody has the rows of the sidecar locked, perhaps
                if not isinstance(or_again(error), TryAgainError):
                    raise
                if time.monotonic() > deadline:
                    raise DeadlineExceededError(
                        f"the position could not be written in time: {error}"
                    ) from error
                if self._stopping.wait(_AGAIN_SECONDS):
                    raise UnavailableError("the mover is being stopped") from error
            else:
                return

    def verify(self, verify_id: str, *, repair: bool = False) -> None:
        """Begin comparing both sides; ``progress().verification`` tells how it goes.

        :param repair: copy the rows that differ once more, and compare them again.
        :raises UnavailableError: the copy is not complete, or another comparison is under way.
        """
        made = self._assembly
        if made is None or not self._copied or self._stopping.is_set():
            raise UnavailableError("there is nothing to compare before the copy is complete")
        with self._lock:
            if self._verifier is not None and not self._verifier.done:
                raise UnavailableError("a comparison is under way")
            verifier = self._verifier = Verifier(made, verify_id, self._stopping, repair=repair)
        self._spawn("verify", verifier.run)

    def limit(self, limits: ThrottleLimits) -> None:
        """Give way by these limits from now on."""
        self._throttle.limit(limits)

    def hurry(self, seconds: float) -> None:
        """Hold no applying back for so long."""
        self._throttle.hurry(seconds)

    def stop(self, timeout_seconds: float) -> None:
        """Stop in order; when this returns nothing of this mover will write again.

        :raises DeadlineExceededError: some thread has not ended in time; it is being cut off.
        """
        with self._lock:
            self._grace = max(_STOP_GRACE, timeout_seconds / 2)
        self._let_go()
        if not self._ended.wait(timeout_seconds):
            raise DeadlineExceededError("the mover has not ended in time")

    def news(self, timeout_seconds: float) -> bool:
        """Wait until a part of the work has come to its end, or for so long; whether all has. One caller."""
        self._news.wait(timeout_seconds)
        self._news.clear()
        return self._ended.is_set()


def _throttled(copying: str, applying: str) -> str:
    """What waits and for what, in the words of ``component_throttled``."""
    if copying:
        return f"copy: {copying}"
    return f"apply: {applying}" if applying else ""


def _told(error: BaseException) -> str:
    if isinstance(error, HomeworldError):
        return str(error) or error.message
    return f"{type(error).__name__}: {error}"
