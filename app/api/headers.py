"""Headers in: who is to be called, with which key. Headers out: who answered.

The checks are Portkey's, in its order, and every failure is a 400 in both error shapes.
"""

import uuid
from collections.abc import Iterable, Mapping

from flask import Request
from werkzeug.datastructures import Headers

from ..core.hosts import custom_host
from ..core.routing import Target
from ..errors import InvalidRoute, Unauthorized
from ..providers import PROVIDERS, Provider

# What portkey-ai sends when it was given no key of a provider.
PLACEHOLDER_KEY = "OPENAI_API_KEY"

# Never forwarded, even if the caller asks for it: they belong to one connection, or
# would break the framing of the call upstream.
_NOT_FORWARDED = {
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}

# What callers read of upstream's answer: limits, waits, and who answered.
_PASSED_ON = ("openai-", "x-ratelimit-", "retry-after")
_PASSED_ON_WHOLE = ("x-request-id", "x-should-retry")


def target(request: Request, *, trusted: Iterable[str], local: bool) -> Target:
    """Where this request is to go.

    *trusted* are custom hosts that are exempt from the guard. *local* says that a
    request which names nothing goes to the embedded engine. Raises InvalidRoute or
    Unauthorized.
    """
    headers = request.headers
    name = _provider_name(headers, local)
    provider = _provider(name)
    base_url = _custom_host(headers.get("x-portkey-custom-host"), provider, trusted)
    _refuse_stored(headers)
    forwarded = _forwarded(headers)
    return Target(
        provider=name,
        api_key=_required_key(provider, headers, forwarded),
        base_url=base_url,
        headers=_own_headers(provider, headers) | forwarded,
        request_timeout=_request_timeout(headers.get("x-portkey-request-timeout")),
    )


def check_content_type(request: Request) -> None:
    """Raise InvalidRoute unless the body is JSON, or says nothing of its type."""
    if request.content_type and request.mimetype != "application/json":
        raise InvalidRoute(
            "Invalid content type: expected application/json, but got "
            f"{request.mimetype[:80]!r}.",
            legacy="Invalid content type passed",
            code="invalid_content_type",
        )


def _provider_name(headers: Headers, local: bool) -> str:
    name = headers.get("x-portkey-provider")
    silent = not any(headers.get(f"x-portkey-{h}") for h in ("config", "custom-host"))
    if name:
        return name
    if local and silent and not headers.get("x-portkey-virtual-key"):
        return "local"
    if headers.get("x-portkey-config") or headers.get("x-portkey-virtual-key"):
        _refuse_stored(headers)
    message = "Either x-portkey-config or x-portkey-provider header is required"
    raise InvalidRoute(message, legacy=message)


def _provider(name: str) -> Provider:
    if name not in PROVIDERS:
        raise InvalidRoute(
            f"Invalid provider: x-portkey-provider must be one of "
            f"{', '.join(PROVIDERS)}, not {name[:80]!r}.",
            legacy="Invalid provider passed",
        )
    return PROVIDERS[name]


def _custom_host(
    url: str | None, provider: Provider, trusted: Iterable[str]
) -> str | None:
    if not url:
        return None
    try:
        if provider.hosted:
            raise ValueError(f"provider {provider.name} runs in the gateway itself")
        return custom_host(url, trusted)
    except ValueError as e:
        raise InvalidRoute(
            f"Invalid x-portkey-custom-host: {e}.", legacy="Invalid custom host"
        ) from e


def _refuse_stored(headers: Headers) -> None:
    """Configs and virtual keys are to come; what names them must not go astray."""
    for name in ("x-portkey-config", "x-portkey-virtual-key"):
        if headers.get(name):
            message = f"{name} is not supported by this version of the gateway."
            raise InvalidRoute(message, legacy=message, code="unsupported_header")


def _forwarded(headers: Headers) -> dict[str, str]:
    """The caller's headers that x-portkey-forward-headers names."""
    listed = headers.get("x-portkey-forward-headers", "").lower().split(",")
    names = {name.strip() for name in listed} - _NOT_FORWARDED
    if _bare(headers.get("Authorization", "")) == PLACEHOLDER_KEY:
        names.discard("authorization")
    if "x-portkey-forward-headers" in names:
        message = (
            "forward_headers must not contain the 'x-portkey-forward-headers' header"
        )
        raise InvalidRoute(message, legacy=message)
    return {name: headers[name] for name in sorted(names) if name and name in headers}


def _own_headers(provider: Provider, headers: Headers) -> dict[str, str]:
    return {own: headers[h] for h, own in provider.headers.items() if headers.get(h)}


def _required_key(
    provider: Provider, headers: Headers, forwarded: Mapping[str, str]
) -> str | None:
    key = api_key(headers)
    if provider.needs_key and not key and "authorization" not in forwarded:
        raise Unauthorized(
            f"You didn't provide an API key for {provider.name}. Send it as "
            "x-portkey-api-key, or as Authorization: Bearer YOUR_KEY.",
            code="missing_api_key",
        )
    return key


def api_key(headers: Headers) -> str | None:
    """The caller's key for the provider, wherever its client can put one.

    Portkey's SDKs mean a key of Portkey by x-portkey-api-key, and put the provider's
    into Authorization, which therefore comes first when x-portkey-package-version shows
    that such an SDK is calling.
    """
    names = ["x-portkey-api-key", "Authorization", "x-api-key", "api-key"]
    if headers.get("x-portkey-package-version"):
        names[:2] = reversed(names[:2])
    keys = (_bare(headers.get(name, "")) for name in names)
    return next((key for key in keys if key and key != PLACEHOLDER_KEY), None)


def _bare(value: str) -> str:
    """A key without its scheme."""
    scheme, _, rest = value.strip().partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else value.strip()


def _request_timeout(value: str | None) -> float | None:
    """Milliseconds on the wire, seconds inside. As in Portkey, what is no number, or
    not above 0, sets no limit."""
    try:
        seconds = float(value or 0) / 1000
    except ValueError:
        return None
    return seconds if 0 < seconds < 1e9 else None


def trace_id(request: Request) -> str:
    """The caller's trace id, or a new one."""
    return request.headers.get("x-portkey-trace-id") or str(uuid.uuid4())


def passed_on(upstream: Mapping[str, str]) -> dict[str, str]:
    """Those headers of upstream's answer that callers read."""
    lower = {name.lower(): value for name, value in upstream.items()}
    return {
        name: value
        for name, value in lower.items()
        if name.startswith(_PASSED_ON) or name in _PASSED_ON_WHOLE
    }


def of_route(target: Target) -> dict[str, str]:
    """What the caller learns about the route that its request took."""
    return {
        "x-portkey-provider": target.provider,
        "x-portkey-last-used-option-index": target.path,
        "x-portkey-retry-attempt-count": "0",
        "x-portkey-cache-status": "DISABLED",
    }
