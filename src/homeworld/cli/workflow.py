"""``homeworld workflow``: look at MoveTables workflows and watch them move.

For everything else any PlanetScale client does; this one draws pictures. The installation is named by the
ready file of ``up``, or by the same environment variables that ``pscale`` reads.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from homeworld.cli.workflow_view import Rate, draw, rows_copied
from homeworld.client import ApiError, HomeworldClient

app = typer.Typer(no_args_is_help=True, help="Look at MoveTables workflows and watch them move.")
RESTING = {"completed", "cancelled", "error"}
ReadyFile = Annotated[Path | None, typer.Option(help="The ready file of ``up``; else PLANETSCALE_… is read.")]


def _reach(ready_file: Path | None) -> tuple[HomeworldClient, str]:
    if ready_file is not None:
        ready = json.loads(ready_file.read_text())
        client = HomeworldClient(ready["api_url"], ready["service_token_id"], ready["service_token"])
        return client, str(ready["organization"])
    names = ("API_URL", "ORG", "SERVICE_TOKEN_ID", "SERVICE_TOKEN")
    found = [os.environ.get(f"PLANETSCALE_{name}", "") for name in names]
    if not all(found):
        missing = ", ".join(f"PLANETSCALE_{n}" for n, v in zip(names, found, strict=True) if not v)
        raise typer.BadParameter(f"name the installation: --ready-file, or set {missing}")
    return HomeworldClient(found[0], found[2], found[3]), found[1]


@contextmanager
def _told() -> Generator[None]:
    """Say the API's refusal in one line instead of a traceback."""
    try:
        yield
    except (ApiError, httpx.HTTPError) as error:
        typer.echo(f"homeworld: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


@app.command("list")
def list_workflows(database: str, ready_file: ReadyFile = None) -> None:
    """All workflows of a database, newest first."""
    client, organization = _reach(ready_file)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in ("number", "name", "state", "from", "to", "created"):
        table.add_column(name)
    with _told():
        for found in client.list_workflows(organization, database):
            table.add_row(
                str(found["number"]), found["name"], found["state"], found["source_keyspace"]["name"],
                found["target_keyspace"]["name"], found["created_at"],
            )  # fmt: skip
    Console().print(table)


@app.command()
def show(database: str, number: int, ready_file: ReadyFile = None) -> None:
    """One workflow as it is now."""
    client, organization = _reach(ready_file)
    with _told():
        Console().print(draw(client.get_workflow(organization, database, number), 0.0))


@app.command()
def watch(database: str, number: int, ready_file: ReadyFile = None) -> None:
    """Follow a workflow until it has ended or needs somebody; Ctrl-C stops watching, not the workflow."""
    client, organization = _reach(ready_file)
    console, rate = Console(), Rate()
    last = ""
    with _told(), Live(console=console, refresh_per_second=4, transient=False) as live:
        while True:
            workflow = client.get_workflow(organization, database, number)
            live.update(draw(workflow, rate.see(rows_copied(workflow))))
            if not console.is_terminal and workflow["state"] != last:
                last = str(workflow["state"])
                console.print(last)
            if workflow["state"] in RESTING:
                return
            time.sleep(0.25)
