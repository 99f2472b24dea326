"""What Vitess prints of moves, and the commands that come of it; against a vtctld in memory."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from homeworld.engines.vitess import moves_look as look
from homeworld.engines.vitess import moves_traffic, vdiff
from homeworld.engines.vitess.moves import VitessMoves
from homeworld.engines.vitess.moves_progress import progress_of
from homeworld.engines.vitess.tablet_vars import places_of
from homeworld.model.clusters import HANDED_OVER, ClusterMove, MoveLook
from homeworld.model.errors import DeadlineExceededError, InvalidError, UnavailableError
from homeworld.model.movers import OnDdl, Phase
from homeworld.model.topology import TabletType
from homeworld.workflows.move_tables.vitess_mover import going_on, judged, unheard
from tests.support.workflow_world import make_table

MOVE = ClusterMove(
    "branch", "move_1", "shop", "wide", ("orders", "items"), OnDdl.STOP, defer_secondary_keys=True
)
PRIMARIES = frozenset({TabletType.PRIMARY})


def stream(number: int = 1, shard: str = "-80", **changes: object) -> dict[str, Any]:
    """A stream as ``GetWorkflows`` prints it: 64-bit numbers are texts."""
    told: dict[str, Any] = {
        "id": str(number),
        "shard": shard,
        "tablet": {"cell": "home", "uid": 200 + number},
        "binlog_source": {"keyspace": "shop", "shard": "0", "filter": {"rules": [{"match": "orders"}]}},
        "position": "MySQL56/4e5c3a8e-0001:1-300",
        "stop_position": "",
        "state": "Running",
        "db_name": f"wide_{shard}",
        "transaction_timestamp": {"seconds": "1790000000", "nanoseconds": 0},
        "time_updated": {"seconds": "1790000001", "nanoseconds": 0},
        "message": "",
        "copy_states": [],
        "rows_copied": "1200",
        "throttler_status": {"component_throttled": "", "time_throttled": None},
    }
    return {**told, **changes}


def workflows(*streams: Mapping[str, Any], name: str = "move_1", lag: str = "1") -> dict[str, Any]:
    """An answer of ``GetWorkflows``."""
    shards = {
        f"{one['shard']}/home-0000000{one['tablet']['uid']}": {"streams": [one], "is_primary_serving": True}
        for one in streams
    }
    return {
        "workflows": [
            {"name": "another", "shard_streams": {}},
            {
                "name": name,
                "source": {"keyspace": "shop", "shards": ["0"]},
                "target": {"keyspace": "wide", "shards": ["-80", "80-"]},
                "max_v_replication_lag": "1",
                "shard_streams": shards,
                "workflow_type": "MoveTables",
                "max_v_replication_transaction_lag": lag,
            },
        ]
    }


def found(*streams: Mapping[str, Any], lag: str = "1") -> look.VMove:
    move = look.move_of(workflows(*streams, lag=lag), "move_1")
    assert move is not None
    return move


# -- looking -----------------------------------------------------------------------------------------------


def test_streams_are_read() -> None:
    move = found(stream(2, "80-"), stream(1))
    first = move.streams[0]
    assert (first.number, first.shard, first.source_shard, first.tablet) == (1, "-80", "0", "home-0000000201")
    assert (first.rows_copied, move.lag_seconds, first.copied) == (1200, 1.0, True)
    assert look.move_of(workflows(stream()), "elsewhere") is None
    assert look.move_of({}, "move_1") is None
    with pytest.raises(UnavailableError):
        look.move_of({"workflows": "none"}, "move_1")


COPYING = [{"table": "orders", "last_pk": ""}]


@pytest.mark.parametrize(
    ("phase", "streams"),
    [
        (Phase.STARTING, [stream(position="", state="Init")]),
        (Phase.STARTING, [stream(position="", state="Running")]),
        (Phase.COPYING, [stream(state="Copying", copy_states=COPYING), stream(2, "80-")]),
        (Phase.COPYING, [stream(position="", state="Copying", copy_states=COPYING)]),
        (Phase.INDEXING, [stream(state="Copying"), stream(2, "80-")]),
        (Phase.FOLLOWING, [stream(state="Lagging"), stream(2, "80-")]),
        (Phase.FOLLOWING, [stream(state="Error", message="error: no tablet found; tried again")]),
        (Phase.FAILED, [stream(state="Error", message="Duplicate entry '1' (errno 1062): terminal error")]),
        (Phase.DDL, [stream(state="Stopped", message="Stopped at DDL alter table orders add c int")]),
        (Phase.DDL, [stream(state="Error", message="Stopped at DDL alter table errors add c int")]),
        (Phase.FOLLOWING, [stream(state="Stopped", message="Stopped at DDL alter …"), stream(2, "80-")]),
        (Phase.FOLLOWING, [stream(state="Stopped", message="for vdiff"), stream(2, "80-")]),
        (Phase.FOLLOWING, [stream(state="Stopped", message="Stopped at position MySQL56/4e5c:1-9")]),
        (Phase.STOPPED, [stream(state="Stopped"), stream(2, "80-")]),
        (Phase.FOLLOWING, [stream(state="Stopped", message="FROZEN")]),
        (Phase.FOLLOWING, [stream(state="Stopped", message="stopped for cutover")]),
    ],
)
def test_a_phase_is_that_of_the_stream_which_is_worst_off(
    phase: Phase, streams: list[dict[str, Any]]
) -> None:
    assert look.phase_of(found(*streams).streams) is phase


def test_what_has_no_position_is_never_called_copied() -> None:
    told = progress_of(MOVE, found(stream(position="")), {}, reverse=False, verification=None)
    assert not told.copied


RULES = {"orders": "shop.orders", "shop.orders": "shop.orders", "wide.orders": "shop.orders"}


def rules_answer(rules: Mapping[str, str]) -> dict[str, Any]:
    return {"rules": [{"from_table": name, "to_tables": [to]} for name, to in rules.items()]}


def test_rules_say_where_traffic_is() -> None:
    move = replace(MOVE, tables=("orders",))
    rules = look.rules_of(rules_answer(RULES))
    assert not look.look_of(move, found(stream()), None, rules).primaries_switched
    switched = {**RULES, "shop.orders": "wide.orders", "orders": "wide.orders"}
    del switched["wide.orders"]
    seen = look.look_of(move, found(stream(message="FROZEN", state="Stopped")), None, switched)
    assert (seen.primaries_switched, seen.frozen) == (True, True)
    assert seen.at(back=False)
    assert not seen.halfway
    assert look.look_of(move, None, None, {}).primaries_switched is False
    with pytest.raises(UnavailableError, match="lead the moving tables to shop, wide"):
        look.look_of(MOVE, None, None, {"shop.orders": "wide.orders"})
    with pytest.raises(UnavailableError):
        look.rules_of({"rules": [{"from_table": "t", "to_tables": ["a.t", "b.t"]}]})


def test_a_switch_that_stopped_anywhere_is_seen() -> None:
    before = MoveLook(exists=True)
    assert not before.halfway
    assert before.at(back=True)
    for seen, back in (
        (replace(before, denied=True), False),
        (replace(before, denied=True, journaled=True), False),
        (replace(before, primaries_switched=True, journaled=True), False),
        (MoveLook(exists=True, reverse_exists=True, primaries_switched=True, frozen=True, denied=True), True),
        (MoveLook(exists=True, reverse_exists=True, reverse_journaled=True), True),
    ):
        assert seen.halfway
        assert seen.begun_back is back
    after = MoveLook(exists=True, reverse_exists=True, primaries_switched=True, frozen=True, journaled=True)
    assert not after.halfway
    back = MoveLook(exists=True, reverse_exists=True, reverse_frozen=True, reverse_journaled=True)
    assert not back.halfway
    assert back.at(back=True)


def test_the_journals_number_is_that_of_vitess() -> None:
    """FNV-1 over keyspace and streams, without the highest bit."""
    streams = found(stream(7, "80-"), stream(3)).streams
    value = 0xCBF29CE484222325
    for byte in b"wide-80:380-:7":
        value = (value * 0x100000001B3 % 2**64) ^ byte
    assert look.journal_id("wide", streams) == value % 2**63


def test_denied_tables_and_primaries() -> None:
    record = {
        "keyspace": "wide",
        "name": "-80",
        "shard": {
            "primary_alias": {"cell": "home", "uid": 201},
            "tablet_controls": [
                {"tablet_type": "PRIMARY", "denied_tables": ["orders"], "frozen": False},
                {"tablet_type": "REPLICA", "denied_tables": ["others"]},
            ],
        },
    }
    assert look.denied_tables(record) == {"orders"}
    assert look.primary_of(record) == "home-0000000201"
    with pytest.raises(UnavailableError):
        look.primary_of({"shard": {}})


# -- figures -----------------------------------------------------------------------------------------------

VARS = {
    "VReplicationTableCopyRowCounts": {
        "shop.0.move_1.1.orders": 400, "shop.0.move_1.1.items": 7, "shop.0.move_10.2.orders": 5,
        "other.0.move_1.1.orders": 3,
    },
    "VReplicationLagSeconds": {"shop.0.move_1.1": 2, "shop.0.move_1_reverse.4": 9},
}  # fmt: skip


def test_live_figures_come_from_the_tablets() -> None:
    told = progress_of(
        MOVE, found(stream(), stream(2, "80-"), lag="4"), {"home-0000000201": VARS},
        reverse=False, verification=None,
    )  # fmt: skip
    assert {table.table: table.rows_copied for table in told.tables} == {"orders": 400, "items": 7}
    assert [one.lag_seconds for one in told.streams] == [2.0, 4.0]
    assert told.lag_seconds == 4.0
    assert told.copied


def test_without_them_the_command_tells_what_it_knows() -> None:
    streams = [stream(state="Copying", copy_states=[{"table": "items"}], rows_copied="90")]
    told = progress_of(MOVE, found(*streams, lag=str(2**63 - 1)), {}, reverse=False, verification=None)
    assert {table.table: table.rows_copied for table in told.tables} == {"orders": 0, "items": 90}
    assert told.lag_seconds > 1000
    over = progress_of(
        MOVE, found(stream(state="Stopped", message="FROZEN")), {}, reverse=False, verification=None
    )
    assert (over.lag_seconds, over.streams[0].unmeasured) == (0.0, HANDED_OVER)


def test_only_tablets_on_loopback_are_asked() -> None:
    tablets = [
        {"alias": {"cell": "home", "uid": 201}, "hostname": "127.0.0.1", "port_map": {"vt": 15101}},
        {"alias": {"cell": "home", "uid": 202}, "hostname": "10.0.0.9", "port_map": {"vt": 15102}},
    ]
    assert places_of(tablets) == {"home-0000000201": ("127.0.0.1", 15101)}


def test_a_mover_adds_what_vitess_leaves_open() -> None:
    told = progress_of(
        MOVE, found(stream(state="Copying", copy_states=COPYING)), {"home-0000000201": VARS},
        reverse=False, verification=None,
    )  # fmt: skip
    tables = {"orders": replace(make_table("orders"), rows_estimate=900)}
    assert [(t.rows_copied, t.rows_total) for t in judged(told, tables, MOVE).tables] == [(400, 900), (7, 7)]
    assert unheard(told, 2.0, "x").phase is Phase.COPYING
    silent = unheard(told, 100.0, "nobody answers")
    assert (silent.phase, silent.outage, silent.error) == (Phase.FAILED, True, "nobody answers")


def test_behind_which_statements_streams_may_go_on() -> None:
    tables = ("orders", "items")
    assert going_on("alter table orders add column c int", tables) == ((), True)
    assert going_on("truncate table `orders`", tables) == (("orders",), True)
    assert going_on("rename table orders to old_orders", tables) == ((), False)
    assert going_on("drop table items", tables) == ((), False)


# -- VDiff -------------------------------------------------------------------------------------------------

DIFFERENT = {
    "Workflow": "move_1", "Keyspace": "wide", "State": "completed", "UUID": "u", "RowsCompared": 30,
    "HasMismatch": True, "Shards": "-80,80-", "StartedAt": "2026-03-01 11:59:50",
    "CompletedAt": "2026-03-01 12:00:00",
    "TableSummary": {
        "orders": {"TableName": "orders", "State": "completed", "RowsCompared": 20, "MatchingRows": 18,
                   "MismatchedRows": 1, "ExtraRowsSource": 1, "ExtraRowsTarget": 0},
        "items": {"TableName": "items", "State": "completed", "RowsCompared": 10, "MatchingRows": 10,
                  "MismatchedRows": 0, "ExtraRowsSource": 0, "ExtraRowsTarget": 0},
    },
    "Reports": {
        "orders": {
            "-80": {"TableName": "orders", "ProcessedRows": 20, "MismatchedRows": 1, "ExtraRowsSource": 1,
                    "MismatchedRowsSample": [{"Source": {"Row": {"`id`": "17", "amount": "5"}},
                                              "Target": {"Row": {"`id`": "17", "amount": "-1"}}}],
                    "ExtraRowsSourceSample": [{"Row": {"id": "18", "amount": "6"}}]},
        },
    },
}  # fmt: skip
NOON = 1772366400.0  # 2026-03-01 12:00 UTC


def test_a_verification_tells_the_rows_that_differ() -> None:
    told = vdiff.shown(DIFFERENT, "mine", MOVE.tables, NOON).verification
    assert (told.state, told.equal, told.rows_compared, told.rows_per_second) == ("completed", False, 30, 3.0)
    orders = told.tables[0]
    assert (orders.mismatched, orders.extra_source, orders.different) == (1, 1, True)
    assert [one.kind for one in orders.differences] == ["mismatched", "extra_source"]
    assert orders.differences[0].columns == ("amount",)
    assert told.tables[1].state == "completed"
    keyed = judged(
        replace(progress_of(MOVE, found(stream()), {}, reverse=False, verification=told)),
        {"orders": make_table("orders")},
        MOVE,
    ).verification
    assert keyed is not None
    assert keyed.tables[0].differences[0].key == {"id": "17"}


def test_equal_is_only_what_was_compared_to_its_end() -> None:
    equal = json.loads(json.dumps(DIFFERENT))
    equal["HasMismatch"] = False
    equal["TableSummary"]["orders"].update(MismatchedRows=0, ExtraRowsSource=0)
    assert vdiff.shown(equal, "m", MOVE.tables, NOON).verification.equal
    assert vdiff.shown({**equal, "HasMismatch": True}, "m", MOVE.tables, NOON).verification.state == "error"
    del equal["TableSummary"]["items"]
    assert vdiff.shown(equal, "m", MOVE.tables, NOON).verification.state == "started"
    assert vdiff.shown({"State": "completed"}, "m", MOVE.tables, NOON).verification.state == "started"
    assert vdiff.shown({"State": "unknown"}, "m", MOVE.tables, NOON).verification.state == "pending"
    under_way = {
        "State": "started",
        "RowsCompared": 25,
        "Progress": {"Percentage": 50, "ETA": "2026-03-01 12:00:30"},
    }
    told = vdiff.shown(under_way, "m", MOVE.tables, NOON).verification
    assert (told.rows_total, told.eta_seconds) == (50, 30.0)
    broken = vdiff.shown({"State": "error", "Errors": {"-80": "lost"}}, "m", MOVE.tables, NOON).verification
    assert (broken.state, broken.error, broken.equal) == ("error", "shard -80: lost", False)
    assert vdiff.shown({"State": "stopped"}, "m", MOVE.tables, NOON).stopped


def test_a_verification_has_one_number_in_vitess() -> None:
    assert vdiff.uuid_of("abcdefghijkl") == vdiff.uuid_of("abcdefghijkl") != vdiff.uuid_of("bbcdefghijkl")
    known = "5e1bb7c1-6f0c-4c53-9d4e-3c0d3a6f8b57"
    assert vdiff.uuid_of(known) == known


# -- commands ----------------------------------------------------------------------------------------------


@dataclass
class FakeVtctld:
    """A vtctld whose switch can stop anywhere. ``stage`` is how far the present switch has come: 0 not begun,
    1 the origin denied, 2 the journal written, 3 rules changed, and 0 again with ``back`` turned at its end.

    :param break_at: each call of a switch comes to the next stage of this list and fails there.
    """

    switched: bool = False
    stage: int = 0
    break_at: list[int] = field(default_factory=list[int])
    refusal: str = ""
    silent: bool = False
    exists: bool = True
    calls: list[str] = field(default_factory=list[str])
    rounds: int = 0
    forgotten: bool = False
    deleted: list[str] = field(default_factory=list[str])
    lagging: bool = False
    stopped_by: str = ""

    def run_with_file(
        self, branch_id: str, flag: str, content: object, *args: str, timeout_seconds: float
    ) -> None:
        assert (flag, bool(content)) == ("--rules-file", True)
        self.run(branch_id, *args, timeout_seconds=timeout_seconds)

    def run(self, branch_id: str, *args: str, timeout_seconds: float) -> object:
        assert timeout_seconds > 0
        assert branch_id == "branch"
        command = next((one for one in args if one in _COMMANDS), args[0])
        self.calls.append(command)
        match command:
            case "GetWorkflows":
                return self._workflows(args[-1])
            case "GetRoutingRules":
                return rules_answer(self._rules())
            case "FindAllShardsInKeyspace":
                return {"shards": self._shards(args[-1])}
            case "ExecuteFetchAsDBA" if args[-1].startswith("delete"):
                self.deleted.append(args[-1])
            case "ExecuteFetchAsDBA":
                return {"rows": [[1]] if self._journaled(args[-1]) else []}
            case "SwitchTraffic" | "ReverseTraffic":
                assert command == "SwitchTraffic", "each way by its own name"
                if self.lagging and "--max-replication-lag-allowed=10s" in args:
                    raise InvalidError("replication lag of 11s is higher than allowed lag 10s")
                self._switch(back="--workflow=move_1_reverse" in args)
            case "create":
                self.exists = True
            case "complete" | "cancel":
                self.exists = False
            case "SetShardTabletControl":
                self.stage = 0
            case "start":
                self.stopped_by = ""
            case _:
                pass
        return None

    def _ids(self, *, reverse: bool) -> int:
        """A direction's streams are made anew with each switch in the other."""
        return (2 if reverse else 1) + 10 * ((self.rounds + 1) // 2 if reverse else self.rounds // 2)

    def _workflows(self, keyspace: str) -> object:
        reverse = keyspace == "shop"
        if not self.exists or (self.forgotten and not reverse):
            return {}
        frozen = (
            (self.switched and self.stage == 0) if not reverse else (not self.switched and self.rounds > 0)
        )
        if reverse and not self.rounds and self.stage < 2:
            return {}
        told = stream(
            self._ids(reverse=reverse), "0" if reverse else "-80",
            state="Stopped" if frozen or self.stopped_by else "Running",
            message="FROZEN" if frozen else self.stopped_by,
        )  # fmt: skip
        return workflows(told, name="move_1_reverse" if reverse else "move_1")

    def _at_target(self) -> bool:
        return self.switched != (self.stage >= 3)

    def _rules(self) -> dict[str, str]:
        to = "wide" if self._at_target() else "shop"
        return {f"shop.{table}": f"{to}.{table}" for table in MOVE.tables}

    def _shards(self, keyspace: str) -> dict[str, Any]:
        origin = "wide" if self.switched else "shop"
        denied = list(MOVE.tables) if (keyspace == origin) == (self.stage > 0) else []
        control = [{"tablet_type": "PRIMARY", "denied_tables": denied}] if denied else []
        shard = {"primary_alias": {"cell": "home", "uid": 1}, "tablet_controls": control}
        return {"-80" if keyspace == "wide" else "0": {"keyspace": keyspace, "shard": shard}}

    def _journaled(self, query: str) -> bool:
        """Whether the query asks for the number of streams that have, or had, their switch behind them."""
        number = int(query.rpartition(" ")[2])
        for reverse in (False, True):
            keyspace, name = ("shop", "move_1_reverse") if reverse else ("wide", "move_1")
            told = look.move_of(self._workflows(keyspace), name)
            if told is not None and number == look.journal_id(keyspace, told.streams):
                under_way = self.switched is reverse
                return self.stage >= 2 if under_way else self.rounds > 0
        return False

    def _switch(self, *, back: bool) -> None:
        if self.refusal:
            raise InvalidError(self.refusal)
        if back is not self.switched and self.stage == 0:
            return  # it is there
        if self.break_at:
            self.stage = max(self.stage, self.break_at.pop(0))
            raise UnavailableError("no answer") if self.silent else InvalidError("it broke off")
        self.switched, self.stage, self.rounds = not self.switched, 0, self.rounds + 1
        self.forgotten = False


_COMMANDS = {
    "GetWorkflows", "GetRoutingRules", "FindAllShardsInKeyspace", "ExecuteFetchAsDBA", "SwitchTraffic",
    "ReverseTraffic", "create", "complete", "cancel", "SetShardTabletControl", "start", "stop", "VDiff",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves_traffic, "AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(moves_traffic, "SILENT_SECONDS", 0.0)


def switches(vtctld: FakeVtctld) -> int:
    return sum(call in ("SwitchTraffic", "ReverseTraffic") for call in vtctld.calls)


def test_a_switch_there_and_back_and_nothing_twice() -> None:
    vtctld = FakeVtctld()
    moves = VitessMoves(vtctld)
    for back in (False, True, False):
        moves.switch_primaries(MOVE, back=back, timeout_seconds=120.0)
        assert moves.look(MOVE).at(back=back)
        assert not moves.look(MOVE).halfway
        before = switches(vtctld)
        moves.switch_primaries(MOVE, back=back, timeout_seconds=120.0)
        moves.settle(MOVE, back=back, timeout_seconds=120.0)
        assert switches(vtctld) == before


def test_while_clients_wait_no_more_is_asked_than_has_to_be() -> None:
    vtctld = FakeVtctld()
    moves = VitessMoves(vtctld)
    told = moves.switch_primaries(MOVE, back=False, timeout_seconds=120.0, untouched=True)
    assert vtctld.calls == ["SwitchTraffic", "GetRoutingRules"]
    assert set(told.values()) == {f"wide.{table}" for table in MOVE.tables}


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_what_breaks_off_is_looked_at_although_it_was_untouched(stage: int) -> None:
    vtctld = FakeVtctld(break_at=[stage])
    told = VitessMoves(vtctld).switch_primaries(MOVE, back=False, timeout_seconds=120.0, untouched=True)
    assert (vtctld.switched, vtctld.stage) == (True, 0)
    assert set(told.values()) == {f"wide.{table}" for table in MOVE.tables}
    assert "GetWorkflows" in vtctld.calls


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("silent", [False, True])
def test_what_breaks_off_is_called_again(stage: int, silent: bool) -> None:
    vtctld = FakeVtctld(break_at=[stage], silent=silent)
    VitessMoves(vtctld).switch_primaries(MOVE, back=False, timeout_seconds=120.0)
    assert (vtctld.switched, vtctld.stage) == (True, 0)


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("settled", [False, True])
def test_behind_its_journal_a_switch_goes_on_whatever_the_lag(stage: int, settled: bool) -> None:
    vtctld = FakeVtctld(stage=stage, lagging=True)
    moves = VitessMoves(vtctld)
    if settled:
        moves.settle(MOVE, back=False, timeout_seconds=120.0)
    else:
        moves.switch_primaries(MOVE, back=False, timeout_seconds=120.0)
    assert (vtctld.switched, vtctld.stage) == (True, 0)


def test_before_it_lag_keeps_it_from_beginning() -> None:
    vtctld = FakeVtctld(lagging=True)
    with pytest.raises(DeadlineExceededError):
        VitessMoves(vtctld).switch_primaries(MOVE, back=False, timeout_seconds=120.0)
    assert (vtctld.switched, vtctld.stage) == (False, 0)


def test_what_is_refused_before_it_begins_has_changed_nothing() -> None:
    vtctld = FakeVtctld(refusal="replication lag 40s is higher than allowed")
    moves = VitessMoves(vtctld)
    with pytest.raises(DeadlineExceededError, match="higher than allowed"):
        moves.switch_primaries(MOVE, back=False, timeout_seconds=120.0)
    assert switches(vtctld) == 1
    with pytest.raises(InvalidError):
        moves.check(MOVE, PRIMARIES, back=False)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_what_does_not_end_is_told_and_settled_later(stage: int) -> None:
    vtctld = FakeVtctld(break_at=[stage] * 200)
    moves = VitessMoves(vtctld)
    with pytest.raises(UnavailableError, match="has not ended it"):
        moves.switch_primaries(MOVE, back=False, timeout_seconds=0.01)
    vtctld.break_at.clear()
    moves.settle(MOVE, back=True, timeout_seconds=120.0)
    seen = moves.look(MOVE)
    assert seen.at(back=True)
    assert not seen.halfway


def no_pause(_seconds: float) -> None:
    pass


def test_a_side_that_vitess_leaves_denied_is_let_go_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    vtctld = FakeVtctld(stage=1, refusal="stream is in an error state")
    moves = VitessMoves(vtctld)
    moves.settle(MOVE, back=True, timeout_seconds=120.0)
    assert "SetShardTabletControl" in vtctld.calls
    assert not moves.look(MOVE).denied
    behind = FakeVtctld(stage=2, refusal="stream is in an error state")
    ticks = itertools.count()  # a second passes with each look at the clock
    clock = SimpleNamespace(monotonic=lambda: float(next(ticks)), sleep=no_pause)
    monkeypatch.setattr(moves_traffic, "time", clock)
    with pytest.raises(UnavailableError, match="error state"):
        VitessMoves(behind).settle(MOVE, back=True, timeout_seconds=3.0)
    assert "SetShardTabletControl" not in behind.calls, "behind the journal there is no way but forward"


def test_where_vitess_has_forgotten_the_way_there_it_goes_back_or_ends_all_the_same() -> None:
    """It deletes the frozen streams whenever a switch back breaks off."""
    vtctld = FakeVtctld(switched=True, rounds=1, forgotten=True)
    moves = VitessMoves(vtctld)
    seen = moves.look(MOVE)
    assert not seen.exists
    assert seen.at(back=False)
    assert not seen.halfway
    moves.switch_primaries(MOVE, back=True, timeout_seconds=120.0)
    assert moves.look(MOVE).at(back=True)
    other = FakeVtctld(switched=True, rounds=1, forgotten=True)
    VitessMoves(other).complete(MOVE)
    assert "stop" in other.calls
    assert len(other.deleted) == 1
    assert b"move_1_reverse".hex() in other.deleted[0]


def test_ends_are_asked_for_once() -> None:
    vtctld = FakeVtctld(switched=True, rounds=1)
    moves = VitessMoves(vtctld)
    moves.complete(MOVE)
    moves.complete(MOVE)
    moves.cancel(MOVE)
    moves.stop(MOVE, reverse=False)
    assert [call for call in vtctld.calls if call in {"complete", "cancel", "stop"}] == ["complete"]
    with pytest.raises(UnavailableError):
        moves.start(MOVE, reverse=False)


def test_what_a_switch_has_ended_is_not_started_again() -> None:
    vtctld = FakeVtctld(switched=True, rounds=1)
    VitessMoves(vtctld).start(MOVE, reverse=False)
    assert "start" not in vtctld.calls
