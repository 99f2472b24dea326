"""Bodies of the vtctld family, and what of them cannot be had here.

Invariant: a field that would change what is done is either followed or refused with a sentence; none is
ignored. Fields that ask for what is done anyway are taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from homeworld.api.schemas.common import Body
from homeworld.api.schemas.databases import Name
from homeworld.api.schemas.workflows import MOST_TABLES
from homeworld.model.errors import InvalidError
from homeworld.model.movers import OnDdl
from homeworld.model.states.move_tables import Trigger
from homeworld.model.topology import TabletType
from homeworld.store.workflows import Workflow

Names = Annotated[list[Name], Field(max_length=MOST_TABLES)]
Words = Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=64)]
Word = Annotated[str, Field(max_length=64)]
Lag = Annotated[int, Field(ge=1, le=86400)]

_COMPLETE_KEEPS = "a cutover drops the source's tables; to keep them, leave the workflow switched"
_RULES = (
    "the rules can be kept only from a cutover on: `pscale workflow cutover`, then complete with "
    "--keep-routing-rules"
)


class MoveTablesTarget(Body):
    """A body that names no more than the workflow's target keyspace."""

    target_keyspace: Name


class CreateMoveTables(Body):
    """The body of create_move_tables."""

    workflow: Name
    target_keyspace: Name
    source_keyspace: Name
    tables: Names = Field(default_factory=list)
    all_tables: bool = False
    exclude_tables: Names = Field(default_factory=list)
    auto_start: bool = True
    stop_after_copy: bool = False
    defer_secondary_keys: bool = True
    on_ddl: OnDdl = OnDdl.STOP
    sharded_auto_increment_handling: Word | None = None
    global_keyspace: Name | None = None
    source_time_zone: Word | None = None
    tenant_id: Word | None = None
    cells: Words = Field(default_factory=list)
    tablet_types: Words = Field(default_factory=list)
    atomic_copy: bool = False

    def check(self) -> None:
        """Refuse what cannot be had.

        :raises InvalidError: all reasons at once.
        """
        handling = self.sharded_auto_increment_handling
        _refuse(
            {
                "name tables, or all_tables": not self.tables and not self.all_tables,
                "name tables or all_tables, not both": bool(self.tables) and self.all_tables,
                "exclude_tables goes with all_tables": bool(self.exclude_tables) and not self.all_tables,
                "a workflow starts when it is created; stop it afterwards": not self.auto_start,
                "a workflow follows the source once it has copied; stop it afterwards": self.stop_after_copy,
                "tables are copied one by one and made consistent by the log; atomic_copy is not possible": (
                    self.atomic_copy
                ),
                "times are copied as they are; source_time_zone is not possible": bool(self.source_time_zone),
                "there are no tenants; tenant_id is not possible": bool(self.tenant_id),
                "a move reads its source in one place; cells cannot be chosen": bool(self.cells),
                "a move reads its source's primaries; the only tablet type is primary": not only_primary(
                    self.tablet_types
                ),
                "ids of sharded tables come from sequences; sharded_auto_increment_handling is REPLACE": (
                    handling is not None and handling.upper() != "REPLACE"
                ),
            }
        )


class _Switch(Body):
    target_keyspace: Name
    tablet_types: Words = Field(default_factory=list)
    max_replication_lag_allowed: Lag | None = None
    dry_run: bool = False


class SwitchTraffic(_Switch):
    """The body of switch_move_tables_traffic."""

    initialize_target_sequences: bool = True

    def trigger(self, workflow: Workflow) -> Trigger:
        """What the tablet types ask for.

        :raises InvalidError: they cannot be switched like this.
        """
        types = _types(self.tablet_types)
        _refuse(
            {
                "sequences always go on above the largest id; initialize_target_sequences cannot be off": (
                    not self.initialize_target_sequences
                ),
                "reads of rdonly go where those of replica go; name replica": types == {TabletType.RDONLY},
                "traffic of primaries does not go alone: switch replica first, or name primary,replica": (
                    TabletType.PRIMARY in types
                    and TabletType.REPLICA not in types
                    and not workflow.replicas_switched
                ),
            }
        )
        return Trigger.SWITCH_PRIMARIES if TabletType.PRIMARY in types else Trigger.SWITCH_REPLICAS


class ReverseTraffic(_Switch):
    """The body of reverse_move_tables_traffic."""

    def check(self, workflow: Workflow) -> None:
        """Hold the tablet types against what is switched.

        :raises InvalidError: they would leave a part of the traffic where it is.
        """
        types = _types(self.tablet_types)
        part = TabletType.REPLICA not in types or (
            workflow.primaries_switched and TabletType.PRIMARY not in types
        )
        _refuse(
            {"all traffic that is switched comes back together; name primary,replica or no tablet type": part}
        )


class CancelMoveTables(Body):
    """The body of cancel_move_tables."""

    target_keyspace: Name
    keep_data: bool = False
    keep_routing_rules: bool = False

    def check(self) -> None:
        """Refuse what cannot be had.

        :raises InvalidError: all reasons at once.
        """
        _refuse(
            {
                "a cancelled workflow leaves none of the tables that it made on the target; keep_data is not "
                "possible": self.keep_data,
                "a cancelled workflow leaves none of its routing rules; keep_routing_rules is not possible": (
                    self.keep_routing_rules
                ),
            }
        )


class CompleteMoveTables(Body):
    """The body of complete_move_tables."""

    target_keyspace: Name
    keep_data: bool = False
    keep_routing_rules: bool = False
    rename_tables: bool = False
    dry_run: bool = False

    def check(self, *, cut_over: bool) -> None:
        """Refuse what cannot be had.

        :param cut_over: whether the cutover is behind the workflow.
        :raises InvalidError: all reasons at once.
        """
        _refuse(
            {
                f"{_COMPLETE_KEEPS}; keep_data is not possible": self.keep_data,
                f"{_COMPLETE_KEEPS}; rename_tables is not possible": self.rename_tables,
                _RULES: self.keep_routing_rules and not cut_over,
            }
        )


class WorkflowKeyspace(Body):
    """The body of starting and stopping a workflow."""

    keyspace: Name


# What a comparison cannot do here, by the field that asks for it.
_COMPARISONS: Mapping[str, str] = {
    "debug_query": "queries are not logged",
    "update_table_stats": "statistics are not touched",
    "tablet_selection_preference": "there is one source to compare with: the primaries",
    "filtered_replication_wait_time": "it waits for the streams as long as it has to",
    "max_report_sample_rows": "how many rows a report shows is fixed",
    "max_extra_rows_to_compare": "all rows are compared",
    "row_diff_column_truncate_at": "values are shown as they are",
    "limit": "all rows are compared",
}


class CreateVDiff(Body):
    """The body of create_vdiff."""

    target_keyspace: Name
    auto_retry: bool = True
    auto_start: bool = True
    debug_query: bool = False
    only_pks: bool = False
    update_table_stats: bool = False
    verbose: bool = False
    tables: Names = Field(default_factory=list)
    tablet_types: Words = Field(default_factory=list)
    tablet_selection_preference: Word | None = None
    filtered_replication_wait_time: int | None = None
    max_report_sample_rows: int | None = None
    max_extra_rows_to_compare: int | None = None
    row_diff_column_truncate_at: int | None = None
    limit: int | None = None

    def check(self, tables: Iterable[str]) -> None:
        """Refuse what cannot be had.

        :param tables: the workflow's.
        :raises InvalidError: all reasons at once.
        """
        given: dict[str, Any] = self.model_dump()
        _refuse(
            {
                f"{name} is not possible: {why}": given[name] is not None and given[name] is not False
                for name, why in _COMPARISONS.items()
            }
            | {
                "a comparison waits for what does not answer; auto_retry cannot be off": not self.auto_retry,
                "a comparison starts when it is created; stop it afterwards": not self.auto_start,
                "all tables of the workflow are compared together; tables must be all of them, or left out": (
                    bool(self.tables) and set(self.tables) != set(tables)
                ),
                "primaries are compared; the only tablet type is primary": not only_primary(
                    self.tablet_types
                ),
            }
        )


class VDiffShards(Body):
    """The body of stopping and resuming a comparison."""

    target_keyspace: Name
    target_shards: Words = Field(default_factory=list)

    def check(self, shards: Iterable[str]) -> None:
        """Refuse a part of the shards.

        :param shards: the target's.
        :raises InvalidError: others, or not all.
        """
        _refuse(
            {
                "all shards are compared together; target_shards must be all of them, or left out": (
                    bool(self.target_shards) and set(self.target_shards) != set(shards)
                )
            }
        )


def only_primary(types: Sequence[str]) -> bool:
    """Whether the types name nothing but primaries, or nothing at all."""
    return all(named.lower() == TabletType.PRIMARY for named in types)


def _types(named: Sequence[str]) -> set[TabletType]:
    """What was named; where nothing was, everything.

    :raises InvalidError: one is none.
    """
    found: set[TabletType] = set()
    for name in named:
        try:
            found.add(TabletType(name.lower()))
        except ValueError:
            raise InvalidError(f"unknown tablet type {name!r}; expected primary, replica or rdonly") from None
    return found or set(TabletType)


def _refuse(against: Mapping[str, bool]) -> None:
    reasons = [sentence for sentence, holds in against.items() if holds]
    if reasons:
        raise InvalidError("; ".join(reasons))
