"""Server-sent events, decoded from bytes cut anywhere, and encoded.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

DONE = b"[DONE]"

# A comment, which no client takes for an event. Source: the standard's own advice,
# https://html.spec.whatwg.org/multipage/server-sent-events.html#authoring-notes
KEEP_ALIVE = b": keep-alive\n\n"

_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventTooLong(ValueError):
    """An event, a line of it, or what is in place of one, longer than the limit."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its `data` lines joined by newlines, and its name if it has one."""

    data: bytes
    name: bytes = b""


class _Lines:
    """Cuts blocks of bytes into lines, whichever of CR, LF and CRLF ends them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open = bytearray()
        self._after_cr = False
        self._first = True

    @property
    def is_empty(self) -> bool:
        """Whether what comes next begins a line, and is no rest of one."""
        return not (self._open or self._after_cr or self._first)

    def feed(self, block: bytes) -> list[bytes]:
        """The lines that *block* completes, without their ends."""
        if self._after_cr and block:
            block, self._after_cr = block.removeprefix(b"\n"), False
        if not block:
            return []
        self._after_cr = block.endswith(b"\r")
        head, *tail = _LINE_END.split(block)
        self._grow(head)
        return self._close(tail) if tail else []

    def _grow(self, piece: bytes) -> None:
        self._open += piece
        if len(self._open) > self._limit:
            self._open.clear()
            raise EventTooLong(f"a line of more than {self._limit} bytes")

    def _close(self, tail: list[bytes]) -> list[bytes]:
        line = bytes(self._open)
        if self._first:
            line, self._first = line.removeprefix(_BOM), False
        self._open = bytearray(tail[-1])
        return [line, *tail[:-1]]


class Decoder:
    """Feed it blocks, take events: an event is complete with its blank line."""

    def __init__(self, limit: int) -> None:
        self._lines = _Lines(limit)
        self._limit = limit
        self._data: list[bytes] = []
        self._size = self._idle = 0
        self._name = b""

    def feed(self, block: bytes) -> list[Event]:
        """The events that *block* completes."""
        return self._plain(block) or self._feed(block)

    def _plain(self, block: bytes) -> list[Event] | None:
        """Those of a block that is nothing but whole events of one `data: ` line each,
        as nearly all are. None if it is, or may be, something else.
        """
        whole = self._lines.is_empty and not (self._data or self._name)
        if not (whole and block.endswith(b"\n\n") and len(block) <= self._limit):
            return None
        pieces = block[6:-2].split(b"\n\ndata: ")
        plain = block.startswith(b"data: ") and b"\r" not in block
        if not plain or block.count(b"\n") != 2 * len(pieces):
            return None
        self._idle = 0
        return [Event(piece) for piece in pieces]

    def _feed(self, block: bytes) -> list[Event]:
        found = (self._take(line) for line in self._lines.feed(block))
        events = [event for event in found if event]
        self._idle = 0 if events else self._idle + len(block)
        if self._idle > self._limit:
            self._data.clear()
            raise EventTooLong(f"more than {self._limit} bytes without an event")
        return events

    def _take(self, line: bytes) -> Event | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._append(value)
        elif field == b"event":
            self._name = value
        return None

    def _append(self, value: bytes) -> None:
        self._size += len(value)
        if self._size > self._limit:
            self._data.clear()
            raise EventTooLong(f"an event of more than {self._limit} bytes")
        self._data.append(value)

    def _dispatch(self) -> Event | None:
        event = Event(b"\n".join(self._data), self._name) if self._data else None
        self._data, self._size, self._name = [], 0, b""
        return event


def decode(blocks: Iterable[bytes], *, limit: int = 2**24) -> Iterator[Event]:
    """Yield the events in *blocks*, however the bytes are cut.

    Events without data (a bare `retry:`, a comment) are dropped, and so is an event
    that the end of the stream cuts off, as the standard says. Raises EventTooLong
    for an event of more than *limit* bytes, and for as many bytes without an event.
    """
    decoder = Decoder(limit)
    for block in blocks:
        yield from decoder.feed(block)


def encode(data: bytes) -> bytes:
    """One event as every legacy client reads it: a single `data: ` line."""
    if b"\n" in data or b"\r" in data:
        data = b"".join(_LINE_END.split(data))
    return b"data: %b\n\n" % data
