"""What the engines room decides without servers: versions, files, rights, when to try again."""

from __future__ import annotations

import json
import os
import socket
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeworld.engines import accounts, binary, process
from homeworld.engines.accounts import Accounts
from homeworld.engines.config import Sizes, render
from homeworld.engines.flavors import SCHEMA_RIGHTS, grant_statements, rules, schema_of
from homeworld.engines.layout import Layout, Record, choose_port, port_is_free, prepare_socket
from homeworld.engines.watcher import Tried, decide
from homeworld.model.errors import InvalidError, NotFoundError, UnavailableError
from homeworld.model.names import grant_pattern
from homeworld.model.topology import BackendRole, Flavor

ANYWHERE = Path("/opt/db/bin/mysqld")


@pytest.mark.parametrize(
    ("text", "flavor", "version"),
    [
        ("/x/mysqld  Ver 9.7.4-2 for Linux on x86_64 ((Debian))", Flavor.MYSQL, (9, 7, 4)),
        (
            "mysqld  Ver 8.0.36-28 for Linux on x86_64 (Percona Server (GPL), Release 28)",
            Flavor.MYSQL,
            (8, 0, 36),
        ),
        ("mysqld  Ver 8.4.3 for Linux on x86_64 (MySQL Community Server - GPL)", Flavor.MYSQL, (8, 4, 3)),
        ("mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu", Flavor.MARIADB, (10, 11, 19)),
        ("mariadbd from 11.4.2-MariaDB, Ver 11.4.2-MariaDB for Linux", Flavor.MARIADB, (11, 4, 2)),
    ],
)
def test_versions_are_read(text: str, flavor: Flavor, version: tuple[int, int, int]) -> None:
    found = binary.parse_version(text, ANYWHERE)
    assert (found.flavor, found.version) == (flavor, version)


@pytest.mark.parametrize(
    "text",
    [
        "mysqld  Ver 5.7.44 for Linux on x86_64",
        "mysqld  Ver 8.0.26 for Linux on x86_64",
        "mysqld  Ver 10.0.0 for Linux on x86_64",
        "mysqld  Ver 10.5.29-MariaDB for Linux",
    ],
)
def test_unsupported_versions_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(InvalidError, match="is not supported; install MariaDB") as caught:
        binary.parse_version(text, ANYWHERE)
    assert "\n" not in caught.value.message
    assert "--mysqld" in caught.value.message


def test_what_is_no_server_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="does not look like"):
        binary.parse_version("psql (PostgreSQL) 15.1", ANYWHERE)
    with pytest.raises(InvalidError, match="no server program at"):
        binary.find(tmp_path / "nothing")
    with pytest.raises(InvalidError, match="no server program at"):
        binary.find(tmp_path)
    script = tmp_path / "mysqld"
    script.write_text("#!/bin/sh\necho boom >&2\nexit 3\n")
    with pytest.raises(InvalidError, match="may not be executed"):
        binary.find(script)
    script.chmod(0o755)
    with pytest.raises(InvalidError, match="failed: boom"):
        binary.find(script)
    script.write_text("no program at all")
    with pytest.raises(InvalidError, match="cannot be run"):
        binary.find(script)


def test_the_first_supported_program_of_the_path_is_taken(tmp_path: Path, monkeypatch: Any) -> None:
    versions = {"old": "mysqld  Ver 5.7.44 for Linux", "new": "mysqld  Ver 8.4.3 for Linux"}
    for name, text in versions.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "mysqld").write_text(f"#!/bin/sh\necho '{text}'\n")
        (tmp_path / name / "mysqld").chmod(0o755)
    monkeypatch.setattr(binary, "_SYSTEM_FOLDERS", ())
    monkeypatch.setenv("PATH", f"{tmp_path / 'old'}:{tmp_path / 'new'}")
    assert binary.find().version == (8, 4, 3)
    monkeypatch.setenv("PATH", str(tmp_path / "old"))
    with pytest.raises(InvalidError, match=r"mysql 5\.7\.44, which is not supported"):
        binary.find()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InvalidError, match="no MySQL or MariaDB server on PATH"):
        binary.find()


@given(st.text(min_size=1, max_size=30))
def test_a_schema_comes_back_from_its_pattern(schema: str) -> None:
    assert schema_of(grant_pattern(schema)) == schema


def test_no_role_may_more_than_its_schema() -> None:
    statements = grant_statements("a_b%c`d")
    assert len(statements) == 2 * len(SCHEMA_RIGHTS)
    assert all(r"ON `a\_b\%c``d`.* TO 'homeworld_" in statement for statement in statements)
    for flavor in Flavor:
        made = rules(flavor).account_statements(Accounts({role: f"pw-{role.value}" for role in BackendRole}))
        everywhere = [s for s in made if " ON *.* " in s and "homeworld_owner" not in s]
        assert everywhere
        assert all(("homeworld_mover" in s) or ("homeworld_replication" in s) for s in everywhere)
        assert not any(word in s for s in everywhere for word in ("ALL", "SUPER", "SELECT", "GRANT OPTION"))
        assert [s for s in made if "WITH GRANT OPTION" in s and "homeworld_owner" not in s] == []


def test_passwords_are_made_once_and_kept_secret(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "secrets.json"
    with pytest.raises(InvalidError, match="is missing"):
        accounts.load(file, may_create=False)
    made = accounts.load(file, may_create=True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert accounts.load(file, may_create=False) == made
    assert len(set(made.passwords.values())) == len(BackendRole)
    assert all(20 <= len(password) <= 32 for password in made.passwords.values())
    assert not any(password in repr(made) for password in made.passwords.values())
    file.write_text('{"accounts": {}}')
    with pytest.raises(InvalidError, match="cannot be understood"):
        accounts.load(file, may_create=True)
    with pytest.raises(InvalidError, match="characters it may not have"):
        Accounts(dict.fromkeys(BackendRole, "it's"))


def record_of(layout: Layout, replica_of: str | None = None) -> Record:
    return Record("one", 7, Flavor.MYSQL, "9.7.4", 21001, layout.socket_for("one"), replica_of, "")


def test_the_record_comes_back(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.make()
    with pytest.raises(NotFoundError):
        layout.read("one")
    assert layout.ids() == []
    for record in (record_of(layout), record_of(layout, "other")):
        layout.write(record)
        assert layout.read("one") == record
    assert layout.ids() == ["one"]
    file = layout.place("one").record
    for broken in ("{", "[]", json.dumps({"server_id": "one"})):
        file.write_text(broken)
        with pytest.raises(InvalidError):
            layout.read("one")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "-a", "a" * 65, "é"])
def test_ids_that_are_no_folder_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidError):
        Layout(tmp_path).place(name)


def test_the_config_holds_what_others_rely_on(tmp_path: Path) -> None:
    layout = Layout(tmp_path / 'with "quotes" # and blanks')
    place = layout.place("one")
    for flavor in Flavor:
        primary = replace(record_of(layout), flavor=flavor)
        replica = replace(primary, replica_of="p")
        text = render(primary, place, Sizes(buffer_pool_mb=48, options=("sync-binlog=0",)))
        lines = text.splitlines()
        for line in (
            "bind-address=127.0.0.1",
            "binlog-row-image=FULL",
            "binlog-row-metadata=FULL",
            "port=21001",
            "innodb-flush-log-at-trx-commit=1",
            "innodb-buffer-pool-size=48M",
        ):
            assert line in lines
        assert f'datadir="{tmp_path}/with \\"quotes\\" # and blanks/servers/one/data"' in lines
        assert lines.index("sync-binlog=0") > lines.index("sync-binlog=1"), "the user's options win"
        assert not any("read-only" in line for line in lines)
        assert any("read-only=ON" in line for line in render(replica, place, Sizes()).splitlines())


def test_sockets_fit_the_kernel(tmp_path: Path) -> None:
    short = Layout(Path("/d"))
    assert short.socket_for("one") == "/d/servers/one/mysql.sock"
    deep = Layout(tmp_path / ("x" * 120))
    paths = {deep.socket_for("one"), deep.socket_for("two"), Layout(tmp_path / ("y" * 120)).socket_for("one")}
    assert len(paths) == 3
    assert all(len(os.fsencode(path)) <= 107 for path in paths)
    assert deep.socket_for("one") in paths


def test_leftovers_of_a_socket_are_cleared(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "s"
    prepare_socket(str(path))
    path.touch()
    Path(f"{path}.lock").write_text("1\n")
    prepare_socket(str(path))
    assert list(path.parent.iterdir()) == []
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    with pytest.raises(UnavailableError, match="belongs to somebody else"):
        prepare_socket(str(tmp_path / "link" / "s"))


def test_ports_that_are_taken_are_not_chosen() -> None:
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        port = thief.getsockname()[1]
        assert not port_is_free(port)
        with pytest.raises(UnavailableError, match="no free loopback port"):
            choose_port([], range(port, port + 1))
    assert choose_port([], range(port, port + 1)) == port
    with pytest.raises(UnavailableError):
        choose_port([port], range(port, port + 1))


def test_the_log_tells_the_cause(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    assert process.last_words(log) == "no log"
    log.write_text("")
    assert process.last_words(log) == "an empty log"
    log.write_text(
        "[ERROR] from long ago\nx mysqld (mysqld 9.7.0) starting as process 7\n"
        "[ERROR] cause\n[Note] nothing\n[ERROR] then\n[ERROR] this\n[ERROR] Aborting\n"
    )
    assert process.last_words(log) == "[ERROR] cause | [ERROR] then | [ERROR] Aborting"
    log.write_text("all\nis\nquite\nwell\n")
    assert process.last_words(log) == "is | quite | well"


def test_attempts_come_at_once_then_at_growing_distance() -> None:
    tried = Tried()
    acted: list[int] = []
    for second in range(300):
        act, tried = decide(tried, well=False, now=float(second))
        if act:
            acted.append(second)
    assert acted == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]


def test_only_a_minute_of_health_forgets_the_attempts() -> None:
    tried = Tried(attempts=5, not_before=10.0)
    for now in (20.0, 79.0):
        act, tried = decide(tried, well=True, now=now)
        assert (act, tried.attempts) == (False, 5)
    interrupted = decide(tried, well=False, now=79.5)
    assert interrupted == (True, Tried(6, 79.5 + 32.0, None))
    act, tried = decide(tried, well=True, now=80.0)
    assert (act, tried.attempts) == (False, 0)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 100)), max_size=60))
def test_no_two_attempts_within_the_pause(steps: list[tuple[bool, float]]) -> None:
    tried, now, last = Tried(), 0.0, None
    for well, passed in steps:
        now += passed
        act, tried = decide(tried, well=well, now=now)
        assert not (act and well)
        if act:
            assert last is None or now - last >= 1.0
            last = now
