"""Replication positions of both flavours behind one opaque value.

MySQL names a position by a *set* of transactions (``uuid[:tag]:1-5:7``), which may have holes; MariaDB by
the last sequence number of each domain (``domain-server-seq``), which implies all before it. Whoever is not
the feed only parses, compares, unites and prints. This module knows no server and no binlog.

Invariant: ``str(Position.parse(flavor, str(p))) == str(p)``, and the text is one the server itself accepts
(an empty interval such as ``1-0`` is refused by servers, hence never read and never written).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias, TypeVar
from uuid import UUID

from homeworld.model.errors import InvalidError
from homeworld.model.topology import Flavor

#: A MySQL transaction source: 16 bytes of the server's UUID and its tag (empty where there is none).
Source: TypeAlias = tuple[bytes, str]

_TAG = re.compile(r"^[a-z_][a-z0-9_]{0,31}$")
_INTERVAL = re.compile(r"^([0-9]{1,19})(?:-([0-9]{1,19}))?$")
_MARIADB = re.compile(r"^([0-9]{1,10})-([0-9]{1,10})-([0-9]{1,20})$")
_MAX_GNO = (1 << 63) - 1
_P = TypeVar("_P", bound="Position")


class Position(ABC):
    """Where a stream is. Values are immutable; two of different flavours must not meet."""

    __slots__ = ()

    @staticmethod
    def parse(flavor: Flavor, text: str) -> Position:
        """Read a GTID set as ``flavor`` prints it; the empty text is the position before everything.

        :raises InvalidError: the text is not a GTID set of this flavour.
        """
        if flavor is Flavor.MYSQL:
            return MysqlPosition.from_text(text)
        return MariadbPosition.from_text(text)

    @abstractmethod
    def contains(self, other: Position) -> bool:
        """Whether everything in ``other`` is in this position too."""

    @abstractmethod
    def union(self, other: Position) -> Position:
        """The position that holds what either holds."""

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def __bool__(self) -> bool:
        """False for the position before everything."""


class IntervalSet:
    """Disjoint, sorted, non-adjacent closed intervals of whole numbers; grows in place.

    Kept as two parallel lists, because nearly every addition extends the last interval by one.
    """

    __slots__ = ("ends", "starts")

    def __init__(self, intervals: Iterable[tuple[int, int]] = ()) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        for first, last in intervals:
            self.add(first, last)

    def add(self, first: int, last: int) -> None:
        """Add ``first``..``last``, both included."""
        starts, ends = self.starts, self.ends
        if ends and first == ends[-1] + 1:
            ends[-1] = last
            return
        # Every interval from the first that ends at or after first-1 up to the last that starts at or before
        # last+1 melts into the new one.
        low = bisect_right(ends, first - 2)
        high = bisect_right(starts, last + 1)
        if low < high:
            first = min(first, starts[low])
            last = max(last, ends[high - 1])
        starts[low:high] = [first]
        ends[low:high] = [last]

    def contains(self, first: int, last: int) -> bool:
        """Whether all of ``first``..``last`` is in the set."""
        index = bisect_right(self.starts, first) - 1
        return index >= 0 and last <= self.ends[index]

    def copy(self) -> IntervalSet:
        """An independent set of the same intervals."""
        made = IntervalSet()
        made.starts = self.starts.copy()
        made.ends = self.ends.copy()
        return made

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.starts, self.ends, strict=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IntervalSet) and self.starts == other.starts and self.ends == other.ends

    def __hash__(self) -> int:
        return hash((tuple(self.starts), tuple(self.ends)))

    def __str__(self) -> str:
        return ":".join(f"{a}-{b}" if a != b else f"{a}" for a, b in self)


class MysqlPosition(Position):
    """A MySQL GTID set."""

    __slots__ = ("_sources",)

    def __init__(self, sources: Mapping[Source, IntervalSet]) -> None:
        self._sources = {
            source: intervals.copy() for source, intervals in sources.items() if intervals.starts
        }

    @classmethod
    def from_text(cls, text: str) -> MysqlPosition:
        """Read ``uuid[:tag]:intervals[:tag:intervals]…``, comma-separated, in any case and spacing.

        :raises InvalidError: not a GTID set.
        """
        sources: dict[Source, IntervalSet] = {}
        for part in "".join(text.split()).split(","):
            if part:
                _read_source(part, sources)
        return cls(sources)

    @property
    def sources(self) -> Mapping[Source, IntervalSet]:
        """The intervals of each source; must not be changed."""
        return self._sources

    def contains(self, other: Position) -> bool:
        """Whether everything in ``other`` is in this position too."""
        for source, intervals in _same(MysqlPosition, other).sources.items():
            mine = self._sources.get(source)
            if mine is None or not all(mine.contains(a, b) for a, b in intervals):
                return False
        return True

    def union(self, other: Position) -> MysqlPosition:
        """The position that holds what either holds."""
        made = MysqlPosition(self._sources)
        for source, intervals in _same(MysqlPosition, other).sources.items():
            mine = made._sources.setdefault(source, IntervalSet())
            for first, last in intervals:
                mine.add(first, last)
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MysqlPosition) and self._sources == other._sources

    def __hash__(self) -> int:
        return hash(frozenset(self._sources.items()))

    def __bool__(self) -> bool:
        return bool(self._sources)

    def __str__(self) -> str:
        return mysql_text(self._sources)

    def __repr__(self) -> str:
        return f"MysqlPosition({str(self)!r})"


class MariadbPosition(Position):
    """The last transaction of each MariaDB domain."""

    __slots__ = ("_domains",)

    def __init__(self, domains: Mapping[int, tuple[int, int]]) -> None:
        self._domains = dict(domains)

    @classmethod
    def from_text(cls, text: str) -> MariadbPosition:
        """Read ``domain-server-seq``, comma-separated; of several in a domain the highest counts.

        :raises InvalidError: not a GTID list.
        """
        domains: dict[int, tuple[int, int]] = {}
        for part in "".join(text.split()).split(","):
            if not part:
                continue
            match = _MARIADB.match(part)
            if match is None:
                raise InvalidError(f"{part!r} is not a MariaDB GTID; expected domain-server-sequence")
            domain, server, sequence = (int(group) for group in match.groups())
            if domain >= 1 << 32 or server >= 1 << 32 or not 0 < sequence < 1 << 64:
                raise InvalidError(f"{part!r} is out of the range of MariaDB GTIDs")
            if domain not in domains or domains[domain][1] < sequence:
                domains[domain] = (server, sequence)
        return cls(domains)

    @property
    def domains(self) -> Mapping[int, tuple[int, int]]:
        """Domain to (server id, sequence); must not be changed."""
        return self._domains

    def contains(self, other: Position) -> bool:
        """Whether everything in ``other`` is in this position too."""
        mine = self._domains
        return all(
            domain in mine and mine[domain][1] >= sequence
            for domain, (_, sequence) in _same(MariadbPosition, other).domains.items()
        )

    def union(self, other: Position) -> MariadbPosition:
        """The position that holds what either holds."""
        made = dict(self._domains)
        for domain, last in _same(MariadbPosition, other).domains.items():
            if domain not in made or made[domain][1] < last[1]:
                made[domain] = last
        return MariadbPosition(made)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MariadbPosition) and self._domains == other._domains

    def __hash__(self) -> int:
        return hash(frozenset(self._domains.items()))

    def __bool__(self) -> bool:
        return bool(self._domains)

    def __str__(self) -> str:
        return mariadb_text(self._domains)

    def __repr__(self) -> str:
        return f"MariadbPosition({str(self)!r})"


class Progress:
    """A position that grows in place, one transaction at a time: what a feed keeps.

    Adding is cheap; ``text()`` costs in proportion to the number of sources and intervals.
    """

    __slots__ = ("_domains", "_sources", "flavor")

    def __init__(self, start: Position) -> None:
        self._sources: dict[Source, IntervalSet] = {}
        self._domains: dict[int, tuple[int, int]] = {}
        if isinstance(start, MysqlPosition):
            self.flavor = Flavor.MYSQL
            self._sources = {source: intervals.copy() for source, intervals in start.sources.items()}
        elif isinstance(start, MariadbPosition):
            self.flavor = Flavor.MARIADB
            self._domains = dict(start.domains)
        else:
            raise InvalidError("not a position of a known flavour")

    def add_mysql(self, source: Source, gno: int) -> None:
        """Add one MySQL transaction."""
        intervals = self._sources.get(source)
        if intervals is None:
            intervals = self._sources[source] = IntervalSet()
        intervals.add(gno, gno)

    def add_mariadb(self, domain: int, server: int, sequence: int) -> None:
        """Move a MariaDB domain to this transaction, as the server does: the newest in the log counts."""
        self._domains[domain] = (server, sequence)

    def position(self) -> Position:
        """The position now, as a value that no longer grows."""
        if self.flavor is Flavor.MYSQL:
            return MysqlPosition(self._sources)
        return MariadbPosition(self._domains)

    def text(self) -> str:
        """The position now, as text."""
        return mysql_text(self._sources) if self.flavor is Flavor.MYSQL else mariadb_text(self._domains)


def mysql_text(sources: Mapping[Source, IntervalSet]) -> str:
    """MySQL's own canonical text: sources by UUID, then by tag, without line breaks."""
    parts: list[str] = []
    last = b""
    for source in sorted(sources):
        uuid, tag = source
        intervals = f"{tag}:{sources[source]}" if tag else f"{sources[source]}"
        if uuid == last:
            parts[-1] += f":{intervals}"
        else:
            parts.append(f"{UUID(bytes=uuid)}:{intervals}")
            last = uuid
    return ",".join(parts)


def mariadb_text(domains: Mapping[int, tuple[int, int]]) -> str:
    """``domain-server-seq``, by domain."""
    return ",".join(f"{domain}-{server}-{sequence}" for domain, (server, sequence) in sorted(domains.items()))


def _same(kind: type[_P], other: Position) -> _P:
    if not isinstance(other, kind):
        raise InvalidError(f"cannot compare a position of another flavour ({other}) here")
    return other


def _read_source(part: str, sources: dict[Source, IntervalSet]) -> None:
    head, *rest = part.split(":")
    if not re.fullmatch(r"[0-9a-fA-F-]{32,36}", head):
        raise InvalidError(f"{part!r} does not begin with a server's UUID")
    try:
        uuid = UUID(head).bytes
    except ValueError as error:
        raise InvalidError(f"{part!r} does not begin with a server's UUID") from error
    if not rest:
        raise InvalidError(f"{part!r} names no transactions")
    tag = ""
    intervals = None
    for word in rest:
        match = _INTERVAL.match(word)
        if match is None:
            tag = word.lower()
            if not _TAG.match(tag):
                raise InvalidError(f"{word!r} is neither an interval nor a tag")
            intervals = None
            continue
        first = int(match[1])
        last = int(match[2] or first)
        if not 0 < first <= last <= _MAX_GNO:
            raise InvalidError(f"{word!r} is not an interval of transaction numbers")
        if intervals is None:
            intervals = sources.setdefault((uuid, tag), IntervalSet())
        intervals.add(first, last)
    if intervals is None:
        raise InvalidError(f"{part!r} ends with a tag that names no transactions")
