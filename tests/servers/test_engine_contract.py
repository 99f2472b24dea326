"""The contract of engines, held against real servers and against the fleet in memory that stands for them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from homeworld.engines.local import LocalEngine
from homeworld.engines.watcher import Did, Watcher
from homeworld.model.errors import FencedError, HomeworldError, InvalidError, NotFoundError, UnavailableError
from homeworld.model.ports import Engine
from homeworld.model.sizes import ServerSize
from homeworld.model.topology import BackendRole, Flavor
from homeworld.workflows.failover import PromotingEngine
from homeworld.workflows.maintenance.handler import Restarts
from tests.support.engines import owner, pid_of, run, until
from tests.support.fleet_engine import FleetEngine
from tests.support.fleet_weather import Weather

pytestmark = [pytest.mark.servers, pytest.mark.one_flavor(Flavor.MARIADB)]

SMALL = ServerSize(buffer_pool_mb=32, max_connections=60, tmp_table_mb=16, cpus=0)


@dataclass(frozen=True, slots=True)
class Kept:
    """An engine, and what a test does to its servers behind its back."""

    engine: LocalEngine | FleetEngine
    kill: Callable[[str], None]
    schemas: Callable[[str], set[str]]
    change: Callable[[str], object]


def on_servers(engine: LocalEngine) -> Kept:
    def schemas(server_id: str) -> set[str]:
        return {str(row[0]) for row in owner(engine, server_id, "SHOW DATABASES LIKE 'shop%'")}

    return Kept(
        engine,
        lambda server_id: os.kill(pid_of(engine, server_id), signal.SIGKILL),
        schemas,
        lambda server_id: run(
            engine.endpoint(server_id, BackendRole.OWNER), "CREATE TABLE shop.t (id INT PRIMARY KEY)"
        ),
    )


def in_memory(engine: FleetEngine) -> Kept:
    return Kept(engine, engine.kill, lambda server_id: set(engine.schemas(server_id)), engine.commit)


@pytest.fixture(params=["servers", "memory"])
def kept(request: pytest.FixtureRequest, flavor: Flavor) -> Iterator[Kept]:
    if request.param == "servers":
        yield on_servers(request.getfixturevalue("engine"))
    else:
        yield in_memory(FleetEngine(flavor))


def refused(kind: type[HomeworldError], *acts: Callable[[], object]) -> None:
    for act in acts:
        with pytest.raises(kind):
            act()


def test_both_are_what_the_control_plane_asks_for(kept: Kept) -> None:
    assert isinstance(kept.engine, PromotingEngine)
    assert isinstance(kept.engine, Restarts)
    assert kept.engine.host().memory_mb > 0
    assert set(kept.engine.credentials()) == set(BackendRole)


def test_a_server_s_whole_life(kept: Kept) -> None:
    engine: Engine = kept.engine
    engine.destroy_server("one")
    engine.create_server("one")
    first = engine.status("one")
    engine.create_server("one")
    assert engine.status("one") == first, "what exists is left as it is"
    assert (first.running, first.accepting, first.replica_of, first.replication_error) == (
        True, True, None, "",
    )  # fmt: skip
    assert engine.restarts("one") == 0
    reader, admin = (engine.endpoint("one", role) for role in (BackendRole.READER, BackendRole.ADMIN))
    assert (reader.server_id, reader.flavor, reader.host) == ("one", engine.flavor, "127.0.0.1")
    assert (reader.socket, reader.port) == (admin.socket, admin.port)
    assert reader.user != admin.user

    for _ in range(2):
        engine.create_schema("one", "shop")
        engine.create_schema("one", "shop_-80")
    assert kept.schemas("one") == {"shop", "shop_-80"}

    def fenced() -> None:
        raise FencedError

    refused(FencedError, lambda: engine.drop_schema("one", "shop", fenced))
    assert kept.schemas("one") == {"shop", "shop_-80"}, "who may not drop it has not"
    for _ in range(2):
        engine.drop_schema("one", "shop_-80")
    assert kept.schemas("one") == {"shop"}
    refused(
        InvalidError,
        lambda: engine.create_schema("one", "mysql"),
        lambda: engine.drop_schema("one", "mysql"),
        lambda: engine.create_schema("one", "x" * 65),
        lambda: engine.create_server("one", replica_of="two"),
        lambda: engine.wait_replica("one", 1.0),
    )

    assert isinstance(engine.resize_server("one", SMALL), bool)
    engine.restart_server("one")
    assert engine.restarts("one") == 1
    assert engine.status("one").pid != first.pid
    assert engine.resize_server("one", SMALL), "with a restart it is in force"
    assert kept.schemas("one") == {"shop"}

    assert kept.engine.running_version("one").startswith(kept.engine.version)
    assert kept.engine.storage_bytes("one") > 0
    assert kept.engine.list_servers() == ["one"]

    engine.destroy_server("one")
    engine.create_server("one")
    assert kept.schemas("one") == set(), "what is made anew has nothing of what was destroyed"


def test_what_is_not_there_is_not_found(kept: Kept) -> None:
    engine = kept.engine
    refused(
        NotFoundError,
        lambda: engine.status("none"),
        lambda: engine.endpoint("none", BackendRole.READER),
        lambda: engine.restarts("none"),
        lambda: engine.restart_server("none"),
        lambda: engine.resize_server("none", None),
        lambda: engine.create_schema("none", "shop"),
        lambda: engine.drop_schema("none", "shop"),
        lambda: engine.wait_replica("none", 1.0),
        lambda: engine.create_server("other", replica_of="none"),
        lambda: engine.promote("none"),
        lambda: engine.follows("none"),
        lambda: engine.unsettled("none"),
    )
    assert not engine.is_primary("none")
    assert engine.list_servers() == []


def test_a_replica_and_its_promotion(kept: Kept) -> None:
    engine = kept.engine
    engine.create_server("one")
    engine.create_schema("one", "shop")
    for _ in range(2):
        engine.create_server("two", replica_of="one")
    kept.change("one")
    engine.wait_replica("two", 30.0)
    status = engine.status("two")
    assert (status.replica_of, status.replication_error) == ("one", "")
    assert status.replica_lag_seconds is not None
    assert kept.schemas("two") == {"shop"}
    assert engine.replicas_of("one") == ["two"]
    refused(
        InvalidError,
        lambda: engine.create_server("two"),
        lambda: engine.create_server("three", replica_of="two"),
        lambda: engine.create_schema("two", "shop"),
        lambda: engine.drop_schema("two", "shop"),
    )
    assert engine.furthest(["two"]) == "two"
    assert (engine.is_primary("one"), engine.is_primary("two")) == (True, False)
    for _ in range(2):
        engine.promote("two")
        assert (engine.is_primary("one"), engine.is_primary("two")) == (False, True)
    assert not engine.unsettled("one")
    assert engine.follows("one") == ""
    assert engine.follows("two") == "it is a primary"
    assert engine.status("one").replica_of == "two"
    engine.create_schema("two", "shop_more")
    engine.wait_replica("one", 30.0)
    assert kept.schemas("one") == {"shop", "shop_more"}


def test_who_is_dead_answers_nothing_and_is_revived(kept: Kept) -> None:
    engine = kept.engine
    engine.create_server("one")
    engine.create_server("two", replica_of="one")
    engine.create_schema("one", "shop")
    watcher = Watcher(engine)
    assert watcher.look() == []
    kept.kill("one")
    until(lambda: not engine.status("one").running, "one is dead")
    assert not engine.status("one").accepting
    assert engine.endpoint("one", BackendRole.READER).server_id == "one"
    refused(
        UnavailableError,
        lambda: engine.create_schema("one", "shop"),
        lambda: engine.resize_server("one", SMALL),
        lambda: engine.promote("two"),
        lambda: engine.running_version("one"),
    )
    assert engine.is_primary("one"), "what could not be done in order was not done"
    assert (Did.RESTARTED, "one") in {(event.did, event.server_id) for event in watcher.look()}
    until(lambda: engine.status("one").accepting, "one accepts again")
    assert engine.restarts("one") == 1
    kept.kill("one")
    until(lambda: not engine.status("one").running, "one is dead")
    engine.create_server("one")
    assert (engine.status("one").accepting, engine.restarts("one")) == (True, 2)
    assert kept.schemas("one") == {"shop"}
    kept.kill("one")
    until(lambda: not engine.status("one").running, "one is dead")
    engine.promote("two", accept_loss=True)
    assert (engine.is_primary("one"), engine.is_primary("two")) == (False, True)
    engine.stop_server("two")
    assert not engine.revive("two"), "it was stopped on purpose"
    engine.start_server("two")
    assert engine.status("two").accepting


def test_faults_come_by_the_seed_and_the_time_alone(flavor: Flavor) -> None:
    def story() -> list[tuple[float, str, bool, bool]]:
        now = 0.0
        fleet = FleetEngine(
            flavor, weather=Weather(seed=7, every_seconds=40.0, silent_seconds=3.0), clock=lambda: now
        )
        watcher, told = Watcher(fleet), list[tuple[float, str, bool, bool]]()
        for name in ("one", "two"):
            fleet.create_server(name)
        while now < 400.0:
            now += 1.0
            seen = [fleet.status(name) for name in ("one", "two")]
            told += [
                (now, each.server_id, each.running, each.accepting) for each in seen if not each.accepting
            ]
            watcher.look(now)
        assert all(fleet.restarts(name) for name in ("one", "two")), "whoever died was started again"
        return told

    first = story()
    assert first == story()
    assert {(running, accepting) for _, _, running, accepting in first} == {(False, False), (True, False)}


def test_a_fleet_is_found_again_and_may_refuse_to_grow(flavor: Flavor) -> None:
    fleet = FleetEngine(flavor, sleep=time.sleep)
    fleet.adopt([("one", None, ["shop"]), ("two", "one", [])])
    assert fleet.status("two").replica_lag_seconds == 0.0
    assert fleet.schemas("two") == {"shop"}
    fleet.refusing = True
    for _ in range(2):
        refused(UnavailableError, lambda: fleet.create_server("three"))
    fleet.refusing = False
    refused(UnavailableError, lambda: fleet.create_server("three"))
    fleet.create_server("four")
    fleet.relent()
    fleet.create_server("three")
    assert fleet.list_servers() == ["four", "one", "three", "two"]
