"""Who may come in, and by what: users, memberships, teams, invitations, OAuth applications, tokens, sessions.

Of every secret only a digest is here: of passwords argon2id's, of codes and tokens (random and long) SHA-256.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from homeworld.store.tables.base import Utc, created, metadata, public_id, updated

LIVE = text("deleted_at IS NULL")
NOT_REVOKED = text("revoked_at IS NULL")
WAITING = text("accepted_at IS NULL AND cancelled_at IS NULL")

# A user's id is an actor's. The email is kept in lower case, so that one person is one row. Without a
# password the user comes in by the identity provider only.
users = Table(
    "users",
    metadata,
    Column("id", String(12), ForeignKey("actors.id"), primary_key=True),
    Column("email", String(255), nullable=False),
    Column("name", String(255), nullable=False),
    Column("password_hash", String(255), nullable=True),
    Column("sso_issuer", String(255), nullable=True),
    Column("sso_subject", String(255), nullable=True),
    Column("disabled_at", Utc, nullable=True),
    Column("last_login_at", Utc, nullable=True),
    created(),
    updated(),
    UniqueConstraint("email"),
    UniqueConstraint("sso_issuer", "sso_subject"),
    CheckConstraint("(sso_issuer IS NULL) = (sso_subject IS NULL)", name="sso"),
)

memberships = Table(
    "memberships",
    metadata,
    public_id(),
    Column("organization_id", String(12), ForeignKey("organizations.id"), nullable=False),
    Column("user_id", String(12), ForeignKey("users.id"), nullable=False),
    Column("role", String(20), nullable=False),
    created(),
    updated(),
    UniqueConstraint("organization_id", "user_id"),
    CheckConstraint("role IN ('admin', 'member')", name="role"),
    Index("ix_memberships_list", "organization_id", "created_at", "id"),
    Index("ix_memberships_user", "user_id"),
)

# Who is a database's administrator by himself: who created it.
database_members = Table(
    "database_members",
    metadata,
    Column("database_id", String(12), ForeignKey("databases.id"), nullable=False),
    Column("user_id", String(12), ForeignKey("users.id"), nullable=False),
    created(),
    PrimaryKeyConstraint("user_id", "database_id"),
)

teams = Table(
    "teams",
    metadata,
    public_id(),
    Column("organization_id", String(12), ForeignKey("organizations.id"), nullable=False),
    Column("name", String(255), nullable=False),
    Column("slug", String(64), nullable=False),
    Column("description", Text, nullable=True),
    Column("creator_id", String(12), ForeignKey("actors.id"), nullable=False),
    created(),
    updated(),
    UniqueConstraint("organization_id", "slug"),
)

team_members = Table(
    "team_members",
    metadata,
    public_id(),
    Column("team_id", String(12), ForeignKey("teams.id"), nullable=False),
    Column("user_id", String(12), ForeignKey("users.id"), nullable=False),
    Column("actor_id", String(12), ForeignKey("actors.id"), nullable=False),
    created(),
    updated(),
    UniqueConstraint("team_id", "user_id"),
    Index("ix_team_members_list", "team_id", "created_at", "id"),
    Index("ix_team_members_user", "user_id"),
)

team_databases = Table(
    "team_databases",
    metadata,
    Column("team_id", String(12), ForeignKey("teams.id"), nullable=False),
    Column("database_id", String(12), ForeignKey("databases.id"), nullable=False),
    Column("role", String(20), nullable=False),
    created(),
    PrimaryKeyConstraint("team_id", "database_id"),
    CheckConstraint("role IN ('admin', 'analyst')", name="role"),
    Index("ix_team_databases_database", "database_id"),
)

invitations = Table(
    "invitations",
    metadata,
    public_id(),
    Column("organization_id", String(12), ForeignKey("organizations.id"), nullable=False),
    Column("email", String(255), nullable=False),
    Column("role", String(20), nullable=False),
    Column("sender_id", String(12), ForeignKey("actors.id"), nullable=False),
    Column("secret_sha256", LargeBinary(32), nullable=False),
    Column("expires_at", Utc, nullable=False),
    Column("accepted_at", Utc, nullable=True),
    Column("cancelled_at", Utc, nullable=True),
    created(),
    UniqueConstraint("secret_sha256"),
    CheckConstraint("role IN ('admin', 'member')", name="role"),
    Index(
        "ix_invitations_list",
        "organization_id",
        "created_at",
        "id",
        sqlite_where=WAITING,
        postgresql_where=WAITING,
    ),
)

oauth_applications = Table(
    "oauth_applications",
    metadata,
    public_id(),
    Column("organization_id", String(12), ForeignKey("organizations.id"), nullable=False),
    Column("name", String(255), nullable=False),
    Column("domain", String(500), nullable=False),
    Column("redirect_uri", String(1000), nullable=False),
    Column("client_id", String(64), nullable=False),
    Column("client_secret_sha256", LargeBinary(32), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("deleted_at", Utc, nullable=True),
    created(),
    updated(),
    UniqueConstraint("client_id"),
    Index(
        "ix_oauth_applications_list",
        "organization_id",
        "created_at",
        "id",
        sqlite_where=LIVE,
        postgresql_where=LIVE,
    ),
)

# application_id is null for clients that nobody registered: tools on the user's own machine, which act with
# all that the user may; scopes is null for them.
oauth_tokens = Table(
    "oauth_tokens",
    metadata,
    public_id(),
    Column("application_id", String(12), ForeignKey("oauth_applications.id"), nullable=True),
    Column("client_id", String(255), nullable=False),
    Column("user_id", String(12), ForeignKey("users.id"), nullable=False),
    Column("scopes", JSON, nullable=True),
    Column("access_sha256", LargeBinary(32), nullable=False),
    Column("refresh_sha256", LargeBinary(32), nullable=True),
    Column("expires_at", Utc, nullable=False),
    Column("refresh_expires_at", Utc, nullable=True),
    Column("last_used_at", Utc, nullable=True),
    Column("revoked_at", Utc, nullable=True),
    created(),
    updated(),
    UniqueConstraint("access_sha256"),
    UniqueConstraint("refresh_sha256"),
    Index(
        "ix_oauth_tokens_list",
        "application_id",
        "created_at",
        "id",
        sqlite_where=NOT_REVOKED,
        postgresql_where=NOT_REVOKED,
    ),
    Index("ix_oauth_tokens_user", "user_id"),
)

# Refresh tokens that were used, each until it would have ended: whoever brings one again should not have it.
oauth_used_refreshes = Table(
    "oauth_used_refreshes",
    metadata,
    Column("refresh_sha256", LargeBinary(32), primary_key=True),
    Column("token_id", String(12), ForeignKey("oauth_tokens.id"), nullable=False),
    Column("expires_at", Utc, nullable=False),
    Index("ix_oauth_used_refreshes_expires_at", "expires_at"),
)

# An authorization code, between the user's yes and the application's exchange. token_id: what came of it.
oauth_codes = Table(
    "oauth_codes",
    metadata,
    Column("code_sha256", LargeBinary(32), primary_key=True),
    Column("application_id", String(12), ForeignKey("oauth_applications.id"), nullable=False),
    Column("user_id", String(12), ForeignKey("users.id"), nullable=False),
    Column("redirect_uri", String(1000), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("challenge", String(128), nullable=True),
    Column("token_id", String(12), ForeignKey("oauth_tokens.id"), nullable=True),
    Column("expires_at", Utc, nullable=False),
    created(),
    Index("ix_oauth_codes_expires_at", "expires_at"),
)

# A device that waits for its user. A user code is free again once its row has ended and was swept away.
device_codes = Table(
    "device_codes",
    metadata,
    Column("device_sha256", LargeBinary(32), primary_key=True),
    Column("user_code", String(16), nullable=False),
    Column("client_id", String(255), nullable=False),
    Column("application_id", String(12), ForeignKey("oauth_applications.id"), nullable=True),
    Column("scopes", JSON, nullable=True),
    Column("state", String(20), nullable=False),
    Column("user_id", String(12), ForeignKey("users.id"), nullable=True),
    Column("polled_at", Utc, nullable=True),
    Column("expires_at", Utc, nullable=False),
    created(),
    UniqueConstraint("user_code"),
    CheckConstraint("state IN ('pending', 'approved', 'denied', 'used')", name="state"),
    CheckConstraint("(state IN ('approved', 'used')) = (user_id IS NOT NULL)", name="user"),
    Index("ix_device_codes_expires_at", "expires_at"),
)

# A browser that somebody logged in with.
sessions = Table(
    "sessions",
    metadata,
    Column("secret_sha256", LargeBinary(32), primary_key=True),
    Column("user_id", String(12), ForeignKey("users.id"), nullable=False),
    Column("expires_at", Utc, nullable=False),
    created(),
    Index("ix_sessions_expires_at", "expires_at"),
    Index("ix_sessions_user", "user_id"),
)

# A browser that was sent to the identity provider, until it comes back.
sso_attempts = Table(
    "sso_attempts",
    metadata,
    Column("state_sha256", LargeBinary(32), primary_key=True),
    Column("nonce", String(64), nullable=False),
    Column("verifier", String(128), nullable=False),
    Column("next", Text, nullable=False),
    Column("expires_at", Utc, nullable=False),
    created(),
    Index("ix_sso_attempts_expires_at", "expires_at"),
)

# Guesses at what can be guessed: passwords by account, user codes by session; and the requests of credentials
# that ask often, where several APIs count them. One row a key and window.
guesses = Table(
    "guesses",
    metadata,
    Column("key_sha256", LargeBinary(32), primary_key=True),
    Column("count", Integer, nullable=False),
    Column("expires_at", Utc, nullable=False),
    Index("ix_guesses_expires_at", "expires_at"),
)
