"""Whatever a client sends and however servers answer: no exception, no hang of our own, no wrong phase."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from homeworld.gateway.accounts import Accounts
from homeworld.gateway.login import LoginState, ServerLogin
from homeworld.gateway.session import Phase
from homeworld.model.errors import HomeworldError
from homeworld.wire.packets import frame
from tests.support.playbook import Playbook

STATEMENTS = [
    "select * from a1", "update a1 set n = 1", "insert into b1 values (1)", "begin", "commit", "rollback",
    "savepoint s", "rollback to s", "set @x = 1", "create table a1 (id int)", "select 1; select * from b1",
    "begin; update a1 set n = 1; commit", "lock tables a1 write", "unlock tables", "use b",
    "start transaction", "load data local infile 'x' into table a1",
    "commit and chain", "rollback release", "set autocommit = 0",
]  # fmt: skip

client_events = st.one_of(
    st.sampled_from(STATEMENTS).map(lambda sql: f"client QUERY {sql}"),
    st.sampled_from(STATEMENTS).map(lambda sql: f"client PREPARE {sql}"),
    st.sampled_from(["client PING", "client RESET", "client INIT_DB b", "client INIT_DB nowhere"]),
    st.integers(1, 4).map(lambda number: f"client EXECUTE {number}"),
    st.integers(1, 4).map(lambda number: f"client CLOSE {number}"),
    st.binary(min_size=1, max_size=30).map(lambda raw: f"client BYTES {frame(raw).hex()}"),
    st.binary(min_size=1, max_size=8).map(lambda raw: f"client BYTES {raw.hex()}"),
)
server_events = st.sampled_from(
    [
        "OK",
        "OK trans",
        "OK noauto",
        "OK rows=3 id=5",
        "ERR 1213",
        "ERR 1146",
        "ROWS 1,2",
        "ROWS 1 trans",
        "lost",
        "PART",
    ]
)
other_events = st.sampled_from(["hold", "release", "client gone", "move"])
events = st.lists(
    st.one_of(client_events, server_events, server_events, other_events), min_size=1, max_size=40
)


class Storm:
    """Plays random events, each only where it can happen."""

    def __init__(self) -> None:
        self.book = Playbook()
        self.held = False
        self.torn: set[str] = set()

    def event(self, text: str) -> None:
        book = self.book
        for effect in [*book.effects]:
            if type(effect).__name__ == "Connect":
                self.torn.discard(effect.endpoint.server_id)  # type: ignore[union-attr]
                book.event(f"connected {effect.endpoint.server_id}")  # type: ignore[union-attr]
        if text == "hold":
            if not self.held:
                self.held = True
                book.event("hold h a.a1 b.b1")
        elif text == "release":
            if self.held:
                self.held = False
                book.event("release h")
        elif text == "move":
            book.event("move a1 b")
        elif text.startswith("client"):
            if book.session.phase is not Phase.CLOSED:
                book.event(text)
        else:
            self._answer(text)
        book.drain()

    def _answer(self, text: str) -> None:
        for server, link in [*self.book.links.items()]:
            # Behind half an answer only the end of the connection can come.
            waiting = link.busy and not link.walker.local_infile and server not in self.torn
            if text == "PART" and waiting:
                self.torn.add(server)
            if text == "lost" and link.alive and link.owner is self.book.session:
                self.book.event(f"{server} lost")
                return
            if waiting and link.alive and text != "lost":
                if self.book.channels[server].asked[:1] == [0x16]:
                    self.torn.discard(server)
                    self.book.event(f"{server} PREPARED 0 1")
                else:
                    self.book.event(f"{server} {text}")
                return


@given(events)
@settings(max_examples=250, deadline=None)
def test_a_storm_of_events(storm: list[str]) -> None:
    world = Storm()
    for text in storm:
        world.event(text)
    # However it went: once servers answer and holds end, the session is idle or gone.
    world.event("release")
    for _ in range(60):
        world.event("OK")
    session = world.book.session
    if session.phase is not Phase.CLOSED:
        waiting = (
            session.phase is Phase.FILE
            or bool(world.book.effects)
            or any(link.busy for link in world.book.links.values() if link.alive)
        )
        assert session.phase is Phase.IDLE or waiting, session.phase
    session.client_gone()
    assert session.phase is Phase.CLOSED


@given(st.lists(st.binary(max_size=200), max_size=8), st.booleans())
def test_logins_of_garbage(payloads: list[bytes], tls: bool) -> None:
    login = ServerLogin(version="8.0", number=1, tls=tls, tls_required=False)
    assert login.greeting()
    accounts = Accounts()
    for payload in payloads:
        try:
            login.feed(payload)
        except HomeworldError:
            return
        if login.state is LoginState.DONE:
            assert login.proof is not None
            return
    assert accounts.delay("127.0.0.1") == 0
