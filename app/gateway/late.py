"""Answers a stream at once whose first event is late, and keeps its connection alive.

Until a heartbeat is due, a failure is an answer of its own. Then the answer begins,
with a comment; what fails after that, ends it with a frame.
"""

from collections.abc import Callable, Generator, Mapping
from typing import Any

from ..core import sse
from ..core.replay import frames
from ..errors import CallerLeft, Cancelled
from .aside import Aside
from .cancellation import Cancellation
from .outcome import Outcome
from .scope import Scope
from .stream import EventStream, error_frame

# An outcome, and then its frames.
_Steps = Generator[Outcome | bytes | None, None, None]


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
    """A stream that begins without knowing what it will be.

    It goes through *begin*, and then the frames of its stream, in a thread of its own.
    """

    def __init__(
        self,
        begin: Callable[[], Outcome],
        every: float,
        cancellation: Cancellation,
        beside_error: Mapping[str, Any],
    ) -> None:
        self._begin, self._cancellation = begin, cancellation
        self._beside_error = beside_error
        self._body: EventStream | None = None
        self._ended = False
        self._aside: Aside[Any] = Aside(self._steps(), every, _let_go)

    def _steps(self) -> _Steps:
        outcome = self._begin()
        if not isinstance(outcome.body, EventStream):
            yield outcome
            return
        own = outcome.body.divert(self._aside)
        yield outcome
        yield from own

    def outcome(self) -> Outcome:
        """The outcome, if it comes in time; else one whose body is this."""
        self._aside.start()
        first = next(self._aside)
        return Outcome(self) if first is None else first

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
            outcome = next(self._aside)
        except Exception as e:
            self._ended = True
            return sse.encode(error_frame(_reason(e), self._beside_error))
        if outcome is None:
            return sse.KEEP_ALIVE
        self._body = _stream_of(outcome)
        return next(self._body)

    def close(self) -> None:
        """Let go of what has begun, and end what has not."""
        if self._body:
            self._body.close()
        elif not self._ended:
            self._cancellation.cancel(CallerLeft())
        self._aside.close()


def _reason(error: Exception) -> Exception:
    return error.reason if isinstance(error, Cancelled) else error


def _stream_of(outcome: Outcome) -> EventStream:
    """The stream of an answer, though it may be a whole one."""
    if isinstance(outcome.body, EventStream):
        return outcome.body
    assert isinstance(outcome.body, bytes)
    return EventStream(frames(outcome.body, include_usage=False), Scope())


def _let_go(item: Any) -> None:
    """Close the stream of an outcome that nobody took."""
    if isinstance(item, Outcome) and isinstance(item.body, EventStream):
        item.body.close()
