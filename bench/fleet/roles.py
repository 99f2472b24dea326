"""``python -m bench.fleet.roles [--flavor mysql] [--json F]``: what each process of an installation needs
while nobody asks anything: ``api``, ``worker`` and ``gateway`` over a PostgreSQL, ``up`` by itself, servers.

Real processes, one database with a replica. Figures are of one moment, after some seconds of rest.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.support.mysqld import binary
from tests.support.postgres import Postgres
from tests.support.roles import API, GATEWAY, WORKER, Roles

from bench.context import machine
from bench.harness import cpu_seconds, seconds_of
from bench.lab import BenchError, wait_until
from homeworld.cli.installation import Installation
from homeworld.client import HomeworldClient
from homeworld.engines.local import LocalEngine
from homeworld.model.topology import Flavor
from homeworld.store.store import Store

REST_SECONDS = 10.0
_READY_SECONDS = 180.0
_LOOKS = 30


@dataclass(frozen=True, slots=True)
class Need:
    """What a process has.

    :param cpu_percent: of one core, at rest.
    :param connections: to PostgreSQL.
    """

    name: str
    memory_mib: float
    peak_mib: float
    threads: int
    descriptors: int
    cpu_percent: float
    connections: int = 0
    note: str = ""


def need(name: str, pid: int, cpu_percent: float, connections: int = 0, note: str = "") -> Need:
    """What a process has now (Linux)."""
    told: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key in {"VmRSS", "VmHWM", "Threads"}:
            told[key] = int(value.split()[0])
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - names are enough
    return Need(
        name, round(told["VmRSS"] / 1024, 1), round(told["VmHWM"] / 1024, 1), told["Threads"], descriptors,
        round(cpu_percent, 2), connections, note,
    )  # fmt: skip


def resting(pids: Sequence[int]) -> list[float]:
    """How much of a core each takes meanwhile, in percent."""
    before = [cpu_seconds(pid) for pid in pids]
    time.sleep(REST_SECONDS)
    return [100 * (cpu_seconds(pid) - was) / REST_SECONDS for pid, was in zip(pids, before, strict=True)]


def sessions(store: Store) -> int:
    """Connections that PostgreSQL has from others."""
    with store.read() as tx:
        return int(
            tx.work.connection.exec_driver_sql(
                "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
                " AND pid <> pg_backend_pid()"
            ).scalar_one()
        )


def make_database(client: HomeworldClient, organization: str) -> None:
    """A database, ready."""
    client.create_database(organization, "shop")
    wait_until(
        lambda: client.get_database(organization, "shop")["state"] == "ready", "the database", _READY_SECONDS
    )


def servers(data_dir: Path, flavor: Flavor) -> list[Need]:
    """The servers of an installation that runs, and how long a look at one takes."""
    engine = LocalEngine(data_dir, binary(flavor))
    found: list[Need] = []
    ids = engine.list_servers()
    pids = [status.pid for status in map(engine.status, ids) if status.pid is not None]
    for server_id, pid, share in zip(ids, pids, resting(pids), strict=True):
        look = statistics.median(seconds_of(lambda one=server_id: engine.status(one)) for _ in range(_LOOKS))
        role = "replica" if engine.status(server_id).replica_of else "primary"
        disk = engine.storage_bytes(server_id)
        note = f"{disk / 2**20:.0f} MiB on disk, a look takes {look * 1000:.1f} ms"
        found.append(need(f"{flavor.value} {engine.version}, {role}", pid, share, note=note))
    return found


def several(folder: Path, flavor: Flavor) -> list[Need]:
    """The three roles over a PostgreSQL, and the servers."""
    program = binary(flavor)
    if program is None:
        raise BenchError(f"no {flavor.value} server program on this machine")
    cluster = Postgres(durable=True)
    try:
        roles = Roles(folder / "several", mysqld=program, replicas=1, postgres=cluster)
        with closing(roles), closing(Store.open(roles.store)) as store:
            connections: dict[str, int] = {}
            for role in (WORKER, GATEWAY, API):
                before = sessions(store)
                roles.launch(role)
                roles.processes[role][0].wait_ready()
                time.sleep(2.0)
                connections[role] = sessions(store) - before
            make_database(roles.client(), roles.organization)
            processes = roles.all()
            shares = resting([process.pid for process in processes])
            found = [
                need(process.role, process.pid, share, connections[process.role])
                for process, share in zip(processes, shares, strict=True)
            ]
            first = int((cluster.data_folder / "postmaster.pid").read_text().split()[0])
            found.append(_postgres(first, sessions(store)))
            return [*found, *servers(roles.data_dir, flavor)]
    finally:
        cluster.close()


def _postgres(first: int, clients: int) -> Need:
    """The whole cluster: what its processes have for themselves, and what they share once."""
    children = [first, *_children(first)]
    own = shared = 0
    for pid in children:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Private_Dirty:"):
                own += int(line.split()[1])
            if line.startswith("Pss_Shmem:"):
                shared += int(line.split()[1])
    memory = round((own + shared) / 1024, 1)
    note = f"{len(children)} processes"
    return Need("PostgreSQL", memory, memory, len(children), 0, 0.0, clients, note)


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alone(folder: Path, flavor: Flavor) -> list[Need]:
    """``homeworld up``."""
    program = binary(flavor)
    if program is None:
        raise BenchError(f"no {flavor.value} server program on this machine")
    options = ("--api-port", "0", "--gateway-port", "0", "--http-port", "0", "--mysqld", str(program))
    made = Installation(folder / "alone", options)
    try:
        ready = made.start()
        client = HomeworldClient(ready["api_url"], ready["service_token_id"], ready["service_token"])
        make_database(client, str(ready["organization"]))
        pid = made.process.pid if made.process is not None else 0
        (share,) = resting([pid])
        return [need("up", pid, share, note="with SQLite")]
    finally:
        made.destroy()


def main(given: Sequence[str]) -> int:
    """Measure, show, write."""
    parser = argparse.ArgumentParser("python -m bench.fleet.roles", description="What each role needs.")
    parser.add_argument("--flavor", choices=[flavor.value for flavor in Flavor], default="mariadb")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(given)
    folder = Path(tempfile.mkdtemp(prefix="hw-roles-"))
    try:
        flavor = Flavor(options.flavor)
        needs = [*alone(folder, flavor), *several(folder, flavor)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{'':28} {'MiB':>7} {'peak':>7} {'threads':>8} {'files':>6} {'CPU %':>6} {'store':>6}")
    for one in needs:
        print(
            f"{one.name:28} {one.memory_mib:7} {one.peak_mib:7} {one.threads:8} {one.descriptors:6}"
            f" {one.cpu_percent:6} {one.connections:6}  {one.note}"
        )
    print(f"{machine()}; load average {os.getloadavg()[0]:.1f}")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(one) for one in needs], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
