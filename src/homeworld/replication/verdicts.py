"""What was decided of rows that met others on a target, and for how long it counts.

Three memories of one follower: what holds for the batch under way, also when it is read again in parts; keys
that a shard of the same server must not give up any more; keys of which the log says nothing that counts. The
last two outlive the follower: they are kept with each target's position, from which the log is read on. It
asks no server and decides nothing.

Invariant: nothing is remembered beyond the position up to which it was found out.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from homeworld.model.errors import RowRefusedError
from homeworld.model.gtid import Position
from homeworld.model.topology import Flavor
from homeworld.replication.changes import TableName
from homeworld.replication.chunks import Outcome
from homeworld.replication.coalesce import Fresh, Outcomes
from homeworld.replication.contest import Hit, told
from homeworld.replication.keyorder import Key
from homeworld.replication.moving import MovingTable

Place = tuple[int, TableName]
"""A target's number and a table of a source shard."""


@dataclass(slots=True)
class Decision:
    """For one table on one target: keys that count as known, that are let be, and rows to be taken out.

    * ``done``: what is to be taken out has been, in what is open on the target.
    """

    known: set[Key] = field(default_factory=set[Key])
    let_be: set[Key] = field(default_factory=set[Key])
    out: set[Key] = field(default_factory=set[Key])
    done: bool = False

    def apply(self, outcome: Outcome, fresh: set[Key]) -> None:
        """Lay it over a batch's outcome, and take the known out of the fresh keys."""
        fresh -= self.known
        for key in self.let_be & outcome.keys() & fresh:
            if outcome[key] is None:
                del outcome[key]
        if not self.done:
            for key in self.out:
                outcome.setdefault(key, None)
            self.done = True


class Verdicts:
    """See the module. Used by the follower's thread.

    :param tables: those of the follower.

    * ``alone_until``: up to there the follower's batches must be of one transaction each.
    """

    def __init__(self, tables: Mapping[TableName, MovingTable]) -> None:
        self.alone_until: Position | None = None
        self._tables = tables
        self._decided: dict[Place, Decision] = {}
        # Keys that a shard of this server must not give up before a position: now, and once ours has its row.
        self._taken: dict[Place, dict[Key, Position]] = {}
        self._taking: list[tuple[Place, Key, TableName, Position]] = []
        # Keys that our shard did not have any more at some moment between two positions.
        self._over: dict[Place, dict[Key, tuple[Position, Position]]] = {}

    def of(self, at: int, name: TableName) -> Decision:
        """What is decided for a table on a target, to be added to; nothing of it is open there."""
        decision = self._decided.setdefault((at, name), Decision())
        decision.done = False
        return decision

    def mind(self, at: int, name: TableName, keys: Iterable[Key], other: TableName, until: Position) -> None:
        """Once a row of the keys is there, ``other`` must not give them up before ``until``."""
        self._taking += (((at, name), key, other, until) for key in keys)

    def pass_over(self, at: int, name: TableName, key: Key, since: Position, until: Position) -> None:
        """Our shard did not have the key at some moment between two positions, while another did."""
        self._over.setdefault((at, name), {})[key] = (since, until)
        self._alone(until)

    def ahead_of(self, position: Position) -> bool:
        """Whether keys are passed over at a position because of something behind it."""
        return any(not position.contains(until) for keys in self._over.values() for _, until in keys.values())

    def text(self, at: int) -> str:
        """What counts for a target beyond the batch that is being carried out; empty: nothing."""
        over = [
            [*name, _hex(key), str(since), str(until)]
            for (place, name), keys in self._over.items()
            if place == at
            for key, (since, until) in keys.items()
        ]
        taken = [
            [*name, _hex(key), str(until)]
            for (place, name), keys in self._taken.items()
            if place == at
            for key, until in keys.items()
        ]
        taken += [
            [*other, _hex(key), str(until)] for (place, _), key, other, until in self._taking if place == at
        ]
        return json.dumps([over, taken]) if over or taken else ""

    def recall(self, at: int, text: str, position: Position, flavor: Flavor) -> None:
        """Read :meth:`text` back, before anything is applied.

        :param position: that of the target, with which it was kept.
        """
        over, taken = json.loads(text) if text else ((), ())
        for schema, table, key, *moments in over:
            since, until = (Position.parse(flavor, moment) for moment in moments)
            if (schema, table) in self._tables and not position.contains(until):
                self.pass_over(at, (schema, table), _from_hex(key), since, until)
        for schema, table, key, moment in taken:
            until = Position.parse(flavor, moment)
            if (schema, table) in self._tables and not position.contains(until):
                self._taken.setdefault((at, (schema, table)), {})[_from_hex(key)] = until

    def admit(self, outcomes: Outcomes, fresh: Fresh, until: Position, targets: Collection[int]) -> None:
        """Lay what is decided over a batch's outcomes.

        :param until: where the batch ends, or the transaction that it is a part of.
        :param targets: those that lack it; for the others it was decided before.
        :raises RowRefusedError: a shard gives up a key only now of which another had a row before.
        """
        for (at, name), over in self._over.items():
            if at not in targets:
                continue
            new = fresh[at].get(name, set[Key]())
            for key in over.keys() & outcomes[at].get(name, {}).keys():
                if key in new and not over[key][0].contains(until):
                    del over[key]  # it is here again
                    continue
                del outcomes[at][name][key]
                new.discard(key)
        for (at, name), taken in self._taken.items():
            if at not in targets:
                continue
            for key in taken.keys() & outcomes[at].get(name, {}).keys():
                if key not in fresh[at].get(name, ()):
                    hit = Hit(self._tables[name].key.index, key, key, key)
                    raise RowRefusedError(told(self._tables[name], [(hit, ["another shard of its server"])]))
                del taken[key]
        for (at, name), decision in self._decided.items():
            if at in targets and (name in outcomes[at] or not decision.done):
                decision.apply(outcomes[at].setdefault(name, {}), fresh[at].setdefault(name, set()))
        # What follows the row in the log is minded; within a batch others' deletes come before it.
        self._mind(
            [
                one
                for one in self._taking
                if one[0][0] in targets and outcomes[one[0][0]].get(one[0][1], {}).get(one[1])
            ]
        )

    def begin_again(self) -> None:
        """What was open on the targets is rolled back, and will be read again."""
        for decision in self._decided.values():
            decision.done = False

    def be_alone(self, until: Position) -> None:
        """Nothing decided counts any more, and until there transactions come one by one."""
        self._decided.clear()
        self._taking.clear()
        self._alone(until)

    def _alone(self, until: Position) -> None:
        self.alone_until = until if self.alone_until is None else self.alone_until.union(until)

    def passed(self, position: Position) -> None:
        """A batch has been applied up to its end."""
        self._decided.clear()
        self._mind(list(self._taking))
        for taken in self._taken.values():
            for key in [key for key, until in taken.items() if position.contains(until)]:
                del taken[key]
        for over in self._over.values():
            for key in [key for key, (_, until) in over.items() if position.contains(until)]:
                del over[key]
        if self.alone_until is not None and position.contains(self.alone_until):
            self.alone_until = None

    def _mind(self, taking: Collection[tuple[Place, Key, TableName, Position]]) -> None:
        for one in taking:
            (at, _), key, other, until = one
            self._taken.setdefault((at, other), {})[key] = until
            self._taking.remove(one)


def _hex(key: Key) -> list[str]:
    return [value.hex() for value in key]


def _from_hex(key: Iterable[str]) -> Key:
    return tuple(bytes.fromhex(value) for value in key)
