"""Reads the published description, which the user has and names: JSON, or YAML where PyYAML is installed."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any


def read(path: Path) -> Any:
    """The description.

    :raises SystemExit: it is YAML, and nothing here reads that.
    """
    text = path.read_text()
    if path.suffix == ".json":
        return json.loads(text)
    try:
        yaml: Any = importlib.import_module("yaml")
    except ModuleNotFoundError:
        raise SystemExit("reading YAML needs PyYAML; install it or give the file as .json") from None
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
