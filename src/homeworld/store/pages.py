"""Pages of a list.

Invariant: a page costs what its rows cost: one row more is read to know whether a next page follows, and the
total is counted only where the published list has it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Select, func, select

T = TypeVar("T")

DEFAULT_PER_PAGE = 25
MAX_PER_PAGE = 100


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page: ``number`` from 1, ``size`` from 1 to MAX_PER_PAGE."""

    number: int = 1
    size: int = DEFAULT_PER_PAGE


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list. ``total`` is None where it was not asked for."""

    items: tuple[T, ...]
    number: int
    size: int
    has_next: bool
    total: int | None = None


def fetch_page(
    connection: Connection, query: Select[Any], request: PageRequest, load: Callable[..., T]
) -> Page[T]:
    """The page of an ordered query; ``load`` is called with each row's columns by name."""
    limited = query.limit(request.size + 1).offset((request.number - 1) * request.size)
    rows = connection.execute(limited).mappings().all()
    items = tuple(load(**row) for row in rows[: request.size])
    return Page(items, request.number, request.size, len(rows) > request.size)


def fetch_counted_page(
    connection: Connection, query: Select[Any], request: PageRequest, load: Callable[..., T]
) -> Page[T]:
    """As fetch_page, with the total."""
    page = fetch_page(connection, query, request, load)
    total = connection.execute(select(func.count()).select_from(query.order_by(None).subquery())).scalar_one()
    return Page(page.items, page.number, page.size, page.has_next, total)
