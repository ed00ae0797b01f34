"""The parts of an upstream HTTP request: hosts, paths, headers."""

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from ..core.routing import Target
from ..errors import InvalidRequest, InvalidRoute

# Nothing that could end the host, or begin a port, a user or another path: callers set
# these values, and the key goes to the host that they name.
_HOST_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")


def host_label(setting: Any, name: str) -> str:
    """The *setting* of this *name* as part of a host or a path. Raises InvalidRoute."""
    value = str(setting or "")
    if len(value) <= 200 and _HOST_LABEL.fullmatch(value):
        return value
    actual = f"not {value[:40]!r}" if value else "and there is none"
    raise InvalidRoute(
        f"Invalid {name}: expected letters, digits, '-', '_' and '.', {actual}.",
        legacy=f"Invalid {name} passed",
    )


def merge_headers(low: Mapping[str, str], high: Mapping[str, str]) -> dict[str, str]:
    """Both, where *high* wins; names are compared without regard to case."""
    overridden = set(map(str.lower, high))
    return {k: v for k, v in low.items() if k.lower() not in overridden} | dict(high)


def quote_path_segment(name: str, safe: str = "") -> str:
    """*name* as one segment of a path; with a slash in *safe*, as several.

    Raises InvalidRequest for `.` and `..`, which lead out of the path.
    """
    # Quoting leaves dots alone, and clients and proxies resolve such segments.
    if {".", ".."} & set(name.split("/")):
        raise InvalidRequest(f"Invalid model: {name[:80]!r}.", param="model")
    return quote(name, safe=safe)


def bearer(target: Target) -> dict[str, str]:
    """The target's key as a bearer token, as most providers take it."""
    return {"Authorization": f"Bearer {target.api_key}"} if target.api_key else {}


def key_header(header: str, scheme: str = "") -> Callable[[Target], dict[str, str]]:
    """The target's key in a *header* of the provider's own."""

    def auth(target: Target) -> dict[str, str]:
        return {header: scheme + target.api_key} if target.api_key else {}

    return auth
