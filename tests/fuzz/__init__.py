"""Random cases against real servers: ``make fuzz MINUTES=n [SEED=s] [AREA=mover]``.

Each area is a package here with ``campaign(seconds, seed, flavors) -> list[str]``: it plays random cases for
that long and returns what failed, each with the seed and the statements that show it again. A short sample of
each area is a test beside it. Areas know nothing of each other.
"""
