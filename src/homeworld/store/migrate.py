"""Brings a database's schema up to date when a process starts.

Invariant: all of it or nothing, and one process at a time: the migrations run inside the store's own write
transaction, which both databases can roll back with the DDL in it. Where there is nothing to run, which is at
nearly every start, nothing is locked and Alembic is not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text

from homeworld.store.engine import reading, writing

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"


def newest() -> str:
    """The revision of the last migration: its file's number."""
    names = sorted(path.name for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))
    return names[-1].partition("_")[0]


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration over an open connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def upgrade(engine: Engine) -> None:
    """Run the migrations that this database has not had.

    :raises UnavailableError: the database does not answer, or another process migrates for longer than
        LOCK_SECONDS.
    """
    if _is_newest(engine):
        return
    from alembic import command

    with writing(engine) as connection:
        command.upgrade(alembic_config(connection), "head")


def _is_newest(engine: Engine) -> bool:
    with reading(engine) as connection:
        if not inspect(connection).has_table("alembic_version"):
            return False
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
    return list(found) == [newest()]
