"""What a webhook is told: the names of events, the body, its signature, and which URLs can be told.

Pure. Invariant: a body is written in one way only, so that whoever signs what they have read gets the same.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from homeworld.model.addresses import Reach
from homeworld.model.errors import InvalidError
from homeworld.model.states.move_tables import State
from homeworld.model.states.resizing import Resize

# PlanetScale's names. Those that nothing here brings about can be asked for all the same.
PUBLISHED = (
    "branch.ready",
    "branch.anomaly",
    "branch.out_of_memory",
    "branch.primary_promoted",
    "branch.schema_recommendation",
    "branch.sleeping",
    "branch.start_maintenance",
    "cluster.storage",
    "database.access_request",
    "deploy_request.closed",
    "deploy_request.errored",
    "deploy_request.in_progress",
    "deploy_request.opened",
    "deploy_request.pending_cutover",
    "deploy_request.queued",
    "deploy_request.reverted",
    "deploy_request.schema_applied",
    "keyspace.storage",
    "webhook.test",
)
# What happens here and has no name there: told only to who asks for it.
BEYOND = (
    "branch.deleted",
    "keyspace.ready",
    "keyspace.deleted",
    *(f"resize.{state}" for state in (Resize.RESIZING, Resize.COMPLETED, Resize.CANCELED)),
    "workflow.created",
    *(f"workflow.{state}" for state in State if state is not State.PENDING),
)
EVENTS = (*PUBLISHED, *BEYOND)
TEST = "webhook.test"
SIGNATURE = "X-PlanetScale-Signature"
LONGEST_URL = 2048


@dataclass(frozen=True, slots=True)
class Subject:
    """What an event is about: names, and the resource as the API shows it, in JSON values."""

    organization: str
    database: str
    resource: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Address:
    """A URL taken apart. ``target`` is its path and query; ``host`` has no brackets."""

    tls: bool
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """The Host header's value."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def parse_url(url: str) -> Address:
    """Take a webhook's URL apart.

    :raises InvalidError: it is none that can be sent to; the message says why.
    """
    if len(url) > LONGEST_URL or not url.isascii() or any(ord(c) <= 32 or ord(c) == 127 for c in url):
        raise InvalidError(f"url must be at most {LONGEST_URL} ASCII characters without spaces")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise InvalidError(f"url cannot be read: {error}") from None
    if parts.scheme not in {"https", "http"} or not host:
        raise InvalidError("url must be one that begins with https:// and names a host")
    if parts.username is not None or parts.password is not None:
        raise InvalidError("url must not hold a user name or password; check the signature instead")
    if parts.fragment:
        raise InvalidError("url must not have a fragment (#…): it is never sent")
    if port == 0 or len(host) > 253 or "\\" in url:
        raise InvalidError("url has no host or port that can be connected to")
    tls = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Address(tls, host, port or (443 if tls else 80), target)


def check_url(url: str, reach: Reach, *, plain: bool) -> None:
    """What can be said of a URL without asking anybody.

    :param plain: whether there are networks to which plain HTTP may go.
    :raises InvalidError: nothing will ever be sent there.
    """
    address = parse_url(url)
    if not address.tls and not plain:
        raise InvalidError("url must begin with https://")
    literal = ":" in address.host or address.host.replace(".", "").isdigit()
    if literal and (why := reach.refusal(address.host)):
        raise InvalidError(f"webhooks are not sent to this url: {why}")


def body(event: str, at: datetime, subject: Subject) -> str:
    """The body of a delivery."""
    told = {
        "timestamp": int(at.timestamp()),
        "event": event,
        "organization": subject.organization,
        "database": subject.database,
        "resource": dict(subject.resource),
    }
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


def signature(secret: str, content: bytes) -> str:
    """The HMAC-SHA256 of a body, as hexadecimal digits."""
    return hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()
