"""What a server has committed is still there after a power cut: the other side has it by then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from homeworld.workflows.move_tables.preconditions.world import Rule, World

_WANTED: Mapping[str, str] = {"sync_binlog": "1", "innodb_flush_log_at_trx_commit": "1"}


def _check(world: World) -> Iterator[str]:
    for server in world.servers:
        for name, wanted in _WANTED.items():
            value = server.variables.get(name, "")
            if value != wanted:
                yield (
                    f"{server.where}: {name} must be {wanted}, not {value or 'unset'}; after a crash the "
                    "server could lack what the other side has from it already"
                )


RULE = Rule("durability", "every server keeps what it has committed", _check, lasting=True)
