"""Server-sent events: an incremental decoder without I/O, and the encoder.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import json
import re
from dataclasses import dataclass

from ..errors import UpstreamCut, UpstreamProtocol

DONE = b"[DONE]"

# The name of an event that is an error, whatever its data.
ERROR = b"error"

# A comment line: clients ignore it, proxies see traffic. Source:
# https://html.spec.whatwg.org/multipage/server-sent-events.html#authoring-notes
KEEP_ALIVE = b": keep-alive\n\n"

_BOM = b"\xef\xbb\xbf"
# A line that is the JSON of an error, without `data:` before it.
_BARE_ERROR = b'{"error"'
_LINE_END = re.compile(rb"\r\n|\n|\r")

# Where `str.splitlines` ends a line, and the standard does not: NEXT LINE, LINE and
# PARAGRAPH SEPARATOR. httpx's iter_lines splits there, which openai-python used up to
# 1.12. The others that it splits at are control characters, which JSON escapes.
# Source: https://github.com/florimondmanca/httpx-sse/issues/34
_LINE_BREAKS = (
    ("\x85".encode(), b"\\u0085"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)


# Not frozen: see core/completion.py.
@dataclass(slots=True)
class Event:
    """One event: its `data` lines joined by newlines, and its name if it has one."""

    data: bytes
    name: bytes = b""


class SSEDecoder:
    """Feed it blocks of bytes, cut anywhere; it returns the events they complete.

    An event is complete with the blank line after it, or with the regular end of the
    stream: many servers leave the last blank line out. Events without data (a bare
    `retry:`, a comment) are dropped, as the standard says. Raises UpstreamProtocol for
    an event of more than *limit* bytes, and for as many bytes without an event.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._partial_line = bytearray()
        # After a CR, a LF belongs to the same line end.
        self._after_cr = False
        # Only the first line may begin with a byte order mark.
        self._in_first_line = True
        self._data: list[bytes] = []
        self._data_size = 0
        self._name = b""
        self._bytes_without_event = 0

    def feed(self, block: bytes) -> list[Event]:
        """The events that *block* completes."""
        inside_line = self._partial_line or self._after_cr or self._in_first_line
        between_events = not (inside_line or self._data or self._name)
        if between_events and len(block) <= self._limit:
            # Nearly every block of a completion stream is plain: one split reads it,
            # and no line has to be looked at.
            events = _plain_events(block)
            if events:
                self._bytes_without_event = 0
                return events
        return self._feed_lines(block)

    def end(self) -> list[Event]:
        """The event that the regular end of the stream completes, if any.

        The standard would drop it. But many servers leave out the last blank line, and
        the end of a body says as well that nothing follows. Raises UpstreamCut if a
        line was cut off; where the connection is lost, `end` is not called.
        """
        line = bytes(self._partial_line)
        if line.startswith(b"data:"):
            value = line[5:].strip()
            if DONE.startswith(value) and value != DONE:
                # Nothing, or half of a `[DONE]`, without which the end is the same.
                self._partial_line.clear()
            elif not _is_complete(line[5:]):
                self._data.clear()
                raise UpstreamCut("upstream ended the stream in the middle of an event")
        # Ends the line that is open, and the event.
        return self._feed_lines(b"\n\n")

    def _feed_lines(self, block: bytes) -> list[Event]:
        events: list[Event] = []
        for line in self._complete_lines(block):
            if not line:
                # An error needs no data: its name says enough.
                if self._data or self._name == ERROR:
                    events.append(Event(b"\n".join(self._data), self._name))
                self._data, self._data_size, self._name = [], 0, b""
                continue
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"event":
                self._name = value
            elif field == b"data":
                self._data_size += len(value)
                if self._data_size > self._limit:
                    self._data.clear()
                    raise UpstreamProtocol(
                        f"upstream sent an event of more than {self._limit} bytes"
                    )
                self._data.append(value)
            elif field == ERROR or line.startswith(_BARE_ERROR):
                # No field of the standard: llama.cpp until September 2025, and servers
                # that fail behind the code that writes their events.
                # Source: https://github.com/ggml-org/llama.cpp/pull/16109
                self._name = ERROR
                self._data = [value if field == ERROR else line]
        self._bytes_without_event += len(block)
        if events:
            self._bytes_without_event = 0
        if self._bytes_without_event > self._limit:
            self._data.clear()
            raise UpstreamProtocol(
                f"upstream sent more than {self._limit} bytes without an event"
            )
        return events

    def _complete_lines(self, block: bytes) -> list[bytes]:
        """The lines that *block* completes, without their ends: CR, LF or CRLF."""
        if self._after_cr and block:
            block, self._after_cr = block.removeprefix(b"\n"), False
        if not block:
            return []
        self._after_cr = block.endswith(b"\r")
        head, *tail = _LINE_END.split(block)
        self._partial_line += head
        if len(self._partial_line) > self._limit:
            self._partial_line.clear()
            raise UpstreamProtocol(
                f"upstream sent a line of more than {self._limit} bytes"
            )
        if not tail:
            return []
        first = bytes(self._partial_line)
        if self._in_first_line:
            first, self._in_first_line = first.removeprefix(_BOM), False
        self._partial_line = bytearray(tail[-1])
        return [first, *tail[:-1]]


def _is_complete(data: bytes) -> bool:
    """Whether *data* is a JSON document, or the sentinel."""
    try:
        json.loads(data)
    except ValueError:
        return data.strip() == DONE
    return True


def _plain_events(block: bytes) -> list[Event] | None:
    """The events of a block that holds only whole events of one `data: ` line each.

    None if it holds, or may hold, anything else.
    """
    if not block.startswith(b"data: ") or not block.endswith(b"\n\n"):
        return None
    values = block[6:-2].split(b"\n\ndata: ")
    if b"\r" in block or block.count(b"\n") != 2 * len(values):
        return None
    return [Event(value) for value in values]


def encode(data: bytes) -> bytes:
    """One event of JSON as every legacy client reads it: a single `data: ` line."""
    if b"\n" in data or b"\r" in data:
        data = b"".join(_LINE_END.split(data))
    # A search for their last bytes costs next to nothing.
    if not data.isascii() and (b"\xa8" in data or b"\xa9" in data or b"\x85" in data):
        # In JSON they can only stand in a string.
        for character, escape in _LINE_BREAKS:
            data = data.replace(character, escape)
    return b"data: %b\n\n" % data
