"""Which changes of a key's column leave the keys in the order that a copy has gone by."""

from __future__ import annotations

import pytest

from homeworld.model.tables import Column
from homeworld.replication.ddl import keeps_order


def column(declared: str, charset: str = "", collation: str = "") -> Column:
    kind = declared.partition("(")[0].partition(" ")[0]
    return Column("k", kind, declared, "unsigned" in declared, False, charset, collation, False, False, False)


CI, BIN = "utf8mb4_general_ci", "utf8mb4_bin"


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        (column("int(11)"), column("bigint(20)"), True),
        (column("int"), column("int unsigned"), True),
        (column("int"), column("varchar(20)", "utf8mb4", CI), False),
        (column("varchar(20)", "utf8mb4", CI), column("varchar(90)", "utf8mb4", CI), True),
        (column("varchar(20)", "utf8mb4", CI), column("text", "utf8mb4", CI), True),
        (column("varchar(20)", "utf8mb4", CI), column("varchar(20)", "utf8mb4", BIN), False),
        (column("varchar(20)", "latin1", "latin1_swedish_ci"), column("varchar(20)", "utf8mb4", CI), False),
        (column("varchar(20)", "utf8mb3", "utf8mb3_general_ci"), column("varchar(20)", "utf8mb4", CI), True),
        (column("varchar(20)", "utf8", "utf8_general_ci"), column("varchar(20)", "utf8mb4", CI), True),
        (column("varbinary(9)", "binary", "binary"), column("varbinary(20)", "binary", "binary"), True),
        (column("binary(4)", "binary", "binary"), column("binary(8)", "binary", "binary"), False),
        (column("bit(8)"), column("bit(16)"), False),
        (column("datetime"), column("datetime"), True),
        (column("datetime"), column("datetime(3)"), False),
        (column("decimal(9,2)"), column("decimal(12,2)"), True),
        (column("enum('a','b')", "utf8mb4", CI), column("enum('a','b')", "utf8mb4", CI), True),
        (column("enum('a','b')", "utf8mb4", CI), column("enum('a','b','c')", "utf8mb4", CI), True),
        (column("enum('a','b')", "utf8mb4", CI), column("enum('b','a')", "utf8mb4", CI), False),
        (column("enum('a','b')", "utf8mb4", CI), column("enum('a')", "utf8mb4", CI), False),
        (column("set('a','b')", "utf8mb4", CI), column("set('a','b','c')", "utf8mb4", CI), True),
    ],
)  # fmt: skip
def test_order_of_keys(old: Column, new: Column, kept: bool) -> None:
    assert keeps_order(old, new) is kept
