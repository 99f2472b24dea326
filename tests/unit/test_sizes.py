"""Sizes: what their names are worth on a host, and which CPUs and pools servers get."""

from __future__ import annotations

import doctest
from pathlib import Path
from types import ModuleType

import pytest

from homeworld.engines import limits, sizing
from homeworld.engines.config import Sizes, render
from homeworld.engines.layout import Layout, Record
from homeworld.model import sizes
from homeworld.model.errors import InvalidError
from homeworld.model.sizes import CLUSTER_SIZES, DEFAULT_SIZE, Host, ServerSize
from homeworld.model.states.resizing import RESIZES, Resize
from homeworld.model.topology import Flavor
from homeworld.schema import texts
from homeworld.workflows import inspection

BIG = Host(cpus=128, memory_mb=1024 * 1024)
SMALL = Host(cpus=2, memory_mb=4096)


@pytest.mark.parametrize("module", [sizes, limits, sizing, texts, inspection], ids=lambda m: m.__name__)
def test_the_examples_hold(module: ModuleType) -> None:
    tried = doctest.testmod(module)
    assert (tried.failed, tried.attempted > 0) == (0, True)


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ("", DEFAULT_SIZE),
        ("homeworld", "homeworld"),
        ("PS-10", "PS_10"),
        ("ps_10", "PS_10"),
        ("PS_10_AWS_X86", "PS_10_AWS_X86"),
        ("M_160_AWS_INTEL_D_METAL_118", "M_160_AWS_INTEL_D_METAL_118"),
        ("PS_DEV", "PS_DEV"),
    ],
)
def test_names_of_sizes_are_taken_in_all_their_forms(asked: str, kept: str) -> None:
    assert sizes.checked_size(asked) == kept
    assert sizes.size_named(kept) is not None


@pytest.mark.parametrize("asked", ["PS_11", "PS", "M_", "homeworld2", "PS_10;DROP", "PS_10\n", "é" * 64, "x"])
def test_other_names_are_refused_with_those_that_there_are(asked: str) -> None:
    with pytest.raises(InvalidError, match="PS_2560"):
        sizes.checked_size(asked)


def test_a_size_is_what_its_name_says_where_the_host_has_it() -> None:
    given = {size.name: sizes.given(size, BIG) for size in CLUSTER_SIZES}
    assert given[DEFAULT_SIZE] is None
    assert given["PS_10"] == ServerSize(512, 500, 16, 1)
    assert given["PS_80"] == ServerSize(4096, 1000, 128, 1)
    assert given["PS_160"] == ServerSize(8192, 2000, 256, 2)
    assert given["PS_2800"] == ServerSize(65536, 8000, 256, 64)
    pools = [size.buffer_pool_mb for size in given.values() if size is not None]
    assert all(pool % 128 == 0 for pool in pools)


def test_a_host_gives_what_it_has() -> None:
    for size in CLUSTER_SIZES:
        server = sizes.given(size, SMALL)
        if server is not None:
            assert server.buffer_pool_mb <= SMALL.memory_mb // 4
            assert server.cpus in {0, 1}
        cpus, memory_mb = sizes.told(size, SMALL)
        assert 1 <= cpus <= 2
        assert memory_mb <= SMALL.memory_mb // 2
    assert sizes.given(sizes.size_named("PS_160"), Host(8, 65536, limits_cpus=False)) == ServerSize(
        8192, 2000, 256, 0
    )


def test_keyspaces_that_share_a_server_have_the_largest_of_their_sizes() -> None:
    assert sizes.largest(["homeworld", "PS_40", "PS_20"]) == sizes.size_named("PS_40")
    assert sizes.largest(["homeworld", "no size", ""]) is None


def test_servers_of_few_cpus_are_spread_over_all() -> None:
    allowed = frozenset(range(4))
    chosen = {limits.choose_cpus(f"server{n}", 1, allowed) for n in range(64)}
    assert frozenset().union(*chosen) == allowed
    assert all(len(one) == 1 for one in chosen)
    assert limits.choose_cpus("one", 3, allowed) == limits.choose_cpus("one", 3, allowed)
    assert limits.choose_cpus("one", 9, allowed) == allowed


def test_the_host_has_cpus_and_memory() -> None:
    host = limits.host()
    assert host.cpus >= 1
    assert host.memory_mb > 256


def test_the_size_stands_in_the_config_file(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    record = Record("one", 1, Flavor.MYSQL, "9.7.0", 21000, "/run/x.sock", None, "")
    plain = render(record, layout.place("one"), Sizes())
    assert "innodb-buffer-pool-size=128M" in plain
    assert "tmp-table-size" not in plain
    sized = Record(
        "one", 1, Flavor.MYSQL, "9.7.0", 21000, "/run/x.sock", None, "", size=ServerSize(512, 700, 32, 1)
    )
    text = render(sized, layout.place("one"), Sizes())
    for line in ("innodb-buffer-pool-size=512M", "max-connections=700", "max-heap-table-size=32M"):
        assert line in text.splitlines()
    layout.make()
    layout.write(sized)
    assert layout.read("one") == sized


def test_every_state_of_a_resize_is_published() -> None:
    assert {state.value for state in Resize} == {"pending", "resizing", "canceled", "completed", "queued"}
    asked = {row.source for row in RESIZES.rows if row.trigger == "cancel"}
    assert asked == {Resize.QUEUED, Resize.PENDING}, "what has begun only goes forward"
