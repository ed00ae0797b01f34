"""The address of the client, who may be behind proxies.

Only X-Forwarded-For entries of proxies that the operator trusts are believed.

Source: https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/X-Forwarded-For
"""

import ipaddress
import re
from functools import lru_cache

from .networks import Address, Network, unwrap_ipv4

# In a list of proxies: every peer on a unix socket, which has no address.
UNIX = "unix"
UNIX_PEER = ""

# Proxies in a row. More than these are a loop.
_MAX_PROXIES = 32

# A customer of an internet provider has at least a /64 of addresses.
# Source: RFC 6177
_IPV6_PREFIX = 64

_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::\d+)?|(\d+\.\d+\.\d+\.\d+):\d+")


def trusted_proxies(text: str) -> tuple[str, ...]:
    """The addresses and networks in *text*, separated by commas. Raises ValueError."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    try:
        _networks(names)
    except ValueError as e:
        raise ValueError(
            "must be addresses, networks such as 10.1.0.0/16, or unix, separated by "
            f"commas; {e}"
        ) from e
    return names


@lru_cache(8)
def _networks(trusted: tuple[str, ...]) -> tuple[Network, ...]:
    """The networks among *trusted*; `unix` is none."""
    return tuple(ipaddress.ip_network(name) for name in trusted if name != UNIX)


def client_address(peer: str, forwarded: str, trusted: tuple[str, ...]) -> str:
    """The address of the client behind *trusted* proxies, or *peer* itself.

    *forwarded* is X-Forwarded-For. Each proxy appends the address of its own peer: so
    the list is read from the right for as long as the next address is a trusted proxy.
    What stands further left may be made up by the client.
    """
    address = _parse_address(peer)
    current = peer if address is None else str(address)
    if not (trusted and forwarded):
        return current
    for entry in reversed(forwarded.rsplit(",", _MAX_PROXIES)[-_MAX_PROXIES:]):
        if current == UNIX_PEER:
            is_trusted = UNIX in trusted
        else:
            is_trusted = address is not None and any(
                address in network for network in _networks(trusted)
            )
        previous = _parse_address(entry)
        if not is_trusted or previous is None:
            break
        address, current = previous, str(previous)
    return current


def address_range(address: str) -> str:
    """The addresses of one client: *address* itself, or its network in IPv6.

    Failed authentications are counted by it.
    """
    parsed = _parse_address(address)
    if parsed is None or parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, _IPV6_PREFIX), strict=False))


@lru_cache(256)
def is_loopback_peer(peer: str) -> bool:
    """Whether *peer*, a client by TCP, is on this machine."""
    address = _parse_address(peer)
    return bool(address and address.is_loopback)


def _parse_address(text: str) -> Address | None:
    """The address in *text*, which may have a port; IPv4 within IPv6 is IPv4."""
    bare = text.strip().strip('"')
    if match := _WITH_PORT.fullmatch(bare):
        bare = match[1] or match[2]
    try:
        return unwrap_ipv4(ipaddress.ip_address(bare))
    except ValueError:
        return None
