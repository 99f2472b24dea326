"""``homeworld workflow``: look at MoveTables workflows and watch them move.

For everything else any PlanetScale client does; this one draws pictures. The installation is named by the
ready file of ``up``, or by the same environment variables that ``pscale`` reads.
"""

from __future__ import annotations

import math
import time
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from homeworld.cli.reach import ReadyFile, reach, told
from homeworld.cli.workflow_view import Rate, draw, rows_copied

app = typer.Typer(no_args_is_help=True, help="Look at MoveTables workflows and watch them move.")
RESTING = {"completed", "cancelled", "error", "stopped"}


@app.command("list")
def list_workflows(database: str, ready_file: ReadyFile = None) -> None:
    """All workflows of a database, newest first."""
    client, organization = reach(ready_file)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in ("number", "name", "state", "from", "to", "created"):
        table.add_column(name)
    with told():
        for found in client.list_workflows(organization, database):
            table.add_row(
                str(found["number"]), found["name"], found["state"], found["source_keyspace"]["name"],
                found["target_keyspace"]["name"], found["created_at"],
            )  # fmt: skip
    Console().print(table)


@app.command()
def check(
    database: str,
    source: str,
    target: str,
    tables: list[str],
    branch: Annotated[str, typer.Option(help="The branch; else the default one.")] = "",
    global_keyspace: Annotated[str, typer.Option(help="Where sequences would go.")] = "",
    ready_file: ReadyFile = None,
) -> None:
    """What would be said of moving TABLES from keyspace SOURCE to TARGET. Nothing is made.

    Every reason against it stands on a line of its own; the exit code is 1 where there is one.
    """
    client, organization = reach(ready_file)
    fields = {"branch_name": branch, "global_keyspace": global_keyspace}
    with told():
        found = client.check_workflow(
            organization, database, source_keyspace=source, target_keyspace=target, tables=tables,
            **{name: value for name, value in fields.items() if value},
        )  # fmt: skip
    for reason in found["reasons"]:
        typer.echo(f"- {reason}")
    if not found["allowed"]:
        raise typer.Exit(1)
    typer.echo(f"nothing speaks against moving {', '.join(tables)} from {source} to {target}")


@app.command()
def show(database: str, number: int, ready_file: ReadyFile = None) -> None:
    """One workflow as it is now."""
    client, organization = reach(ready_file)
    with told():
        Console().print(draw(client.get_workflow(organization, database, number), 0.0))


Limit = Annotated[str, typer.Option(metavar="NUMBER|off")]


@app.command()
def throttle(
    database: str,
    number: int,
    replica_lag: Limit = "",
    threads_running: Limit = "",
    history_length: Limit = "",
    ratio: Annotated[
        int | None, typer.Option(min=0, max=95, help="Percent of the time, for the workflow's keyspaces.")
    ] = None,
    ready_file: ReadyFile = None,
) -> None:
    """Show or change above what a workflow gives way to others.

    Copying waits while a replica of either side lags by more seconds than --replica-lag, or the source has
    more running threads or a longer InnoDB history; "off" means that it does not.
    """
    client, organization = reach(ready_file)
    asked = {
        "replica_lag_seconds": replica_lag,
        "source_threads_running": threads_running,
        "source_history_length": history_length,
    }
    changes = {name: _limit(name, text) for name, text in asked.items() if text}
    with told():
        if ratio is not None:
            workflow = client.get_workflow(organization, database, number)
            names = {workflow[side]["name"] for side in ("source_keyspace", "target_keyspace")}
            client.update_throttler(organization, database, keyspaces=dict.fromkeys(names, ratio))
        if changes:
            client.update_workflow_throttler(organization, database, number, **changes)
        limits = client.get_workflow_throttler(organization, database, number)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in ("limit", "value"):
        table.add_column(name)
    for name, value in limits.items():
        table.add_row(name, "off" if value is None else str(value))
    Console().print(table)


def _limit(name: str, text: str) -> float | str:
    if text == "off":
        return text
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise typer.BadParameter(f"{name} is a number or off, not {text}")
    return int(value) if value.is_integer() else value


@app.command()
def verify(
    database: str,
    number: int,
    ready_file: ReadyFile = None,
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Copy rows that differ once more, and compare them again.")
    ] = False,
) -> None:
    """Compare every row of both sides and show what differs; 1 unless everything is equal."""
    client, organization = reach(ready_file)
    console = Console()
    with told(), Live(console=console, refresh_per_second=4, transient=False) as live:
        client.workflow_action(organization, database, number, "repair" if repair else "verify-data")
        while True:
            workflow = client.get_workflow(organization, database, number)
            live.update(draw(workflow, 0.0))
            if workflow["state"] != "verifying_data":
                break
            time.sleep(0.25)
    if workflow["state"] != "verified_data":
        raise typer.Exit(1)


@app.command()
def watch(database: str, number: int, ready_file: ReadyFile = None) -> None:
    """Follow a workflow until it has ended or needs somebody; Ctrl-C stops watching, not the workflow."""
    client, organization = reach(ready_file)
    console, rate = Console(), Rate()
    last = ""
    with told(), Live(console=console, refresh_per_second=4, transient=False) as live:
        while True:
            workflow = client.get_workflow(organization, database, number)
            live.update(draw(workflow, rate.see(rows_copied(workflow))))
            if not console.is_terminal and workflow["state"] != last:
                last = str(workflow["state"])
                console.print(last)
            if workflow["state"] in RESTING:
                return
            time.sleep(0.25)
