"""What every figure is given: the flavour, the sizes, which sides to take, and whom to tell how it goes."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.sizes import Sizes
from homeworld.model.topology import Flavor


@dataclass(frozen=True, slots=True)
class Context:
    """:param runs: pairs of runs of each figure that has a peer.
    :param peer_only: take the peers' side only, to try them; such figures are not met.
    :param say: shows one line of progress.
    """

    flavor: Flavor
    sizes: Sizes
    runs: int
    peer_only: bool
    say: Callable[[str], None]


def vitess_note() -> str:
    """Whether Vitess is here to be measured beside."""
    if shutil.which("vtgate") is None:
        return "Vitess: not on PATH"
    return "Vitess: on PATH, see the engine figures"


def machine() -> str:
    """The machine in one line, without its name."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return (
        f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Linux {platform.release().split('-')[0]},"
        f" Python {platform.python_version()}"
    )
