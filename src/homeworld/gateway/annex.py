"""What a gateway may have beside its MySQL clients: another door to the same sessions.

Protocols only. Everything is called on the gateway's loop, :meth:`Annex.open` before its start is told.
"""

from __future__ import annotations

from typing import Protocol

from homeworld.gateway.connection import House
from homeworld.gateway.session import Session


class Annex(Protocol):
    """Lets clients in that do not speak the MySQL protocol."""

    async def open(self, house: House) -> None:
        """Take clients from now on.

        :raises OSError: it cannot.
        """
        ...

    def look(self) -> None:
        """Look after what is kept; called every second."""
        ...

    def end_unwelcome(self) -> None:
        """Accounts or branches have changed: end the sessions that may not be any more (``may_stay``)."""
        ...

    def stop(self) -> None:
        """Take no more clients; what is under way may come to its end."""
        ...

    async def close(self) -> None:
        """End everything."""
        ...


class NoAnnex:
    """There is none."""

    async def open(self, house: House) -> None:
        """Nothing."""

    def look(self) -> None:
        """Nothing."""

    def end_unwelcome(self) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""

    async def close(self) -> None:
        """Nothing."""


def may_stay(house: House, session: Session) -> bool:
    """Whether a session's account may still be in from where it is."""
    return house.branch_of(session.account) is session.branch and house.welcomes(session)
