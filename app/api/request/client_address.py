"""The address of a client, and whether it connects directly or through a proxy."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ...core.hosts import is_loopback
from ...core.proxies import address_range, client_address, is_loopback_peer
from ...settings import Settings

# Any of these shows that a proxy has forwarded the request, trusted or not.
_PROXY_HEADERS = {
    "HTTP_FORWARDED",
    "HTTP_VIA",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_SERVER",
    "HTTP_X_REAL_IP",
    "HTTP_X_CLIENT_IP",
    "HTTP_TRUE_CLIENT_IP",
    "HTTP_CF_CONNECTING_IP",
}


def throttle_key(environ: Mapping[str, Any], settings: Settings) -> str:
    """The address, or network, under which wrong keys of this client are counted."""
    peer = environ.get("REMOTE_ADDR") or ""
    forwarded = environ.get("HTTP_X_FORWARDED_FOR") or ""
    trusted = settings.trusted_proxies
    if not (trusted and forwarded):
        return _range_of_peer(peer)
    return address_range(client_address(peer, forwarded, trusted))


# Nearly all requests come from few peers, such as one proxy.
@lru_cache(1024)
def _range_of_peer(peer: str) -> str:
    return address_range(client_address(peer, "", ()))


def is_direct(environ: Mapping[str, Any], settings: Settings) -> bool:
    """Whether a process of this machine has sent the request, and no proxy.

    A request through a unix socket counts as forwarded: proxies use those, and need not
    set any header.
    """
    return (
        is_loopback(settings.bind)
        and environ.keys().isdisjoint(_PROXY_HEADERS)
        and is_loopback_peer(environ.get("REMOTE_ADDR") or "")
    )
