"""Users, teams, OAuth, audit log filters. Never edited once released: later changes are later files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def _id(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(12), nullable=nullable)


def _time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _text(name: str, length: int, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=nullable)


def _digest(name: str, *, nullable: bool = False) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary(32), nullable=nullable)


def _refers(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=op.f(f"fk_{table}_{column}"))


def _key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*(columns or ("id",)), name=op.f(f"pk_{table}"))


def _unique(table: str, *columns: str) -> sa.UniqueConstraint:
    return sa.UniqueConstraint(*columns, name=op.f(f"uq_{table}_{'_'.join(columns)}"))


def _check(table: str, name: str, condition: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(condition, name=op.f(f"ck_{table}_{name}"))


def upgrade() -> None:
    """Go forward."""
    _tenants()
    _people()
    _oauth()
    _browsers()


def _tenants() -> None:
    op.add_column(
        "organizations",
        sa.Column("billing_email", sa.String(255), nullable=False, server_default=sa.text("''")),
    )
    op.add_column(
        "organizations",
        sa.Column("invoice_budget_amount", sa.Integer(), nullable=False, server_default=sa.text("0")),
    )
    op.add_column(
        "organizations",
        sa.Column("idp_managed_roles", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.add_column("service_tokens", _id("creator_id", nullable=True))
    op.create_index("ix_audit_log_action", "audit_log", ["organization_id", "action", "created_at", "id"])
    op.create_index("ix_audit_log_actor", "audit_log", ["organization_id", "actor_id", "created_at", "id"])
    # As clients name it in their filters.
    op.execute(
        "UPDATE audit_log SET action = 'service_token.granted_access'"
        " WHERE action = 'service_token.access_added'"
    )


def _people() -> None:
    op.create_table(
        "users",
        _id("id"),
        _text("email", 255),
        _text("name", 255),
        _text("password_hash", 255, nullable=True),
        _text("sso_issuer", 255, nullable=True),
        _text("sso_subject", 255, nullable=True),
        _time("disabled_at", nullable=True),
        _time("last_login_at", nullable=True),
        _time("created_at"),
        _time("updated_at"),
        _check("users", "sso", "(sso_issuer IS NULL) = (sso_subject IS NULL)"),
        _refers("users", "id", "actors"),
        _key("users"),
        _unique("users", "email"),
        _unique("users", "sso_issuer", "sso_subject"),
    )
    op.create_table(
        "memberships",
        _id("id"),
        _id("organization_id"),
        _id("user_id"),
        _text("role", 20),
        _time("created_at"),
        _time("updated_at"),
        _check("memberships", "role", "role IN ('admin', 'member')"),
        _refers("memberships", "organization_id", "organizations"),
        _refers("memberships", "user_id", "users"),
        _key("memberships"),
        _unique("memberships", "organization_id", "user_id"),
    )
    op.create_index("ix_memberships_list", "memberships", ["organization_id", "created_at", "id"])
    op.create_index("ix_memberships_user", "memberships", ["user_id"])
    op.create_table(
        "database_members",
        _id("database_id"),
        _id("user_id"),
        _time("created_at"),
        _refers("database_members", "database_id", "databases"),
        _refers("database_members", "user_id", "users"),
        _key("database_members", "user_id", "database_id"),
    )
    op.create_table(
        "teams",
        _id("id"),
        _id("organization_id"),
        _text("name", 255),
        _text("slug", 64),
        sa.Column("description", sa.Text(), nullable=True),
        _id("creator_id"),
        _time("created_at"),
        _time("updated_at"),
        _refers("teams", "organization_id", "organizations"),
        _refers("teams", "creator_id", "actors"),
        _key("teams"),
        _unique("teams", "organization_id", "slug"),
    )
    op.create_table(
        "team_members",
        _id("id"),
        _id("team_id"),
        _id("user_id"),
        _id("actor_id"),
        _time("created_at"),
        _time("updated_at"),
        _refers("team_members", "team_id", "teams"),
        _refers("team_members", "user_id", "users"),
        _refers("team_members", "actor_id", "actors"),
        _key("team_members"),
        _unique("team_members", "team_id", "user_id"),
    )
    op.create_index("ix_team_members_list", "team_members", ["team_id", "created_at", "id"])
    op.create_index("ix_team_members_user", "team_members", ["user_id"])
    op.create_table(
        "team_databases",
        _id("team_id"),
        _id("database_id"),
        _text("role", 20),
        _time("created_at"),
        _check("team_databases", "role", "role IN ('admin', 'analyst')"),
        _refers("team_databases", "team_id", "teams"),
        _refers("team_databases", "database_id", "databases"),
        _key("team_databases", "team_id", "database_id"),
    )
    op.create_index("ix_team_databases_database", "team_databases", ["database_id"])
    op.create_table(
        "invitations",
        _id("id"),
        _id("organization_id"),
        _text("email", 255),
        _text("role", 20),
        _id("sender_id"),
        _digest("secret_sha256"),
        _time("expires_at"),
        _time("accepted_at", nullable=True),
        _time("cancelled_at", nullable=True),
        _time("created_at"),
        _check("invitations", "role", "role IN ('admin', 'member')"),
        _refers("invitations", "organization_id", "organizations"),
        _refers("invitations", "sender_id", "actors"),
        _key("invitations"),
        _unique("invitations", "secret_sha256"),
    )
    op.create_index("ix_invitations_list", "invitations", ["organization_id", "created_at", "id"])


def _oauth() -> None:
    op.create_table(
        "oauth_applications",
        _id("id"),
        _id("organization_id"),
        _text("name", 255),
        _text("domain", 500),
        _text("redirect_uri", 1000),
        _text("client_id", 64),
        _digest("client_secret_sha256"),
        sa.Column("scopes", sa.JSON(), nullable=False),
        _time("deleted_at", nullable=True),
        _time("created_at"),
        _time("updated_at"),
        _refers("oauth_applications", "organization_id", "organizations"),
        _key("oauth_applications"),
        _unique("oauth_applications", "client_id"),
    )
    op.create_index(
        "ix_oauth_applications_list", "oauth_applications", ["organization_id", "created_at", "id"]
    )
    op.create_table(
        "oauth_tokens",
        _id("id"),
        _id("application_id", nullable=True),
        _text("client_id", 255),
        _id("user_id"),
        sa.Column("scopes", sa.JSON(), nullable=True),
        _digest("access_sha256"),
        _digest("refresh_sha256", nullable=True),
        _digest("previous_refresh_sha256", nullable=True),
        _time("expires_at"),
        _time("refresh_expires_at", nullable=True),
        _time("last_used_at", nullable=True),
        _time("revoked_at", nullable=True),
        _time("created_at"),
        _time("updated_at"),
        _refers("oauth_tokens", "application_id", "oauth_applications"),
        _refers("oauth_tokens", "user_id", "users"),
        _key("oauth_tokens"),
        _unique("oauth_tokens", "access_sha256"),
        _unique("oauth_tokens", "refresh_sha256"),
    )
    op.create_index("ix_oauth_tokens_previous_refresh", "oauth_tokens", ["previous_refresh_sha256"])
    op.create_index("ix_oauth_tokens_list", "oauth_tokens", ["application_id", "created_at", "id"])
    op.create_index("ix_oauth_tokens_user", "oauth_tokens", ["user_id"])
    op.create_table(
        "oauth_codes",
        _digest("code_sha256"),
        _id("application_id"),
        _id("user_id"),
        _text("redirect_uri", 1000),
        sa.Column("scopes", sa.JSON(), nullable=False),
        _text("challenge", 128, nullable=True),
        _id("token_id", nullable=True),
        _time("expires_at"),
        _time("created_at"),
        _refers("oauth_codes", "application_id", "oauth_applications"),
        _refers("oauth_codes", "user_id", "users"),
        _refers("oauth_codes", "token_id", "oauth_tokens"),
        _key("oauth_codes", "code_sha256"),
    )
    op.create_index("ix_oauth_codes_expires_at", "oauth_codes", ["expires_at"])
    op.create_table(
        "device_codes",
        _digest("device_sha256"),
        _text("user_code", 16),
        _text("client_id", 255),
        _id("application_id", nullable=True),
        sa.Column("scopes", sa.JSON(), nullable=True),
        _text("state", 20),
        _id("user_id", nullable=True),
        _time("polled_at", nullable=True),
        _time("expires_at"),
        _time("created_at"),
        _check("device_codes", "state", "state IN ('pending', 'approved', 'denied', 'used')"),
        _check("device_codes", "user", "(state IN ('approved', 'used')) = (user_id IS NOT NULL)"),
        _refers("device_codes", "application_id", "oauth_applications"),
        _refers("device_codes", "user_id", "users"),
        _key("device_codes", "device_sha256"),
        _unique("device_codes", "user_code"),
    )
    op.create_index("ix_device_codes_expires_at", "device_codes", ["expires_at"])


def _browsers() -> None:
    op.create_table(
        "sessions",
        _digest("secret_sha256"),
        _id("user_id"),
        _time("expires_at"),
        _time("created_at"),
        _refers("sessions", "user_id", "users"),
        _key("sessions", "secret_sha256"),
    )
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"])
    op.create_index("ix_sessions_user", "sessions", ["user_id"])
    op.create_table(
        "sso_attempts",
        _digest("state_sha256"),
        _text("nonce", 64),
        _text("verifier", 128),
        _text("next", 2000),
        _time("expires_at"),
        _time("created_at"),
        _key("sso_attempts", "state_sha256"),
    )
    op.create_index("ix_sso_attempts_expires_at", "sso_attempts", ["expires_at"])
    op.create_table(
        "guesses",
        _digest("key_sha256"),
        sa.Column("count", sa.Integer(), nullable=False),
        _time("expires_at"),
        _key("guesses", "key_sha256"),
    )
    op.create_index("ix_guesses_expires_at", "guesses", ["expires_at"])
