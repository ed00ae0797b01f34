"""What a request leads to, and the calls that it took."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..core.batch import Part
from ..core.completion import Usage
from ..planning.plan import Plan
from .usage_charges import CallRecord


class StreamBody(Protocol):
    """Pieces of a body, for WSGI."""

    def __iter__(self) -> Iterator[bytes]: ...

    def __next__(self) -> bytes: ...

    def beat(self, seconds: float | None) -> None:
        """Send a comment wherever nothing comes for so long."""

    def close(self) -> None:
        """Let go of everything. Harmless when done twice."""


@dataclass(slots=True)
class UsageCounter:
    """The upstream calls of one try. Several threads may begin calls."""

    calls: list[CallRecord] = field(default_factory=list)

    def begin(self, plan: Plan, part: Part) -> CallRecord:
        """The record of a call that is about to be made."""
        record = CallRecord(plan, part, part.request.stream)
        self.calls.append(record)
        return record

    @property
    def total(self) -> Usage:
        """What they are charged, as far as they have come."""
        return sum((call.charge for call in tuple(self.calls)), Usage())


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
