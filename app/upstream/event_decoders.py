"""The events of a streamed answer, from its bytes: one sans-IO decoder for each format.

`feed(block)` returns the events that a block completes, `end()` those that the regular
end of the body completes. Blocks may be cut anywhere.
"""

from typing import Any, Protocol

import orjson

from ..core.sse import ERROR, Event, SSEDecoder
from ..errors import UpstreamCut, UpstreamProtocol


class EventDecoder(Protocol):
    """`feed` raises UpstreamProtocol for an event of more bytes than are allowed."""

    def feed(self, block: bytes) -> list[Event]: ...

    def end(self) -> list[Event]: ...


class JSONLinesDecoder:
    """A JSON document on each line (Ollama)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = bytearray()

    def feed(self, block: bytes) -> list[Event]:
        first, *others = block.split(b"\n")
        self._rest += first
        # Of the lines, only this one can be longer than a block.
        if len(self._rest) > self._limit:
            # The error's traceback would keep it in memory.
            self._rest.clear()
            raise UpstreamProtocol(
                f"upstream sent a line longer than {self._limit} bytes"
            )
        if not others:
            return []
        lines = [bytes(self._rest), *others[:-1]]
        self._rest = bytearray(others[-1])
        return [Event(line) for line in lines if line.strip()]

    def end(self) -> list[Event]:
        # Unlike an event of SSE, a last line without its end is whole if it is JSON,
        # which the reader finds out.
        line, self._rest = bytes(self._rest), bytearray()
        return [Event(line)] if line.strip() else []


class AmazonEventDecoder:
    """AWS' binary frames, with their checksums; events are named by their types.

    Source: https://docs.aws.amazon.com/AmazonS3/latest/API/
    RESTSelectObjectAppendix.html
    """

    def __init__(self, limit: int) -> None:
        # Imported here: botocore is an extra, which only Bedrock needs.
        from botocore.eventstream import EventStreamBuffer

        self._buffer = EventStreamBuffer()
        self._limit = limit
        self._buffered_bytes = 0

    def feed(self, block: bytes) -> list[Event]:
        from botocore.eventstream import ParserError

        self._buffer.add_data(block)
        self._buffered_bytes += len(block)
        events: list[Event] = []
        try:
            for message in self._buffer:
                self._buffered_bytes -= message.prelude.total_length
                events.append(self._event(message))
        except ParserError as e:
            raise UpstreamProtocol(f"upstream sent a broken event: {e}") from e
        if self._buffered_bytes > self._limit:
            raise UpstreamProtocol(
                f"upstream sent an event longer than {self._limit} bytes"
            )
        return events

    def _event(self, message: Any) -> Event:
        # A message of type `event` or `exception` has a payload; one of type `error`,
        # of the service itself, has all that it says in its headers.
        # Source: https://smithy.io/2.0/aws/amazon-eventstream.html
        headers = message.headers
        kind = headers.get(":message-type")
        name = headers.get(":event-type") or headers.get(":exception-type") or ""
        if kind == "error" or ":error-code" in headers:
            code = headers.get(":error-code") or "error"
            fields = {"code": code, "message": headers.get(":error-message") or code}
            return Event(orjson.dumps({"error": fields}), ERROR)
        if kind == "exception" and not name.endswith("Exception"):
            return Event(message.payload or name.encode(), ERROR)
        return Event(message.payload, name.encode())

    def end(self) -> list[Event]:
        # A frame says how long it is, so that half of one is a loss.
        if self._buffered_bytes:
            raise UpstreamCut("upstream ended the stream in the middle of an event")
        return []


_DECODERS: dict[str, type[SSEDecoder | JSONLinesDecoder | AmazonEventDecoder]] = {
    "text/event-stream": SSEDecoder,
    "application/vnd.amazon.eventstream": AmazonEventDecoder,
    "application/x-ndjson": JSONLinesDecoder,
}


def event_decoder(content_type: str, limit: int) -> EventDecoder | None:
    """The decoder for an answer of this type, whose events have *limit* bytes at most.

    None if an answer of this type is one whole document.
    """
    # A type may have parameters, such as a charset.
    for name, decoder in _DECODERS.items():
        if name in content_type:
            return decoder(limit)
    return None
