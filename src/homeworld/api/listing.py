"""Routes as the parts of the API declare them, put together once, where the app is made.

FastAPI's own routers do that twice for each route, where it is declared and where its router is included: a
second of CPU at every start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.params import Depends

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class Routes:
    """The routes of one part. What decorators take is what FastAPI's take."""

    def __init__(self, *, tags: Sequence[str] = ()) -> None:
        """:param tags: of all of them, for the document."""
        self._tags = list(tags)
        self._listed: list[tuple[str, str, Callable[..., Any], dict[str, Any]]] = []

    def get(self, path: str, **options: Any) -> Callable[[Endpoint], Endpoint]:
        """Declare a GET."""
        return self.declare("GET", path, **options)

    def post(self, path: str, **options: Any) -> Callable[[Endpoint], Endpoint]:
        """Declare a POST."""
        return self.declare("POST", path, **options)

    def put(self, path: str, **options: Any) -> Callable[[Endpoint], Endpoint]:
        """Declare a PUT."""
        return self.declare("PUT", path, **options)

    def patch(self, path: str, **options: Any) -> Callable[[Endpoint], Endpoint]:
        """Declare a PATCH."""
        return self.declare("PATCH", path, **options)

    def delete(self, path: str, **options: Any) -> Callable[[Endpoint], Endpoint]:
        """Declare a DELETE."""
        return self.declare("DELETE", path, **options)

    def declare(self, method: str, path: str, **options: Any) -> Callable[[Endpoint], Endpoint]:
        """Declare a route of the method."""

        def declared(endpoint: Endpoint) -> Endpoint:
            self._listed.append((method, path, endpoint, options))
            return endpoint

        return declared

    def add_to(
        self,
        app: FastAPI,
        prefix: str,
        dependencies: Sequence[Depends],
        responses: Mapping[int | str, dict[str, Any]],
    ) -> None:
        """Make them routes of the app.

        :param dependencies: of each, before its own.
        :param responses: of each, but for those that it describes itself.
        """
        for method, path, endpoint, options in self._listed:
            own = dict(options)
            tags = [*self._tags, *own.pop("tags", ())]
            app.add_api_route(
                prefix + path,
                endpoint,
                methods=[method],
                tags=tags or None,
                dependencies=[*dependencies, *own.pop("dependencies", ())],
                responses={**responses, **own.pop("responses", {})},
                **own,
            )
