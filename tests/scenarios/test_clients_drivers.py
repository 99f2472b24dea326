"""Drivers of Python, Node and Go, SQLAlchemy and httpx, unmodified, against ``homeworld up`` with routing
rules in force.

mysql2 and go-sql-driver are fetched once by their own package managers, in an exact version; where the tool
is missing, or the package cannot be had, the test is skipped with the reason.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import mysql.connector
import mysql.connector.pooling
import pymysql
import pymysql.cursors
import pytest
import sqlalchemy as sa
from pymysql.constants import CLIENT
from sqlalchemy import orm
from sqlalchemy.exc import DBAPIError, IntegrityError

from homeworld.model.topology import Flavor
from tests.support.client_world import ITEMS, SYSBENCH_ROWS, ClientWorld
from tests.support.mysqld import CACHE

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(300), pytest.mark.one_flavor(Flavor.MYSQL)]

PROGRAMS = Path(__file__).with_name("programs")
MYSQL2 = "3.24.6"
GO_DRIVER = "v1.9.3"


@pytest.fixture
def table(world: ClientWorld) -> Iterator[str]:
    """A table of the unsharded keyspace ``shop``, beside tables that have moved away."""
    with world.admin.connect("shop") as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS notes")
        cursor.execute("CREATE TABLE notes (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(200), n INT)")
    yield "notes"
    with world.admin.connect("shop") as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE notes")


# ---------------------------------------------------------------- PyMySQL


def test_pymysql(world: ClientWorld, table: str) -> None:
    options: dict[str, Any] = {
        "ssl_ca": world.ca_file, "ssl_verify_cert": True, "ssl_verify_identity": True,
        "charset": "utf8mb4",
    }  # fmt: skip
    with contextlib.closing(world.admin.connect("shop", **options)) as connection:
        raw: Any = connection
        assert "TLS" in raw._sock.version()
        with connection.cursor(pymysql.cursors.DictCursor) as cursor:
            cursor.executemany(
                "INSERT INTO notes (v, n) VALUES (%s, %s)", [(f"ü😀{i}", i) for i in range(500)]
            )
            assert cursor.rowcount == 500
            connection.rollback()
            cursor.execute("SELECT COUNT(*) AS c, DATABASE(), LAST_INSERT_ID() FROM notes")
            assert cursor.fetchall() == [{"c": 0, "DATABASE()": "shop", "LAST_INSERT_ID()": 1}]
            cursor.execute("INSERT INTO notes (v, n) VALUES (%s, %s)", ("it's 100% \\", None))
            made = cursor.lastrowid
            connection.commit()
            cursor.execute("SELECT * FROM notes WHERE id = %s", (made,))
            assert cursor.fetchall() == [{"id": made, "v": "it's 100% \\", "n": None}]
            cursor.execute("SELECT LAST_INSERT_ID()")
            assert cursor.fetchall() == [{"LAST_INSERT_ID()": made}]
        connection.ping(reconnect=False)
        raw.select_db("@replica")
        with connection.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM items")
            assert cursor.fetchall() == ((ITEMS,),)


def test_pymysql_through_the_routing_rules(world: ClientWorld) -> None:
    with contextlib.closing(world.admin.connect("shop")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id, name, price, made, picture FROM items WHERE id = %s", (3,))
        assert cursor.fetchall() == (
            (
                3,
                "Stück 3",
                Decimal("0.75"),
                datetime.fromisoformat("2024-02-04 10:00:00.500000"),
                b"\x03\x00\xff",
            ),
        )
        cursor.execute("INSERT INTO items (name, price) VALUES ('new', 1), ('newer', 2)")
        made = int(cursor.lastrowid)
        assert made > ITEMS
        cursor.execute("SELECT id FROM items WHERE name IN ('new', 'newer') ORDER BY id DESC")
        assert cursor.fetchall() == ((made + 1,), (made,))
        cursor.execute("SELECT LAST_INSERT_ID()")
        assert cursor.fetchall() == ((made,),)
        connection.rollback()
        cursor.execute(
            "SELECT i.name, COUNT(*), SUM(i.price) FROM items i JOIN `lines` l ON l.item_id = i.id"
            " WHERE i.id <= 20 GROUP BY i.name ORDER BY i.name LIMIT 3"
        )
        assert cursor.fetchall() == (
            ("Stück 0", 4, Decimal("10.50")),
            ("Stück 1", 6, Decimal("12.00")),
            ("Stück 2", 6, Decimal("13.50")),
        )


def test_pymysql_streams_and_sends_much(world: ClientWorld, table: str) -> None:
    with contextlib.closing(world.admin.connect("shop")) as connection:
        with connection.cursor(pymysql.cursors.SSCursor) as cursor:
            cursor.execute("SELECT id, c FROM sbtest1")
            seen = {row[0] for row in cursor}
            assert len(seen) == SYSBENCH_ROWS
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE wide_notes (id INT PRIMARY KEY, b LONGBLOB)")
            big = bytes(range(256)) * (5 << 10)
            cursor.execute("INSERT INTO wide_notes VALUES (1, %s)", (big,))
            cursor.execute("SELECT b FROM wide_notes")
            assert cursor.fetchall() == ((big,),)
            cursor.execute("DROP TABLE wide_notes")


def test_pymysql_several_statements_at_once(world: ClientWorld, table: str) -> None:
    options = {"client_flag": CLIENT.MULTI_STATEMENTS, "autocommit": True}
    with (
        contextlib.closing(world.admin.connect("shop", **options)) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("INSERT INTO notes (n) VALUES (1); SELECT n FROM notes; SELECT id + 1 FROM notes")
        assert cursor.rowcount == 1
        assert cursor.nextset()
        assert cursor.fetchall() == ((1,),)
        assert cursor.nextset()
        assert cursor.fetchall() == ((2,),)
        assert not cursor.nextset()
        # The second refers to a table that has moved: each statement is routed by itself.
        cursor.execute("SELECT 1; SELECT COUNT(*) FROM items; SELECT nothing FROM notes")
        assert cursor.nextset()
        assert cursor.fetchall() == ((ITEMS,),)
        with pytest.raises(pymysql.err.OperationalError, match="nothing"):
            cursor.nextset()


# ---------------------------------------------------------------- Connector/Python


def collation(world: ClientWorld) -> dict[str, Any]:
    """The connector asks for a collation of MySQL 8 unless told otherwise; MariaDB 10.11 has none such."""
    return {"collation": "utf8mb4_general_ci"} if world.flavor is Flavor.MARIADB else {}


@pytest.mark.parametrize("pure", [True, False], ids=["pure", "c-extension"])
def test_connector(world: ClientWorld, table: str, pure: bool) -> None:
    settings = {
        "host": world.admin.host, "port": world.admin.port, "user": world.admin.user,
        "password": world.admin.password, "database": "shop", "use_pure": pure, "ssl_ca": world.ca_file,
        "ssl_verify_cert": True, "ssl_verify_identity": True, "connection_timeout": 30,
    }  # fmt: skip
    settings |= collation(world)
    done = subprocess.run(
        [sys.executable, str(PROGRAMS / "connector.py"), json.dumps(settings)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if "No module named '_mysql_connector'" in done.stderr:
        pytest.skip("this connector came without its C extension")
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_connector_pool(world: ClientWorld, table: str) -> None:
    pool: Any = mysql.connector.pooling.MySQLConnectionPool(
        pool_name="two", pool_size=2, host=world.admin.host, port=world.admin.port, user=world.admin.user,
        password=world.admin.password, database="shop", use_pure=True, **collation(world),
    )  # fmt: skip
    for number in range(4):
        connection: Any = pool.get_connection()
        cursor = connection.cursor()
        cursor.execute("SELECT @mine")
        assert cursor.fetchall() == [(None,)], "what the last user of the connection set is gone"
        cursor.execute("SET @mine = 1")
        cursor.execute("INSERT INTO notes (n) VALUES (%s)", (number,))
        if number % 2:
            connection.commit()
        connection.close()
    connection = pool.get_connection()
    cursor = connection.cursor()
    cursor.execute("SELECT n FROM notes ORDER BY n")
    assert cursor.fetchall() == [(1,), (3,)]
    connection.close()
    pool._remove_connections()


# ---------------------------------------------------------------- SQLAlchemy


BORN = datetime.fromisoformat("1970-01-02 03:04:05")


class Base(orm.DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(sa.String(80), unique=True)
    born: orm.Mapped[datetime | None]
    extra: orm.Mapped[Any] = orm.mapped_column(sa.JSON, nullable=True)
    kind: orm.Mapped[str] = orm.mapped_column(sa.Enum("a", "b", name="kinds"), server_default="a")
    books: orm.Mapped[list[Book]] = orm.relationship(back_populates="author", order_by="Book.id")


class Book(Base):
    __tablename__ = "books"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    author_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("authors.id", name="by_author"), index=True)
    title: orm.Mapped[str] = orm.mapped_column(sa.Text)
    price: orm.Mapped[Decimal] = orm.mapped_column(sa.Numeric(10, 2))
    author: orm.Mapped[Author] = orm.relationship(back_populates="books")


@pytest.fixture(params=["pymysql", "mysqlconnector"])
def engine(world: ClientWorld, request: pytest.FixtureRequest) -> Iterator[sa.Engine]:
    login = world.admin
    options: dict[str, Any] = {"pymysql": {}, "mysqlconnector": {"use_pure": True, **collation(world)}}[
        request.param
    ]
    made = sa.create_engine(
        f"mysql+{request.param}://{login.user}:{login.password}@{login.host}:{login.port}/shop",
        pool_pre_ping=True, pool_size=2, connect_args=options,
    )  # fmt: skip
    yield made
    made.dispose()


def test_sqlalchemy_orm(engine: sa.Engine) -> None:
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with orm.Session(engine) as session:
        session.add_all(
            [
                Author(name="Ünal", born=BORN, extra={"a": [1, None, "ü"]},
                       books=[Book(title=f"t{i}", price=Decimal("9.90")) for i in range(3)]),
                Author(name="Other", kind="b"),
            ]
        )  # fmt: skip
        session.commit()
    with orm.Session(engine) as session:
        lazy = session.scalars(sa.select(Author).where(Author.name == "Ünal")).one()
        assert [book.title for book in lazy.books] == ["t0", "t1", "t2"]
        assert (lazy.extra, lazy.kind, lazy.born) == (
            {"a": [1, None, "ü"]}, "a", BORN
        )  # fmt: skip
    with orm.Session(engine) as session:
        eager = session.scalars(
            sa.select(Author).options(orm.selectinload(Author.books)).order_by(Author.name)
        ).all()
        assert [(author.name, len(author.books)) for author in eager] == [("Other", 0), ("Ünal", 3)]
        joined = session.scalars(sa.select(Book).options(orm.joinedload(Book.author))).unique().all()
        assert {book.author.name for book in joined} == {"Ünal"}
        eager[1].books[0].price = Decimal("1.00")
        session.delete(eager[1].books[2])
        session.flush()
        with session.begin_nested() as inner:
            session.add(Author(name="undone"))
            session.flush()
            inner.rollback()
        session.commit()
        total = session.scalar(sa.select(sa.func.sum(Book.price)))
        assert total == Decimal("10.90")
        with pytest.raises(IntegrityError):
            session.execute(sa.insert(Author).values(name="Other"))
        session.rollback()
    Base.metadata.drop_all(engine)
    assert "books" not in sa.inspect(engine).get_table_names()


def test_sqlalchemy_isolation_levels(engine: sa.Engine, table: str) -> None:
    with engine.connect() as connection:
        assert connection.get_isolation_level() == "REPEATABLE READ"
        connection.execution_options(isolation_level="READ COMMITTED")
        assert connection.get_isolation_level() == "READ COMMITTED"
        connection.execute(sa.text("INSERT INTO notes (n) VALUES (1)"))
        connection.rollback()
        assert connection.execute(sa.text("SELECT COUNT(*) FROM notes")).scalar() == 0
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("INSERT INTO notes (n) VALUES (2)"))
        connection.rollback()
        assert connection.execute(sa.text("SELECT n FROM notes")).scalars().all() == [2]
    with engine.connect() as connection:
        assert connection.get_isolation_level() == "REPEATABLE READ"


def test_sqlalchemy_replaces_dead_connections(world: ClientWorld, engine: sa.Engine) -> None:
    # Invalidated at the end, as the application's own code would after such an error.
    with engine.connect() as connection:
        dead = int(connection.execute(sa.text("SELECT CONNECTION_ID()")).scalar_one())
        # An open transaction keeps the server's connection, by whose number it can be killed.
        connection.execute(sa.text("SELECT COUNT(*) FROM items"))
        with world.admin.connect("shop") as admin, admin.cursor() as cursor:
            cursor.execute(f"KILL {dead}")
        with pytest.raises(DBAPIError):
            connection.execute(sa.text("SELECT COUNT(*) FROM items"))
        connection.invalidate()
    for _ in range(3):
        with engine.connect() as connection:
            assert connection.execute(sa.text("SELECT 1")).scalar_one() == 1


def test_sqlalchemy_reflection(engine: sa.Engine) -> None:
    Base.metadata.create_all(engine)
    seen = sa.inspect(engine)
    assert {"authors", "books"} <= set(seen.get_table_names())
    assert {"shop", "shop_sharded", "plain"} <= set(seen.get_schema_names())
    assert [column["name"] for column in seen.get_columns("authors")] == [
        "id", "name", "born", "extra", "kind",
    ]  # fmt: skip
    assert seen.get_pk_constraint("books")["constrained_columns"] == ["id"]
    (key,) = seen.get_foreign_keys("books")
    assert (key["name"], key["referred_table"], key["constrained_columns"]) == (
        "by_author", "authors", ["author_id"],
    )  # fmt: skip
    assert {index["name"] for index in seen.get_indexes("books")} == {"ix_books_author_id"}
    assert seen.has_table("authors")
    assert not seen.has_table("nothing_here")
    # Tables of the sharded keyspace, by its name.
    assert set(seen.get_table_names(schema="shop_sharded")) == {"items", "lines", "sbtest1"}
    moved = sa.Table("items", sa.MetaData(), schema="shop_sharded", autoload_with=engine)
    assert [column.name for column in moved.primary_key] == ["id"]
    assert {index.name for index in moved.indexes} == {"by_name"}
    with engine.connect() as connection:
        query = sa.select(sa.func.count(), sa.func.max(moved.c.price)).where(moved.c.id.between(1, 20))
        assert connection.execute(query).one() == (20, Decimal("5.00"))
    Base.metadata.drop_all(engine)


# ---------------------------------------------------------------- Node and Go


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on this machine")
    return found


def made(command: list[str], folder: Path) -> None:
    """Run a step that may need the network; skip where it fails."""
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"{' '.join(command[:3])} failed: {(done.stdout + done.stderr)[-300:]}")


def works(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90, check=False
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stdout + done.stderr


@pytest.fixture(scope="session")
def node_folder() -> Path:
    """A folder with mysql2 in it."""
    node, npm = tool("node"), tool("npm")
    assert node
    folder = CACHE / "clients" / f"mysql2-{MYSQL2}"
    if not (folder / "node_modules" / "mysql2" / "package.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true}')
        made([npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", f"mysql2@{MYSQL2}"], folder)
    return folder


@pytest.fixture(scope="session")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go program, built."""
    go = tool("go")
    folder = tmp_path_factory.mktemp("gosql")
    shutil.copy(PROGRAMS / "gosql" / "main.go", folder)
    (folder / "go.mod").write_text(
        f"module client\n\ngo 1.22\n\nrequire github.com/go-sql-driver/mysql {GO_DRIVER}\n"
    )
    made([go, "mod", "tidy"], folder)
    # All is fetched by now: what does not build is our program's fault, and no reason to skip.
    built = subprocess.run(
        [go, "build", "-o", "client", "."], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=240, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    return folder / "client"


def test_mysql2(world: ClientWorld, node_folder: Path) -> None:
    script = node_folder / "client.js"
    shutil.copy(PROGRAMS / "mysql2.js", script)
    login = world.admin
    settings = {
        "host": login.host, "port": login.port, "user": login.user, "password": login.password,
        "ca": world.ca_file,
    }  # fmt: skip
    works([tool("node"), str(script), json.dumps(settings)], node_folder)


def test_go_sql_driver(world: ClientWorld, go_program: Path) -> None:
    login = world.admin
    works(
        [str(go_program), f"{login.host}:{login.port}", login.user, login.password, world.ca_file],
        go_program.parent,
    )


# ---------------------------------------------------------------- REST


def test_httpx(world: ClientWorld) -> None:
    ready = world.ready
    token = f"{ready['service_token_id']}:{ready['service_token']}"
    organization = f"/v1/organizations/{ready['organization']}"
    with httpx.Client(
        base_url=ready["api_url"], headers={"Authorization": token}, trust_env=False, timeout=30
    ) as client:
        (only,) = client.get("/v1/organizations").raise_for_status().json()["data"]
        assert only["name"] == ready["organization"]
        databases = client.get(f"{organization}/databases", params={"per_page": 1}).json()
        assert (databases["type"], databases["data"][0]["name"]) == ("list", "shop")
        workflow = client.get(f"{organization}/databases/shop/workflows/1").json()
        assert (workflow["state"], workflow["primaries_switched"]) == ("switched_primaries", True)
        rules = client.get(f"{organization}/databases/shop/branches/main/routing-rules").json()
        assert any(
            rule["from_table"] == "shop.items" and rule["to_tables"] == ["shop_sharded.items"]
            for rule in json.loads(rules["raw"])["rules"]
        )
        missing = client.get(f"{organization}/databases/nothing")
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
        refused = client.patch(f"{organization}/databases/shop/workflows/1/complete")
        assert (refused.status_code, refused.json()["code"]) == (422, "unprocessable")
        garbled = client.post(f"{organization}/databases", content=b"{")
        assert (garbled.status_code, garbled.json()["code"]) == (400, "bad_request")
        stranger = client.get("/v1/organizations", headers={"Authorization": "nobody:nothing"})
        assert (stranger.status_code, stranger.json()["code"]) == (401, "unauthorized")
        described = client.get("/v1/openapi.json").json()
        assert "/v1/organizations/{organization}/databases" in described["paths"]
