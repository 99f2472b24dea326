"""``make fuzz-gateway MINUTES=n [SEED=s]``: ends with 1 where a case failed."""

from __future__ import annotations

import argparse
import logging
import random
import sys

from homeworld.model.topology import Flavor
from tests.fuzz import gateway


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz-gateway")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, help="begin with this case; default: a random one, which is told")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**9)
    logging.getLogger("homeworld").propagate = False
    print(f"fuzz gateway: seed {seed}", flush=True)
    failures = gateway.campaign(options.minutes * 60, seed, list(Flavor))
    for failure in failures:
        print(failure)
    print(f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
