"""Brings a database's schema up to date when a process starts.

Invariant: all of it or nothing, and one process at a time: the migrations run inside the store's own write
transaction, which both databases can roll back with the DDL in it.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine

from homeworld.store.engine import writing

MIGRATIONS = Path(__file__).parent / "migrations"


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration over an open connection."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def upgrade(engine: Engine) -> None:
    """Run the migrations that this database has not had.

    :raises UnavailableError: the database does not answer, or another process migrates for longer than
        LOCK_SECONDS.
    """
    with writing(engine) as connection:
        command.upgrade(alembic_config(connection), "head")
