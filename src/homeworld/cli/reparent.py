"""``homeworld tablets`` and ``homeworld reparent``: a branch's servers, and another primary of a shard."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from homeworld.cli.reach import ReadyFile, reach, told

_POLL_SECONDS = 0.5
_COLUMNS = ("alias", "keyspace", "shard", "role", "serves", "behind", "what is wrong")


def tablets(database: str, branch: str, ready_file: ReadyFile = None) -> None:
    """The MySQL servers of a branch, by the names that reparents take."""
    client, organization = reach(ready_file)
    with told():
        groups = client.list_tablets(organization, database, branch)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in _COLUMNS:
        table.add_column(name, overflow="fold", no_wrap=name == "alias")
    for group in groups:
        for one in group["tablets"]:
            lag = one["lag_seconds"]
            table.add_row(
                one["alias"], group["keyspace"], group["shard"], one["role"],
                "yes" if one["serving"] else "no", "" if lag is None else f"{lag:g} s", one["error"],
            )  # fmt: skip
    Console().print(table)


def reparent(
    database: str,
    branch: str,
    shard: Annotated[str, typer.Argument(metavar="KEYSPACE/SHARD", help="Such as shop/-, wide/80-.")],
    to: Annotated[
        str, typer.Option(metavar="ALIAS", help="The replica that takes over; without it the best one.")
    ] = "",
    emergency: Annotated[
        bool,
        typer.Option(
            "--emergency",
            help="The primary is dead or hangs: what no replica has got of it is lost, and it is killed.",
        ),
    ] = False,
    wait: Annotated[bool, typer.Option(help="Until it is over.")] = True,
    ready_file: ReadyFile = None,
) -> None:
    """Give a shard another primary: planned, nothing is lost and no client fails."""
    keyspace, slash, name = shard.partition("/")
    if not slash or not keyspace or not name:
        raise typer.BadParameter("name the shard as KEYSPACE/SHARD, such as shop/-")
    client, organization = reach(ready_file)
    with told():
        found = client.reparent(
            organization, database, branch, keyspace, name, new_primary=to, emergency=emergency
        )
        if not wait:
            typer.echo(found["id"])
            return
        said = ""
        while not found["completed"]:
            if found["error"] != said:
                said = found["error"]
                typer.echo(said, err=True)
            time.sleep(_POLL_SECONDS)
            found = client.get_reparent(organization, database, branch, found["id"])
    if found["state"] != "completed":
        typer.echo(f"homeworld: {found['error']}", err=True)
        raise typer.Exit(1)
    asked, result = found["metadata"], found["result"]
    typer.echo(f"{asked['new_primary']} is the primary of {keyspace}/{name}")
    if not result["former_serves"]:
        typer.echo(f"{asked['former_primary']} serves nobody: {result['former_error']}")
