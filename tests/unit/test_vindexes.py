from __future__ import annotations

import json
from pathlib import Path
from typing import NotRequired, TypedDict

import pytest

from homeworld.model.errors import InvalidError
from homeworld.model.keyranges import KeyRange, split_evenly
from homeworld.model.tables import Column
from homeworld.model.vindexes import (
    NOT_OFFERED,
    VINDEX_TYPES,
    UnplaceableError,
    Value,
    make_vindex,
    range_finder,
    shard_picker,
)
from homeworld.model.vindexes.charsets import to_utf8
from homeworld.model.vindexes.loose import collation_key

DATA = Path(__file__).parent / "data"


class Fact(TypedDict):
    vindex: str
    params: NotRequired[dict[str, str]]
    types: list[str]
    values_hex: list[str]
    keyspace_id: str | None


FACTS: list[Fact] = [
    json.loads(line) for line in (DATA / "vindex_facts.jsonl").read_text(encoding="utf-8").splitlines()
]


def value_of(type_: str, hexed: str) -> Value:
    raw = bytes.fromhex(hexed)
    if type_ == "NULL_TYPE":
        return None
    return int(raw) if "INT" in type_ or type_ == "YEAR" else raw


def column(type_: str, *, unsigned: bool = False, charset: str = "", shown: str = "") -> Column:
    return Column(
        name="c",
        type=type_,
        column_type=shown or type_,
        unsigned=unsigned,
        nullable=True,
        charset=charset,
        collation="",
        generated=False,
        auto_increment=False,
        invisible=False,
    )


def test_every_fact_that_vitess_computed_is_agreed_with() -> None:
    assert len(FACTS) >= 490
    seen: set[str] = set()
    for fact in FACTS:
        vindex = make_vindex(fact["vindex"], fact.get("params", {}))
        values = [value_of(t, h) for t, h in zip(fact["types"], fact["values_hex"], strict=True)]
        try:
            found = vindex.map(values).hex()
        except UnplaceableError:
            found = None
        assert found == fact["keyspace_id"], fact
        seen.add(fact["vindex"])
    assert seen == set(VINDEX_TYPES)


def test_collation_keys_agree_with_the_reference() -> None:
    lines = (DATA / "collation_facts.tsv").read_text(encoding="utf-8").splitlines()
    assert len(lines) >= 400
    for line in lines:
        text, key = line.split("\t")
        assert collation_key(bytes.fromhex(text)).hex() == key, text


@pytest.mark.parametrize(
    "text",
    [
        b"\xff",
        b"\xed\xa0\x80",  # a surrogate is no UTF-8
        "क्ष".encode(),  # the virama has a weight and a combining class
        "и\u0327\u0306".encode(),  # a cedilla between a letter and its breve
        "\u0dd9\u0dcf\u0327\u0dca".encode(),
    ],
)
def test_text_without_a_certain_key_is_refused(text: bytes) -> None:
    with pytest.raises(UnplaceableError):
        collation_key(text)


def test_unknown_types_are_named() -> None:
    with pytest.raises(InvalidError, match="unknown vindex type 'nope'"):
        make_vindex("nope", {})
    for name in NOT_OFFERED:
        with pytest.raises(InvalidError, match="not offered"):
            make_vindex(name, {})


@pytest.mark.parametrize(
    ("type_", "params"),
    [
        ("multicol", {}),
        ("multicol", {"column_count": "x"}),
        ("multicol", {"column_count": "9"}),
        ("multicol", {"column_count": "2", "column_bytes": "2,7"}),
        ("multicol", {"column_count": "2", "column_bytes": "8"}),
        ("multicol", {"column_count": "2", "column_bytes": "1,1,1"}),
        ("multicol", {"column_count": "2", "column_bytes": "0,1"}),
        ("multicol", {"column_count": "2", "column_vindex": "hash,multicol"}),
        ("multicol", {"column_count": "1", "column_vindex": "hash,hash"}),
        ("region_experimental", {}),
        ("region_experimental", {"region_bytes": "3"}),
    ],
)
def test_parameters_that_do_not_fit_are_refused(type_: str, params: dict[str, str]) -> None:
    with pytest.raises(InvalidError):
        make_vindex(type_, params)


def test_multicol_shares_the_bytes_that_are_not_told_from_left_to_right() -> None:
    vindex = make_vindex("multicol", {"column_count": "3", "column_vindex": "binary,binary,binary"})
    assert vindex.map([b"abcdef", b"ABCDEF", b"uvwxyz"]) == b"abABCuvw"
    assert vindex.map([b"a", b"", b"u"]) == b"a\0\0\0\0u"


def test_region_refuses_what_does_not_fit() -> None:
    one = make_vindex("region_experimental", {"region_bytes": "1"})
    two = make_vindex("region_experimental", {"region_bytes": "2"})
    with pytest.raises(UnplaceableError):
        one.map([256, 1])
    assert two.map([256, 1]).startswith(b"\x01\x00\x16\x6b")
    with pytest.raises(UnplaceableError):
        two.map([-1, 1])


def test_a_vindex_wants_all_its_columns() -> None:
    with pytest.raises(UnplaceableError):
        make_vindex("hash", {}).map([1, 2])


@pytest.mark.parametrize("shards", [1, 2, 3, 4, 7, 16, 256])
@pytest.mark.parametrize("type_", ["xxhash", "hash", "binary_md5", "unicode_loose_xxhash", "numeric"])
@pytest.mark.parametrize("unsigned", [True, False])
def test_the_compiled_picker_agrees_with_map(type_: str, shards: int, *, unsigned: bool) -> None:
    ranges = split_evenly(shards)
    vindex = make_vindex(type_, {})
    pick = shard_picker(vindex, ranges, [column("bigint", unsigned=unsigned)])
    for number in (0, 1, 2, 77, 255, 256, 65536, 1 << 40, (1 << 63) - 1):
        keyspace_id = vindex.map([number])
        shard = pick((b"%d" % number,))
        assert keyspace_id in ranges[shard]
        assert sum(keyspace_id in key_range for key_range in ranges) == 1


def test_signed_columns_keep_their_sign() -> None:
    ranges = split_evenly(16)
    signed = shard_picker(make_vindex("hash", {}), ranges, [column("int")])
    vindex = make_vindex("hash", {})
    for number in (-1, -2, -128, -(1 << 63)):
        assert vindex.map([number]) in ranges[signed((b"%d" % number,))]
    refusing = shard_picker(make_vindex("hash", {}), ranges, [column("varchar", charset="utf8mb4")])
    with pytest.raises(UnplaceableError):
        refusing((b"-1",))
    with pytest.raises(UnplaceableError):
        signed((None,))


@pytest.mark.parametrize("type_", ["xxhash", "hash", "binary_md5", "numeric"])
def test_zeros_that_a_column_is_filled_up_with_are_not_part_of_its_value(type_: str) -> None:
    filled = column("int", unsigned=True, shown="int(8) unsigned zerofill")
    pick = shard_picker(make_vindex(type_, {}), split_evenly(256), [filled])
    plain = shard_picker(make_vindex(type_, {}), split_evenly(256), [column("int", unsigned=True)])
    for number in (0, 7, 123, 99999999):
        assert pick((b"%08d" % number,)) == plain((b"%d" % number,))


def test_bounds_longer_than_a_byte() -> None:
    ranges = [KeyRange.parse("-1234"), KeyRange.parse("1234-80"), KeyRange.parse("80-")]
    vindex = make_vindex("binary", {})
    pick = shard_picker(vindex, ranges, [column("varbinary", charset="binary")])
    found = [pick((value,)) for value in (b"", b"\x12", b"\x12\x34", b"\x12\x34\x00", b"\x7f\xff", b"\x80")]
    assert found == [0, 0, 1, 1, 1, 2]


@pytest.mark.parametrize(
    "names", [["-80"], ["80-"], ["-80", "90-"], ["-80", "40-"], ["-80", "80-", "-"], [], ["80-", "-80"]]
)
def test_ranges_that_leave_gaps_are_refused(names: list[str]) -> None:
    with pytest.raises(InvalidError):
        range_finder([KeyRange.parse(name) for name in names])


@pytest.mark.parametrize("type_", ["float", "double", "json", "enum", "set", "bit", "timestamp", "geometry"])
def test_columns_that_cannot_place_rows_are_refused(type_: str) -> None:
    with pytest.raises(InvalidError, match="cannot be the column of a vindex"):
        shard_picker(make_vindex("xxhash", {}), split_evenly(2), [column(type_)])


def test_the_copier_of_latin1_agrees_with_a_client_of_utf8() -> None:
    ranges = split_evenly(256)
    vindex = make_vindex("xxhash", {})
    latin1 = shard_picker(vindex, ranges, [column("varchar", charset="latin1")])
    utf8 = shard_picker(vindex, ranges, [column("varchar", charset="utf8mb4")])
    for text in ("plain", "café", "\u20ac 5", "\x81"):
        stored = b"\x81" if text == "\x81" else text.encode("cp1252")
        assert latin1((stored,)) == utf8((text.encode(),))
    assert latin1((None,)) == utf8((None,))


def test_character_sets_without_a_certain_conversion_are_refused() -> None:
    assert to_utf8("utf8mb3") is None
    with pytest.raises(InvalidError, match="ucs2"):
        shard_picker(make_vindex("xxhash", {}), split_evenly(2), [column("varchar", charset="ucs2")])


def test_one_shard_takes_everything_that_has_a_keyspace_id() -> None:
    pick = shard_picker(make_vindex("xxhash", {}), split_evenly(1), [column("int")])
    assert pick((b"5",)) == 0
    numeric = shard_picker(make_vindex("numeric", {}), split_evenly(1), [column("int")])
    with pytest.raises(UnplaceableError):
        numeric((b"-5",))


def test_two_columns() -> None:
    vindex = make_vindex("multicol", {"column_count": "2", "column_bytes": "1", "column_vindex": "xxhash"})
    pick = shard_picker(vindex, split_evenly(4), [column("int"), column("varchar", charset="utf8mb4")])
    assert vindex.map([2, b"7"])[0] == 0x8B
    assert pick((b"2", b"7")) == 2
