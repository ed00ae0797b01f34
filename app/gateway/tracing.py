"""The spans of a request and of its tries: ids, decided before anybody is called.

What is told of a span is put together when the request is over, by an observer. Until
then only what would be lost is noted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import getrandbits

from ..core import tracecontext
from ..core.routing import Target
from ..core.tracecontext import SpanContext

# Whether a trace of that id, under that parent, is recorded.
Samples = Callable[[int, SpanContext | None], bool]

# Bytes of an answer that are kept until somebody looks at them.
_MOST_READ = 2**16


@dataclass(frozen=True, slots=True)
class AttemptSpan:
    """The span of one try: what was asked, since when, in Unix seconds."""

    span_id: int
    began: float
    target: Target


@dataclass(slots=True)
class RequestSpan:
    """The span of a request. *path* is that of its URL.

    *tries* are in the order of the trace's attempts. *answer* is the JSON of the answer
    or of its first event, *reasons* why the choices of a stream have ended.
    """

    context: SpanContext
    parent: SpanContext | None
    path: str
    tries: list[AttemptSpan] = field(default_factory=list)
    answer: bytes = b""
    reasons: Sequence[bytes] = ()

    @property
    def trace_id(self) -> str:
        """The trace's id in hex digits."""
        return f"{self.context.trace_id:032x}"

    def tried(self, target: Target, now: float) -> Target:
        """*target*, whose calls are made within a span of this try's own."""
        own = self.context.child(getrandbits(64))
        self.tries.append(AttemptSpan(own.span_id, now, target))
        return replace(target, context=own.headers())

    def answered(self, body: bytes, reasons: Sequence[bytes] = ()) -> None:
        """Note an answer, or the first event of one; *reasons* are still to come."""
        self.answer = body if len(body) <= _MOST_READ else b""
        self.reasons = reasons


@dataclass(frozen=True, slots=True)
class Tracing:
    """Begins the spans of requests. One for each process."""

    samples: Samples

    def begin(
        self, path: str, traceparent: str | None, state: str | None
    ) -> RequestSpan:
        """The span of a request whose caller says *traceparent*, and *state*."""
        parent = tracecontext.parse_parent(traceparent, state)
        trace_id = parent.trace_id if parent else getrandbits(128)
        sampled = self.samples(trace_id, parent)
        own = tracecontext.start_span(
            trace_id, getrandbits(64), parent, sampled=sampled
        )
        return RequestSpan(own, parent, path)
