"""Keeps the connection of a streamed request alive before its first event.

Until a heartbeat is due, a failure is an answer of its own, with its status. Then the
answer begins, with a comment; what fails after that ends it with an error frame.

What happens meanwhile (waiting for an upstream, retries, fallbacks, an identical
request of another caller) knows nothing of this: it runs in a thread of its own up to
the commit point. The thread that answers the caller waits for that, one heartbeat at a
time.

Tried before: to send the comment from inside the read that waits. It made every wait of
the gateway know whether, and to whom, it may speak.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from ...core import sse
from ...core.replay import to_chunks
from ...errors import CallerLeft, Cancelled
from ...upstream.open_calls import OpenCalls
from ..clients.cancellation import Cancellation
from ..outcome import Outcome
from .event_stream import EventStream, StoredFrames, error_frame


@dataclass(frozen=True, slots=True)
class _Result:
    outcome: Outcome | None = None
    error: BaseException | None = None


class HeartbeatStream:
    """The body of an answer that begins before it is known what *complete* returns."""

    def __init__(
        self,
        complete: Callable[[], Outcome],
        interval: float,
        cancellation: Cancellation,
        beside_error: Mapping[str, Any],
    ) -> None:
        self._complete = complete
        self._interval = interval
        self._cancellation = cancellation
        self._beside_error = beside_error
        self._results: SimpleQueue[_Result] = SimpleQueue()
        self._lock = threading.Lock()
        self._abandoned = False
        self._body: EventStream | None = None
        self._ended = False

    def outcome(self) -> Outcome:
        """The outcome, if it comes within one interval; else one whose body is this.

        Raises what *complete* raises within that time.
        """
        threading.Thread(target=self._work, name="heartbeat", daemon=True).start()
        return self._wait() or Outcome(self)

    def beat(self, seconds: float | None) -> None:
        """As EventStream's; this one was made for that."""

    def __iter__(self) -> "HeartbeatStream":
        return self

    def __next__(self) -> bytes:
        if self._body:
            return next(self._body)
        if self._ended:
            raise StopIteration
        try:
            outcome = self._wait()
        except Exception as e:
            self._ended = True
            error = e.reason if isinstance(e, Cancelled) else e
            return sse.encode(error_frame(error, self._beside_error))
        # A comment can be the first bytes of an answer: its status is 200 from then on.
        if outcome is None:
            return sse.KEEP_ALIVE
        if isinstance(outcome.body, EventStream):
            self._body = outcome.body
        else:
            # A provider that cannot stream, or a stored answer.
            assert isinstance(outcome.body, bytes)
            frames = list(to_chunks(outcome.body, include_usage=False))
            self._body = EventStream(StoredFrames(frames), OpenCalls())
        self._body.beat(self._interval)
        return next(self._body)

    def close(self) -> None:
        """Let go of what has begun, and end what has not."""
        if self._body:
            self._body.close()
        elif not self._ended:
            self._cancellation.cancel(CallerLeft())
        with self._lock:
            self._abandoned = True
        # From here on `_work` closes what it gets. What it got before is in the queue.
        while not self._results.empty():
            _close_stream(self._results.get())

    def _wait(self) -> Outcome | None:
        """The outcome, once; None if it is not there within an interval."""
        try:
            result = self._results.get(timeout=self._interval)
        except Empty:
            return None
        try:
            if result.error is not None:
                raise result.error
            return result.outcome
        finally:
            # The error's traceback leads to this frame: they would hold each other.
            del result

    def _work(self) -> None:
        try:
            result = _Result(self._complete())
        except BaseException as e:  # noqa: B036 - raised where it is waited for
            result = _Result(error=e)
        # Either the result is there before the body is closed, which closes it, too; or
        # nobody will ever take it.
        with self._lock:
            abandoned = self._abandoned
            if not abandoned:
                self._results.put(result)
        if abandoned:
            _close_stream(result)


def _close_stream(result: _Result) -> None:
    """Close the stream of an outcome that nobody took."""
    if result.outcome and isinstance(result.outcome.body, EventStream):
        result.outcome.body.close()
