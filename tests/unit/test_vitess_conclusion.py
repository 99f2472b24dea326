"""A switch that rules have made and Vitess makes behind them: what it is asked for, where streams begin."""
# ruff: noqa: ARG002 - fakes keep the signatures of their Protocols, also where they need less

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from homeworld.engines.locks import NamedLocks
from homeworld.engines.vitess import moves_conclusion
from homeworld.engines.vitess import moves_look as look
from homeworld.engines.vitess.moves import VitessMoves
from homeworld.engines.vitess.rule_setting import PreparedRules
from homeworld.engines.vitess.vtctldclient import Vtctldclient
from homeworld.model.clusters import ClusterStream
from homeworld.model.errors import (
    DeadlineExceededError,
    FencedError,
    HomeworldError,
    InvalidError,
    UnavailableError,
)
from homeworld.model.routing_rules import render
from tests.unit.test_vitess_moves import MOVE, rules_answer, stream, workflows

SERVER = "4e5c3a8e-0000-4000-8000-00000000000"
STARTS = {"-80": f"{SERVER}1:1-70", "80-": f"{SERVER}2:1-9"}
LATER = "MySQL56/4e5c3a8e-0000-4000-8000-000000000001:1-300"


@dataclass
class Vtctld:
    """One whose rules lead to the target, with streams there that run, and a switch that Vitess has not made.

    :param breaks: how each call of it ends: "refused", "cancelled" (Vitess has taken back what it did, and so
        denies the side that serves) or "silent" (that nobody hears of); then it is made.
    """

    to: str = "wide"
    breaks: list[str] = field(default_factory=list[str])
    denied: set[str] = field(default_factory=set[str])
    made: bool = False
    running: bool = False
    calls: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])
    places: dict[int, str] = field(default_factory=dict[int, str])
    deaf: bool = False
    updates: list[int] = field(default_factory=list[int])
    met: list[set[str]] = field(default_factory=list[set[str]])

    def run_with_file(
        self, branch_id: str, flag: str, content: object, *args: str, timeout_seconds: float
    ) -> None:
        raise AssertionError("no rules are set here")

    def run(self, branch_id: str, *args: str, timeout_seconds: float) -> object:
        assert timeout_seconds > 0
        match args[0]:
            case "GetWorkflows":
                return self.listed(args[-1])
            case "GetRoutingRules":
                return rules_answer({f"shop.{table}": f"{self.to}.{table}" for table in MOVE.tables})
            case "FindAllShardsInKeyspace":
                return {"shards": {name: self._shard(args[-1]) for name in SHARDS[args[-1]]}}
            case "ExecuteFetchAsDBA" if args[-1].startswith("select"):
                return {"rows": [[1]] if self.made else []}
            case "ExecuteFetchAsDBA":
                number = int(args[-1].partition(" id = ")[2].partition(" ")[0])
                assert " and state = 'Stopped' and pos = '" in args[-1], "only what has not run"
                self.updates.append(number)
                assert args[-1].endswith(f"'{self.places.get(number, LATER)}'")
                if not self.deaf:
                    self.places[number] = args[-1].partition("'")[2].partition("'")[0]
            case "SetShardTabletControl":
                self.calls.append(args)
                keyspace = args[-2].partition("/")[0]
                (self.denied.discard if "--remove" in args else self.denied.add)(keyspace)
            case "MoveTables":
                self.calls.append(args)
                self._switch()
            case _:
                self.calls.append(args)
        return None

    def _shard(self, keyspace: str) -> dict[str, Any]:
        denied = list(MOVE.tables) if keyspace in self.denied else []
        control = [{"tablet_type": "PRIMARY", "denied_tables": denied}] if denied else []
        shard = {"primary_alias": {"cell": "home", "uid": 1}, "tablet_controls": control}
        return {"keyspace": keyspace, "shard": shard}

    def listed(self, keyspace: str) -> object:
        if keyspace == "wide":
            ended = {"state": "Stopped", "message": look.FROZEN} if self.made else {}
            return workflows(stream(1, "-80", **ended), stream(2, "80-", **ended))
        if not self.made:
            return {}
        back = [
            stream(
                number, "0", state="Running" if self.running else "Stopped",
                position=self.places.get(number, LATER).removeprefix("MySQL56/"),  # as Vitess prints it
                binlog_source={"keyspace": "wide", "shard": shard},
            )
            for number, shard in ((7, "-80"), (8, "80-"))
        ]  # fmt: skip
        found = workflows(name="move_1_reverse")
        found["workflows"][1]["shard_streams"] = {"0/home-0000000207": {"streams": back}}
        return found

    def _switch(self) -> None:
        self.met.append(set(self.denied))
        match self.breaks.pop(0) if self.breaks else "":
            case "refused":
                raise InvalidError("locks were lost")
            case "cancelled":
                self.denied = {"wide"}
                raise InvalidError("failed to sync up replication between the source and target")
            case "silent":
                raise UnavailableError("no answer")
            case _:
                self.denied, self.made = {"shop"}, True


SHARDS = {"shop": ("0",), "wide": ("-80", "80-")}
TARGETS = ((1, "-80"), (2, "80-"))


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves_conclusion, "AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(moves_conclusion, "SILENT_SECONDS", 0.0)


def conclude(vtctld: Vtctld, seconds: float = 60.0, starts: Mapping[str, str] = STARTS) -> None:
    VitessMoves(vtctld).conclude(MOVE, back=False, starts=starts, timeout_seconds=seconds)


def test_vitess_makes_the_switch_and_streams_back_begin_where_they_have_to() -> None:
    vtctld = Vtctld()
    conclude(vtctld)
    (asked,) = vtctld.calls
    assert {"SwitchTraffic", "--tablet-types=primary", "--enable-reverse-replication=false"} <= set(asked)
    assert {"--workflow=move_1", "--timeout=8s"} <= set(asked), (
        "a lock that a dead vtctld leaves lasts three times that"
    )
    assert "--max-replication-lag-allowed=87600h" in asked, "the origin is quiet, whatever Vitess says of lag"
    assert vtctld.places == {7: f"MySQL56/{SERVER}1:1-70", 8: f"MySQL56/{SERVER}2:1-9"}


def test_what_is_done_is_not_done_again_and_what_runs_is_never_placed() -> None:
    vtctld = Vtctld(made=True)
    conclude(vtctld)
    assert (vtctld.calls, len(vtctld.places)) == ([], 2)
    conclude(vtctld)  # they are there: nothing is written
    assert len(vtctld.updates) == 2
    vtctld = Vtctld(made=True, running=True)
    with pytest.raises(UnavailableError, match="somebody has started"):
        conclude(vtctld)
    assert (vtctld.calls, vtctld.places) == ([], {})
    conclude(vtctld, starts={})  # of a switch that rules have not made


def test_a_stream_that_is_not_where_it_was_put_is_told() -> None:
    """The statement may have gone to a tablet that was a primary."""
    vtctld = Vtctld(made=True, deaf=True)
    with pytest.raises(UnavailableError, match="not where it has to begin"):
        conclude(vtctld)


def test_whoever_may_not_go_on_does_nothing_more() -> None:
    def lost() -> None:
        raise FencedError("somebody else has it")

    for vtctld in (Vtctld(), Vtctld(made=True)):
        with pytest.raises(FencedError):
            VitessMoves(vtctld).conclude(MOVE, back=False, starts=STARTS, timeout_seconds=60.0, check=lost)
        assert (vtctld.calls, vtctld.places) == ([], {})


@pytest.mark.parametrize("how", ["refused", "cancelled", "silent"])
def test_what_breaks_off_is_asked_for_again_and_the_side_that_serves_takes_writes(how: str) -> None:
    """Vitess takes back what it did, and with that lets the side take writes that has them no more."""
    vtctld = Vtctld(breaks=[how])
    conclude(vtctld)
    assert vtctld.made
    assert len(vtctld.places) == 2
    assert vtctld.met == [set(), {"shop"} if how == "cancelled" else set()]


def test_the_way_back_is_concluded_by_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the streams back come to their end, and those to the target are made anew and placed."""
    vtctld = Vtctld(to="shop", breaks=["refused"])
    ended = {"state": "Stopped", "message": look.FROZEN}

    def listed(keyspace: str) -> object:
        if keyspace == "shop":
            back = stream(7, "0", **(ended if vtctld.made else {}))
            return workflows(back, name="move_1_reverse")
        state = "Stopped" if vtctld.made else "Running"
        there = [stream(n, s, state=state, position=vtctld.places.get(n, LATER)[8:]) for n, s in TARGETS]
        return workflows(*there)

    monkeypatch.setattr(vtctld, "listed", listed)
    VitessMoves(vtctld).conclude(MOVE, back=True, starts={"0": STARTS["-80"]}, timeout_seconds=60.0)
    for asked in vtctld.calls:
        assert {"--workflow=move_1_reverse", "--target-keyspace=shop", "SwitchTraffic"} <= set(asked)
    assert len(vtctld.calls) == 2
    assert vtctld.places == dict.fromkeys((1, 2), f"MySQL56/{SERVER}1:1-70")


def test_where_rules_lead_elsewhere_vitess_is_not_asked() -> None:
    vtctld = Vtctld(to="shop")
    with pytest.raises(UnavailableError, match="lead the tables elsewhere"):
        conclude(vtctld)
    assert vtctld.calls == []


def test_it_does_not_wait_for_ever() -> None:
    vtctld = Vtctld(breaks=["refused"] * 1000)
    with pytest.raises(UnavailableError, match="locks were lost"):
        conclude(vtctld, seconds=0.0)
    assert vtctld.places == {}


def test_a_stream_of_which_nobody_knows_where_it_begins_is_not_placed() -> None:
    vtctld = Vtctld()
    with pytest.raises(UnavailableError, match="80-"):
        conclude(vtctld, starts={"-80": STARTS["-80"]})


def test_what_is_no_gtid_set_never_gets_into_a_statement() -> None:
    with pytest.raises(InvalidError):
        look.position_text("' or 1 = 1")


def test_both_sides_are_let_take_writes_where_they_do_not() -> None:
    vtctld = Vtctld(denied={"wide"})
    moves = VitessMoves(vtctld)
    moves.admit(MOVE)
    assert vtctld.denied == set()
    done = [(call[0], next(part for part in call[1:] if part.startswith("wide/"))) for call in vtctld.calls]
    assert done == [
        (what, f"wide/{shard}")
        for shard in ("-80", "80-")
        for what in ("SetShardTabletControl", "RefreshStateByShard")
    ]
    vtctld.calls.clear()
    moves.admit(MOVE)
    assert vtctld.calls == []


def test_streams_are_told_with_the_shards_that_they_read_and_write() -> None:
    moves = VitessMoves(Vtctld(made=True))
    assert moves.streams(MOVE, reverse=True) == (ClusterStream(7, "0", "-80"), ClusterStream(8, "0", "80-"))
    assert VitessMoves(Vtctld()).streams(MOVE, reverse=True) == ()


# -- rules that clients wait for ----------------------------------------------------------------------------

CLIENT = """#!/bin/sh
case "$*" in
    *GetRoutingRules*) cat {folder}/rules ;;
    *--rules-file=/dev/stdin*)
        echo waiting >>{folder}/log
        cat >{folder}/given.$$
        [ -s {folder}/given.$$ ] || {{ echo 'Error: unexpected token' >&2; exit 1; }}
        mv {folder}/given.$$ {folder}/rules ;;
    *ApplyRoutingRules*)
        echo anew >>{folder}/log
        for last in "$@"; do :; done
        cp "${{last#*=}}" {folder}/rules ;;
esac
"""
BEFORE, AFTER = {"t": "shop.t"}, {"t": "wide.t", "shop.t": "wide.t"}


@dataclass
class Ground:
    """A client that is a script, and rules in a file."""

    folder: Path
    client: Vtctldclient
    served: list[Mapping[str, str]]
    claim: Callable[[], Callable[[], None]]

    def ready(self) -> PreparedRules:
        return PreparedRules(self.client, lambda rules, _seconds: self.served.append(rules), self.claim())

    def log(self) -> list[str]:
        found = self.folder / "log"
        return found.read_text().split() if found.exists() else []


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    program = tmp_path / "vtctldclient"
    program.write_text(CLIENT.format(folder=tmp_path))
    program.chmod(stat.S_IRWXU)
    (tmp_path / "rules").write_text(str(render(BEFORE)).replace("'", '"'))
    locks = NamedLocks(tmp_path / "locks")
    client = Vtctldclient(lambda _seconds: (str(program),), tmp_path)
    return Ground(tmp_path, client, [], lambda: locks.claim("rules", 0.0))


def test_rules_are_set_by_a_command_that_waited_for_them(ground: Ground) -> None:
    setter = ground.ready()
    assert setter.rules == BEFORE
    setter.set(AFTER, 5.0)
    assert (ground.served, setter.rules) == ([AFTER], AFTER)
    setter.close()
    again = ground.ready()
    assert again.rules == AFTER
    again.close()
    assert "anew" not in ground.log()


def test_nobody_else_sets_rules_meanwhile(ground: Ground) -> None:
    setter = ground.ready()
    with pytest.raises(UnavailableError):
        ground.ready()
    setter.close()
    setter.close()
    ground.ready().close()


@pytest.mark.parametrize("how", ["closed", "its process ends"])
def test_a_command_that_is_given_nothing_sets_nothing(ground: Ground, how: str) -> None:
    setter = ground.ready()
    waiting = setter.waiting
    assert waiting is not None
    if how == "closed":
        setter.close()
    else:
        process = waiting.process
        assert process.stdin is not None
        process.stdin.close()  # as where whoever was to write to it has died
        assert process.wait(10) == 1
        setter.close()
    again = ground.ready()
    assert again.rules == BEFORE
    again.close()


def test_where_the_command_has_ended_another_one_is_begun(ground: Ground) -> None:
    setter = ground.ready()
    waiting = setter.waiting
    assert waiting is not None
    waiting.process.kill()
    waiting.process.wait(10)
    setter.set(AFTER, 5.0)
    assert setter.rules == AFTER
    assert ground.log()[-1] == "anew"
    setter.close()


def test_a_command_that_does_not_end_is_told_of_and_ended(ground: Ground) -> None:
    program = ground.folder / "vtctldclient"
    script = program.read_text()
    program.write_text(script.replace("cat >", "exec sleep 600 #"))
    setter = ground.ready()
    assert setter.waiting is not None
    process = setter.waiting.process
    with pytest.raises(DeadlineExceededError):
        setter.set(AFTER, 0.5)
    assert process.poll() is not None
    assert ground.served == []
    program.write_text(script)
    setter.set(AFTER, 5.0)  # as whoever tries the step again
    assert (ground.served, ground.log()[-1]) == ([AFTER], "anew")
    setter.close()


def test_what_the_command_complains_of_is_told(ground: Ground) -> None:
    program = ground.folder / "vtctldclient"
    refusing = "cat >/dev/null; echo 'Error: rpc error: code = Unavailable desc = no leader' >&2; exit 1 #"
    program.write_text(program.read_text().replace("cat >", refusing))
    setter = ground.ready()
    with pytest.raises(UnavailableError, match="no leader"):
        setter.set(AFTER, 5.0)
    setter.close()
    ground.ready().close()


def test_a_failure_while_getting_ready_lets_others_set_rules(ground: Ground) -> None:
    (ground.folder / "rules").unlink()
    with pytest.raises(HomeworldError):
        ground.ready()
    (ground.folder / "rules").write_text("{}")
    ground.ready().close()
