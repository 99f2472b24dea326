"""The texts that the data path writes: lines for LOAD DATA, targets, JSON numbers, messages in a pipe."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeworld.model import errors
from homeworld.model.errors import InvalidError
from homeworld.model.movers import (
    MoverProgress,
    MoverSpec,
    OnDdl,
    Phase,
    Placement,
    RowDifference,
    StreamProgress,
    TableProgress,
    TableVerification,
    Verification,
)
from homeworld.model.topology import Endpoint, Flavor, ShardPlace
from homeworld.replication.changes import Row
from homeworld.replication.codec import (
    error_from_json,
    error_to_json,
    progress_from_json,
    progress_to_json,
    spec_from_json,
    spec_to_json,
)
from homeworld.replication.ddl import (
    TargetForm,
    add_keys_sql,
    differences_both_ways,
    in_schema,
    layout_differences,
    target_table,
    without_counter,
)
from homeworld.replication.json_scalars import Scalar, TypedDocument, opaque, typed
from homeworld.replication.loading import encode
from homeworld.replication.on_ddl import in_target
from tests.support.tables import column, table

CREATE = """CREATE TABLE `t` (
  `id` bigint unsigned NOT NULL AUTO_INCREMENT COMMENT 'AUTO_INCREMENT, KEY `x` (`y`)',
  `we``ird` varchar(10) DEFAULT 'a,b''c)\\\\',
  `pid` int DEFAULT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `u` (`we``ird`),
  KEY `k1` (`pid`,`id`),
  KEY `k``2` (((`pid` + 1))),
  FULLTEXT KEY `ft` (`we``ird`),
  CONSTRAINT `fk` FOREIGN KEY (`pid`) REFERENCES `p` (`a`),
  CONSTRAINT `ck` CHECK ((`pid` > 0))
) ENGINE=InnoDB AUTO_INCREMENT=77 DEFAULT CHARSET=utf8mb4 DATA DIRECTORY='/x' COMMENT=' AUTO_INCREMENT=5'"""
TABLE = table(column("id", auto_increment=True), column("we`ird"), column("pid"), create_sql=CREATE)


def read_lines(text: bytes) -> list[Row]:
    """LOAD DATA's rules for fields and lines, from the manual."""
    rows: list[Row] = []
    fields: list[bytes | None] = []
    field = b""
    at = 0
    while at < len(text):
        character = text[at : at + 1]
        if character == b"\\":
            field += b"\\N" if text[at + 1 : at + 2] == b"N" else text[at + 1 : at + 2]
            at += 2
            continue
        if character in b"\t\n":
            fields.append(None if field == b"\\N" else field)
            field = b""
            if character == b"\n":
                rows.append(tuple(fields))
                fields = []
        else:
            field += character
        at += 1
    return rows


@given(st.integers(1, 3).flatmap(lambda n: st.lists(st.tuples(*[st.none() | st.binary(max_size=5)] * n))))
def test_lines_read_back_as_the_rows(rows: list[Row]) -> None:
    rows = [tuple(None if v is None else v.replace(b"N", b"n") for v in row) for row in rows]
    text = b"".join(encode(rows, len(rows[0]) if rows else 1))
    assert read_lines(text) == rows


def test_large_rows_come_in_pieces() -> None:
    pieces = list(encode([(b"x" * 3_000_000,)] * 10, 1))
    assert len(pieces) == 1  # a thousand rows alike are looked at together
    pieces = list(encode([(b"x" * 10_000,)] * 2500, 1))
    assert [piece.count(b"\n") for piece in pieces] == [1000, 1000, 500]


def test_a_sharded_target_has_no_counter_no_foreign_keys_and_its_keys_later() -> None:
    made = target_table(
        TABLE, TargetForm(defer_keys=True, keep_auto_increment=False, keep_foreign_keys=False)
    )
    assert made.create_sql == (
        "CREATE TABLE `t` (\n"
        "  `id` bigint unsigned NOT NULL COMMENT 'AUTO_INCREMENT, KEY `x` (`y`)',\n"
        "  `we``ird` varchar(10) DEFAULT 'a,b''c)\\\\',\n  `pid` int DEFAULT NULL,\n  PRIMARY KEY (`id`),\n"
        "  UNIQUE KEY `u` (`we``ird`),\n  CONSTRAINT `ck` CHECK ((`pid` > 0))\n"
        ") ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT=' AUTO_INCREMENT=5'"
    )
    assert [key.name for key in made.deferred] == ["k1", "k`2", "ft"]
    assert add_keys_sql("s", "t", made.deferred) == (
        "ALTER TABLE `s`.`t` ADD KEY `k1` (`pid`,`id`), ADD KEY `k``2` (((`pid` + 1)))",
        "ALTER TABLE `s`.`t` ADD FULLTEXT KEY `ft` (`we``ird`)",
    )
    assert in_schema(made.create_sql, "s", "t").startswith("CREATE TABLE `s`.`t` (\n  `id`")


def test_keys_that_are_needed_meanwhile_are_not_deferred() -> None:
    made = target_table(TABLE, TargetForm(defer_keys=True, keep_auto_increment=True, keep_foreign_keys=True))
    assert [key.name for key in made.deferred] == ["k`2", "ft"]
    assert "AUTO_INCREMENT=77" in made.create_sql
    assert "FOREIGN KEY" in made.create_sql
    exact = target_table(
        TABLE, TargetForm(defer_keys=False, keep_auto_increment=True, keep_foreign_keys=True)
    )
    assert exact.create_sql == CREATE.replace(" DATA DIRECTORY='/x'", "")
    assert without_counter(CREATE) == without_counter(CREATE.replace("=77", "=78"))
    with pytest.raises(InvalidError):
        target_table(replace(TABLE, create_sql="CREATE VIEW v AS SELECT 1"), TargetForm(True, True, True))


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        (column("v", "int", "int(11)"), column("v", "int", "int"), ""),
        (column("v", "int"), column("v", "bigint"), "is int not null on the source and bigint not null"),
        (column("v", charset=""), column("v", nullable=True), "is int not null on the source and int on"),
        (
            column("v", "varchar"),
            column("v", "varchar", charset="utf8mb4"),
            "latin1 latin1_swedish_ci not null",
        ),
        (column("v", generated=True), column("v"), "is generated on one side only"),
        (column("v"), column("w"), "'v' of table 't' is missing"),
        (column("v", generated=True), column("w"), ""),
    ],
)
def test_layouts_that_would_not_take_a_row_as_it_is(source: object, target: object, told: str) -> None:
    found = layout_differences(table(column("id"), source), table(column("id"), target))  # type: ignore[arg-type]
    assert bool(found) == bool(told)
    assert told in "".join(found)


def test_unique_keys_of_the_target_must_hold_on_the_source() -> None:
    source = table(column("a"), column("b"), unique=("b",))
    assert layout_differences(source, source) == ()
    assert layout_differences(source, table(column("a"), column("b"))) == ()
    (told,) = layout_differences(table(column("a"), column("b")), source)
    assert "unique key 'b' of table 't' on the target does not hold on the source" in told
    (told,) = layout_differences(
        table(column("a"), column("b"), key=("a", "b")), table(column("a"), column("b"))
    )[:1]
    assert "no unique key 'PRIMARY' over (a, b)" in told


def test_what_fits_one_way_only_is_told_by_the_sides_names() -> None:
    wide, narrow = table(column("a"), column("s")), table(column("a"))
    assert layout_differences(narrow, wide) == ()
    told = "column 's' of table 't' is missing on shop/-"
    assert differences_both_ways(narrow, wide, "shop/-", "dst/-80") == (told,)
    assert differences_both_ways(wide, narrow, "dst/-80", "shop/-") == (told,)
    assert differences_both_ways(wide, wide, "shop/-", "dst/-80") == ()


DOCUMENT = b'{"a b\\"": [0, {"c": -0.10}, "2020-01-02"], "u": 7, "x": "base64:type252:YWJj"}'


def test_scalars_that_json_would_lose() -> None:
    # Of the members the outermost come first, and so it is with cells.
    made = typed(DOCUMENT, ".", ".ubn", "..d")
    assert isinstance(made, TypedDocument)
    assert made == DOCUMENT
    assert [(each.path, each.type, each.value) for each in made.scalars] == [
        ('$."u"', "UNSIGNED INTEGER", b"7"),
        ('$."x"', "BLOB", b"abc"),
        ('$."a b\\""[1]."c"', "DECIMAL", b"-0.10"),
        ('$."a b\\""[2]', "DATE", b"2020-01-02"),
    ]
    assert all("{0}" in each.form for each in made.scalars)
    plain = typed(b"[18446744073709551615, 1.5, null]", ".", "", "u..")
    assert type(plain) is bytes
    # The parser makes signed integers of short numbers, and unsigned ones of long.
    assert type(typed(b"[4294967295, 4294967296]", ".", "", "iu")) is bytes
    other = typed(b"[4294967295, 4294967296]", ".", "", "ui")
    assert isinstance(other, TypedDocument)
    assert [each.type for each in other.scalars] == ["UNSIGNED INTEGER", "INTEGER"]


@pytest.mark.parametrize(
    ("number", "declared"),
    [
        ("0", "1,0"), ("0.000", "3,3"), ("-0.10", "2,2"), ("1.50", "11,2"), ("123456789.5", "10,1"),
        ("1234567890", "18,0"), (f"{'9' * 35}.{'9' * 30}", "65,30"), ("9" * 65, "65,0"),
    ],
)  # fmt: skip
def test_decimals_of_json(number: str, declared: str) -> None:
    made = typed(number.encode(), "n", "", "")
    assert isinstance(made, TypedDocument)
    assert made.scalars == (
        Scalar("$", "DECIMAL", f"CAST(CONVERT({{0}} USING utf8mb4) AS DECIMAL({declared}))", number.encode()),
    )


@pytest.mark.parametrize(
    ("document", "letters"),
    [
        (b"[1]", (".", "", "")), (b"[1]", (".", ".", ".")), (b'["1.5"]', (".", "", "n")),
        (b"[1]", (".", "", "d")), (b"[[]]", (".", "", "u")), (b'["abc"]', (".", "", "b")),
        (b"1e5", ("n", "", "")),
    ],
)  # fmt: skip
def test_types_that_do_not_fit_a_document(document: bytes, letters: tuple[str, str, str]) -> None:
    with pytest.raises(errors.MalformedPacketError):
        typed(document, *letters)


def test_bytes_that_nothing_makes_have_no_form() -> None:
    assert not opaque("$", 249, b"tiny").form
    assert not opaque("$", 252, bytes(70_000)).form
    assert not opaque("$", 242, b"").form
    assert opaque("$", 16, b"\1\2").value == b"258"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("ALTER TABLE t ADD c INT", "ALTER TABLE t ADD c INT"),
        ("ALTER TABLE src.t ADD c INT", "ALTER TABLE `dst`.t ADD c INT"),
        (
            "ALTER TABLE `src` . `t` ADD c INT COMMENT 'src.t' /* src.t */",
            "ALTER TABLE `dst`. `t` ADD c INT COMMENT 'src.t' /* src.t */",
        ),
        ("CREATE INDEX i ON src.t (src.tt)", "CREATE INDEX i ON `dst`.t (src.tt)"),
        ("ALTER TABLE t ADD c INT DEFAULT (mysrc.t)", "ALTER TABLE t ADD c INT DEFAULT (mysrc.t)"),
    ],
)
def test_a_statement_for_the_target_names_its_schema(sql: str, expected: str) -> None:
    assert in_target(sql, "src", "t", "dst") == expected


def test_specs_progress_and_errors_go_through_a_pipe_unchanged() -> None:
    place = ShardPlace("k", "-80", "s", Endpoint("x", Flavor.MYSQL, "h", 1, "/s", "u", "secret"))
    spec = MoverSpec(
        "w", "forward", 3, Flavor.MYSQL, (place,), (place, place),
        (Placement("t", "xxhash", ("a", "b"), {"p": "1"}),), True, {"-": "uuid:1-5"}, True, OnDdl.EXEC,
    )  # fmt: skip
    assert spec_from_json(spec_to_json(spec)) == spec
    difference = RowDifference("mismatched", "-80", {"id": "1"}, {"v": None}, None)
    verification = Verification(
        "v", "started", 1, 2, 3.0, (TableVerification("t", 1, 0, 0, 0, 0, (difference,)),)
    )
    progress = MoverProgress(
        Phase.COPYING, False, (TableProgress("t", 1, 2),), (StreamProgress("-", "-80", "", 1, 2, 0.5),),
        0.5, 1.0, 2.0, verification, "ddl", "error", False,
    )  # fmt: skip
    assert progress_from_json(progress_to_json(progress)) == progress
    for error in (
        errors.FencedError("taken"),
        errors.PreconditionsFailedError(("a", "b")),
        errors.ServerError(1213, "40001", "Deadlock"),
    ):
        again = error_from_json(error_to_json(error))
        assert type(again) is type(error)
        assert str(again) == str(error)
    assert "ValueError: x" in str(error_from_json(error_to_json(ValueError("x"))))
