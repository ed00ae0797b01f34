"""The WSGI body of a streamed answer: the one loop in which a stream waits.

    wait for the next block, until the next heartbeat at most
      -> frames: all that came of one block is sent as one piece
      -> nothing until then: a comment, so that nobody takes the connection for dead
      -> the end: `[DONE]`
      -> a failure: one frame that holds the error, and no `[DONE]`

The server asks for one piece after the other (`__next__`) and sends each before it asks
again. Nothing is sent from inside a read. A cut stream never looks complete: every way
out of the loop but the regular one goes through `_end_with`.
"""

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from math import inf
from types import MappingProxyType
from typing import Any, Protocol

import orjson

from ...core import sse
from ...errors import CallerLeft, GatewayError, release
from ...upstream.open_calls import OpenCalls
from ..clients.cancellation import Cancellation
from ..request_record import End, Failure
from .gap_stats import GapStats

logger = logging.getLogger("lastword")

# In the JSON of a frame: a choice that ends in it, and why. A search is enough, since
# these quotes would be escaped inside of a string; to parse all frames again is not
# affordable.
_FINISH_REASON = re.compile(rb'"finish_reason":\s?"([^"\\]{0,40})')

# Reasons that are kept, about; an upstream may send one with every frame.
_MOST_REASONS = 128


class FrameSource(Protocol):
    """Where the frames of a stream come from: the JSON of one chunk each.

    *done* is set with the last frames of a stream that is whole.
    """

    @property
    def done(self) -> bool: ...

    def read(self, wake_at: float = inf) -> Sequence[bytes] | None:
        """The frames that came next, maybe none; None if none came until *wake_at*,
        on the monotonic clock. Raises GatewayError.
        """

    def close(self) -> None:
        """Want no more of it. Harmless when done twice."""


class StoredFrames:
    """The frames of an answer that is there already, a few at a time."""

    _AT_ONCE = 16

    def __init__(self, frames: Sequence[bytes]) -> None:
        self._frames = list(frames)
        self.done = False

    def read(self, wake_at: float = inf) -> Sequence[bytes]:
        frames, self._frames = (
            self._frames[: self._AT_ONCE],
            self._frames[self._AT_ONCE :],
        )
        self.done = not self._frames
        return frames

    def close(self) -> None:
        self._frames = []


class EventStream:
    """Frames as server-sent events.

    It owns *open_calls*, which feed it, and closes them whatever happens; a generator
    could not, since the `finally` of one that was never started does not run.
    *beside_error* stands in the frame of an error, for clients that want more there. A
    caller who leaves when all *choices* have ended has had the whole.

    *finish_reasons* are those for which choices have ended, *gaps* says how the frames
    followed one another, *error* what has cut it.
    """

    def __init__(
        self,
        source: FrameSource,
        open_calls: OpenCalls,
        beside_error: Mapping[str, Any] = MappingProxyType({}),
        choices: int = 0,
    ) -> None:
        self._source = source
        self._open_calls = open_calls
        self._beside_error = beside_error
        self._unfinished_choices = choices or inf
        self._heartbeat = inf
        self._committed: Sequence[bytes] = ()
        self._on_frame: list[Callable[[bytes], None]] = []
        self._on_end: list[Callable[[End], None]] = []
        self._cancellation = Cancellation()
        self._end: End | None = None
        self._ended = False
        self.finish_reasons: list[bytes] = []
        self.error: Failure | None = None
        self.gaps = GapStats()

    def commit(self) -> "EventStream":
        """Wait for the first frames. Until they are here, a failure is raised.

        This is the point from which there is no way back to another target.
        """
        try:
            while not (self._committed or self._source.done):
                self._committed = self._source.read() or ()
        except BaseException:
            self.close()
            raise
        return self

    @property
    def opening(self) -> bytes:
        """The first frame, until it is sent."""
        return self._committed[0] if self._committed else b""

    def obey(self, cancellation: Cancellation) -> None:
        """End when that is cancelled, and say why."""
        self._cancellation = cancellation

    def beat(self, seconds: float | None) -> None:
        """Send a comment wherever nothing comes for so long."""
        self._heartbeat = seconds or inf

    def listen(
        self,
        *,
        frame: Callable[[bytes], None] | None = None,
        end: Callable[[End], None] | None = None,
    ) -> None:
        """Call *frame* with each one that is sent, and *end* once, when it is over.

        Neither may fail.
        """
        self._on_frame += [frame] if frame else []
        self._on_end += [end] if end else []

    def __iter__(self) -> "EventStream":
        return self

    def __next__(self) -> bytes:
        if self._ended:
            raise StopIteration
        try:
            wake_at = time.monotonic() + self._heartbeat
            while True:
                # What came before the commit point is sent before more is read.
                frames, self._committed = self._committed, ()
                if not (frames or self._source.done):
                    read = self._source.read(wake_at)
                    # Half an event may have come: it waits in the decoder, and the
                    # comment stands between two whole ones.
                    if read is None:
                        return sse.KEEP_ALIVE
                    frames = read
                piece = self._encode(frames)
                if self._source.done:
                    self._ended, self._end = True, End.WHOLE
                    return piece + sse.encode(sse.DONE)
                # A block may hold no whole event. To return nothing would be an
                # empty write, so the next block is waited for, to the same deadline.
                if piece:
                    return piece
        except Exception as e:
            # Cancelling closes the sockets, and whoever reads them gets some error of
            # theirs; the reason is what the caller should see.
            return self._end_with(self._cancellation.reason or e)

    def _encode(self, frames: Sequence[bytes]) -> bytes:
        """The events of *frames* as one piece.

        One write for all that came of one read: a system call an event would be most of
        what an event costs.
        """
        if not frames:
            return b""
        self.gaps.add(time.monotonic(), len(frames))
        events: list[bytes] = []
        for frame in frames:
            if reasons := _FINISH_REASON.findall(frame):
                # A frame may say so that is none of the last.
                self._unfinished_choices -= len(reasons)
                if len(self.finish_reasons) < _MOST_REASONS:
                    self.finish_reasons += reasons
            for listener in self._on_frame:
                listener(frame)
            events.append(sse.encode(frame))
        return events[0] if len(events) == 1 else b"".join(events)

    def _end_with(self, error: Exception) -> bytes:
        """The last frame of a stream that *error* has cut."""
        self._ended = True
        # Nobody is there to read a frame.
        if isinstance(error, CallerLeft):
            raise StopIteration from error
        self._end = End.CUT
        self.error = Failure.of(error) if isinstance(error, GatewayError) else None
        return sse.encode(error_frame(error, self._beside_error))

    def close(self) -> None:
        """Let go of upstream, and say how it ended. Harmless when done twice."""
        self._ended = True
        # Many clients close as soon as they have the last finish reason, and do not
        # read `[DONE]`.
        if self._end is None and self._unfinished_choices <= 0:
            self._end = End.WHOLE
        if self._end == End.WHOLE:
            self._open_calls.finish()
        else:
            self._open_calls.abort()
        self._source.close()
        self._committed = ()
        listeners, self._on_end = self._on_end, []
        for listener in listeners:
            listener(self._end or End.LEFT)


def error_frame(error: Exception, beside: Mapping[str, Any]) -> bytes:
    """The JSON of the frame that ends a stream with *error*, which is released."""
    if not isinstance(error, GatewayError):
        # A fault of ours. The log has its traceback, the caller only that it happened.
        logger.error("a stream failed", exc_info=error)
        release(error)
        error = GatewayError("The gateway failed in the middle of this stream.")
    release(error)
    return orjson.dumps({**error.to_body(), **beside})
