"""What a request leads to."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..planning.plan import Plan
from .usage_charges import UsageCounter


class StreamBody(Protocol):
    """Pieces of a body, for WSGI."""

    def __iter__(self) -> Iterator[bytes]: ...

    def __next__(self) -> bytes: ...

    def beat(self, seconds: float | None) -> None:
        """Send a comment wherever nothing comes for so long."""

    def close(self) -> None:
        """Let go of everything. Harmless when done twice."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a caller gets: a whole body or a stream of events.

    *headers* are those of upstream's answer; *plan* says how the target was asked, and
    *warnings* what the caller should know besides. *tally* is what has been counted,
    *gateway_headers* are the gateway's own.
    """

    body: bytes | StreamBody
    headers: Mapping[str, str] = field(default_factory=dict)
    plan: Plan | None = None
    warnings: Sequence[str] = ()
    tally: UsageCounter = field(default_factory=UsageCounter)
    gateway_headers: Mapping[str, str] = field(default_factory=dict)
