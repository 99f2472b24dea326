"""The ``demo`` command: set the scene, walk, judge, report, leave nothing behind."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import httpx
import pymysql
import typer
from rich.console import Console

from homeworld.cli.demo.data import DataMissingError, data_folder
from homeworld.cli.demo.view import Scene, View, final_table
from homeworld.cli.demo.walk import DemoFailedError, Walk
from homeworld.cli.installation import Installation, InstallationError
from homeworld.client import ApiError


def demo(
    report: Annotated[Path | None, typer.Option(help="Write the result as JSON to this file.")] = None,
    mysqld: Annotated[Path | None, typer.Option(help="The mysqld or mariadbd to run.")] = None,
    engine: Annotated[str, typer.Option(metavar="local|vitess", help="What runs the database.")] = "local",
    replicas: Annotated[int, typer.Option(min=0, max=5, help="Replicas of each shard.")] = 1,
    writers: Annotated[int, typer.Option(min=1, help="Writers of each kind (text, prepared).")] = 2,
    readers: Annotated[int, typer.Option(min=1, help="Replica readers of each kind.")] = 1,
    keep: Annotated[Path | None, typer.Option(help="Keep all data here.")] = None,
) -> None:
    """Move real tables to two shards while an application writes, and prove that nothing was lost."""
    console = Console()
    try:
        data_folder()
    except DataMissingError as error:
        console.print(str(error))
        raise typer.Exit(2) from None
    folder = keep or Path(tempfile.mkdtemp(prefix="homeworld-demo-"))
    options = (
        "--placement",
        "dedicated",
        "--engine",
        engine,
        "--replicas",
        str(replicas),
        "--api-port",
        "0",
        "--gateway-port",
        "0",
    )
    if mysqld is not None:
        options += ("--mysqld", str(mysqld))
    installation = Installation(folder, options)
    begun = time.monotonic()
    failure = ""
    walk: Walk | None = None
    try:
        console.print("Starting homeworld …")
        installation.start()
        scene = Scene(title="homeworld demo: nyc → nyc_sharded (-80, 80-)")
        with View(scene, console) as view:
            walk = Walk(installation, view, writers, readers)
            try:
                walk.run()
            except (DemoFailedError, ApiError, httpx.HTTPError, pymysql.MySQLError, TimeoutError) as error:
                failure = f"{scene.current}: {error}"
    except InstallationError as error:
        failure = str(error)
    finally:
        installation.destroy()
        if keep is None:
            shutil.rmtree(folder)
    if walk is None:
        console.print(f"The demo failed: {failure}", style="red", markup=False)
        raise typer.Exit(1)
    result = walk.report(begun, failure)
    if report is not None:
        report.write_text(json.dumps(asdict(result), indent=2) + "\n")
    console.print(final_table(walk.results))
    console.print(
        f"{result.commits:,} commits acknowledged, {result.statements:,} statements; "
        f"client errors: {result.client_errors}; rows lost: {result.rows_lost}; "
        f"longest stall: {result.longest_stall_ms:.0f} ms; {result.total_seconds:.0f} s in all"
    )
    for line in (*result.errors, *result.losses):
        console.print(f"  {line}", style="red", markup=False)
    if not result.ok:
        console.print(f"The demo did not hold. {failure}", style="bold red", markup=False)
        raise typer.Exit(1)
    console.print("Everything held.", style="bold green")
