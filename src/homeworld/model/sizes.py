"""Cluster sizes: their names, and what a server of one is given on a host. Pure.

The names and figures are PlanetScale's, so that scripts mean here what they mean there. A host may have less
than a size asks for: then a server is given what the host can spare, and whoever lists the sizes is told
that, not what the name says elsewhere. ``homeworld`` is an installation's own size: whatever its
configuration says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from homeworld.model.errors import InvalidError

DEFAULT_SIZE = "homeworld"
_GIB = 1024
_STEP_MB = 128
# Half of what a server is given is its buffer pool: those of a primary and a replica leave half of the host.
_SHARE_OF_HOST = 2


@dataclass(frozen=True, slots=True)
class ServerSize:
    """What a server may use.

    :param buffer_pool_mb: InnoDB's buffer pool in MiB.
    :param max_connections: how many connections it takes.
    :param tmp_table_mb: the largest temporary table of one connection in memory, in MiB.
    :param cpus: how many of the host's CPUs it runs on; 0: all.
    """

    buffer_pool_mb: int
    max_connections: int
    tmp_table_mb: int
    cpus: int


@dataclass(frozen=True, slots=True)
class Host:
    """What the machine has.

    :param cpus: CPUs that servers may run on.
    :param memory_mb: in MiB.
    :param limits_cpus: whether a server can be kept to some of them.
    :param own_pool_mb: the buffer pool of servers of the installation's own size, in MiB.
    """

    cpus: int
    memory_mb: int
    limits_cpus: bool = True
    own_pool_mb: int = 128


@dataclass(frozen=True, slots=True)
class ClusterSize:
    """A size as its name promises it.

    :param cpus: in CPUs; less than one is a share of one.
    :param memory_mb: in MiB; 0: the installation's own size.
    """

    name: str
    cpus: float
    memory_mb: int

    @property
    def is_default(self) -> bool:
        """Whether it is the installation's own."""
        return not self.memory_mb


@dataclass(frozen=True, slots=True)
class GatewaySize:
    """A size of gateways: how many clients of a branch each gateway takes at once; 0: as many as it can."""

    name: str
    most_clients: int


def _size(name: str, cpus: float, gib: float) -> ClusterSize:
    return ClusterSize(name, cpus, int(gib * _GIB))


CLUSTER_SIZES: tuple[ClusterSize, ...] = (
    _size(DEFAULT_SIZE, 0, 0),
    _size("PS_DEV", 1 / 16, 0.5),
    _size("PS_10", 1 / 8, 1),
    _size("PS_20", 1 / 4, 2),
    _size("PS_40", 1 / 2, 4),
    _size("PS_80", 1, 8),
    _size("PS_160", 2, 16),
    _size("PS_320", 4, 32),
    _size("PS_400", 8, 32),
    _size("PS_640", 8, 64),
    _size("PS_700", 16, 32),
    _size("PS_900", 16, 64),
    _size("PS_1280", 16, 128),
    _size("PS_1400", 32, 64),
    _size("PS_1800", 32, 128),
    _size("PS_2100", 48, 96),
    _size("PS_2560", 32, 256),
    _size("PS_2700", 48, 128),
    _size("PS_2800", 64, 128),
)
GATEWAY_SIZES: tuple[GatewaySize, ...] = (
    GatewaySize(DEFAULT_SIZE, 0),
    GatewaySize("VTG_DEV", 250),
    GatewaySize("VTG_5", 1000),
    GatewaySize("VTG_10", 2000),
    GatewaySize("VTG_20", 4000),
    GatewaySize("VTG_40", 8000),
    GatewaySize("VTG_80", 16_000),
    GatewaySize("VTG_320", 32_000),
    GatewaySize("VTG_640", 64_000),
    GatewaySize("VTG_1280", 128_000),
    GatewaySize("VTG_2560", 256_000),
)
_BY_NAME = {size.name: size for size in CLUSTER_SIZES}
_GATEWAYS = {size.name: size for size in GATEWAY_SIZES}
# PS_10, PS-DEV, PS_10_AWS_X86, M_160_AWS_INTEL_D_METAL_118: the number says how large it is.
_ELSEWHERE = re.compile(r"(?:PS|M)_(DEV|[0-9]+)(?:_[A-Z0-9_]+)?\Z", re.ASCII)


def size_named(name: str) -> ClusterSize | None:
    """The size of that name, in any of the ways in which it is written; None: there is none."""
    if name == DEFAULT_SIZE:
        return _BY_NAME[DEFAULT_SIZE]
    found = _ELSEWHERE.match(_plain(name))
    return _BY_NAME.get(f"PS_{found[1]}") if found else None


def checked_size(asked: str, otherwise: str = DEFAULT_SIZE) -> str:
    """The name under which the size that is asked for is kept, or ``otherwise`` where none is.

    :raises InvalidError: there is no such size.
    """
    if not asked:
        return otherwise
    if size_named(asked) is None:
        raise InvalidError(
            f"cluster_size {asked!r} does not exist; the sizes are: "
            + ", ".join(size.name for size in CLUSTER_SIZES)
        )
    return asked if asked == DEFAULT_SIZE else _plain(asked)


def gateway_size_named(name: str) -> GatewaySize | None:
    """The gateways' size of that name; None: there is none."""
    return _GATEWAYS.get(name) or _GATEWAYS.get(_plain(name))


def checked_gateway_size(asked: str) -> str:
    """The name under which the gateways' size that is asked for is kept.

    :raises InvalidError: there is no such size.
    """
    found = gateway_size_named(asked)
    if found is None:
        raise InvalidError(
            f"vtgate_size {asked!r} does not exist; the sizes are: "
            + ", ".join(size.name for size in GATEWAY_SIZES)
        )
    return found.name


def _plain(name: str) -> str:
    return name.upper().replace("-", "_")


def given(size: ClusterSize | None, host: Host) -> ServerSize | None:
    """What a server of the size is given on the host; None: what the installation's configuration says.

    >>> given(size_named("PS_10"), Host(cpus=2, memory_mb=16384))
    ServerSize(buffer_pool_mb=512, max_connections=500, tmp_table_mb=16, cpus=1)
    >>> given(size_named("PS_2800"), Host(cpus=2, memory_mb=8192)).buffer_pool_mb
    2048
    """
    if size is None or size.is_default:
        return None
    memory = min(size.memory_mb, memory_spared(host))
    cpus = max(1, ceil(size.cpus))
    return ServerSize(
        buffer_pool_mb=max(_STEP_MB, memory // 2 // _STEP_MB * _STEP_MB),
        max_connections=min(8000, max(500, memory // _GIB * 125)),
        tmp_table_mb=min(256, max(16, memory // 64)),
        cpus=0 if not host.limits_cpus or cpus >= host.cpus else cpus,
    )


def told(size: ClusterSize, host: Host) -> tuple[int, int]:
    """CPUs and MiB of memory that a server of the size is given on the host, for lists of sizes."""
    server = given(size, host)
    if server is None:
        return host.cpus, 2 * host.own_pool_mb
    return server.cpus or host.cpus, 2 * server.buffer_pool_mb


def memory_spared(host: Host) -> int:
    """The most that one server is given on the host, in MiB; half of it is its buffer pool."""
    return max(2 * _STEP_MB, host.memory_mb // _SHARE_OF_HOST // (2 * _STEP_MB) * (2 * _STEP_MB))


def largest(names: Iterable[str]) -> ClusterSize | None:
    """The size of a server that several keyspaces share: the one that asks for most memory, the
    installation's own only where nobody asks for another.
    """
    sizes = [size for size in map(size_named, names) if size is not None and not size.is_default]
    return max(sizes, key=lambda size: (size.memory_mb, size.cpus), default=None)
