"""What somebody may be allowed: PlanetScale's names of accesses, each with a sentence for people; and the
roles of users, which are sets of accesses.

Which operation asks for which access is the API's table; here stands only what exists. Invariant: service
tokens and users are judged by the same accesses, so that no operation asks who somebody is.
"""

from __future__ import annotations

from collections.abc import Mapping

ACCESSES: Mapping[str, str] = {
    "read_organization": "Read the organization, its regions and sizes",
    "read_invoices": "Read what was used and what it costs",
    "create_databases": "Create databases",
    "read_databases": "Read all databases",
    "read_database": "Read a database",
    "write_database": "Change a database and run its workflows",
    "delete_database": "Delete a database",
    "read_deploy_request": "Read how work on a database is slowed",
    "create_deploy_request": "Read how work on a database is slowed",
    "read_branch": "Read branches and keyspaces",
    "create_branch": "Create branches and keyspaces",
    "delete_branch": "Delete development branches and their keyspaces",
    "delete_production_branch": "Delete production branches and their keyspaces",
    "promote_branches": "Make a branch a production branch",
    "demote_branches": "Make a production branch a development branch",
    "connect_branch": "Manage passwords of development branches",
    "connect_production_branch": "Manage passwords of production branches",
    "connect_production_read_only_branch": "Manage reader passwords of production branches",
    "delete_branch_password": "Delete passwords of development branches",
    "delete_production_branch_password": "Delete passwords of production branches",
    "delete_production_read_only_branch_password": "Delete reader passwords of production branches",
    "write_branch_vschema": "Change vschemas and routing rules of development branches",
    "write_production_branch_vschema": "Change vschemas and routing rules of production branches",
    "read_service_tokens": "Read service tokens",
    "write_service_tokens": "Create service tokens and change what they may do",
    "delete_service_tokens": "Delete service tokens",
    "write_organization": "Change the organization, its members and its OAuth applications",
    "write_members": "Invite people",
    "write_teams": "Create teams and change who is in them",
    "read_audit_logs": "Read the audit log",
    "read_oauth_applications": "Read OAuth applications",
    "read_oauth_tokens": "Read the tokens of OAuth applications",
    "write_oauth_tokens": "Create and renew tokens of OAuth applications",
    "delete_oauth_tokens": "Delete tokens of OAuth applications",
}
ALL_ACCESSES: tuple[str, ...] = tuple(ACCESSES)

# A grant on the whole organization of one of these makes no sense on a single database.
ORGANIZATION_ONLY = frozenset(
    {
        "read_organization",
        "read_invoices",
        "create_databases",
        "read_databases",
        "read_service_tokens",
        "write_service_tokens",
        "delete_service_tokens",
        "write_organization",
        "write_members",
        "write_teams",
        "read_audit_logs",
        "read_oauth_applications",
        "read_oauth_tokens",
        "write_oauth_tokens",
        "delete_oauth_tokens",
    }
)

# The roles of users. Whoever is an administrator of a database may all that can be done to one database.
ORGANIZATION_ADMIN = frozenset(ALL_ACCESSES)
DATABASE_ADMIN = ORGANIZATION_ADMIN - ORGANIZATION_ONLY
ORGANIZATION_MEMBER = ORGANIZATION_ADMIN & {
    "read_organization",
    "read_databases",
    "create_databases",
    "read_database",
    "read_deploy_request",
    "create_deploy_request",
    "read_comment",
    "create_comment",
    "read_branch",
    "create_branch",
    "delete_branch",
    "connect_branch",
    "delete_branch_password",
    "write_branch_vschema",
    "read_backups",
    "restore_backup",
    "read_service_tokens",
    "write_service_tokens",
    "delete_service_tokens",
}
DATABASE_ANALYST = ORGANIZATION_ADMIN & {
    "read_database",
    "read_branch",
    "read_deploy_request",
    "read_comment",
    "read_backups",
    "connect_production_read_only_branch",
    "delete_production_read_only_branch_password",
}
ORGANIZATION_ROLES: Mapping[str, frozenset[str]] = {
    "admin": ORGANIZATION_ADMIN,
    "member": ORGANIZATION_MEMBER,
}
DATABASE_ROLES: Mapping[str, frozenset[str]] = {"admin": DATABASE_ADMIN, "analyst": DATABASE_ANALYST}
