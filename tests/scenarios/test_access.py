"""People with the unmodified pscale: log in by the confirm page, work, make a token for a job, log out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from homeworld.api.login_oauth import DEVICE_GRANT
from homeworld.cli.installation import Installation
from homeworld.model.topology import Flavor
from tests.scenarios.test_pscale import ACTION_REQUIRED, FAILURE
from tests.support import postgres
from tests.support.clients import pscale as program
from tests.support.mysqld import binary
from tests.support.people import Browser
from tests.support.roles import Roles

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(180)]


class Person:
    """Somebody at a terminal with pscale, and a browser beside it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.environment = {
            "HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "PATH": os.environ["PATH"],
            "PSCALE_NO_UPDATE_NOTIFIER": "1", "PSCALE_DISABLE_DEV_WARNING": "true",
            "PLANETSCALE_API_URL": url,
        }  # fmt: skip
        folder.mkdir()

    def run(self, *words: str, expect: int = 0, **environment: str) -> str:
        """Run a command; what it printed."""
        done = subprocess.run(
            [str(program()), *words, "--no-color"], env=self.environment | environment, cwd=self.folder,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == expect, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def ask(self, *words: str, expect: int = 0, **environment: str) -> Any:
        """The JSON that a command prints."""
        text = self.run(*words, "--format", "json", expect=expect, **environment)
        return json.loads(text[min(at for at in (text.find("["), text.find("{")) if at >= 0) :])

    def log_in(self, email: str, password: str, answer: str = "allow") -> tuple[int, str]:
        """``auth login`` and a yes (or no) on the page that it names; exit code and its last words."""
        with (self.folder / "login.log").open("w+") as log:
            process = subprocess.Popen(
                [str(program()), "auth", "login", "--format", "json"], env=self.environment, cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
            browser = Browser(self.url)
            try:
                page = self._page(Path(log.name))
                assert page.startswith(self.url)
                browser.open(page.removeprefix(self.url))
                browser.log_in(email, password)
                browser.submit("/oauth/device", answer=answer)
                assert browser.status == 200, browser.page
                told, _ = process.communicate(timeout=60)
            finally:
                browser.close()
                process.kill()
        return process.returncode, told

    @staticmethod
    def _page(log: Path) -> str:
        deadline = time.monotonic() + 30
        while True:
            text = log.read_text()
            if "}" in text:
                return str(json.loads(text[text.index("{") : text.rindex("}") + 1])["verification_url"])
            assert time.monotonic() < deadline, text
            time.sleep(0.05)


@pytest.fixture(scope="module")
def installation(server_root: Path) -> Iterator[Installation]:
    program()
    # Which servers there are makes no difference to who may come in.
    server = binary(Flavor.MARIADB)
    assert server is not None
    folder = Path(tempfile.mkdtemp(prefix="access-", dir=server_root))
    made = Installation(
        folder / "homeworld",
        ("--api-port", "0", "--gateway-port", "0", "--replicas", "0", "--mysqld", str(server)),
    )
    try:
        made.start()
        yield made
    finally:
        made.destroy()
        shutil.rmtree(folder, ignore_errors=True)


def first_user(installation: Installation) -> tuple[str, str]:
    kept = json.loads((installation.data_dir / "first-user.json").read_text())
    return kept["email"], kept["password"]


def homeworld(installation: Installation, *words: str, expect: int = 0, given: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-m", "homeworld.main", *words, "--data-dir", str(installation.data_dir)],
        input=given, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_person_logs_in_works_and_logs_out(installation: Installation) -> None:
    url = str(installation.ready["api_url"])
    email, password = first_user(installation)
    assert oct((installation.data_dir / "first-user.json").stat().st_mode & 0o777) == "0o600"
    assert password not in installation.log_file.read_text()
    person = Person(installation.data_dir.parent / "ann", url)
    assert person.ask("auth", "check", expect=ACTION_REQUIRED)["authenticated"] is False

    code, told = person.log_in(email, password)
    assert (code, json.loads(told)["status"]) == (0, "ok")
    checked = person.ask("auth", "check")
    assert (checked["authenticated"], checked["auth_method"]) == (True, "oauth")
    assert [one["name"] for one in person.ask("org", "list")] == ["homeworld"]
    assert "homeworld" in person.run("org", "show")

    # A token for a job, made as a person.
    made = person.ask("service-token", "create", "--name", "job", "--ttl", "3600")
    assert made["token"].startswith("pscale_tkn_")
    listed = {one["id"]: one for one in person.ask("service-token", "list")}
    assert listed[made["id"]]["name"] == "job"
    assert listed[made["id"]]["expires_at"]
    added = person.run("service-token", "add-access", made["id"], "read_organization", "create_databases")
    assert "create_databases" in added
    shown = person.ask("service-token", "show-access", made["id"])
    assert "create_databases" in json.dumps(shown)
    job = {"PLANETSCALE_SERVICE_TOKEN_ID": made["id"], "PLANETSCALE_SERVICE_TOKEN": made["token"]}
    job |= {"PLANETSCALE_ORG": "homeworld"}
    assert person.ask("database", "create", "shop", **job)["name"] == "shop"
    # Whoever creates a database may work with it.
    assert [one["name"] for one in person.ask("database", "list", **job)] == ["shop"]
    assert person.ask("branch", "list", "shop", **job)[0]["name"] == "main"
    person.run("service-token", "delete-access", made["id"], "create_databases")
    person.ask("database", "create", "other", expect=FAILURE, **job)
    person.run("service-token", "delete", made["id"])
    person.ask("database", "list", expect=FAILURE, **job)

    log = person.ask("audit-log", "list", "--limit", "50")
    actions = [one["event"] if "event" in one else one["audit_action"] for one in log]
    assert {"service_token.created", "service_token.granted_access", "database.created"} <= set(actions)
    only = person.ask("audit-log", "list", "--action", "database.created")
    assert len(only) == 1
    assert "created" in person.run("audit-log", "list")

    token = (person.folder / ".config" / "planetscale" / "access-token").read_text().strip()
    assert "logged out" in person.run("auth", "logout").lower()
    assert person.ask("auth", "check", expect=ACTION_REQUIRED)["authenticated"] is False
    # The token itself is worth nothing any more, and the tool says to log in again.
    told = person.run("org", "list", expect=FAILURE, PLANETSCALE_API_TOKEN=token)
    assert "Please run 'pscale auth login'" in told


def test_a_person_who_says_no_is_not_logged_in(installation: Installation) -> None:
    email, password = first_user(installation)
    person = Person(installation.data_dir.parent / "no", str(installation.ready["api_url"]))
    code, told = person.log_in(email, password, "deny")
    assert code != 0
    assert "said no" in told


def test_users_are_added_beside_the_running_process(installation: Installation) -> None:
    url = str(installation.ready["api_url"])
    told = homeworld(installation, "user", "add", "bob@example.com", "--name", "Bob")
    password = told.strip().rpartition(": ")[2]
    person = Person(installation.data_dir.parent / "bob", url)
    assert person.log_in("bob@example.com", password)[0] == 0
    assert [one["name"] for one in person.ask("org", "list")] == ["homeworld"]
    person.ask("audit-log", "list", expect=FAILURE)
    person.ask("database", "delete", "shop", "--force", expect=FAILURE)
    assert "bob@example.com\tmember\tBob" in homeworld(installation, "user", "list")
    homeworld(
        installation, "user", "set-password", "bob@example.com", "--password-stdin", given="another one\n"
    )
    homeworld(installation, "user", "disable", "bob@example.com")
    assert person.ask("auth", "check", expect=ACTION_REQUIRED)["authenticated"] is False
    assert "already" in homeworld(
        installation, "user", "add", "bob@example.com", "--password-stdin", given="another one\n", expect=1
    )
    assert "no user" in homeworld(installation, "user", "disable", "eve@example.com", expect=1)


def test_a_restart_makes_no_second_first_user(installation: Installation) -> None:
    before = first_user(installation)
    installation.stop()
    installation.start()
    assert first_user(installation) == before
    assert homeworld(installation, "user", "list").count("admin@localhost") == 1


def test_several_apis_are_one_to_a_person(server_root: Path) -> None:
    """A device asks one API, its user answers at another, and the first is killed in between."""
    if postgres.programs() is None:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="apis-", dir=server_root))
    roles = Roles(folder / "homeworld", mysqld=binary(Flavor.MARIADB))
    try:
        # All at once, and still there is one first user.
        roles.start(api=2, worker=0, gateway=0)
        kept = json.loads((roles.data_dir / "first-user.json").read_text())
        asked = {"client_id": "tool"}
        device = httpx.post(
            f"{roles.api_url(0)}/oauth/authorize_device", data=asked, timeout=60, trust_env=False
        ).json()
        browser = Browser(roles.api_url(1))
        browser.open(f"/oauth/device?user_code={device['user_code']}")
        browser.log_in(kept["email"], kept["password"])
        browser.submit("/oauth/device", answer="allow")
        assert "connected" in browser.page
        browser.close()
        roles.processes["api"][0].kill()
        roles.processes["api"][0].restart()
        asked |= {"grant_type": DEVICE_GRANT, "device_code": device["device_code"]}
        token = httpx.post(f"{roles.api_url(0)}/oauth/token", data=asked, timeout=60, trust_env=False).json()
        headers = {"Authorization": f"Bearer {token['access_token']}"}
        for number in (0, 1):
            told = httpx.get(
                f"{roles.api_url(number)}/v1/user", headers=headers, timeout=60, trust_env=False
            ).json()
            assert told["email"] == kept["email"]
        done = subprocess.run(
            [sys.executable, "-m", "homeworld.main", "user", "list", "--store", roles.store],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert done.stdout == f"{kept['email']}\tadmin\tAdministrator\n"
    finally:
        roles.close()
        shutil.rmtree(folder, ignore_errors=True)
