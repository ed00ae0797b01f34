"""What a request leads to, and how many tokens that took."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..core.completion import Completion, Usage, estimate
from ..providers.fitting import Plan
from ..providers.spec import Answer
from .pulse import Pulse


class Stream(Protocol):
    """Pieces of a body, for WSGI."""

    def __iter__(self) -> Iterator[bytes]: ...

    def __next__(self) -> bytes: ...

    def beat(self, pulse: Pulse) -> None:
        """Speak by *pulse* while the next piece is waited for."""

    def close(self) -> None:
        """Let go of everything. Harmless when done twice."""


@dataclass(slots=True)
class Tally:
    """What is known of an answer's tokens: *usage* if it was counted; *made* at least,
    as far as it goes; and *sent* about.
    """

    sent: int = 0
    made: int = 0
    usage: Usage | None = None

    def note(self, answer: Answer) -> None:
        """Take one more piece into account, or the whole."""
        self.usage = answer.usage or self.usage
        if isinstance(answer, Completion):
            self.made += sum(estimate(choice.text) for choice in answer.choices)
        else:
            # Nearly every server sends one token a frame.
            self.made += bool(answer.body)

    @property
    def total(self) -> Usage:
        return self.usage or Usage(self.sent, self.made, estimated=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a caller gets: a whole body or a stream of events.

    *headers* are those of upstream's answer; *plan* says how the target was asked, and
    *warnings* what the caller should know besides. *tally* is what has been counted,
    *told* are headers of the gateway's own.
    """

    body: bytes | Stream
    headers: Mapping[str, str] = field(default_factory=dict)
    plan: Plan | None = None
    warnings: Sequence[str] = ()
    tally: Tally = field(default_factory=Tally)
    told: Mapping[str, str] = field(default_factory=dict)
