"""Random tables: columns of all kinds, keys of all shapes, and where their rows belong.

A design is a wish: what the server does not take, or the preconditions refuse, is no case. Only the laws that
would make nearly every design a refusal are kept here (a vindex's columns stand in each unique key).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from homeworld.model.movers import Placement
from homeworld.model.names import quote
from homeworld.model.topology import Flavor
from tests.fuzz.mover.kinds import Dialect, Kind, Numbers, key_kind, kind

_NAMES = ("a", "B", "select", "a b", "tick`s", "é", "Mixed", "d", "e", "f", "g_h", "i", "key", "N", "o")
_TABLES = ("t", "Orders", "a b", "select", "naïve", "tick's", "x-y", "T2", "group")
# Of text and bytes, of numbers only, and of what has a textual form.
_VINDEXES = ("xxhash", "xxhash", "xxhash", "hash", "numeric", "reverse_bits", "binary_md5", "binary", "unicode_loose_md5", "unicode_loose_xxhash")  # fmt: skip  # noqa: E501
_OF_NUMBERS = {"hash", "numeric", "reverse_bits"}
OWNER = "own er"
"""With several sources: a column that tells the source shard, in each unique key, so that keys never meet."""


@dataclass(frozen=True, slots=True)
class ColumnDesign:
    """A column. ``rest``: what follows its type; ``made``: the server computes it."""

    name: str
    kind: Kind
    rest: str = ""
    made: bool = False
    nullable: bool = True

    @property
    def declaration(self) -> str:
        return f"{quote(self.name)} {self.kind.declared} {self.rest}".rstrip()


@dataclass(frozen=True, slots=True)
class TableDesign:
    """A table. ``key``: names of the columns that rows are found by; ``settings``: before CREATE TABLE."""

    name: str
    columns: tuple[ColumnDesign, ...]
    key: tuple[str, ...]
    create: str
    placement: Placement
    settings: tuple[str, ...] = field(default=())

    def settable(self) -> list[ColumnDesign]:
        """Columns that statements write."""
        return [column for column in self.columns if not column.made]


def design(numbers: Numbers, dialect: Dialect, at: int, *, sharded: bool, owned: bool) -> TableDesign:
    """A table.

    :param owned: rows come from several shards; see :data:`OWNER`.
    """
    names: list[str] = list(_NAMES)
    numbers.shuffle(names)
    key_columns = _key_columns(numbers, dialect, names)
    if owned:
        owner = ColumnDesign(OWNER, Kind("INT", lambda _draw: "0"), "NOT NULL", nullable=False)
        key_columns.insert(numbers.randint(0, len(key_columns)), owner)
    others = [
        _other(numbers, dialect, names.pop()) for _ in range(numbers.choice((0, 1, 2, 3, 4, 6)))
    ]  # fmt: skip
    placed, vindex = _placed(numbers, key_columns) if sharded else ((), "")
    made = _generated(numbers, dialect, [*key_columns, *others], names)
    columns = [*key_columns, *others]
    numbers.shuffle(columns)
    columns += made
    keys = _keys(numbers, dialect, key_columns, columns, (*placed, *((OWNER,) if owned else ())))
    checks = _checks(numbers, columns)
    body = ", ".join([*(column.declaration for column in columns), *keys, *checks])
    name = numbers.choice(_TABLES) + (str(at) if at else "")
    options = numbers.choice(
        ("", "", "", " ROW_FORMAT=COMPRESSED", " COMMENT='AUTO_INCREMENT=7'", " ROW_FORMAT=REDUNDANT")
    )
    create = f"CREATE TABLE {quote(name)} ({body}){options}{_partitions(numbers, key_columns)}"
    modes = ("", "NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES", "NO_BACKSLASH_ESCAPES", "ANSI_QUOTES")
    settings = (f"SET sql_mode='{numbers.choice(modes)}'",)
    return TableDesign(
        name, tuple(columns), tuple(column.name for column in key_columns), create,
        Placement(name, vindex, placed), settings,
    )  # fmt: skip


def _key_columns(numbers: Numbers, dialect: Dialect, names: list[str]) -> list[ColumnDesign]:
    made: list[ColumnDesign] = []
    for _ in range(numbers.choice((1, 1, 1, 2, 2, 3))):
        found = key_kind(numbers, dialect)
        declared = (
            found.declared.replace(" NULL", "") if found.declared.startswith("TIMESTAMP") else found.declared
        )
        declared = declared.split(" DEFAULT ")[0]
        narrowed = Kind(declared, found.value, True, found.places, 0, found.integer)
        made.append(ColumnDesign(names.pop(), narrowed, "NOT NULL", nullable=False))
    return made


def _other(numbers: Numbers, dialect: Dialect, name: str) -> ColumnDesign:
    found = kind(numbers, dialect)
    draw = numbers.random()
    own_rule = " NULL" in found.declared or " DEFAULT " in found.declared
    if own_rule or draw < 0.5:
        return ColumnDesign(name, found, "INVISIBLE" if draw < 0.06 and not own_rule else "")
    # Of a GEOMETRY that may not be NULL and is not given, MariaDB makes an empty one, which is none.
    if draw < 0.75 and found.declared != "GEOMETRY":
        return ColumnDesign(name, found, "NOT NULL", nullable=False)
    value = found.value(numbers)
    constant = value if value.startswith("'") or value.lstrip("-").isdecimal() else f"({value})"
    return ColumnDesign(name, found, f"DEFAULT {constant}")


def _placed(numbers: Numbers, key: Sequence[ColumnDesign]) -> tuple[tuple[str, ...], str]:
    able = [column for column in key if column.kind.places and column.name != OWNER]
    if not able:
        return (numbers.choice(key).name,), "xxhash"
    column = numbers.choice(able)
    positive = column.kind.integer and "UNSIGNED" in column.kind.declared
    choices = [
        name
        for name in _VINDEXES
        if (name == "hash" and column.kind.integer) or name not in _OF_NUMBERS or positive
    ]
    return (column.name,), numbers.choice(choices)


def _generated(
    numbers: Numbers, dialect: Dialect, columns: Sequence[ColumnDesign], names: list[str]
) -> list[ColumnDesign]:
    if numbers.random() < 0.7 or not names:
        return []
    # What a server makes of a DOUBLE beyond its integers comes with warnings, which end a load
    # (docs/decisions/hard-cases.md).
    able = [column for column in columns if not column.kind.declared.startswith(("FLOAT", "DOUBLE"))]
    if not able:
        return []
    base = numbers.choice(able)
    how = numbers.choice(("VIRTUAL", "STORED"))
    number = base.kind.integer or base.kind.declared.startswith(("DECIMAL", "BIT"))
    if number:
        declared, text = "BIGINT", f"({quote(base.name)} % 7)"
    else:
        declared, text = "VARCHAR(90)", f"(LEFT(HEX({quote(base.name)}), 20))"
    del dialect
    made = Kind(f"{declared} GENERATED ALWAYS AS {text} {how}", lambda _draw: "DEFAULT")
    return [ColumnDesign(names.pop(), made, made=True)]


def _keys(
    numbers: Numbers,
    dialect: Dialect,
    key: Sequence[ColumnDesign],
    columns: Sequence[ColumnDesign],
    must: Sequence[str],
) -> list[str]:
    made: list[str] = []
    parts = [quote(column.name) + numbers.choice(("", "", "", " DESC")) for column in key]
    made.append(
        f"UNIQUE KEY uk0 ({', '.join(parts)})"
        if numbers.random() < 0.15
        else f"PRIMARY KEY ({', '.join(parts)})"
    )
    for number in range(numbers.choice((0, 0, 1, 1, 2))):
        unique = numbers.random() < 0.55
        chosen = numbers.sample(list(columns), min(len(columns), numbers.randint(1, 2)))
        wanted = [_part(numbers, column) for column in chosen if column.kind.keyable or column.kind.short]
        if unique:
            wanted += [quote(name) for name in must if name not in {column.name for column in chosen}]
        if wanted:
            made.append(f"{'UNIQUE ' * unique}KEY k{number} ({', '.join(wanted)})")
    if dialect.flavor is Flavor.MYSQL and numbers.random() < 0.1:
        made.append(f"KEY fk1 ((HEX({quote(key[0].name)})))")
    return made


def _part(numbers: Numbers, column: ColumnDesign) -> str:
    if column.kind.short:
        return f"{quote(column.name)}({column.kind.short})"
    return quote(column.name) + numbers.choice(("", "", " DESC"))


def _checks(numbers: Numbers, columns: Sequence[ColumnDesign]) -> list[str]:
    integers = [column for column in columns if column.kind.integer and not column.made]
    if not integers or numbers.random() < 0.85:
        return []
    return [f"CHECK ({quote(numbers.choice(integers).name)} < 1000)"]


def _partitions(numbers: Numbers, key: Sequence[ColumnDesign]) -> str:
    if numbers.random() < 0.85:
        return ""
    column = numbers.choice(key)
    if column.kind.integer and numbers.random() < 0.5:
        return (
            f" PARTITION BY RANGE ({quote(column.name)}) (PARTITION p0 VALUES LESS THAN (5),"
            " PARTITION p1 VALUES LESS THAN MAXVALUE)"
        )
    return f" PARTITION BY KEY ({quote(column.name)}) PARTITIONS 3"
