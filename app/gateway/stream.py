"""The WSGI body of a streamed answer."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf
from types import MappingProxyType
from typing import Any

import orjson

from ..core import sse
from ..errors import CallerLeft, GatewayError
from .aside import Aside
from .cancellation import Cancellation
from .events import End
from .scope import Scope

logger = logging.getLogger("lastword")

# In the JSON of a frame: a choice that ends in it.
_FINISH = re.compile(rb'"finish_reason":\s?"')


class EventStream:
    """Frames as server-sent events, `[DONE]` after the last one.

    A failure ends it with one frame that holds the error, and without `[DONE]`: a cut
    stream never looks complete. It owns the scope that feeds it, and closes that
    whatever happens; a generator could not, since the `finally` of one that was never
    started does not run. *beside_error* stands in the frame of an error, for clients
    that want more there. Who leaves when all *choices* have ended has had the whole.
    """

    def __init__(
        self,
        frames: Iterator[bytes | None],
        scope: Scope,
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
        self._first: list[bytes | None] = []
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

    def obey(self, cancellation: Cancellation) -> None:
        """End when that is cancelled, and say why."""
        self._cancellation = cancellation

    def divert(self, frames: Iterator[bytes | None]) -> Iterator[bytes | None]:
        """Have *frames* in place of its own, which it gives away.

        None among them stands for a while in which none came.
        """
        own, self._frames = self._frames, frames
        return own

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
            return b"".join(map(self._sent, self._some()))
        except StopIteration:
            self._end = End.WHOLE
            last = sse.DONE
        except Exception as e:
            last = self._cut(self._cancellation.reason or e)
        self._ended = True
        return sse.encode(last)

    def _some(self) -> Sequence[bytes | None]:
        """The next frame; or several, if they have come at once."""
        if isinstance(self._frames, Aside):
            return self._frames.some()
        return [next(self._frames)]

    def _cut(self, error: Exception) -> bytes:
        """The last frame of a stream that *error* has ended."""
        self._ended = True
        if isinstance(error, CallerLeft):
            raise StopIteration from error
        self._end = End.CUT
        return error_frame(error, self._beside_error)

    def _sent(self, frame: bytes | None) -> bytes:
        if frame is None:
            return sse.KEEP_ALIVE
        self._unended -= len(_FINISH.findall(frame))
        for listener in self._on_frame:
            listener(frame)
        return sse.encode(frame)

    def close(self) -> None:
        """Let go of upstream, and say how it ended. Harmless when done twice."""
        self._ended = True
        if self._end is None and self._unended <= 0:
            self._end = End.WHOLE
        if self._end == End.WHOLE:
            self._scope.finish()
        else:
            self._scope.abort()
        frames, self._frames = self._frames, iter(())
        if isinstance(frames, Aside):
            frames.close()
        listeners, self._on_end = self._on_end, []
        for listener in listeners:
            listener(self._end or End.LEFT)


def error_frame(error: Exception, beside: Mapping[str, Any]) -> bytes:
    """The JSON of the frame that ends a stream with *error*."""
    if not isinstance(error, GatewayError):
        logger.error("a stream failed", exc_info=error)
        error = GatewayError("The gateway failed in the middle of this stream.")
    return orjson.dumps({**error.to_body(), **beside})
