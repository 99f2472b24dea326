"""``homeworld engine``: the commands of ``cli/engine.py``; ``install`` and ``attach``, which ask no API."""

from __future__ import annotations

from typing import Annotated

import typer

from homeworld.cli.engine import app
from homeworld.engines.vitess import install as building
from homeworld.model.engines import EngineKind
from homeworld.roles.attach import attach

__all__ = ["app"]

app.command()(attach)


@app.command()
def install(
    engine: Annotated[str, typer.Argument(metavar="ENGINE", help="vitess")],
) -> None:
    """Build the programs of an engine from source, at the versions that are supported. Needs Go."""
    if engine != EngineKind.VITESS:
        raise typer.BadParameter("only vitess is installed; local is always there")
    try:
        folder = building.install(lambda text: typer.echo(text, err=True))
    except building.NotBuiltError as error:
        typer.echo(f"homeworld: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(str(folder))
