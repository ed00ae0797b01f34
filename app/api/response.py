"""The answers of the completions endpoint: their headers, and how they are sent."""

import secrets
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from flask import Response
from werkzeug.datastructures import Headers

from ..errors import GatewayError, RateLimited, UpstreamStatus, UpstreamTimeout
from ..gateway.outcome import Outcome
from ..gateway.retries import Trace
from .request.headers import RequestHeaders
from .request.trace_headers import trace_id

# The headers of a stream that keep proxies from buffering it; the last is nginx's.
UNBUFFERED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class FastResponse(Response):
    """A response whose body and headers are complete, and are sent as they are.

    Werkzeug would look for a Location to make absolute, count the length, and encode
    text: none of that applies here, and each costs time.
    """

    def __init__(
        self, body: Iterable[bytes], headers: Mapping[str, str], content_type: str
    ) -> None:
        # Werkzeug copies and searches any other mapping for a content type.
        complete = Headers({**headers, "Content-Type": content_type})
        super().__init__(body, headers=complete, direct_passthrough=True)

    def get_wsgi_headers(self, environ: Mapping[str, Any]) -> Headers:
        return self.headers


class StreamedResponse(FastResponse):
    """A stream of events. The server sends each piece as soon as it is there."""

    def __init__(self, events: Iterable[bytes], headers: Mapping[str, str]) -> None:
        super().__init__(events, {**headers, **UNBUFFERED}, "text/event-stream")


# A proxy refuses an answer whose headers are too long, often more than 8 KB in all. So
# only the last attempts are listed, up to this number and these characters, and a value
# that repeats the caller's own text is cut.
_MAX_ATTEMPTS, _MAX_ATTEMPTS_LENGTH = 32, 4000
_MAX_LENGTH = 1000

_PRINTABLE_ASCII = "".join(map(chr, range(0x20, 0x7F)))


def identifying_headers(
    trace: Trace, request_headers: RequestHeaders, headers: Mapping[str, str]
) -> dict[str, str]:
    """Trace id, request id and target, to be added to the *headers* of an answer."""
    added = {"x-portkey-trace-id": trace.id or trace_id(request_headers)}
    # Upstream's, if it has sent one: that is what its support asks for.
    if "x-request-id" not in headers:
        added["x-request-id"] = f"req_{secrets.token_hex(16)}"
    if trace.target is None:
        return added
    added["x-portkey-provider"] = trace.target.provider
    added["x-portkey-last-used-option-index"] = trace.target.path[:_MAX_LENGTH]
    added["x-portkey-retry-attempt-count"] = str(trace.retries)
    added["x-portkey-cache-status"] = str(trace.cache)
    attempts = [str(attempt) for attempt in trace.attempts[-_MAX_ATTEMPTS:]]
    while len(attempts) > 1 and sum(map(len, attempts)) > _MAX_ATTEMPTS_LENGTH:
        del attempts[0]
    if attempts:
        added["x-lastword-attempts"] = ", ".join(attempts)
    return added


def outcome_headers(outcome: Outcome) -> dict[str, str]:
    """How the request was translated: mode, defaults, dropped parameters, alias."""
    plan = outcome.plan
    if plan is None:
        return {}
    defaults = (f"{name}={value}" for name, value in plan.request.defaults.items())
    # Names of parameters are the caller's own text.
    dropped = (quote(name[:40], safe=" ") for name in plan.dropped)
    values = {
        "x-lastword-via": str(plan.mode),
        "x-lastword-applied-defaults": ", ".join(defaults),
        "x-lastword-dropped-params": ", ".join(dropped),
        "x-lastword-model-alias": plan.target.alias,
        "x-lastword-warning": "; ".join(outcome.warnings),
    }
    headers = {name: _header_value(value) for name, value in values.items() if value}
    return {**headers, **outcome.gateway_headers}


def _header_value(text: str) -> str:
    """*text*, which may be the caller's own, cut and quoted for a header."""
    cut = text[:_MAX_LENGTH]
    is_plain = cut.isascii() and cut.isprintable()
    return cut if is_plain else quote(cut, safe=_PRINTABLE_ASCII)


def failure_headers(trace: Trace, error: GatewayError) -> dict[str, str]:
    """Whether the gateway itself failed, and whether a client should retry."""
    headers = {}
    passed_through = (UpstreamStatus, UpstreamTimeout, RateLimited)
    if trace.attempts and not isinstance(error, passed_through):
        headers["x-portkey-gateway-exception"] = "true"
    if len(trace.attempts) > 1 and not isinstance(error, RateLimited):
        # The retries of an SDK would multiply those of the gateway. An answer to a
        # limit has its own retry-after.
        headers["x-should-retry"] = "false"
    return headers
