"""Which addresses a request may go to whose address somebody else has chosen.

Pure: resolves nothing and connects to nothing. Invariant: whatever form an address has, it is judged as the
one that the packets would go to; what is not known to be public is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from homeworld.model.errors import InvalidError

Network = IPv4Network | IPv6Network

_V4 = {
    "0.0.0.0/8": "names this host itself",
    "10.0.0.0/8": "is private",
    "100.64.0.0/10": "is of a provider's inside",
    "127.0.0.0/8": "is loopback",
    "169.254.0.0/16": "is link-local",
    "172.16.0.0/12": "is private",
    "192.0.0.0/24": "is reserved",
    "192.0.2.0/24": "is for documentation",
    "192.88.99.0/24": "is reserved",
    "192.168.0.0/16": "is private",
    "198.18.0.0/15": "is for benchmarks",
    "198.51.100.0/24": "is for documentation",
    "203.0.113.0/24": "is for documentation",
    "224.0.0.0/4": "is multicast",
    "240.0.0.0/4": "is reserved",
}
_V6 = {
    "::1/128": "is loopback",
    "::/128": "names this host itself",
    "fc00::/7": "is private",
    "fe80::/10": "is link-local",
    "fec0::/10": "is private",
    "ff00::/8": "is multicast",
    "2001::/23": "is reserved",
    "2001:db8::/32": "is for documentation",
    "2002::/16": "hides another address",
    "3fff::/20": "is for documentation",
}
_REFUSED: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), why) for network, why in (*_V4.items(), *_V6.items())
)
_PUBLIC_V6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")


def parse_networks(text: str) -> tuple[Network, ...]:
    """Networks from ``10.0.0.0/8,fd00::/8``; the empty text is none.

    :raises InvalidError: a part is no network.
    """
    found: list[Network] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(ip_network(part, strict=False))
        except ValueError:
            raise InvalidError(f"{part!r} is not an IP network such as 10.0.0.0/8") from None
    return tuple(found)


class Reach:
    """What may be reached: everything public, and some networks besides.

    :param networks: allowed although they are not public.
    """

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._networks: Sequence[Network] = tuple(networks)

    def inside(self, address: str) -> bool:
        """Whether an address is in an allowed network."""
        plain = _plain(address)
        return plain is not None and any(plain in network for network in self._networks)

    def refusal(self, address: str) -> str:
        """Why nothing may be sent there, as the end of a sentence; empty: it may."""
        plain = _plain(address)
        if plain is None:
            return f"{address} is not an address"
        if any(plain in network for network in self._networks):
            return ""
        for network, why in _REFUSED:
            if plain in network:
                return f"{address} {why}"
        if isinstance(plain, IPv6Address) and plain not in _PUBLIC_V6:
            return f"{address} is not public"
        return ""


def _plain(address: str) -> IPv4Address | IPv6Address | None:
    """The address that packets go to; None where the text is none."""
    try:
        # With a zone it is of one link only; the zone does not change what it is.
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return found.ipv4_mapped
        if found in _NAT64:
            return IPv4Address(int(found) & 0xFFFFFFFF)
        if int(found) >> 32 == 0 and int(found) > 1:
            return IPv4Address(int(found))
    return found
