"""Single sign-on: a browser goes to the identity provider and comes back as somebody.

Invariants: a browser comes back with the state that it was sent away with, once, and with the cookie that
says that it is the same browser; the provider decides who somebody is, and only where an organization says
so what they are. An organization keeps an administrator, whatever the provider says.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fastapi import APIRouter
from fastapi.responses import Response

from homeworld.api.calls import Api, ApiDep
from homeworld.api.login import note, sign_in
from homeworld.api.login_forms import Form, VisitDep, way_back
from homeworld.api.login_pages import PageRoute, lead
from homeworld.model.errors import ForbiddenError, InvalidError, NotFoundError
from homeworld.model.names import new_id, new_secret
from homeworld.store.store import Transaction
from homeworld.store.users import User
from homeworld.store.users_secrets import digest

if TYPE_CHECKING:
    from homeworld.api.login_oidc import Identity, Oidc

router = APIRouter(include_in_schema=False, route_class=PageRoute)
_log = logging.getLogger(__name__)


def _provider(api: Api) -> Oidc:
    if api.settings.sso is None:
        raise NotFoundError("There is no single sign-on here.")
    return api.settings.sso


def _back(base_url: str) -> str:
    return f"{base_url}/login/sso/callback"


@router.get("/login/sso")
def send_away(api: ApiDep, visit: VisitDep, form: Form) -> Response:
    """Send the browser to the identity provider."""
    oidc = _provider(api)
    # The state is bound to the browser: it is made of what only this one's cookie has.
    state, nonce, verifier = new_secret(), new_secret(), new_secret(64)
    place = oidc.send(_bound(state, visit.visit), nonce, verifier, _back(visit.base_url))
    with api.store.write() as tx:
        tx.sessions.sent_away(_bound(state, visit.visit), nonce, verifier, way_back(form.get("next", "")))
    return lead(place, visit)


def _bound(state: str, visit: str) -> str:
    return f"{state}.{digest(f'{state} {visit}').hex()}"


@router.get("/login/sso/callback")
def come_back(api: ApiDep, visit: VisitDep, form: Form) -> Response:
    """Log in whom the identity provider names."""
    oidc = _provider(api)
    state = form.get("state", "")
    if state != _bound(state.partition(".")[0], visit.visit):
        raise ForbiddenError("This login was begun in another browser; begin it here.")
    with api.store.write() as tx:
        attempt = tx.sessions.came_back(state)
    if attempt is None:
        raise ForbiddenError("This login has ended or was used already; begin it again.")
    if "code" not in form:
        raise ForbiddenError("The identity provider did not log you in.")
    identity = oidc.receive(form["code"], attempt.nonce, attempt.verifier, _back(visit.base_url))
    with api.store.write() as tx:
        user = _known(tx, oidc, identity, visit.address)
        session = sign_in(tx, user.id, visit.address)
    return lead(way_back(attempt.next), visit, session)


def _known(tx: Transaction, oidc: Oidc, identity: Identity, address: str) -> User:
    """The user whom the provider means: known by its name for them, by their address, or new.

    :raises ForbiddenError: they are not let in.
    """
    user = tx.users.by_subject(identity.issuer, identity.subject)
    if user is None:
        user = tx.users.by_email(identity.email)
        if user is None:
            user = tx.users.add(identity.email, identity.name, sso=(identity.issuer, identity.subject))
            organization = tx.organizations.by_name(oidc.provider.organization)
            tx.members.add(organization.id, user.id, "member")
            tx.journal.audit(
                organization.id, user.id, "organization.joined", ("user", user.id, user.email),
                audit_id=new_id(), metadata={"sso": identity.issuer},
            )  # fmt: skip
        elif user.sso_subject is not None:
            raise ForbiddenError("The identity provider knows somebody else by this address.")
        else:
            tx.users.tie(user.id, identity.issuer, identity.subject)
            note(tx, user, "user.tied_to_provider", address, issuer=identity.issuer)
    if user.disabled_at is not None:
        raise ForbiddenError("This user is not let in any more.")
    if identity.role is not None:
        _set_role(tx, user, identity.role)
    return user


def _set_role(tx: Transaction, user: User, role: str) -> None:
    ids = tx.members.organizations_of([user.id]).get(user.id, ())
    for organization in tx.organizations.by_ids(ids).values():
        member = tx.members.find(organization.id, user.id)
        if member is None or member.role == role or not organization.idp_managed_roles:
            continue
        try:
            tx.members.set_role(member, role)
        except InvalidError as error:
            _log.warning("the identity provider's role for %s is not taken: %s", user.id, error)
            continue
        tx.journal.audit(
            organization.id, None, "organization.updated_role", ("user", user.id, user.email),
            audit_id=new_id(), metadata={"before": member.role, "role": role, "sso": True},
        )  # fmt: skip
