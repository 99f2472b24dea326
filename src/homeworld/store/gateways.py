"""Gateways as the store knows them: their leases, and the board of holds that one which enters has to keep.

Invariants: a gateway that was set apart renews no more, it has to enter anew; entering and posting a hold are
ordered by the store's one writer, so for each hold and each gateway at least one is true: the gateway was a
member when the hold was posted, or the hold was on the board when the gateway had entered. Every expiry is
judged by the store's own clock, as far as the database has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import delete, func, select, update

from homeworld.model.names import new_secret
from homeworld.model.routing import HoldRequest
from homeworld.model.topology import TabletType
from homeworld.store.tables import gateways as tables
from homeworld.store.work import Work

MEMBER = "member"
APART = "apart"


@dataclass(frozen=True, slots=True)
class Member:
    """A gateway as it stands in the store.

    :param control: where it takes calls: the path of a unix socket.
    :param address: where it serves clients, ``host:port``.
    :param incarnation: grows each time it enters; ``renewals`` with each renewal.
    :param state: MEMBER, or APART where others went on without it.
    :param version: of the routes that it serves, or an older one.
    """

    id: str
    control: str
    address: str
    incarnation: int
    renewals: int
    state: str
    version: int
    expires_at: datetime
    entered_at: datetime


class Gateways:
    """The gateways within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def _now(self) -> datetime:
        """The store's time now, also behind a wait for a lock; the process's where the database has none."""
        if self._work.connection.dialect.name != "postgresql":
            return self._work.now
        return cast("datetime", self._work.connection.execute(select(func.clock_timestamp())).scalar_one())

    # -- leases ----------------------------------------------------------------------------------------------

    def all(self) -> tuple[Member, ...]:
        """Every gateway that is not known to be gone, by id."""
        return self._work.all(select(tables.gateways).order_by(tables.gateways.c.id), Member)

    def enter(self, gateway_id: str, control: str, address: str, ttl_seconds: float) -> int:
        """Become a member, or one again; the incarnation. Called in a transaction of the store's writer, and
        before routes and board are read.
        """
        table, now = tables.gateways, self._now()
        values: dict[str, object] = {
            "control": control,
            "address": address,
            "state": MEMBER,
            "expires_at": now + timedelta(seconds=ttl_seconds),
            "entered_at": now,
        }
        known = self._work.first(select(table).where(table.c.id == gateway_id), Member)
        if known is None:
            first = {"id": gateway_id, "incarnation": 1, "renewals": 0, "version": 0}
            self._work.add(table, {**values, **first})
            return 1
        incarnation = known.incarnation + 1
        again = {"incarnation": incarnation, "renewals": known.renewals + 1}
        self._work.change(table, table.c.id, gateway_id, {**values, **again})
        return incarnation

    def renew(self, gateway_id: str, incarnation: int, version: int, ttl_seconds: float) -> bool:
        """Prolong a lease; False: the gateway was set apart, or has entered anew. Needs no writer's lock.

        :param version: of the routes that it serves.
        """
        table = tables.gateways
        changed = self._work.connection.execute(
            update(table)
            .where(table.c.id == gateway_id, table.c.incarnation == incarnation, table.c.state == MEMBER)
            .values(
                expires_at=self._now() + timedelta(seconds=ttl_seconds),
                renewals=table.c.renewals + 1,
                version=version,
            )
        ).rowcount
        return changed == 1

    def set_apart(self, seen: Member) -> bool:
        """Go on without a gateway whose lease has ended and was not renewed since it was seen so; False: it
        has been, or its lease has not ended.
        """
        table = tables.gateways
        changed = self._work.connection.execute(
            update(table)
            .where(
                table.c.id == seen.id,
                table.c.incarnation == seen.incarnation,
                table.c.renewals == seen.renewals,
                table.c.state == MEMBER,
                table.c.expires_at < self._now(),
            )
            .values(state=APART)
        ).rowcount
        return changed == 1

    def knows(self, seen: Member, version: int) -> None:
        """The gateway has said that it serves that version by now."""
        table = tables.gateways
        self._work.connection.execute(
            update(table)
            .where(table.c.id == seen.id, table.c.incarnation == seen.incarnation, table.c.version < version)
            .values(version=version)
        )

    def remove(self, gateway_id: str) -> None:
        """The gateway's process has ended: an id is one process's, however often that has entered."""
        table = tables.gateways
        self._work.connection.execute(delete(table).where(table.c.id == gateway_id))

    def leave(self, gateway_id: str) -> None:
        """The gateway's own word that it serves nothing any more, member or set apart."""
        table = tables.gateways
        self._work.connection.execute(delete(table).where(table.c.id == gateway_id))

    # -- the board -------------------------------------------------------------------------------------------

    def post(self, request: HoldRequest) -> None:
        """Put a hold on the board for as long as gateways may keep it. Called in a transaction of the store's
        writer, and before the members are read that are asked for it.
        """
        table, now = tables.holds, self._now()
        self._work.connection.execute(delete(table).where(table.c.expires_at < now))
        self._work.connection.execute(delete(table).where(table.c.hold_id == request.hold_id))
        until = now + timedelta(seconds=request.hold_seconds)
        fact = _fact(request)
        self._work.add(table, {"hold_id": request.hold_id, "request": fact, "expires_at": until})

    def take_down(self, hold_id: str) -> None:
        """The hold is over. Unknown ids are fine."""
        table = tables.holds
        self._work.connection.execute(delete(table).where(table.c.hold_id == hold_id))

    def posted(self) -> tuple[HoldRequest, ...]:
        """The holds in force, each with the time that is left of it."""
        table, now = tables.holds, self._now()
        rows = self._work.connection.execute(select(table).where(table.c.expires_at > now))
        return tuple(
            _request(row.hold_id, row.request, (row.expires_at - now).total_seconds()) for row in rows
        )

    # -- the secret ------------------------------------------------------------------------------------------

    def secret(self) -> str:
        """The secret by which gateways are reached, made where there is none. Called in a transaction of the
        store's writer.
        """
        table = tables.secrets
        known = self._work.connection.execute(
            select(table.c.value).where(table.c.name == "gateways")
        ).scalar_one_or_none()
        if known is None:
            known = new_secret()
            self._work.add(table, {"name": "gateways", "value": known})
        return str(known)


def _fact(request: HoldRequest) -> Mapping[str, object]:
    return {
        "branch_id": request.branch_id,
        "tables": sorted(map(list, request.tables)),
        "tablet_types": sorted(request.tablet_types),
        "drain_seconds": request.drain_seconds,
        "subject": request.subject,
        "turn": list(request.turn),
    }


def _request(hold_id: str, fact: Mapping[str, object], seconds: float) -> HoldRequest:
    listed = cast("list[list[str]]", fact["tables"])
    types = cast("list[str]", fact["tablet_types"])
    token, attempt = cast("list[int]", fact["turn"])
    return HoldRequest(
        hold_id=hold_id,
        branch_id=str(fact["branch_id"]),
        tables=frozenset((keyspace, table) for keyspace, table in listed),
        tablet_types=frozenset(map(TabletType, types)),
        drain_seconds=float(cast("float", fact["drain_seconds"])),
        hold_seconds=seconds,
        subject=str(fact["subject"]),
        turn=(token, attempt),
    )
