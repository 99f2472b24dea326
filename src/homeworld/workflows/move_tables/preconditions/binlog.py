"""The binlog has whole rows and GTIDs, on both sides: the reverse stream reads the target's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from homeworld.model.topology import Flavor
from homeworld.workflows.move_tables.preconditions.world import Rule, World

_WANTED: Mapping[str, str] = {
    "log_bin": "ON",
    "binlog_format": "ROW",
    "binlog_row_image": "FULL",
    # Without the columns' names a statement that reorders columns of one type could not be noticed.
    "binlog_row_metadata": "FULL",
}
_OF_FLAVOR: Mapping[Flavor, Mapping[str, str]] = {
    Flavor.MYSQL: {"gtid_mode": "ON", "enforce_gtid_consistency": "ON"},
    Flavor.MARIADB: {},
}
_TRUE = {"1": "ON", "0": "OFF"}


def _check(world: World) -> Iterator[str]:
    for server in world.servers:
        for name, wanted in (*_WANTED.items(), *_OF_FLAVOR[server.flavor].items()):
            value = server.variables.get(name, "").upper()
            if _TRUE.get(value, value) != wanted:
                yield f"{server.where}: {name} must be {wanted}, not {value or 'unset'}"
        if "PARTIAL_JSON" in server.variables.get("binlog_row_value_options", "").upper():
            yield f"{server.where}: binlog_row_value_options must not have PARTIAL_JSON"
        for name in server.log_filters:
            yield f"{server.where}: {name} keeps changes out of the binlog"
        if server.variables.get("binlog_transaction_compression", "").upper() in {"ON", "1"}:
            yield f"{server.where}: binlog_transaction_compression must be OFF"


RULE = Rule("binlog", "every server logs whole rows with GTIDs", _check, lasting=True)
