"""Clusters that others run, as the store has them: what is seen becomes rows, and what is ours goes there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from homeworld.engines.vitess.attached import AttachedClusters, difference, servers_of
from homeworld.engines.vitess.attached_topology import seen_of
from homeworld.engines.vitess.attachments import Address, Attachment, Attachments, Certificates, Login
from homeworld.model.agreement import merged
from homeworld.model.attachments import SeenCluster, SeenKeyspace, SeenShard, SeenTablet, server_id
from homeworld.model.clusters import ClusterKeyspace, ClusterSpec
from homeworld.model.engines import EngineKind, refusal
from homeworld.model.errors import InvalidError, NotFoundError, UnavailableError
from homeworld.model.states.lifecycle import Life
from homeworld.model.topology import Flavor
from homeworld.store.adoption import attach
from homeworld.store.keyspaces import Keyspace
from homeworld.store.provision import delete_database
from homeworld.store.store import Store
from homeworld.workflows.clusters.adopting import AGAIN_SECONDS, Adopting
from homeworld.workflows.clusters.following import let_follow

BRANCH = "theirbranch1"
VSCHEMA: dict[str, Any] = {
    "sharded": True,
    "vindexes": {"xxhash": {"type": "xxhash"}},
    "tables": {"orders": {"column_vindexes": [{"column": "id", "name": "xxhash"}]}},
}


def tablet(number: int, schema: str = "vt_shop") -> SeenTablet:
    return SeenTablet(f"zone1-{number:010d}", "10.0.0.1", 15000, "10.0.0.2", 3306, schema)


SHOP = SeenKeyspace("shop", False, {"tables": {}}, (SeenShard("0", "vt_shop", tablet(1), (tablet(2),)),))
WIDE = SeenKeyspace(
    "wide",
    True,
    VSCHEMA,
    (
        SeenShard("-80", "vt_wide", tablet(3, "vt_wide"), ()),
        SeenShard("80-", "vt_wide", tablet(4, "vt_wide"), ()),
    ),
)
SEEN = SeenCluster((SHOP, WIDE), {"t": "shop.t"})


class Theirs:
    """A cluster of others, with everything that is asked of one, and what it was given."""

    def __init__(self) -> None:
        self.seen = SEEN
        self.looks = 0
        self.abandoned = False
        self.given: list[ClusterSpec] = []
        self.remembered: list[SeenCluster] = []

    def branch_ids(self) -> list[str]:
        return [BRANCH]

    def glance(self, branch_id: str) -> str:
        assert branch_id == BRANCH
        return repr(self.seen)

    def look(self, branch_id: str) -> SeenCluster:
        assert branch_id == BRANCH
        self.looks += 1
        return self.seen

    def abandon(self, branch_id: str) -> None:
        assert branch_id == BRANCH
        self.abandoned = True

    def remember(self, branch_id: str, seen: SeenCluster) -> None:
        assert branch_id == BRANCH
        self.remembered.append(seen)

    # -- Clusters, as far as following needs it --------------------------------------------------------------

    def follow(self, spec: ClusterSpec, timeout_seconds: float, check: Any) -> None:
        assert timeout_seconds > 0
        check()
        if why := difference(spec, self.seen):
            raise UnavailableError(why)
        self.given.append(spec)
        assert spec.given is not None
        wanted = {one.name: one.vschema for one in spec.keyspaces if one.name in spec.given}
        keyspaces = [replace(one, vschema=wanted.get(one.name, one.vschema)) for one in self.seen.keyspaces]
        self.seen = replace(self.seen, keyspaces=tuple(keyspaces))

    def set_rules(
        self, branch_id: str, rules: Mapping[str, str], names: Collection[str], timeout_seconds: float
    ) -> None:
        assert (branch_id, timeout_seconds > 0) == (BRANCH, True)
        self.seen = replace(self.seen, rules=merged(self.seen.rules or {}, rules, names))


class World:
    """The store with the cluster attached, and both ways between them, each by hand."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.theirs = Theirs()
        self.adopting = Adopting(store, self.theirs)
        with store.write() as tx:
            organization = tx.organizations.ensure("acme")
            tx.regions.ensure("local", display_name="Local", provider="Homeworld", location="Here")
            self.database = attach(tx, organization.id, "legacy", BRANCH, SEEN)
        self.follow()

    def follow(self) -> None:
        let_follow(self.store, self.theirs, BRANCH)  # pyright: ignore[reportArgumentType] what it needs of it

    def keyspaces(self) -> dict[str, Keyspace]:
        with self.store.read() as tx:
            return {one.name: one for one in tx.keyspaces.of_branch(BRANCH)}

    def primary(self, keyspace: str, shard: int = 0) -> str | None:
        found = self.keyspaces()[keyspace]
        with self.store.read() as tx:
            return tx.keyspaces.shards(found.id)[shard].primary_server_id

    def version(self) -> int:
        with self.store.read() as tx:
            return tx.followings.version(BRANCH)

    def behind(self) -> str | None:
        with self.store.read() as tx:
            return tx.followings.behind(BRANCH)

    def change(self, keyspace: str, **values: Any) -> None:
        """What others do."""
        keyspaces = [
            replace(one, **values) if one.name == keyspace else one for one in self.theirs.seen.keyspaces
        ]
        self.theirs.seen = replace(self.theirs.seen, keyspaces=tuple(keyspaces))


@pytest.fixture
def world(store: Store) -> World:
    return World(store)


def test_what_was_seen_is_stored_and_nothing_is_given(world: World) -> None:
    assert world.database.engine is EngineKind.ATTACHED
    assert world.database.state is Life.READY
    found = world.keyspaces()
    assert {name: (one.sharded, one.state, one.is_default) for name, one in found.items()} == {
        "shop": (False, Life.READY, True),
        "wide": (True, Life.READY, False),
    }
    with world.store.read() as tx:
        (shop,) = tx.keyspaces.shards(found["shop"].id)
        wide = tx.keyspaces.shards(found["wide"].id)
        replicas = tx.servers.by_ids([server_id(BRANCH, tablet(2).alias)])
        assert tx.servers.own() == (), "none of theirs is ours"
    assert (shop.name, shop.schema_name, shop.primary_server_id, list(shop.replica_server_ids)) == (
        "0", "vt_shop", server_id(BRANCH, tablet(1).alias), [server_id(BRANCH, tablet(2).alias)],
    )  # fmt: skip
    assert [(one.name, one.schema_name) for one in wide] == [("-80", "vt_wide"), ("80-", "vt_wide")]
    assert [one.replica_of for one in replicas.values()] == [server_id(BRANCH, tablet(1).alias)]
    assert world.behind() is None
    assert [spec.given for spec in world.theirs.given] == [frozenset()]


def test_a_look_at_what_is_as_stored_costs_no_change(world: World) -> None:
    version = world.version()
    for _ in range(3):
        world.adopting.look()
    assert world.version() == version
    assert world.theirs.looks == 1, "only a glance, once it is known"


def test_another_primary_is_stored_once_and_followed(world: World) -> None:
    (shard,) = SHOP.shards
    world.change("shop", shards=(replace(shard, primary=tablet(2), replicas=(tablet(1), tablet(9))),))
    world.adopting.look()
    assert world.primary("shop") == server_id(BRANCH, tablet(2).alias)
    with world.store.read() as tx:
        servers = tx.servers.by_ids([server_id(BRANCH, tablet(number).alias) for number in (1, 2, 9)])
    follows = {one: server.replica_of for one, server in servers.items()}
    two = server_id(BRANCH, tablet(2).alias)
    assert follows == {
        server_id(BRANCH, tablet(1).alias): two, two: None, server_id(BRANCH, tablet(9).alias): two,
    }  # fmt: skip
    assert world.theirs.remembered[-1] == world.theirs.seen, "where it is, before it is stored"
    world.follow()
    version = world.version()
    world.adopting.look()
    assert (world.version(), world.behind()) == (version, None)
    assert not any(spec.given for spec in world.theirs.given)


def test_their_vschema_and_rules_are_taken_over_and_ours_are_given(world: World) -> None:
    theirs: dict[str, Any] = {
        **VSCHEMA,
        "tables": {**VSCHEMA["tables"], "lines": VSCHEMA["tables"]["orders"]},
    }
    world.change("wide", vschema=theirs)
    world.theirs.seen = replace(world.theirs.seen, rules={"t": "wide.t"})
    world.adopting.look()
    assert world.keyspaces()["wide"].vschema == theirs
    with world.store.read() as tx:
        assert tx.routes.rules(BRANCH) == {"t": "wide.t"}
    world.follow()
    assert not any(spec.given for spec in world.theirs.given), "what is theirs is not given back to them"

    ours: dict[str, Any] = {**theirs, "tables": VSCHEMA["tables"]}
    with world.store.write() as tx:
        tx.keyspaces.update(world.keyspaces()["wide"].id, vschema=ours)
        tx.routes.replace_rules(BRANCH, {})
    # Before it is there: a look must not take what is old there for a change of theirs.
    world.adopting.look()
    assert world.keyspaces()["wide"].vschema == ours
    world.follow()
    assert {one.name: one.vschema for one in world.theirs.seen.keyspaces}["wide"] == ours
    assert world.theirs.seen.rules == {}
    assert world.behind() is None


def test_what_they_change_while_another_change_is_followed_is_not_undone(world: World) -> None:
    (shard,) = SHOP.shards
    world.change("shop", shards=(replace(shard, primary=tablet(2), replicas=(tablet(1),)),))
    world.adopting.look()
    theirs: dict[str, Any] = {**VSCHEMA, "tables": {}}
    world.change("wide", vschema=theirs)
    world.theirs.seen = replace(world.theirs.seen, rules={})
    world.follow()
    assert {one.name: one.vschema for one in world.theirs.seen.keyspaces}["wide"] == theirs
    assert world.theirs.seen.rules == {}
    world.adopting.look()
    assert world.keyspaces()["wide"].vschema == theirs


def test_what_they_changed_while_nobody_looked_is_taken_over_after_a_start(world: World) -> None:
    theirs: dict[str, Any] = {**VSCHEMA, "tables": {}}
    world.change("wide", vschema=theirs)
    with world.store.write() as tx:
        tx.followings.doubt_all()
        assert tx.followings.known(BRANCH), "its vtgate was not away, and serves"
    assert world.behind() is not None
    world.follow()
    assert world.behind() is None
    assert {one.name: one.vschema for one in world.theirs.seen.keyspaces}["wide"] == theirs
    world.adopting.look()
    assert world.keyspaces()["wide"].vschema == theirs


def test_keyspaces_come_and_go_and_one_that_was_split_is_another(world: World) -> None:
    before = world.keyspaces()
    more = SeenKeyspace("more", False, {"tables": {}}, (SeenShard("-", "vt_more", tablet(7, "vt_more"), ()),))
    split = replace(
        WIDE,
        shards=tuple(
            SeenShard(name, "vt_wide", tablet(number, "vt_wide"), ())
            for name, number in (("-40", 11), ("40-80", 12), ("80-", 4))
        ),
    )
    world.theirs.seen = SeenCluster((more, split), {})
    world.adopting.look()
    found = world.keyspaces()
    assert sorted(found) == ["more", "wide"]
    assert found["wide"].id != before["wide"].id
    assert found["wide"].shard_count == 3
    world.follow()
    assert world.behind() is None
    # The tablet that was away comes back with the server that it had.
    world.theirs.seen = SEEN
    world.adopting.look()
    assert world.primary("shop") == server_id(BRANCH, tablet(1).alias)
    assert world.primary("wide") == server_id(BRANCH, tablet(3).alias)


def test_where_the_default_keyspace_goes_another_one_is_it(world: World) -> None:
    world.theirs.seen = replace(SEEN, keyspaces=(WIDE,), rules={})
    world.adopting.look()
    assert {name: one.is_default for name, one in world.keyspaces().items()} == {"wide": True}
    world.theirs.seen = SEEN
    world.adopting.look()
    assert {name: one.is_default for name, one in world.keyspaces().items()} == {
        "shop": False, "wide": True,
    }  # fmt: skip


def test_the_vschema_of_a_keyspace_that_cannot_be_read_is_left(tmp_path: Path) -> None:
    class Looked(AttachedClusters):
        def look(self, branch_id: str) -> SeenCluster:
            assert branch_id == BRANCH
            return replace(SEEN, keyspaces=(SHOP,), odd={"wide": "foreign_key_mode"})

    clusters = Looked(Attachments(tmp_path / "attached"), lambda: tmp_path / "no program", tmp_path)
    Attachments(tmp_path / "attached").write(attachment())
    wide = ClusterKeyspace("wide", True, VSCHEMA, ())
    spec = ClusterSpec(BRANCH, (wide,), given=frozenset({"wide"}))
    with pytest.raises(UnavailableError, match="keyspace wide is left as it is: foreign_key_mode"):
        clusters.follow(spec, 1.0)


def test_what_could_not_be_taken_over_is_looked_at_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("homeworld.workflows.clusters.adopting.time.monotonic", lambda: now[0])
    with world.store.write() as tx:  # something of ours is on its way
        tx.keyspaces.update(world.keyspaces()["shop"].id, vschema={"tables": {"t": {}}})
    world.change("wide", vschema={**VSCHEMA, "tables": {}})
    world.adopting.look()
    assert world.keyspaces()["wide"].vschema == VSCHEMA
    looks = world.theirs.looks
    world.adopting.look()
    assert world.theirs.looks == looks, "not at once"
    now[0] += AGAIN_SECONDS
    world.adopting.look()
    assert world.theirs.looks == looks + 1


def test_each_side_changes_its_own_at_the_same_time(world: World) -> None:
    """Of two keyspaces, and of two rules, others change one and we the other: both stay."""
    theirs: dict[str, Any] = {"tables": {"a": {}}}
    ours: dict[str, Any] = {**VSCHEMA, "tables": {}}
    world.change("shop", vschema=theirs)
    world.theirs.seen = replace(world.theirs.seen, rules={"t": "shop.t", "u": "wide.u"})
    with world.store.write() as tx:
        tx.keyspaces.update(world.keyspaces()["wide"].id, vschema=ours)
        tx.routes.replace_rules(BRANCH, {"t": "wide.t"})
    world.follow()
    assert {one.name: one.vschema for one in world.theirs.seen.keyspaces} == {"shop": theirs, "wide": ours}
    assert world.theirs.seen.rules == {"t": "wide.t", "u": "wide.u"}
    world.adopting.look()
    assert {name: one.vschema for name, one in world.keyspaces().items()} == {"shop": theirs, "wide": ours}
    with world.store.read() as tx:
        assert tx.routes.rules(BRANCH) == {"t": "wide.t", "u": "wide.u"}


def test_what_is_in_doubt_is_given_again(world: World) -> None:
    """Vitess has taken entries out, or somebody who was late has set older ones: ours are put back."""
    world.change("wide", vschema={**VSCHEMA, "tables": {}})
    with world.store.write() as tx:
        tx.followings.look_again(BRANCH, ["wide"])
    world.adopting.look()
    assert world.keyspaces()["wide"].vschema == VSCHEMA
    world.follow()
    assert {one.name: one.vschema for one in world.theirs.seen.keyspaces}["wide"] == VSCHEMA


def test_a_folder_of_which_no_branch_came_is_let_go(world: World) -> None:
    theirs = Theirs()
    theirs.branch_ids = lambda: ["nobranchyet1"]  # pyright: ignore[reportAttributeAccessIssue]
    abandoned: list[str] = []
    theirs.abandon = abandoned.append  # pyright: ignore[reportAttributeAccessIssue]
    Adopting(world.store, theirs).look()
    assert abandoned == ["nobranchyet1"]


def test_a_branch_that_goes_is_looked_at_no_more(world: World) -> None:
    with world.store.write() as tx:
        delete_database(tx, world.database)
    world.change("wide", vschema={**VSCHEMA, "tables": {}})
    world.adopting.look()
    assert world.theirs.looks == 0


def test_the_default_keyspace(store: Store) -> None:
    with store.write() as tx:
        organization = tx.organizations.ensure("acme")
        tx.regions.ensure("local", display_name="Local", provider="Homeworld", location="Here")
        with pytest.raises(InvalidError, match="no keyspace nowhere; it has shop, wide"):
            attach(tx, organization.id, "one", "b1", SEEN, default_keyspace="nowhere")
    with store.write() as tx:
        attach(tx, organization.id, "wide", "b2", SEEN)
        assert {one.name: one.is_default for one in tx.keyspaces.of_branch("b2")} == {
            "shop": False, "wide": True,
        }  # fmt: skip


# -- what vtctld prints --------------------------------------------------------------------------------------


def printed(number: int, keyspace: str, shard: str, kind: str, **more: object) -> dict[str, object]:
    return {
        "alias": {"cell": "zone1", "uid": number},
        "hostname": "10.0.0.1",
        "port_map": {"grpc": 16000, "vt": 15000},
        "keyspace": keyspace,
        "shard": shard,
        "type": kind,
        "mysql_hostname": "10.0.0.2",
        "mysql_port": 3306,
        **more,
    }


def record(number: int | None, *, serving: bool = True) -> dict[str, object]:
    alias = {} if number is None else {"primary_alias": {"cell": "zone1", "uid": number}}
    return {"shard": {**alias, "is_primary_serving": serving}}


KEYSPACES: list[dict[str, Any]] = [
    {"name": "wide", "keyspace": {}},
    {"name": "shop", "keyspace": {"keyspace_type": "NORMAL"}},
    {"name": "old", "keyspace": {"keyspace_type": "SNAPSHOT"}},
]
TABLETS = [
    printed(1, "shop", "0", "PRIMARY"),
    printed(2, "shop", "0", "RDONLY"),
    printed(5, "shop", "0", "DRAINED"),
    printed(8, "shop", "0", "REPLICA"),  # which died long ago
    printed(3, "wide", "-80", "PRIMARY"),
    printed(4, "wide", "80-", "PRIMARY"),
    printed(6, "wide", "-", "PRIMARY"),
]
SERVING = {f"zone1-{number}" for number in range(1, 8)}
SHARDS: dict[str, Any] = {
    "shop": {"shards": {"0": record(1)}},
    "wide": {"shards": {"80-": record(4), "-80": record(3), "-": record(6, serving=False)}},
    "old": {"shards": {"0": record(None)}},
}
VSCHEMAS: dict[str, object] = {"shop": {}, "wide": VSCHEMA, "old": {}}


def test_a_cluster_is_read() -> None:
    rules = {"rules": [{"from_table": "t", "to_tables": ["shop.t"]}]}
    assert seen_of(KEYSPACES, TABLETS, SHARDS, VSCHEMAS, rules, SERVING) == SEEN
    assert [one.alias for one in servers_of(BRANCH, SEEN)] == [
        tablet(number).alias for number in (1, 2, 3, 4)
    ]


@pytest.mark.parametrize(
    ("shards", "vschemas", "told"),
    [
        ({"wide": {"shards": {"-80": record(3)}}}, {}, "do not cover all keyspace ids once: -80"),
        ({"wide": {"shards": {"-80": record(3), "80-": record(None)}}}, {}, "wide/80- has no primary now"),
        ({}, {"wide": {}}, "is not sharded by its vschema and has 2 serving shards"),
        ({"shop": {"shards": {"0": record(1, serving=False)}}}, {}, "serving shards of keyspace shop"),
    ],
)
def test_what_cannot_be_followed_is_named_and_the_rest_goes_on(
    shards: dict[str, Any], vschemas: dict[str, object], told: str
) -> None:
    seen = seen_of(KEYSPACES, TABLETS, SHARDS | shards, VSCHEMAS | vschemas, {}, SERVING)
    (name,) = seen.odd
    assert told in seen.odd[name]
    assert [one.name for one in seen.keyspaces] == [other for other in ("shop", "wide") if other != name]


def test_rules_that_cannot_be_told_are_left(world: World) -> None:
    rules = {"rules": [{"from_table": "t", "to_tables": ["shop.t", "wide.t"]}]}
    seen = seen_of(KEYSPACES, TABLETS, SHARDS, VSCHEMAS, rules, SERVING)
    assert (seen.rules, list(seen.odd)) == (None, ["routing rules"])
    world.theirs.seen = seen
    world.adopting.look()
    with world.store.read() as tx:
        assert tx.routes.rules(BRANCH) == {"t": "shop.t"}


def test_a_keyspace_of_which_nobody_can_say_anything_stays_and_the_others_are_followed(world: World) -> None:
    (shard,) = SHOP.shards
    moved = replace(SHOP, shards=(replace(shard, primary=tablet(2), replicas=()),))
    before = world.keyspaces()["wide"]
    world.theirs.seen = replace(SEEN, keyspaces=(moved,), odd={"wide": "no primary"})
    world.adopting.look()
    assert world.keyspaces()["wide"] == before
    assert world.primary("shop") == server_id(BRANCH, tablet(2).alias)
    world.follow()
    assert world.behind() is None


# -- how it is reached ---------------------------------------------------------------------------------------


def attachment() -> Attachment:
    return Attachment(
        branch_id=BRANCH,
        vtctld=Address("10.0.0.3", 15999),
        tls=True,
        server_name="",
        vtgate=Address("::1", 15306),
        vtgate_http=Address("10.0.0.3", 15001),
        gate=Login("app", "of the gate"),
        owner=Login("root", "of the servers"),
    )


def test_attachments_are_kept_for_their_owner_only(tmp_path: Path) -> None:
    pem = tmp_path / "ca.pem"
    pem.write_text("a certificate")
    kept = Attachments(tmp_path / "attached")
    assert kept.branch_ids() == []
    made = attachment()
    kept.write(made, Certificates(pem))
    with pytest.raises(NotFoundError):  # one that was forgotten does not come back
        kept.write(replace(made, branch_id="forgotten123").with_servers(servers_of(BRANCH, SEEN)))
    assert kept.get(BRANCH) == made
    assert "of the" not in repr(made), "passwords are not told"
    folder = tmp_path / "attached" / BRANCH
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {
        "attachment.json": "0o600", "ca.pem": "0o600",
    }  # fmt: skip
    assert oct(folder.stat().st_mode & 0o777) == "0o700"
    found = kept.certificates(BRANCH)
    assert (found.ca.read_text(), found.certificate) == ("a certificate", None)
    # Another process writes it anew: the next question is answered by what is there then.
    Attachments(tmp_path / "attached").write(made.with_servers(servers_of(BRANCH, SEEN)))
    _, server = kept.server(server_id(BRANCH, tablet(2).alias))
    assert (server.alias, server.host, server.port) == (tablet(2).alias, "10.0.0.2", 3306)
    assert server.primary_id == server_id(BRANCH, tablet(1).alias)
    kept.forget(BRANCH)
    assert not folder.exists()
    with pytest.raises(NotFoundError):
        kept.get(BRANCH)
    with pytest.raises(NotFoundError):
        kept.server(server.server_id)


@pytest.mark.parametrize("text", ["host", "host:", ":1", "host:0", "host:70000", "host:x"])
def test_an_address_is_a_host_and_a_port(text: str) -> None:
    with pytest.raises(InvalidError, match=f"--vtgate must be HOST:PORT, and is '{text}'"):
        Address.parse(text, "--vtgate")


def test_nobody_asks_the_api_for_one() -> None:
    assert "homeworld engine attach" in refusal(EngineKind.ATTACHED, Flavor.MYSQL, {})
