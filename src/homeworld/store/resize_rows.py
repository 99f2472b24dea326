"""What resizes of keyspaces and of gateways have in common as rows.

Invariant: a state changes only by a row of RESIZES, which the journal compares and writes. Knows neither what
is resized nor what a resize asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import Column, ColumnElement, Table, select

from homeworld.model.machine import Transition
from homeworld.model.states.resizing import UNFINISHED, Resize, ResizeTrigger
from homeworld.store.journal import Journal
from homeworld.store.pages import Page, PageRequest, fetch_page
from homeworld.store.work import Work


class Stored(Protocol):
    """A resize as far as this goes."""

    @property
    def id(self) -> str: ...  # noqa: D102 - as on the resizes themselves
    @property
    def error(self) -> str: ...  # noqa: D102


R = TypeVar("R", bound=Stored)


class ResizeRows(Generic[R]):
    """The resizes of one kind within one transaction.

    :param kind: of the resources, in journal and outbox.
    :param owner: the table's column that says what is resized.
    :param load: a resize, from its row.
    """

    def __init__(self, work: Work, kind: str, table: Table, owner: Column[Any], load: type[R]) -> None:
        self._work = work
        self._journal = Journal(work)
        self._kind = kind
        self._table = table
        self._owner = owner
        self._load = load

    def get(self, resize_id: str) -> R:
        """The resize in whatever state.

        :raises NotFoundError: no such id.
        """
        return self._work.only(select(self._table).where(self._table.c.id == resize_id), self._load)

    def of(self, owner_id: str, resize_id: str) -> R:
        """The resize of that id, of what has the other id.

        :raises NotFoundError: it has none of that id.
        """
        query = select(self._table).where(self._table.c.id == resize_id, self._owner == owner_id)
        return self._work.only(query, self._load)

    def unfinished(self, owner_ids: Iterable[str]) -> Mapping[str, tuple[R, ...]]:
        """Those that wait or are under way, by what is resized, oldest first; in one query."""
        query = (
            select(self._table)
            .where(self._owner.in_(list(owner_ids)), self._table.c.state.in_(UNFINISHED))
            .order_by(self._table.c.created_at, self._table.c.id)
        )
        found: dict[str, tuple[R, ...]] = {}
        for one in self._work.all(query, self._load):
            owner_id = str(getattr(one, self._owner.name))
            found[owner_id] = (*found.get(owner_id, ()), one)
        return found

    def tell(self, resize_id: str, error: str) -> None:
        """Say why it does not go on; empty: it does."""
        if self.get(resize_id).error != error:
            self._change(resize_id, {"error": error})

    def _page(self, owner_id: str, request: PageRequest, *wanted: ColumnElement[bool]) -> Page[R]:
        """Newest first."""
        query = (
            select(self._table)
            .where(self._owner == owner_id, *wanted)
            .order_by(self._table.c.created_at.desc(), self._table.c.id.desc())
        )
        return fetch_page(self._work.connection, query, request, self._load)

    def _make(self, made: R, state: Resize, actor_id: str | None, **payload: object) -> R:
        self._work.add(self._table, {column.name: getattr(made, column.name) for column in self._table.c})
        self._journal.born(self._kind, made.id, state, actor_id=actor_id, payload=payload)
        return made

    def _change(self, resize_id: str, values: Mapping[str, object]) -> R:
        self._work.change(self._table, self._table.c.id, resize_id, {**values, "updated_at": self._work.now})
        return self.get(resize_id)

    def _move(
        self,
        resize_id: str,
        expected: Resize,
        row: Transition[Resize, ResizeTrigger],
        actor_id: str | None,
        fields: Mapping[str, object],
    ) -> R:
        """Take a row of RESIZES.

        :raises ConflictError: it is not in ``expected`` any more, or another of the branch is under way.
        """
        self._journal.move(
            self._kind,
            self._table,
            resize_id,
            expected,
            row,
            actor_id=actor_id,
            why="",
            fields=dict(fields),
            payload={},
        )
        return self.get(resize_id)
