"""The ``homeworld`` command, with ``roles/`` the composition root. What a command is made of is imported once
it is asked for: who looks at a workflow does not wait until all roles are read.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

import typer


@dataclass(frozen=True, slots=True)
class Command:
    """Where a command is, and its help in a line.

    :param name: of a function, or of a ``Typer`` with commands of its own.
    """

    module: str
    name: str
    help: str

    def load(self) -> typer.Typer | Callable[..., None]:
        """The command itself."""
        found: typer.Typer | Callable[..., None] = getattr(
            import_module(f"homeworld.{self.module}"), self.name
        )
        return found


COMMANDS = {
    "demo": Command(
        "cli.demo.command",
        "demo",
        "Move real tables to two shards while an application writes, and prove that nothing was lost.",
    ),
    "up": Command("roles.up", "up", "Run the whole platform on this machine until SIGTERM or Ctrl-C."),
    "down": Command(
        "roles.down",
        "down",
        "Stop the MySQL servers that a killed homeworld left running, and what runs of Vitess beside them.",
    ),
    "api": Command("roles.commands", "api", "Run one of any number of APIs."),
    "worker": Command(
        "roles.commands",
        "worker",
        "Run one of any number of workers; one of them starts and watches the MySQL servers.",
    ),
    "gateway": Command("roles.commands", "gateway", "Run one of any number of gateways."),
    "workflow": Command("cli.workflow", "app", "Look at MoveTables workflows and watch them move."),
    "tablets": Command(
        "cli.reparent", "tablets", "The MySQL servers of a branch, by the names that reparents take."
    ),
    "reparent": Command(
        "cli.reparent",
        "reparent",
        "Give a shard another primary: planned, nothing is lost and no client fails.",
    ),
    "usage": Command(
        "cli.maintenance", "usage", "What each branch used and what that costs, month by month."
    ),
    "maintenance": Command("cli.maintenance", "app", "When servers may be restarted or upgraded."),
    "engine": Command("roles.engine", "app", "What plans and carries a database's statements."),
    "user": Command("roles.users", "app", "Who can log in."),
}


def make_app(words: Sequence[str]) -> typer.Typer:
    """The program for this command line, without the program's own name: the command that is asked for is
    loaded, of the others there is what a list of commands shows.
    """
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    asked = next((word for word in words if not word.startswith("-")), "")
    for name, command in COMMANDS.items():
        if name != asked:
            app.command(name, help=command.help)(_not_loaded)
            continue
        found = command.load()
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    return app


def _not_loaded() -> None:
    raise AssertionError("a command that was not asked for")


def main() -> None:
    """The ``homeworld`` command."""
    make_app(sys.argv[1:])()


if __name__ == "__main__":
    main()
