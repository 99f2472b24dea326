"""One workflow at a time, and a production branch whose schema nobody changes by hand."""

from __future__ import annotations

from collections.abc import Iterator

from homeworld.workflows.move_tables.preconditions.world import Rule, World


def _check(world: World) -> Iterator[str]:
    if world.active_workflow is not None:
        yield f"workflow {world.active_workflow} on branch {world.branch} is not over; one at a time"
    if world.production and not world.safe_migrations:
        yield f"safe migrations must be enabled on production branch {world.branch}"


RULE = Rule(
    "branch", "the branch has no other workflow, and safe migrations where it is in production", _check
)
