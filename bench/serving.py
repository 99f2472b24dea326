"""The API over one store, as its own process: ``python -m bench.serving STORE_URL READY_FILE``.

It serves on a free loopback port, which it writes into the ready file, as ``homeworld api`` would, without
executor, gateway and servers, so that only reading is measured.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from homeworld.api.app import create_app
from homeworld.api.calls import Settings
from homeworld.model.ports import MoveWish
from homeworld.store.store import Store


class NothingMoves:
    """Preconditions of an API that is only read."""

    def reasons(self, wish: MoveWish) -> tuple[str, ...]:
        """Refuse."""
        return (f"nothing is moved here, not {wish.tables}",)

    def lasting(self, wish: MoveWish) -> tuple[str, ...]:
        """Refuse."""
        return self.reasons(wish)


def main(given: Sequence[str]) -> None:
    """Serve until killed."""
    url, ready_file = given
    store = Store.open(url)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        draft = Path(f"{ready_file}.new")
        draft.write_text(str(listener.getsockname()[1]))
        draft.rename(ready_file)
        config = uvicorn.Config(
            create_app(store, Settings(NothingMoves())), log_level="warning", access_log=False
        )
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(sys.argv[1:])
