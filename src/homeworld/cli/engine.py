"""``homeworld engine``: which engine a database runs on, and taking a running one into another."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from homeworld.cli.reach import ReadyFile, reach, told

_POLL_SECONDS = 0.5
app = typer.Typer(no_args_is_help=True, help="What plans and carries a database's statements.")


@app.command()
def show(database: str, ready_file: ReadyFile = None) -> None:
    """Which engine a database runs on."""
    client, organization = reach(ready_file)
    with told():
        typer.echo(client.get_database(organization, database)["engine"])


@app.command()
def change(
    database: str,
    engine: Annotated[str, typer.Argument(metavar="ENGINE", help="vitess")],
    wait: Annotated[bool, typer.Option(help="Until it is over.")] = True,
    ready_file: ReadyFile = None,
) -> None:
    """Take a running database into Vitess, in place: no row moves, and clients wait for a moment."""
    client, organization = reach(ready_file)
    with told():
        found = client.change_engine(organization, database, engine)
        if not wait:
            typer.echo(found["id"])
            return
        said = ""
        while not found["completed"]:
            if found["error"] != said:
                said = found["error"]
                typer.echo(said, err=True)
            time.sleep(_POLL_SECONDS)
            found = client.get_engine_change(organization, database, found["id"])
    if found["state"] != "completed":
        typer.echo(f"homeworld: {found['error']}", err=True)
        raise typer.Exit(1)
    typer.echo(f"{database} runs on {found['engine']}")
