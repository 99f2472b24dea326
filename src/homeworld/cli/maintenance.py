"""``homeworld maintenance``: say when servers may be restarted or upgraded, and see what was done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from homeworld.cli.reach import ReadyFile, reach, told

app = typer.Typer(no_args_is_help=True, help="When servers may be restarted or upgraded.")
DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "every day")


class Every(StrEnum):
    """How often windows open."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Action(StrEnum):
    """What is done in a window."""

    UPGRADE = "upgrade"
    RESTART = "restart"


@app.command("list")
def list_schedules(database: str, ready_file: ReadyFile = None) -> None:
    """The schedules of a database, and what is pending."""
    client, organization = reach(ready_file)
    with told():
        schedules = client.list_maintenance_schedules(organization, database)
    _show(("id", "name", "action", "every", "next window", "pending"), map(_row, schedules))


def _row(one: Mapping[str, Any]) -> list[str]:
    unit, value = one["frequency_unit"], one["frequency_value"]
    every = unit if unit == "once" or value == 1 else f"{value} {unit}s"
    following = _minute(one["next_window_datetime"]) if one["enabled"] else "disabled"
    return [one["id"], one["name"], one["action"], every, following, one["pending_mysql_version"] or ""]


@app.command()
def windows(database: str, schedule: str, ready_file: ReadyFile = None) -> None:
    """What a schedule's windows did, the newest first."""
    client, organization = reach(ready_file)
    with told():
        found = client.list_maintenance_windows(organization, database, schedule)
    rows = [
        [_minute(one["started_at"]), one["state"], str(len(one["restarted_servers"])), one["error"]]
        for one in found
    ]
    _show(("started", "state", "restarted", "error"), rows)


def _minute(moment: str) -> str:
    return moment[:16].replace("T", " ")


def _show(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name == "id")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


@app.command("set")
def set_schedule(
    database: str,
    every: Annotated[Every, typer.Option(help="How often a window opens.")] = Every.WEEK,
    day: Annotated[str, typer.Option(help="Day of the week, or “every day”.")] = "every day",
    hour: Annotated[int, typer.Option(min=0, max=23, help="Hour of the day in UTC.")] = 0,
    week: Annotated[int, typer.Option(min=0, max=3, help="Week of the month.")] = 0,
    hours: Annotated[int, typer.Option(min=1, max=24, help="How long it is.")] = 1,
    action: Annotated[
        Action, typer.Option(help="Restart servers of another version than the installed one, or all.")
    ] = Action.UPGRADE,
    name: str = "Maintenance",
    schedule: Annotated[str, typer.Option(help="Change this schedule instead of making one.")] = "",
    ready_file: ReadyFile = None,
) -> None:
    """Make or change a schedule."""
    if day.lower() not in DAYS:
        raise typer.BadParameter(f"day is one of {', '.join(DAYS)}")
    fields: dict[str, Any] = {
        "name": name, "frequency_unit": every.value, "day": DAYS.index(day.lower()), "hour": hour,
        "week": week, "duration": hours, "action": action.value, "enabled": True,
    }  # fmt: skip
    client, organization = reach(ready_file)
    with told():
        if schedule:
            shown = client.update_maintenance_schedule(organization, database, schedule, **fields)
        else:
            shown = client.create_maintenance_schedule(organization, database, **fields)
    typer.echo(f"{shown['id']}: the next window opens at {shown['next_window_datetime']}")


@app.command()
def disable(database: str, schedule: str, ready_file: ReadyFile = None) -> None:
    """Open no windows until the schedule is set again."""
    client, organization = reach(ready_file)
    with told():
        client.update_maintenance_schedule(organization, database, schedule, enabled=False)


@app.command()
def now(database: str, schedule: str, ready_file: ReadyFile = None) -> None:
    """Open a window of the schedule now."""
    client, organization = reach(ready_file)
    with told():
        window = client.open_maintenance_window(organization, database, schedule)
    typer.echo(f"a window is open until {window['ends_at']}")


@app.command()
def delete(database: str, schedule: str, ready_file: ReadyFile = None) -> None:
    """Take a schedule away; a window that is open goes on."""
    client, organization = reach(ready_file)
    with told():
        client.delete_maintenance_schedule(organization, database, schedule)


def usage(
    ready_file: ReadyFile = None,
    months: Annotated[int, typer.Option(min=1, help="How many months.")] = 1,
) -> None:
    """What each branch used and what that costs, month by month."""
    client, organization = reach(ready_file)
    with told():
        invoices = client.list_invoices(organization)[:months]
        lines = {one["id"]: client.list_invoice_lines(organization, one["id"]) for one in invoices}
    rows = [
        [
            one["billing_period_start"][:7], line["database_name"], line["resource"]["name"],
            line["metric_name"], f"{line['quantity']:g}", f"{line['subtotal']:.6f}",
        ]
        for one in invoices
        for line in lines[one["id"]]
    ]  # fmt: skip
    _show(("month", "database", "branch", "metric", "quantity", "amount"), rows)
