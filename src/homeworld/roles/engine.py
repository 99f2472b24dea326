"""The commands ``homeworld engine …``: what engines need on this machine beyond homeworld itself.

They make programs and nothing of an installation; running processes are left alone.
"""

from __future__ import annotations

from typing import Annotated

import typer

from homeworld.engines.vitess import binaries, install
from homeworld.model.engines import EngineKind
from homeworld.model.errors import HomeworldError

app = typer.Typer(no_args_is_help=True, help="What databases run on.")

Which = Annotated[EngineKind, typer.Argument(help="The engine.", metavar="ENGINE")]


@app.command("install")
def install_engine(which: Which) -> None:
    """Build the programs that an engine needs, where they are not there: Vitess and etcd, with Go."""
    if which is EngineKind.LOCAL:
        typer.echo("The local engine needs a MySQL or MariaDB server program and nothing else.")
        return
    try:
        folder = install.install(lambda text: typer.echo(text, err=True))
        found = binaries.find()
    except (install.NotBuiltError, HomeworldError) as error:
        typer.echo(f"homeworld: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"Vitess {found.version_text} is in {folder}.")
