"""What production wires together, wired together for one figure."""

from __future__ import annotations

from bench.lab import BenchError
from homeworld.model.ports import Movers


def start_movers() -> Movers:
    """Movers in child processes."""
    raise BenchError("no mover here yet")
