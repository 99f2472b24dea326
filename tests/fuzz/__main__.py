"""Runs the campaigns of all areas one after another, each its share of the time; 1 where one failed."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import random
import sys

from homeworld.model.topology import Flavor
from tests import fuzz


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, help="begin with this case; default: a random one, which is told")
    parser.add_argument("--area", help="only this one")
    parser.add_argument("--flavor", choices=[flavor.value for flavor in Flavor])
    options = parser.parse_args()
    areas = sorted(found.name for found in pkgutil.iter_modules(fuzz.__path__) if found.ispkg)
    if options.area is not None:
        if options.area not in areas:
            parser.error(f"no area {options.area}; there are {', '.join(areas)}")
        areas = [options.area]
    flavors = [Flavor(options.flavor)] if options.flavor else list(Flavor)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**9)
    failures: list[str] = []
    for area in areas:
        print(f"fuzz {area}: seed {seed}", flush=True)
        module = importlib.import_module(f"tests.fuzz.{area}")
        failures += module.campaign(options.minutes * 60 / len(areas), seed, flavors)
    for failure in failures:
        print(failure)
    print(f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
