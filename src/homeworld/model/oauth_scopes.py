"""What a user can allow an OAuth application: scopes, each a set of the accesses that service tokens have
too.

Invariant: a scope never gives more than its user has; a token's rights are the user's, less what its scopes
do not name. A name without a prefix is the organization's, or the user's where it is one of those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from homeworld.model.accesses import ACCESSES
from homeworld.model.errors import InvalidError

_BACKUPS: Mapping[str, tuple[str, ...]] = {
    "read_backups": ("read_backups",),
    "write_backups": ("write_backups",),
    "delete_backups": ("delete_backups",),
    "restore_backups": ("restore_backup",),
}
_PRODUCTION_BACKUPS: Mapping[str, tuple[str, ...]] = {
    "delete_production_branch_backups": ("delete_production_branch_backups",),
    "restore_production_branch_backups": ("restore_production_branch_backup",),
}
_PASSWORDS: Mapping[str, tuple[str, ...]] = {
    "manage_passwords": ("connect_branch", "delete_branch_password"),
    "manage_production_branch_passwords": ("connect_production_branch", "delete_production_branch_password"),
    "manage_production_read_only_passwords": (
        "connect_production_read_only_branch",
        "delete_production_read_only_branch_password",
    ),
}
_BRANCHES: Mapping[str, tuple[str, ...]] = {
    "read_branches": ("read_branch",),
    "write_branches": ("create_branch", "write_branch_vschema"),
    "delete_branches": ("delete_branch",),
    "delete_production_branches": ("delete_production_branch",),
    "promote_branches": ("promote_branches",),
    "demote_branches": ("demote_branches",),
    "read_deploy_requests": ("read_deploy_request",),
    "write_deploy_requests": ("create_deploy_request",),
    "deploy_deploy_requests": ("create_deploy_request",),
    "approve_deploy_requests": ("approve_deploy_request",),
    "read_comments": ("read_comment",),
    "write_comments": ("create_comment",),
    **_BACKUPS,
    **_PRODUCTION_BACKUPS,
    **_PASSWORDS,
}

USER: Mapping[str, tuple[str, ...]] = {"read_user": (), "read_organizations": ("read_organization",)}
ORGANIZATION: Mapping[str, tuple[str, ...]] = {
    "read_organization": ("read_organization",),
    "write_organization": ("write_organization", "write_teams"),
    "write_members": ("write_members",),
    "read_audit_logs": ("read_audit_logs",),
    "read_invoices": ("read_invoices",),
    "read_databases": ("read_databases", "read_database"),
    "create_databases": ("create_databases",),
    "write_databases": ("write_database", "write_branch_vschema", "write_production_branch_vschema"),
    "delete_databases": ("delete_database",),
    **_BRANCHES,
}
DATABASE: Mapping[str, tuple[str, ...]] = {
    "read_database": ("read_database",),
    "write_database": ("write_database", "write_branch_vschema", "write_production_branch_vschema"),
    "delete_database": ("delete_database",),
    **_BRANCHES,
}
BRANCH: Mapping[str, tuple[str, ...]] = {
    "read_branch": ("read_branch",),
    "write_branch": ("create_branch", "write_branch_vschema"),
    "delete_branch": ("delete_branch",),
    "manage_passwords": _PASSWORDS["manage_passwords"],
    **_BACKUPS,
}
KINDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "user": USER,
    "organization": ORGANIZATION,
    "database": DATABASE,
    "branch": BRANCH,
}
SCOPES: Mapping[str, frozenset[str]] = {
    f"{kind}:{name}": frozenset(accesses) & set(ACCESSES)
    for kind, names in KINDS.items()
    for name, accesses in names.items()
}


def checked(names: Iterable[str]) -> tuple[str, ...]:
    """The scopes by their whole names (``organization:read_databases``), sorted, each once.

    :raises InvalidError: a name is none.
    """
    found: set[str] = set()
    for name in names:
        for whole in (name, f"user:{name}", f"organization:{name}", f"database:{name}", f"branch:{name}"):
            if whole in SCOPES:
                found.add(whole)
                break
        else:
            raise InvalidError(f"{name!r} is not a scope; see the application's all_scopes_by_resource")
    return tuple(sorted(found))


def accesses_of(scopes: Iterable[str]) -> frozenset[str]:
    """All accesses that any of the scopes (by their whole names) gives."""
    return frozenset[str]().union(*(SCOPES.get(scope, frozenset()) for scope in scopes))


def by_kind(scopes: Iterable[str]) -> dict[str, list[str]]:
    """Scopes by what they are about: user, organization, database, branch; each with its short names."""
    split: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for scope in sorted(scopes):
        kind, _, name = scope.partition(":")
        split[kind].append(name)
    return split
