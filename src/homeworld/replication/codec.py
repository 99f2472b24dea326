"""MoverSpec, MoverProgress and errors as JSON values, between a mover's process and its owner's.

Pure. A spec holds passwords: its JSON goes through a pipe and nowhere else. Invariant: reading back gives an
equal value.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from homeworld.model import errors
from homeworld.model.movers import (
    MoverProgress,
    MoverSpec,
    OnDdl,
    Phase,
    Placement,
    ReplicaPlace,
    RowDifference,
    StreamProgress,
    TableProgress,
    TableVerification,
    ThrottleLimits,
    Verification,
    VerificationRound,
)
from homeworld.model.topology import Endpoint, Flavor, ShardPlace

Json = dict[str, Any]


def spec_to_json(spec: MoverSpec) -> Json:
    """The spec, with its secrets."""
    placements = tuple(replace(each, vindex_params=dict(each.vindex_params)) for each in spec.placements)
    return asdict(replace(spec, placements=placements, start_positions=dict(spec.start_positions)))


def spec_from_json(raw: Json) -> MoverSpec:
    """Read :func:`spec_to_json` back."""
    fields: Json = {
        **raw,
        "flavor": Flavor(raw["flavor"]),
        "on_ddl": OnDdl(raw["on_ddl"]),
        "sources": tuple(_place(each) for each in raw["sources"]),
        "targets": tuple(_place(each) for each in raw["targets"]),
        "placements": tuple(_placement(each) for each in raw["placements"]),
        "limits": limits_from_json(raw["limits"]),
        "source_replicas": tuple(_replica(each) for each in raw["source_replicas"]),
        "target_replicas": tuple(_replica(each) for each in raw["target_replicas"]),
    }
    return MoverSpec(**fields)


def limits_to_json(limits: ThrottleLimits) -> Json:
    """The limits."""
    return asdict(limits)


def limits_from_json(raw: Json) -> ThrottleLimits:
    """Read :func:`limits_to_json` back."""
    return ThrottleLimits(**raw)


def _placement(raw: Json) -> Placement:
    fields: Json = {**raw, "vindex_columns": tuple(raw["vindex_columns"])}
    return Placement(**fields)


def _place(raw: Json) -> ShardPlace:
    fields: Json = {**raw, "endpoint": _endpoint(raw["endpoint"])}
    return ShardPlace(**fields)


def _replica(raw: Json) -> ReplicaPlace:
    return ReplicaPlace(raw["primary_id"], _endpoint(raw["endpoint"]))


def _endpoint(raw: Json) -> Endpoint:
    fields: Json = {**raw, "flavor": Flavor(raw["flavor"])}
    return Endpoint(**fields)


def progress_to_json(progress: MoverProgress) -> Json:
    """All that a mover tells."""
    return asdict(progress)


def progress_from_json(raw: Json) -> MoverProgress:
    """Read :func:`progress_to_json` back."""
    verification = raw["verification"]
    fields: Json = {
        **raw,
        "phase": Phase(raw["phase"]),
        "tables": tuple(TableProgress(**each) for each in raw["tables"]),
        "streams": tuple(StreamProgress(**each) for each in raw["streams"]),
        "emptied": tuple(raw["emptied"]),
        "verification": None if verification is None else _verification(verification),
    }
    return MoverProgress(**fields)


def _verification(raw: Json) -> Verification:
    fields: Json = {
        **raw,
        "tables": tuple(_table(each) for each in raw["tables"]),
        "rounds": tuple(VerificationRound(**each) for each in raw["rounds"]),
    }
    return Verification(**fields)


def _table(raw: Json) -> TableVerification:
    fields: Json = {**raw, "differences": tuple(_difference(each) for each in raw["differences"])}
    return TableVerification(**fields)


def _difference(raw: Json) -> RowDifference:
    fields: Json = {**raw, "columns": tuple(raw["columns"])}
    return RowDifference(**fields)


def error_to_json(error: BaseException) -> Json:
    """An error's kind, message and what else makes it."""
    raw: Json = {"kind": type(error).__name__, "message": str(error)}
    if isinstance(error, errors.HomeworldError):
        raw["message"] = error.message
    if isinstance(error, errors.PreconditionsFailedError):
        raw["reasons"] = list(error.reasons)
    if isinstance(error, errors.ServerError):
        raw["errno"], raw["state"] = error.server_errno, error.server_state
    return raw


def error_from_json(raw: Json) -> errors.HomeworldError:
    """The error again; HomeworldError where its kind is none of model/errors.py's."""
    if "reasons" in raw:
        return errors.PreconditionsFailedError(tuple(raw["reasons"]))
    if "errno" in raw:
        return errors.ServerError(raw["errno"], raw["state"], raw["message"])
    kind = getattr(errors, raw["kind"], None)
    if isinstance(kind, type) and issubclass(kind, errors.HomeworldError):
        return kind(raw["message"])
    return errors.HomeworldError(f"{raw['kind']}: {raw['message']}")
