"""The table of commands against the commands themselves, and what asking for one of them reads."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from homeworld.main import COMMANDS, make_app


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says(name: str) -> None:
    found = COMMANDS[name].load()
    if isinstance(found, typer.Typer):
        said = found.info.help
    else:
        assert found.__name__ == name
        said = " ".join((found.__doc__ or "").split("\n\n")[0].split())
    assert said == COMMANDS[name].help


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_found_by_its_name(name: str) -> None:
    told = CliRunner().invoke(make_app([name, "--help"]), [name, "--help"], prog_name="homeworld")
    assert told.exit_code == 0, told.output
    assert f"homeworld {name}" in told.output


def test_a_list_of_all_and_a_name_that_there_is_not() -> None:
    listed = CliRunner().invoke(make_app(["--help"]), ["--help"])
    assert all(name in listed.output for name in COMMANDS)
    wrong = CliRunner().invoke(make_app(["none"]), ["none"])
    assert (wrong.exit_code, "No such command 'none'" in wrong.output) == (2, True)


@pytest.mark.parametrize("name", ["workflow", "tablets", "reparent", "usage", "maintenance", "engine"])
def test_a_client_reads_no_role(name: str) -> None:
    """What a person types at a prompt does not wait for the API's routes or the store's tables."""
    script = (
        f"import sys; from homeworld.main import make_app; make_app([{name!r}]);"
        "print([m for m in ('fastapi', 'sqlalchemy', 'homeworld.roles.several') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
