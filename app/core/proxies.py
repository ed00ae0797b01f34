"""Who a request comes from, where proxies may stand between.

A proxy that the operator trusts is believed about who called it, and nobody else is.

Source: https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/X-Forwarded-For
"""

import ipaddress
import re
from functools import lru_cache

from .networks import Address, Network, unwrap_ipv4

# Stands in a list of proxies for whatever calls by a unix socket, which has no address.
UNIX = "unix"
UNIX_PEER = ""

# Proxies in a row that are looked through. Who has more is in a loop.
_MOST = 32

# One customer of a provider has a /64 at least, all of whose addresses are theirs.
# Source: RFC 6177
_IPV6_PREFIX = 64

_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::\d+)?|(\d+\.\d+\.\d+\.\d+):\d+")


def trusted_proxies(text: str) -> tuple[str, ...]:
    """The addresses and networks in *text*, separated by commas. Raises ValueError."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        _network(name)
    return names


def _network(name: str) -> Network | None:
    """None for `unix`. Raises ValueError."""
    if name == UNIX:
        return None
    try:
        return ipaddress.ip_network(name)
    except ValueError as e:
        raise ValueError(
            "must be addresses, networks such as 10.1.0.0/16, or unix, separated by "
            f"commas; {e}"
        ) from e


def client_address(peer: str, forwarded: str, trusted: tuple[str, ...]) -> str:
    """The address that calls by way of *trusted* proxies, or *peer* itself.

    *forwarded* is X-Forwarded-For. Each proxy adds, on the right, who called it: so it
    is read from the right for as long as a trusted proxy speaks. What stands further
    left may be made up by the caller.
    """
    current = _canonical(peer)
    if not (trusted and forwarded):
        return current
    for entry in reversed(forwarded.rsplit(",", _MOST)[-_MOST:]):
        if not _is_trusted(current, trusted):
            break
        address = _parsed(entry)
        if address is None:
            break
        current = str(address)
    return current


def address_range(address: str) -> str:
    """By what wrong keys from *address* are counted: itself, or its network in IPv6."""
    found = _parsed(address)
    if found is None or found.version == 4:
        return address
    network = ipaddress.ip_network((found, _IPV6_PREFIX), strict=False)
    return str(network)


@lru_cache(256)
def is_loopback_peer(peer: str) -> bool:
    """Whether *peer*, who calls by TCP, is on this machine."""
    address = _parsed(peer)
    return bool(address and address.is_loopback)


def _is_trusted(address: str, trusted: tuple[str, ...]) -> bool:
    if address == UNIX_PEER:
        return UNIX in trusted
    found = _parsed(address)
    return found is not None and any(found in each for each in _networks(trusted))


@lru_cache(8)
def _networks(trusted: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(network for network in map(_network, trusted) if network)


def _canonical(text: str) -> str:
    address = _parsed(text)
    return text if address is None else str(address)


def _parsed(text: str) -> Address | None:
    """The address in *text*, which may have a port; IPv4 in IPv6 is IPv4."""
    bare = text.strip().strip('"')
    if match := _WITH_PORT.fullmatch(bare):
        bare = match[1] or match[2]
    try:
        return unwrap_ipv4(ipaddress.ip_address(bare))
    except ValueError:
        return None
