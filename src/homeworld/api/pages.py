"""Pages of lists: the query parameters and the published envelope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import parse_qsl, urlencode

from fastapi import Depends, Query
from pydantic import BaseModel

from homeworld.api.calls import Caller
from homeworld.store.pages import DEFAULT_PER_PAGE, MAX_PER_PAGE, Page, PageRequest

T = TypeVar("T")


async def _page_request(
    page: Annotated[int, Query(ge=1, le=10**9, description="Which page, counting from 1")] = 1,
    per_page: Annotated[int, Query(ge=1, description="Results a page; at most 100")] = DEFAULT_PER_PAGE,
) -> PageRequest:
    return PageRequest(page, min(per_page, MAX_PER_PAGE))


PageDep = Annotated[PageRequest, Depends(_page_request)]


class Listing(BaseModel, Generic[T]):
    """A page without a total."""

    type: str = "list"
    current_page: int
    per_page: int
    next_page: int | None
    next_page_url: str | None
    prev_page: int | None
    prev_page_url: str | None
    data: Sequence[T]


class CountedListing(Listing[T], Generic[T]):
    """A page that says how many results there are."""

    total_count: int
    total_pages: int


def _fields(caller: Caller, page: Page[Any], data: Sequence[T]) -> dict[str, Any]:
    following = page.number + 1 if page.has_next else None
    before = page.number - 1 if page.number > 1 else None
    return {
        "current_page": page.number,
        "per_page": page.size,
        "next_page": following,
        "next_page_url": _url(caller, following),
        "prev_page": before,
        "prev_page_url": _url(caller, before),
        "data": data,
    }


def _url(caller: Caller, number: int | None) -> str | None:
    if number is None:
        return None
    kept = [(name, value) for name, value in parse_qsl(caller.query) if name != "page"]
    return f"{caller.base_url}{caller.path}?{urlencode([*kept, ('page', str(number))])}"


def listing(caller: Caller, page: Page[Any], data: Sequence[T]) -> Listing[T]:
    """The envelope around a page's data."""
    return Listing[T](**_fields(caller, page, data))


def counted_listing(caller: Caller, page: Page[Any], data: Sequence[T]) -> CountedListing[T]:
    """The envelope around a counted page's data."""
    total = page.total or 0
    return CountedListing[T](
        **_fields(caller, page, data), total_count=total, total_pages=-(-total // page.size)
    )
