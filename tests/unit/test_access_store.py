"""Users, rights, teams, invitations, tokens and codes in the store, on both databases."""

from __future__ import annotations

import base64
import hashlib
from datetime import timedelta

import pytest

from homeworld.model.accesses import (
    ACCESSES,
    DATABASE_ADMIN,
    DATABASE_ANALYST,
    ORGANIZATION_MEMBER,
    ORGANIZATION_ONLY,
)
from homeworld.model.errors import ConflictError, InvalidError, NotFoundError, TooManyError
from homeworld.model.oauth_scopes import SCOPES, accesses_of, by_kind, checked
from homeworld.store.oauth_devices import GOOD_FOR, Wait
from homeworld.store.oauth_tokens import ACCESS_FOR, CODE_FOR, Issued
from homeworld.store.pages import PageRequest
from homeworld.store.store import Store, Transaction
from homeworld.store.users import User, checked_email
from homeworld.store.users_secrets import hash_password, user_code_as_made, verify_password
from tests.support.stores import Shop, TestClock, make_shop

CALLBACK = "https://app.example.com/callback"


def person(tx: Transaction, shop: Shop, email: str, role: str | None = "member") -> User:
    user = tx.users.add(email)
    if role is not None:
        tx.members.add(shop.organization.id, user.id, role)
    return user


# decisions


def test_a_password_is_verified_and_never_kept() -> None:
    kept = hash_password("correct horse battery")
    assert kept.startswith("$argon2id$")
    assert "correct" not in kept
    assert verify_password(kept, "correct horse battery")
    assert not verify_password(kept, "correct horse battery ")
    assert not verify_password(None, "correct horse battery")
    for bad in ("short", "x" * 257):
        with pytest.raises(InvalidError, match="10 to 256"):
            hash_password(bad)
    assert not verify_password(kept, "x" * 1_000_000)


@pytest.mark.parametrize("typed", ["bcdf-ghjk", "BCDFGHJK", " bcdf ghjk ", "b.c.d.f-ghjk"])
def test_a_user_code_is_read_however_it_is_typed(typed: str) -> None:
    assert user_code_as_made(typed) == "BCDF-GHJK"


@pytest.mark.parametrize(
    "email", ["", "a", "a@", "@b", "a b@c.de", "a@b c", "<a@b.de>", "a@b.de\n", "a@b.de,c@d.ef"]
)
def test_what_is_no_address_is_refused(email: str) -> None:
    if email.strip() != "a@b.de":
        with pytest.raises(InvalidError, match="not an email"):
            checked_email(email)


def test_roles_have_only_accesses_that_exist() -> None:
    assert set(ACCESSES) >= ORGANIZATION_MEMBER
    assert not DATABASE_ADMIN & ORGANIZATION_ONLY
    assert DATABASE_ANALYST < DATABASE_ADMIN
    assert set(ACCESSES) >= ORGANIZATION_ONLY


def test_scopes_give_accesses_and_nothing_that_is_no_access() -> None:
    assert set().union(*SCOPES.values()) <= set(ACCESSES)
    assert checked(["read_user", "database:read_database", "read_databases"]) == (
        "database:read_database",
        "organization:read_databases",
        "user:read_user",
    )
    assert accesses_of(["organization:read_databases"]) == {"read_databases", "read_database"}
    assert by_kind(["user:read_user", "branch:read_branch"]) == {
        "user": ["read_user"],
        "organization": [],
        "database": [],
        "branch": ["read_branch"],
    }
    with pytest.raises(InvalidError, match="not a scope"):
        checked(["fly"])


# users and rights


def test_one_address_is_one_user(store: Store) -> None:
    with store.write() as tx:
        made = tx.users.add("Ann@Example.com", "Ann")
        assert tx.users.by_email(" ann@example.COM ") == made
    with pytest.raises(InvalidError, match="already"), store.write() as tx:
        tx.users.add("ann@example.com")
    with store.read() as tx:
        assert tx.actors.by_ids([made.id])[made.id].display_name == "Ann"


def test_rights_come_from_roles_teams_and_databases(store: Store) -> None:
    with store.write() as tx:
        shop = make_shop(tx)
        second = make_shop(tx, "second")
        ann = person(tx, shop, "ann@example.com")
        boss = person(tx, shop, "boss@example.com", "admin")
        stranger = person(tx, shop, "stranger@example.com", None)
    with store.read() as tx:
        assert tx.users.rights(ann.id).accesses == {shop.organization.id: ORGANIZATION_MEMBER}
        assert tx.users.rights(boss.id).accesses == {shop.organization.id: frozenset(ACCESSES)}
        assert tx.users.rights(boss.id).admin_of == {shop.organization.id}
        assert tx.users.rights(stranger.id).accesses == {}
    with store.write() as tx:
        team = tx.teams.create(shop.organization.id, "Data", None, boss.id)
        tx.teams.add_member(team, ann.id, boss.id)
        tx.teams.set_database(team, shop.database.id, "analyst")
        tx.members.own(second.database.id, ann.id)
    with store.read() as tx:
        rights = tx.users.rights(ann.id)
        assert rights.accesses[shop.database.id] == DATABASE_ANALYST
        assert rights.accesses[second.database.id] == DATABASE_ADMIN
    with store.write() as tx:
        tx.teams.set_database(team, shop.database.id, "admin")
        assert tx.users.rights(ann.id).accesses[shop.database.id] == DATABASE_ADMIN
        tx.members.remove(tx.members.get(shop.organization.id, ann.id))
        assert tx.users.rights(ann.id).accesses == {}
        # Back again, they have what members have, and nothing of before.
        tx.members.add(shop.organization.id, ann.id, "member")
        assert tx.users.rights(ann.id).accesses == {shop.organization.id: ORGANIZATION_MEMBER}


def test_an_organization_keeps_an_administrator(store: Store) -> None:
    with store.write() as tx:
        shop = make_shop(tx)
        boss = person(tx, shop, "boss@example.com", "admin")
        member = tx.members.get(shop.organization.id, boss.id)
    with pytest.raises(InvalidError, match="last administrator"), store.write() as tx:
        tx.members.set_role(member, "member")
    with pytest.raises(InvalidError, match="last administrator"), store.write() as tx:
        tx.members.remove(member)
    with store.write() as tx:
        other = person(tx, shop, "other@example.com", "admin")
        assert tx.members.set_role(member, "member").role == "member"
        with pytest.raises(InvalidError, match="last administrator"):
            tx.members.remove(tx.members.get(shop.organization.id, other.id))


def test_teams_hold_what_they_say(store: Store) -> None:
    with store.write() as tx:
        shop = make_shop(tx)
        boss = person(tx, shop, "boss@example.com", "admin")
        stranger = person(tx, shop, "stranger@example.com", None)
        team = tx.teams.create(shop.organization.id, "Data & Co", "all of it", boss.id)
        assert team.slug == "data-co"
        with pytest.raises(InvalidError, match="already"):
            tx.teams.create(shop.organization.id, "data  co", None, boss.id)
        with pytest.raises(InvalidError, match="no letter"):
            tx.teams.create(shop.organization.id, "???", None, boss.id)
        with pytest.raises(InvalidError, match="belongs to this organization"):
            tx.teams.add_member(team, stranger.id, boss.id)
        first = tx.teams.add_member(team, boss.id, boss.id)
        assert tx.teams.add_member(team, boss.id, boss.id) == first
        assert tx.teams.member(team, boss.id) == tx.teams.member(team, first.id) == first
        tx.teams.set_database(team, shop.database.id, "admin")
        assert tx.teams.databases_of([team.id]) == {team.id: [(shop.database.id, "shop", "admin")]}
        renamed = tx.teams.update(team, name="New", description=None)
        assert (renamed.slug, renamed.description) == ("new", None)
        tx.teams.delete(renamed)
        with pytest.raises(NotFoundError):
            tx.teams.get(shop.organization.id, "new")


def test_lists_of_people_and_of_what_they_made(store: Store, clock: TestClock) -> None:
    with store.write() as tx:
        shop = make_shop(tx)
        boss = person(tx, shop, "boss@example.com", "admin")
    clock.forward(1)
    with store.write() as tx:
        ann = person(tx, shop, "ann@example.com")
        team = tx.teams.create(shop.organization.id, "Data", None, boss.id)
        tx.teams.create(shop.organization.id, "Other", None, boss.id)
        tx.teams.add_member(team, ann.id, boss.id)
        tx.teams.set_database(team, shop.database.id, "admin")
        password, _ = tx.passwords.create(shop.branch.id, actor_id=ann.id)
        token, _ = tx.tokens.create(shop.organization.id, "job", creator_id=ann.id)
    with store.read() as tx:
        where, all_of_it = shop.organization.id, PageRequest()
        assert [one.user_id for one in tx.members.page(where, all_of_it).items] == [boss.id, ann.id]
        found = tx.members.page(where, all_of_it, "ANN@")
        assert ([one.user_id for one in found.items], found.total) == ([ann.id], 1)
        assert tx.members.page(where, all_of_it, "_").items == ()
        assert [one.user_id for one in tx.members.all(where)] == [boss.id, ann.id]
        assert [one.slug for one in tx.teams.page(where, all_of_it, "dAt").items] == ["data"]
        assert [one.user_id for one in tx.teams.page_of_members(team, all_of_it).items] == [ann.id]
        assert tx.teams.members_of([team.id]) == {team.id: [ann.id]}
        assert tx.members.passwords_of(where, ann.id) == (password,)
        assert tx.members.passwords_of(where, ann.id, [shop.database.id]) == (password,)
        assert tx.members.passwords_of(where, ann.id, []) == ()
        assert tx.members.tokens_of(where, ann.id) == (token,)
        assert tx.members.organizations_of([ann.id, "x"]) == {ann.id: [where]}


def test_an_invitation_is_good_once_and_until_its_end(store: Store, clock: TestClock) -> None:
    with store.write() as tx:
        shop = make_shop(tx)
        boss = person(tx, shop, "boss@example.com", "admin")
        _, older = tx.invitations.create(shop.organization.id, "new@example.com", "member", boss.id)
        made, secret = tx.invitations.create(shop.organization.id, "new@example.com", "member", boss.id)
        # The older link was taken back by the newer.
        assert tx.invitations.open(older) is None
        assert tx.invitations.open(secret) == made
        assert tx.invitations.page(shop.organization.id, PageRequest()).items == (made,)
        with pytest.raises(InvalidError, match="member already"):
            tx.invitations.create(shop.organization.id, "boss@example.com", "member", boss.id)
    with store.write() as tx:
        user = tx.users.add(made.email)
        tx.invitations.accept(made, user.id)
        assert tx.invitations.open(secret) is None
        _, late = tx.invitations.create(shop.organization.id, "late@example.com", "admin", boss.id)
    clock.forward(7 * 24 * 3600)
    with store.read() as tx:
        assert tx.invitations.open(late) is None


# tokens


def test_a_token_has_the_users_rights_less_its_scopes(store: Store, clock: TestClock) -> None:
    with store.write() as tx:
        shop = make_shop(tx)
        ann = person(tx, shop, "ann@example.com", "admin")
        whole = tx.oauth_tokens.issue(ann.id, "tool", application_id=None, scopes=None)
        narrow = tx.oauth_tokens.issue(
            ann.id, "app", application_id=None, scopes=["organization:read_databases"]
        )
    with store.read() as tx:
        bearer = tx.oauth_tokens.authenticate(whole.access)
        assert bearer is not None
        assert (bearer.user_id, bearer.scopes) == (ann.id, None)
        assert bearer.may(["delete_database"], shop.organization.id)
        less = tx.oauth_tokens.authenticate(narrow.access)
        assert less is not None
        assert less.accesses == {shop.organization.id: {"read_databases", "read_database"}}
        assert less.admin_of == frozenset()
        for text in (whole.refresh, "", "x", whole.access + "x"):
            assert tx.oauth_tokens.authenticate(text) is None
    clock.forward(ACCESS_FOR.total_seconds())
    with store.write() as tx:
        assert tx.oauth_tokens.authenticate(whole.access) is None
        renewed = tx.oauth_tokens.refresh(whole.refresh, "tool")
        assert renewed is not None
        assert renewed.token.id == whole.token.id
        assert tx.oauth_tokens.authenticate(renewed.access) is not None
        tx.users.disable(ann.id)
        assert tx.oauth_tokens.authenticate(renewed.access) is None


def test_a_refresh_token_that_comes_twice_ends_everything(store: Store) -> None:
    with store.write() as tx:
        shop = make_shop(tx)
        ann = person(tx, shop, "ann@example.com")
        first = tx.oauth_tokens.issue(ann.id, "tool", application_id=None, scopes=None)
        assert tx.oauth_tokens.refresh(first.refresh, "another tool") is None
        second = tx.oauth_tokens.refresh(first.refresh, "tool")
        assert second is not None
        assert tx.oauth_tokens.authenticate(first.access) is None
        assert tx.oauth_tokens.authenticate(second.access) is not None
        assert tx.oauth_tokens.refresh(first.refresh, "tool") is None
        assert tx.oauth_tokens.authenticate(second.access) is None
        assert tx.oauth_tokens.refresh(second.refresh, "tool") is None


def test_a_code_is_good_once_for_its_own_application(store: Store, clock: TestClock) -> None:
    verifier = "v" * 43
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    with store.write() as tx:
        shop = make_shop(tx)
        ann = person(tx, shop, "ann@example.com")
        app, secret = tx.applications.create(
            shop.organization.id, "App", "https://app.example.com", CALLBACK, ["user:read_user"]
        )
        other, _ = tx.applications.create(shop.organization.id, "Other", "https://x.y", CALLBACK, [])
        assert app.is_secret(secret)
        assert not app.is_secret(secret + "x")

        def allow() -> str:
            return tx.oauth_tokens.allow(app.id, ann.id, CALLBACK, ["user:read_user"], challenge)

        def exchange(
            code: str, who: str = app.id, to: str = CALLBACK, proof: str = verifier
        ) -> Issued | None:
            return tx.oauth_tokens.exchange(code, who, app.client_id, to, proof)

        code = allow()
        assert exchange(code, who=other.id) is None
        assert exchange(code, to=CALLBACK + "/") is None
        assert exchange(code, proof="w" * 43) is None
        issued = exchange(code)
        assert issued is not None
        assert tx.oauth_tokens.authenticate(issued.access) is not None
        assert tx.applications.token_counts([app.id, other.id]) == {app.id: 1}
        assert exchange(code) is None
        assert tx.oauth_tokens.authenticate(issued.access) is None
        late = allow()
    clock.forward(CODE_FOR.total_seconds())
    with store.write() as tx:
        assert tx.oauth_tokens.exchange(late, app.id, app.client_id, CALLBACK, verifier) is None


def test_an_application_that_goes_takes_its_tokens_along(store: Store) -> None:
    with store.write() as tx:
        shop = make_shop(tx)
        ann = person(tx, shop, "ann@example.com")
        app, _ = tx.applications.create(shop.organization.id, "App", "https://a.b", CALLBACK, [])
        issued = tx.oauth_tokens.issue(ann.id, app.client_id, application_id=app.id, scopes=[])
        assert tx.oauth_tokens.page(app.id, PageRequest()).total == 1
        tx.applications.delete(app)
        assert tx.oauth_tokens.authenticate(issued.access) is None
        assert tx.applications.by_client_id(app.client_id) is None
        with pytest.raises(NotFoundError):
            tx.applications.get(shop.organization.id, app.id)


def test_a_device_gets_one_token_once_its_user_said_yes(store: Store, clock: TestClock) -> None:
    with store.write() as tx:
        shop = make_shop(tx)
        ann = person(tx, shop, "ann@example.com")
        device, code = tx.devices.ask("tool", application_id=None, scopes=None)
        assert tx.devices.take(code, "tool") is Wait.PENDING
        assert tx.devices.take(code, "tool") is Wait.SLOW_DOWN
        clock.forward(5)
    with store.write() as tx:
        assert tx.devices.take(code, "tool") is Wait.PENDING
        assert tx.devices.take(code, "another") is Wait.UNKNOWN
        assert tx.devices.take(device.user_code, "tool") is Wait.UNKNOWN
        assert tx.devices.waiting(device.user_code.lower().replace("-", "")) is not None
        tx.devices.answer(device, ann.id, allow=True)
        assert tx.devices.waiting(device.user_code) is None
        with pytest.raises(ConflictError, match="already"):
            tx.devices.answer(device, ann.id, allow=False)
    with store.write() as tx:
        issued = tx.devices.take(code, "tool")
        assert isinstance(issued, Issued)
        bearer = tx.oauth_tokens.authenticate(issued.access)
        assert bearer is not None
        assert bearer.actor_id == ann.id
        assert tx.devices.take(code, "tool") is Wait.UNKNOWN


def test_a_device_that_is_denied_or_late_gets_nothing(store: Store, clock: TestClock) -> None:
    with store.write() as tx:
        shop = make_shop(tx)
        ann = person(tx, shop, "ann@example.com")
        denied, code = tx.devices.ask("tool", application_id=None, scopes=None)
        late, late_code = tx.devices.ask("tool", application_id=None, scopes=None)
        tx.devices.answer(denied, ann.id, allow=False)
        assert tx.devices.take(code, "tool") is Wait.DENIED
    clock.forward(GOOD_FOR.total_seconds())
    with store.write() as tx:
        assert tx.devices.waiting(late.user_code) is None
        assert tx.devices.take(late_code, "tool") is Wait.EXPIRED
    # What has ended is swept away with the next one, an hour later.
    clock.forward(2 * 3600)
    with store.write() as tx:
        tx.devices.ask("tool", application_id=None, scopes=None)
        assert tx.devices.take(late_code, "tool") is Wait.UNKNOWN


# sessions and guesses


def test_a_session_ends_by_itself_and_with_its_user(store: Store, clock: TestClock) -> None:
    with store.write() as tx:
        ann = tx.users.add("ann@example.com")
        first, second, third = (tx.sessions.begin(ann.id) for _ in range(3))
        assert tx.sessions.user_of(first) == ann.id
        assert tx.sessions.user_of("x") is None
        tx.sessions.end(first)
        assert tx.sessions.user_of(first) is None
    clock.forward(12 * 3600 - 1)
    with store.read() as tx:
        assert tx.sessions.user_of(second) == ann.id
    clock.forward(1)
    with store.write() as tx:
        assert tx.sessions.user_of(second) is None
        fourth = tx.sessions.begin(ann.id)
        tx.users.set_password(ann.id, "other")
        assert tx.sessions.user_of(fourth) is None
        assert third != fourth


def test_guesses_are_counted_and_forgotten(store: Store, clock: TestClock) -> None:
    def guess() -> None:
        with store.write() as tx:
            tx.sessions.guess("account", 3)

    for _ in range(3):
        guess()
    with pytest.raises(TooManyError) as refused:
        guess()
    assert 0 < refused.value.retry_after_seconds <= 600
    clock.forward(600)
    for _ in range(3):
        guess()
    with store.write() as tx:
        tx.sessions.not_a_guess("account")
    guess()
    with pytest.raises(TooManyError):
        guess()
    with store.write() as tx:
        tx.sessions.guessed("account")
    guess()


def test_a_browser_comes_back_from_the_provider_once(store: Store, clock: TestClock) -> None:
    with store.write() as tx:
        tx.sessions.sent_away("state", "nonce", "verifier", "/oauth/device")
        tx.sessions.sent_away("late", "nonce", "verifier", "/oauth/device")
        found = tx.sessions.came_back("state")
        assert found is not None
        assert (found.nonce, found.verifier, found.next) == ("nonce", "verifier", "/oauth/device")
        assert tx.sessions.came_back("state") is None
    clock.forward(timedelta(minutes=10).total_seconds())
    with store.write() as tx:
        assert tx.sessions.came_back("late") is None


# the audit log


def test_the_audit_log_is_read_on_from_any_entry(store: Store, clock: TestClock) -> None:
    with store.write() as tx:
        shop = make_shop(tx)
        others = tx.organizations.ensure("others")
    names: list[str] = []
    for number in range(10):
        with store.write() as tx:
            # Several at one moment have an order all the same.
            for letter in "ab":
                audit_id = f"{letter}{number:011}"
                names.append(audit_id)
                tx.journal.audit(
                    shop.organization.id, None, f"thing.{letter}", ("thing", "1", "One"), audit_id=audit_id
                )
            tx.journal.audit(others.id, None, "thing.a", ("thing", "1", "One"), audit_id=f"o{number:011}")
        clock.forward(1)
    newest = names[::-1]
    with store.read() as tx:

        def read(**asked: object) -> tuple[list[str], bool, bool]:
            page = tx.audit.page(shop.organization.id, limit=6, **asked)  # pyright: ignore[reportArgumentType] - short
            return [entry.id for entry in page.entries], page.has_next, page.has_prev

        assert read() == (newest[:6], True, False)
        assert read(after=newest[5]) == (newest[6:12], True, True)
        assert read(after=newest[13]) == (newest[14:], False, True)
        assert read(after=newest[19]) == ([], False, True)
        assert read(before=newest[14]) == (newest[8:14], True, True)
        assert read(before=newest[3]) == (newest[:3], True, False)
        assert read(actions=["thing.b"]) == ([one for one in newest if one[0] == "b"][:6], True, False)
        assert read(actor_ids=["nobody"]) == ([], False, False)
        for cursor in ("o00000000001", "nothing", "\0"):
            with pytest.raises(InvalidError, match="not an entry"):
                read(after=cursor)
