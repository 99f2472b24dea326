"""The Preconditions port over real store and servers."""

from __future__ import annotations

from homeworld.model.ports import Engine, MoveWish
from homeworld.store.store import Store
from homeworld.workflows.move_tables.preconditions import judge
from homeworld.workflows.move_tables.preconditions.reader import read_world


class Checker:
    """Implements ``model.ports.Preconditions``."""

    def __init__(self, store: Store, engine: Engine) -> None:
        self._store = store
        self._engine = engine

    def reasons(self, wish: MoveWish) -> tuple[str, ...]:
        """Every reason against the move, all rules asked.

        :raises UnavailableError: a server does not answer.
        """
        return judge(read_world(self._store, self._engine, wish))

    def lasting(self, wish: MoveWish) -> tuple[str, ...]:
        """Every reason against moving traffic now.

        :raises UnavailableError: a server does not answer.
        """
        return judge(read_world(self._store, self._engine, wish), lasting=True)
