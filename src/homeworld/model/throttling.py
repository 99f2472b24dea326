"""How work on a keyspace gives way, as it is kept for a database: pure readings of what was asked for.

Kept are two objects by keyspace name: the published ratios, and what vtctld's clients can ask for beyond them
(``enabled``, ``threshold``, until when a ratio counts). A name stands for the keyspaces of all branches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, cast

from homeworld.model.movers import ThrottleLimits

ENABLED = "enabled"
THRESHOLD = "threshold"
UNTIL = "ratio_until"


@dataclass(frozen=True, slots=True)
class KeyspaceThrottle:
    """How work on one keyspace gives way.

    :param enabled: whether it does at all.
    :param threshold: seconds of a replica's lag above which it does; None: a workflow's own limit, or what is
        usual.
    :param ratio: percent of the time that it rests in any case, now.
    :param until: when the ratio ends; None: it does not end by itself, or there is none.
    """

    enabled: bool = True
    threshold: float | None = None
    ratio: int = 0
    until: datetime | None = None


def throttle_of(
    name: str, ratios: Mapping[str, int], configs: Mapping[str, object], now: datetime
) -> KeyspaceThrottle:
    """What holds for a keyspace at ``now``.

    >>> throttle_of("shop", {"shop": 40}, {}, datetime(2026, 1, 1, tzinfo=UTC)).ratio
    40
    """
    config = cast("Mapping[str, Any]", configs.get(name, {}))
    until = datetime.fromisoformat(config[UNTIL]).astimezone(UTC) if config.get(UNTIL) else None
    over = until is not None and until <= now
    return KeyspaceThrottle(
        enabled=bool(config.get(ENABLED, True)),
        threshold=config.get(THRESHOLD),
        ratio=0 if over else ratios.get(name, 0),
        until=None if over else until,
    )


def limits_between(asked: Mapping[str, Any], *sides: KeyspaceThrottle) -> ThrottleLimits:
    """How a move between keyspaces gives way: the larger ratio, the smaller threshold; not at all where every
    side has it switched off.

    :param asked: of the workflow itself, by the names of ThrottleLimits; they count before the sides'.
    """
    if sides and not any(side.enabled for side in sides):
        return ThrottleLimits(None, None, None, 0)
    limits = ThrottleLimits(ratio=max((side.ratio for side in sides if side.enabled), default=0))
    thresholds = [side.threshold for side in sides if side.enabled and side.threshold is not None]
    if thresholds:
        limits = replace(limits, replica_lag_seconds=min(thresholds))
    return replace(limits, **asked)
