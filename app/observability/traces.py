"""Builds spans of finished requests and exports them with OpenTelemetry's SDK.

A request is one span, each attempt at a target one below it. OpenTelemetry's own
variables configure the exporter, which runs in a thread of its own: a collector that
does not answer delays no request.

Spans are not started and ended while a request runs, as the SDK's `Tracer` would do
it: a `ReadableSpan` is built from the record afterwards, off the hot path.

Source: https://opentelemetry.io/docs/specs/otel/trace/sdk/
"""

import logging
import threading
from collections.abc import Iterator

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
from ..gateway.tracing import RequestSpan
from .otel_settings import Batches
from .span_attributes import (
    OPERATION,
    Attributes,
    attempt_attributes,
    request_attributes,
)

# A caller may send any tracestate; the SDK would log a warning for each invalid one.
logging.getLogger(api.span.__name__).setLevel(logging.ERROR)

# Seconds for the last export, when the process ends.
_SHUTDOWN_TIMEOUT = 5.0


class SpanObserver:
    """Exports spans of requests; with *prompts*, their prompts too.

    *version* is the gateway's, *batches* says how spans are exported.
    """

    def __init__(
        self, version: str, batches: Batches, *, prompts: bool = False
    ) -> None:
        # Only for what it reads from the environment: the sampler and the resource. It
        # neither starts nor exports spans here, and must not handle the process's exit.
        provider = TracerProvider(shutdown_on_exit=False)
        self._sampler = provider.sampler
        # Defaults for what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES leave open:
        # the SDK's own name would be "unknown_service:python".
        attributes = provider.resource.attributes
        service = str(attributes.get("service.name", "unknown_service"))
        defaults = {"service.version": attributes.get("service.version") or version}
        if service.startswith("unknown_service"):
            defaults["service.name"] = "lastword"
        self._resource = provider.resource.merge(Resource(defaults))
        self._scope = InstrumentationScope("lastword", version)
        self._prompts = prompts
        self._batches = batches
        self._processor: BatchSpanProcessor | None = None

    def is_sampled(self, trace_id: int, parent: SpanContext | None) -> bool:
        """Whether that trace is recorded, as OTEL_TRACES_SAMPLER says."""
        # Samplers such as `parentbased_always_on` follow the caller's decision, which
        # they look for in the current span of a context.
        context = None
        if parent:
            context = api.set_span_in_context(NonRecordingSpan(_api_context(parent)))
        result = self._sampler.should_sample(context, trace_id, OPERATION)
        return result.decision is Decision.RECORD_AND_SAMPLE

    def note(self, record: RequestRecord) -> None:
        span = record.trace.span
        if span is None or not span.context.is_sampled:
            return
        if self._processor is None:
            # Not in the constructor: the processor starts a thread, which would not
            # survive a fork of the gunicorn master.
            batches = self._batches
            self._processor = BatchSpanProcessor(
                OTLPSpanExporter(), batches.queue, batches.delay, batches.size
            )
        for readable in self._readable_spans(record, span):
            self._processor.on_end(readable)

    def publish(self) -> None:
        """Nothing to do: the processor exports in a thread of its own."""

    def close(self) -> None:
        """Export the spans that wait, for at most a few seconds."""
        processor, self._processor = self._processor, None
        if processor is None:
            return
        # The SDK's shutdown waits for a collector that does not answer, and retries.
        thread = threading.Thread(target=processor.shutdown, name="traces", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # Python is ending, and from 3.12 on starts no thread then.
            processor.shutdown()  # type: ignore[no-untyped-call]
            return
        thread.join(_SHUTDOWN_TIMEOUT)
        if thread.is_alive():
            processor.span_exporter.shutdown()

    def _readable_spans(
        self, record: RequestRecord, span: RequestSpan
    ) -> Iterator[ReadableSpan]:
        """The spans of the attempts, and that of the request around them."""
        pairs = list(zip(span.attempts, record.trace.attempts, strict=False))
        for number, (child, attempt) in enumerate(pairs, 1):
            answered = attempt.failure is None and number == len(pairs)
            # An attempt ends with the head of its response; the one that is streamed to
            # the caller, with the stream.
            end = child.began + attempt.milliseconds / 1000
            if answered and record.stream:
                end = record.ended
            attributes = attempt_attributes(
                child.target, attempt, record, span, answered=answered
            )
            yield self._readable_span(
                span.context.child(child.span_id),
                span.context,
                SpanKind.CLIENT,
                # Clocks may be set back: a span of negative length is invalid.
                (child.began, max(end, child.began)),
                attributes,
                failed="error.type" in attributes,
            )
        yield self._readable_span(
            span.context,
            span.parent,
            SpanKind.SERVER,
            (record.began, record.ended),
            request_attributes(record, span, prompts=self._prompts),
            failed=record.status >= 500 or record.end == End.CUT,
        )

    def _readable_span(
        self,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        times: tuple[float, float],
        attributes: Attributes,
        *,
        failed: bool,
    ) -> ReadableSpan:
        """One span; *times* are those of its begin and end, in Unix seconds."""
        model = attributes.get("gen_ai.request.model", "")
        begin, end = times
        return ReadableSpan(
            f"{OPERATION} {model}".strip(),
            context=_api_context(context),
            parent=_api_context(parent) if parent else None,
            resource=self._resource,
            attributes=attributes,
            kind=kind,
            status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
            start_time=round(begin * 1e9),
            end_time=round(end * 1e9),
            instrumentation_scope=self._scope,
        )


def _api_context(span: SpanContext) -> api.SpanContext:
    """OpenTelemetry's own value for *span*."""
    state = api.TraceState.from_header([span.state]) if span.state else None
    return api.SpanContext(
        span.trace_id,
        span.span_id,
        is_remote=False,
        trace_flags=api.TraceFlags(span.flags),
        trace_state=state,
    )
