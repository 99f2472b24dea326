"""Which part of a table is ahead, under way and done: the copy's map of one source shard's table.

The key space is cut into segments ``(low, high]`` in the server's order. A segment is done for some targets,
and may have a chunk under way for the others; otherwise it is ahead for them. The map knows no server but the
connection it is lent for comparing keys, and no thread: whoever changes or asks it holds the gate.

Invariant: the segments cover every key exactly once, in order; a chunk belongs to exactly one segment.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from homeworld.model.errors import InvalidError
from homeworld.replication.changes import Row
from homeworld.replication.connection import Connection
from homeworld.replication.keyorder import Key, TableKey

#: For each key the row that it ends with, None where it is gone.
Outcome: TypeAlias = dict[Key, Row | None]


@dataclass(frozen=True, slots=True)
class Span:
    """The keys greater than ``low`` and not greater than ``high``; None: no bound on that side."""

    low: Key | None
    high: Key | None


@dataclass(slots=True, eq=False)
class Chunk:
    """A span whose rows are being copied. ``kept``: target to what changed since it began."""

    span: Span
    kept: dict[int, Outcome]

    @property
    def targets(self) -> tuple[int, ...]:
        """The targets that do not have the rows yet."""
        return tuple(self.kept)


@dataclass(slots=True, eq=False)
class Segment:
    """A piece of the map that ends at ``high``."""

    high: Key | None
    done: frozenset[int]
    chunk: Chunk | None = field(default=None)


class TableMap:
    """The map of one table.

    :param targets: how many target shards there are; they are numbered from 0.
    :param done: for each target the spans that it has.
    :param connection: to the source, to put edges in order; may be None where Python can compare.
    """

    def __init__(
        self,
        key: TableKey,
        targets: int,
        done: Sequence[Iterable[Span]] = (),
        connection: Connection | None = None,
    ) -> None:
        self.key = key
        self._all = frozenset(range(targets))
        self._segments = [Segment(None, frozenset())]
        self._edges: list[Key] = []
        self._recall(done, connection)
        self._settle()

    @property
    def complete(self) -> bool:
        """Every target has every row."""
        return len(self._segments) == 1 and self._segments[0].done == self._all

    @property
    def untouched(self) -> bool:
        """No target has or gets any row yet."""
        return not self._edges and not self._segments[0].done and self._segments[0].chunk is None

    @property
    def busy(self) -> bool:
        """Some chunk is under way."""
        return any(segment.chunk is not None for segment in self._segments)

    def next_gap(self) -> Span | None:
        """The first span that is to be copied and that nobody is at."""
        low: Key | None = None
        for segment in self._segments:
            if segment.chunk is None and segment.done != self._all:
                return Span(low, segment.high)
            low = segment.high
        return None

    def begin(self, span: Span) -> Chunk:
        """Begin the copy of ``span``, which starts where a gap starts and does not reach beyond it."""
        at = 0 if span.low is None else self._edges.index(span.low) + 1
        segment = self._segments[at]
        if segment.chunk is not None or segment.done == self._all:
            raise InvalidError("a chunk may begin in a gap only")
        if span.high != segment.high:
            if span.high is None:
                raise InvalidError("a chunk may not reach beyond its gap")
            segment = self._cut(at, span.high)
        chunk = Chunk(span, {target: {} for target in sorted(self._all - segment.done)})
        segment.chunk = chunk
        return chunk

    def shorten(self, chunk: Chunk, high: Key) -> None:
        """The chunk ends at ``high`` already; what it kept beyond is the business of a later chunk, whose
        snapshot has it. ``kept`` must be sifted by the caller, who can compare.
        """
        at = self._at(chunk)
        self._cut(at, high)
        self._segments[at].chunk = chunk
        self._segments[at + 1].chunk = None
        chunk.span = Span(chunk.span.low, high)

    def landed(self, chunk: Chunk, target: int) -> None:
        """The target has committed the chunk's rows."""
        segment = self._segments[self._at(chunk)]
        segment.done |= {target}
        del chunk.kept[target]
        if not chunk.kept:
            segment.chunk = None
        self._settle()

    def give_up(self, chunk: Chunk) -> None:
        """Nobody is at the chunk any more; where it has not landed its span is ahead again."""
        for segment in self._segments:
            if segment.chunk is chunk:
                segment.chunk = None

    def segments_of(self, connection: Connection | None, keys: Sequence[Key]) -> list[Segment]:
        """The segment of each key."""
        ranks = self.key.ranks(connection, keys, self._edges)
        return [self._segments[rank] for rank in ranks]

    def sift(
        self, connection: Connection | None, target: int, outcome: Outcome
    ) -> list[tuple[Chunk, Outcome]]:
        """Leave in ``outcome`` what is to be applied to the target now: keys of spans that it has.

        What belongs to a chunk under way for it is given back, to be kept; the rest is dropped, because a
        later snapshot has it.
        """
        keys = list(outcome)
        kept: dict[int, tuple[Chunk, Outcome]] = {}
        for key, segment in zip(keys, self.segments_of(connection, keys), strict=True):
            if target in segment.done:
                continue
            row = outcome.pop(key)
            chunk = segment.chunk
            if chunk is not None:
                kept.setdefault(id(chunk), (chunk, {}))[1][key] = row
        return list(kept.values())

    def done_spans(self, target: int, landing: Chunk | None = None) -> tuple[Span, ...]:
        """What the target has, joined; ``landing`` counts as there already."""
        spans: list[Span] = []
        low: Key | None = None
        last_done = False
        for segment in self._segments:
            done = target in segment.done or (landing is not None and segment.chunk is landing)
            if done and last_done:
                spans[-1] = Span(spans[-1].low, segment.high)
            elif done:
                spans.append(Span(low, segment.high))
            low, last_done = segment.high, done
        return tuple(spans)

    def _at(self, chunk: Chunk) -> int:
        for at, segment in enumerate(self._segments):
            if segment.chunk is chunk:
                return at
        raise InvalidError("this chunk is not under way")

    def _cut(self, at: int, high: Key) -> Segment:
        """Put an edge at ``high`` into segment ``at``; the part before it."""
        segment = self._segments[at]
        made = Segment(high, segment.done)
        self._segments.insert(at, made)
        self._edges.insert(at, high)
        return made

    def _settle(self) -> None:
        """Join neighbours that all targets have."""
        segments, edges = self._segments, self._edges
        at = 0
        while at < len(edges):
            if segments[at].done == self._all == segments[at + 1].done:
                del segments[at], edges[at]
            else:
                at += 1

    def _recall(self, done: Sequence[Iterable[Span]], connection: Connection | None) -> None:
        spans = [tuple(each) for each in done]
        known = dict.fromkeys(
            edge for each in spans for span in each for edge in (span.low, span.high) if edge is not None
        )
        self._edges = self.key.ordered(connection, list(known))
        places = {edge: at for at, edge in enumerate(self._edges)}
        segments = [Segment(edge, frozenset()) for edge in (*self._edges, None)]
        for target, each in enumerate(spans):
            for span in each:
                first = 0 if span.low is None else places[span.low] + 1
                last = len(self._edges) if span.high is None else places[span.high]
                for segment in segments[first : last + 1]:
                    segment.done |= {target}
        self._segments = segments


def spans_to_text(spans: Iterable[Span]) -> str:
    """Spans as the sidecar keeps them."""
    return json.dumps([[_key_to_json(span.low), _key_to_json(span.high)] for span in spans])


def spans_from_text(text: str) -> tuple[Span, ...]:
    """Read :func:`spans_to_text` back."""
    return tuple(Span(_key_from_json(low), _key_from_json(high)) for low, high in json.loads(text or "[]"))


def _key_to_json(key: Key | None) -> list[str] | None:
    return None if key is None else [value.hex() for value in key]


def _key_from_json(parts: list[str] | None) -> Key | None:
    return None if parts is None else tuple(bytes.fromhex(part) for part in parts)
