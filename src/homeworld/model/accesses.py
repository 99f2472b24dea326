"""What a service token may be allowed: PlanetScale's names of accesses, each with a sentence for people.

Which operation asks for which access is the API's table; here stands only what exists.
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
}
ALL_ACCESSES: tuple[str, ...] = tuple(ACCESSES)
