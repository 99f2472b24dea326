"""What people are shown of a verification: how far it is, its verdict, and the rows that differ."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from homeworld.cli.workflow_view import draw


def drawn(vdiff: dict[str, Any]) -> str:
    console = Console(width=140, file=io.StringIO(), record=True)
    console.print(draw({"state": "running", "tables": [], "streams": [], "vdiff": vdiff}, 0.0))
    return console.export_text()


def report(**changes: object) -> dict[str, Any]:
    kinds: dict[str, Any] = {"mismatched_rows": [], "extra_source_rows": [], "extra_target_rows": []}
    counts: dict[str, Any] = {
        "mismatched_rows_count": 0, "extra_source_rows_count": 0, "extra_target_rows_count": 0,
        "wrong_shard_rows_count": 0,
    }  # fmt: skip
    base: dict[str, Any] = {
        "table_name": "orders",
        "rows_total": 2000,
        "rows_compared": 500,
        "rows_percentage": 25,
    }
    return {**base, **kinds, **counts, **changes}


def vdiff(**changes: object) -> dict[str, Any]:
    base: dict[str, Any] = {
        "state": "started", "progress_percentage": 25, "eta_seconds": 1234, "rows_per_second": 5678,
        "rows_compared": 500, "rows_total": 2000, "has_mismatch": False, "error": "", "rounds": [],
        "table_reports": [report()],
    }  # fmt: skip
    return {**base, **changes}


def test_progress_is_shown_by_table() -> None:
    text = drawn(vdiff())
    assert "5,678 rows/s about 1,234 s left" in text
    assert "orders" in text
    assert "25 %" in text
    assert "500 of 2,000 rows" in text


def test_a_verdict_is_shown_with_its_rows() -> None:
    assert "equal" in drawn(vdiff(state="completed"))
    row: dict[str, Any] = {
        "kind": "wrong_shard", "key": {"id": "7", "at": "x"}, "shard": "80-", "owner": "-80", "columns": [],
    }  # fmt: skip
    other: dict[str, Any] = {
        "kind": "mismatched",
        "key": {"id": "9"},
        "shard": "-80",
        "owner": "-80",
        "columns": ["a", "b"],
    }
    found = report(mismatched_rows_count=12, wrong_shard_rows_count=1, mismatched_rows=[other, row])
    text = drawn(vdiff(state="completed", has_mismatch=True, table_reports=[found]))
    assert "differs" in text
    assert "orders: 12 rows differ" in text
    assert "id=9 on shard -80: a, b" in text
    assert "orders: 1 rows lie on a wrong shard" in text
    assert "id=7, at=x on shard 80-, belongs on -80" in text


def test_what_could_not_be_compared_is_said() -> None:
    note = {"number": 2, "note": "table orders is compared anew: somebody else wrote to it on shop/-80"}
    text = drawn(vdiff(state="error", error="table 'orders' on shard shop/-80", rounds=[note]))
    assert "could not be verified: table 'orders' on shard shop/-80" in text
    assert "round 2: table orders is compared anew" in text
