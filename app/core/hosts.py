"""Custom hosts: which URLs may be called besides those of declared providers.

Protects against server-side request forgery: no URL with hidden parts, and no address
in the gateway's own network. The rules began as Portkey's; IPv6 and the unusual
spellings of IPv4 (`127.1`, `0x7f.1`, `2130706433`) are read as the addresses they are.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from .networks import Address, is_internal, unwrap_ipv4

# Hosts that the development setting trusts by default.
LOCALHOST = ("localhost", "127.0.0.1", "::1")

_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_LONGEST_NAME = 253

# Characters of a URL whose result is kept: callers choose them.
_MAX_CACHED_URL = 2000

# Names of metadata services. Most resolve to addresses that are refused anyway; here
# they are refused before they are resolved.
_METADATA_PREFIXES = (
    "metadata.goog",
    "metadata.azure.",
    "metadata.tencentyun.",
    "metadata.packet.net",
    "metadata.platformequinix.com",
)
_BLOCKED_NAMES = {"metadata", "instance-data"}
_BLOCKED_SUFFIXES = tuple(
    ".local .localdomain .internal .intranet .lan .home .corp .test .invalid .onion"
    " .localhost .home.arpa".split()
)


class InternalHost(ValueError):
    """The host is, or may be, in the gateway's own network, and is not trusted."""

    def __init__(self, reason: str, host: str) -> None:  # noqa: B042 - never pickled
        self.reason, self.host = reason, host
        super().__init__(
            f"{reason}, and called only if GATEWAY_TRUSTED_CUSTOM_HOSTS lists {host}"
        )


def custom_host(
    url: str, trusted: Iterable[str], schemes: tuple[str, ...] = ("http", "https")
) -> str:
    """*url* without a final slash, if it may be called; else ValueError says why not.

    *trusted* names hosts that may be internal: `name`, `*.suffix`, an address, or a
    network in CIDR form.
    """
    rules = tuple(trusted)
    if len(url) > _MAX_CACHED_URL:
        return _check_custom_host.__wrapped__(url, rules, schemes)
    return _check_custom_host(url, rules, schemes)


@lru_cache(256)
def _check_custom_host(
    url: str, trusted: tuple[str, ...], schemes: tuple[str, ...]
) -> str:
    host = (_split_base_url(url, schemes).hostname or "").lower()
    if not any(_rule_covers(rule.strip().lower(), host) for rule in trusted):
        address = _parse_address(host)
        if address is not None and is_internal(address):
            reason = "it is an address of a private or reserved network"
            raise InternalHost(reason, host)
        if address is None:
            _check_public_name(host)
    return url.strip().rstrip("/")


def _check_public_name(host: str) -> None:
    """Raise ValueError or InternalHost unless *host* may be a name on the internet."""
    if len(host) > _LONGEST_NAME or not _NAME.fullmatch(host):
        raise ValueError("its host is no valid name")
    if "api.portkey" in host:
        raise ValueError("it is a gateway itself")
    if (
        host in _BLOCKED_NAMES
        or host.startswith(_METADATA_PREFIXES)
        or ("." + host).endswith(_BLOCKED_SUFFIXES)
    ):
        raise InternalHost("it is a name of an internal network", host)


def may_be_called(host: str, addresses: Iterable[str], trusted: Iterable[str]) -> bool:
    """Whether *host*, which resolves to all of *addresses*, may be called.

    One internal address among them is enough to refuse: a name with both kinds is made
    to get past such a check. To trust the host 127.0.0.1 is not to trust every name
    that resolves to it; to trust the network 127.0.0.1/32 is.
    """
    rules = [rule.strip().lower() for rule in trusted]
    name = host.lower()
    is_trusted = any(_rule_covers(rule, name) for rule in rules)
    if _is_localhost(name):
        return is_trusted and all(map(_is_loopback_address, addresses))
    if is_trusted:
        return True
    networks = [rule for rule in rules if "/" in rule]
    for text in addresses:
        address = _parse_address(text)
        if address is None:
            return False
        if is_internal(address) and not any(_contains(n, address) for n in networks):
            return False
    return True


@lru_cache(8)
def is_loopback(bind: str) -> bool:
    """Whether a server that is bound to *bind* is reachable from this machine only.

    One or more of `127.0.0.1:8787`, `[::1]:80`, `http://...`, `unix:/path`.
    """
    for address in map(str.strip, bind.split(",")):
        if address.startswith("unix:"):
            continue
        # A file descriptor may be any socket.
        if address.startswith("fd://"):
            return False
        url = urlsplit(address if "//" in address else "//" + address)
        host = url.hostname or ""
        if host != "localhost" and not _is_loopback_address(host):
            return False
    return True


def _is_loopback_address(text: str) -> bool:
    address = _parse_address(text)
    return bool(address and address.is_loopback)


def _is_localhost(name: str) -> bool:
    """Whether *name* has to be this machine, whatever a resolver answers.

    Source: RFC 6761, section 6.3
    """
    return name == "localhost" or name.endswith(".localhost")


# A base URL has a scheme, a host, a port and a path, and nothing that could end the
# path or lead out of it: the gateway appends its own path, and both together must be
# what they seem. `urlsplit` drops an empty query or fragment, so the text itself is
# checked.
_FORBIDDEN = (
    (re.compile(r"[^\x21-\x7e]|\\"), "a blank, a backslash, or no ASCII character"),
    (re.compile(r"\?"), "a query (`?`)"),
    (re.compile(r"#"), "a fragment (`#`)"),
    (re.compile(r";"), "a `;`"),
    (re.compile(r"\.\.|/\.(/|$)"), "a path with `.` or `..`"),
    (re.compile(r"%(?![0-9A-Fa-f]{2})"), "a `%` that is no percent-encoding"),
)

# What must not be percent-encoded: the delimiters of a URL, the dot, the percent sign
# itself (which hides a second encoding), and control characters.
_FORBIDDEN_ENCODED = re.compile(rb"[\x00-\x20\x7f/\\.?#;%@:]")
_PERCENT_ENCODED = re.compile(r"(?:%[0-9A-Fa-f]{2})+")

_NETLOC = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]*)?")


def _split_base_url(url: str, schemes: tuple[str, ...]) -> SplitResult:
    """The parts of *url*. Raises ValueError if it is no base URL."""
    text = url.strip()
    for pattern, name in _FORBIDDEN:
        if pattern.search(text):
            raise ValueError(f"it must not hold {name}")
    parts = urlsplit(text)
    if parts.scheme not in schemes:
        names = " or ".join(f"{scheme}://" for scheme in schemes)
        raise ValueError(f"it must start with {names}")
    if "@" in parts.netloc:
        raise ValueError("it must not hold credentials")
    if not parts.netloc or parts.port == 0:
        raise ValueError("it must hold a host, and a port other than 0")
    if not _NETLOC.fullmatch(parts.netloc):
        raise ValueError("its host is no valid name, and no address")
    for encoded in _PERCENT_ENCODED.findall(parts.path):
        decoded = unquote_to_bytes(encoded)
        # Overlong forms of a slash or a dot are not UTF-8.
        is_utf8 = decoded.decode(errors="ignore").encode() == decoded
        if _FORBIDDEN_ENCODED.search(decoded) or not is_utf8:
            raise ValueError(
                f"it must not hold a percent-encoded slash, dot, or other delimiter "
                f"(`{encoded[:12]}`)"
            )
    return parts


def _rule_covers(rule: str, host: str) -> bool:
    """Whether *host* is trusted by *rule*."""
    if rule.startswith("*."):
        return host.endswith(rule[1:])
    if rule == host or (rule == "localhost" and _is_localhost(host)):
        return True
    address = _parse_address(host)
    return address is not None and _contains(rule, address)


def _contains(network: str, address: Address) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _parse_address(host: str) -> Address | None:
    """The address that *host* spells, as the system's resolver would read it.

    An IPv6 address that embeds an IPv4 address is the latter.
    """
    try:
        return unwrap_ipv4(ipaddress.ip_address(host))
    except ValueError:
        pass
    # The resolver also accepts `127.1`, `0x7f.1` and `2130706433`.
    if not re.fullmatch(r"[0-9a-fx.]+", host) or not host[0].isdigit():
        return None
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None
