"""``homeworld down``. It reads nothing of what serves: somebody waits for it at a prompt."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from homeworld.engines.local import LocalEngine
from homeworld.engines.vitess import crew
from homeworld.model.errors import HomeworldError
from homeworld.roles.lock import data_dir_lock

_log = logging.getLogger("homeworld")


def down(
    data_dir: Annotated[Path, typer.Option(help="The data directory of ``up``.")] = Path("~/.homeworld"),
) -> None:
    """Stop the MySQL servers that a killed homeworld left running, and what runs of Vitess beside them."""
    folder = data_dir.expanduser().absolute()
    try:
        with data_dir_lock(folder):
            engine = LocalEngine(folder)
            try:
                for name in crew.stop_all(folder):  # needs no programs of Vitess
                    _log.warning("%s did not end in time and was killed", name)
            finally:
                engine.stop_all()
    except HomeworldError as error:
        typer.echo(f"homeworld: {error.message}", err=True)
        raise typer.Exit(1) from None
