"""One upstream call to be made: its URL, headers and body, in the provider's terms."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import orjson

from ..core.request import LEGACY_PARAMS, CompletionRequest
from ..core.routing import Target
from ..errors import InvalidRequest, InvalidRoute

if TYPE_CHECKING:
    from .declaration import Endpoint, ParamMappings, Provider


@dataclass(frozen=True, slots=True)
class HTTPRequest:
    """A decided, unsent HTTP request."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)

    def path(self, hidden: str | None = None) -> str:
        """The path of its URL, without the query, which may hold a key.

        Of a URL below *hidden*, what it adds to that.
        """
        segments = urlsplit(self.url).path.split("/")
        if hidden is None:
            return "/".join(segments)
        stored = urlsplit(hidden).path.rstrip("/").split("/")
        while stored and segments and segments[0] == stored[0]:
            segments, stored = segments[1:], stored[1:]
        return "/".join(["...", *segments])


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One upstream call to be made: a part of a caller's request, for one target."""

    provider: "Provider"
    endpoint: "Endpoint"
    target: Target
    request: CompletionRequest
    params: "ParamMappings" = field(repr=False, default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The request's parameters by the endpoint's names, nested as it wants them."""
        body: dict[str, Any] = {}
        for name, value in self.request.params.items():
            if name in self.params:
                param = self.params[name]
                # `options.temperature` is the temperature in the object `options`.
                *parents, key = param.name.split(".")
                nested = body
                for parent in parents:
                    nested = nested.setdefault(parent, {})
                nested[key] = param.convert(value)
            elif self.endpoint.passes_unknown and name not in LEGACY_PARAMS:
                body[name] = value
        return body

    def url(self, path: str) -> str:
        """The URL of *path*. Names in it are to be quoted by the caller."""
        return self.provider.url(self.target, path)

    def headers(self) -> dict[str, str]:
        """The headers of a JSON request with the target's key."""
        auth = self.provider.auth(self.target)
        return merge_headers(
            {"Content-Type": "application/json", **auth}, self.target.headers
        )

    def post(
        self, path: str, body: Any, headers: Mapping[str, str] = MappingProxyType({})
    ) -> HTTPRequest:
        """The request that posts *body*; headers of the target win over *headers*."""
        merged = merge_headers(headers, self.headers())
        return HTTPRequest("POST", self.url(path), merged, orjson.dumps(body))


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
