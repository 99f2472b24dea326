"""The throttler as vtctld's clients see it: a server's check and status, a keyspace's settings.

It is the one throttler there is: settings are kept beside the published ratios and reach movers the same way.
Servers are asked between transactions and never in one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Annotated, Any, cast

from fastapi import Query

from homeworld.api.calls import Api, ApiDep, Call, CallerDep, InBranch
from homeworld.api.listing import Routes
from homeworld.api.routes.reparents import BRANCH, cell_of, server_named
from homeworld.api.schemas.reparents import EnvelopedOut, alias_of
from homeworld.api.schemas.tablet_throttlers import (
    APP,
    EXCEEDED,
    OK,
    UNKNOWN,
    CheckOut,
    CheckThrottler,
    ConfigureThrottler,
    MetricOut,
    StreamThrottledOut,
    ThrottledApp,
    ThrottledAppOut,
    ThrottlerConfigOut,
    ThrottlerStatusOut,
)
from homeworld.api.schemas.throttler import MOST_RATIO
from homeworld.model.errors import InvalidError, NotFoundError, UnavailableError
from homeworld.model.movers import ThrottleLimits
from homeworld.model.throttling import (
    ENABLED,
    THRESHOLD,
    UNTIL,
    KeyspaceThrottle,
    limits_between,
    throttle_of,
)

router = Routes(tags=["vtctld"])
_LONGEST = timedelta(days=3652)

_THROTTLER = BRANCH + "/vtctld/throttler"
_LAG = "lag"


@dataclass(frozen=True, slots=True)
class _Seat:
    """A server with what it is to its shards.

    :param replicas: the servers whose lag counts for its shard; on a replica only itself.
    """

    alias: str
    server_id: str
    keyspace: str
    shard: str
    replicas: tuple[str, ...]
    throttle: KeyspaceThrottle
    limits: ThrottleLimits
    streams: tuple[StreamThrottledOut, ...]


def _seat(call: Call, alias: str) -> _Seat:
    """The server of that alias.

    :raises NotFoundError: there is none, or no shard is on it.
    """
    server = server_named(call, alias)
    keyspaces = {one.id: one for one in call.tx.keyspaces.of_branch(call.branch.id)}
    primary = server.replica_of or server.id
    shards = [one for one in call.tx.keyspaces.shards_of(list(keyspaces)) if one.primary_server_id == primary]
    if not shards:
        raise NotFoundError(f"no shard is on tablet {alias}")
    shard = min(shards, key=lambda one: (keyspaces[one.keyspace_id].name, one.ordinal))
    keyspace = keyspaces[shard.keyspace_id]
    throttle = _throttle(call, keyspace.name)
    limits, streams = limits_between({}, throttle), tuple[StreamThrottledOut, ...]()
    active = call.tx.workflows.active_on([call.branch.id]).get(call.branch.id)
    on_server = {one.keyspace_id for one in shards}
    if active is not None and on_server & {active.source_keyspace_id, active.target_keyspace_id}:
        sides = call.tx.keyspaces.by_ids((active.source_keyspace_id, active.target_keyspace_id))
        limits = limits_between(active.limits, *(_throttle(call, one.name) for one in sides.values()))
        streams = tuple(
            StreamThrottledOut(
                workflow=active.name,
                stream_id=str(one.id),
                component_throttled=one.component_throttled,
                time_throttled=one.component_throttled_at,
            )
            for one in call.tx.progress.streams_of([active.id])
        )
    replicas = tuple(shard.replica_server_ids) if server.id == primary else (server.id,)
    return _Seat(
        alias_of(cell_of(call), server.id), server.id, keyspace.name, shard.name, replicas, throttle, limits,
        streams,
    )  # fmt: skip


def _throttle(call: Call, keyspace: str) -> KeyspaceThrottle:
    database = call.tx.databases.get(call.database.id)
    return throttle_of(keyspace, database.throttler_ratios, database.throttler_configs, call.now)


def _lag(api: Api, seat: _Seat, *, own: bool) -> MetricOut:
    """The lag of the server itself (of a primary: none), or the worst of its shard's replicas."""
    threshold = seat.limits.replica_lag_seconds
    lags: list[float] = [0.0]
    wrong: list[str] = []
    for server_id in seat.replicas if not own or seat.server_id in seat.replicas else ():
        try:
            status = api.settings.inspection.status(server_id)
        except (NotFoundError, UnavailableError) as error:
            wrong.append(f"{server_id}: {error.message}")
            continue
        if status.replica_lag_seconds is not None:
            lags.append(status.replica_lag_seconds)
        elif status.replica_of is not None:
            wrong.append(f"{server_id}: {status.replication_error or 'it does not tell its lag'}")
    worst = max(lags)
    if threshold is not None and worst > threshold:
        told = f"a replica is {worst:g} s behind, more than {threshold:g} s"
        return MetricOut(name=_LAG, value=worst, threshold=threshold, response_code=EXCEEDED, error=told)
    if wrong:
        return MetricOut(
            name=_LAG, value=None, threshold=threshold, response_code=UNKNOWN, error="; ".join(wrong)
        )
    return MetricOut(name=_LAG, value=worst, threshold=threshold, response_code=OK, error="")


@router.post(_THROTTLER + "/check", operation_id="check_vtctld_throttler")
def check_vtctld_throttler(
    api: ApiDep, caller: CallerDep, path: InBranch, body: CheckThrottler
) -> EnvelopedOut[CheckOut]:
    """Whether work on a server's shard would give way now, by the lag of replicas. Nothing is changed."""
    with api.read(caller, "check_vtctld_throttler", path) as call:
        seat = _seat(call, body.tablet_alias)
    metric = _lag(api, seat, own=body.scope == "self")
    code, message = metric.response_code, ""
    if not seat.throttle.enabled:
        code, message = OK, f"the throttler of keyspace {seat.keyspace} is disabled"
    elif code == UNKNOWN and body.ok_if_not_exists:
        code = OK
    elif code == OK and seat.throttle.ratio and body.app_name in (None, APP):
        message = f"{APP} rests {seat.throttle.ratio} % of the time in any case"
    return EnvelopedOut(
        data=CheckOut(
            response_code=code,
            value=metric.value,
            threshold=metric.threshold,
            error=metric.error if code != OK else "",
            message=message,
            app_name=body.app_name or APP,
            metrics={_LAG: metric},
        )
    )


@router.get(_THROTTLER + "/status", operation_id="get_vtctld_throttler_status")
def get_vtctld_throttler_status(
    api: ApiDep,
    caller: CallerDep,
    path: InBranch,
    tablet_alias: Annotated[str, Query(max_length=100)] = "",
) -> EnvelopedOut[ThrottlerStatusOut]:
    """How the throttler of a server's shard is set, and what it does right now."""
    with api.read(caller, "get_vtctld_throttler_status", path) as call:
        if not tablet_alias:
            raise InvalidError("name the tablet_alias; list-tablets says which there are")
        seat = _seat(call, tablet_alias)
    limits = seat.limits
    return EnvelopedOut(
        data=ThrottlerStatusOut(
            tablet_alias=seat.alias,
            keyspace=seat.keyspace,
            shard=seat.shard,
            enabled=seat.throttle.enabled,
            default_threshold=limits.replica_lag_seconds,
            metric_thresholds={
                _LAG: limits.replica_lag_seconds,
                "threads_running": limits.source_threads_running,
                "history_list": limits.source_history_length,
            },
            aggregated_metrics={
                "self/lag": _lag(api, seat, own=True),
                "shard/lag": _lag(api, seat, own=False),
            },
            throttled_apps=_apps(seat.throttle),
            streams=seat.streams,
        )
    )


def _apps(throttle: KeyspaceThrottle) -> Mapping[str, ThrottledAppOut]:
    if not throttle.ratio:
        return {}
    return {APP: ThrottledAppOut(name=APP, ratio=throttle.ratio / 100, expires_at=throttle.until)}


@router.put(_THROTTLER + "/config", operation_id="update_vtctld_throttler_config")
def update_vtctld_throttler_config(
    api: ApiDep, caller: CallerDep, path: InBranch, body: ConfigureThrottler
) -> EnvelopedOut[ThrottlerConfigOut]:
    """Set how work on a keyspace gives way, for the keyspaces of that name of all the database's branches."""
    with api.write(caller, "update_vtctld_throttler_config", path) as call:
        if body.app_checked_metrics:
            raise InvalidError(
                "which figures count cannot be chosen: lag, threads_running and history_list always do"
            )
        if body.keyspace not in {one.name for one in call.tx.keyspaces.of_branch(call.branch.id)}:
            raise NotFoundError(f"there is no keyspace {body.keyspace} on branch {call.branch.name}")
        database = call.tx.databases.get(call.database.id)
        ratios = dict(database.throttler_ratios)
        configs = dict(cast("Mapping[str, Mapping[str, Any]]", database.throttler_configs))
        config = dict(configs.get(body.keyspace, {}))
        if body.enabled is not None:
            config[ENABLED] = body.enabled
        if body.threshold is not None:
            config[THRESHOLD] = body.threshold
        for app in body.unthrottle_apps or ():
            _known(app)
            ratios.pop(body.keyspace, None)
            config.pop(UNTIL, None)
        for one in body.apps or ():
            ratios[body.keyspace] = _percent(one)
            config.pop(UNTIL, None)
            if one.expire_at is not None:
                config[UNTIL] = _until(call, one)
        configs[body.keyspace] = config
        call.tx.databases.update(call.database.id, throttler_ratios=ratios, throttler_configs=configs)
        call.audit(
            "database.throttler_updated",
            "database",
            database.id,
            database.name,
            keyspace=body.keyspace,
            ratio=ratios.get(body.keyspace, 0),
            **config,
        )
        throttle = _throttle(call, body.keyspace)
    return EnvelopedOut(
        data=ThrottlerConfigOut(
            keyspace=body.keyspace,
            enabled=throttle.enabled,
            threshold=throttle.threshold,
            throttled_apps=_apps(throttle),
        )
    )


def _known(app: str) -> None:
    if app != APP:
        raise InvalidError(f"there is no app {app} here that could rest; the one there is is {APP}")


def _percent(app: ThrottledApp) -> int:
    """The share as the published ratio has it.

    :raises InvalidError: no such app, or it cannot rest so much.
    """
    _known(app.name)
    percent = round((1.0 if app.ratio is None else app.ratio) * 100)
    if percent > MOST_RATIO:
        raise InvalidError(
            f"{APP} can rest {MOST_RATIO} % of the time at most: ask for a ratio up to {MOST_RATIO / 100}, "
            "or stop the workflow"
        )
    return percent


def _until(call: Call, app: ThrottledApp) -> str:
    """When the ratio ends, as it is kept.

    :raises InvalidError: it has ended already, or the time has no zone.
    """
    if app.expire_at is None or app.expire_at.tzinfo is None:
        raise InvalidError("expire_at needs a zone, such as 2026-01-01T00:00:00Z")
    if app.expire_at <= call.now:
        raise InvalidError("expire_at must be in the future")
    if app.expire_at > call.now + _LONGEST:
        raise InvalidError("expire_at must be within ten years")
    return app.expire_at.astimezone(UTC).isoformat()
