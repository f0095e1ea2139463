"""Parse and normalize network addresses, and find the client's in X-Forwarded-For. Pure.

Addresses are never compared as text: `::ffff:127.0.0.1` and `127.0.0.1` are one host. Text that
does not parse never becomes part of a record or the key of a limit.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from shared.limits import FORWARDED_HOPS

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_BRACKETS: Final = re.compile(r"\[([0-9A-Fa-f:.]+)(?:%[\w.~-]+)?\](?::[0-9]{1,5})?", re.ASCII)
_PORT: Final = re.compile(r"([0-9.]+):[0-9]{1,5}", re.ASCII)
_LONGEST: Final = 80  # an IPv6 address with brackets, zone and port
_MAPPED_BITS: Final = 96
_SITE_BITS: Final = 64


def parse_address(text: str) -> str | None:
    """Return the normalized address in `text` without port, brackets and zone, or None.

    An IPv4-mapped IPv6 address (RFC 4291 2.5.5.2) is returned as the IPv4 address.
    """
    address = _parse(text)
    return str(address) if address is not None else None


def _parse(text: str) -> _Address | None:
    bare = text.strip(" \t")
    return _parse_bare(bare) if len(bare) <= _LONGEST else None


@lru_cache(maxsize=256)  # the same peers return, and each address is parsed several times
def _parse_bare(bare: str) -> _Address | None:
    if found := _BRACKETS.fullmatch(bare):
        bare = found[1]
        if ":" not in bare:
            return None
    elif found := _PORT.fullmatch(bare):
        bare = found[1]
    try:
        address = ipaddress.ip_address(bare.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def source_key(address: str) -> str:
    """Return the key for limits by source: an IPv4 address, or the /64 of an IPv6 address.

    A client with one IPv6 address usually has the whole /64. Return "" if `address` does not parse.
    """
    found = _parse(address)
    if found is None:
        return ""
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(ipaddress.IPv6Network((found, _SITE_BITS), strict=False))


@dataclass(frozen=True, slots=True)
class Networks:
    """A set of networks and single addresses."""

    networks: tuple[_Network, ...] = ()

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Networks":
        """Parse addresses and CIDR blocks; `ValueError` quotes the first text that is neither."""
        return cls(tuple(map(parse_network, texts)))

    def __contains__(self, address: object) -> bool:
        found = _parse(address) if isinstance(address, str) else None
        return found is not None and any(found in network for network in self.networks)


def parse_network(text: str) -> _Network:
    """Return the network of a CIDR block or a single address; `ValueError` quotes other text."""
    try:
        network = ipaddress.ip_network(text.strip())
    except ValueError:
        raise ValueError(
            f'"{text}" is neither an address nor a network: write 192.0.2.1 or 192.0.2.0/24'
        ) from None
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


def client_address(peer: str, forwarded: Sequence[str], proxies: Networks) -> str:
    """Return the address that a request came from, "" if `peer` does not parse.

    `forwarded` holds the X-Forwarded-For header lines in order; they count only if the peer is a
    trusted proxy. The lines form one list (RFC 9110 5.3), read from the right: the first address
    that is not a trusted proxy is the client. If a hop does not parse, or all hops are trusted
    proxies, the peer is returned. At most `FORWARDED_HOPS` hops are read.
    """
    known_peer = parse_address(peer) or ""
    if known_peer not in proxies:
        return known_peer
    hops = [hop for hop in ",".join(forwarded).split(",") if hop.strip(" \t")]
    for hop in list(reversed(hops))[:FORWARDED_HOPS]:
        address = parse_address(hop)
        if address is None:
            break
        if address not in proxies:
            return address
    return known_peer
