"""Webhooks, maintenance and usage through ``homeworld up``, by ``pscale`` and homeworld's own commands.

Nothing here depends on the flavour of the servers, so one is enough.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from homeworld.cli.installation import Installation
from homeworld.client import HomeworldClient
from homeworld.model.topology import Flavor
from homeworld.model.webhooks import signature
from tests.scenarios.test_pscale import Pscale
from tests.support.clients import pscale as program
from tests.support.mysqld import binary, free_port
from tests.support.receiver import Receiver

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(300)]


def until(what: str, holds: Callable[[], object], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture(scope="module")
def pscale(server_root: Path) -> Iterator[Pscale]:
    program()
    folder = Path(tempfile.mkdtemp(prefix="hooks-", dir=server_root))
    server = binary(Flavor.MARIADB)
    assert server is not None
    installation = Installation(
        folder / "homeworld",
        (
            "--api-port", str(free_port()), "--gateway-port", "0", "--replicas", "1", "--mysqld", str(server),
            "--prices", "server_hour=0.5",
        ),
        {"HOMEWORLD_WEBHOOK_NETWORKS": "127.0.0.0/8"},
    )  # fmt: skip
    try:
        installation.start()
        made = Pscale(folder, installation)
        assert "successfully created" in made.run("database", "create", "shop", "--wait")
        yield made
    finally:
        installation.destroy()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def homeworld(pscale: Pscale, *words: str) -> str:
    """One of homeworld's own commands."""
    done = subprocess.run(
        [sys.executable, "-m", "homeworld.main", *words, "--ready-file", str(pscale.installation.ready_file)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def told(receiver: Receiver, event: str) -> list[dict[str, Any]]:
    # Told at least once: a delivery whose answer was not noted in time is sent again under its own id.
    found = {one.headers["x-homeworld-delivery"]: json.loads(one.body) for one in receiver.received}
    return [one for one in found.values() if one["event"] == event]


def test_webhooks_by_pscale(pscale: Pscale, receiver: Receiver) -> None:
    assert pscale.ask("webhook", "list", "shop") in ([], None)
    made = pscale.ask("webhook", "create", "shop", "--url", receiver.url("/ok"), "--events", "branch.ready")
    assert (made["events"], made["enabled"], len(made["secret"])) == (["branch.ready"], False, 64)
    at = ("shop", made["id"])
    assert pscale.ask("webhook", "show", *at)["secret"] == made["secret"]
    assert [one["id"] for one in pscale.ask("webhook", "list", "shop")] == [made["id"]]
    assert "successfully" in pscale.run("webhook", "test", *at)
    # Which code the command line gives it is its own affair; the sentence is the API's.
    assert "every 20 seconds" in pscale.refused("webhook", "test", *at)[1]
    until("the test arrives", lambda: receiver.received)
    (test,) = receiver.received
    assert test.headers["x-planetscale-signature"] == signature(made["secret"], test.body)
    body = json.loads(test.body)
    assert (body["event"], body["organization"], body["database"]) == ("webhook.test", "homeworld", "shop")
    assert body["resource"]["type"] == "Database"
    until("it is told", lambda: pscale.ask("webhook", "show", *at)["last_sent_success"])
    assert pscale.ask("webhook", "update", *at, "--enabled")["enabled"] is True
    pscale.run("branch", "create", "shop", "dev", "--wait")
    until("the branch is told", lambda: told(receiver, "branch.ready"))
    (ready,) = told(receiver, "branch.ready")
    assert (ready["resource"]["name"], ready["resource"]["ready"]) == ("dev", True)
    assert ready["resource"]["url"].startswith(str(pscale.installation.ready["api_url"]))
    # What a killed process had not told is told by the next one.
    pscale.run("branch", "create", "shop", "later")
    pscale.installation.kill()
    pscale.installation.start()
    until("it is told after all", lambda: len(told(receiver, "branch.ready")) >= 2)
    assert [one["resource"]["name"] for one in told(receiver, "branch.ready")] == ["dev", "later"]
    _, sentence = pscale.refused(
        "webhook", "create", "shop", "--url", "http://10.1.2.3/", "--events", "branch.ready"
    )
    assert "private" in sentence
    assert "successfully deleted" in pscale.run("webhook", "delete", *at)
    assert pscale.refused("webhook", "show", *at)[0] == "NOT_FOUND"


def test_maintenance_and_usage(pscale: Pscale, receiver: Receiver) -> None:
    events = "branch.start_maintenance,branch.primary_promoted"
    made = pscale.ask("webhook", "create", "shop", "--url", receiver.url("/ok"), "--events", events)
    pscale.run("webhook", "update", "shop", made["id"], "--enabled")
    set_ = homeworld(
        pscale, "maintenance", "set", "shop", "--every", "week", "--day", "sunday", "--action", "restart"
    )
    schedule = set_.partition(":")[0]
    assert schedule in homeworld(pscale, "maintenance", "list", "shop")
    homeworld(pscale, "maintenance", "now", "shop", schedule)
    ready = pscale.installation.ready
    client = HomeworldClient(ready["api_url"], ready["service_token_id"], ready["service_token"])

    def window() -> dict[str, Any]:
        (found,) = client.list_maintenance_windows("homeworld", "shop", schedule)
        return found

    until("the window is over", lambda: window()["state"] == "finished", 120)
    assert (window()["error"], len(window()["restarted_servers"]) >= 2) == ("", True)
    until("both are told", lambda: told(receiver, "branch.primary_promoted"))
    (start,) = told(receiver, "branch.start_maintenance")
    assert (start["resource"]["name"], start["resource"]["type"]) == ("main", "Branch")
    assert json.loads(receiver.received[0].body)["event"] == "branch.start_maintenance"
    homeworld(pscale, "maintenance", "disable", "shop", schedule)
    assert "finished" in homeworld(pscale, "maintenance", "windows", "shop", schedule)
    until("an hour is counted", lambda: client.list_invoices("homeworld"))
    (invoice,) = client.list_invoices("homeworld")
    lines = client.list_invoice_lines("homeworld", invoice["id"])
    hours = [
        line for line in lines if line["metric_name"] == "server_hours" and line["resource"]["name"] == "main"
    ]
    assert [line["subtotal"] for line in hours] == [hours[0]["quantity"] * 0.5]
    assert "server_hours" in homeworld(pscale, "usage")
    homeworld(pscale, "maintenance", "delete", "shop", schedule)


def test_maintenance_by_pscale(pscale: Pscale) -> None:
    if "maintenance" not in pscale.run("--help"):
        pytest.skip("this pscale has no command for maintenance")
    schedule = homeworld(pscale, "maintenance", "set", "shop", "--every", "day").partition(":")[0]
    at = ("--org", "homeworld")
    assert [one["id"] for one in pscale.ask("maintenance", "list", "shop", *at)] == [schedule]
    assert pscale.ask("maintenance", "show", "shop", schedule, *at)["frequency_unit"] == "day"
    assert pscale.ask("maintenance", "windows", "shop", schedule, *at) in ([], None)
    assert pscale.refused("maintenance", "show", "shop", "nothing", *at)[0] == "NOT_FOUND"
