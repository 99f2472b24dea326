"""What a stranger's clients meet: an installation with one database, in the middle of a move.

Database ``shop`` has an unsharded keyspace of its name, two further unsharded ones (``plain``, ``copy``) and
``shop_sharded`` with two shards. The tables of :data:`MOVED` were moved there and their primaries are
switched, so that routing rules are in force for every client. It knows no client; it only says how to log in.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from homeworld.model.topology import Flavor
from tests.support.bank import Login
from tests.support.mysqld import CACHE, binary
from tests.support.platform import Platform

SYSBENCH_ROWS = 5000
ITEMS = 40
MOVED = ["sbtest1", "items", "lines"]
VSCHEMA: dict[str, Any] = {
    "sharded": True,
    "vindexes": {"xxhash": {"type": "xxhash"}},
    "tables": {
        "sbtest1": {"column_vindexes": [{"column": "id", "name": "xxhash"}]},
        "items": {"column_vindexes": [{"column": "id", "name": "xxhash"}]},
        "lines": {"column_vindexes": [{"column": "item_id", "name": "xxhash"}]},
    },
}
SCHEMA = (
    "CREATE TABLE items (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, name VARCHAR(80) NOT NULL,"
    " price DECIMAL(12,2) NOT NULL, made DATETIME(6) NULL, picture BLOB NULL, KEY by_name (name))",
    "CREATE TABLE `lines` (id BIGINT NOT NULL, item_id BIGINT NOT NULL, note VARCHAR(40),"
    " PRIMARY KEY (item_id, id))",
)


class ClientWorld:
    """The installation and how to reach it.

    :param folder: where it lives and where clients' files may be put.
    """

    UNSHARDED = ("shop", "plain", "copy")

    def __init__(self, folder: Path, flavor: Flavor) -> None:
        self.flavor = flavor
        self.folder = folder
        self.platform = Platform(folder / "homeworld", binary(flavor), 1)

    def open(self) -> None:
        """Make everything."""
        self.platform.start()
        self.platform.make_database()
        self.admin = self.platform.login()
        for name in ("plain", "copy"):
            self.make_unsharded(name)
        with self.admin.connect("shop") as connection, connection.cursor() as cursor:
            for statement in SCHEMA:
                cursor.execute(statement)
            cursor.executemany(
                "INSERT INTO items (id, name, price, made, picture) VALUES (%s, %s, %s, %s, %s)",
                [(i, f"Stück {i % 7}", i / 4, f"2024-02-{i % 28 + 1} 10:00:00.5", bytes([i, 0, 255]))
                 for i in range(1, ITEMS + 1)],
            )  # fmt: skip
            cursor.executemany(
                "INSERT INTO `lines` (id, item_id, note) VALUES (%s, %s, %s)",
                [(line, item, f"{item}/{line}") for item in range(1, ITEMS + 1) for line in (1, 2)],
            )
            connection.commit()
        self.sysbench("shop", "prepare")
        self.platform.make_keyspace(2, VSCHEMA)
        self.platform.begin(MOVED)
        self.platform.reaches("running", 120)
        self.platform.ask("switched_primaries", 90)

    def make_unsharded(self, name: str) -> None:
        """A keyspace with one shard."""
        client, at = self.platform.client, (self.platform.organization, "shop", "main")
        client.create_keyspace(*at, name, shards=1)
        self.platform.until(name, lambda: bool(client.get_keyspace(*at, name)["ready"]))

    def close(self) -> None:
        """End everything and delete it."""
        self.platform.installation.destroy()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def ready(self) -> Mapping[str, Any]:
        """What the ready file tells."""
        return self.platform.installation.ready

    @property
    def ca_file(self) -> str:
        """The certificate that signed the gateway's."""
        return str(self.ready["ca_file"])

    def password(self, **fields: Any) -> dict[str, Any]:
        """A fresh password of the branch, as the API tells it."""
        fields.setdefault("name", f"p{len(self.passwords())}")
        return self.platform.client.create_password(self.platform.organization, "shop", "main", **fields)

    def passwords(self) -> list[dict[str, Any]]:
        """All passwords of the branch."""
        return self.platform.client.list_passwords(self.platform.organization, "shop", "main")

    def login(self, **fields: Any) -> Login:
        """How to log in with a fresh password."""
        made = self.password(**fields)
        return Login(self.admin.host, self.admin.port, made["username"], made["plain_text"])

    def sysbench(self, schema: str, action: str, *options: str) -> str:
        """Run sysbench's oltp_read_write on ``schema``; what it printed."""
        login = self.admin
        command = [
            "sysbench", "oltp_read_write", "--db-driver=mysql", f"--mysql-host={login.host}",
            f"--mysql-port={login.port}", f"--mysql-user={login.user}",
            f"--mysql-password={login.password}", f"--mysql-db={schema}", "--tables=1",
            f"--table-size={SYSBENCH_ROWS}", "--rand-type=uniform", *options, action,
        ]  # fmt: skip
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A ``mysql`` program and its ``mysqldump``, with the options by which each asks for a checked TLS.

    :param quirks: what it has to be told where one has no rights on the whole server.
    """

    name: str
    client: Path
    dump: Path
    tls: tuple[str, ...]
    batch: tuple[str, ...] = ()
    quirks: tuple[str, ...] = ()


def command_lines() -> list[CommandLine]:
    """The ``mysql`` programs of this machine: Debian's MariaDB one and MySQL 9.7's own."""
    found: list[CommandLine] = []
    client, dump = shutil.which("mariadb"), shutil.which("mariadb-dump")
    if client and dump:
        found.append(CommandLine("mariadb", Path(client), Path(dump), ("--ssl-verify-server-cert",)))
    program = CACHE / "mysql-9.7" / "bin"
    if (program / "mysql").exists():
        found.append(
            CommandLine(
                "mysql-9.7", program / "mysql", program / "mysqldump", ("--ssl-mode=VERIFY_IDENTITY",),
                # Its commands such as source are off unless they are asked for.
                ("--commands",),
                ("--set-gtid-purged=OFF", "--skip-masking-policies"),
            )
        )  # fmt: skip
    return found
