"""Webhooks as published, the bodies that create and change them, and their deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from homeworld.api.schemas.common import Body
from homeworld.api.schemas.databases import Name
from homeworld.model.webhooks import LONGEST_URL
from homeworld.store.webhooks import Delivery, Webhook

Url = Annotated[str, Field(max_length=LONGEST_URL)]
Events = Annotated[list[Name], Field(max_length=100)]


class CreateWebhook(Body):
    """The body of create_webhook. As documented, a webhook is disabled until somebody enables it."""

    url: Url
    enabled: bool = False
    events: Events = Field(default_factory=list)


class UpdateWebhook(Body):
    """The body of update_webhook; what is not given stays."""

    url: Url | None = None
    enabled: bool | None = None
    events: Events | None = None


class WebhookOut(BaseModel):
    """A webhook."""

    id: str
    url: str
    secret: str
    enabled: bool
    last_sent_result: str
    last_sent_success: bool
    last_sent_at: datetime | None
    created_at: datetime
    updated_at: datetime
    events: Sequence[str]

    @classmethod
    def of(cls, webhook: Webhook) -> WebhookOut:
        """The webhook as published."""
        return cls(
            id=webhook.id,
            url=webhook.url,
            secret=webhook.secret,
            enabled=webhook.enabled,
            last_sent_result=webhook.last_sent_result,
            last_sent_success=webhook.last_sent_success,
            last_sent_at=webhook.last_sent_at,
            created_at=webhook.created_at,
            updated_at=webhook.updated_at,
            events=webhook.events,
        )


class WebhookDeliveryOut(BaseModel):
    """What was, or is to be, sent to a webhook. ``next_attempt_at`` is null once it is over."""

    id: str
    event: str
    state: str
    attempts: int
    result: str
    created_at: datetime
    updated_at: datetime
    next_attempt_at: datetime | None

    @classmethod
    def of(cls, delivery: Delivery) -> WebhookDeliveryOut:
        """The delivery without its body."""
        return cls(
            id=str(delivery.id),
            event=delivery.event,
            state=delivery.state,
            attempts=delivery.attempts,
            result=delivery.result,
            created_at=delivery.created_at,
            updated_at=delivery.updated_at,
            next_attempt_at=delivery.next_at if delivery.state == "pending" else None,
        )
