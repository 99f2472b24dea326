"""Webhooks: list, create, get, change, delete, test, and what was delivered."""

from __future__ import annotations

from urllib.parse import urlsplit

from homeworld.api.calls import Api, ApiDep, Caller, CallerDep, Id, InDatabase, Path
from homeworld.api.event_subjects import show_in
from homeworld.api.listing import Routes
from homeworld.api.pages import Listing, PageDep, listing
from homeworld.api.schemas.webhooks import CreateWebhook, UpdateWebhook, WebhookDeliveryOut, WebhookOut
from homeworld.model.addresses import Reach
from homeworld.model.webhooks import TEST, body, check_url
from homeworld.store.webhooks import WebhookFields

router = Routes(tags=["Webhooks"])

_ALL = "/organizations/{organization}/databases/{database}/webhooks"
_ONE = _ALL + "/{id}"


def _check_url(api: Api, url: str) -> None:
    networks = api.settings.webhook_networks
    check_url(url, Reach(networks), plain=bool(networks))


@router.get(_ALL, operation_id="list_webhooks")
def list_webhooks(api: ApiDep, caller: CallerDep, path: InDatabase, page: PageDep) -> Listing[WebhookOut]:
    """The database's webhooks, oldest first."""
    with api.read(caller, "list_webhooks", path) as call:
        found = call.tx.webhooks.page(call.database.id, page)
        return listing(caller, found, [WebhookOut.of(webhook) for webhook in found.items])


@router.post(_ALL, operation_id="create_webhook", status_code=201)
def create_webhook(api: ApiDep, caller: CallerDep, path: InDatabase, asked: CreateWebhook) -> WebhookOut:
    """A new webhook, with a secret that signs what it is sent."""
    _check_url(api, asked.url)
    with api.write(caller, "create_webhook", path) as call:
        webhook = call.tx.webhooks.create(
            call.database.id,
            asked.url,
            events=asked.events,
            enabled=asked.enabled,
            actor_id=call.actor_id,
        )
        call.audit(
            "webhook.created", "webhook", webhook.id, call.database.name,
            url=_place_of(webhook.url), events=list(webhook.events),
        )  # fmt: skip
        return WebhookOut.of(webhook)


@router.get(_ONE, operation_id="get_webhook")
def get_webhook(api: ApiDep, caller: CallerDep, path: InDatabase, webhook_id: Id) -> WebhookOut:
    """A webhook."""
    with api.read(caller, "get_webhook", path) as call:
        return WebhookOut.of(call.tx.webhooks.get(call.database.id, webhook_id))


@router.patch(_ONE, operation_id="update_webhook")
def update_webhook(
    api: ApiDep, caller: CallerDep, path: InDatabase, webhook_id: Id, asked: UpdateWebhook
) -> WebhookOut:
    """Change what is given. One that is enabled is told of what happens from then on."""
    fields = WebhookFields()
    if asked.url is not None:
        _check_url(api, asked.url)
        fields["url"] = asked.url
    if asked.enabled is not None:
        fields["enabled"] = asked.enabled
    if asked.events is not None:
        fields["events"] = asked.events
    with api.write(caller, "update_webhook", path) as call:
        webhook = call.tx.webhooks.get(call.database.id, webhook_id)
        if fields:
            webhook = call.tx.webhooks.update(webhook, **fields)
        call.audit(
            "webhook.updated", "webhook", webhook.id, call.database.name,
            url=_place_of(webhook.url), enabled=webhook.enabled, events=list(webhook.events),
        )  # fmt: skip
        return WebhookOut.of(webhook)


@router.delete(_ONE, operation_id="delete_webhook", status_code=204)
def delete_webhook(api: ApiDep, caller: CallerDep, path: InDatabase, webhook_id: Id) -> None:
    """Tell it nothing more."""
    _delete(api, caller, path, webhook_id)


def _place_of(url: str) -> str:
    """Where it leads, for people who may read the audit log: many have their secret in the path."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _delete(api: Api, caller: Caller, path: Path, webhook_id: str) -> None:
    with api.write(caller, "delete_webhook", path) as call:
        webhook = call.tx.webhooks.get(call.database.id, webhook_id)
        call.tx.webhooks.delete(webhook)
        call.audit("webhook.deleted", "webhook", webhook.id, call.database.name)


@router.post(_ONE + "/test", operation_id="test_webhook", status_code=204)
def test_webhook(api: ApiDep, caller: CallerDep, path: InDatabase, webhook_id: Id) -> None:
    """Send a test soon, also where it is disabled; what came of it stands in ``last_sent_result``."""
    with api.write(caller, "test_webhook", path) as call:
        webhook = call.tx.webhooks.get(call.database.id, webhook_id)
        subject = show_in(call, call.database, "database", call.database.id)
        call.tx.webhooks.queue_test(webhook, body(TEST, call.now, subject))
        call.audit("webhook.tested", "webhook", webhook.id, call.database.name)


@router.get(_ONE + "/deliveries", operation_id="list_webhook_deliveries")
def list_webhook_deliveries(
    api: ApiDep, caller: CallerDep, path: InDatabase, webhook_id: Id, page: PageDep
) -> Listing[WebhookDeliveryOut]:
    """What was, or is to be, sent to the webhook, newest first; of what is over the newest hundred."""
    with api.read(caller, "list_webhook_deliveries", path) as call:
        webhook = call.tx.webhooks.get(call.database.id, webhook_id)
        found = call.tx.webhooks.deliveries(webhook.id, page)
        return listing(caller, found, [WebhookDeliveryOut.of(delivery) for delivery in found.items])
