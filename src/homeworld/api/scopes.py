"""Who may do what: one table from operation to the accesses that allow it.

Invariant: every mounted operation has a row here (a test compares), and nothing else decides. The names are
PlanetScale's. Where production and development branches ask for different accesses, the branch decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from homeworld.model.accesses import ACCESSES, ALL_ACCESSES, ORGANIZATION_ONLY

__all__ = ["ACCESSES", "ALL_ACCESSES", "ORGANIZATION_ONLY", "SCOPES", "Scope"]


@dataclass(frozen=True, slots=True)
class Scope:
    """What an operation asks for.

    :param accesses: any one of these on the organization or the database.
    :param production: instead of ``accesses``, where the branch is a production branch; empty: the same.
    :param readers: also any one of these, where the password concerned is a reader's.
    :param anywhere: the access may be on any resource; the answer holds only what the token may see.
    :param public: anybody, without a token.
    :param users: for users only; a service token is nobody here.
    """

    accesses: frozenset[str] = frozenset()
    production: frozenset[str] = frozenset()
    readers: frozenset[str] = frozenset()
    anywhere: bool = False
    public: bool = False
    users: bool = False

    def wanted(self, *, production: bool) -> frozenset[str]:
        """The accesses of which one is needed."""
        return self.production if production and self.production else self.accesses


def _of(*accesses: str) -> Scope:
    return Scope(frozenset(accesses))


def _by_branch(development: str, production: str, readers: str = "") -> Scope:
    return Scope(frozenset({development}), frozenset({production}), frozenset({readers} - {""}))


# No access at all: whoever has a valid token, or (PUBLIC) anybody.
AUTHENTICATED = Scope()
PUBLIC = Scope(public=True)

_SEES_DATABASE = frozenset(
    {
        "read_databases",
        "read_database",
        "write_database",
        "delete_database",
        "read_branch",
        "create_branch",
        "delete_branch",
        "delete_production_branch",
        "promote_branches",
        "demote_branches",
        "connect_branch",
        "connect_production_branch",
        "connect_production_read_only_branch",
        "delete_branch_password",
        "delete_production_branch_password",
        "delete_production_read_only_branch_password",
        "write_branch_vschema",
        "write_production_branch_vschema",
    }
)
_SEES_BRANCH = _of(
    "read_branch", "delete_branch", "create_branch", "connect_production_branch", "connect_branch"
)
_SEES_PASSWORDS = Scope(_SEES_BRANCH.accesses | {"connect_production_read_only_branch"})
_CONNECTS = _by_branch("connect_branch", "connect_production_branch", "connect_production_read_only_branch")
_CONNECTS_TO_WRITE = _by_branch("connect_branch", "connect_production_branch")
_WORKFLOW = _of("write_database")
_READS_DATABASE = _of("read_database")
_SEES_WORKFLOWS = _of("read_database", "write_database", "read_branch", "create_branch")
_VSCHEMA = _by_branch("write_branch_vschema", "write_production_branch_vschema")

SCOPES: Mapping[str, Scope] = {
    "list_public_regions": PUBLIC,
    "get_current_user": Scope(users=True),
    "list_organizations": AUTHENTICATED,
    "get_organization": _of("read_organization"),
    "update_organization": _of("write_organization"),
    "list_audit_logs": _of("read_audit_logs"),
    "list_organization_members": _of("read_organization"),
    "get_organization_membership": _of("read_organization"),
    "update_organization_membership": _of("write_organization"),
    "remove_organization_member": _of("write_organization"),
    "list_organization_invitations": _of("write_members"),
    "create_organization_invitation": _of("write_members"),
    "cancel_organization_invitation": _of("write_members"),
    "list_organization_teams": _of("read_organization"),
    "create_organization_team": _of("write_teams", "write_organization"),
    "get_organization_team": _of("read_organization"),
    "update_organization_team": _of("write_teams", "write_organization"),
    "delete_organization_team": _of("write_teams", "write_organization"),
    "set_organization_team_database": _of("write_organization"),
    "remove_organization_team_database": _of("write_organization"),
    "list_organization_team_members": _of("read_organization"),
    "add_organization_team_member": _of("write_teams", "write_organization"),
    "get_organization_team_member": _of("read_organization"),
    "remove_organization_team_member": _of("write_teams", "write_organization"),
    "list_oauth_applications": _of("read_oauth_applications"),
    "create_oauth_application": _of("write_organization"),
    "get_oauth_application": _of("read_oauth_applications"),
    "delete_oauth_application": _of("write_organization"),
    "list_oauth_tokens": _of("read_oauth_tokens"),
    "get_oauth_token": _of("read_oauth_tokens"),
    "create_oauth_token": _of("write_oauth_tokens"),
    "delete_oauth_token": _of("delete_oauth_tokens"),
    "list_regions_for_organization": _of("read_organization"),
    "list_cluster_size_skus": _of("read_organization"),
    "list_databases": Scope(_SEES_DATABASE, anywhere=True),
    "create_database": _of("create_databases"),
    "get_database": Scope(_SEES_DATABASE),
    "update_database_settings": _of("write_database"),
    "delete_database": _of("delete_database"),
    "create_engine_change": _WORKFLOW,
    "get_engine_change": Scope(_SEES_DATABASE),
    "get_database_throttler": _of("read_deploy_request", "create_deploy_request", "write_database"),
    "update_database_throttler": _of("write_database"),
    "list_database_regions": Scope(_SEES_DATABASE),
    "list_read_only_regions": Scope(_SEES_DATABASE),
    "list_branches": _SEES_BRANCH,
    "create_branch": _of("create_branch"),
    "get_branch": _SEES_BRANCH,
    "update_branch": _of("write_database"),
    "update_branch_cluster_config": _of("write_database"),
    "delete_branch": _by_branch("delete_branch", "delete_production_branch"),
    "promote_branch": _of("connect_production_branch", "promote_branches"),
    "demote_branch": _of("connect_production_branch", "demote_branches"),
    "enable_safe_migrations": _of("write_database", "create_branch"),
    "update_safe_migrations": _of("write_database", "create_branch"),
    "disable_safe_migrations": _of("write_database", "create_branch"),
    "get_branch_routing_rules": _SEES_BRANCH,
    "update_branch_routing_rules": _VSCHEMA,
    "list_branch_resize_requests": _SEES_BRANCH,
    "get_branch_resize_request": _SEES_BRANCH,
    "update_branch_resize_request": _of("write_database"),
    "cancel_branch_change_request": _of("write_database"),
    "list_branch_cluster_size_skus": _SEES_BRANCH,
    "get_branch_schema": _SEES_BRANCH,
    "get_branch_diff": _SEES_BRANCH,
    "lint_branch_schema": _SEES_BRANCH,
    "refresh_branch_schema": _of("create_branch", "write_database"),
    "get_branch_infrastructure": _SEES_BRANCH,
    # Statements have clients' values in them: who sees or ends them may connect.
    "list_branch_connections": _CONNECTS,
    "get_branch_processlist": _CONNECTS,
    "end_branch_connection": _CONNECTS_TO_WRITE,
    "kill_branch_process": _CONNECTS_TO_WRITE,
    "create_planned_reparent": _WORKFLOW,
    "create_emergency_reparent": _WORKFLOW,
    "get_planned_reparent": _SEES_BRANCH,
    "list_branch_tablets": _SEES_BRANCH,
    "get_vtctld_shard": _SEES_BRANCH,
    "refresh_vtctld_shard_state": _WORKFLOW,
    "check_vtctld_throttler": _SEES_BRANCH,
    "get_vtctld_throttler_status": _SEES_BRANCH,
    "update_vtctld_throttler_config": _WORKFLOW,
    "list_keyspaces": _of("read_branch"),
    "create_keyspace": _of("create_branch"),
    "get_keyspace": _of("read_branch"),
    "update_keyspace": _of("create_branch"),
    "list_keyspace_resize_requests": _of("read_branch"),
    "get_keyspace_resize_request": _of("read_branch"),
    "update_keyspace_resize_request": _of("write_database"),
    "cancel_keyspace_resize_request": _of("write_database"),
    "get_keyspace_rollout_status": _of("read_branch"),
    "update_keyspace_read_only_regions": _of("create_branch"),
    "delete_keyspace": _by_branch("delete_branch", "delete_production_branch"),
    "get_keyspace_vschema": _SEES_BRANCH,
    "update_keyspace_vschema": _VSCHEMA,
    "list_passwords": _SEES_PASSWORDS,
    "list_database_passwords": _SEES_PASSWORDS,
    "create_password": _CONNECTS,
    "get_password": _SEES_PASSWORDS,
    "update_password": _CONNECTS,
    "renew_password": _CONNECTS,
    "delete_password": _by_branch(
        "delete_branch_password",
        "delete_production_branch_password",
        "delete_production_read_only_branch_password",
    ),
    "list_webhooks": _READS_DATABASE,
    "create_webhook": _WORKFLOW,
    "get_webhook": _READS_DATABASE,
    "update_webhook": _WORKFLOW,
    "delete_webhook": _WORKFLOW,
    "test_webhook": _WORKFLOW,
    "list_webhook_deliveries": _READS_DATABASE,
    "list_maintenance_schedules": _READS_DATABASE,
    "create_maintenance_schedule": _WORKFLOW,
    "get_maintenance_schedule": _READS_DATABASE,
    "update_maintenance_schedule": _WORKFLOW,
    "delete_maintenance_schedule": _WORKFLOW,
    "list_maintenance_windows": _READS_DATABASE,
    "open_maintenance_window": _WORKFLOW,
    "list_invoices": _of("read_invoices"),
    "get_invoice": _of("read_invoices"),
    "get_invoice_line_items": _of("read_invoices"),
    "list_service_tokens": _of("read_service_tokens"),
    "create_service_token": _of("write_service_tokens"),
    "get_service_token": _of("read_service_tokens"),
    "delete_service_token": _of("delete_service_tokens"),
    "list_service_token_grants": _of("read_service_tokens"),
    "list_service_token_accesses": _of("read_service_tokens"),
    "add_service_token_accesses": _of("write_service_tokens"),
    "delete_service_token_accesses": _of("write_service_tokens"),
    "list_workflows": _SEES_WORKFLOWS,
    "create_workflow": _WORKFLOW,
    "check_workflow": _WORKFLOW,
    "get_workflow": _SEES_WORKFLOWS,
    "verify_workflow": _WORKFLOW,
    "repair_workflow": _WORKFLOW,
    "workflow_switch_replicas": _WORKFLOW,
    "workflow_switch_primaries": _WORKFLOW,
    "workflow_reverse_traffic": _WORKFLOW,
    "workflow_cutover": _WORKFLOW,
    "workflow_reverse_cutover": _WORKFLOW,
    "workflow_complete": _WORKFLOW,
    "workflow_cancel": _WORKFLOW,
    "workflow_retry": _WORKFLOW,
    "get_workflow_throttler": _SEES_WORKFLOWS,
    "update_workflow_throttler": _WORKFLOW,
    "create_move_tables": _WORKFLOW,
    "get_move_tables": _SEES_WORKFLOWS,
    "get_move_tables_status": _SEES_WORKFLOWS,
    "switch_move_tables_traffic": _WORKFLOW,
    "reverse_move_tables_traffic": _WORKFLOW,
    "cancel_move_tables": _WORKFLOW,
    "complete_move_tables": _WORKFLOW,
    "list_vdiffs": _SEES_WORKFLOWS,
    "create_vdiff": _WORKFLOW,
    "get_vdiff": _SEES_WORKFLOWS,
    "delete_vdiff": _WORKFLOW,
    "stop_vdiff": _WORKFLOW,
    "resume_vdiff": _WORKFLOW,
    "list_vtctld_workflows": _SEES_WORKFLOWS,
    "start_vtctld_workflow": _WORKFLOW,
    "stop_vtctld_workflow": _WORKFLOW,
    "get_vtctld_operation": _SEES_WORKFLOWS,
    "list_vtctld_keyspaces": _SEES_BRANCH,
    "get_vtctld_routing_rules": _SEES_BRANCH,
}
