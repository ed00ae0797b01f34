"""Connections that remember: urllib3's, with a memory, and answers read to the letter.

Servers close connections that lie idle, some after 5 seconds or 100 requests. A call on
such a connection fails before the first byte of an answer; it was not seen, and may be
sent again on a new one. That is only so if the connection had served before.
"""

import http
import http.client
import io
import re
import select
import socket
import ssl
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from typing import Any, ContextManager, Generic, Protocol, TypeVar

from urllib3.connection import HTTPConnection, HTTPSConnection

from ...gateway.streaming import pulse
from .. import tls
from .head import LONGEST_LINE, Headers, Malformed, ResponseHead, read_head, read_lines

T = TypeVar("T")

# Bytes that are read from a connection at once. More would be held for each stream.
_BUFFER = 2**13


class CallObserver(Protocol):
    """Is shown what becomes of a call."""

    def connected(self, wire: socket.socket) -> None:
        """It is about to be sent on *wire*. What this raises ends the call."""

    def sent(self, sent: bool) -> None:
        """It goes out now, or has not got to the server as a whole after all."""


_watch: ContextVar[CallObserver | None] = ContextVar("watch", default=None)
_due: ContextVar[float] = ContextVar("due")


class _Set(Generic[T]):
    """The value of a variable within a block."""

    def __init__(self, variable: ContextVar[T], value: T) -> None:
        self._variable, self._value = variable, value

    def __enter__(self) -> None:
        self._token = self._variable.set(self._value)

    def __exit__(self, *_: Any) -> None:
        self._variable.reset(self._token)


def watched(watch: CallObserver) -> ContextManager[None]:
    """Show *watch* every call within."""
    return _Set(_watch, watch)


def due(at: float) -> ContextManager[None]:
    """Calls within have to be sent, and the heads of their answers to be there, by
    then on the monotonic clock.
    """
    return _Set(_due, at)


class NoAnswer(http.client.RemoteDisconnected):
    """The connection ended before the first byte of an answer."""


class StaleConnection(NoAnswer):
    """... and it had served before: the server closed it while it lay idle."""


class CutHead(http.client.HTTPException):
    """The connection ended in the head of an answer."""


class SocketReader(io.RawIOBase):
    """The bytes of one answer as they come from its connection, until a time.

    Each wait is as long as what is left until then: no server can draw it out by
    sending byte after byte.
    """

    def __init__(self, wire: socket.socket, until: float) -> None:
        self.until = until
        self.begun = self.ended = False
        self._wire: socket.socket | None = wire
        # As long as there is a file of it, a socket that is closed can still be read.
        self._file: Any = wire.makefile("rb", buffering=0)

    def makefile(self, mode: str) -> io.BufferedReader:
        """What http.client asks of a socket."""
        return io.BufferedReader(self, _BUFFER)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._wire is None:
            return 0
        count = self._received(self._wire, buffer)
        self.begun, self.ended = self.begun or count > 0, count == 0
        return count

    def _received(self, wire: socket.socket, buffer: Any) -> int:
        """How many bytes have come into *buffer*; the caller hears of us meanwhile."""
        while True:
            speak = pulse.wait()
            arm(wire, min(self.until, speak))
            try:
                return wire.recv_into(buffer)
            except (TimeoutError, ssl.SSLError) as e:
                if speak >= self.until or not _is_late(e):
                    raise

    def surplus(self, reader: io.BufferedReader) -> bytes:
        """What *reader* has of it that nobody asked for. Nothing more is read."""
        self._wire = None
        return reader.peek()

    def close(self) -> None:
        self._wire = None
        self._file.close()
        super().close()

    def break_off(self) -> None:
        """End the connection, from any thread, unless the answer has ended."""
        if self._wire is not None:
            break_off(self._wire)


def _is_late(error: OSError) -> bool:
    """Whether nothing has come in time. TLS under gevent has its own word for it."""
    return isinstance(error, TimeoutError) or "timed out" in str(error)


def arm(wire: socket.socket, until: float) -> None:
    """Have *wire* wait until then at most. Raises TimeoutError if that has passed.

    To set its timeout is a system call, and is spared for a hundredth of a second.
    """
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("timed out")
    if abs((wire.gettimeout() or 0) - seconds) > 0.01 or seconds < 0.1:
        wire.settimeout(seconds)


def break_off(wire: socket.socket) -> None:
    """End a connection, from any thread; whoever waits at it gets an error."""
    try:
        wire.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


# The head of a chunk that is neither the last one nor larger than what is read at once.
_PLAIN_CHUNK = re.compile(rb"0{0,4}([1-9A-Fa-f][0-9A-Fa-f]{0,3})\r\n")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\n]*)?\r?\n")
_LENGTH = re.compile(r"[0-9]{1,18}")


class HTTP1Response(http.client.HTTPResponse):
    """An answer, read to the letter: where it ends is never a matter of opinion.

    What comes after the end would be the head of the next answer, which is another
    caller's: such a connection is not used again.
    """

    headers: Headers  # type: ignore[assignment]

    def __init__(
        self,
        connection: "UpstreamConnection",
        method: str,
        is_last: bool,
        wire: socket.socket,
    ) -> None:
        self._connection, self._is_last = connection, is_last
        self._source = connection.source = SocketReader(wire, _due.get())
        super().__init__(self._source, method=method)  # type: ignore[arg-type]

    def begin(self) -> None:
        """Read the head."""
        try:
            head = read_head(self.fp)
        except (ConnectionError, Malformed) as e:
            if not self._source.begun and isinstance(e, ConnectionError):
                raise NoAnswer(str(e)) from e
            if self._source.ended or isinstance(e, ConnectionError):
                raise CutHead from e
            raise
        if self._source.ended:
            raise CutHead
        self._take(head)

    def _take(self, head: ResponseHead) -> None:
        """Refuse a head that others could read otherwise; note when the body ends."""
        self.status, self.headers = head.status, head.headers
        self.version = 11 if head.minor else 10
        coding = head.headers.get("Transfer-Encoding")
        if coding is not None and coding.lower() != "chunked":
            raise Malformed("a transfer encoding that nobody asked for")
        self.chunked, self.chunk_left = coding is not None, None
        self.will_close = head.is_last or self._is_last
        self._frame(_length(head.headers.get("Content-Length")))

    def _frame(self, told: int | None) -> None:
        """Say where the body ends, of which the head has *told* the length."""
        self.length = told
        if self.status in _BODILESS:
            self.will_close = self.will_close or self.chunked or bool(told)
            self.chunked, self.length = False, 0
        elif self.chunked:
            self.will_close = self.will_close or told is not None
            self.length = None
        elif told is None:
            self.will_close = True

    def read1(self, n: int = -1) -> bytes:
        """As http.client's, but closed with the last byte that it was told of.

        Chunks that have come together are one piece.
        """
        if self.chunked and self.chunk_left is None and n >= _BUFFER:
            if chunks := self._whole_chunks():
                return chunks
        piece = super().read1(n)
        if self.length == 0 and not self.isclosed():
            self._close_conn()
        elif self.length and not piece:
            raise http.client.IncompleteRead(b"", self.length)
        return piece

    def _whole_chunks(self) -> bytes:
        """What is in the chunks that are here as a whole; the last one is not."""
        here, at, found = self.fp.peek(), 0, []
        while size := _PLAIN_CHUNK.match(here, at):
            end = size.end() + int(size[1], 16)
            if not here.startswith(b"\r\n", end):
                break
            found.append(here[size.end() : end])
            at = end + 2
        if at:
            self.fp.read(at)
        return b"".join(found)

    def _get_chunk_left(self) -> int | None:
        if self.chunk_left == 0:
            if self._safe_read(2) != b"\r\n":  # type: ignore[attr-defined]
                raise Malformed("a chunk longer than it said")
            self.chunk_left = None
        found: int | None = super()._get_chunk_left()  # type: ignore[misc]
        return found

    def _read_next_chunk_size(self) -> int:
        line = self.fp.readline(LONGEST_LINE)
        if found := _CHUNK.fullmatch(line):
            return int(found[1], 16)
        if self._source.ended:
            raise http.client.IncompleteRead(b"")
        raise Malformed("the size of a chunk that is none")

    def _read_and_discard_trailer(self) -> None:
        read_lines(self.fp)

    def _close_conn(self) -> None:
        surplus = self._source.surplus(self.fp)
        super()._close_conn()  # type: ignore[misc]
        if surplus:
            self._connection.close()


_BODILESS = (http.HTTPStatus.NO_CONTENT, http.HTTPStatus.NOT_MODIFIED)


def _length(given: str | None) -> int | None:
    """The length that all values of *given* name. Raises Malformed if they differ."""
    if given is None:
        return None
    told = {length.strip() for length in given.split(",")}
    only = _LENGTH.fullmatch(told.pop())
    if told or only is None:
        raise Malformed("a length that is none")
    return int(only[0])


# One write for a head and its body, unless to put them together costs more.
_ONE_WRITE = 2**16


class UpstreamConnection(HTTPConnection):
    """A connection that knows whether it has served, and the answer it serves now."""

    source: SocketReader | None = None
    served = 0

    @property
    def is_connected(self) -> bool:
        """Whether it is as it was left: neither closed nor spoken on since."""
        return self.sock is not None and not _is_readable(self.sock)

    def connect(self) -> None:
        super().connect()
        self.served = 0
        self._show()

    def ask(
        self, method: str, head: bytes, body: bytes, is_last: bool
    ) -> HTTP1Response:
        """Send a request; the answer to it, once its head is there.

        With *is_last*, it has told the server that no other will follow.
        """
        if self.sock is None:
            self.connect()
        else:
            self._show()
        self._write(head, body)
        answer = self._begun(HTTP1Response(self, method, is_last, self.sock))
        self.served += 1
        return answer

    def _show(self) -> None:
        """Show who watches where a call will be sent, and give it its time."""
        if watch := _watch.get():
            watch.connected(self.sock)
        arm(self.sock, _due.get())

    def _write(self, head: bytes, body: bytes) -> None:
        # Noted before it is true: nobody shall find a call unsent that goes out.
        _note_sent(True)
        try:
            if len(body) < _ONE_WRITE:
                self.sock.sendall(head + body)
            else:
                self.sock.sendall(head)
                self.sock.sendall(body)
        except (BrokenPipeError, ConnectionResetError):
            # Who answers before all is read, and closes, has answered.
            _note_sent(False)
        except BaseException:
            _note_sent(False)
            raise

    def _met(self) -> None:
        """The server has answered on this connection for the first time."""

    def _begun(self, answer: HTTP1Response) -> HTTP1Response:
        try:
            answer.begin()
        except BaseException as e:
            answer.close()
            if isinstance(e, NoAnswer) and self.served:
                _note_sent(False)
                raise StaleConnection(str(e)) from e
            raise
        if not self.served:
            self._met()
        if answer.will_close:
            # The answer has hold of the socket still.
            self.close()
        return answer


def _note_sent(sent: bool) -> None:
    """Tell who watches whether the call has been sent."""
    if watch := _watch.get():
        watch.sent(sent)


class UpstreamTLSConnection(UpstreamConnection, HTTPSConnection):
    def _met(self) -> None:
        tls.note(self.sock)


def _is_readable(wire: socket.socket) -> bool:
    poll = unpatched_poll()
    poll.register(wire, select.POLLIN)
    return bool(poll.poll(0))


def unpatched_poll() -> Any:
    """A poll that does not wait, of which gevent need not know."""
    return _poll_kind()()


@cache
def _poll_kind() -> Callable[[], Any]:
    monkey = sys.modules.get("gevent.monkey")
    kind: Any = monkey.get_original("select", "poll") if monkey else select.poll
    return kind  # type: ignore[no-any-return]
