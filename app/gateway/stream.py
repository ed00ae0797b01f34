"""The WSGI body of a streamed answer."""

import logging
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import orjson

from ..core import sse
from ..errors import GatewayError
from .events import End
from .scope import Scope

logger = logging.getLogger("lastword")


class EventStream:
    """Frames as server-sent events, `[DONE]` after the last one.

    A failure ends it with one frame that holds the error, and without `[DONE]`: a cut
    stream never looks complete. It owns the scope that feeds it, and closes that
    whatever happens; a generator could not, since the `finally` of one that was never
    started does not run. *beside_error* stands in the frame of an error, for clients
    that want more there.
    """

    def __init__(
        self,
        frames: Iterator[bytes],
        scope: Scope,
        beside_error: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._on_frame: list[Callable[[bytes], None]] = []
        self._on_end: list[Callable[[End], None]] = []
        self._end: End | None = None
        self._frames = frames
        self._scope = scope
        self._beside_error = beside_error
        self._first: list[bytes] = []
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
            return self._sent(next(self._frames))
        except StopIteration:
            self._end = End.WHOLE
            last = sse.DONE
        except GatewayError as e:
            self._end = End.CUT
            last = self._error_frame(e)
        except Exception:
            logger.exception("a stream failed")
            self._end = End.CUT
            message = "The gateway failed in the middle of this stream."
            last = self._error_frame(GatewayError(message))
        self._ended = True
        return sse.encode(last)

    def _sent(self, frame: bytes) -> bytes:
        for listener in self._on_frame:
            listener(frame)
        return sse.encode(frame)

    def _error_frame(self, error: GatewayError) -> bytes:
        return orjson.dumps({**error.to_body(), **self._beside_error})

    def close(self) -> None:
        """Let go of upstream, and say how it ended. Harmless when done twice."""
        self._ended = True
        if self._end == End.WHOLE:
            self._scope.finish()
        else:
            self._scope.abort()
        self._frames = iter(())
        listeners, self._on_end = self._on_end, []
        for listener in listeners:
            listener(self._end or End.LEFT)
