"""Trace context: the headers traceparent and tracestate, parsed and written.

Source: https://www.w3.org/TR/trace-context/
"""

import re
from dataclasses import dataclass, replace

_PARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)

# Flags: this trace is recorded; its id is random.
SAMPLED, _RANDOM = 0x01, 0x02

# Characters that every participant has to pass on.
_MAX_STATE = 512


@dataclass(frozen=True, slots=True)
class SpanContext:
    """One span, as others refer to it.

    *state* holds what other vendors need in the trace, and is passed on unchanged.
    """

    trace_id: int
    span_id: int
    flags: int = 0
    state: str = ""

    @property
    def is_sampled(self) -> bool:
        return bool(self.flags & SAMPLED)

    def headers(self) -> dict[str, str]:
        """The headers of a call that is made within this span."""
        ids = f"{self.trace_id:032x}-{self.span_id:016x}"
        headers = {"traceparent": f"00-{ids}-{self.flags:02x}"}
        return headers | {"tracestate": self.state} if self.state else headers

    def child(self, span_id: int) -> "SpanContext":
        """A span in the same trace."""
        return replace(self, span_id=span_id)


def start_span(
    trace_id: int, span_id: int, parent: SpanContext | None, *, sampled: bool
) -> SpanContext:
    """A span in the trace of *parent*; without one, the first span of a new trace."""
    if parent is None:
        return SpanContext(trace_id, span_id, SAMPLED * sampled)
    flags = parent.flags & _RANDOM | SAMPLED * sampled
    return SpanContext(parent.trace_id, span_id, flags, parent.state)


def parse_parent(traceparent: str | None, tracestate: str | None) -> SpanContext | None:
    """The caller's span; None if the headers name no valid one."""
    match = _PARENT.fullmatch(traceparent.strip()) if traceparent else None
    # Version 00 has no further fields; later versions may have some.
    if match is None or (match[1] == "00" and match[5]):
        return None
    trace_id, span_id, flags = (int(match[i], 16) for i in (2, 3, 4))
    if not (trace_id and span_id):
        return None
    state = tracestate or ""
    if len(state) > _MAX_STATE or not (state.isascii() and state.isprintable()):
        state = ""
    return SpanContext(trace_id, span_id, flags & (SAMPLED | _RANDOM), state.strip())
