"""State machines as data.

A machine is a tuple of :class:`Transition` rows. Everything that affects a transition stands in its row;
the interpreter below is a look-up. The API's refusals, the actions that clients are offered, the diagram
in the documentation and the exhaustive test all read the same rows. The interpreter knows no resource and
performs nothing: guards are *names*, evaluated by whoever holds the facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from homeworld.model.errors import TransitionRefusedError

S = TypeVar("S", bound=StrEnum)
T = TypeVar("T", bound=StrEnum)
F = TypeVar("F")


class Kind(StrEnum):
    """Who pulls a trigger: a user by the API, or the executor by what it saw."""

    ASKED = "asked"
    OBSERVED = "observed"


@dataclass(frozen=True, slots=True)
class Transition(Generic[S, T]):
    """One row. ``stamps`` are the ``*_at`` and ``*_by`` columns that taking it fills.

    ``guard`` names what must hold, several names joined by ``&``; the first that does not is the refusal.
    """

    source: S
    trigger: T
    to: S
    kind: Kind
    guard: str = ""
    stamps: tuple[str, ...] = ()

    @property
    def guard_names(self) -> tuple[str, ...]:
        """The names in ``guard``."""
        return tuple(name for name in self.guard.split("&") if name)


class Machine(Generic[S, T]):
    """A table of transitions, checked when it is built.

    :param name: what the machine is of, for messages.
    :param states: every state; those without a row are terminal and must be named in ``terminal``.
    :param guards: guard name to the sentence that is shown when it refuses.
    :raises ValueError: if two rows share (source, trigger, guard) or a state is neither left nor terminal.
    """

    def __init__(
        self,
        name: str,
        states: type[S],
        rows: Iterable[Transition[S, T]],
        terminal: frozenset[S],
        guards: Mapping[str, str],
    ) -> None:
        self.name = name
        self.states = states
        self.rows = tuple(rows)
        self.terminal = terminal
        self.guards = dict(guards)
        self._by_pair: dict[tuple[S, T], list[Transition[S, T]]] = {}
        for row in self.rows:
            known = self._by_pair.setdefault((row.source, row.trigger), [])
            if any(other.guard == row.guard for other in known):
                raise ValueError(f"{name}: two rows for {row.source}, {row.trigger}, guard {row.guard!r}")
            for guard in row.guard_names:
                if guard not in self.guards:
                    raise ValueError(f"{name}: unknown guard {guard!r}")
            known.append(row)
        left = {row.source for row in self.rows}
        for state in states:
            if (state in left) == (state in terminal):
                raise ValueError(f"{name}: state {state} must be either left by a row or terminal")

    def triggers_from(self, state: S, kind: Kind) -> tuple[T, ...]:
        """The triggers of ``kind`` that have a row in ``state``, in table order."""
        seen: dict[T, None] = {}
        for row in self.rows:
            if row.source is state and row.kind is kind:
                seen.setdefault(row.trigger)
        return tuple(seen)

    def take(self, state: S, trigger: T, holds: Callable[[str], bool]) -> Transition[S, T]:
        """The row for ``trigger`` in ``state`` whose guard holds.

        :param holds: evaluates a guard by name.
        :raises TransitionRefusedError: no row, or every guard refused; nothing has changed.
        """
        rows = self._by_pair.get((state, trigger), [])
        refused: dict[str, None] = {}
        for row in rows:
            failing = next((guard for guard in row.guard_names if not holds(guard)), None)
            if failing is None:
                return row
            refused.setdefault(self.guards[failing])
        if refused:
            raise TransitionRefusedError("; ".join(refused), state=state, trigger=trigger)
        raise TransitionRefusedError(
            f"{trigger} is not possible while the {self.name} is {state}", state=state, trigger=trigger
        )
