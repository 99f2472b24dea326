"""The faults: what is done to the world, and what undoes it.

Each strikes once at the gate and is mended some time after the worker was let on. ``hits`` says whose clients
may notice it by an error; whoever else gets one has found a defect. Knows no workflow.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from homeworld.store import engine
from tests.chaos.deadlines import STORE_SECONDS
from tests.chaos.proxy import Cut
from tests.chaos.servers import Machines, Server
from tests.chaos.world import GATEWAYS, Layout, World

EVERYBODY = frozenset({"gateway-0"})


@dataclass(slots=True)
class Fault:
    """One fault in one world.

    :param hits: whose clients may get errors: those of a side while it owns writes, those that read from a
        ``replica``, those of a ``gateway-n``.
    :param lasts: seconds from the strike until it is mended.
    :param blinds: the controller cannot read the store either.
    """

    name: str
    strike: Callable[[], None]
    mend: Callable[[], None] = lambda: None
    hits: frozenset[str] = frozenset()
    lasts: float = 0.0
    ends_worker: bool = False
    blinds: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a fault needs, known before it is made."""

    make: Callable[[World, random.Random], Fault]
    proxied: bool = False
    weight: int = 1
    possible: Callable[[], bool] = field(default=lambda: True)
    layouts: tuple[Layout, ...] = tuple(Layout)


def _kill_worker(world: World, _chance: random.Random) -> Fault:
    def mend() -> None:
        # Whose connection goes through the process that died gets an error; gateways of their own go on.
        world.restart(world.worker_at(world.at))

    hits = EVERYBODY if world.layout is Layout.UP else frozenset[str]()
    return Fault(
        "kill-worker", lambda: world.kill_one(world.worker_at(world.at)), mend, hits, ends_worker=True
    )


def _freeze_worker(world: World, _chance: random.Random) -> Fault:
    # Nobody's connection breaks: clients wait. Their servers do not know that anything is wrong.
    return Fault(
        "freeze-worker",
        lambda: world.worker_at(world.at).process.send_signal(signal.SIGSTOP),
        lambda: world.worker_at(world.at).process.send_signal(signal.SIGCONT),
        lasts=world.long_seconds,
    )


def _gateway(how: str) -> Kind:
    def make(world: World, chance: random.Random) -> Fault:
        number = chance.randrange(GATEWAYS)
        hits = frozenset({f"gateway-{number}"})
        if how == "kill":
            return Fault(
                "kill-gateway", lambda: world.kill_one(world.gateway(number)),
                lambda: world.restart(world.gateway(number)), hits, detail=f"gateway {number}",
            )  # fmt: skip
        return Fault(
            "freeze-gateway", lambda: world.gateway(number).process.send_signal(signal.SIGSTOP),
            lambda: world.gateway(number).process.send_signal(signal.SIGCONT), hits, world.long_seconds,
            detail=f"gateway {number}",
        )  # fmt: skip

    return Kind(make, layouts=(Layout.ROLES,))


def _kill_api(world: World, _chance: random.Random) -> Fault:
    return Fault("kill-api", lambda: world.kill_one(world.api), lambda: world.restart(world.api), lasts=1.0)


def _freeze_api(world: World, _chance: random.Random) -> Fault:
    return Fault(
        "freeze-api",
        lambda: world.api.process.send_signal(signal.SIGSTOP),
        lambda: world.api.process.send_signal(signal.SIGCONT),
        lasts=world.long_seconds,
    )


def _movers(world: World, number: signal.Signals) -> None:
    for pid in world.mover_pids():
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _kill_mover(world: World, _chance: random.Random) -> Fault:
    return Fault("kill-mover", lambda: _movers(world, signal.SIGKILL))


def _freeze_mover(world: World, _chance: random.Random) -> Fault:
    return Fault(
        "freeze-mover",
        lambda: _movers(world, signal.SIGSTOP),
        lambda: _movers(world, signal.SIGCONT),
        lasts=world.long_seconds,
    )


def _one(world: World, side: str, chance: random.Random) -> Server:
    if side == "replica":
        return chance.choice([server for server in world.machines.all if not server.primary])
    return chance.choice(world.machines.of(side))


def _hits(server: Server) -> frozenset[str]:
    return frozenset({server.side if server.primary else "replica"})


def _kill(side: str) -> Kind:
    def make(world: World, chance: random.Random) -> Fault:
        server = _one(world, side, chance)
        return Fault(
            f"kill-{side}", lambda: world.machines.kill(server), hits=_hits(server),
            detail=f"{server.side} {server.shard}",
        )  # fmt: skip

    return Kind(make)


def _freeze(side: str) -> Kind:
    def make(world: World, chance: random.Random) -> Fault:
        server = _one(world, side, chance)
        return Fault(
            f"freeze-{side}", lambda: world.machines.freeze(server, True),
            lambda: world.machines.freeze(server, False), _hits(server), world.long_seconds,
            detail=f"{server.side} {server.shard}",
        )  # fmt: skip

    return Kind(make)


def _cut(side: str, how: Cut) -> Kind:
    def make(world: World, chance: random.Random) -> Fault:
        server = _one(world, side, chance)
        groups = chance.choice((("worker",), ("gateway",), ("worker", "gateway")))
        names = [f"{server.server_id}/{group}" for group in groups]
        hits = _hits(server) if "gateway" in groups else frozenset[str]()
        return Fault(
            f"cut-{side}-{how}", lambda: world.proxies.cut(names, how),
            lambda: world.proxies.cut(names, Cut.NONE), hits,
            4.0 if how is Cut.RESET else world.long_seconds,
            detail=f"{server.side} {server.shard} {'+'.join(groups)}",
        )  # fmt: skip

    return Kind(make, proxied=True)


def _disk(side: str) -> Kind:
    def make(world: World, chance: random.Random) -> Fault:
        server = _one(world, side, chance)
        machines = world.machines
        return Fault(
            f"disk-{side}", lambda: machines.fill_disk(server), lambda: machines.free_disk(server),
            _hits(server), 6.0, detail=f"{server.side} {server.shard}",
        )  # fmt: skip

    # A server that waits for room looks once a minute, so such a run takes that long.
    return Kind(make, weight=4, possible=Machines.can_have_disks)


class _StoreLock:
    """The control plane's memory, locked by somebody who does not let go."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._held: Any = None

    def strike(self) -> None:
        if self._world.postgres is not None:
            self._held = psycopg.connect(self._world.store_url, autocommit=True)
            self._held.execute(f"SELECT pg_advisory_lock({engine._WRITER_LOCK})")  # type: ignore[reportPrivateUsage]
            return
        path = str(self._world.folder / "homeworld.db")
        self._held = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        self._held.execute("BEGIN IMMEDIATE")

    def mend(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.close()


def _freeze_store(world: World, _chance: random.Random) -> Fault:
    def signal_all(number: signal.Signals) -> None:
        assert world.postgres is not None
        pid = int((world.postgres.data_folder / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in (pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, number)

    return Fault(
        "freeze-store", lambda: signal_all(signal.SIGSTOP), lambda: signal_all(signal.SIGCONT),
        lasts=world.long_seconds, blinds=True,
    )  # fmt: skip


def _store(world: World, chance: random.Random) -> Fault:
    lock = _StoreLock(world)
    seconds = chance.choice((STORE_SECONDS - 1.0, STORE_SECONDS + 2.0, world.long_seconds))
    return Fault("store-locked", lock.strike, lock.mend, lasts=seconds, detail=f"{seconds:g} s")


def _clock(name: str, sign: int) -> Kind:
    def make(world: World, chance: random.Random) -> Fault:
        step = chance.choice((45, 3600, 86400))

        # It stays so: a clock that was set once is not set back after a while.
        return Fault(f"clock-{name}", lambda: world.clock.set(sign * step), detail=f"{sign * step:+d} s")

    return Kind(make)


KINDS: Mapping[str, Kind] = {
    "kill-worker": Kind(_kill_worker),
    "freeze-worker": Kind(_freeze_worker),
    "kill-gateway": _gateway("kill"),
    "freeze-gateway": _gateway("freeze"),
    "kill-api": Kind(_kill_api, layouts=(Layout.ROLES,)),
    "freeze-api": Kind(_freeze_api, layouts=(Layout.ROLES,)),
    "kill-mover": Kind(_kill_mover),
    "freeze-mover": Kind(_freeze_mover),
    **{f"kill-{side}": _kill(side) for side in ("source", "target", "replica")},
    **{f"freeze-{side}": _freeze(side) for side in ("source", "target", "replica")},
    **{
        f"cut-{side}-{how}": _cut(side, how)
        for side in ("source", "target")
        for how in Cut
        if how is not Cut.NONE
    },
    **{f"disk-{side}": _disk(side) for side in ("source", "target")},
    "store-locked": Kind(_store),
    "freeze-store": Kind(_freeze_store, layouts=(Layout.ROLES,)),
    "clock-forward": _clock("forward", 1),
    "clock-back": _clock("back", -1),
}
WEIGHTS = {name: kind.weight for name, kind in KINDS.items()}


def possible(layout: Layout) -> list[str]:
    """The faults that there are in this layout on this machine."""
    return [name for name, kind in KINDS.items() if layout in kind.layouts and kind.possible()]


def wait_out(fault: Fault, struck: float) -> None:
    """Return when the fault has lasted as long as it has to."""
    left = fault.lasts - (time.monotonic() - struck)
    if left > 0:
        time.sleep(left)
