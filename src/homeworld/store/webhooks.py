"""Webhooks and their deliveries.

Invariants: of one event a webhook has one delivery at most; of the deliveries that are not over only the
oldest is at hand (tests are beside that order); a webhook that is disabled or deleted has none left to be
sent but tests; of those that are over the newest KEPT are kept.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypedDict, Unpack

from sqlalchemy import Select, and_, delete, func, insert, select, update

from homeworld.model.errors import InvalidError
from homeworld.model.names import new_id
from homeworld.model.webhooks import EVENTS, TEST
from homeworld.store.outbox import Outbox
from homeworld.store.pages import Page, PageRequest, fetch_page
from homeworld.store.tables import webhooks as tables
from homeworld.store.work import Work

MOST = 5
KEPT = 100
TEST_PAUSE_SECONDS = 20
DISABLED_AFTER = 20


class DeliveryState(StrEnum):
    """How far a delivery is; all but pending are over."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook. ``failures`` counts failed attempts since the last one that was not."""

    id: str
    database_id: str
    url: str
    secret: str
    events: Sequence[str]
    enabled: bool
    since_seq: int
    failures: int
    last_sent_result: str
    last_sent_success: bool
    last_sent_at: datetime | None
    actor_id: str | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one webhook. ``next_at``: not to be sent before."""

    id: int
    webhook_id: str
    seq: int | None
    event: str
    test: bool
    body: str
    state: DeliveryState
    attempts: int
    next_at: datetime
    result: str
    created_at: datetime
    updated_at: datetime


class WebhookFields(TypedDict, total=False):
    """What may be changed."""

    url: str
    enabled: bool
    events: Sequence[str]


def _delivery(state: str, **columns: object) -> Delivery:
    return Delivery(state=DeliveryState(state), **columns)  # pyright: ignore[reportArgumentType] - the row's own types


def check_events(events: Sequence[str]) -> tuple[str, ...]:
    """The events without repetition.

    :raises InvalidError: one does not exist.
    """
    for event in events:
        if event not in EVENTS:
            raise InvalidError(f"there is no event {event!r}; events are {', '.join(EVENTS)}")
    return tuple(dict.fromkeys(events))


class Webhooks:
    """Webhooks within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def create(
        self,
        database_id: str,
        url: str,
        *,
        events: Sequence[str] = (),
        enabled: bool = False,
        actor_id: str | None = None,
    ) -> Webhook:
        """A new webhook with a secret of its own. The URL has been checked.

        :raises InvalidError: an event does not exist, or the database has MOST already.
        """
        table = tables.webhooks
        count = select(func.count()).where(table.c.database_id == database_id, table.c.deleted_at.is_(None))
        if self._work.connection.execute(count).scalar_one() >= MOST:
            raise InvalidError(f"a database can have {MOST} webhooks; delete one first")
        now = self._work.now
        made = Webhook(
            id=new_id(),
            database_id=database_id,
            url=url,
            secret=secrets.token_hex(32),
            events=check_events(events),
            enabled=enabled,
            since_seq=Outbox(self._work).last(),
            failures=0,
            last_sent_result="",
            last_sent_success=False,
            last_sent_at=None,
            actor_id=actor_id,
            created_at=now,
            updated_at=now,
            deleted_at=None,
        )
        self._work.add(table, {field: getattr(made, field) for field in made.__slots__})
        return made

    def get(self, database_id: str, webhook_id: str) -> Webhook:
        """A live webhook.

        :raises NotFoundError: no such webhook.
        """
        table = tables.webhooks
        return self._work.only(self._live(database_id).where(table.c.id == webhook_id), Webhook)

    def page(self, database_id: str, request: PageRequest) -> Page[Webhook]:
        """Live webhooks, oldest first."""
        table = tables.webhooks
        query = self._live(database_id).order_by(table.c.created_at, table.c.id)
        return fetch_page(self._work.connection, query, request, Webhook)

    @staticmethod
    def _live(database_id: str) -> Select[tuple[object, ...]]:
        table = tables.webhooks
        return select(table).where(table.c.database_id == database_id, table.c.deleted_at.is_(None))

    def update(self, webhook: Webhook, **fields: Unpack[WebhookFields]) -> Webhook:
        """Change it; one that is enabled hears what is committed from now on.

        :raises InvalidError: an event does not exist.
        """
        values: dict[str, object] = {**fields, "updated_at": self._work.now}
        if "events" in fields:
            values["events"] = check_events(fields["events"])
        if fields.get("enabled") and not webhook.enabled:
            values |= {"since_seq": Outbox(self._work).last(), "failures": 0}
        if fields.get("enabled") is False:
            self._drop(webhook.id, "the webhook was disabled", tests=False)
        self._work.change(tables.webhooks, tables.webhooks.c.id, webhook.id, values)
        return self.get(webhook.database_id, webhook.id)

    def delete(self, webhook: Webhook) -> None:
        """It is told nothing more."""
        self._drop(webhook.id, "the webhook was deleted", tests=True)
        now = self._work.now
        values = {"deleted_at": now, "updated_at": now, "enabled": False}
        self._work.change(tables.webhooks, tables.webhooks.c.id, webhook.id, values)

    def delete_all(self, database_id: str) -> None:
        """The database is asked away: none of its webhooks is told anything more."""
        for webhook in self._work.all(self._live(database_id), Webhook):
            self.delete(webhook)

    # -- fan-out ---------------------------------------------------------------------------------------------

    def listens_since(self) -> int | None:
        """The smallest ``since_seq`` of the enabled webhooks of all databases; None: there are none."""
        table = tables.webhooks
        query = select(func.min(table.c.since_seq)).where(table.c.enabled, table.c.deleted_at.is_(None))
        return self._work.connection.execute(query).scalar_one_or_none()

    def listening(self, database_id: str, event: str, seq: int) -> tuple[Webhook, ...]:
        """The enabled webhooks of a database that want this event."""
        table = tables.webhooks
        query = self._live(database_id).where(table.c.enabled, table.c.since_seq < seq)
        found = self._work.all(query.order_by(table.c.created_at, table.c.id), Webhook)
        return tuple(webhook for webhook in found if event in webhook.events)

    def queue(self, webhook_id: str, seq: int, event: str, body: str, *, failure: str = "") -> None:
        """A delivery of an event.

        :param failure: why it can never be sent; empty: it is to be.
        """
        state = DeliveryState.FAILED if failure else DeliveryState.PENDING
        self._add(webhook_id, event, body, seq=seq, state=state, result=failure)
        if failure:
            self._prune(webhook_id)

    def queue_test(self, webhook: Webhook, body: str) -> None:
        """A delivery of a test.

        :raises InvalidError: the one before is too fresh.
        """
        table = tables.webhook_deliveries
        since = self._work.now - timedelta(seconds=TEST_PAUSE_SECONDS)
        last = select(func.max(table.c.created_at)).where(
            table.c.webhook_id == webhook.id, table.c.test, table.c.created_at > since
        )
        if self._work.connection.execute(last).scalar_one_or_none() is not None:
            raise InvalidError(f"a webhook can be tested every {TEST_PAUSE_SECONDS} seconds; wait a little")
        self._add(webhook.id, TEST, body, test=True)

    def _add(
        self,
        webhook_id: str,
        event: str,
        body: str,
        *,
        seq: int | None = None,
        test: bool = False,
        state: DeliveryState = DeliveryState.PENDING,
        result: str = "",
    ) -> None:
        now = self._work.now
        self._work.connection.execute(
            insert(tables.webhook_deliveries).values(
                webhook_id=webhook_id,
                seq=seq,
                event=event,
                test=test,
                body=body,
                state=state.value,
                attempts=0,
                next_at=now,
                result=result,
                created_at=now,
                updated_at=now,
            )
        )

    # -- sending ---------------------------------------------------------------------------------------------

    def at_hand(self) -> tuple[tuple[Webhook, Delivery], ...]:
        """The oldest delivery of each webhook that is not over, due or not, and likewise of tests."""
        table = tables.webhook_deliveries
        oldest = (
            select(func.min(table.c.id).label("id"))
            .where(tables.PENDING)
            .group_by(table.c.webhook_id, table.c.test)
            .subquery()
        )
        query = select(table).where(table.c.id.in_(select(oldest.c.id))).order_by(table.c.id)
        deliveries = self._work.all(query, _delivery)
        webhooks = self._work.by_key(tables.webhooks, {one.webhook_id for one in deliveries}, Webhook)
        return tuple((webhooks[one.webhook_id], one) for one in deliveries)

    def told(
        self, delivery: Delivery, *, success: bool, result: str, again_seconds: float | None = None
    ) -> str:
        """An attempt has ended. No-op where the delivery is over meanwhile, but for what the webhook says.

        :param again_seconds: pause until the next attempt; None: there is none.
        :returns: the database's id where the webhook was disabled for its failures, else empty.
        """
        now, table = self._work.now, tables.webhook_deliveries
        if success:
            state = DeliveryState.DELIVERED
        elif again_seconds is None:
            state = DeliveryState.FAILED
        else:
            state = DeliveryState.PENDING
        self._work.connection.execute(
            update(table)
            .where(table.c.id == delivery.id, table.c.state == DeliveryState.PENDING.value)
            .values(
                state=state.value,
                attempts=table.c.attempts + 1,
                result=result,
                next_at=now + timedelta(seconds=again_seconds or 0.0),
                updated_at=now,
            )
        )
        self._prune(delivery.webhook_id)
        webhook = self._work.only(
            select(tables.webhooks).where(tables.webhooks.c.id == delivery.webhook_id), Webhook
        )
        failures = 0 if success else webhook.failures + (0 if delivery.test else 1)
        values: dict[str, object] = {
            "last_sent_at": now,
            "last_sent_success": success,
            "last_sent_result": result,
            "failures": failures,
        }
        disabled = webhook.enabled and failures >= DISABLED_AFTER
        if disabled:
            values |= {"enabled": False, "updated_at": now}
            self._drop(webhook.id, f"the webhook was disabled after {failures} failed attempts", tests=False)
        self._work.change(tables.webhooks, tables.webhooks.c.id, webhook.id, values)
        return webhook.database_id if disabled else ""

    def _drop(self, webhook_id: str, why: str, *, tests: bool) -> None:
        table = tables.webhook_deliveries
        wanted = and_(table.c.webhook_id == webhook_id, table.c.state == DeliveryState.PENDING.value)
        if not tests:
            wanted = and_(wanted, ~table.c.test)
        self._work.connection.execute(
            update(table)
            .where(wanted)
            .values(state=DeliveryState.DROPPED.value, result=why, updated_at=self._work.now)
        )
        self._prune(webhook_id)

    def _prune(self, webhook_id: str) -> None:
        table = tables.webhook_deliveries
        over = and_(table.c.webhook_id == webhook_id, table.c.state != DeliveryState.PENDING.value)
        last = select(table.c.id).where(over).order_by(table.c.id.desc()).offset(KEPT).limit(1)
        oldest = self._work.connection.execute(last).scalar_one_or_none()
        if oldest is not None:
            self._work.connection.execute(delete(table).where(over, table.c.id <= oldest))

    def deliveries(self, webhook_id: str, request: PageRequest) -> Page[Delivery]:
        """A webhook's deliveries, newest first."""
        table = tables.webhook_deliveries
        query = select(table).where(table.c.webhook_id == webhook_id).order_by(table.c.id.desc())
        return fetch_page(self._work.connection, query, request, _delivery)
