"""What several published objects share: actors, regions, references, and how request bodies are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator

from homeworld.store.tenants import Actor, Region


class Body(BaseModel):
    """A request body. Unknown keys are ignored; an empty string or null means that the key was not given."""

    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        entries = cast("dict[str, object]", given)
        for value in entries.values():
            several = cast("list[object]", value) if isinstance(value, list) else [value]
            if not all(_can_be_kept(one) for one in several):
                raise ValueError("text must not have NUL characters or lone surrogates")
        return {name: value for name, value in entries.items() if value not in ("", None)}

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, given: object, info: ValidationInfo) -> object:
        wanted: Any = cls.model_fields[str(info.field_name)].annotation
        if isinstance(given, bool) and wanted in (int, int | None, float, float | None):
            raise ValueError("a number is needed, not true or false")
        return given


def _can_be_kept(value: object) -> bool:
    if not isinstance(value, str):
        return True
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


class ActorOut(BaseModel):
    """Who did something. All fields are empty where nobody did it yet: the published object is never null."""

    id: str = ""
    display_name: str = ""
    avatar_url: str = ""

    @classmethod
    def of(cls, actors: Mapping[str, Actor], actor_id: str | None) -> ActorOut:
        """The actor of that id, or the empty one."""
        actor = actors.get(actor_id or "")
        if actor is None:
            return cls()
        return cls(id=actor.id, display_name=actor.display_name, avatar_url=actor.avatar_url)

    @classmethod
    def maybe(cls, actors: Mapping[str, Actor], actor_id: str | None) -> ActorOut | None:
        """The actor of that id, or None, where the published object may be null."""
        return cls.of(actors, actor_id) if actor_id in actors else None


class RegionOut(BaseModel):
    """A region."""

    id: str
    provider: str
    enabled: bool
    public_ip_addresses: Sequence[str]
    display_name: str
    location: str
    slug: str
    current_default: bool
    mysql_supported: bool
    postgresql_supported: bool

    @classmethod
    def of(cls, region: Region) -> RegionOut:
        """The region as published."""
        return cls(
            id=region.id,
            provider=region.provider,
            enabled=region.enabled,
            public_ip_addresses=region.public_ip_addresses,
            display_name=region.display_name,
            location=region.location,
            slug=region.slug,
            current_default=region.current_default,
            mysql_supported=region.mysql_supported,
            postgresql_supported=region.postgresql_supported,
        )


class ResourceOut(BaseModel):
    """A reference to a resource."""

    id: str
    name: str
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
