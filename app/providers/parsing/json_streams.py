"""Streams of which each event is one JSON object, as nearly all providers have them."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from ...core.completion import Completion
from ...core.sse import Event
from ...errors import UpstreamError
from .json_bodies import read_completion
from .stream_ending import EndingRule, StreamEnding


class JSONStreamReader:
    """A StreamReader that hands each object to *read_chunk*, which keeps the state.

    Events with data in *ignored* mean nothing, *terminator* ends the stream. *payload*
    takes the JSON out of an event where it is not simply the data.
    """

    __slots__ = (
        "_read_chunk",
        "_terminator",
        "_ignored",
        "_payload",
        "_ending",
        "done",
    )

    def __init__(
        self,
        read_chunk: Callable[[dict[str, Any]], Completion],
        *,
        terminator: bytes | None = None,
        ignored: Collection[bytes] = (),
        payload: Callable[[Event], bytes] | None = None,
    ) -> None:
        self._read_chunk = read_chunk
        self._terminator = terminator
        self._ignored = ignored
        self._payload = payload
        self._ending = StreamEnding(EndingRule.BODY_ENDED)
        self.done = False

    def feed(self, event: Event) -> Sequence[Completion]:
        data = event.data
        if data == self._terminator:
            self.done = True
            return ()
        if data in self._ignored:
            return ()
        if self._payload is not None:
            data = self._payload(event)
        # An event in place of a chunk that is an error raises in here.
        chunk = read_completion(data, self._read_chunk)
        self._ending.follow(chunk.choices)
        return (chunk,)

    def end(self, failure: UpstreamError | None = None) -> Sequence[Completion]:
        self._ending.check(failure)
        return ()
