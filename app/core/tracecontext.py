"""Where in a trace a call belongs, as the headers traceparent and tracestate say it.

Source: https://www.w3.org/TR/trace-context/
"""

import re
from dataclasses import dataclass, replace

_PARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)

# Flags: this trace is recorded; its id was made up by chance.
SAMPLED, _RANDOM = 0x01, 0x02

# Every participant has to pass on that much.
_LONGEST_STATE = 512


@dataclass(frozen=True, slots=True)
class SpanContext:
    """One span, for others to refer to: in a trace, with *flags*.

    *state* is what others have said of the trace, to be passed on as it is.
    """

    trace_id: int
    span_id: int
    flags: int = 0
    state: str = ""

    @property
    def is_sampled(self) -> bool:
        return bool(self.flags & SAMPLED)

    def headers(self) -> dict[str, str]:
        """What a call says that is made within this span."""
        ids = f"{self.trace_id:032x}-{self.span_id:016x}"
        told = {"traceparent": f"00-{ids}-{self.flags:02x}"}
        return told | {"tracestate": self.state} if self.state else told

    def child(self, span_id: int) -> "SpanContext":
        """A span in the same trace."""
        return replace(self, span_id=span_id)


def begun(
    trace_id: int, span_id: int, parent: SpanContext | None, *, sampled: bool
) -> SpanContext:
    """A span under *parent*, whose trace that is; or the first of its own trace."""
    if parent is None:
        return SpanContext(trace_id, span_id, SAMPLED * sampled)
    flags = parent.flags & _RANDOM | SAMPLED * sampled
    return SpanContext(parent.trace_id, span_id, flags, parent.state)


def parent(traceparent: str | None, tracestate: str | None) -> SpanContext | None:
    """The span in which a caller has made its call; None if it says nothing sound."""
    found = _PARENT.fullmatch(traceparent.strip()) if traceparent else None
    if found is None or (found[1] == "00" and found[5]):
        return None
    trace_id, span_id, flags = (int(found[i], 16) for i in (2, 3, 4))
    if not (trace_id and span_id):
        return None
    known = flags & (SAMPLED | _RANDOM)
    return SpanContext(trace_id, span_id, known, _state(tracestate or ""))


def _state(given: str) -> str:
    """*given*, if it can stand in a header."""
    sound = len(given) <= _LONGEST_STATE and given.isascii() and given.isprintable()
    return given.strip() if sound else ""
