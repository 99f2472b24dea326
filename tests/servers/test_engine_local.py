"""LocalEngine on real servers of both flavours: made, secured, found again, ended."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pymysql
import pytest

from homeworld.engines import local
from homeworld.engines.connection import control
from homeworld.engines.local import LocalEngine
from homeworld.engines.watcher import Did, Watcher
from homeworld.model.errors import InvalidError, NotFoundError, UnavailableError
from homeworld.model.ports import Engine
from homeworld.model.topology import BackendRole, Flavor
from tests.support.engines import as_role, owner, pid_of, position, run, until
from tests.support.mysqld import binary
from tests.support.warden import guard

pytestmark = pytest.mark.servers


def test_a_server_is_what_the_rest_relies_on(engine: LocalEngine) -> None:
    protocol: Engine = engine
    protocol.create_server("one")
    first = pid_of(engine, "one")
    protocol.create_server("one")
    assert pid_of(engine, "one") == first
    facts = owner(
        engine, "one",
        "SELECT @@log_bin, @@binlog_format, @@binlog_row_image, @@binlog_row_metadata, @@sync_binlog,"
        " @@innodb_flush_log_at_trx_commit, @@global.time_zone, @@character_set_server, @@local_infile,"
        " @@bind_address, @@skip_name_resolve, @@read_only, @@innodb_buffer_pool_size",
    )  # fmt: skip
    assert facts == [
        (1, "ROW", "FULL", "FULL", 1, 1, "+00:00", "utf8mb4", 1, "127.0.0.1", 1, 0, 32 * 1024 * 1024)
    ]
    switches = {
        Flavor.MYSQL: "@@gtid_mode = 'ON', @@enforce_gtid_consistency = 'ON', @@log_replica_updates",
        Flavor.MARIADB: "@@gtid_strict_mode, @@gtid_domain_id = 0, @@log_slave_updates",
    }
    assert owner(engine, "one", f"SELECT {switches[engine.flavor]}") == [(1, 1, 1)]
    assert position(engine, "one") == "", "the template must bring no transactions of its own"
    assert owner(engine, "one", "SELECT DISTINCT Host FROM mysql.user ORDER BY 1") == [
        ("127.0.0.1",), ("localhost",)
    ]  # fmt: skip
    assert owner(engine, "one", "SELECT COUNT(*) FROM mysql.user WHERE User IN ('root', '')") == [(0,)]
    assert engine.status("one").replica_of is None


def test_only_this_user_reads_what_is_secret(engine: LocalEngine, engine_root: Path) -> None:
    assert (engine_root / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert (engine_root / "servers").stat().st_mode & 0o777 == 0o700
    assert (engine_root / "templates").stat().st_mode & 0o777 == 0o700
    endpoint = LocalEngine(engine_root, binary(engine.flavor)).endpoint
    engine.create_server("one")
    assert endpoint("one", BackendRole.OWNER).password not in repr(endpoint("one", BackendRole.OWNER))


ALLOWED = "allowed"
DENIED = "denied"
# Statement by role: whether it may. `shop_1` is a keyspace's schema, `shopX1` is one whose name would match
# if the underscore of a grant were taken as a wildcard.
RIGHTS: list[tuple[str, dict[BackendRole, str]]] = [
    ("SELECT * FROM shop_1.t", {
        # The gateway keeps a writer from reading: a server takes no WHERE from who may not.
        BackendRole.READER: ALLOWED, BackendRole.WRITER: ALLOWED, BackendRole.READWRITER: ALLOWED,
        BackendRole.ADMIN: ALLOWED, BackendRole.MOVER: ALLOWED, BackendRole.REPLICATION: DENIED}),
    ("INSERT INTO shop_1.t (v) VALUES (1)", {
        BackendRole.READER: DENIED, BackendRole.WRITER: ALLOWED, BackendRole.READWRITER: ALLOWED,
        BackendRole.ADMIN: ALLOWED, BackendRole.MOVER: ALLOWED, BackendRole.REPLICATION: DENIED}),
    ("UPDATE shop_1.t SET v = 2", {
        BackendRole.READER: DENIED, BackendRole.WRITER: ALLOWED, BackendRole.READWRITER: ALLOWED,
        BackendRole.ADMIN: ALLOWED, BackendRole.MOVER: ALLOWED}),
    ("DELETE FROM shop_1.t WHERE v = 5", {
        BackendRole.READER: DENIED, BackendRole.WRITER: ALLOWED, BackendRole.READWRITER: ALLOWED,
        BackendRole.ADMIN: ALLOWED, BackendRole.MOVER: ALLOWED}),
    ("ALTER TABLE shop_1.t COMMENT 'x'", {
        BackendRole.READER: DENIED, BackendRole.WRITER: DENIED, BackendRole.READWRITER: DENIED,
        BackendRole.ADMIN: ALLOWED, BackendRole.MOVER: ALLOWED}),
    ("CREATE TABLE IF NOT EXISTS shop_1.u (id INT PRIMARY KEY)", {
        BackendRole.READER: DENIED, BackendRole.WRITER: DENIED, BackendRole.READWRITER: DENIED,
        BackendRole.ADMIN: ALLOWED, BackendRole.MOVER: ALLOWED}),
    ("CREATE TRIGGER shop_1.tr BEFORE INSERT ON shop_1.t FOR EACH ROW SET NEW.v = 3", {
        BackendRole.READWRITER: DENIED, BackendRole.ADMIN: ALLOWED}),
    ("LOCK TABLES shop_1.t READ", {
        BackendRole.READER: DENIED, BackendRole.READWRITER: DENIED, BackendRole.MOVER: ALLOWED}),
    ("SHOW CREATE VIEW shop_1.w", {BackendRole.READER: ALLOWED, BackendRole.MOVER: ALLOWED}),
    ("SHOW BINARY LOGS", {
        BackendRole.READWRITER: DENIED, BackendRole.ADMIN: DENIED, BackendRole.MOVER: ALLOWED}),
    ("CREATE DATABASE IF NOT EXISTS _homeworld", {
        BackendRole.ADMIN: DENIED, BackendRole.MOVER: ALLOWED}),
    ("CREATE DATABASE other", {
        BackendRole.ADMIN: DENIED, BackendRole.MOVER: DENIED, BackendRole.REPLICATION: DENIED}),
    ("SET GLOBAL sync_binlog = 1", {BackendRole.ADMIN: DENIED, BackendRole.MOVER: DENIED}),
    ("GRANT SELECT ON shop_1.* TO homeworld_reader@localhost", {
        BackendRole.ADMIN: DENIED, BackendRole.MOVER: DENIED}),
    ("CREATE USER x@localhost", {BackendRole.ADMIN: DENIED, BackendRole.MOVER: DENIED}),
    ("SELECT * FROM mysql.user", dict.fromkeys(BackendRole, DENIED) | {BackendRole.OWNER: ALLOWED}),
    ("SELECT * FROM shopX1.t", dict.fromkeys(BackendRole, DENIED) | {BackendRole.OWNER: ALLOWED}),
    ("DROP TABLE shopX1.t", {BackendRole.ADMIN: DENIED, BackendRole.MOVER: DENIED}),
    ("SELECT 1 INTO OUTFILE 'x'", {BackendRole.ADMIN: DENIED, BackendRole.MOVER: DENIED}),
]  # fmt: skip


def test_each_role_can_what_it_needs_and_no_more(engine: LocalEngine) -> None:
    engine.create_server("one")
    engine.create_schema("one", "shop_1")
    engine.create_schema("one", "shop_1")
    owner(engine, "one", "CREATE TABLE shop_1.t (id INT AUTO_INCREMENT PRIMARY KEY, v INT)")
    owner(engine, "one", "CREATE VIEW shop_1.w AS SELECT 1 AS one")
    owner(engine, "one", "CREATE DATABASE shopX1")
    owner(engine, "one", "CREATE TABLE shopX1.t (id INT)")
    wrong: list[str] = []
    for sql, roles in RIGHTS:
        for role, expected in roles.items():
            try:
                as_role(engine, "one", role, sql)
                got = ALLOWED
            except pymysql.MySQLError as error:
                got = DENIED if error.args[0] in {1044, 1045, 1142, 1227, 1370} else str(error)
            if got != expected:
                wrong.append(f"{role.value}: {sql} is {got}")
    assert wrong == []


def test_accounts_work_over_loopback_too(engine: LocalEngine) -> None:
    engine.create_server("one")
    engine.create_schema("one", "shop")
    for role in BackendRole:
        user = run(engine.endpoint("one", role), "SELECT CURRENT_USER()", tcp=True)
        assert user == [(f"homeworld_{role.value}@127.0.0.1",)]


def test_dropping_a_schema_takes_its_rights(engine: LocalEngine) -> None:
    engine.create_server("one")
    engine.create_schema("one", "a_b")
    owner(engine, "one", "CREATE TABLE a_b.t (id INT)")
    engine.drop_schema("one", "a_b")
    engine.drop_schema("one", "a_b")
    engine.drop_schema("one", "never_there")
    owner(engine, "one", "CREATE DATABASE a_b")
    owner(engine, "one", "CREATE TABLE a_b.t (id INT)")
    for role in (BackendRole.READER, BackendRole.ADMIN, BackendRole.MOVER):
        with pytest.raises(pymysql.MySQLError, match="denied"):
            as_role(engine, "one", role, "SELECT * FROM a_b.t")
    for name in ("mysql", "SYS", "_homeworld", "information_schema"):
        with pytest.raises(InvalidError, match="belongs to the server"):
            engine.create_schema("one", name)
        with pytest.raises(InvalidError, match="belongs to the server"):
            engine.drop_schema("one", name)


def test_destroying_leaves_nothing(engine: LocalEngine, engine_root: Path) -> None:
    engine.create_server("one")
    pid = pid_of(engine, "one")
    path = engine.endpoint("one", BackendRole.OWNER).socket
    engine.destroy_server("one")
    engine.destroy_server("one")
    assert not Path(f"/proc/{pid}").exists()
    assert not Path(path).exists()
    assert list((engine_root / "servers").iterdir()) == []
    assert engine.list_servers() == []
    for call in (engine.status, engine.start_server, engine.stop_server):
        with pytest.raises(NotFoundError):
            call("one")
    with pytest.raises(NotFoundError):
        engine.endpoint("one", BackendRole.OWNER)
    with pytest.raises(InvalidError, match="cannot be the id"):
        engine.create_server("../one")


def test_a_half_made_server_is_finished(engine: LocalEngine, engine_root: Path, flavor: Flavor) -> None:
    engine.create_server("one")
    place = engine_root / "servers" / "one"
    # As if the process had died while the template was being copied.
    engine.destroy_server("one")
    place.mkdir()
    (place / "data.new").mkdir()
    (place / "data.new" / "ibdata1").write_bytes(b"half")
    engine.create_server("one")
    assert engine.status("one").accepting
    # As if it had died between spawning and writing the pid down: no second server may be started.
    pid = pid_of(engine, "one")
    (place / "pid").write_text(f"{os.getpid()}\n")
    again = LocalEngine(engine_root, binary(flavor))
    again.create_server("one")
    assert again.status("one").pid == pid
    # As if it had died while deleting.
    place.rename(engine_root / "servers" / ".gone-one-1")
    os.kill(pid, signal.SIGKILL)
    LocalEngine(engine_root, binary(flavor))
    assert not (engine_root / "servers" / ".gone-one-1").exists()


def test_servers_outlive_the_process_that_made_them(
    engine_root: Path, flavor: Flavor, engine: LocalEngine
) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from homeworld.engines.local import LocalEngine\n"
        "engine = LocalEngine(Path(sys.argv[1]), Path(sys.argv[2]), buffer_pool_mb=32)\n"
        "engine.create_server('orphan')\n"
        "engine.create_schema('orphan', 'shop')\n"
        "print(engine.status('orphan').pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(engine_root), str(binary(flavor))],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert engine.list_servers() == ["orphan"]
    status = engine.status("orphan")
    assert status.running
    assert status.accepting
    assert status.pid == int(done.stdout)
    engine.create_server("orphan")
    assert pid_of(engine, "orphan") == int(done.stdout)
    as_role(engine, "orphan", BackendRole.ADMIN, "CREATE TABLE shop.t (id INT)")
    engine.stop_server("orphan")
    assert not engine.status("orphan").running


def test_another_port_where_its_own_is_taken(engine: LocalEngine) -> None:
    engine.create_server("one")
    before = engine.endpoint("one", BackendRole.OWNER)
    engine.stop_server("one")
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", before.port))
        thief.listen()
        engine.start_server("one")
    after = engine.endpoint("one", BackendRole.OWNER)
    assert after.port != before.port
    assert after.socket == before.socket
    assert run(after, "SELECT 1", tcp=True) == [(1,)]


def test_a_long_path_still_has_a_socket(tmp_path: Path, engine_root: Path, flavor: Flavor) -> None:
    deep = tmp_path / ("long" * 30)
    deep.mkdir()
    guard(deep)
    # The same installation's secrets and templates, so that this needs no template of its own.
    shutil.copy2(engine_root / "secrets.json", deep / "secrets.json")
    shutil.copytree(engine_root / "templates", deep / "templates")
    engine = LocalEngine(deep, binary(flavor), buffer_pool_mb=32)
    try:
        engine.create_server("one")
        endpoint = engine.endpoint("one", BackendRole.OWNER)
        assert len(endpoint.socket) <= 107
        assert not Path(endpoint.socket).is_relative_to(deep)
        assert Path(endpoint.socket).parent.stat().st_mode & 0o077 == 0
        assert run(endpoint, "SELECT 1") == [(1,)]
    finally:
        engine.destroy_server("one")


def test_lost_data_are_never_replaced(engine: LocalEngine, engine_root: Path, flavor: Flavor) -> None:
    engine.create_server("one")
    engine.stop_server("one")
    (engine_root / "servers" / "one" / "data").rename(engine_root / "servers" / "one" / "aside")
    for act in (engine.start_server, engine.create_server):
        with pytest.raises(InvalidError, match="data of server one is gone"):
            act("one")
    assert set(engine.start_all()) == {"one"}
    told = Watcher(engine).look()
    assert [(event.server_id, event.did) for event in told] == [("one", Did.FAILED)]
    assert "is gone" in told[0].detail
    (engine_root / "servers" / "one" / "aside").rename(engine_root / "servers" / "one" / "data")
    secrets = engine_root / "secrets.json"
    secrets.rename(engine_root / "aside.json")
    try:
        with pytest.raises(InvalidError, match="is missing, but servers exist"):
            LocalEngine(engine_root, binary(flavor))
    finally:
        (engine_root / "aside.json").rename(secrets)


def test_a_server_that_cannot_start_says_why(engine: LocalEngine, engine_root: Path) -> None:
    engine.create_server("one")
    engine.stop_server("one")
    data = engine_root / "servers" / "one" / "data"
    (data / "ibdata1").rename(data / "ibdata1.aside")
    (data / "ibdata1").mkdir()
    with pytest.raises(UnavailableError, match=r"ended while it started: .*ibdata1"):
        engine.start_server("one")
    (data / "ibdata1").rmdir()
    (data / "ibdata1.aside").rename(data / "ibdata1")
    engine.start_server("one")
    assert engine.status("one").accepting


def test_files_that_cannot_be_written_are_one_servers_trouble(engine: LocalEngine, engine_root: Path) -> None:
    """As on a full disk. The others are looked after in the same round, and nobody's start ends with it."""
    for server_id in ("one", "two"):
        engine.create_server(server_id)
    in_the_way = engine_root / "servers" / "one" / "my.new"
    in_the_way.mkdir()
    pids = [pid_of(engine, server_id) for server_id in ("one", "two")]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(engine.status(name).running for name in ("one", "two")), "both are dead")
    told = {event.server_id: event for event in Watcher(engine).look()}
    assert {name: event.did for name, event in told.items()} == {"one": Did.FAILED, "two": Did.RESTARTED}
    assert "cannot be written" in told["one"].detail
    assert set(engine.start_all()) == {"one"}
    in_the_way.rmdir()
    assert engine.start_all() == {}


def test_an_older_server_gets_the_rights_of_this_version(engine: LocalEngine, engine_root: Path) -> None:
    engine.create_server("one")
    engine.create_schema("one", "a_b")
    owner(engine, "one", "CREATE TABLE a_b.t (id INT)")
    owner(engine, "one", r"REVOKE ALL PRIVILEGES ON `a\_b`.* FROM homeworld_reader@localhost")
    owner(engine, "one", "DROP USER homeworld_replication@localhost")
    record = engine_root / "servers" / "one" / "server.json"
    text = record.read_text()
    digest = text.split('"accounts": "')[1].split('"')[0]
    record.write_text(text.replace(digest, "an-older-one"))
    before = position(engine, "one")
    engine.create_server("one")
    assert digest in record.read_text()
    assert as_role(engine, "one", BackendRole.READER, "SELECT * FROM a_b.t") == []
    assert as_role(engine, "one", BackendRole.REPLICATION, "SELECT 1") == [(1,)]
    assert position(engine, "one") == before, "passwords must not stand in the binlog"


def test_many_at_once(engine: LocalEngine) -> None:
    names = ["a", "b", "a", "b", "a"]
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(engine.create_server, names))
    endpoints = [engine.endpoint(name, BackendRole.OWNER) for name in ("a", "b")]
    assert endpoints[0].port != endpoints[1].port
    ids = {owner(engine, name, "SELECT @@server_id")[0][0] for name in ("a", "b")}
    assert len(ids) == 2
    assert engine.stop_all(30) == []
    assert [engine.status(name).running for name in ("a", "b")] == [False, False]
    assert engine.start_all() == {}
    assert [engine.status(name).accepting for name in ("a", "b")] == [True, True]


def test_a_hanging_server_costs_a_known_time(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_LOOK_SECONDS", 1.0)
    engine.create_server("one")
    pid = pid_of(engine, "one")
    os.kill(pid, signal.SIGSTOP)
    try:
        status = engine.status("one")
        assert status.running
        assert not status.accepting
        with (
            pytest.raises(UnavailableError),
            control(engine.endpoint("one", BackendRole.OWNER), timeout_seconds=0.2),
        ):
            pass
        killed: list[bool] = []
        stopper = threading.Thread(target=lambda: killed.append(engine.stop_all(0.3) == ["one"]))
        stopper.start()
        stopper.join(30)
        assert killed == [True]
    finally:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGCONT)
    engine.start_server("one")
    assert engine.status("one").accepting
