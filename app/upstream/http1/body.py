"""Where the body of an HTTP/1 response ends: sans-IO, from its bytes alone.

A head says how its body is framed: by a length, in chunks, or by the end of the
connection. One decoder for each of these is fed what comes from the socket, in pieces
of any size, and returns what belongs to the body. No state is kept in the reading
itself, so a reader may stop waiting at any byte, do something else (send a heartbeat),
and go on.

Two readings of one head would let an upstream put words into another caller's mouth on
a connection that is used again. So everything that can be read in two ways is refused
as Malformed, and bytes behind the end of a body (*surplus*) end its connection.

Source: https://www.rfc-editor.org/rfc/rfc9112#section-6
"""

import re
from http import HTTPStatus
from http.client import IncompleteRead
from math import inf
from typing import NamedTuple, Protocol

from urllib3.response import DeflateDecoder, GzipDecoder, MultiDecoder

from .head import LONGEST_LINE, MAX_FIELDS, Malformed, ResponseHead

_BODILESS = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)

_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\n]*)?\r?\n")

# Bytes that one block may have when it is decoded. A compressed block of 16 kB can hold
# 16 MB: it comes in pieces, so that the limits on what a request may hold still count.
_MOST_DECODED = 2**16


class BodyDecoder(Protocol):
    """Feed it what comes from the connection; take what belongs to the body.

    *ended* is set at the end of the body, *surplus* if there were bytes behind it.
    *error* is what the next read has to raise: what stood before it is good.
    """

    ended: bool
    surplus: bool
    error: Malformed | None

    def feed(self, data: bytes) -> bytes:
        """What of *data* belongs to the body. Raises Malformed."""

    def end(self) -> None:
        """The connection has ended. Raises IncompleteRead unless the body may, too."""


class LengthDecoder:
    """A body of *length* bytes; of infinitely many, until the connection ends."""

    def __init__(self, length: float) -> None:
        self._left = length
        self.ended = length == 0
        self.surplus = False
        self.error: Malformed | None = None

    def feed(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left > 0:
            return data
        self.ended, self.surplus = True, self._left < 0
        return data[: int(self._left)] if self.surplus else data

    def end(self) -> None:
        if not self.ended and self._left != inf:
            raise IncompleteRead(b"", int(self._left))
        self.ended = True


class ChunkedDecoder:
    """A body in chunks. Chunks that have come together are returned as one piece."""

    def __init__(self) -> None:
        self.ended = self.surplus = False
        self.error: Malformed | None = None
        self._unread = b""
        # Bytes that are missing of the chunk that has begun.
        self._left = 0
        # Whether the line break behind a chunk's data comes next; the trailer.
        self._in_break = self._in_trailer = False
        self._fields = 0

    def feed(self, data: bytes) -> bytes:
        data, self._unread = self._unread + data, b""
        pieces: list[bytes] = []
        at, size = 0, len(data)
        try:
            while at < size and not self.ended:
                if self._left:
                    piece = data[at : at + self._left]
                    pieces.append(piece)
                    at += len(piece)
                    self._left -= len(piece)
                    self._in_break = not self._left
                elif self._in_break:
                    if size - at < 2:
                        break
                    if data[at : at + 2] != b"\r\n":
                        raise Malformed("a chunk longer than it said")
                    at += 2
                    self._in_break = False
                else:
                    end = data.find(b"\n", at) + 1
                    if not end and size - at <= LONGEST_LINE:
                        break
                    self._take_line(data[at : end or size])
                    at = end
        except Malformed as e:
            if not pieces:
                raise
            self.error = e
        self.surplus = self.ended and at < size
        self._unread = b"" if self.ended else data[at:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _take_line(self, line: bytes) -> None:
        """One line of the framing: a chunk's size, or a field of the trailer."""
        if self._in_trailer:
            self.ended = line in (b"\r\n", b"\n")
            self._fields += 1
            if self._fields > MAX_FIELDS + 1 or len(line) > LONGEST_LINE:
                raise Malformed("a head, or a line of it, without end")
            return
        size = _CHUNK_SIZE.fullmatch(line) if len(line) <= LONGEST_LINE else None
        if size is None:
            raise Malformed("the size of a chunk that is none")
        self._left = int(size[1], 16)
        self._in_trailer = not self._left

    def end(self) -> None:
        if not self._in_trailer:
            raise IncompleteRead(b"")
        self.ended = True


class Framing(NamedTuple):
    """How a body is framed. *is_ambiguous* says that others could read its end in
    another place: a length beside chunks, or a body where there may be none.
    """

    decoder: BodyDecoder
    is_ambiguous: bool


def body_framing(head: ResponseHead) -> Framing:
    """The framing of the body that *head* announces. Raises Malformed."""
    coding = head.headers.get("transfer-encoding")
    if coding is not None and coding.lower() != "chunked":
        raise Malformed("a transfer encoding that nobody asked for")
    length = _content_length(head.headers.get("content-length"))
    if head.status in _BODILESS:
        return Framing(LengthDecoder(0), coding is not None or bool(length))
    if coding is not None:
        return Framing(ChunkedDecoder(), length is not None)
    return Framing(LengthDecoder(inf if length is None else length), False)


def _content_length(value: str | None) -> int | None:
    """The length that all of the comma-separated values name. Raises Malformed."""
    if value is None:
        return None
    lengths = {length.strip() for length in value.split(",")}
    only = _LENGTH.fullmatch(lengths.pop())
    if lengths or only is None:
        raise Malformed("a length that is none")
    return int(only[0])


class ContentDecoder:
    """Takes the compression off a body. urllib3's decoders do the work.

    Returns at most 64 kB at a time; *pending* says that there is more of what it has
    been fed already, to be had by feeding it nothing.
    """

    def __init__(self, coding: str) -> None:
        self._decoder: DeflateDecoder | GzipDecoder | MultiDecoder
        if "," in coding:
            self._decoder = MultiDecoder(coding)
        else:
            self._decoder = DeflateDecoder() if coding == "deflate" else GzipDecoder()

    @property
    def pending(self) -> bool:
        return self._decoder.has_unconsumed_tail

    def feed(self, data: bytes) -> bytes:
        """Raises zlib.error."""
        return self._decoder.decompress(data, max_length=_MOST_DECODED)


# How a body may be encoded. No other coding may be decoded only because a library for
# it happens to be installed: none is ever asked for.
CODINGS = {"", "identity", "gzip", "x-gzip", "deflate"}


def content_decoder(coding: str) -> ContentDecoder | None:
    """The decoder for a Content-Encoding in CODINGS; None if there is none to undo."""
    names = [name.strip() for name in coding.lower().split(",")]
    encoded = [name for name in names if name not in ("", "identity")]
    return ContentDecoder(", ".join(encoded)) if encoded else None
