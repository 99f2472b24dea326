"""The errand of webhooks: fans events out into deliveries and sends those that are due, under one lease.

Theory of operation: ``turn`` is called again and again by whoever holds the lease. It reads the outbox from
the durable cursor on, writes deliveries and cursor in one transaction, and hands what is due to a pool of
threads, one delivery of a webhook at a time. Each thread sends and stores what came of it by the lease's
token.

Invariant: a request begins only while the lease outlives it, so nobody else can be sending the same; what is
not stored as sent is sent again.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Protocol

from homeworld.model.errors import FencedError, NotFoundError, UnavailableError
from homeworld.model.names import new_id
from homeworld.model.webhooks import EVENTS, SIGNATURE, Subject, body, signature
from homeworld.store.outbox import MOST_FORGOTTEN, Event
from homeworld.store.store import Store, Transaction
from homeworld.store.webhooks import Delivery, Webhook
from homeworld.webhooks.retries import Retries
from homeworld.webhooks.sending import Outcome

CONSUMER = "webhooks"
DELIVERY = "X-Homeworld-Delivery"
AT_ONCE = 16
KEPT_DAYS = 7
"""So long events are kept that are told of, for whoever wants to see what happened."""
_BATCH = 50
_REST_SECONDS = 1.0
# The cursor is stored with deliveries; where there were none it is moved when so much lies behind.
_STRIDE = 1000
_STORE_AGAIN_SECONDS = 0.5
_FIRST_FORGET_SECONDS = 30.0  # what a process does first is not to tidy up
_FORGET_SECONDS = 600.0
_log = logging.getLogger(__name__)


class Tenure(Protocol):
    """A lease that is held."""

    @property
    def left_seconds(self) -> float: ...  # noqa: D102 - as on workflows.leases.Lease
    @property
    def lost(self) -> bool: ...  # noqa: D102
    def require(self, tx: Transaction) -> None: ...  # noqa: D102


class Subjects(Protocol):
    """What events are about; the API has it."""

    def database_of(self, tx: Transaction, kind: str, resource_id: str) -> str | None:
        """The database that a resource belongs to; None where nobody can be told of such resources."""
        ...

    def show(self, tx: Transaction, kind: str, resource_id: str) -> Subject:
        """The resource as the API shows it now."""
        ...


class Sends(Protocol):
    """What sends one request; :class:`~homeworld.webhooks.sending.Post`."""

    seconds: float

    def __call__(  # noqa: D102 - as on Post
        self, url: str, content: bytes, headers: dict[str, str], ready: Callable[[], None]
    ) -> Outcome: ...


class Dispatcher:
    """Implements the errand.

    :param wake: called when there may be more to do at once; from any thread.
    """

    resource = "webhooks"
    on_commit = True

    def __init__(
        self,
        store: Store,
        subjects: Subjects,
        send: Sends,
        *,
        retries: Retries = Retries(),  # noqa: B008 - frozen
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._subjects = subjects
        self._send = send
        self._retries = retries
        self.wake = wake
        self._position = 0
        self._forget_at = time.monotonic() + _FIRST_FORGET_SECONDS
        self._busy: set[tuple[str, bool]] = set()
        self._guard = threading.Lock()
        self._failure: BaseException | None = None
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhooks")

    def turn(self, lease: Tenure) -> float:
        """Do what there is to do; seconds until it should be called again without a reason.

        :raises FencedError: the lease is lost.
        """
        if self._failure is not None:
            raise self._failure
        while self._fan_out(lease):
            pass
        self._send_due(lease)
        if time.monotonic() >= self._forget_at:
            more = self.forget(lease)
            self._forget_at = time.monotonic() + (_REST_SECONDS if more else _FORGET_SECONDS)
        return _REST_SECONDS

    def forget(self, lease: Tenure) -> bool:
        """Delete events of long ago; nobody but this errand reads them. Whether there may be more.

        :raises FencedError: the lease is lost.
        """
        with self._store.write() as tx:
            lease.require(tx)
            since, cursor = tx.webhooks.listens_since(), tx.outbox.cursor(CONSUMER)
            handled = tx.outbox.last() if since is None else max(cursor, since)
            gone = tx.outbox.forget(tx.work.now - timedelta(days=KEPT_DAYS), handled)
        return gone == MOST_FORGOTTEN

    def stop(self, seconds: float) -> None:
        """Begin nothing more and let what is under way end."""
        self._stopping.set()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with self._guard:
                if not self._busy:
                    break
            time.sleep(0.02)
        self._pool.shutdown(wait=False, cancel_futures=True)

    # -- events ----------------------------------------------------------------------------------------------

    def _fan_out(self, lease: Tenure) -> bool:
        """One batch; whether there may be more."""
        with self._store.read() as tx:
            since, last, cursor = tx.webhooks.listens_since(), tx.outbox.last(), tx.outbox.cursor(CONSUMER)
            if since is None:
                self._position = last
                return False
            after = max(self._position, cursor, since)
            events = tx.outbox.named(EVENTS, after, last, _BATCH) if after < last else ()
        if not events:
            self._position = max(after, last)
            if self._position - cursor > _STRIDE:
                with self._store.write() as tx:
                    lease.require(tx)
                    tx.outbox.advance(CONSUMER, self._position)
            return False
        with self._store.write() as tx:
            lease.require(tx)
            done = tx.outbox.cursor(CONSUMER)
            for event in events:
                if event.seq > done:
                    self._deliver(tx, event)
            tx.outbox.advance(CONSUMER, events[-1].seq)
        self._position = events[-1].seq
        return True

    def _deliver(self, tx: Transaction, event: Event) -> None:
        kind, resource_id = event.resource_kind, event.resource_id
        try:
            database_id = self._subjects.database_of(tx, kind, resource_id)
        except NotFoundError:
            return
        webhooks = tx.webhooks.listening(database_id, event.event, event.seq) if database_id else ()
        if not webhooks:
            return
        content = failure = ""
        try:
            content = body(event.event, event.at, self._subjects.show(tx, kind, resource_id))
        except UnavailableError:
            raise
        except Exception:  # noqa: BLE001 - one event's fault must not keep all later ones from being told
            _log.exception("event %d (%s of %s %s)", event.seq, event.event, kind, resource_id)
            failure = "the event could not be shown; homeworld's log says why"
        for webhook in webhooks:
            tx.webhooks.queue(webhook.id, event.seq, event.event, content, failure=failure)

    # -- deliveries ------------------------------------------------------------------------------------------

    def _send_due(self, lease: Tenure) -> None:
        # Before the look: what ends after it is still pending in it, and would be sent again.
        with self._guard:
            busy = frozenset(self._busy)
        with self._store.read() as tx:
            at_hand, now = tx.webhooks.at_hand(), tx.work.now
        for webhook, delivery in at_hand:
            key = (webhook.id, delivery.test)
            with self._guard:
                full = len(self._busy) >= AT_ONCE
                if full or self._stopping.is_set() or key in busy or delivery.next_at > now:
                    continue
                self._busy.add(key)
            self._pool.submit(self._work, lease, webhook, delivery)

    def _work(self, lease: Tenure, webhook: Webhook, delivery: Delivery) -> None:
        try:
            self._one(lease, webhook, delivery)
        except FencedError:
            _log.warning("webhook %s: delivery %d is another worker's now", webhook.id, delivery.id)
        except BaseException as error:
            _log.critical("webhook %s: delivery %d", webhook.id, delivery.id, exc_info=True)
            self._failure = error
            raise
        finally:
            with self._guard:
                self._busy.discard((webhook.id, delivery.test))
            self.wake()

    def _one(self, lease: Tenure, webhook: Webhook, delivery: Delivery) -> None:
        def ready() -> None:
            if self._stopping.is_set() or lease.left_seconds < self._send.seconds:
                raise FencedError(resource=self.resource)

        content = delivery.body.encode()
        headers = {SIGNATURE: signature(webhook.secret, content), DELIVERY: str(delivery.id)}
        outcome = self._send(webhook.url, content, headers, ready)
        made = delivery.attempts + 1
        again = None if delivery.test else self._retries.pause(made, random.random())  # noqa: S311 - no secret
        while True:
            try:
                self._note(lease, delivery, outcome, again)
                return
            except UnavailableError as error:
                # What was sent is not sent again only because the store did not answer at once.
                _log.warning("webhook %s: what was sent is not stored yet: %s", webhook.id, error)
                if self._stopping.wait(_STORE_AGAIN_SECONDS):
                    # A process that is to end does not wait for a store that may never answer.
                    raise FencedError(resource=self.resource) from error

    def _note(self, lease: Tenure, delivery: Delivery, outcome: Outcome, again: float | None) -> None:
        with self._store.write() as tx:
            lease.require(tx)
            database_id = tx.webhooks.told(
                delivery, success=outcome.success, result=outcome.result, again_seconds=again
            )
            if not database_id:
                return
            database = tx.databases.get(database_id)
            target = ("webhook", delivery.webhook_id, database.name)
            tx.journal.audit(
                database.organization_id, None, "webhook.disabled", target, audit_id=new_id(),
                metadata={"result": outcome.result},
            )  # fmt: skip
