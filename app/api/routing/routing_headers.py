"""Headers in: who is to be called. Headers out: who answered.

The checks are Portkey's, in its order, and every failure is a 400 in both error shapes.
"""

import re
import secrets
import uuid
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from flask import Request

from ... import safe_json
from ...core.forwarding import forwarded_headers
from ...core.hosts import custom_host
from ...core.permissions import Permissions
from ...core.text_cache import cached_by_text
from ...errors import (
    GatewayError,
    InvalidRoute,
    RateLimited,
    UpstreamStatus,
    UpstreamTimeout,
)
from ...gateway.outcome import Outcome
from ...gateway.retries import Trace
from ...gateway.tracing import RequestSpan, Tracing
from ...providers.catalog.known_names import KNOWN_NAMES
from ..config import nodes, parsing
from ..config.nodes import ConfigNode
from ..config.schema import Config
from ..config.sizes import SENT
from ..request.headers import RequestHeaders
from .authentication import PLACEHOLDER_KEY, Caller, bare


@dataclass(frozen=True, slots=True)
class RoutingHeaders:
    """What the headers of a request say about its way.

    *provider* is None if only the config or the *virtual_key* names one, or nobody;
    *stored_id* says which of the operator's own configs it is. *forward* are names of
    headers to send on, in lower case; None leaves that to the config. *request_timeout*
    is in seconds.
    """

    headers: RequestHeaders
    caller: Caller
    provider: str | None
    virtual_key: str | None
    custom_host: str | None
    request_timeout: float | None
    forward: tuple[str, ...] | None
    level: ConfigNode
    stored_id: str | None = None

    @property
    def config(self) -> Config:
        """The config as a whole."""
        return self.level.own

    @property
    def is_stored(self) -> bool:
        """Whether the config is the operator's own."""
        return self.stored_id is not None

    @property
    def names_nothing(self) -> bool:
        """Whether no header says where to go."""
        return not (self.provider or self.virtual_key or self.config)

    @property
    def permissions(self) -> Permissions:
        """What the caller may reach by this config."""
        return self.caller.permissions(self.level if self.is_stored else None)

    @property
    def metadata(self) -> dict[str, Any]:
        """What the caller says of the request; as in Portkey, bad JSON says nothing."""
        try:
            value = safe_json.load(self.headers.get("x-portkey-metadata", "{}"))
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def forwarded(
        self, names: Iterable[str], reserved: Collection[str] | None = None
    ) -> dict[str, str]:
        """Those of the caller's headers that may travel; see core/forwarding.py."""
        lower = [name.strip().lower() for name in names]
        values = {name: self.headers.get(name) for name in lower}
        # What SDKs send in place of a key that they were not given is none.
        sent = {k: v for k, v in values.items() if v and bare(v) != PLACEHOLDER_KEY}
        return forwarded_headers(lower, sent, reserved)


def wanted(headers: RequestHeaders, caller: Caller) -> RoutingHeaders:
    """What *headers* want, checked in Portkey's order. Raises InvalidRoute."""
    provider, virtual_key = _provider(headers)
    trusted = caller.trusted.sent
    host = _custom_host(headers.get("x-portkey-custom-host"), trusted)
    level, stored_id = _level(headers, provider or virtual_key, caller, trusted)
    return RoutingHeaders(
        headers,
        caller,
        provider,
        virtual_key,
        host,
        _request_timeout(headers.get("x-portkey-request-timeout")),
        _forward(headers.get("x-portkey-forward-headers", "")),
        level,
        stored_id,
    )


def check_content_type(request: Request) -> None:
    """Raise InvalidRoute unless the body is JSON, or says nothing of its type."""
    given = RequestHeaders(request.environ).get("content-type") or "application/json"
    if given != "application/json" and request.mimetype != "application/json":
        raise InvalidRoute(
            "Invalid content type: expected application/json, but got "
            f"{request.mimetype[:80]!r}.",
            legacy="Invalid content type passed",
            code="invalid_content_type",
        )


def _provider(headers: RequestHeaders) -> tuple[str | None, str | None]:
    """The provider, or the virtual key: by its own header, or as `@id`."""
    name = headers.get("x-portkey-provider") or ""
    virtual_key = headers.get("x-portkey-virtual-key") or None
    if name.startswith("@"):
        return None, virtual_key or name[1:]
    if name and name not in KNOWN_NAMES:
        raise InvalidRoute(
            f"Invalid provider: x-portkey-provider must be one of "
            f"{', '.join(KNOWN_NAMES)}, or @ and the id of a virtual key, not "
            f"{name[:80]!r}.",
            legacy="Invalid provider passed",
        )
    return name or None, virtual_key


# Ids of configs and virtual keys. Portkey's own begin with `pc-`.
_ID = re.compile(r"(?!null$|true$|false$)[A-Za-z][A-Za-z0-9_.-]{0,79}")


def is_id(text: str) -> bool:
    """Whether *text* can be the id of a config, or of a virtual key."""
    return bool(_ID.fullmatch(text))


def _level(
    headers: RequestHeaders, named: str | None, caller: Caller, trusted: tuple[str, ...]
) -> tuple[ConfigNode, str | None]:
    """The config of the header, if there is one; and its id, if it is a stored one."""
    given, strict = headers.get("x-portkey-config"), is_strict(headers)
    if not given:
        return nodes.nothing(strict), None
    id = given.strip()
    if is_id(id):
        return nodes.stored(caller.config(id), strict), id
    return _read(given, bool(named), trusted, strict), None


def is_strict(headers: RequestHeaders) -> bool:
    """Whether a provider's own words are kept out of answers, as far as headers say."""
    return headers.get("x-portkey-strict-open-ai-compliance") != "false"


# Characters of a config; gunicorn's own limit for one header.
_LONGEST_CONFIG = 65_536


@cached_by_text
def _read(
    text: str, is_named: bool, trusted: tuple[str, ...], strict: bool
) -> ConfigNode:
    """The config in *text*, which must say where to go if nobody else has *named* it.

    It holds what the caller's config holds, credentials as well.
    """
    if len(text) > _LONGEST_CONFIG:
        raise InvalidRoute(
            f"Invalid x-portkey-config: it has {len(text)} characters, and at most "
            f"{_LONGEST_CONFIG} are allowed.",
            legacy="Invalid config passed",
            code="invalid_config",
        )
    document = parsing.read(text)
    if is_named or parsing.names_provider(document):
        checked = parsing.checked(document, trusted, SENT)
        return ConfigNode.of(checked, strict=strict)
    message = (
        "Either x-portkey-provider needs to be passed. Or the x-portkey-config header "
        "should have a valid config with provider details in it."
    )
    raise InvalidRoute(message, legacy=message)


def _custom_host(url: str | None, trusted: Iterable[str]) -> str | None:
    if not url:
        return None
    try:
        return custom_host(url, trusted)
    except ValueError as e:
        raise InvalidRoute(
            f"Invalid x-portkey-custom-host: {e}.",
            legacy="Invalid custom host",
            code="invalid_custom_host",
        ) from e


@cached_by_text
def _forward(listed: str) -> tuple[str, ...] | None:
    names = tuple(name.strip().lower() for name in listed.split(","))
    if "x-portkey-forward-headers" in names:
        message = (
            "forward_headers must not contain the 'x-portkey-forward-headers' header"
        )
        raise InvalidRoute(message, legacy=message)
    return names if listed else None


def _request_timeout(value: str | None) -> float | None:
    """Milliseconds on the wire, seconds inside. As in Portkey, what is no number, or
    not above 0, sets no limit."""
    try:
        seconds = float(value or 0) / 1000
    except ValueError:
        return None
    return seconds if 0 < seconds < 1e9 else None


# It stands in every line of the log about a request, in the ledger, and in the answer.
MAX_TRACE_ID = 128
_TRACE_ID = re.compile(rf"[ -~]{{1,{MAX_TRACE_ID}}}")


def check_trace_id(headers: RequestHeaders) -> None:
    """Raise InvalidRoute for a trace id that is too long, or is not ASCII."""
    given = headers.get("x-portkey-trace-id")
    if not given or _TRACE_ID.fullmatch(given):
        return
    seen = "one with others"
    if len(given) > MAX_TRACE_ID:
        seen = f"{len(given)} characters"
    raise InvalidRoute(
        f"Invalid x-portkey-trace-id: expected at most {MAX_TRACE_ID} printable "
        f"characters of ASCII, not {seen}.",
        legacy="Invalid trace id passed",
    )


def trace_id(headers: RequestHeaders, span: RequestSpan | None = None) -> str:
    """The caller's trace id, that of the trace of *span*, or a new one."""
    given = headers.get("x-portkey-trace-id")
    if given and _TRACE_ID.fullmatch(given):
        return given
    return span.trace_id if span else str(uuid.uuid4())


def span(
    headers: RequestHeaders, path: str, tracing: Tracing | None
) -> RequestSpan | None:
    """The span of a request to *path*, within that of its caller, if there is one."""
    if tracing is None:
        return None
    return tracing.begin(path, headers.get("traceparent"), headers.get("tracestate"))


def signature(
    trace: Trace, given: RequestHeaders, told: Mapping[str, str]
) -> dict[str, str]:
    """Which request this was, and which way it went; beside what is *told* anyway."""
    named = {"x-portkey-trace-id": trace.id or trace_id(given)}
    if "x-request-id" not in told:
        named["x-request-id"] = f"req_{secrets.token_hex(16)}"
    return named | of_trace(trace)


# A proxy refuses an answer whose headers are too long: tries that are shown, the last
# ones, and their characters in all.
_SHOWN_ATTEMPTS = 32
_SHOWN_LENGTH = 4000


# What the caller says may be as long as a config; a proxy takes 8 KB of headers.
_LONGEST = 1000


def of_trace(trace: Trace) -> dict[str, str]:
    """What the caller learns about the way that its request took."""
    if trace.target is None:
        return {}
    told = {
        "x-portkey-provider": trace.target.provider,
        "x-portkey-last-used-option-index": trace.target.path[:_LONGEST],
        "x-portkey-retry-attempt-count": str(trace.retries),
        "x-portkey-cache-status": str(trace.cache),
    }
    items = [str(attempt) for attempt in trace.attempts[-_SHOWN_ATTEMPTS:]]
    while len(items) > 1 and sum(map(len, items)) > _SHOWN_LENGTH:
        del items[0]
    return told | ({"x-lastword-attempts": ", ".join(items)} if items else {})


def of_outcome(outcome: Outcome) -> dict[str, str]:
    """What the caller learns about how its request was understood."""
    plan = outcome.plan
    if plan is None:
        return {}
    defaults = (f"{name}={value}" for name, value in plan.request.defaults.items())
    told = {
        "x-lastword-via": str(plan.mode),
        "x-lastword-applied-defaults": ", ".join(defaults),
        "x-lastword-dropped-params": ", ".join(map(_shown, plan.dropped)),
        "x-lastword-model-alias": plan.target.alias,
        "x-lastword-warning": "; ".join(outcome.warnings),
    }
    shown = {name: _sendable(value) for name, value in told.items() if value}
    return {**shown, **outcome.gateway_headers}


def _sendable(value: str) -> str:
    """*value*, some of which is the caller's own, as it can stand in a header."""
    short = value[:_LONGEST]
    is_plain = short.isascii() and short.isprintable()
    return short if is_plain else quote(short, safe=_PLAIN)


_PLAIN = "".join(map(chr, range(0x20, 0x7F)))


def _shown(name: str) -> str:
    """A caller's own name for a parameter, as it can stand in a list."""
    return quote(name[:40], safe=" ")


def of_failure(trace: Trace, error: GatewayError) -> dict[str, str]:
    """What the caller learns about a way that led nowhere."""
    told = {}
    theirs = (UpstreamStatus, UpstreamTimeout, RateLimited)
    if trace.attempts and not isinstance(error, theirs):
        told["x-portkey-gateway-exception"] = "true"
    if len(trace.attempts) > 1 and not isinstance(error, RateLimited):
        # SDKs would multiply our tries by theirs. A limit says when to come again.
        told["x-should-retry"] = "false"
    return told
