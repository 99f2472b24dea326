"""What is to be done about a cluster, decided from what was seen; and what processes are started with."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import pytest

from homeworld.engines.vitess import arguments, looks
from homeworld.engines.vitess.arguments import Folder, Surroundings
from homeworld.engines.vitess.binaries import NAMES, Binaries
from homeworld.engines.vitess.certificates import Identity
from homeworld.engines.vitess.processes import Act, decide, last_words
from homeworld.engines.vitess.records import Installation, Ports, adjusted
from homeworld.engines.vitess.topology import Seen, Step, in_line
from homeworld.engines.vitess.topology import decide as decide_topology
from homeworld.engines.vitess.vtctldclient import error_of, json_of
from homeworld.engines.vitess.watcher import ClusterWatcher
from homeworld.model.clusters import ClusterKeyspace, ClusterShard, ClusterSpec
from homeworld.model.errors import (
    ConflictError,
    DeadlineExceededError,
    HomeworldError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from homeworld.model.topology import BackendRole, Endpoint, Flavor

VSCHEMA: dict[str, object] = {
    "sharded": True,
    "vindexes": {"hash": {"type": "xxhash"}},
    "tables": {"t": {"column_vindexes": [{"column": "id", "name": "hash"}]}, "bare": {}},
}
KEYSPACE = ClusterKeyspace(
    "ks", True, VSCHEMA, (ClusterShard("-80", "low", "s1", ()), ClusterShard("80-", "high", "s2", ()))
)
SPEC = ClusterSpec("branch1", (KEYSPACE,))
ADDRESS = "127.0.0.1:2379"
BOUND = {"name": "hash", "type": "xxhash", "columns": ["ID"]}


def names(steps: list[Step]) -> list[str]:
    return [step.arguments[0] for step in steps]


# -- topology ----------------------------------------------------------------------------------------------


def test_everything_is_made_in_order() -> None:
    steps = decide_topology(SPEC, Seen(None, {}, {}), ADDRESS)
    assert names(steps) == [
        "AddCellInfo", "CreateKeyspace", "CreateShard", "CreateShard", "RebuildKeyspaceGraph", "ApplyVSchema",
    ]  # fmt: skip
    assert steps[-1].content == VSCHEMA


def test_what_is_there_is_left() -> None:
    shards = {"ks": frozenset({"-80", "80-"})}
    assert decide_topology(SPEC, Seen(ADDRESS, shards, {"ks": VSCHEMA}), ADDRESS) == []
    assert names(decide_topology(SPEC, Seen("127.0.0.1:1", shards, {"ks": VSCHEMA}), ADDRESS)) == [
        "UpdateCellInfo"
    ]
    assert names(
        decide_topology(SPEC, Seen(ADDRESS, {"ks": frozenset({"-80"})}, {"ks": VSCHEMA}), ADDRESS)
    ) == [
        "CreateShard",
        "RebuildKeyspaceGraph",
    ]
    assert names(decide_topology(SPEC, Seen(ADDRESS, shards, {"ks": {"sharded": True}}), ADDRESS)) == [
        "ApplyVSchema"
    ]


def test_a_keyspace_too_many_is_not_in_line() -> None:
    assert in_line(SPEC, {"ks": VSCHEMA})
    assert not in_line(SPEC, {"ks": VSCHEMA, "more": {}})
    assert not in_line(SPEC, {})
    assert not in_line(SPEC, None)


def test_vschemas_that_mean_the_same_are_the_same() -> None:
    noisy: dict[str, object] = {
        "sharded": True,
        "require_explicit_routing": False,
        "vindexes": {"hash": {"type": "xxhash", "params": {}, "owner": ""}},
        "tables": {
            "t": {"type": "", "column_vindexes": [{"column": "id", "name": "hash", "columns": []}]},
            "bare": {"columns": []},
        },
    }
    assert looks.canonical(noisy) == looks.canonical(VSCHEMA)
    assert "bare" in str(looks.canonical(VSCHEMA))  # a table without anything is a table
    assert looks.canonical({"sharded": False, "tables": {}}) == looks.canonical({})
    assert looks.canonical({**VSCHEMA, "tables": {}}) != looks.canonical(VSCHEMA)


# -- what processes say ------------------------------------------------------------------------------------


def test_a_vtgates_rules_are_read_with_those_that_it_cannot_follow() -> None:
    view = looks.vtgate_view(
        {
            "routing_rules": {"t": ["ks.t"], "ks.t@replica": ["other.t"], "x": "table x not found", "y": []},
            "keyspaces": {"ks": {"sharded": True, "tables": {"t": {"column_vindexes": [BOUND]}}}},
        }
    )
    assert view.rules == {"t": "ks.t", "ks.t@replica": "other.t"}
    assert view.refused == {"x": "table x not found"}
    assert not looks.knows(view, KEYSPACE)  # it has no table "bare" yet
    view.keyspaces["ks"]["tables"]["bare"] = {}
    assert looks.knows(view, KEYSPACE)
    # What is only called alike may place rows elsewhere.
    for other in ({"name": "another"}, {"type": "hash"}, {"columns": ["id", "more"]}):
        view.keyspaces["ks"]["tables"]["t"] = {"column_vindexes": [{**BOUND, **other}]}
        assert not looks.knows(view, KEYSPACE)


def test_tables_are_unread_until_vtgate_has_their_columns() -> None:
    tables: dict[str, object] = {"a": {"column_list_authoritative": True}, "b": {"column_vindexes": []}}
    view = looks.vtgate_view({"keyspaces": {"ks": {"tables": tables}}})
    assert looks.unread(view, "ks", ["a", "b", "c"]) == ["b", "c"]
    assert looks.unread(view, "other", ["a"]) == ["a"]


def test_rules_of_vitess_are_ours() -> None:
    answer = {"rules": [{"from_table": "t", "to_tables": ["ks.t"]}, {"from_table": "gone"}]}
    assert looks.rules_of(answer) == {"t": "ks.t"}
    assert looks.rules_of({}) == {}


def test_aliases_lose_their_zeros() -> None:
    assert looks.short_alias("local-0000000100") == "local-100"


@pytest.mark.parametrize(
    ("stderr", "kind"),
    [
        ("E1 main.go:56] rpc error: code = NotFound desc = node doesn't exist: x", NotFoundError),
        ("E1 main.go:56] rpc error: code = Unknown desc = node doesn't exist: keyspaces/x", NotFoundError),
        ("E1 main.go:56] rpc error: code = AlreadyExists desc = node already exists: x", ConflictError),
        ("rpc error: code = Unavailable desc = connection error: connection refused", UnavailableError),
        ("rpc error: code = DeadlineExceeded desc = context deadline exceeded", DeadlineExceededError),
        ("rpc error: code = Unknown desc = x: context deadline exceeded", DeadlineExceededError),
        ('rpc error: code = Unknown desc = vindexType "x" not found', InvalidError),
        ("", InvalidError),
    ],
)  # fmt: skip
def test_complaints_become_errors(stderr: str, kind: type[HomeworldError]) -> None:
    assert type(error_of(stderr, "ApplyVSchema")) is kind


def test_json_is_found_among_lines() -> None:
    assert json_of('New VSchema object:\n{"a": [1]}\nIf this is not') == {"a": [1]}
    assert json_of("[1]\n") == [1]
    assert json_of("null\n") is None
    with pytest.raises(HomeworldError):
        json_of("nothing")


# -- processes ---------------------------------------------------------------------------------------------


def test_a_process_runs_as_it_should_or_is_started_again() -> None:
    wanted = ("/bin/vtgate", "--port=1")
    assert decide(wanted, None) is Act.START
    assert decide(wanted, wanted) is Act.NOTHING
    assert decide(wanted, ("setpriv", "--reuid=1", "--", *wanted)) is Act.NOTHING
    assert decide(wanted, ()) is Act.NOTHING
    assert decide(wanted, ("/bin/vtgate", "--port=2")) is Act.RESTART


def around() -> Surroundings:
    return Surroundings(
        {name: Path("/bin") / name for name in NAMES},
        Identity(Path("/tls/ca"), Path("/tls/cert"), Path("/tls/key")),
        Installation("/home", 2379, 2380),
        "9.7.4",
    )


def test_no_secret_is_on_a_command_line_and_all_listens_on_loopback(tmp_path: Path) -> None:
    branch = adjusted(None, SPEC, Ports(set(), range(45600, 45700)))
    server = Endpoint("s1", Flavor.MYSQL, "127.0.0.1", 3306, "/s", "homeworld_admin", "hidden-a")
    owner = Endpoint("s1", Flavor.MYSQL, "127.0.0.1", 3306, "/s", "homeworld_owner", "hidden-o")
    folder = Folder(tmp_path)
    commands = [
        arguments.etcd(around(), folder),
        arguments.vtctld(around(), branch, folder),
        arguments.vtgate(around(), branch, folder),
        arguments.vttablet(around(), branch, branch.tablets[0], folder, server, owner),
        arguments.vtctldclient(around(), branch, 5.0),
    ]
    for command in commands:
        assert not [part for part in command if "hidden" in part]
        assert len({part.partition("=")[0] for part in command}) == len(command), "a flag stands twice"
    for command in commands[1:4]:
        assert "--bind-address=127.0.0.1" in command
        assert "--security-policy=read-only" in command
        assert folder.mark in command


def test_accounts_and_rights() -> None:
    users = {role: f"u_{role.value}" for role in arguments.ROLES}
    (group,) = json.loads(arguments.table_acl(users))["table_groups"]
    assert group["readers"] == ["u_reader", "u_writer", "u_readwriter", "u_admin"]
    assert group["writers"] == ["u_writer", "u_readwriter", "u_admin"]
    assert group["admins"] == ["u_admin"]
    text = arguments.accounts({role: (users[role], "mypass") for role in BackendRole if role in users})
    assert "mypass" not in text
    # As MySQL's own PASSWORD() had it.
    assert (
        json.loads(text)["u_reader"][0]["MysqlNativePassword"] == "*6C8989366EAF75BB670AD8EA7A7FC1176A95CEF4"
    )


def test_what_vitess_cannot_stand_on_is_said_first() -> None:
    found = Binaries({}, (23, 0, 3), (3, 6, 0))
    assert found.refusal(Flavor.MYSQL, "9.7.4") == ""
    assert found.refusal(Flavor.MYSQL, "8.0.36") == ""
    assert "MySQL only" in found.refusal(Flavor.MARIADB, "10.11.6")
    assert "8.0.27" in found.refusal(Flavor.MYSQL, "8.0.11")
    assert "9.x" in found.refusal(Flavor.MYSQL, "10.0.1")


def test_last_words_are_the_fatal_ones(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert last_words(folder) == "no log"
    folder.log.write_text("F1126 it is over\ngoroutine 1 [running]:\nmain.main()\n")
    assert last_words(folder) == "F1126 it is over"


# -- the watcher -------------------------------------------------------------------------------------------


class Clusters:
    """Whose processes are ill as told."""

    def __init__(self) -> None:
        self.ill: list[str] = []
        self.asked: list[tuple[str, set[str], float]] = []

    def branch_ids(self) -> list[str]:
        return ["b"]

    def ailing(self, branch_id: str) -> list[str]:
        return list(self.ill) if branch_id == "b" else []

    def revive(self, branch_id: str, names: Collection[str], patience_seconds: float) -> list[str]:
        self.asked.append((branch_id, set(names), patience_seconds))
        return sorted(names)


def test_each_process_is_tried_again_at_its_own_intervals() -> None:
    clusters = Clusters()
    watcher = ClusterWatcher(clusters)
    assert watcher.look(0.0) == []
    clusters.ill = ["tablet"]
    assert watcher.look(1.0) == ["tablet"]
    assert watcher.look(1.5) == []
    clusters.ill = ["tablet", "vtgate"]
    assert watcher.look(1.6) == ["vtgate"]
    assert watcher.look(2.1) == ["tablet"]
    assert watcher.look(3.0) == ["vtgate"]
    clusters.ill = []
    assert watcher.look(4.0) == []
    assert watcher.look(90.0) == []
    clusters.ill = ["tablet"]
    assert watcher.look(91.0) == ["tablet"]
    assert clusters.asked[0] == ("b", {"tablet"}, 0.0)
