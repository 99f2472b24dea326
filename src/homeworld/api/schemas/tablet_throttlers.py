"""The throttler in the words of vtctld's clients: how it is set, what a server's check says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from homeworld.api.schemas.common import Body
from homeworld.api.schemas.databases import Name
from homeworld.api.schemas.reparents import Alias

OK = "THROTTLER_RESPONSE_CODE_OK"
EXCEEDED = "THROTTLER_RESPONSE_CODE_THRESHOLD_EXCEEDED"
UNKNOWN = "THROTTLER_RESPONSE_CODE_UNKNOWN_METRIC"
APP = "vreplication"
"""What rests here: the copying and applying of moves."""


def _number(given: Any) -> Any:
    """A number; no truth value, which the validator would take for one."""
    if isinstance(given, bool):
        raise ValueError("must be a number")  # noqa: TRY004 - a validator's refusal
    return given


Seconds = Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False), BeforeValidator(_number)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), BeforeValidator(_number)]


class CheckThrottler(Body):
    """The body of check_vtctld_throttler. Heartbeats are not used here, so not renewing them is no matter."""

    tablet_alias: Alias
    app_name: Annotated[str, Field(max_length=255)] | None = None
    scope: Literal["shard", "self"] | None = None
    skip_request_heartbeats: bool | None = None
    ok_if_not_exists: bool | None = None


class ThrottledApp(Body):
    """What is to rest for a share of the time, and until when."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    ratio: Share | None = None
    expire_at: datetime | None = None


class ConfigureThrottler(Body):
    """The body of update_vtctld_throttler_config; what is not given stays."""

    keyspace: Name
    enabled: bool | None = None
    threshold: Seconds | None = None
    apps: Annotated[list[ThrottledApp], Field(max_length=100)] | None = None
    unthrottle_apps: Annotated[list[Annotated[str, Field(max_length=255)]], Field(max_length=100)] | None = (
        None
    )
    app_checked_metrics: Mapping[str, Annotated[list[str], Field(max_length=100)]] | None = None


class ThrottledAppOut(BaseModel):
    """What rests for a share of the time; ``expires_at`` is null where it does not end by itself."""

    name: str
    ratio: float
    expires_at: datetime | None


class ThrottlerConfigOut(BaseModel):
    """How work on a keyspace gives way; ``threshold`` is null where each workflow's own limit holds."""

    keyspace: str
    enabled: bool
    threshold: float | None
    throttled_apps: Mapping[str, ThrottledAppOut]


class MetricOut(BaseModel):
    """A figure and what was found of it; ``value`` is null where it is not known."""

    name: str
    value: float | None
    threshold: float | None
    response_code: str
    error: str


class CheckOut(BaseModel):
    """What a check says. ``error`` is why the figure is not known, or by what it is too high."""

    response_code: str
    value: float | None
    threshold: float | None
    error: str
    message: str
    app_name: str
    metrics: Mapping[str, MetricOut]


class StreamThrottledOut(BaseModel):
    """A stream to or from the server's shards, and what it waits for now; empty: nothing."""

    workflow: str
    stream_id: str
    component_throttled: str
    time_throttled: datetime | None


class ThrottlerStatusOut(BaseModel):
    """A server's throttler: settings, figures, and which streams give way now. Where the server has shards of
    several keyspaces, settings are those of ``keyspace``, the first by name.
    """

    tablet_alias: str
    keyspace: str
    shard: str
    enabled: bool
    default_threshold: float | None
    metric_name_used_as_default: str = "lag"
    metric_thresholds: Mapping[str, float | None]
    aggregated_metrics: Mapping[str, MetricOut]
    throttled_apps: Mapping[str, ThrottledAppOut]
    streams: Sequence[StreamThrottledOut]
