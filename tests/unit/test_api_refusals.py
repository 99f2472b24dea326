"""What the API refuses at once, and how it shows what cannot be made."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from homeworld.store.store import Store
from tests.support.api import ServedApi
from tests.support.desk import BRANCH, DB, ORG, Desk, open_desk, refused
from tests.support.stores import TestClock


@pytest.fixture
def desk(store: Store, clock: TestClock, served_api: ServedApi) -> Iterator[Desk]:
    with open_desk(store, clock, served_api) as made:
        yield made


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mysql", "reserved"),
        ("SYS", "reserved"),
        ("information_schema", "reserved"),
        ("performance_schema", "reserved"),
        ("ndbinfo", "reserved"),
        ("a_" * 31 + "bb", "64 characters"),
    ],
)
def test_names_that_servers_cannot_have_are_refused_at_once(desk: Desk, name: str, reason: str) -> None:
    size = {"name": name, "cluster_size": "homeworld"}
    for where, body in (
        (f"{ORG}/databases", size),
        (f"{BRANCH}/keyspaces", size),
        (f"{BRANCH}/keyspaces", {**size, "shards": 2}),
    ):
        answer = desk.http.post(where, json=body)
        assert refused(answer) == (422, "unprocessable"), where
        assert reason in answer.json()["message"]
    if reason == "reserved":
        assert refused(desk.http.patch(DB, json={"new_name": name})) == (422, "unprocessable")


def test_the_suffix_of_a_shard_counts_towards_the_longest_name(desk: Desk) -> None:
    """``x…_-80`` and the rights on it, where the underscore takes two characters."""
    longest = "x" * (64 - len(r"\_-80"))
    for name, status in ((longest, 200), (longest + "x", 422)):
        body = {"name": name, "cluster_size": "homeworld", "shards": 2}
        assert desk.http.post(f"{BRANCH}/keyspaces", json=body).status_code == status
    whole = {"name": "y" * 64, "cluster_size": "homeworld"}
    assert desk.http.post(f"{BRANCH}/keyspaces", json=whole).status_code == 200


def test_a_name_that_is_the_schema_of_anothers_shard_is_taken(desk: Desk) -> None:
    answer = desk.http.post(f"{BRANCH}/keyspaces", json={"name": "shop_sharded_-80"})
    assert refused(answer) == (422, "unprocessable")
    assert "shop_sharded has a shard" in answer.json()["message"]
    assert desk.http.post(f"{BRANCH}/keyspaces", json={"name": "shop_sharded_-40"}).status_code == 200


def test_a_size_is_one_of_those_listed(desk: Desk) -> None:
    for where in (f"{ORG}/databases", f"{BRANCH}/keyspaces", f"{DB}/branches"):
        answer = desk.http.post(where, json={"name": "sized", "cluster_size": "nope"})
        assert refused(answer) == (422, "unprocessable"), where
        assert "the sizes are: homeworld" in answer.json()["message"]
    assert desk.http.post(f"{BRANCH}/keyspaces", json={"name": "sized"}).status_code == 200


@pytest.mark.parametrize(
    "body", [b"[" * 200_000, b'{"a":' * 5000, b'{"name": [' + b"[" * 70 + b"]" * 70 + b"]}"]
)
def test_a_body_that_is_nested_too_deeply_is_refused(desk: Desk, body: bytes) -> None:
    for where in (f"{ORG}/databases", f"{BRANCH}/keyspaces", f"{DB}/workflows", f"{BRANCH}/passwords"):
        assert refused(desk.http.post(where, content=body)) == (422, "invalid_params")


def test_a_body_that_is_too_large_is_refused(desk: Desk) -> None:
    body = json.dumps({"name": "p", "notes": "x" * (9 * 1024 * 1024)})
    assert refused(desk.http.post(f"{ORG}/databases", content=body)) == (422, "invalid_params")
    assert desk.http.get(DB).status_code == 200


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16", "utf-32"])
def test_a_body_is_in_utf_8_so_that_its_depth_is_seen(desk: Desk, encoding: str) -> None:
    body = f'{{"name": "\u2200x", "extra": {"[" * 600}1{"]" * 600}}}'.encode(encoding)
    assert refused(desk.http.post(f"{ORG}/databases", content=body)) == (422, "invalid_params")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 3000, '{"tables": {"t": ' + "[" * 80 + "]" * 80 + "}}"]
)
def test_documents_that_are_nested_too_deeply_are_refused(desk: Desk, text: str) -> None:
    at = f"{BRANCH}/keyspaces/shop_sharded/vschema"
    assert refused(desk.http.patch(at, json={"vschema": text})) == (422, "unprocessable")
    rules = desk.http.patch(f"{BRANCH}/routing-rules", json={"routing_rules": text})
    assert refused(rules) == (422, "unprocessable")


def test_why_something_is_not_ready_is_shown_to_who_asked_for_it(desk: Desk) -> None:
    desk.http.post(f"{BRANCH}/keyspaces", json={"name": "late"})
    assert desk.http.get(DB).json()["issues_count"] == 0
    with desk.store.write() as tx:
        keyspace = tx.keyspaces.by_name(desk.shop.branch.id, "late")
        tx.keyspaces.update(keyspace.id, error="the disk is full")
        tx.databases.update(desk.shop.database.id, error="keyspace late: the disk is full")
    assert desk.http.get(f"{BRANCH}/keyspaces/late").json()["error"] == "the disk is full"
    shown = desk.http.get(DB).json()
    assert (shown["issues_count"], shown["error"]) == (1, "keyspace late: the disk is full")


@pytest.mark.parametrize("name", ["x\n", "x" * 64 + "\n"])
def test_a_line_end_is_no_part_of_a_name(desk: Desk, name: str) -> None:
    for where in (f"{ORG}/databases", f"{BRANCH}/keyspaces", f"{DB}/branches"):
        assert refused(desk.http.post(where, json={"name": name})) == (422, "unprocessable"), where


def test_true_is_no_number(desk: Desk) -> None:
    answer = desk.http.post(f"{BRANCH}/passwords", json={"name": "p", "role": "reader", "ttl": True})
    assert (refused(answer)[0], "a number is needed" in answer.json()["message"]) == (422, True)
    answer = desk.http.post(f"{BRANCH}/keyspaces", json={"name": "sized", "shards": True})
    assert (refused(answer)[0], "a number is needed" in answer.json()["message"]) == (422, True)
    assert desk.http.post(f"{BRANCH}/passwords", json={"name": "p", "role": "reader"}).status_code == 201
