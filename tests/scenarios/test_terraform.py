"""Terraform with the provider ``planetscale/planetscale``, both unmodified: make, refresh without a
difference, change, import, destroy; of what that provider can make and is mounted here (databases it cannot).

The provider asks for a branch by its id, and polls after 30 s and then each 10 s, so this waits more than it
works. Nothing is downloaded: ``dev_overrides`` names the folder of the provider. Where either program is
missing, this is skipped with the reason.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest

from homeworld.cli.installation import Installation
from homeworld.client import HomeworldClient
from homeworld.model.topology import Flavor
from tests.support.clients import terraform
from tests.support.mysqld import binary

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(600)]

SOURCE = Path(__file__).parents[1] / "clients" / "terraform" / "main.tf"
NOTHING_TO_DO, CHANGES = 0, 2


class Terraform:
    """One folder with a configuration and its state, over an installation."""

    def __init__(self, folder: Path, installation: Installation) -> None:
        program, provider = terraform()
        ready = installation.ready
        self.installation = installation
        self.organization = str(ready["organization"])
        self.client = HomeworldClient(ready["api_url"], ready["service_token_id"], ready["service_token"])
        self.values: dict[str, str] = {"organization": self.organization}
        self.state = folder / "state.json"
        self._program = program
        self._folder = folder
        shutil.copy(SOURCE, folder)
        settings = folder / "terraform.rc"
        settings.write_text(
            "provider_installation {\n"
            f'  dev_overrides {{ "planetscale/planetscale" = {json.dumps(str(provider.parent))} }}\n'
            # Another provider would be looked for here, and nowhere else.
            f"  filesystem_mirror {{ path = {json.dumps(str(folder / 'none'))} }}\n}}\n"
        )
        self._environment = {
            "HOME": str(folder), "PATH": os.environ["PATH"], "TF_CLI_CONFIG_FILE": str(settings),
            "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1",
            "PLANETSCALE_SERVER_URL": str(ready["api_url"]).rstrip("/") + "/v1",
            "PLANETSCALE_SERVICE_TOKEN_ID": str(ready["service_token_id"]),
            "PLANETSCALE_SERVICE_TOKEN": str(ready["service_token"]),
        }  # fmt: skip

    def run(self, *words: str, expect: int = 0) -> str:
        """Run a command; what it printed."""
        given = {f"TF_VAR_{name}": value for name, value in self.values.items()}
        done = subprocess.run(
            [str(self._program), *words], env=self._environment | given, cwd=self._folder,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == expect, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def plan(self) -> int:
        """What ``plan`` says: nothing to do, or changes."""
        words = ("plan", "-no-color", "-input=false", "-detailed-exitcode", f"-state={self.state}")
        given = {f"TF_VAR_{name}": value for name, value in self.values.items()}
        done = subprocess.run(
            [str(self._program), *words], env=self._environment | given, cwd=self._folder,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode in {NOTHING_TO_DO, CHANGES}, done.stdout + done.stderr
        self.planned = done.stdout
        return done.returncode

    def change(self, verb: str) -> None:
        """``apply`` or ``destroy``."""
        self.run(verb, "-no-color", "-input=false", "-auto-approve", f"-state={self.state}")

    def outputs(self) -> dict[str, Any]:
        """What the configuration gives out."""
        told = json.loads(self.run("output", "-json", f"-state={self.state}"))
        return {name: one["value"] for name, one in told.items()}


@pytest.fixture(scope="module")
def there(server_root: Path) -> Iterator[Terraform]:
    terraform()
    # Which servers there are makes no difference to what a client decodes.
    server = binary(Flavor.MARIADB)
    assert server is not None
    folder = Path(tempfile.mkdtemp(prefix="terraform-", dir=server_root))
    installation = Installation(
        folder / "homeworld",
        ("--api-port", "0", "--gateway-port", "0", "--replicas", "0", "--mysqld", str(server)),
    )
    work = folder / "work"
    work.mkdir()
    try:
        installation.start()
        made = Terraform(work, installation)
        made.client.create_database(made.organization, "shop")
        deadline = time.monotonic() + 90
        while (shop := made.client.get_database(made.organization, "shop"))["state"] != "ready":
            assert time.monotonic() < deadline, shop
            time.sleep(0.1)
        made.values |= {
            "database_id": str(shop["id"]), "password_name": "app", "safe": "false", "size": "PS_10",
        }  # fmt: skip
        yield made
    finally:
        installation.destroy()
        shutil.rmtree(folder, ignore_errors=True)


def test_what_is_made_is_as_it_was_planned(there: Terraform) -> None:
    assert there.plan() == CHANGES
    there.change("apply")
    told = there.outputs()
    assert (told["organizations"], told["database"]) == ([there.organization], "shop")
    assert told["passwords"] == ["app"]
    host, _, port = str(told["address"]).partition(":")
    with (
        pymysql.connect(
            host=host, port=int(port), user=told["username"], password=told["plain_text"], database="shop",
            ssl_ca=there.installation.ready["ca_file"],
        ) as connection,
        connection.cursor() as cursor,
    ):  # fmt: skip
        cursor.execute("SELECT 1")
        assert cursor.fetchall() == ((1,),)
    wide = there.client.get_keyspace(there.organization, "shop", "main", "wide")
    assert (wide["shards"], wide["ready"], wide["cluster_name"]) == (2, True, "PS_10")
    assert there.plan() == NOTHING_TO_DO, there.planned


def test_changes_are_made_in_place(there: Terraform) -> None:
    before = there.outputs()
    there.values |= {"password_name": "application", "safe": "true", "size": "PS_20"}
    assert there.plan() == CHANGES
    assert "0 to add, 3 to change, 0 to destroy" in there.planned
    there.change("apply")
    after = there.outputs()
    assert (after["branch_id"], after["password_id"]) == (before["branch_id"], before["password_id"])
    assert there.client.get_branch(there.organization, "shop", "dev")["safe_migrations"]
    wide = there.client.get_keyspace(there.organization, "shop", "main", "wide")
    assert (wide["cluster_name"], wide["resizing"]) == ("PS_20", False)
    assert there.plan() == NOTHING_TO_DO, there.planned


def test_what_is_there_is_imported(there: Terraform) -> None:
    told = there.outputs()
    kept = there.state
    there.state = kept.with_name("imported.json")
    ids = {
        "branch.dev": {"id": told["branch_id"]},
        "branch_password.app": {"branch": "dev", "id": told["password_id"]},
        "keyspace.wide": {"branch": "main", "name": "wide"},
    }
    for what, named in ids.items():
        at = json.dumps({"organization": there.organization, "database": "shop", **named})
        there.run(
            "import", "-no-color", "-input=false", f"-state={there.state}", f"planetscale_vitess_{what}", at
        )
    # Outputs are changes of the state alone: of what there is, nothing is to be changed.
    there.plan()
    assert "to change" not in there.planned, there.planned
    there.state = kept


def test_destroying(there: Terraform) -> None:
    there.change("destroy")
    left = there.client.list_branches(there.organization, "shop")
    assert [one["name"] for one in left] == ["main"]
    assert [one["name"] for one in there.client.list_keyspaces(there.organization, "shop", "main")] == [
        "shop"
    ]
