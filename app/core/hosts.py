"""Which custom hosts a caller may name: no way into the network of the gateway.

The rules are Portkey's, with IPv6 and the odd spellings of IPv4 (`127.1`, `0x7f.1`,
`2130706433`) read as the addresses that they are.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

from .memory import remembered

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
_BLOCKED_NAMES = {"metadata", "metadata.google.internal", "metadata.azure.com"}
_BLOCKED_NAMES |= {"instance-data"}
_BLOCKED_SUFFIXES = tuple(
    ".local .localdomain .internal .intranet .lan .home .corp .test .invalid .onion"
    " .localhost".split()
)


def custom_host(url: str, trusted: Iterable[str]) -> str:
    """*url* without a final slash, if it may be called; else ValueError says why not.

    *trusted* names hosts that are exempt: `name`, `*.suffix`, an address, or a network
    in CIDR form.
    """
    return _custom_host(url, tuple(trusted))


@remembered
def _custom_host(url: str, trusted: tuple[str, ...]) -> str:
    parts = _parts(url)
    host = (parts.hostname or "").lower()
    if not any(_covers(rule.strip().lower(), host) for rule in trusted):
        _refuse_internal(host)
    return url.strip().rstrip("/")


def may_be_called(host: str, addresses: Iterable[str], trusted: Iterable[str]) -> bool:
    """Whether *host*, which resolves to all of *addresses*, may be called.

    One internal address among them is enough to refuse: a name that has both is made to
    get past such a check. To trust the host 127.0.0.1 is not to trust every name that
    leads there; to trust the network 127.0.0.1/32 is.
    """
    rules = [rule.strip().lower() for rule in trusted]
    if any(_covers(rule, host.lower()) for rule in rules):
        return True
    networks = [rule for rule in rules if "/" in rule]
    return all(_is_public(address, networks) for address in addresses)


@lru_cache(8)
def is_loopback(bind: str) -> bool:
    """Whether only this machine reaches a server that is bound to *bind*.

    One or more of `127.0.0.1:8787`, `[::1]:80`, `http://...`, `unix:/path`.
    """
    return all(_is_local(each.strip()) for each in bind.split(","))


def _is_local(bind: str) -> bool:
    if bind.startswith(("unix:", "fd://")):
        return bind.startswith("unix:")
    host = urlsplit(bind if "//" in bind else "//" + bind).hostname or ""
    address = _address(host)
    return host == "localhost" or bool(address and address.is_loopback)


def _is_public(address: str, networks: Iterable[str]) -> bool:
    found = _address(address)
    if found is None:
        return False
    return not _is_internal(found) or any(_in_network(found, net) for net in networks)


def _parts(url: str) -> SplitResult:
    if re.search(r"[\x00-\x20\x7f\\]", url.strip()):
        raise ValueError("it holds a blank, a backslash or a control character")
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https"):
        raise ValueError("it must start with http:// or https://")
    if "@" in parts.netloc:
        raise ValueError("it must not hold credentials")
    if parts.query or parts.fragment:
        raise ValueError("it must not hold a query or a fragment")
    if not parts.hostname or parts.port == 0:
        raise ValueError("it must hold a host, and a port other than 0")
    return parts


def _covers(rule: str, host: str) -> bool:
    """Whether the trust in *rule* extends to *host*."""
    if rule.startswith("*."):
        return host.endswith(rule[1:])
    if rule == host or (rule == "localhost" and host.endswith(".localhost")):
        return True
    address = _address(host)
    return address is not None and _in_network(address, rule)


def _in_network(address: Address, network: str) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _refuse_internal(host: str) -> None:
    address = _address(host)
    if address is not None:
        if _is_internal(address):
            raise ValueError("it is an address of a private or reserved network")
    elif not _NAME.fullmatch(host) or host.count(".") > 9:
        raise ValueError("its host is no valid name")
    elif "api.portkey" in host:
        raise ValueError("it is a gateway itself")
    elif host in _BLOCKED_NAMES or ("." + host).endswith(_BLOCKED_SUFFIXES):
        raise ValueError("it is a name of an internal network")


def _is_internal(address: Address) -> bool:
    return not address.is_global or address.is_multicast


# IPv6 addresses that stand for the IPv4 address in their last four bytes (NAT64).
# Source: RFC 6052
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def _address(host: str) -> Address | None:
    """The address that *host* spells, as the system's resolver would read it.

    One of IPv6 that only carries one of IPv4 is the latter.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _old_ipv4(host)
    return _carried(address) or address


def _carried(address: Address) -> Address | None:
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour


def _old_ipv4(host: str) -> Address | None:
    if not re.fullmatch(r"[0-9a-fx.]+", host) or not host[0].isdigit():
        return None
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None
