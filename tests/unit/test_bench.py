"""The bench's own arithmetic: ratios, verdicts, reports, and the order in which sides are measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from bench import lists, report, tables
from bench.__main__ import FAMILIES, arguments, chosen, take, told
from bench.context import Context
from bench.harness import (
    Figure,
    Goal,
    against_peer,
    alone,
    cpu_seconds,
    interleave,
    not_taken,
    peak_rss_mib,
    percentile,
)
from bench.lab import BenchError
from bench.loads import stalls
from bench.serving import NothingMoves
from bench.sizes import QUICK
from bench.stores import DATABASE, ORGANIZATION, populate

from homeworld.api.calls import Settings
from homeworld.model.topology import Flavor
from homeworld.store.store import Store
from tests.support.api import ServedApi

MORE = Goal(target=1.0, beyond=1.3, higher_is_better=True)
LESS = Goal(target=250.0, beyond=50.0, higher_is_better=False)


def test_sides_take_turns_in_going_first() -> None:
    order: list[str] = []

    def side(name: str) -> float:
        order.append(name)
        return float(len(order))

    def before(number: int) -> None:
        order.append(f"before {number}")

    mine, theirs = interleave(lambda: side("ours"), lambda: side("peer"), 3, before)
    assert order == [
        "before 0", "ours", "peer", "before 1", "peer", "ours", "before 2", "ours", "peer",
    ]  # fmt: skip
    assert (mine, theirs) == ([2.0, 6.0, 8.0], [3.0, 5.0, 9.0])


def test_a_side_that_is_not_taken_gives_nothing() -> None:
    assert interleave(None, lambda: 2.0, 2) == ([], [2.0, 2.0])
    figure = against_peer("copy", "rows/s", [], [2.0, 2.0], "peer", MORE)
    assert (figure.ours, figure.peer, figure.ratio, figure.met) == (None, 2.0, None, False)


def test_the_ratio_is_the_median_of_the_pairs_not_of_the_sides() -> None:
    figure = against_peer("copy", "rows/s", [10.0, 30.0, 12.0], [10.0, 20.0, 5.0], "peer", MORE)
    assert (figure.ours, figure.peer, figure.ratio) == (12.0, 10.0, 1.5)
    assert figure.met
    assert figure.surpassed


@pytest.mark.parametrize(
    ("value", "met", "surpassed"), [(250.0, True, False), (250.1, False, False), (50.0, True, True)]
)
def test_a_figure_without_a_peer_is_held_against_its_value(value: float, met: bool, surpassed: bool) -> None:
    figure = alone("hold", "ms", value, LESS)
    assert (figure.ratio, figure.peer, figure.met, figure.surpassed) == (None, None, met, surpassed)


def test_errors_beside_a_good_value_are_not_met() -> None:
    assert not alone("hold", "ms", 10.0, LESS, failed=True).met


def test_nearest_rank_percentiles() -> None:
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (50.0, 99.0, 100.0)
    assert percentile([3.0, 1.0, 2.0], 99) == 3.0


def test_rows_of_the_report_say_all_that_was_asked_of_them() -> None:
    figures = [
        against_peer("copy", "rows/s", [2.0], [1.0], "peer", MORE, note="n"),
        not_taken("hold", "ms", LESS, "broken"),
    ]
    rows = json.loads(report.as_json(figures))
    assert {"name", "unit", "ours", "peer", "peer_name", "ratio", "target", "met", "note"} <= set(rows[0])
    assert [(row["name"], row["ratio"], row["met"]) for row in rows] == [
        ("copy", 2.0, True),
        ("hold", None, False),
    ]
    page = report.as_markdown(figures, "python -m bench", ["a machine"])
    assert "| copy | rows/s | 2 | 1 (peer) | 2 | ≥ 1 (beyond 1.3) | beyond |" in page
    assert "| hold | ms | - | - | - | ≤ 250 (beyond 50) | not met |" in page
    assert "* **hold**: broken" in page


def test_only_names_families_in_the_reports_order() -> None:
    assert chosen("catch-up, verify") == ["copy", "catch-up"]
    given = ["--quick", "--only", "copy", "--json", "here.json"]
    assert told(arguments(given)) == ["--quick", "--only copy", "--flavor mariadb"]
    with pytest.raises(SystemExit):
        arguments(["--only", "speed"])
    with pytest.raises(SystemExit):
        arguments(["--runs", "0"])


def test_a_process_is_measured_with_its_memory_and_time() -> None:
    code = "import sys; print(len(bytearray(64 << 20)), sum(range(3_000_000)), flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        assert peak_rss_mib(child.pid) > 64
        assert cpu_seconds(child.pid) > 0
        child.stdin.close()


def test_a_stall_belongs_to_every_window_in_which_it_was_under_way() -> None:
    felt = stalls.read(
        [
            "B 0 100.000 0.010",
            "B 3 101.000 0.400",
            "FATAL: mysql_drv_query() returned error 1105",
            "E 1105 no more",
            "queries: 3",
            "FATAL: x",
        ]
    )
    assert felt.longest(100.7, 100.8) == 0.4
    assert felt.longest(99.0, 100.5) == 0.01
    assert felt.longest(101.1, 102.0) == 0.0
    assert (felt.clients_since(100.5), felt.clients_since(99.0)) == ({3}, {0, 3})
    assert felt.errors == ("1105 no more", "x")


def test_the_tables_rows_are_the_same_each_time_and_have_the_size_that_is_told() -> None:
    made = b"".join(tables.rows(7000))
    assert made == b"".join(tables.rows(7000))
    lines = made.splitlines()
    assert [line.split(b"\t", 1)[0] for line in lines[:2]] == [b"1", b"2"]
    assert len(lines) == 7000
    assert {len(line.split(b"\t")[2]) for line in lines} == {119}
    assert {len(line.split(b"\t")[3]) for line in lines} == {59}


def test_a_store_of_many_branches_is_made_of_whole_branches(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    populate(url, 4)
    store = Store.open(url)
    with store.read() as tx:
        organization = tx.organizations.by_name(ORGANIZATION)
        database = tx.databases.by_name(organization.id, DATABASE).id
        names = [branch.name for branch in tx.branches.of_database(database)]
        assert names == ["branch-000001", "branch-000002", "branch-000003", "branch-000004", "main"]
        seen: set[str] = set()
        for number in range(1, 5):
            workflow = tx.workflows.by_number(database, number)
            branch = tx.branches.get(workflow.branch_id)
            assert branch.name == names[number - 1]
            keyspaces = {keyspace.id for keyspace in tx.keyspaces.of_branch(branch.id)}
            assert keyspaces == {workflow.source_keyspace_id, workflow.target_keyspace_id}
            assert sum(len(tx.keyspaces.shards(keyspace)) for keyspace in keyspaces) == 3
            assert seen.isdisjoint(keyspaces)
            seen |= keyspaces
    store.close()


def test_every_list_of_a_store_of_many_has_as_many_entries(tmp_path: Path, served_api: ServedApi) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    token = populate(url, 3)
    paths = lists.fill(url, 3)
    store = Store.open(url)
    served_api.use(store, Settings(NothingMoves()))
    with httpx.Client(
        base_url=served_api.url, headers={"Authorization": token}, trust_env=False, timeout=30
    ) as client:
        shown = {name: client.get(path).raise_for_status().json() for name, path in paths.items()}
    store.close()
    # The token that reads, and the team that everybody is in.
    beside = {"service tokens": 1, "teams": 1}
    assert {name: len(page["data"]) for name, page in shown.items()} == {
        name: 3 + beside.get(name, 0) for name in paths
    }


def test_a_figure_that_fails_is_a_line_and_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_context: Context) -> list[Figure]:
        raise BenchError("no such peer")

    monkeypatch.setitem(FAMILIES, "hold", (broken, (("hold", "ms", LESS),)))
    (figure,), taken = take("hold", Context(Flavor.MARIADB, QUICK, 1, peer_only=False, say=print))
    assert not taken
    assert (figure.name, figure.ours, figure.met) == ("hold", None, False)
    assert "no such peer" in figure.note
    assert "no such peer" in capsys.readouterr().err
