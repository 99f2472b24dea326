"""Alembic's environment: runs on the connection that the store hands in, inside its transaction."""

from __future__ import annotations

from alembic import context

from homeworld.store.tables import metadata


def run() -> None:
    """Migrate on the given connection."""
    connection = context.config.attributes["connection"]
    context.configure(connection=connection, target_metadata=metadata, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()


run()
