"""The WSGI body of a streamed answer."""

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from math import inf
from types import MappingProxyType
from typing import Any

import orjson

from ...core import sse
from ...errors import CallerLeft, GatewayError, release
from ...upstream.open_calls import OpenCalls
from ..clients.cancellation import Cancellation
from ..request_record import End, Failure
from .gap_stats import GapStats
from .pulse import Pulse, beating

logger = logging.getLogger("lastword")

# Frames that are sent as one piece, at most.
_AT_ONCE = 16

# In the JSON of a frame: a choice that ends in it, and why.
_FINISH = re.compile(rb'"finish_reason":\s?"([^"\\]{0,40})')

# Reasons that are kept, about; an upstream may send one with every frame.
_MOST_REASONS = 128


class EventStream:
    """Frames as server-sent events, `[DONE]` after the last one.

    A failure ends it with one frame that holds the error, and without `[DONE]`: a cut
    stream never looks complete. It owns the scope that feeds it, and closes that
    whatever happens; a generator could not, since the `finally` of one that was never
    started does not run. *beside_error* stands in the frame of an error, for clients
    that want more there. Who leaves when all *choices* have ended has had the whole.

    *reasons* are those for which choices have ended, *pace* is that of the frames, and
    *error* what has cut it.
    """

    def __init__(
        self,
        frames: Iterator[bytes],
        scope: OpenCalls,
        beside_error: Mapping[str, Any] = MappingProxyType({}),
        choices: int = 0,
    ) -> None:
        self._unended = choices or inf
        self._on_frame: list[Callable[[bytes], None]] = []
        self._on_end: list[Callable[[End], None]] = []
        self._end: End | None = None
        self._frames = frames
        self._scope = scope
        self._cancellation = Cancellation()
        self._beside_error = beside_error
        self._first: list[bytes] = []
        self.reasons: list[bytes] = []
        self.error: Failure | None = None
        self.pace = GapStats()
        self._pulse: Pulse | None = None
        self._ended = False

    def commit(self) -> "EventStream":
        """Wait for the first frame. Until it is here, a failure is raised."""
        try:
            self._first = [next(self._frames)]
        except StopIteration:
            self._frames = iter(())
        except BaseException:
            self.close()
            raise
        return self

    @property
    def opening(self) -> bytes:
        """The first frame, until it is sent."""
        return self._first[0] if self._first else b""

    def obey(self, cancellation: Cancellation) -> None:
        """End when that is cancelled, and say why."""
        self._cancellation = cancellation

    def beat(self, pulse: Pulse) -> None:
        """Speak by *pulse* while the next frame is waited for."""
        self._pulse = pulse

    def listen(
        self,
        *,
        frame: Callable[[bytes], None] | None = None,
        end: Callable[[End], None] | None = None,
    ) -> None:
        """Have *frame* told of each one that is sent, and *end* once, when it is over.

        Neither may fail.
        """
        self._on_frame += [frame] if frame else []
        self._on_end += [end] if end else []

    def __iter__(self) -> "EventStream":
        return self

    def __next__(self) -> bytes:
        if self._first:
            return self._sent(self._first.pop())
        if self._ended:
            raise StopIteration
        return self._next()

    def _next(self) -> bytes:
        try:
            return self._pieces(self._pulse) if self._pulse else self._piece()
        except StopIteration:
            self._end = End.WHOLE
            last = sse.DONE
        except Exception as e:
            last = self._cut(self._cancellation.reason or e)
        self._ended = True
        return self._left() + sse.encode(last)

    def _piece(self) -> bytes:
        return self._sent(next(self._frames))

    def _pieces(self, pulse: Pulse) -> bytes:
        """What has come at once; what had come before somebody had to wait is sent."""
        pulse.spoke()
        with beating(pulse):
            while pulse.held < _AT_ONCE:
                pulse.add(self._piece())
        return pulse.take()

    def _left(self) -> bytes:
        """What had come before the end, and is not sent yet."""
        return self._pulse.take() if self._pulse else b""

    def _cut(self, error: Exception) -> bytes:
        """The last frame of a stream that *error* has ended."""
        self._ended = True
        if isinstance(error, CallerLeft):
            raise StopIteration from error
        self._end = End.CUT
        self.error = Failure.of(error) if isinstance(error, GatewayError) else None
        return error_frame(error, self._beside_error)

    def _sent(self, frame: bytes) -> bytes:
        self.pace.note(time.monotonic())
        if reasons := _FINISH.findall(frame):
            self._note_end(reasons)
        for listener in self._on_frame:
            listener(frame)
        return sse.encode(frame)

    def _note_end(self, reasons: list[bytes]) -> None:
        """Some choices have ended. A frame may say so that is none of the last."""
        self._unended -= len(reasons)
        self.reasons += reasons if len(self.reasons) < _MOST_REASONS else ()

    def close(self) -> None:
        """Let go of upstream, and say how it ended. Harmless when done twice."""
        self._ended = True
        if self._end is None and self._unended <= 0:
            self._end = End.WHOLE
        if self._end == End.WHOLE:
            self._scope.finish()
        else:
            self._scope.abort()
        self._frames = iter(())
        listeners, self._on_end = self._on_end, []
        for listener in listeners:
            listener(self._end or End.LEFT)


def error_frame(error: Exception, beside: Mapping[str, Any]) -> bytes:
    """The JSON of the frame that ends a stream with *error*, which is released."""
    if not isinstance(error, GatewayError):
        logger.error("a stream failed", exc_info=error)
        release(error)
        error = GatewayError("The gateway failed in the middle of this stream.")
    release(error)
    return orjson.dumps({**error.to_body(), **beside})
