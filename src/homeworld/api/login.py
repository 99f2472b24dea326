"""The pages for people: log in, say yes to a device or an application, accept an invitation.

Invariants: nothing is changed by looking at a page, and by a form only one that was shown here to the same
browser; a guess is counted before it is judged. Passwords are hashed outside of transactions, since that
takes longer than a writer may keep others waiting.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter
from fastapi.responses import Response

from homeworld.api.calls import Api, ApiDep, CallerDep
from homeworld.api.login_forms import Form, Visit, VisitDep, way_back
from homeworld.api.login_pages import PageRoute, lead, page
from homeworld.api.schemas.oauth import describe, origin_of
from homeworld.model.errors import InvalidError, NotFoundError
from homeworld.model.names import new_id
from homeworld.model.oauth_scopes import checked
from homeworld.store.members_invitations import Invitation
from homeworld.store.oauth import Application
from homeworld.store.store import Transaction
from homeworld.store.users import User
from homeworld.store.users_secrets import hash_password, verify_password

router = APIRouter(include_in_schema=False, route_class=PageRoute)

# Within ten minutes; whoever guesses right does not count.
_GUESSES_AT_ACCOUNT = 10
_GUESSES_FROM_ADDRESS = 100
_GUESSES_AT_CODES = 20


def sign_in(tx: Transaction, user_id: str, address: str) -> str:
    """Begin a session, which the audit logs of the user's organizations tell; its secret."""
    user = tx.users.get(user_id)
    tx.users.note_login(user_id)
    note(tx, user, "user.signed_in", address)
    return tx.sessions.begin(user_id)


def note(tx: Transaction, user: User, action: str, address: str, **metadata: object) -> None:
    """Tell the audit logs of the user's organizations what the user did."""
    for organization_id in tx.members.organizations_of([user.id]).get(user.id, ()):
        tx.journal.audit(
            organization_id,
            user.id,
            action,
            ("user", user.id, user.email),
            audit_id=new_id(),
            remote_ip=address,
            metadata=metadata,
        )


def _user(api: Api, visit: Visit) -> User | None:
    if visit.user_id is None:
        return None
    with api.store.read() as tx:
        return tx.users.get(visit.user_id)


def _still_in(tx: Transaction, visit: Visit, user: User) -> bool:
    """Whether nobody logged the browser out since it was looked who it is: what it makes outlives it."""
    return tx.sessions.user_of(visit.secret) == user.id


def _to_login(visit: Visit, way: str) -> Response:
    return lead(f"/login?next={quote(way, safe='')}", visit)


# logging in


@router.get("/login")
def show_login(api: ApiDep, visit: VisitDep, form: Form) -> Response:
    """The login page; who is logged in sees their account."""
    user = _user(api, visit)
    if user is not None:
        return _account(visit, user)
    return _login_page(api, visit, form)


def _account(visit: Visit, user: User, told: str = "", status: int = 200) -> Response:
    return page(
        "account.html", visit, status=status, title="Your account", told=told, email=user.email,
        has_password=user.password_hash is not None,
    )  # fmt: skip


def _login_page(
    api: Api, visit: Visit, form: Mapping[str, str], told: str = "", status: int = 200
) -> Response:
    return page(
        "login.html", visit, status=status, title="Log in to Homeworld", told=told,
        sso=api.settings.sso.provider.name if api.settings.sso else "",
        next=way_back(form.get("next", "")), email=form.get("email", "")[:255],
    )  # fmt: skip


@router.post("/login")
def log_in(api: ApiDep, visit: VisitDep, form: Form) -> Response:
    """Begin a session by a password."""
    visit.require_own_form(form)
    user = _right_password(api, visit, form.get("email", ""), form.get("password", ""))
    if user is None:
        return _login_page(api, visit, form, "Email or password is not right.", 401)
    with api.store.write() as tx:
        session = sign_in(tx, user.id, visit.address) if _still_so(tx, user) else None
    if session is None:
        return _login_page(api, visit, form, "Your account was changed a moment ago; log in again.", 401)
    return lead(way_back(form.get("next", "")), visit, session)


def _still_so(tx: Transaction, user: User) -> bool:
    """Whether nobody changed the password, or disabled the user, while it was looked whether it is right."""
    now = tx.users.get(user.id)
    return now.password_hash == user.password_hash and now.disabled_at is None


def _right_password(api: Api, visit: Visit, email: str, password: str) -> User | None:
    """The user, if the password is theirs; each wrong one counts.

    :raises TooManyError: there were too many.
    """
    account, address = f"account {email.strip().lower()}", f"address {visit.address}"
    with api.store.write() as tx:
        tx.sessions.guess(account, _GUESSES_AT_ACCOUNT)
        tx.sessions.guess(address, _GUESSES_FROM_ADDRESS)
        user = tx.users.by_email(email)
    right = verify_password(user.password_hash if user else None, password)
    if user is None or not right or user.disabled_at is not None:
        return None
    with api.store.write() as tx:
        tx.sessions.guessed(account)
        tx.sessions.not_a_guess(address)
    return user


@router.post("/login/password")
def change_password(api: ApiDep, visit: VisitDep, form: Form) -> Response:
    """Another password; every session of the user ends, and this browser gets a new one."""
    visit.require_own_form(form)
    user = _user(api, visit)
    if user is None:
        return _to_login(visit, "/login")
    try:
        digest = hash_password(form.get("new_password", ""))
    except InvalidError as error:
        return _account(visit, user, error.message, 422)
    known = _right_password(api, visit, user.email, form.get("password", ""))
    if known is None:
        return _account(visit, user, "The password is not right.", 401)
    with api.store.write() as tx:
        session = None
        if _still_so(tx, known):
            tx.users.set_password(user.id, digest)
            note(tx, user, "user.changed_password", visit.address)
            session = tx.sessions.begin(user.id)
    if session is None:
        return _to_login(visit, "/login")
    return lead("/login", visit, session)


@router.post("/logout")
def log_out(api: ApiDep, visit: VisitDep, form: Form) -> Response:
    """End this browser's session."""
    visit.require_own_form(form)
    with api.store.write() as tx:
        tx.sessions.end(visit.secret)
    return lead("/login", visit, "")


@router.post("/logout/everywhere")
def log_out_everywhere(api: ApiDep, visit: VisitDep, form: Form) -> Response:
    """End all sessions and tokens of the user: of other browsers, of tools and of applications."""
    visit.require_own_form(form)
    user = _user(api, visit)
    if user is not None:
        with api.store.write() as tx:
            tx.users.log_out(user.id)
            note(tx, user, "user.logged_out_everywhere", visit.address)
    return lead("/login", visit, "")


# devices


@router.get("/oauth/device")
def show_device(api: ApiDep, visit: VisitDep, form: Form) -> Response:
    """Ask the user whether the device that shows a code is theirs."""
    typed = form.get("user_code", "")[:32]
    user = _user(api, visit)
    if user is None:
        return _to_login(visit, "/oauth/device" + (f"?{urlencode({'user_code': typed})}" if typed else ""))
    if not typed:
        return page("code.html", visit, title="Connect a device", told="")
    with api.store.write() as tx:
        tx.sessions.guess(f"codes {user.id}", _GUESSES_AT_CODES)
        device = tx.devices.waiting(typed)
        if device is not None:
            tx.sessions.not_a_guess(f"codes {user.id}")
        application = tx.applications.by_client_id(device.client_id) if device else None
    if device is None:
        told = "No device waits with this code. Codes are good for a few minutes, and once."
        return page("code.html", visit, status=404, title="Connect a device", told=told)
    return page(
        "device.html", visit, title="Connect a device", email=user.email, user_code=device.user_code,
        application=application.name if application else "",
        allowed=[describe(scope) for scope in device.scopes or ()],
    )  # fmt: skip


@router.post("/oauth/device")
def answer_device(api: ApiDep, visit: VisitDep, form: Form) -> Response:
    """The user's word on a device."""
    visit.require_own_form(form)
    user = _user(api, visit)
    if user is None:
        return _to_login(visit, "/oauth/device")
    allow = form.get("answer") == "allow"
    with api.store.write() as tx:
        if not _still_in(tx, visit, user):
            return _to_login(visit, "/oauth/device")
        tx.sessions.guess(f"codes {user.id}", _GUESSES_AT_CODES)
        device = tx.devices.waiting(form.get("user_code", ""))
        if device is not None:
            tx.sessions.not_a_guess(f"codes {user.id}")
            tx.devices.answer(device, user.id, allow=allow)
            note(
                tx, user, "user.allowed_device" if allow else "user.denied_device", visit.address,
                client_id=device.client_id,
            )  # fmt: skip
    if device is None:
        told = "No device waits with this code any more. Ask it for another one."
        return page("code.html", visit, status=404, title="Connect a device", told=told)
    told = "The device is connected; you can close this page." if allow else "The device was denied."
    return page("told.html", visit, title="Done", told=told)


# applications


@router.get("/oauth/authorize")
def show_authorize(api: ApiDep, visit: VisitDep, form: Form) -> Response:
    """Ask the user whether an application may act for them."""
    application, scopes, refusal = _asked(api, form)
    if refusal:
        return _send_back(visit, form, application, {"error": refusal})
    user = _user(api, visit)
    if user is None:
        return _to_login(visit, f"/oauth/authorize?{urlencode(_kept(form))}")
    origin = origin_of(application.redirect_uri)
    return page(
        "authorize.html", visit, title="Allow an application", application=application.name, origin=origin,
        email=user.email, allowed=[describe(scope) for scope in scopes], fields=_kept(form),
        may_lead_to=origin,
    )  # fmt: skip


@router.post("/oauth/authorize")
def answer_authorize(api: ApiDep, visit: VisitDep, form: Form) -> Response:
    """The user's word on an application; it is sent back to where it said at its registration."""
    visit.require_own_form(form)
    application, scopes, refusal = _asked(api, form)
    user = _user(api, visit)
    if user is None:
        return _to_login(visit, f"/oauth/authorize?{urlencode(_kept(form))}")
    if not refusal and form.get("answer") != "allow":
        refusal = "access_denied"
    if refusal:
        return _send_back(visit, form, application, {"error": refusal})
    with api.store.write() as tx:
        if not _still_in(tx, visit, user):
            return _to_login(visit, f"/oauth/authorize?{urlencode(_kept(form))}")
        code = tx.oauth_tokens.allow(
            application.id, user.id, application.redirect_uri, scopes, form.get("code_challenge") or None
        )
        note(tx, user, "user.allowed_application", visit.address, application=application.name, scopes=scopes)
    return _send_back(visit, form, application, {"code": code})


# SHA-256 in base64url.
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_AUTHORIZE_FIELDS = (
    "client_id",
    "redirect_uri",
    "response_type",
    "scope",
    "state",
    "code_challenge",
    "code_challenge_method",
)


def _kept(form: Mapping[str, str]) -> dict[str, str]:
    return {name: form[name] for name in _AUTHORIZE_FIELDS if name in form}


def _asked(api: Api, form: Mapping[str, str]) -> tuple[Application, Sequence[str], str]:
    """The application, the scopes it asks for, and why it is sent back at once, if it is.

    :raises InvalidError: it is not known where to, so that nobody is sent anywhere.
    """
    with api.store.read() as tx:
        application = tx.applications.by_client_id(form.get("client_id", ""))
    if application is None or form.get("redirect_uri", application.redirect_uri) != application.redirect_uri:
        raise InvalidError(
            "client_id and redirect_uri are not those of an application that is registered here"
        )
    if form.get("response_type", "code") != "code":
        return application, (), "unsupported_response_type"
    challenged = "code_challenge" in form or "code_challenge_method" in form
    plain = form.get("code_challenge_method") != "S256"
    if challenged and (plain or not _CHALLENGE.fullmatch(form.get("code_challenge", ""))):
        return application, (), "invalid_request"
    try:
        scopes = checked(form.get("scope", "").split()) or tuple(application.scopes)
    except InvalidError:
        return application, (), "invalid_scope"
    return application, scopes, "" if set(scopes) <= set(application.scopes) else "invalid_scope"


def _send_back(
    visit: Visit, form: Mapping[str, str], application: Application, told: Mapping[str, str]
) -> Response:
    fields = {**told, **({"state": form["state"]} if "state" in form else {})}
    joined = "&" if "?" in application.redirect_uri else "?"
    return lead(application.redirect_uri + joined + urlencode(fields), visit)


# invitations


@router.get("/invitations/{secret}")
def show_invitation(api: ApiDep, visit: VisitDep, secret: str) -> Response:
    """Ask whoever has the link whether they join."""
    invitation, organization, known = _invited(api, secret)
    if known is not None and visit.user_id != known.id:
        return _to_login(visit, f"/invitations/{secret}")
    if known is None and _is_the_providers(api, invitation.email):
        return _to_provider(visit, secret)
    return _invitation_page(visit, invitation, organization, secret, new=known is None)


def _is_the_providers(api: Api, email: str) -> bool:
    """Whether the identity provider says who has this address. Whoever has a link for it could otherwise
    choose a password for somebody who comes in by the provider later, and be them.
    """
    return api.settings.sso is not None and api.settings.sso.speaks_for(email)


def _to_provider(visit: Visit, secret: str) -> Response:
    return lead(f"/login/sso?next={quote(f'/invitations/{secret}', safe='')}", visit)


def _invited(api: Api, secret: str) -> tuple[Invitation, str, User | None]:
    with api.store.read() as tx:
        invitation = None if "\0" in secret else tx.invitations.open(secret)
        if invitation is None:
            raise NotFoundError("This invitation is not good any more. Ask for another one.")
        organization = tx.organizations.by_ids([invitation.organization_id])[invitation.organization_id]
        return invitation, organization.name, tx.users.by_email(invitation.email)


def _invitation_page(
    visit: Visit, invitation: Invitation, organization: str, secret: str, **values: Any
) -> Response:
    shown: dict[str, Any] = {"told": "", "name": "", "status": 200} | values
    return page(
        "invitation.html", visit, title="Join an organization", organization=organization,
        email=invitation.email, role=invitation.role, action=f"/invitations/{secret}", **shown,
    )  # fmt: skip


@router.post("/invitations/{secret}")
def accept_invitation(api: ApiDep, caller: CallerDep, visit: VisitDep, form: Form, secret: str) -> Response:
    """Join; who is new gets a user with the password they chose."""
    visit.require_own_form(form)
    invitation, organization, known = _invited(api, secret)
    if known is not None and visit.user_id != known.id:
        return _to_login(visit, f"/invitations/{secret}")
    if known is None and _is_the_providers(api, invitation.email):
        return _to_provider(visit, secret)
    try:
        digest = None if known else hash_password(form.get("password", ""))
        session = _join(api, visit, caller.remote_ip, secret, form.get("name", ""), digest)
    except InvalidError as error:
        return _invitation_page(
            visit, invitation, organization, secret, new=known is None, told=error.message,
            name=form.get("name", "")[:100], status=422,
        )  # fmt: skip
    return page(
        "told.html", visit, session=session, title="Welcome", told=f"You belong to {organization} now."
    )


def _join(api: Api, visit: Visit, address: str, secret: str, name: str, digest: str | None) -> str:
    with api.store.write() as tx:
        invitation = tx.invitations.open(secret)
        if invitation is None:
            raise InvalidError("this invitation is not good any more")
        user = tx.users.by_email(invitation.email)
        if user is None:
            user = tx.users.add(invitation.email, name, password_hash=digest)
        elif digest is not None:
            raise InvalidError("there is a user of this address by now; open the link again")
        elif not _still_in(tx, visit, user):
            raise InvalidError("you were logged out a moment ago; open the link again")
        tx.invitations.accept(invitation, user.id)
        target = ("user", user.id, user.email)
        for action in ("organization_membership.created", "organization.joined"):
            tx.journal.audit(
                invitation.organization_id, user.id, action, target, audit_id=new_id(), remote_ip=address,
                metadata={"role": invitation.role, "invitation": invitation.id},
            )  # fmt: skip
        return sign_in(tx, user.id, address)
