"""Makes spans of requests that are over, and has them exported by OpenTelemetry.

A request is one span, each try of a target one below it. Everything is set by
OpenTelemetry's own variables, which its SDK reads. What it exports with runs in a
thread of its own, so that a collector that is away holds up nobody.
"""

import logging
import threading
from collections.abc import Iterator
from typing import Any

from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanKind, Status, StatusCode

from ..core.tracecontext import SpanContext
from ..gateway.request_record import End, RequestRecord
from ..gateway.retries import Attempt
from ..gateway.tracing import AttemptSpan, RequestSpan
from .otel_settings import Batches
from .span_attributes import OPERATION, Attributes, of_request, of_try

# A caller may send any tracestate, as often as it likes.
logging.getLogger(api.span.__name__).setLevel(logging.ERROR)

# Seconds for what is left, when the process ends.
_PATIENCE = 5.0


class Traces:
    """Makes spans of requests; with *prompts*, they say what was asked.

    *version* is the gateway's, *batches* are how they are exported.
    """

    def __init__(
        self, version: str, batches: Batches, *, prompts: bool = False
    ) -> None:
        provider = TracerProvider(shutdown_on_exit=False)
        self._sampler = provider.sampler
        self._resource = _resource(provider.resource, version)
        self._scope = InstrumentationScope("lastword", version)
        self._prompts = prompts
        self._batches = batches
        self._processor: BatchSpanProcessor | None = None

    def samples(self, trace_id: int, parent: SpanContext | None) -> bool:
        """Whether that trace is recorded, as OTEL_TRACES_SAMPLER says."""
        within = _within(parent) if parent else None
        result = self._sampler.should_sample(within, trace_id, OPERATION)
        return result.decision is Decision.RECORD_AND_SAMPLE

    def note(self, finished: RequestRecord) -> None:
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
                OTLPSpanExporter(),
                self._batches.most,
                self._batches.delay,
                self._batches.size,
            )
        return self._processor

    def _spans(
        self, finished: RequestRecord, span: RequestSpan
    ) -> Iterator[ReadableSpan]:
        """Those of the tries, and that of the request around them."""
        tries = list(zip(span.tries, finished.trace.attempts, strict=False))
        for tried, attempt in tries:
            answered = attempt.failure is None and tried is tries[-1][0]
            yield self._try(finished, span, tried, attempt, answered=answered)
        yield self._request(finished, span)

    def _request(self, finished: RequestRecord, span: RequestSpan) -> ReadableSpan:
        return self._made(
            span.context,
            span.parent,
            SpanKind.SERVER,
            finished.began,
            finished.began + finished.took,
            failed=finished.status >= 500 or finished.end == End.CUT,
            attributes=of_request(finished, span, prompts=self._prompts),
        )

    def _try(
        self,
        finished: RequestRecord,
        span: RequestSpan,
        tried: AttemptSpan,
        attempt: Attempt,
        *,
        answered: bool,
    ) -> ReadableSpan:
        """The span of a try; that of a stream ends with the stream."""
        attributes = of_try(tried.target, attempt, finished, span, answered=answered)
        ended = tried.began + attempt.milliseconds / 1000
        if answered and finished.stream:
            ended = finished.began + finished.took
        return self._made(
            span.context.child(tried.span_id),
            span.context,
            SpanKind.CLIENT,
            tried.began,
            max(ended, tried.began),
            failed="error.type" in attributes,
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
            f"{OPERATION} {model}".strip(),
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
