"""Span ids of a request and of its attempts, for OpenTelemetry.

Ids are chosen before the first call, since each call carries its own in `traceparent`.
The spans themselves are built by an observer when the request is over; until then only
what would be lost is kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import getrandbits

from ..core import tracecontext
from ..core.routing import Target
from ..core.tracecontext import SpanContext

# Whether the trace with that id, under that parent, is recorded.
Sampler = Callable[[int, SpanContext | None], bool]

# Bytes of an answer that are kept until the observer reads them.
_MAX_ANSWER = 2**16


@dataclass(frozen=True, slots=True)
class AttemptSpan:
    """The span of one attempt, which *began* at that Unix second."""

    span_id: int
    began: float
    target: Target


@dataclass(slots=True)
class RequestSpan:
    """The span of a request, to that URL *path*.

    *attempts* are in the order of the trace's. *answer* is the JSON of the answer or of
    its first event, *finish_reasons* are those of a stream, filled while it runs.
    """

    context: SpanContext
    parent: SpanContext | None
    path: str
    attempts: list[AttemptSpan] = field(default_factory=list)
    answer: bytes = b""
    finish_reasons: Sequence[bytes] = ()

    @property
    def trace_id(self) -> str:
        """The trace's id in hex digits."""
        return f"{self.context.trace_id:032x}"

    def start_attempt(self, target: Target, now: float) -> Target:
        """*target* with the trace headers of a new span, that of this attempt."""
        child = self.context.child(getrandbits(64))
        self.attempts.append(AttemptSpan(child.span_id, now, target))
        return replace(target, context=child.headers())

    def set_answer(self, body: bytes, finish_reasons: Sequence[bytes] = ()) -> None:
        """Keep an answer, or the first event of a stream, if it is not too large."""
        self.answer = body if len(body) <= _MAX_ANSWER else b""
        self.finish_reasons = finish_reasons


@dataclass(frozen=True, slots=True)
class Tracing:
    """Starts the spans of requests. One for each process."""

    sampler: Sampler

    def begin(
        self, path: str, traceparent: str | None, tracestate: str | None
    ) -> RequestSpan:
        """The span of a request with these headers, in its caller's trace if any."""
        parent = tracecontext.parse_parent(traceparent, tracestate)
        trace_id = parent.trace_id if parent else getrandbits(128)
        sampled = self.sampler(trace_id, parent)
        context = tracecontext.start_span(
            trace_id, getrandbits(64), parent, sampled=sampled
        )
        return RequestSpan(context, parent, path)
