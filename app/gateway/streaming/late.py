"""Answers a stream at once whose first event is late, and keeps its connection alive.

Until a heartbeat is due, a failure is an answer of its own. Then the answer begins,
with a comment; what fails after that, ends it with a frame.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ...core import sse
from ...core.replay import to_chunks
from ...errors import CallerLeft, Cancelled
from ...upstream.open_calls import OpenCalls
from ..clients.cancellation import Cancellation
from ..outcome import Outcome
from .aside import Aside
from .event_stream import EventStream, error_frame
from .pulse import Pulse


def streamed(
    begin: Callable[[], Outcome],
    every: float,
    cancellation: Cancellation,
    beside_error: Mapping[str, Any],
) -> Outcome:
    """What *begin* comes to, with a comment wherever nothing comes for *every* seconds.

    Raises what *begin* does, if it does so before the first comment is due.
    """
    return _Late(begin, every, cancellation, beside_error).outcome()


class _Late:
    """A stream that begins without knowing what it will be: *begin* is still at it."""

    def __init__(
        self,
        begin: Callable[[], Outcome],
        every: float,
        cancellation: Cancellation,
        beside_error: Mapping[str, Any],
    ) -> None:
        self._every, self._cancellation = every, cancellation
        self._beside_error = beside_error
        self._body: EventStream | None = None
        self._pulse: Pulse | None = None
        self._ended = False
        self._aside = Aside(begin, _let_go)

    def outcome(self) -> Outcome:
        """The outcome, if it comes in time; else one whose body is this."""
        self._aside.start()
        return self._aside.wait(self._every) or Outcome(self)

    def beat(self, pulse: Pulse) -> None:
        """Speak by *pulse*, once it is known what to say."""
        self._pulse = pulse

    def __iter__(self) -> "_Late":
        return self

    def __next__(self) -> bytes:
        if self._body:
            return next(self._body)
        if self._ended:
            raise StopIteration
        return self._next()

    def _next(self) -> bytes:
        try:
            outcome = self._aside.wait(self._every)
        except Exception as e:
            self._ended = True
            return sse.encode(error_frame(_reason(e), self._beside_error))
        if outcome is None:
            return sse.KEEP_ALIVE
        self._body = _stream_of(outcome)
        if self._pulse:
            self._body.beat(self._pulse)
        return next(self._body)

    def close(self) -> None:
        """Let go of what has begun, and end what has not."""
        if self._body:
            self._body.close()
        elif not self._ended:
            self._cancellation.cancel(CallerLeft())
        self._aside.abandon()


def _reason(error: Exception) -> Exception:
    return error.reason if isinstance(error, Cancelled) else error


def _stream_of(outcome: Outcome) -> EventStream:
    """The stream of an answer, though it may be a whole one."""
    if isinstance(outcome.body, EventStream):
        return outcome.body
    assert isinstance(outcome.body, bytes)
    return EventStream(to_chunks(outcome.body, include_usage=False), OpenCalls())


def _let_go(outcome: Outcome) -> None:
    """Close the stream of an outcome that nobody took."""
    if isinstance(outcome.body, EventStream):
        outcome.body.close()
