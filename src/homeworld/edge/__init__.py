"""The gateway's other door: SQL over HTTP, as PlanetScale's own clients speak it."""
