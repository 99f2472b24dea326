"""A vtctld that died while it ended a switch, one shard after the other."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from homeworld.engines.vitess import moves_look as look
from homeworld.engines.vitess import moves_traffic
from homeworld.engines.vitess.moves import VitessMoves
from homeworld.model.errors import UnavailableError
from tests.unit.test_vitess_moves import MOVE, FakeVtctld, rules_answer, stream, workflows


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves_traffic, "AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(moves_traffic, "SILENT_SECONDS", 0.0)


@dataclass
class HalfFrozen:
    """A vtctld that died while it ended a switch to two shards, and calls that ended when asked again."""

    messages: dict[int, str]
    asked: int = 0

    def run_with_file(
        self, branch_id: str, flag: str, content: object, *args: str, timeout_seconds: float
    ) -> None:
        raise AssertionError((branch_id, flag, content, args, timeout_seconds))

    def run(self, branch_id: str, *args: str, timeout_seconds: float) -> object:
        assert (branch_id, timeout_seconds > 0) == ("branch", True)
        command = next((one for one in args if one == "SwitchTraffic"), args[0])
        match command:
            case "GetWorkflows" if args[-1] == "wide":
                told = [
                    stream(number, "-80" if number == 1 else "80-", state="Stopped", message=message)
                    for number, message in self.messages.items()
                ]
                return workflows(*told, name="move_1")
            case "GetWorkflows":
                return workflows(stream(9, "0", state="Running", message=""), name="move_1_reverse")
            case "GetRoutingRules":
                return rules_answer({f"shop.{table}": f"wide.{table}" for table in MOVE.tables})
            case "FindAllShardsInKeyspace":
                return {"shards": {"0": {"shard": {"primary_alias": {"cell": "home", "uid": 1}}}}}
            case "ExecuteFetchAsDBA" if args[-1].startswith("update _vt.vreplication set message = 'FROZEN'"):
                number = int(args[-1].partition("id = ")[2].split()[0])
                assert self.messages[number] == look.FOR_CUTOVER
                self.messages[number] = look.FROZEN
            case "ExecuteFetchAsDBA":
                return {"rows": [[1]] if str(look.journal_id("wide", ())) in args[-1] else []}
            case "SwitchTraffic":
                self.asked += 1
            case _:
                raise AssertionError(args)
        return None


def test_a_death_between_the_shards_at_its_end_is_mended() -> None:
    vtctld = HalfFrozen({1: look.FROZEN, 2: look.FOR_CUTOVER})
    VitessMoves(vtctld).switch_primaries(MOVE, back=False, timeout_seconds=120.0)
    assert set(vtctld.messages.values()) == {look.FROZEN}
    # None is frozen: then Vitess's own call ends it, and nothing is written behind its back.
    vtctld = HalfFrozen({1: look.FOR_CUTOVER, 2: look.FOR_CUTOVER})
    with pytest.raises(UnavailableError):
        VitessMoves(vtctld).switch_primaries(MOVE, back=False, timeout_seconds=0.0)
    assert set(vtctld.messages.values()) == {look.FOR_CUTOVER}


@pytest.mark.parametrize(
    ("stopped_by", "again"), [(look.FOR_CUTOVER, True), (f"{look.STOPPED_AT_DDL}alter table orders", False)]
)
def test_streams_that_a_switch_has_stopped_run_again_where_it_goes_no_further(
    stopped_by: str, again: bool
) -> None:
    """But none that somebody else has stopped, and least of all in front of a schema statement."""
    vtctld = FakeVtctld(stage=1, refusal="stream is in an error state", stopped_by=stopped_by)
    moves = VitessMoves(vtctld)
    moves.settle(MOVE, back=True, timeout_seconds=120.0)
    assert not moves.look(MOVE).denied
    assert ("start" in vtctld.calls) is again
