"""The client: one method for each operation, JSON objects in and out.

It knows the published paths and nothing of the server's insides. Invariant: an answer that is not a success
is an exception that carries the server's code and sentence; a request is never repeated by itself.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from json import JSONDecodeError, dumps
from typing import Any, Self, TypeVar, cast
from urllib.parse import quote

import httpx

T = TypeVar("T")

# An object as the API publishes it, such as a workflow; its fields are in the API's own description.
Resource = dict[str, Any]


class ApiError(Exception):
    """The API refused.

    :param status: the HTTP status.
    :param code: the API's code, such as ``unprocessable`` or ``not_found``.
    :param message: the API's sentence.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status = status
        self.code = code
        self.message = message
        super().__init__(f"{message} ({code}, {status})")


class HomeworldClient:
    """Calls one API with one service token. Safe among threads.

    :param base_url: with or without ``/v1`` and a slash at the end.
    :raises ApiError: (every method) the API refused.
    :raises httpx.HTTPError: (every method) it could not be reached.
    """

    def __init__(self, base_url: str, token_id: str, token: str, *, timeout_seconds: float = 30.0) -> None:
        base = base_url.rstrip("/").removesuffix("/v1")
        self._http = httpx.Client(
            base_url=f"{base}/v1",
            headers={"Authorization": f"{token_id}:{token}", "Accept": "application/json"},
            timeout=timeout_seconds,
            # A proxy of the environment has no business between a client and its own platform.
            trust_env=False,
        )
        # Connections end with the client, also where nobody closes it.
        weakref.finalize(self, self._http.close)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    # organizations and regions

    def list_organizations(self) -> list[Resource]:
        """All organizations that the token belongs to."""
        return list(self._pages("organizations"))

    def get_organization(self, organization: str) -> Resource:
        """An organization."""
        return self._call("GET", _path("organizations", organization))

    def list_regions(self, organization: str) -> list[Resource]:
        """The regions for the organization."""
        return list(self._pages(_path("organizations", organization, "regions")))

    # databases

    def list_databases(self, organization: str) -> list[Resource]:
        """All databases."""
        return list(self._pages(_path("organizations", organization, "databases")))

    def create_database(self, organization: str, name: str, **fields: Any) -> Resource:
        """Ask for a database; further ``fields`` such as ``region`` or ``replicas`` as published."""
        body = {"name": name, "cluster_size": "homeworld", **fields}
        return self._call("POST", _path("organizations", organization, "databases"), body)

    def get_database(self, organization: str, database: str) -> Resource:
        """A database."""
        return self._call("GET", _database(organization, database))

    def update_database(self, organization: str, database: str, **fields: Any) -> Resource:
        """Change settings."""
        return self._call("PATCH", _database(organization, database), fields)

    def delete_database(self, organization: str, database: str) -> None:
        """Ask it away."""
        self._call("DELETE", _database(organization, database))

    def change_engine(self, organization: str, database: str, engine: str) -> Resource:
        """Ask for a running database to be taken into another engine, in place."""
        return self._call("POST", _database(organization, database, "engine-changes"), {"engine": engine})

    def get_engine_change(self, organization: str, database: str, change_id: str) -> Resource:
        """How a change of engine goes."""
        return self._call("GET", _database(organization, database, "engine-changes", change_id))

    def get_throttler(self, organization: str, database: str) -> Resource:
        """The share of the time, by keyspace, for which work rests."""
        return self._call("GET", _database(organization, database, "throttler"))

    def update_throttler(
        self,
        organization: str,
        database: str,
        *,
        ratio: int | None = None,
        keyspaces: Mapping[str, int] | None = None,
    ) -> Resource:
        """Change it, in percent: ``ratio`` for all keyspaces, or one for each of ``keyspaces``."""
        body: dict[str, Any] = {} if ratio is None else {"ratio": ratio}
        if keyspaces:
            body["configurations"] = [{"keyspace_name": k, "ratio": v} for k, v in keyspaces.items()]
        return self._call("PATCH", _database(organization, database, "throttler"), body)

    # branches

    def list_branches(self, organization: str, database: str) -> list[Resource]:
        """All branches."""
        return list(self._pages(_branches(organization, database)))

    def create_branch(
        self, organization: str, database: str, name: str, *, parent_branch: str = "", **fields: Any
    ) -> Resource:
        """Ask for a branch; of the default branch unless told otherwise."""
        body = {"name": name, "parent_branch": parent_branch, **fields}
        return self._call("POST", _branches(organization, database), body)

    def get_branch(self, organization: str, database: str, branch: str) -> Resource:
        """A branch."""
        return self._call("GET", _branches(organization, database, branch))

    def delete_branch(
        self, organization: str, database: str, branch: str, *, descendants: bool = False
    ) -> None:
        """Ask it away."""
        query = {"delete_descendants": "true"} if descendants else {}
        self._call("DELETE", _branches(organization, database, branch), query=query)

    def promote_branch(self, organization: str, database: str, branch: str) -> Resource:
        """Make it a production branch."""
        return self._call("POST", _branches(organization, database, branch, "promote"))

    def demote_branch(self, organization: str, database: str, branch: str) -> Resource:
        """Make it a development branch."""
        return self._call("POST", _branches(organization, database, branch, "demote"))

    def enable_safe_migrations(self, organization: str, database: str, branch: str) -> Resource:
        """Switch safe migrations on."""
        return self._call("POST", _branches(organization, database, branch, "safe-migrations"))

    def disable_safe_migrations(self, organization: str, database: str, branch: str) -> Resource:
        """Switch safe migrations off."""
        return self._call("DELETE", _branches(organization, database, branch, "safe-migrations"))

    def get_routing_rules(self, organization: str, database: str, branch: str) -> Resource:
        """The routing rules as JSON text, in ``raw``."""
        return self._call("GET", _branches(organization, database, branch, "routing-rules"))

    def update_routing_rules(
        self, organization: str, database: str, branch: str, rules: Mapping[str, Any] | str
    ) -> Resource:
        """Replace the routing rules."""
        path = _branches(organization, database, branch, "routing-rules")
        return self._call("PATCH", path, {"routing_rules": _text(rules)})

    # reparents

    def list_tablets(self, organization: str, database: str, branch: str) -> list[Resource]:
        """The branch's servers by keyspace, shard and type."""
        found: Any = self._call("GET", _branches(organization, database, branch, "tablets"))
        return cast("list[Resource]", found)

    def reparent(
        self,
        organization: str,
        database: str,
        branch: str,
        keyspace: str,
        shard: str,
        *,
        new_primary: str = "",
        emergency: bool = False,
    ) -> Resource:
        """Ask for another primary of a shard: ``new_primary`` by its alias, or the best replica."""
        body = {"keyspace": keyspace, "shard": shard, "new_primary": new_primary}
        what = "emergency-reparent" if emergency else "planned-reparent"
        return self._call("POST", _branches(organization, database, branch, what), body)

    def get_reparent(self, organization: str, database: str, branch: str, reparent_id: str) -> Resource:
        """How a reparent goes."""
        return self._call("GET", _branches(organization, database, branch, "planned-reparent", reparent_id))

    # keyspaces

    def list_keyspaces(self, organization: str, database: str, branch: str) -> list[Resource]:
        """All keyspaces."""
        return list(self._pages(_branches(organization, database, branch, "keyspaces")))

    def create_keyspace(
        self, organization: str, database: str, branch: str, name: str, *, shards: int = 1, **fields: Any
    ) -> Resource:
        """Ask for a keyspace."""
        body = {"name": name, "cluster_size": "homeworld", "shards": shards, **fields}
        return self._call("POST", _branches(organization, database, branch, "keyspaces"), body)

    def get_keyspace(self, organization: str, database: str, branch: str, keyspace: str) -> Resource:
        """A keyspace."""
        return self._call("GET", _branches(organization, database, branch, "keyspaces", keyspace))

    def delete_keyspace(self, organization: str, database: str, branch: str, keyspace: str) -> None:
        """Ask it away."""
        self._call("DELETE", _branches(organization, database, branch, "keyspaces", keyspace))

    def get_vschema(self, organization: str, database: str, branch: str, keyspace: str) -> Resource:
        """The vschema as JSON text, in ``raw``."""
        return self._call("GET", _branches(organization, database, branch, "keyspaces", keyspace, "vschema"))

    def update_vschema(
        self, organization: str, database: str, branch: str, keyspace: str, vschema: Mapping[str, Any] | str
    ) -> Resource:
        """Replace the vschema."""
        path = _branches(organization, database, branch, "keyspaces", keyspace, "vschema")
        return self._call("PATCH", path, {"vschema": _text(vschema)})

    # passwords

    def list_passwords(self, organization: str, database: str, branch: str) -> list[Resource]:
        """All passwords."""
        return list(self._pages(_branches(organization, database, branch, "passwords")))

    def create_password(self, organization: str, database: str, branch: str, **fields: Any) -> Resource:
        """A new password (name, role, ttl, cidrs, replica); its secret is in ``plain_text``."""
        return self._call("POST", _branches(organization, database, branch, "passwords"), fields)

    def get_password(self, organization: str, database: str, branch: str, password_id: str) -> Resource:
        """A password."""
        return self._call("GET", _branches(organization, database, branch, "passwords", password_id))

    def update_password(
        self, organization: str, database: str, branch: str, password_id: str, **fields: Any
    ) -> Resource:
        """Change ``name`` or ``cidrs``."""
        path = _branches(organization, database, branch, "passwords", password_id)
        return self._call("PATCH", path, fields)

    def renew_password(self, organization: str, database: str, branch: str, password_id: str) -> Resource:
        """Count its ttl from now on."""
        path = _branches(organization, database, branch, "passwords", password_id, "renew")
        return self._call("POST", path)

    def delete_password(self, organization: str, database: str, branch: str, password_id: str) -> None:
        """Take it away."""
        self._call("DELETE", _branches(organization, database, branch, "passwords", password_id))

    # service tokens

    def list_service_tokens(self, organization: str) -> list[Resource]:
        """All service tokens."""
        return list(self._pages(_path("organizations", organization, "service-tokens")))

    def create_service_token(self, organization: str, name: str = "", *, ttl_seconds: int = 0) -> Resource:
        """A new token; its secret in ``token``."""
        body = {"name": name, "ttl": ttl_seconds}
        return self._call("POST", _path("organizations", organization, "service-tokens"), body)

    def get_service_token(self, organization: str, token_id: str) -> Resource:
        """A token."""
        return self._call("GET", _path("organizations", organization, "service-tokens", token_id))

    def add_service_token_access(
        self, organization: str, token_id: str, access: Sequence[str], *, database: str = ""
    ) -> Resource:
        """Allow a token more, on a database or on the whole organization."""
        path = _path("organizations", organization, "service-tokens", token_id, "access")
        return self._call("POST", path, {"database": database, "access": list(access)})

    def delete_service_token(self, organization: str, token_id: str) -> None:
        """Make it useless."""
        self._call("DELETE", _path("organizations", organization, "service-tokens", token_id))

    # workflows

    def list_workflows(self, organization: str, database: str, *, between: str = "") -> list[Resource]:
        """All workflows, newest first; ``between`` is ``FROM..TO``, both RFC 3339."""
        query = {"between": between} if between else {}
        return list(self._pages(_database(organization, database, "workflows"), query))

    def create_workflow(
        self,
        organization: str,
        database: str,
        *,
        name: str,
        source_keyspace: str,
        target_keyspace: str,
        tables: Sequence[str],
        **fields: Any,
    ) -> Resource:
        """Ask for a MoveTables workflow; further ``fields`` such as ``branch_name`` or ``on_ddl``."""
        body = {
            "name": name,
            "source_keyspace": source_keyspace,
            "target_keyspace": target_keyspace,
            "tables": list(tables),
            **fields,
        }
        return self._call("POST", _database(organization, database, "workflows"), body)

    def check_workflow(
        self,
        organization: str,
        database: str,
        *,
        source_keyspace: str,
        target_keyspace: str,
        tables: Sequence[str],
        **fields: Any,
    ) -> Resource:
        """What creating a workflow would say: ``allowed``, and all ``reasons`` against it."""
        body = {
            "source_keyspace": source_keyspace,
            "target_keyspace": target_keyspace,
            "tables": list(tables),
            **fields,
        }
        return self._call("POST", _database(organization, database, "workflows", "check"), body)

    def get_workflow(self, organization: str, database: str, number: int) -> Resource:
        """A workflow with its progress."""
        return self._call("GET", _database(organization, database, "workflows", str(number)))

    def workflow_action(self, organization: str, database: str, number: int, action: str) -> Resource:
        """Ask for an action by the last part of its path, such as ``switch-primaries``, or for ``cancel``."""
        if action == "cancel":
            return self.cancel_workflow(organization, database, number)
        return self._call("PATCH", _database(organization, database, "workflows", str(number), action))

    def get_workflow_throttler(self, organization: str, database: str, number: int) -> Resource:
        """Above what a workflow gives way to others."""
        return self._call("GET", _database(organization, database, "workflows", str(number), "throttler"))

    def update_workflow_throttler(
        self, organization: str, database: str, number: int, **limits: float | str
    ) -> Resource:
        """Change it: ``replica_lag_seconds``, ``source_threads_running``, ``source_history_length``, each a
        number, or ``"off"`` for no limit.
        """
        path = _database(organization, database, "workflows", str(number), "throttler")
        return self._call("PATCH", path, limits)

    def cancel_workflow(self, organization: str, database: str, number: int) -> Resource:
        """Ask for the workflow's end with everything as it was before."""
        return self._call("DELETE", _database(organization, database, "workflows", str(number)))

    # maintenance and invoices

    def list_maintenance_schedules(self, organization: str, database: str) -> list[Resource]:
        """All maintenance schedules, oldest first."""
        return list(self._pages(_database(organization, database, "maintenance-schedules")))

    def create_maintenance_schedule(self, organization: str, database: str, **fields: Any) -> Resource:
        """Say when servers may be restarted; ``fields`` as the API's own description has them."""
        return self._call("POST", _database(organization, database, "maintenance-schedules"), fields)

    def update_maintenance_schedule(
        self, organization: str, database: str, schedule_id: str, **fields: Any
    ) -> Resource:
        """Change a schedule."""
        path = _database(organization, database, "maintenance-schedules", schedule_id)
        return self._call("PATCH", path, fields)

    def delete_maintenance_schedule(self, organization: str, database: str, schedule_id: str) -> None:
        """Open no more windows of it."""
        self._call("DELETE", _database(organization, database, "maintenance-schedules", schedule_id))

    def list_maintenance_windows(self, organization: str, database: str, schedule_id: str) -> list[Resource]:
        """A schedule's windows, newest first."""
        path = _database(organization, database, "maintenance-schedules", schedule_id, "windows")
        return list(self._pages(path))

    def open_maintenance_window(self, organization: str, database: str, schedule_id: str) -> Resource:
        """Open a window now."""
        path = _database(organization, database, "maintenance-schedules", schedule_id, "windows")
        return self._call("POST", path)

    def list_invoices(self, organization: str) -> list[Resource]:
        """All invoices, newest first."""
        return list(self._pages(_path("organizations", organization, "invoices")))

    def list_invoice_lines(self, organization: str, invoice_id: str) -> list[Resource]:
        """What makes an invoice up."""
        return list(self._pages(_path("organizations", organization, "invoices", invoice_id, "line-items")))

    # the wire

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str | int] | None = None,
    ) -> Resource:
        answer = self._http.request(method, path, json=body, params=query or None)
        if answer.is_success:
            return cast("Resource", answer.json()) if answer.content else {}
        raise _error(answer)

    def _pages(self, path: str, query: Mapping[str, str] | None = None) -> Iterator[Resource]:
        page: int | None = 1
        while page is not None:
            answer = self._call("GET", path, query={**(query or {}), "page": page, "per_page": 100})
            yield from answer["data"]
            page = answer["next_page"]


def _error(answer: httpx.Response) -> ApiError:
    try:
        told: Any = answer.json()
    except (JSONDecodeError, UnicodeDecodeError):
        told = None
    if not isinstance(told, dict):
        return ApiError(answer.status_code, "error", answer.text[:500] or answer.reason_phrase)
    fields = cast("dict[str, object]", told)
    code = fields.get("code") or fields.get("error") or "error"
    message = fields.get("message") or fields.get("error_description") or answer.reason_phrase
    return ApiError(answer.status_code, str(code), str(message))


def _path(*parts: str) -> str:
    return "/".join(quote(part, safe="") for part in parts)


def _database(organization: str, database: str, *parts: str) -> str:
    return _path("organizations", organization, "databases", database, *parts)


def _branches(organization: str, database: str, *parts: str) -> str:
    return _database(organization, database, "branches", *parts)


def _text(document: Mapping[str, Any] | str) -> str:
    return document if isinstance(document, str) else dumps(document)


def wait_for(
    read: Callable[[], T], until: Callable[[T], bool], *, timeout_seconds: float, every_seconds: float = 0.2
) -> T:
    """Read until it is as wanted; the last reading.

    :raises TimeoutError: it was not within the time; the message has the last reading.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        last = read()
        if until(last):
            return last
        if time.monotonic() >= deadline:
            raise TimeoutError(f"not within {timeout_seconds} s; last: {str(last)[:500]}")
        time.sleep(every_seconds)
