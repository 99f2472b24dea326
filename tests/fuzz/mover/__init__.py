"""Random moves: schemas, statements, shards, interruptions; each compared by bytes and by the verifier."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from homeworld.model.topology import Flavor
from tests.fuzz.mover.campaign import run


def _tell(line: str) -> None:
    print(line, flush=True)


def _run(flavor: Flavor, seed: int, seconds: float) -> list[str]:
    return run(flavor, seed, seconds, _tell)


def campaign(seconds: float, seed: int, flavors: Sequence[Flavor]) -> list[str]:
    """All flavours at the same time, each in a process of its own; what failed."""
    with ProcessPoolExecutor(max_workers=len(flavors)) as pool:
        running = [pool.submit(_run, flavor, seed, seconds) for flavor in flavors]
        return [failure for found in running for failure in found.result()]
