"""Walks through every mounted operation of a running API and holds the answers against the published file.

Each answer must have a declared success status and, where one is declared, a body of the declared schema.
Fields beyond the published ones are allowed. The walk makes a database of its own and deletes it again.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import httpx

from tests.contract.schema import differences

Published = Mapping[str, Any]
VSCHEMA = (
    '{"sharded": true, "vindexes": {"xxhash": {"type": "xxhash"}},'
    ' "tables": {"t": {"column_vindexes": [{"column": "id", "name": "xxhash"}]}}}'
)
ACTIONS = {
    "verify_workflow": "running",
    "workflow_switch_replicas": "running",
    "workflow_switch_primaries": "running",
    "workflow_reverse_traffic": "switched_replicas",
    "workflow_cutover": "switched_primaries",
    "workflow_reverse_cutover": "cutover",
    "workflow_retry": "error",
    "workflow_complete": "cutover",
    "workflow_cancel": "running",
}


# Operation and the state that it leads to, of workflows that really run.
WALK_THERE_AND_BACK = (
    ("", "running"),
    ("verify_workflow", "verified_data"),
    ("workflow_switch_replicas", "switched_replicas"),
    ("workflow_reverse_traffic", "running"),
    ("workflow_switch_primaries", "switched_primaries"),
    ("workflow_reverse_traffic", "running"),
    ("workflow_cancel", "cancelled"),
)
WALK_TO_THE_END = (
    ("", "running"),
    ("workflow_switch_primaries", "switched_primaries"),
    ("workflow_cutover", "cutover"),
    ("workflow_reverse_cutover", "reversed_cutover"),
    ("workflow_complete", "completed"),
)


@dataclass
class Report:
    """What the walk found. ``checked`` counts answers by operation; ``exchanges`` are all of them as JSON."""

    checked: dict[str, int] = field(default_factory=dict[str, int])
    wrong: list[str] = field(default_factory=list[str])
    not_asked: list[str] = field(default_factory=list[str])
    beyond: list[str] = field(default_factory=list[str])
    exchanges: list[str] = field(default_factory=list[str])


class People(Protocol):
    """What people do with their browsers, done without."""

    def member(self) -> str:
        """A new member of the organization; the user's id."""
        ...

    def code(self, application_id: str, user_id: str, redirect_uri: str) -> str:
        """An authorization code, as if the user had said yes to the application."""
        ...

    def token(self, user_id: str) -> str:
        """An access token with all that the user may."""
        ...


@dataclass
class Check:
    """One walk.

    :param published: the published description.
    :param http: a client with the base URL (without ``/v1``) and the credentials.
    :param put_in_state: brings the walk's workflow into a state, where the walk has the store at hand.
    :param make_table: makes the table ``t`` with a few rows, given a password of the branch and the database,
        where the walk has a whole platform before it: its workflows then really run.
    :param make_invoice: counts an hour of the database's, where the walk has the store at hand.
    :param people: makes what only people and their browsers make, where the walk has the store at hand.
    :param ready_seconds: how long a new database may take to be ready; 0: it need not be.
    """

    published: Published
    http: httpx.Client
    organization: str
    put_in_state: Callable[[str, int, str], None] | None = None
    make_table: Callable[[Mapping[str, Any], str], None] | None = None
    make_invoice: Callable[[str], None] | None = None
    people: People | None = None
    ready_seconds: float = 0.0
    report: Report = field(default_factory=Report)

    def run(self) -> Report:
        """Walk."""
        self._general()
        self._tokens()
        self._people()
        name = f"contract-{int(time.time())}"
        self._database(name)
        self._mounted()
        return self.report

    # the walk

    def _general(self) -> None:
        for operation in ("list_public_regions", "list_organizations"):
            self.ask(operation)
        for operation in ("get_organization", "list_regions_for_organization", "list_cluster_size_skus"):
            self.ask(operation, organization=self.organization)

    def _tokens(self) -> None:
        at = {"organization": self.organization}
        made = self.ask("create_service_token", {"name": "contract", "ttl": 60}, **at)
        self.ask("list_service_tokens", **at)
        self.ask("get_service_token", **at, id=made["id"])
        self.ask("delete_service_token", **at, id=made["id"])

    def _people(self) -> None:
        at = {"organization": self.organization}
        self.ask("update_organization", {"billing_email": "bills@example.com"}, **at)
        self.ask("list_organization_members", **at)
        self.ask("list_audit_logs", **at)
        team = {**at, "team": self.ask("create_organization_team", {"name": "Contract"}, **at)["slug"]}
        self.ask("list_organization_teams", **at)
        self.ask("update_organization_team", {"description": "for the walk"}, **team)
        self.ask("list_organization_team_members", **team)
        self.ask("list_oauth_applications", **at)
        if self.people is not None:
            self._members(at, team, self.people)
        self.ask("get_organization_team", **team)
        self.ask("delete_organization_team", **team)

    def _members(self, at: dict[str, str], team: dict[str, str], people: People) -> None:
        user = people.member()
        one = {**at, "id": user}
        self.ask("list_organization_members", **at)
        self.ask("get_organization_membership", **one)
        self.ask("update_organization_membership", {"role": "member"}, **one)
        self.ask("add_organization_team_member", {"user_id": user}, **team)
        self.ask("list_organization_team_members", **team)
        self.ask("list_organization_teams", **at)
        self.ask("get_organization_team_member", **team, id=user)
        self.ask("remove_organization_team_member", **team, id=user)
        token = self.http.headers["Authorization"]
        self.http.headers["Authorization"] = f"Bearer {people.token(user)}"
        self.ask("get_current_user")
        self.http.headers["Authorization"] = token
        self._applications(at, user, people)
        self.ask("remove_organization_member", **one)

    def _applications(self, at: dict[str, str], user: str, people: People) -> None:
        # How an application is registered is not published.
        callback = "https://app.example.com/callback"
        path = f"/v1/organizations/{self.organization}/oauth-applications"
        body = {"name": "contract", "redirect_uri": callback, "scopes": ["read_user", "read_databases"]}
        made = self.http.post(path, json=body).json()
        self.ask("list_oauth_applications", **at)
        self.ask("get_oauth_application", **at, application_id=made["id"])
        exchange = {
            "client_id": made["client_id"],
            "client_secret": made["client_secret"],
            "grant_type": "authorization_code",
            "code": people.code(made["id"], user, callback),
            "redirect_uri": callback,
        }
        token = self.ask("create_oauth_token", exchange, **at, id=made["id"])
        tokens = {**at, "application_id": made["id"]}
        self.ask("list_oauth_tokens", **tokens)
        self.ask("get_oauth_token", **tokens, token_id=token["id"])
        self.ask("delete_oauth_token", **tokens, token_id=token["id"])
        self.http.delete(f"{path}/{made['id']}")

    def _database(self, name: str) -> None:
        everywhere = {"organization": self.organization}
        self.ask("create_database", {"name": name, "cluster_size": "PS_10"}, **everywhere)
        self.ask("list_databases", **everywhere)
        at = {**everywhere, "database": name}
        for operation in ("get_database", "list_database_regions", "list_read_only_regions"):
            self.ask(operation, **at)
        self.ask("update_database_settings", {"insights_raw_queries": True}, **at)
        self.ask("update_database_throttler", {"ratio": 10}, **at)
        self.ask("get_database_throttler", **at)
        self._ready("get_database", **at)
        main = {**at, "branch": "main"}
        self._branches(at, main)
        self._keyspaces(main)
        self._passwords(main)
        self._webhooks(at)
        self._maintenance(at)
        self._invoices(everywhere, name)
        self._workflows(at, name)
        self.ask("delete_database", **at)

    def _branches(self, at: dict[str, str], main: dict[str, str]) -> None:
        self.ask("create_branch", {"name": "dev", "parent_branch": ""}, **at)
        self.ask("list_branches", **at)
        dev = {**at, "branch": "dev"}
        self.ask("get_branch", **dev)
        self.ask("update_branch", {"deletion_protected": False}, **dev)
        self.ask("update_branch_cluster_config", {"cluster_size": "PS_20"}, **dev)
        resize = self.ask("update_branch_resize_request", {"vtgate_size": "VTG_10"}, **dev)
        self.ask("list_branch_resize_requests", **dev)
        self.ask("get_branch_resize_request", **dev, resize=resize["id"])
        self.ask("update_branch_resize_request", {"vtgate_count": 1}, **dev)
        if not self.ready_seconds:  # otherwise it is done before it can be taken back
            self.ask("cancel_branch_change_request", **dev)
        self._ready("get_branch", **dev)
        self.ask("promote_branch", **dev)
        self.ask("demote_branch", **dev)
        self.ask("delete_branch", **dev)
        self.ask("disable_safe_migrations", **main)
        self.ask("update_safe_migrations", {"safe_migrations": False}, **main)
        self.ask("enable_safe_migrations", **main)

    def _keyspaces(self, main: dict[str, str]) -> None:
        for name in ("sharded", "spare"):
            self.ask("create_keyspace", {"name": name, "cluster_size": "PS_10", "shards": 2}, **main)
        self.ask("list_keyspaces", **main)
        at = {**main, "keyspace": "sharded"}
        if self.put_in_state is not None:
            self.put_in_state("ready", 0, "")
        self._ready("get_keyspace", **at)
        self.ask("get_keyspace", **at)
        self.ask("update_keyspace", {"vreplication_flags": {"optimize_inserts": True}}, **at)
        self._resizes(at)
        self.ask("get_branch_schema", **main)
        self.ask("lint_branch_schema", **main)
        self.ask("update_keyspace_vschema", {"vschema": VSCHEMA}, **at)
        self.ask("get_keyspace_vschema", **at)
        self._ready("get_keyspace", **{**main, "keyspace": "spare"})
        self.ask("delete_keyspace", **{**main, "keyspace": "spare"})

    def _resizes(self, at: dict[str, str]) -> None:
        resize = self.ask("update_keyspace_resize_request", {"cluster_size": "PS_10"}, **at)
        self.ask("list_keyspace_resize_requests", **at)
        self.ask("get_keyspace_resize_request", **at, id=resize["id"])
        self.ask("get_keyspace_rollout_status", **at)
        if not self.ready_seconds:
            self.ask("cancel_keyspace_resize_request", **at)
        self._settled(at)

    def _settled(self, at: dict[str, str]) -> None:
        deadline = time.monotonic() + self.ready_seconds
        while self.ask("get_keyspace", **at).get("resize_in_progress") and time.monotonic() < deadline:
            time.sleep(0.2)

    def _passwords(self, main: dict[str, str]) -> None:
        made = self.ask("create_password", {"name": "p", "role": "reader", "ttl": 60}, **main)
        self.ask("create_password", **main)
        self.ask("list_passwords", **main)
        at = {**main, "id": made["id"]}
        self.ask("get_password", **at)
        self.ask("update_password", {"name": "q", "cidrs": ["10.0.0.0/8"]}, **at)
        self.ask("renew_password", **at)
        self.ask("delete_password", **at)

    def _webhooks(self, at: dict[str, str]) -> None:
        made = self.ask(
            "create_webhook", {"url": "https://example.com/hook", "events": ["branch.ready"]}, **at
        )
        self.ask("list_webhooks", **at)
        one = {**at, "id": str(made.get("id"))}
        self.ask("get_webhook", **one)
        self.ask("update_webhook", {"enabled": True, "events": ["branch.start_maintenance"]}, **one)
        self.ask("update_webhook", {"enabled": False}, **one)
        self.ask("delete_webhook", **one)
        # A walk sends nothing to anybody: what is tested is deleted before its name can be resolved.
        made = self.ask("create_webhook", {"url": "https://webhooks.invalid/"}, **at)
        one = {**at, "id": str(made.get("id"))}
        self.ask("test_webhook", **one)
        self.ask("delete_webhook", **one)

    def _maintenance(self, at: dict[str, str]) -> None:
        path = "/v1/organizations/{organization}/databases/{database}/maintenance-schedules"
        made = self.http.post(path.format(**at), json={"frequency_unit": "month", "day": 1})
        self.ask("list_maintenance_schedules", **at)
        one = {**at, "id": str(made.json().get("id"))}
        self.ask("get_maintenance_schedule", **one)
        self.http.post(f"{path.format(**at)}/{one['id']}/windows")
        self.ask("list_maintenance_windows", **one)
        self.http.delete(f"{path.format(**at)}/{one['id']}")

    def _invoices(self, everywhere: dict[str, str], name: str) -> None:
        if self.make_invoice is not None:
            self.make_invoice(name)
        for invoice in self.ask("list_invoices", **everywhere).get("data", []):
            self.ask("get_invoice", **everywhere, id=invoice["id"])
            self.ask("get_invoice_line_items", **everywhere, id=invoice["id"])

    def _workflows(self, at: dict[str, str], name: str) -> None:
        self.ask("list_workflows", **at)
        body = {"name": "move", "source_keyspace": name, "target_keyspace": "sharded", "tables": ["t"]}
        if self.make_table is not None:
            self._real_workflows(at, body, name)
        if self.put_in_state is None:
            return
        self.put_in_state("ready", 0, name)
        for operation, state in ACTIONS.items():
            made = self.ask("create_workflow", body, **at)
            one = {**at, "number": str(made["number"])}
            self.put_in_state(state, made["number"], name)
            self.ask(operation, **one)
            self.ask("get_workflow", **one)
            self.ask("list_workflows", **at)
            self.put_in_state("completed", made["number"], name)

    def _real_workflows(self, at: dict[str, str], body: Mapping[str, object], name: str) -> None:
        assert self.make_table is not None
        self.make_table(self.ask("create_password", {"role": "admin"}, **at, branch="main"), name)
        for walk in (WALK_THERE_AND_BACK, WALK_TO_THE_END):
            made = self.ask("create_workflow", body, **at)
            one = {**at, "number": str(made.get("number"))}
            for operation, state in walk:
                if operation:
                    self.ask(operation, **one)
                deadline = time.monotonic() + self.ready_seconds
                while (told := self.ask("get_workflow", **one)).get("state") != state:
                    if time.monotonic() > deadline:
                        found = f"{told.get('state')}: {told.get('workflow_errors')}"
                        self.report.wrong.append(f"{operation}: wanted {state}, is {found}")
                        return
                    time.sleep(0.1)
            self.ask("list_workflows", **at)

    def _ready(self, operation: str, **names: str) -> None:
        deadline = time.monotonic() + self.ready_seconds
        while not self.ask(operation, **names).get("ready") and time.monotonic() < deadline:
            time.sleep(0.2)

    def _mounted(self) -> None:
        mounted = self.http.get("/v1/openapi.json").json()["paths"]
        known = {
            (method, _bare(path)): operation for operation, (method, path, _) in self._operations().items()
        }
        for path, methods in mounted.items():
            for method in methods:
                operation = known.get((method.upper(), _bare(path.removeprefix("/v1"))))
                if operation is None:
                    self.report.beyond.append(f"{method.upper()} {path}")
                elif operation not in self.report.checked:
                    self.report.not_asked.append(operation)

    # one operation

    def ask(
        self, operation: str, body: Mapping[str, object] | None = None, /, **names: str
    ) -> dict[str, Any]:
        """Ask for an operation and check the answer; its body, empty where there is none."""
        method, path, declared = self._operations()[operation]
        filled = re.sub(r"{(\w+)}", lambda found: names[found[1]], path)
        answer = self.http.request(method, f"/v1{filled}", json=body)
        while answer.status_code == 429:
            time.sleep(int(answer.headers["Retry-After"]))
            answer = self.http.request(method, f"/v1{filled}", json=body)
        self.report.checked[operation] = self.report.checked.get(operation, 0) + 1
        exchange = {
            "operation": operation,
            "method": method,
            "path": f"/v1{filled}",
            "request": "" if body is None else json.dumps(body),
            "status": answer.status_code,
            "response": answer.text,
        }
        self.report.exchanges.append(json.dumps(exchange))
        where = f"{operation} ({method} {filled})"
        success = {status for status in declared["responses"] if status.startswith("2")}
        if str(answer.status_code) not in success:
            self.report.wrong.append(
                f"{where}: status {answer.status_code}, not {success}: {answer.text[:300]}"
            )
            return {}
        content = declared["responses"][str(answer.status_code)].get("content")
        if not content:
            if answer.content:
                self.report.wrong.append(f"{where}: has a body where none is declared")
            return {}
        body_told: object = answer.json()
        schema = content["application/json"]["schema"]
        self.report.wrong += [f"{where}: {sentence}" for sentence in differences(body_told, schema)]
        return cast("dict[str, Any]", body_told)

    def _operations(self) -> dict[str, tuple[str, str, Any]]:
        return {
            operation["operationId"]: (method.upper(), path, operation)
            for path, methods in self.published["paths"].items()
            for method, operation in methods.items()
            if isinstance(operation, dict) and "operationId" in operation
        }


def _bare(path: str) -> str:
    return re.sub(r"{\w+}", "{}", path)
