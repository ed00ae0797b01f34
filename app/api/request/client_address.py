"""Who is at the other end of a request: by address, and by which way they came."""

from collections.abc import Mapping
from typing import Any

from ...core.hosts import is_loopback
from ...core.proxies import address_range, client_address, is_loopback_peer
from ...settings import Settings

# A request that has one of these came through a proxy, whether that is trusted or not.
_OF_PROXIES = {
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
    """By what the wrong keys of this client are counted."""
    return address_range(
        client_address(
            environ.get("REMOTE_ADDR") or "",
            environ.get("HTTP_X_FORWARDED_FOR") or "",
            settings.trusted_proxies,
        )
    )


def is_direct(environ: Mapping[str, Any], settings: Settings) -> bool:
    """Whether a process of this machine has sent it, and no proxy has passed it on.

    What comes by a unix socket counts as passed on: proxies are who uses those, and
    they need not say so.
    """
    return (
        is_loopback(settings.bind)
        and environ.keys().isdisjoint(_OF_PROXIES)
        and is_loopback_peer(environ.get("REMOTE_ADDR") or "")
    )
