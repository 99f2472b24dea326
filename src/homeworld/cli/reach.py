"""How commands reach an installation, and how they say what it refuses.

The installation is named by the ready file of ``up``, or by the environment variables that ``pscale`` reads.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import httpx
import typer

from homeworld.client import ApiError, HomeworldClient

ReadyFile = Annotated[Path | None, typer.Option(help="The ready file of ``up``; else PLANETSCALE_… is read.")]


def reach(ready_file: Path | None) -> tuple[HomeworldClient, str]:
    """A client, and the organization's name."""
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
def told() -> Generator[None]:
    """Say the API's refusal in one line instead of a traceback."""
    try:
        yield
    except (ApiError, httpx.HTTPError) as error:
        typer.echo(f"homeworld: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
