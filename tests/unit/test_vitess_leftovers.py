"""What processes leave in Vitess when they die: blocks of ids in hand, statements met, locks by name. And
keys that tables cannot be without.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Self, cast

import pytest

from homeworld.engines.vitess import moves_look as look
from homeworld.engines.vitess.certificates import Identity
from homeworld.engines.vitess.etcd import Etcd
from homeworld.engines.vitess.moves_progress import progress_of
from homeworld.model.clusters import ClusterMove, ClusterMoves
from homeworld.model.errors import UnavailableError
from homeworld.model.movers import MoverProgress, MoverSpec, Phase
from homeworld.model.tables import Column, Index, Table
from homeworld.model.topology import Endpoint, Flavor
from homeworld.workflows.move_tables import vitess_mover, vitess_sequences
from homeworld.workflows.move_tables.vitess_mover import Known, VitessMovers
from homeworld.workflows.move_tables.vitess_start import deferring
from tests.unit.test_vitess_moves import MOVE, found, stream

ROOT = "/homeworld/branch/global"
VTGATE = Endpoint("vtgate", Flavor.MYSQL, "127.0.0.1", 1, "", "u", "p", vtgate=True)


# -- blocks of ids -----------------------------------------------------------------------------------------


class Tablet:
    """A vtgate and the tablet behind it: a sequence's row, and what is left of the block that it has in hand.

    :param next_id: of the row. ``first`` to ``last``: the block in hand.
    """

    def __init__(self, next_id: int, cache: int, first: int, last: int) -> None:
        self.next_id, self.cache, self.first, self.last = next_id, cache, first, last
        self.asked: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None: ...

    def query_one(self, sql: str) -> tuple[int, ...]:
        if sql.startswith("SELECT next_id, cache"):
            return self.next_id, self.cache
        count = int(sql.removeprefix("SELECT NEXT ").partition(" ")[0])
        self.asked.append(count)
        if self.last - self.first + 1 < count:  # not enough in hand: what is left is dropped with the block
            taken = -(-count // self.cache) * self.cache
            self.first, self.last = self.next_id, self.next_id + taken - 1
            self.next_id += taken
        given, self.first = self.first, self.first + count
        return (given,)


def reached_by(monkeypatch: pytest.MonkeyPatch, tablet: Tablet) -> None:
    def connect(_vtgate: Endpoint, **_options: object) -> Tablet:
        return tablet

    monkeypatch.setattr(vitess_sequences, "Connection", connect)


@pytest.mark.parametrize("left", [0, 1, 999, 1000, 50_000])
def test_no_id_of_the_block_in_hand_is_given_to_a_client(monkeypatch: pytest.MonkeyPatch, left: int) -> None:
    """Whatever is left of it, and although it was taken by another size of blocks."""
    tablet = Tablet(next_id=100_001, cache=1000, first=7, last=6 + left)
    reached_by(monkeypatch, tablet)
    vitess_sequences.use_up(VTGATE, [("shop", "orders_seq")])
    assert tablet.query_one("SELECT NEXT 1 VALUES FROM x")[0] >= 100_001
    assert len(tablet.asked) <= 9


def test_a_sequence_that_stays_below_what_it_was_raised_to_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    tablet = Tablet(next_id=2**60, cache=1, first=1, last=2**40)
    reached_by(monkeypatch, tablet)
    with pytest.raises(UnavailableError, match=r"shop\.orders_seq gives ids that were given before"):
        vitess_sequences.use_up(VTGATE, [("shop", "orders_seq")])


# -- statements at which streams have stopped ---------------------------------------------------------------

TRUNCATE = "truncate table orders"


class Stopped:
    """A move whose streams stand at a statement."""

    def __init__(self, position: str) -> None:
        at = stream(state="Stopped", message=look.STOPPED_AT_DDL + TRUNCATE, position=position)
        self.told = progress_of(MOVE, found(at), {}, reverse=False, verification=None)

    def progress(self, move: ClusterMove, *, reverse: bool, verify_id: str = "") -> MoverProgress:
        assert (move, reverse, verify_id) == (MOVE, False, "")
        return self.told


@pytest.mark.parametrize(
    ("now", "asked"), [("MySQL56/a:1-7", True), ("MySQL56/a:1-9", False)], ids=["the-first", "another"]
)
def test_the_same_statement_further_on_is_another_one(now: str, asked: bool) -> None:
    """Rows that a second TRUNCATE took away would be left on the target by whoever took it for the first."""
    before = Stopped("MySQL56/a:1-7").told
    assert (before.phase, before.ddl) == (Phase.DDL, TRUNCATE)
    known = Known(MOVE, TRUNCATE, before.ddl_at, lambda _reverse: None)
    movers = VitessMovers(cast("ClusterMoves", Stopped(now)), lambda _workflow: known)
    mover = movers.running("w1", "forward")
    assert (mover is None) is asked
    if mover is not None:
        assert mover.progress().ddl == TRUNCATE


# -- locks by name -----------------------------------------------------------------------------------------


class Keys(Etcd):
    """An etcd in memory."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        super().__init__(1, Identity(Path("ca"), Path("certificate"), Path("key")))
        self.keys = keys

    def _ask(self, method: str, path: str, body: bytes, timeout_seconds: float) -> bytes:
        assert (method, timeout_seconds > 0) == ("POST", True)
        asked = {name: base64.b64decode(value).decode() for name, value in json.loads(body).items()}
        found = list(self._within(asked["key"], asked.get("range_end")))
        if path.endswith("deleterange"):
            for key in found:
                del self.keys[key]
            return b"{}"
        told = [(key.encode(), self.keys[key]) for key in found]
        kvs = [
            {"key": base64.b64encode(key).decode(), "value": base64.b64encode(value).decode()}
            for key, value in told
        ]
        return json.dumps({"kvs": kvs}).encode()

    def _within(self, key: str, end: str | None) -> Iterator[str]:
        return iter([each for each in self.keys if (each == key if end is None else key <= each < end)])


def lock(action: str) -> bytes:
    return json.dumps({"Action": action, "HostName": "here"}).encode()


def test_locks_go_by_who_has_them_and_where() -> None:
    locks = f"{ROOT}/internal/named_locks"
    etcd = Keys(
        {
            f"{locks}/wide/move_1/1": lock("SwitchTraffic"),
            f"{locks}/wide/move_2/1": lock("vdiff"),
            f"{locks}/wider/move_1/1": lock("vdiff"),
            f"{locks}/wide/move_3": b"no JSON",
            f"{ROOT}/keyspaces/wide/Keyspace": lock("vdiff"),
        }
    )
    assert etcd.forget_locks(ROOT, lambda action: action == "vdiff", "wide") == ["move_2/1"]
    assert etcd.forget_locks(ROOT, lambda action: action != "vdiff") == ["wide/move_1/1"]
    left = [f"{locks}/wide/move_3", f"{locks}/wider/move_1/1", f"{ROOT}/keyspaces/wide/Keyspace"]
    assert sorted(etcd.keys) == sorted(left)


# -- keys that cannot be deferred ---------------------------------------------------------------------------


def table(counting: str, *indexes: Index) -> Table:
    columns = tuple(
        Column(name, "bigint", "bigint", False, False, "", "", False, name == counting, False)
        for name in ("id", "n")
    )
    return Table("orders", columns, indexes, indexes[0], "InnoDB", "", 0, 0)


BY_ID, BY_BOTH = Index("PRIMARY", True, ("id",), False), Index("PRIMARY", True, ("id", "n"), False)
BY_N = Index("n", True, ("n",), False)


@pytest.mark.parametrize(
    ("found", "deferred"),
    [
        (table("id", BY_ID, BY_N), True),
        (table("id", BY_BOTH), True),
        (table("", BY_N), True),
        (table("n", BY_ID, BY_N), False),
        (table("n", BY_BOTH, BY_N), False),
        (table("n", BY_N), False),
    ],
)
def test_a_key_by_which_a_column_counts_is_not_deferred(found: Table, deferred: bool) -> None:
    """The server refuses AUTO_INCREMENT without it."""
    at_once, later = (replace(MOVE, defer_secondary_keys=defer) for defer in (False, True))
    assert deferring(later, [table("id", BY_ID), found]) == (later if deferred else at_once)
    assert deferring(at_once, [found]) == at_once


# -- while clients wait ------------------------------------------------------------------------------------


def test_while_clients_wait_nobody_asks_vitess_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = [1000.0], list[bool]()
    monkeypatch.setattr(vitess_mover.time, "monotonic", lambda: now[0])
    told = progress_of(MOVE, found(stream()), {}, reverse=False, verification=None)

    class Moves:
        def start(self, move: ClusterMove, *, reverse: bool) -> None: ...

        def progress(self, move: ClusterMove, *, reverse: bool, verify_id: str = "") -> MoverProgress:  # noqa: ARG002
            asked.append(reverse)
            if reverse:
                raise UnavailableError("there are none")
            return told

    def known(_workflow_id: str) -> Known:
        return Known(MOVE, "", "", lambda _reverse: {})

    movers = VitessMovers(cast("ClusterMoves", Moves()), known)
    mover = movers.start(cast("MoverSpec", SimpleNamespace(workflow_id="w", direction="forward", epoch=1)))
    mover.progress()
    assert asked == [False]
    movers.keep_quiet("w", 20.0)
    now[0] += 19.5
    assert mover.progress().phase is Phase.FOLLOWING
    assert movers.running("w", "reverse") is None
    assert asked == [False]
    now[0] += 1.0  # it ends by itself
    mover.progress()
    movers.running("w", "reverse")
    assert asked == [False, False, True]
    movers.keep_quiet("w", 20.0)
    movers.keep_quiet("w", 0.0)
    mover.progress()
    movers.running("w", "reverse")
    assert asked == [False, False, True, False, True]
