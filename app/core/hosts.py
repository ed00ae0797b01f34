"""Which hosts may be called, where no provider's declaration names them: no URL that
reaches further than it shows, no address in the network of the gateway.

The rules began as Portkey's; IPv6 and the odd spellings of IPv4 (`127.1`, `0x7f.1`,
`2130706433`) are read as the addresses that they are.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from .networks import Address, is_internal, unwrap_ipv4
from .text_cache import cached_by_text

# The hosts that are trusted without being named in the open development setting.
LOCALHOST = ("localhost", "127.0.0.1", "::1")

_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_LONGEST_NAME = 253

# Names of metadata services. Most lead to addresses that are refused anyway, once they
# are resolved; here they are refused at once.
_METADATA = (
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
    """The host is, or may be, one of the gateway's own network, and is not trusted."""

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
    return _custom_host(url, tuple(trusted), schemes)


@cached_by_text
def _custom_host(url: str, trusted: tuple[str, ...], schemes: tuple[str, ...]) -> str:
    host = (_parts(url, schemes).hostname or "").lower()
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
    name = host.lower()
    is_trusted = any(_covers(rule, name) for rule in rules)
    if _is_localhost(name):
        return is_trusted and all(map(_is_loopback_address, addresses))
    networks = [rule for rule in rules if "/" in rule]
    return is_trusted or all(_is_public(address, networks) for address in addresses)


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
    return host == "localhost" or _is_loopback_address(host)


def _is_loopback_address(text: str) -> bool:
    address = _address(text)
    return bool(address and address.is_loopback)


def _is_localhost(name: str) -> bool:
    """Whether *name* has to be this machine, whatever a resolver says of it.

    Source: RFC 6761, section 6.3
    """
    return name == "localhost" or name.endswith(".localhost")


def _is_public(text: str, networks: Iterable[str]) -> bool:
    address = _address(text)
    if address is None:
        return False
    return not is_internal(address) or any(_in_network(address, n) for n in networks)


# A base URL has a scheme, a host, a port and a path, and nothing that could end the
# path, or lead out of it: the gateway puts its own path behind it, and the two together
# must be what both say. `urlsplit` drops an empty query or fragment, so this looks at
# the text itself.
_FORBIDDEN = (
    (re.compile(r"[^\x21-\x7e]|\\"), "a blank, a backslash, or no ASCII character"),
    (re.compile(r"\?"), "a query (`?`)"),
    (re.compile(r"#"), "a fragment (`#`)"),
    (re.compile(r";"), "a `;`"),
    (re.compile(r"\.\.|/\.(/|$)"), "a path with `.` or `..`"),
    (re.compile(r"%(?![0-9A-Fa-f]{2})"), "a `%` that is no percent-encoding"),
)

# What must not be hidden behind a percent sign: those that divide a URL, the dot, the
# sign itself, with which the others are encoded twice, and control characters.
_ENCODED = re.compile(rb"[\x00-\x20\x7f/\\.?#;%@:]")

_NETLOC = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]*)?")


def _parts(url: str, schemes: tuple[str, ...]) -> SplitResult:
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
    _refuse_hidden(parts.path)
    return parts


def _refuse_hidden(path: str) -> None:
    for encoded in re.findall(r"(?:%[0-9A-Fa-f]{2})+", path):
        decoded = unquote_to_bytes(encoded)
        if _ENCODED.search(decoded) or not _is_text(decoded):
            raise ValueError(
                f"it must not hold a percent-encoded slash, dot, or other delimiter "
                f"(`{encoded[:12]}`)"
            )


def _is_text(data: bytes) -> bool:
    """Whether *data* is UTF-8; overlong forms of a slash or a dot are not."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _covers(rule: str, host: str) -> bool:
    """Whether the trust in *rule* extends to *host*."""
    if rule.startswith("*."):
        return host.endswith(rule[1:])
    if rule == host or (rule == "localhost" and _is_localhost(host)):
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
        if is_internal(address):
            reason = "it is an address of a private or reserved network"
            raise InternalHost(reason, host)
    elif len(host) > _LONGEST_NAME or not _NAME.fullmatch(host):
        raise ValueError("its host is no valid name")
    elif "api.portkey" in host:
        raise ValueError("it is a gateway itself")
    elif (
        host in _BLOCKED_NAMES
        or host.startswith(_METADATA)
        or ("." + host).endswith(_BLOCKED_SUFFIXES)
    ):
        raise InternalHost("it is a name of an internal network", host)


def _address(host: str) -> Address | None:
    """The address that *host* spells, as the system's resolver would read it.

    One of IPv6 that only carries one of IPv4 is the latter.
    """
    try:
        return unwrap_ipv4(ipaddress.ip_address(host))
    except ValueError:
        return _old_ipv4(host)


def _old_ipv4(host: str) -> Address | None:
    if not re.fullmatch(r"[0-9a-fx.]+", host) or not host[0].isdigit():
        return None
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None
