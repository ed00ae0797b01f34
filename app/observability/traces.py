"""Makes spans of requests that are over, and has them exported by OpenTelemetry.

A request is one span, each try of a target one below it. Names are those of the
conventions for generative AI and for HTTP; what they have no name for begins with
`lastword.`. docs/traces.md lists all there is. No key stands in a span, and no text: a
prompt only if the operator asks for that, cut as in the log.

Everything is set by OpenTelemetry's own variables, which its SDK reads. What it exports
with runs in a thread of its own, so that a collector that is away holds up nobody.

Source: https://github.com/open-telemetry/semantic-conventions-genai
"""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson
from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanKind, Status, StatusCode

from ..core.caching import CacheStatus
from ..core.request import CompletionRequest
from ..core.routing import Target
from ..core.tracecontext import SpanContext
from ..errors import GatewayError
from ..gateway.attempts import Attempt
from ..gateway.events import End, Finished
from ..gateway.spans import Span, Try
from ..providers import PROVIDERS
from .logs import prompt

Attributes = Mapping[str, Any]

# A caller may send any tracestate, as often as it likes.
logging.getLogger(api.span.__name__).setLevel(logging.ERROR)

_OPERATION = "text_completion"

# What the conventions call a provider otherwise than its configs do.
_PROVIDERS = {
    "azure-ai": "azure.ai.inference",
    "azure-openai": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "codestral": "mistral_ai",
    "google": "gcp.gemini",
    "mistral-ai": "mistral_ai",
    "perplexity-ai": "perplexity",
    "vertex-ai": "gcp.vertex_ai",
    "x-ai": "x_ai",
}

# Parameters by their legacy names, and what the conventions call them.
_PARAMS = {
    "frequency_penalty": "frequency_penalty",
    "max_tokens": "max_tokens",
    "n": "choice.count",
    "presence_penalty": "presence_penalty",
    "seed": "seed",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
}

# Characters of a name that somebody else has made up.
_LONGEST = 200

# Spans that are exported at once, unless a variable says how many. Under gevent all
# else waits while they are encoded: 8 ms, and with OpenTelemetry's own 512 four times
# that.
_BATCH = 128
_SIZES = ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "OTEL_BSP_MAX_QUEUE_SIZE")

# Seconds for what is left, when the process ends.
_PATIENCE = 5.0


class Traces:
    """Makes spans of requests; with *prompts*, they say what was asked.

    *version* is the gateway's, *otel* are OpenTelemetry's variables.
    """

    def __init__(
        self, version: str, otel: Mapping[str, str], *, prompts: bool = False
    ) -> None:
        provider = TracerProvider(shutdown_on_exit=False)
        self._sampler = provider.sampler
        self._resource = _resource(provider.resource, version)
        self._scope = InstrumentationScope("lastword", version)
        self._prompts = prompts
        self._batch = None if any(map(otel.get, _SIZES)) else _BATCH
        self._processor: BatchSpanProcessor | None = None

    def samples(self, trace_id: int, parent: SpanContext | None) -> bool:
        """Whether that trace is recorded, as OTEL_TRACES_SAMPLER says."""
        within = _within(parent) if parent else None
        result = self._sampler.should_sample(within, trace_id, _OPERATION)
        return result.decision is Decision.RECORD_AND_SAMPLE

    def note(self, finished: Finished) -> None:
        span = finished.trace.span
        if span is None or not span.context.is_sampled:
            return
        processor = self._begun()
        for made in self._spans(finished, span):
            processor.on_end(made)

    def publish(self) -> None:
        """There is nothing to do: spans are exported in a thread of their own."""

    def close(self) -> None:
        """Export what is left, as far as that goes in a few seconds."""
        processor, self._processor = self._processor, None
        if processor is None:
            return
        last = threading.Thread(target=processor.shutdown, name="traces", daemon=True)
        last.start()
        last.join(_PATIENCE)
        if last.is_alive():
            processor.span_exporter.shutdown()

    def _begun(self) -> BatchSpanProcessor:
        """What exports; begun here, since its thread outlives no fork."""
        if self._processor is None:
            self._processor = BatchSpanProcessor(
                OTLPSpanExporter(), max_export_batch_size=self._batch
            )
        return self._processor

    def _spans(self, finished: Finished, span: Span) -> Iterator[ReadableSpan]:
        """Those of the tries, and that of the request around them."""
        tries = list(zip(span.tries, finished.trace.attempts, strict=False))
        for tried, attempt in tries:
            is_last = tried is tries[-1][0]
            yield self._try(finished, span, tried, attempt, is_last=is_last)
        yield self._request(finished, span)

    def _request(self, finished: Finished, span: Span) -> ReadableSpan:
        target = finished.trace.target
        attributes = {
            **_http(span, finished),
            **_asked(target, finished.model),
            **_answered(finished, span),
            **_used(finished),
            **_way(finished),
            **(_content(finished) if self._prompts else {}),
        }
        failed = finished.status >= 500 or finished.end == End.CUT
        return self._made(
            span.context,
            span.parent,
            SpanKind.SERVER,
            finished.began,
            finished.began + finished.took,
            failed=failed,
            attributes=attributes,
        )

    def _try(
        self,
        finished: Finished,
        span: Span,
        tried: Try,
        attempt: Attempt,
        *,
        is_last: bool,
    ) -> ReadableSpan:
        """The span of a try; that of a stream ends with the stream."""
        end = tried.began + attempt.milliseconds / 1000
        error, status = _failure(attempt.status, attempt.failure), _status(attempt)
        answered: Attributes = {}
        if is_last and attempt.failure is None:
            error, answered = _error(finished), _answered(finished, span)
            end = finished.began + finished.took if finished.stream else end
            # Nobody was called for an answer that was given before.
            status = None if finished.trace.cache is CacheStatus.HIT else status
        request = tried.target.request
        attributes = {
            **_asked(tried.target, request.model if request else ""),
            **_place(tried.target),
            **answered,
            **_given("http.response.status_code", status),
            **_given("error.type", error),
            "lastword.target": attempt.path[:_LONGEST],
        }
        return self._made(
            span.context.child(tried.span_id),
            span.context,
            SpanKind.CLIENT,
            tried.began,
            max(end, tried.began),
            failed=error is not None,
            attributes=attributes,
        )

    def _made(
        self,
        own: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        began: float,
        ended: float,
        *,
        failed: bool,
        attributes: Attributes,
    ) -> ReadableSpan:
        model = attributes.get("gen_ai.request.model", "")
        return ReadableSpan(
            f"{_OPERATION} {model}".strip(),
            context=_context(own),
            parent=_context(parent) if parent else None,
            resource=self._resource,
            attributes=attributes,
            kind=kind,
            status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
            start_time=round(began * 1e9),
            end_time=round(ended * 1e9),
            instrumentation_scope=self._scope,
        )


# What is said of a span


def _http(span: Span, finished: Finished) -> Attributes:
    """What a server says of a request."""
    return {
        "http.request.method": "POST",
        "url.path": span.path[:_LONGEST],
        "http.response.status_code": finished.status,
        **_given("error.type", _error(finished)),
    }


def _asked(target: Target | None, model: str) -> Attributes:
    """Who is asked for what."""
    if target is None or target.request is None:
        return {"gen_ai.operation.name": _OPERATION}
    request = target.request
    return {
        "gen_ai.operation.name": _OPERATION,
        "gen_ai.provider.name": _PROVIDERS.get(target.provider, target.provider),
        **_given("gen_ai.request.model", model[:_LONGEST] or None),
        **dict(_params(request)),
        **({"gen_ai.request.stream": True} if request.stream else {}),
        **_given("gen_ai.request.stop_sequences", _stops(request) or None),
    }


def _params(request: CompletionRequest) -> Iterator[tuple[str, int | float]]:
    for name, theirs in _PARAMS.items():
        value = request.params.get(name)
        if isinstance(value, (int, float)) and -(2**63) <= value < 2**63:
            yield f"gen_ai.request.{theirs}", value


def _stops(request: CompletionRequest) -> Sequence[str]:
    return [str(stop)[:_LONGEST] for stop in request.stops]


def _place(target: Target) -> Attributes:
    """Where a target lies; nothing if that cannot be told."""
    try:
        address = urlsplit(PROVIDERS[target.provider].address(target))
        port = address.port or (80 if address.scheme == "http" else 443)
    except (GatewayError, KeyError, ValueError):
        return {}
    if not address.hostname:
        return {}
    return {"server.address": address.hostname, "server.port": port}


def _answered(finished: Finished, span: Span) -> Attributes:
    """What is known of the answer. A choice that was cut has not ended well."""
    document = _document(span.answer)
    reasons = _ended(finished, span) if finished.stream else _reasons(document)
    first = finished.first if finished.stream else None
    return {
        **_given("gen_ai.response.id", _text(document.get("id"))),
        **_given("gen_ai.response.model", _text(document.get("model"))),
        **_given("gen_ai.response.finish_reasons", reasons or None),
        **_given("gen_ai.response.time_to_first_chunk", first),
    }


def _ended(finished: Finished, span: Span) -> Sequence[str]:
    """Why the choices of a stream have ended."""
    if finished.end != End.WHOLE and not span.reasons:
        return ["error"]
    return [reason.decode("utf-8", "replace") for reason in span.reasons]


def _used(finished: Finished) -> Attributes:
    """The tokens of all tries together."""
    usage = finished.usage
    counted = {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "cache_read.input_tokens": usage.cached_tokens or None,
        "reasoning.output_tokens": usage.reasoning_tokens or None,
    }
    return {
        f"gen_ai.usage.{name}": min(count, 2**62)
        for name, count in counted.items()
        if count is not None and count >= 0
    }


def _way(finished: Finished) -> Attributes:
    """What only this gateway says."""
    trace, target = finished.trace, finished.trace.target
    told = {
        "trace_id": trace.id[:_LONGEST],
        "end": finished.end.value,
        "key": trace.key,
        "config": trace.config,
        "virtual_key": target.virtual_key if target else None,
        "target": target.path[:_LONGEST] if target else None,
        "via": finished.via or None,
        "alias": (target.alias[:_LONGEST] or None) if target else None,
        "cache": trace.cache.value.lower(),
        "cost_usd": float(finished.cost) if finished.cost is not None else None,
        "usage_estimated": finished.usage.estimated or None,
    }
    return {f"lastword.{k}": v for k, v in told.items() if v is not None}


def _content(finished: Finished) -> Attributes:
    """What was asked, in the conventions' form for it."""
    parts = [{"type": "text", "content": prompt(finished)}]
    message = {"role": "user", "parts": parts}
    return {"gen_ai.input.messages": orjson.dumps([message]).decode()}


# Errors


def _error(finished: Finished) -> str | None:
    """The kind of failure that a request has ended with."""
    if finished.error is not None:
        return _failure(finished.error.status, type(finished.error).__name__)
    if finished.end == End.WHOLE:
        return None
    return "CallerLeft" if finished.end == End.LEFT else "_OTHER"


def _failure(status: int, kind: str | None) -> str | None:
    """A provider's own status, else the name of our error."""
    return str(status) if kind in _ANSWERED else kind


# Errors that are the provider's answer, with its status.
_ANSWERED = ("UpstreamStatus",)


def _status(attempt: Attempt) -> int | None:
    """The status that the provider has answered with, as far as it has."""
    answered = attempt.failure is None or attempt.failure in _ANSWERED
    return attempt.status if answered else None


# Values


def _given(name: str, value: Any) -> Attributes:
    return {} if value is None else {name: value}


def _text(value: Any) -> str | None:
    return value[:_LONGEST] if value and isinstance(value, str) else None


def _document(answer: bytes) -> Mapping[str, Any]:
    try:
        found = orjson.loads(answer or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _reasons(document: Mapping[str, Any]) -> Sequence[str]:
    choices = document.get("choices")
    each = choices if isinstance(choices, list) else []
    found = (choice.get("finish_reason") for choice in each if isinstance(choice, dict))
    return [reason[:_LONGEST] for reason in found if isinstance(reason, str)]


# OpenTelemetry's own values


def _context(span: SpanContext) -> api.SpanContext:
    state = api.TraceState.from_header([span.state]) if span.state else None
    return api.SpanContext(
        span.trace_id,
        span.span_id,
        is_remote=False,
        trace_flags=api.TraceFlags(span.flags),
        trace_state=state,
    )


def _within(parent: SpanContext) -> Any:
    return api.set_span_in_context(NonRecordingSpan(_context(parent)))


def _resource(found: Resource, version: str) -> Resource:
    """What the variables say of this service, and what they leave out."""
    named = str(found.attributes.get("service.name", "unknown_service"))
    own = (
        {} if not named.startswith("unknown_service") else {"service.name": "lastword"}
    )
    known = found.attributes.get("service.version") or version
    return found.merge(Resource({**own, "service.version": known}))
