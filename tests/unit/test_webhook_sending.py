"""Webhooks sent to a real receiver: what arrives, what fails and how, in which order, by whom."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from homeworld.api.calls import Settings
from homeworld.api.event_subjects import EventSubjects
from homeworld.gateway.tls import context_for, make_certificates
from homeworld.model.addresses import Reach, parse_networks
from homeworld.model.errors import FencedError, UnavailableError
from homeworld.model.states.lifecycle import Life, LifeTrigger, life_row
from homeworld.model.webhooks import signature
from homeworld.roles.errands import Errands
from homeworld.store.engine import SystemClock
from homeworld.store.pages import PageRequest
from homeworld.store.store import Store, Transaction
from homeworld.store.webhooks import Webhook
from homeworld.webhooks.dispatcher import Dispatcher
from homeworld.webhooks.retries import Retries
from homeworld.webhooks.sending import Outcome, Post
from homeworld.workflows.leases import Keeper
from tests.support.api import StatedPreconditions
from tests.support.hooks import LOOPBACK, dispatcher
from tests.support.receiver import Receiver
from tests.support.stores import Shop, make_shop

QUICK = Retries(attempts=4, first_seconds=0.01, factor=1.0)


def until(what: str, holds: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def nothing() -> None:
    pass


def to(*addresses: str) -> Callable[[str, int], Sequence[str]]:
    """A resolver that has one answer."""
    return lambda _host, _port: addresses


# -- one request ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "success", "result"),
    [
        ("/ok", True, "200"),
        ("/made?a=b", True, "201"),
        ("/early", True, "200"),
        ("/error", False, "500"),
        ("/redirect", False, "redirects are not followed"),
        ("/drop", False, "closed without an answer"),
        ("/garbage", False, "no answer of an HTTP server"),
        ("/hang", False, "no answer within 0.5 s"),
        ("/trickle", False, "HTTP server"),
        ("/endless", False, "longer than"),
    ],
)
def test_every_answer_is_an_outcome(receiver: Receiver, path: str, success: bool, result: str) -> None:
    post = Post(Reach(parse_networks(LOOPBACK)), seconds=0.5 if path == "/hang" else 30.0)
    outcome = post(receiver.url(path), b"{}", {}, nothing)
    assert (outcome.success, result in outcome.result) == (success, True), outcome
    until("it came", lambda: len(receiver.received) == 1)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
    outcome = Post(Reach(parse_networks(LOOPBACK)))(url, b"{}", {}, nothing)
    assert not outcome.success
    assert "failed" in outcome.result


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "0x7f000001", "2130706433", "127.1", "[::ffff:127.0.0.1]"]
)
def test_loopback_is_not_reached_in_any_form(receiver: Receiver, host: str) -> None:
    outcome = Post(Reach())(f"http://{host}:{receiver.port}/ok", b"{}", {}, nothing)
    assert not outcome.success
    assert "not sent" in outcome.result, outcome
    assert receiver.connections == 0


def test_one_record_that_leads_inside_is_enough(receiver: Receiver) -> None:
    asked: list[str] = []

    def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["8.8.8.8", "127.0.0.1"]

    outcome = Post(Reach(), resolve=resolve)(f"https://rebind.example:{receiver.port}/ok", b"{}", {}, nothing)
    assert outcome.result == "not sent: 127.0.0.1 is loopback"
    assert (asked, receiver.connections) == (["rebind.example"], 0)


def test_the_checked_address_is_the_one_connected_to(receiver: Receiver) -> None:
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    post = Post(Reach(parse_networks(LOOPBACK)), resolve=lambda _host, _port: next(answers), seconds=60.0)
    assert post(f"http://changes.example:{receiver.port}/ok", b"{}", {}, nothing).success
    assert receiver.received[0].headers["host"] == f"changes.example:{receiver.port}"
    outcome = post(f"http://changes.example:{receiver.port}/ok", b"{}", {}, nothing)
    assert (outcome.success, receiver.connections) == (False, 1)


def test_plain_http_goes_to_allowed_networks_only() -> None:
    post = Post(Reach(parse_networks(LOOPBACK)), resolve=to("8.8.8.8"))
    outcome = post("http://plain.example/", b"{}", {}, nothing)
    assert outcome.result == "not sent: the url must begin with https://"


def test_a_further_address_is_tried_where_one_does_not_listen(receiver: Receiver) -> None:
    post = Post(Reach(parse_networks(LOOPBACK)), resolve=to("127.0.0.2", "127.0.0.1"), seconds=60.0)
    assert post(f"http://two.example:{receiver.port}/ok", b"{}", {}, nothing).success


def test_an_address_that_says_nothing_leaves_time_for_the_others(receiver: Receiver) -> None:
    with socket.socket() as silent, socket.socket() as first, socket.socket() as second:
        silent.bind(("127.0.0.2", receiver.port))
        silent.listen(0)  # whom it never accepts it keeps waiting: one here, one at the door
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.2", receiver.port))
        post = Post(Reach(parse_networks(LOOPBACK)), resolve=to("127.0.0.2", "127.0.0.1"), seconds=16.0)
        assert post(f"http://two.example:{receiver.port}/ok", b"{}", {}, nothing).success


def test_certificates_are_checked(tmp_path: Path) -> None:
    ca, certificate, key = make_certificates(tmp_path, ("hooks.example",))
    receiver = Receiver(tls=context_for(certificate, key))
    try:
        reach = Reach(parse_networks(LOOPBACK))
        trusting = ssl.create_default_context(cafile=str(ca))
        url = receiver.url("/ok", "hooks.example")
        assert Post(reach, tls=trusting, resolve=to("127.0.0.1"), seconds=60.0)(
            url, b"{}", {}, nothing
        ).success
        for post, wrong in (
            (Post(reach, resolve=to("127.0.0.1"), seconds=60.0), url),
            (
                Post(reach, tls=trusting, resolve=to("127.0.0.1"), seconds=60.0),
                receiver.url("/ok", "other.example"),
            ),
        ):
            outcome = post(wrong, b"{}", {}, nothing)
            assert not outcome.success
            assert "certificate is not valid" in outcome.result
        assert len(receiver.received) == 1
    finally:
        receiver.close()


def test_a_receiver_that_is_no_tls_fails(receiver: Receiver) -> None:
    """It waits for the rest of what it takes for a request, and says nothing."""
    post = Post(Reach(parse_networks(LOOPBACK)), seconds=0.5)
    outcome = post(f"https://127.0.0.1:{receiver.port}/ok", b"{}", {}, nothing)
    assert outcome == Outcome(False, "no answer within 0.5 s")


def test_what_may_not_be_sent_any_more_is_not(receiver: Receiver) -> None:
    def ready() -> None:
        raise FencedError

    with pytest.raises(FencedError):
        Post(Reach(parse_networks(LOOPBACK)))(receiver.url("/ok"), b"{}", {}, ready)
    assert receiver.connections == 0


# -- the errand ----------------------------------------------------------------------------------------------


@pytest.fixture
def shop(store: Store) -> Shop:
    with store.write() as tx:
        return make_shop(tx)


def hook(store: Store, shop: Shop, url: str, *events: str) -> Webhook:
    with store.write() as tx:
        return tx.webhooks.create(shop.database.id, url, events=events or ("branch.ready",), enabled=True)


def new_branch(store: Store, shop: Shop, name: str) -> None:
    """A branch that is ready at once: two events, of which one is told."""
    with store.write() as tx:
        branch = tx.branches.create(shop.database.id, name, shop.region.id)
        tx.branches.transition(branch.id, Life.PENDING, life_row(Life.PENDING, LifeTrigger.MADE))


def states(store: Store, webhook: Webhook) -> list[tuple[str, int, str]]:
    with store.read() as tx:
        found = tx.webhooks.deliveries(webhook.id, PageRequest(1, 100)).items
    return [(one.state.value, one.attempts, one.result) for one in reversed(found)]


def live(store: Store) -> Store:
    """The same store by the machine's clock."""
    return Store(store.engine, SystemClock())


def test_events_arrive_signed_in_order_and_once(store: Store, shop: Shop, receiver: Receiver) -> None:
    store = live(store)
    webhook = hook(store, shop, receiver.url("/ok"))
    deaf = hook(store, shop, receiver.url("/made"), "deploy_request.opened")
    errands = Errands(store, "tests", [dispatcher(store, retries=QUICK)])
    errands.start()
    try:
        for number in range(5):
            new_branch(store, shop, f"b{number}")
        until("five arrive", lambda: len(receiver.received) >= 5)
        until("all is stored", lambda: states(store, webhook) == [("delivered", 1, "200")] * 5)
        told = [json.loads(one.body) for one in receiver.received]
        assert [one["resource"]["name"] for one in told] == [f"b{number}" for number in range(5)]
        assert {(one["event"], one["organization"], one["database"]) for one in told} == {
            ("branch.ready", "acme", "shop")
        }
        first = told[0]["resource"]
        assert (first["type"], first["ready"], first["parent_branch"]) == ("Branch", True, None)
        assert first["url"] == "http://api.example/v1/organizations/acme/databases/shop/branches/b0"
        for one in receiver.received:
            assert one.headers["x-planetscale-signature"] == signature(webhook.secret, one.body)
        assert len({one.headers["x-homeworld-delivery"] for one in receiver.received}) == 5
        assert states(store, deaf) == []
        with store.read() as tx:
            shown = tx.webhooks.get(shop.database.id, webhook.id)
        assert (shown.last_sent_success, shown.last_sent_result, shown.failures) == (True, "200", 0)
        assert errands.failure is None
    finally:
        errands.stop(10)


def test_what_fails_comes_again_before_what_is_behind_it(
    store: Store, shop: Shop, receiver: Receiver
) -> None:
    store = live(store)
    flaky = hook(store, shop, receiver.url("/flaky"))
    hopeless = hook(store, shop, receiver.url("/error"))
    fine = hook(store, shop, receiver.url("/ok"))
    hangs = hook(store, shop, receiver.url("/hang"))
    hurried, patient = (Post(Reach(parse_networks(LOOPBACK)), seconds=s) for s in (0.5, 9.0))

    class ByUrl:
        seconds = patient.seconds

        def __call__(
            self, url: str, content: bytes, headers: dict[str, str], ready: Callable[[], None]
        ) -> Outcome:
            return (hurried if url.endswith("/hang") else patient)(url, content, headers, ready)

    subjects = EventSubjects(Settings(StatedPreconditions()), "http://api.example")
    errands = Errands(store, "tests", [Dispatcher(store, subjects, ByUrl(), retries=QUICK)])
    errands.start()
    try:
        for number in range(3):
            new_branch(store, shop, f"b{number}")
        until("those that can have all", lambda: states(store, fine) == [("delivered", 1, "200")] * 3)
        until("the flaky one has all", lambda: states(store, flaky) == [("delivered", 3, "200")] * 3)
        until("hope is given up", lambda: states(store, hopeless) == [("failed", 4, "500")] * 3)
        until("a try has hung", lambda: "no answer" in states(store, hangs)[0][2])
        names = [json.loads(one.body)["resource"]["name"] for one in receiver.at("/flaky")]
        assert names == ["b0"] * 3 + ["b1"] * 3 + ["b2"] * 3
        assert len({one.body for one in receiver.at("/flaky")}) == 3
        with store.read() as tx:
            assert tx.webhooks.get(shop.database.id, hopeless.id).failures == 12
    finally:
        errands.stop(10)


def test_enabled_late_it_hears_nothing_older(store: Store, shop: Shop, receiver: Receiver) -> None:
    store = live(store)
    early = hook(store, shop, receiver.url("/made"))
    new_branch(store, shop, "before")
    late = hook(store, shop, receiver.url("/ok"))
    new_branch(store, shop, "after")
    errands = Errands(store, "tests", [dispatcher(store)])
    errands.start()
    try:
        until("both have theirs", lambda: len(states(store, early)) == 2 and len(states(store, late)) == 1)
        until("it came", lambda: receiver.at("/ok"))
        assert json.loads(receiver.at("/ok")[0].body)["resource"]["name"] == "after"
    finally:
        errands.stop(10)


def test_two_workers_never_both_send(store: Store, shop: Shop, receiver: Receiver) -> None:
    store = live(store)
    webhook = hook(store, shop, receiver.url("/ok"))
    first, second = (Errands(store, owner, [dispatcher(store)]) for owner in ("one", "two"))
    first.start()
    second.start()
    try:
        for number in range(20):
            new_branch(store, shop, f"b{number}")
        until("all are stored", lambda: states(store, webhook) == [("delivered", 1, "200")] * 20)
        first.stop(10)
        new_branch(store, shop, "later")
        until("whoever is left goes on", lambda: len(states(store, webhook)) == 21)
        until("it is stored", lambda: states(store, webhook)[-1][0] == "delivered")
        assert len(receiver.received) == 21
    finally:
        first.stop(10)
        second.stop(10)


class AfterReads(Store):
    """A store where something happens after a read and before what was read is used."""

    then: Callable[[], None] = staticmethod(nothing)

    @contextmanager
    def read(self) -> Generator[Transaction]:
        with super().read() as tx:
            yield tx
        self.then()


def test_what_ends_while_the_next_is_looked_for_is_not_sent_again(store: Store, shop: Shop) -> None:
    store = AfterReads(store.engine, SystemClock())
    webhook = hook(store, shop, "http://127.0.0.1/x")
    new_branch(store, shop, "b")
    sent: list[str] = []
    go = threading.Event()

    class Sends:
        seconds = 1.0

        def __call__(
            self, url: str, content: bytes, headers: dict[str, str], ready: Callable[[], None]
        ) -> Outcome:
            ready()
            sent.append(f"{url} {content!r} {headers}")
            go.wait(30)
            return Outcome(True, "200")

    errand = Dispatcher(store, EventSubjects(Settings(StatedPreconditions()), ""), Sends())
    ended = threading.Event()
    errand.wake = ended.set
    lease = Keeper(store, "me", ttl_seconds=600.0).take("webhooks")
    assert lease is not None
    errand.turn(lease)
    until("it is being sent", lambda: sent)

    reads: list[bool] = []

    def end() -> None:
        reads.append(True)
        if len(reads) == 2:  # the first one looks for events, the second for what is due
            go.set()
            assert ended.wait(30)

    store.then = end
    errand.turn(lease)
    store.then = nothing
    errand.turn(lease)
    errand.stop(5)
    assert (len(sent), states(store, webhook)) == (1, [("delivered", 1, "200")])


def test_who_is_to_end_waits_for_no_store(store: Store, shop: Shop) -> None:
    store = AfterReads(store.engine, SystemClock())
    hook(store, shop, "http://127.0.0.1/x")
    new_branch(store, shop, "b")
    sent, away = threading.Event(), threading.Event()

    class Away(AfterReads):
        @contextmanager
        def write(self) -> Generator[Transaction]:
            if sent.is_set():
                away.set()
                raise UnavailableError("the store does not answer")
            with super().write() as tx:
                yield tx

    class Sends:
        seconds = 1.0

        def __call__(
            self, url: str, content: bytes, headers: dict[str, str], ready: Callable[[], None]
        ) -> Outcome:
            ready()
            sent.set()
            return Outcome(True, f"{url} {len(content)} {len(headers)}")

    away_store = Away(store.engine, SystemClock())
    errand = Dispatcher(away_store, EventSubjects(Settings(StatedPreconditions()), ""), Sends())
    lease = Keeper(store, "me", ttl_seconds=600.0).take("webhooks")
    assert lease is not None
    errand.turn(lease)
    assert away.wait(30)
    errand.stop(0.1)
    until("no thread is left", lambda: not [one for one in threading.enumerate() if "webhooks" in one.name])


def test_who_has_lost_the_lease_sends_nothing(store: Store, shop: Shop, receiver: Receiver) -> None:
    store = live(store)
    webhook = hook(store, shop, receiver.url("/ok"))
    new_branch(store, shop, "b")
    mine, theirs = Keeper(store, "me", ttl_seconds=600.0), Keeper(store, "them", ttl_seconds=600.0)
    lease = mine.take("webhooks")
    assert lease is not None
    mine.give_back(lease)
    assert theirs.take("webhooks") is not None
    errand = dispatcher(store)
    with pytest.raises(FencedError):
        errand.turn(lease)
    errand.stop(5)
    assert (receiver.connections, states(store, webhook)) == (0, [])


def test_killed_in_a_request_it_sends_that_one_again_and_nothing_else(
    tmp_path: Path, receiver: Receiver
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = Store.open(url)
    with store.write() as tx:
        shop = make_shop(tx)
    fine = hook(store, shop, receiver.url("/ok"))
    slow = hook(store, shop, receiver.url("/slow"))
    new_branch(store, shop, "one")
    new_branch(store, shop, "two")

    receiver.linger = 7.0

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-m", "tests.support.hooks", url, "worker"], text=True)

    process = start()
    try:
        until("the slow one is asked", lambda: receiver.at("/slow"))
        until("the others are through", lambda: states(store, fine) == [("delivered", 1, "200")] * 2)
        # Its answer is seconds away: the process dies before it can store it.
        end(process)
        receiver.linger = 0.0
        assert states(store, slow)[0] == ("pending", 0, "")
        process = start()
        until("all is through", lambda: states(store, slow) == [("delivered", 1, "200")] * 2)
        names = [json.loads(one.body)["resource"]["name"] for one in receiver.at("/slow")]
        assert names == ["one", "one", "two"]
        assert len(receiver.at("/ok")) == 2
    finally:
        end(process)
        store.close()


def end(process: subprocess.Popen[str]) -> None:
    """kill -9."""
    process.kill()
    process.wait()
