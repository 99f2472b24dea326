"""The installation's own token: made once, and with every access that there is at each start."""

from __future__ import annotations

from pathlib import Path

from homeworld.model.accesses import ALL_ACCESSES
from homeworld.roles.ground import own_token
from homeworld.store.store import Store


def accesses(store: Store, token_id: str) -> set[str]:
    with store.read() as tx:
        return {grant.access for grant in tx.tokens.grants(token_id)}


def test_it_is_made_once_and_gets_what_came_with_a_newer_version(sqlite_store: Store, tmp_path: Path) -> None:
    token_id, secret = own_token(sqlite_store, tmp_path, "acme")
    assert accesses(sqlite_store, token_id) == set(ALL_ACCESSES)
    with sqlite_store.write() as tx:
        organization = tx.organizations.by_name("acme")
        # As an installation of a version that did not know it.
        tx.tokens.revoke(token_id, "organization", organization.id, ["read_invoices"])
    assert own_token(sqlite_store, tmp_path, "acme") == (token_id, secret)
    assert accesses(sqlite_store, token_id) == set(ALL_ACCESSES)
    with sqlite_store.read() as tx:
        assert tx.tokens.authenticate(token_id, secret).actor_id == token_id
