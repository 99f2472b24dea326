"""Where PlanetScale's own programs are on this machine. None is part of this project.

A test that needs one that is not there is skipped, and says how to have it. It does not make any.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support.mysqld import CACHE


def pscale() -> Path:
    """The command line tool: the named one, else what ``scripts/get-pscale`` made, else that on PATH."""
    return _program("pscale", "HOMEWORLD_PSCALE", "scripts/get-pscale makes one where there is Go")


def terraform() -> tuple[Path, Path]:
    """Terraform, and the provider ``planetscale/planetscale``, which is built by whoever has its module."""
    provider = _program(
        "terraform-provider-planetscale", "HOMEWORLD_TERRAFORM_PROVIDER",
        "`go install github.com/planetscale/terraform-provider-planetscale@v1.8.0` makes one where it "
        "can be had",
    )  # fmt: skip
    return _program("terraform", "HOMEWORLD_TERRAFORM", "get it from its makers"), provider


def _program(name: str, variable: str, how: str) -> Path:
    named = os.environ.get(variable)
    made, found = CACHE / "bin" / name, shutil.which(name)
    for path in (named, made, found):
        if path is not None and Path(path).exists():
            return Path(path)
    pytest.skip(f"there is no {name} on this machine: {how}, or name it by {variable}")
