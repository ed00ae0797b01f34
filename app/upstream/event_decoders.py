"""The events of a streamed answer, from its bytes: one sans-IO decoder for each format.

`feed(block)` returns the events that a block completes, `end()` those that the regular
end of the body completes. Blocks may be cut anywhere.
"""

from typing import Any, Protocol

import orjson

from .. import safe_json
from ..core.sse import ERROR, Event, SSEDecoder
from ..errors import UpstreamCut, UpstreamProtocol
from .client import ByteBudget


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


class StreamDecoder:
    """Decodes the body of an answer that was asked to be a stream.

    What the body begins with decides how it is read. Its declared type, which is wrong
    on many servers, only decides where that leaves a choice. *is_document* says that
    the body is one whole document, as far as can be seen yet: it then has one event,
    the document, and *budget* bounds it in place of *limit*, which bounds an event.
    """

    def __init__(self, content_type: str, limit: int, budget: ByteBudget) -> None:
        # A type may have parameters, such as a charset.
        lowered = content_type.lower()
        self._declared = next((t for t in _STREAM_TYPES if t in lowered), None)
        self._limit, self._budget = limit, budget
        self._decoder: EventDecoder | None = None
        # The body so far, from its first byte that is not blank.
        self._start = bytearray()
        self._blanks = 0
        # Whether its first line is an object, once that has ended.
        self._line_is_object: bool | None = None
        self.is_document = self._declared is None

    def feed(self, block: bytes) -> list[Event]:
        if self._decoder is not None:
            return self._decoder.feed(block)
        start = self._start
        # Blank space before a body is a heartbeat.
        if not start and block[:1].isspace() and self._declared != _AMAZON:
            self._blanks += len(block)
            block = block.lstrip()
            if not block and self._blanks > self._limit:
                raise UpstreamProtocol(
                    f"upstream sent more than {self._limit} bytes without an event"
                )
        start += block
        if start.startswith(safe_json.BYTE_ORDER_MARK) and self._declared != _AMAZON:
            # Before it there was nothing, and behind it there may be blank space.
            block = bytes(start).removeprefix(safe_json.BYTE_ORDER_MARK).lstrip()
            start[:] = block
        if not start:
            return []
        decoder = self._choose(block)
        if decoder is None:
            if self.is_document:
                self._spend(len(block))
            return []
        self._decoder, self.is_document = decoder, False
        begun, self._start = bytes(start), bytearray()
        return decoder.feed(begun)

    def _choose(self, block: bytes) -> EventDecoder | None:
        """The decoder for what has begun, and goes on with *block*; None for a
        document, or while it is open.
        """
        start, declared = _without_mark(self._start), self._declared
        if start.startswith((b"{", b"[", b"<")):
            self.is_document = True
            return JSONLinesDecoder(self._limit) if self._has_lines(block) else None
        if declared == _AMAZON:
            return AmazonEventDecoder(self._limit)
        is_stream = _begins_with_field(start)
        if is_stream is None:
            self.is_document = False
            return None
        if is_stream or declared == _SSE:
            return SSEDecoder(self._limit)
        if declared == _LINES:
            return JSONLinesDecoder(self._limit)
        self.is_document = True
        return None

    def _has_lines(self, block: bytes) -> bool:
        """Whether there are JSON lines, as *block* is added, and no single document.

        Nothing is looked at twice: either may be long.
        """
        if self._line_is_object is None:
            if b"\n" not in block:
                return False
            line, _, rest = bytes(self._start).partition(b"\n")
            self._line_is_object = len(line) <= self._limit and _is_object(line)
            block = rest
        if not self._line_is_object:
            return False
        # A document may be on a single line as well.
        return self._declared == _LINES or bool(block.strip())

    def _spend(self, count: int) -> None:
        try:
            self._budget.spend(self._start, count)
        except UpstreamProtocol:
            # The error's traceback would keep it in memory.
            self._start.clear()
            raise

    def end(self) -> list[Event]:
        if self._decoder is not None:
            return self._decoder.end()
        document = bytes(self._start)
        self._start.clear()
        if not document:
            return []
        # Google's streams without SSE are one array of chunks.
        if document.startswith(b"[") and (chunks := _array_items(document)):
            self.is_document = False
            return chunks
        self.is_document = True
        return [Event(document)]


_SSE, _LINES = "text/event-stream", "application/x-ndjson"
_AMAZON = "application/vnd.amazon.eventstream"
_STREAM_TYPES = (_SSE, _LINES, _AMAZON)

# What a line of an event stream begins with, comments included. Source:
# https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
# `error:` is no field of the standard, but llama.cpp's.
_FIELDS = (b":", b"data:", b"error:", b"event:", b"id:", b"retry:")


def _without_mark(start: bytes | bytearray) -> bytes:
    """What a body begins with, without a byte order mark."""
    return bytes(start[:16]).removeprefix(safe_json.BYTE_ORDER_MARK)


def _begins_with_field(line: bytes) -> bool | None:
    """Whether a body begins as an event stream; None if more is needed to tell."""
    if safe_json.BYTE_ORDER_MARK.startswith(line):
        return None
    if line.startswith(_FIELDS):
        return True
    return None if any(field.startswith(line) for field in _FIELDS) else False


def _is_object(line: bytes) -> bool:
    """Whether *line* is all of a JSON object, and not only the first line of one."""
    try:
        document, _ = safe_json.load_lenient(line)
    except ValueError:
        return False
    return isinstance(document, dict)


def _array_items(body: bytes) -> list[Event]:
    """The objects of a JSON array as events; none if it is anything else."""
    try:
        array, _ = safe_json.load_lenient(body)
    except ValueError:
        return []
    if not isinstance(array, list) or not all(isinstance(i, dict) for i in array):
        return []
    return [Event(orjson.dumps(item)) for item in array]


def events_in_whole(body: bytes, content_type: str, limit: int) -> list[Event] | None:
    """The events in a body that nobody asked to be a stream; None if there are none."""
    start = _without_mark(body.lstrip() if body[:1].isspace() else body[:16]).lstrip()
    decoder: EventDecoder
    if start.startswith(b"{"):
        # Most answers have no second line, or begin with a line that is `{`.
        end = body.rstrip().find(b"\n", body.find(b"{"))
        if end < 0 or not _is_object(body[:end]):
            return None
        decoder = JSONLinesDecoder(limit)
    elif _begins_with_field(start):
        decoder = SSEDecoder(limit)
    elif _AMAZON in content_type.lower():
        decoder = AmazonEventDecoder(limit)
    else:
        return None
    return [*decoder.feed(body), *decoder.end()]
