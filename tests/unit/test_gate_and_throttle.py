"""The gate serves in the order of asking; the throttle tells the first reason."""

from __future__ import annotations

import threading
import time

from homeworld.replication.gate import Gate
from homeworld.replication.throttle import Throttle, limit


def test_the_gate_serves_in_the_order_of_asking() -> None:
    gate = Gate()
    served: list[int] = []
    gate.acquire()

    def wait(number: int) -> None:
        with gate:
            served.append(number)

    threads: list[threading.Thread] = []
    for number in range(8):
        thread = threading.Thread(target=wait, args=(number,))
        thread.start()
        threads.append(thread)
        while gate.waiting < number + 1:
            time.sleep(0.001)
    gate.release()
    for thread in threads:
        thread.join()
    assert served == list(range(8))


def test_who_holds_the_gate_again_and_again_lets_others_in() -> None:
    gate = Gate()
    inside = threading.Event()

    def other() -> None:
        with gate:
            inside.set()

    thread = threading.Thread(target=other)
    gate.acquire()
    thread.start()
    while not gate.waiting:
        time.sleep(0.001)
    gate.release()
    with gate:  # the next turn is after the other's
        assert inside.is_set()
    thread.join()


def test_the_first_reason_is_told_and_what_is_not_known_lets_pass() -> None:
    lag: dict[str, float | None] = {"source": None, "target": 3.0}
    throttle = Throttle(
        (limit("source", lambda: lag["source"], 5), limit("target", lambda: lag["target"], 5)), seconds=0
    )
    assert throttle.reason() == ""
    lag["target"] = 9.0
    assert throttle.reason() == "target"
    lag["source"] = 9.0
    assert throttle.reason() == "source"


def test_rules_are_not_asked_all_the_time() -> None:
    asked: list[int] = []

    def rule() -> str:
        asked.append(1)
        return "busy"

    throttle = Throttle((rule,), seconds=60)
    assert [throttle.reason() for _ in range(5)] == ["busy"] * 5
    assert len(asked) == 1
