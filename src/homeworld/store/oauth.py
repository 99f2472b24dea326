"""OAuth applications: who is registered to ask users for access.

Invariant: the secret is told once and kept as a digest; an application that was taken away has no living
token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select

from homeworld.model.names import new_id, new_secret
from homeworld.store.pages import Page, PageRequest, fetch_page
from homeworld.store.tables import access
from homeworld.store.users_secrets import digest, same
from homeworld.store.work import Work


@dataclass(frozen=True, slots=True)
class Application:
    """An OAuth application. ``client_secret_sha256`` never leaves the control plane."""

    id: str
    organization_id: str
    name: str
    domain: str
    redirect_uri: str
    client_id: str
    client_secret_sha256: bytes
    scopes: Sequence[str]
    deleted_at: datetime | None
    created_at: datetime
    updated_at: datetime

    def is_secret(self, secret: str) -> bool:
        """Whether this is the application's secret."""
        return same(digest(secret), self.client_secret_sha256)


class Applications:
    """Applications within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def create(
        self, organization_id: str, name: str, domain: str, redirect_uri: str, scopes: Sequence[str]
    ) -> tuple[Application, str]:
        """A new application, and its client secret, told only here.

        :param scopes: by their whole names (``model.oauth_scopes``).
        """
        now, secret = self._work.now, "pscale_app_secret_" + new_secret()
        made = Application(
            id=new_id(),
            organization_id=organization_id,
            name=name,
            domain=domain,
            redirect_uri=redirect_uri,
            client_id="pscale_app_" + new_secret(32),
            client_secret_sha256=digest(secret),
            scopes=list(scopes),
            deleted_at=None,
            created_at=now,
            updated_at=now,
        )
        self._work.add(access.oauth_applications, {field: getattr(made, field) for field in made.__slots__})
        return made, secret

    def get(self, organization_id: str, application_id: str) -> Application:
        """The application.

        :raises NotFoundError: there is none.
        """
        table = access.oauth_applications
        query = select(table).where(
            table.c.id == application_id,
            table.c.organization_id == organization_id,
            table.c.deleted_at.is_(None),
        )
        return self._work.only(query, Application)

    def by_client_id(self, client_id: str) -> Application | None:
        """The application that calls itself so, if it is registered."""
        table = access.oauth_applications
        query = select(table).where(table.c.client_id == client_id, table.c.deleted_at.is_(None))
        return self._work.first(query, Application)

    def page(self, organization_id: str, request: PageRequest) -> Page[Application]:
        """The organization's applications, newest first."""
        table = access.oauth_applications
        query = (
            select(table)
            .where(table.c.organization_id == organization_id, table.c.deleted_at.is_(None))
            .order_by(table.c.created_at.desc(), table.c.id.desc())
        )
        return fetch_page(self._work.connection, query, request, Application)

    def token_counts(self, ids: Sequence[str]) -> Mapping[str, int]:
        """Living tokens by application id, in one query; those without any are left out."""
        table = access.oauth_tokens
        query = (
            select(table.c.application_id, func.count())
            .where(table.c.application_id.in_(ids), table.c.revoked_at.is_(None))
            .group_by(table.c.application_id)
        )
        return {row[0]: row[1] for row in self._work.connection.execute(query)}

    def delete(self, application: Application) -> None:
        """Take the application away, and all of its tokens; what would become one never does."""
        table, token, now = access.oauth_applications, access.oauth_tokens, self._work.now
        devices = access.device_codes
        self._work.connection.execute(delete(devices).where(devices.c.application_id == application.id))
        self._work.change(table, table.c.id, application.id, {"deleted_at": now, "updated_at": now})
        self._work.connection.execute(
            token.update()
            .where(token.c.application_id == application.id, token.c.revoked_at.is_(None))
            .values(revoked_at=now, updated_at=now)
        )
