"""Options that several commands have. Reads nothing but what options are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[Path, typer.Option(help="Everything homeworld keeps.")]
StoreUrl = Annotated[
    str,
    typer.Option(envvar="HOMEWORLD_STORE", help="The store of several roles; without: of `homeworld up`."),
]
