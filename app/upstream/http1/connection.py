"""One HTTP/1 connection to an upstream: urllib3's, with our own reading of responses.

urllib3 resolves, connects and speaks TLS. What is sent is one prepared head and a body;
what comes back is read to the letter by `head` and `body`, which do no I/O.

Servers close connections that lie idle, some after 5 seconds or 100 requests. A call on
such a connection fails before the first byte of its response. The server has not seen
that call, so it may be sent again on a new connection; but this can only be said of a
connection that has served before (StaleConnection), not of a new one (NoAnswer).
"""

import http.client
import select
import socket
import ssl
import sys
import time
from collections.abc import Callable
from functools import cache
from math import inf
from typing import Any, Protocol

from urllib3.connection import HTTPConnection, HTTPSConnection

from .. import fair_turns, tls
from .body import (
    CODINGS,
    ContentDecoder,
    body_framing,
    content_decoder,
)
from .head import HeadDecoder, ResponseHead

# Bytes that are read from a socket at once. While a thread waits it holds a buffer of
# this size for its stream; a body that fills it is read in larger pieces.
_READ_SIZE, _LARGE_READ_SIZE = 2**14, 2**17

# A head and its body are one write, unless to put them together costs more.
_ONE_WRITE = 2**16


class CallObserver(Protocol):
    """Is notified of what becomes of a call. See upstream/open_calls.py."""

    def connected(self, wire: socket.socket) -> None:
        """It is about to be sent on *wire*. What this raises ends the call."""

    def sent(self, sent: bool) -> None:
        """It goes out now; or, with False, has not reached the server after all."""


class NoAnswer(http.client.RemoteDisconnected):
    """The connection ended before the first byte of a response."""


class StaleConnection(NoAnswer):
    """... and it had served before: the server closed it while it lay idle."""


class CutHead(http.client.HTTPException):
    """The connection ended in the head of a response."""


class _Wire:
    """A connected socket, read within limits of time.

    Each wait is as long as what is left until *until*, on the monotonic clock: no
    server can draw a response out by sending byte after byte.
    """

    def __init__(self, sock: socket.socket, until: float) -> None:
        self.socket = sock
        self.until = until
        self._turn_began = time.monotonic()

    def receive(self, size: int, wake_at: float = inf) -> bytes | None:
        """What comes next, b"" at the end; None if nothing has come until *wake_at*.

        Raises TimeoutError when *until* passes.
        """
        read_began = time.monotonic()
        if read_began - self._turn_began > fair_turns.LONGEST_TURN:
            read_began = self._turn_began = fair_turns.pause()
        try:
            set_deadline(self.socket, min(self.until, wake_at))
            data = self.socket.recv(size)
        except (TimeoutError, ssl.SSLError) as e:
            # TLS under gevent says a time-out in words of its own.
            is_late = isinstance(e, TimeoutError) or "timed out" in str(e)
            if is_late and wake_at < self.until:
                return None
            raise
        now = time.monotonic()
        if now - read_began > fair_turns.WAIT:
            self._turn_began = now
        return data


class HTTP1Response:
    """A response whose head is there, and whose body is read block by block.

    It owns its connection until it is released or closed. A connection is used again
    only if its body was read to its end, and if nothing came behind that.
    """

    def __init__(
        self,
        connection: "UpstreamConnection",
        wire: _Wire,
        head: ResponseHead,
        unread: bytes,
        is_last: bool,
    ) -> None:
        """*unread* came behind the head. With *is_last*, no call follows on this
        connection. Raises Malformed.
        """
        self._connection: UpstreamConnection | None = connection
        self._wire, self._unread = wire, unread
        # When the next block has to be there, on the monotonic clock.
        self.until = wire.until
        self._size = _READ_SIZE
        self.status, self.headers = head.status, head.headers
        self._body, is_ambiguous = body_framing(head)
        # Whether the body has been read to its end, and the connection given back.
        self.ended = False
        self.keeps_connection = not (head.is_last or is_last or is_ambiguous)
        self._content: ContentDecoder | None = None
        coding = self.headers.get("content-encoding", "")
        if coding and {c.strip() for c in coding.lower().split(",")} <= CODINGS:
            self._content = content_decoder(coding)

    def read_block(self, wake_at: float = inf) -> bytes | None:
        """The next piece of the body, decoded; b"" at its end.

        None if nothing has come until *wake_at*: nothing is lost then, and it may be
        called again. Raises TimeoutError when `until` passes, IncompleteRead if the
        connection ends within the body, Malformed, zlib.error, and what sockets do.
        """
        while True:
            if self._content and self._content.pending:
                piece = self._content.feed(b"")
                self._note_end()
            elif self._body.error:
                raise self._body.error
            elif self._body.ended:
                # Also the end of a body that has no bytes. Not noted before the first
                # read: the connection still has its own notes to make until then.
                self._note_end()
                return b""
            else:
                data, self._unread = self._unread, b""
                if not data:
                    self._wire.until = self.until
                    received = self._wire.receive(self._size, wake_at)
                    if received is None:
                        return None
                    if not received:
                        self.keeps_connection = False
                        self._body.end()
                        self._note_end()
                        continue
                    data = received
                    self._size = (
                        _LARGE_READ_SIZE if len(data) >= _READ_SIZE else _READ_SIZE
                    )
                piece = self._body.feed(data)
                if self._content and piece:
                    # May return nothing yet: a compressed block decodes to some later.
                    piece = self._content.feed(piece)
                self._note_end()
            if piece:
                return piece

    def _note_end(self) -> None:
        """At the end of the body, let the connection serve the next call."""
        if self._body.ended:
            self.ended = not (self._content and self._content.pending)
            surplus = self._body.surplus or bool(self._unread)
            self.keeps_connection = self.keeps_connection and not surplus
            self.release()

    def release(self) -> None:
        """Give the connection back to its pool, closed if it cannot serve again."""
        connection, self._connection = self._connection, None
        if connection:
            if not (self.keeps_connection and self._body.ended):
                connection.close()
            connection.give_back(connection)

    def close(self) -> None:
        """Let go of it. If it was not read to its end, its connection ends too."""
        self._note_end()
        connection, self._connection = self._connection, None
        if connection:
            connection.close()

    def break_off(self) -> None:
        """End the connection, from any thread, unless the response has ended."""
        if self._connection is not None:
            break_off(self._wire.socket)


class UpstreamConnection(HTTPConnection):
    """A connection that serves one call after the other."""

    # How many calls it has served since it was connected.
    served = 0
    # Takes it back when its response was read; its pool says how.
    give_back: Callable[["UpstreamConnection"], None] = staticmethod(lambda _: None)

    @property
    def is_connected(self) -> bool:
        """Whether it is as it was left: neither closed nor written to since.

        urllib3 asks before it uses a connection again.
        """
        return self.sock is not None and not _is_readable(self.sock)

    def exchange(
        self,
        head: bytes,
        body: bytes,
        *,
        until: float,
        is_last: bool = False,
        observer: CallObserver | None = None,
    ) -> HTTP1Response:
        """Send a request; return its response once its head is there, at *until*.

        *is_last* says that the head announces that no other request will follow.
        *observer* is shown the socket, so that the call can be broken off. Raises
        NoAnswer, StaleConnection, CutHead, Malformed, TimeoutError, OSError.
        """
        if self.sock is None:
            self.connect()
            self.served = 0
        set_deadline(self.sock, until)
        if observer:
            observer.connected(self.sock)
        self._write(head, body, observer)
        try:
            response = self._read_response(_Wire(self.sock, until), is_last)
        except NoAnswer as e:
            self.close()
            if not self.served:
                raise
            if observer:
                observer.sent(False)
            raise StaleConnection(str(e)) from e
        except BaseException:
            self.close()
            raise
        if not self.served:
            self.on_first_response()
        self.served += 1
        return response

    def _read_response(self, wire: _Wire, is_last: bool) -> HTTP1Response:
        """Wait for the head of the response.

        Raises NoAnswer, CutHead, Malformed, and what sockets do.
        """
        try:
            data = wire.receive(_READ_SIZE)
        except ConnectionError as e:
            raise NoAnswer(str(e)) from e
        if not data:
            raise NoAnswer("closed without an answer")
        decoder = HeadDecoder()
        while (head := decoder.feed(data)) is None:
            try:
                data = wire.receive(_READ_SIZE)
            except ConnectionError as e:
                raise CutHead from e
            if not data:
                raise CutHead
        return HTTP1Response(self, wire, head, decoder.unread, is_last)

    def _write(self, head: bytes, body: bytes, observer: CallObserver | None) -> None:
        if observer:
            # Noted before it is true: no call that goes out may be taken for unsent.
            observer.sent(True)
        try:
            if len(body) < _ONE_WRITE:
                self.sock.sendall(head + body)
            else:
                self.sock.sendall(head)
                self.sock.sendall(body)
        except BaseException as e:
            if observer:
                observer.sent(False)
            # A server may answer before it has read all, and close: its answer counts.
            if not isinstance(e, (BrokenPipeError, ConnectionResetError)):
                raise

    def on_first_response(self) -> None:
        """The server has answered on this connection for the first time."""


class UpstreamTLSConnection(UpstreamConnection, HTTPSConnection):
    def on_first_response(self) -> None:
        # TLS 1.3 sends the tickets of a session behind its handshake.
        tls.keep_session(self.sock)


def set_deadline(sock: socket.socket, until: float) -> None:
    """Have *sock* wait until then at most. Raises TimeoutError if that has passed.

    To set its timeout is a system call, and is spared for a hundredth of a second.
    """
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("timed out")
    if abs((sock.gettimeout() or 0) - seconds) > 0.01 or seconds < 0.1:
        sock.settimeout(seconds)


def break_off(sock: socket.socket) -> None:
    """End a connection, from any thread; a thread that waits at it gets an error."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def _is_readable(sock: socket.socket) -> bool:
    poll = unpatched_poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def unpatched_poll() -> Any:
    """A poll that does not wait, of which gevent need not know."""
    return _poll_kind()()


@cache
def _poll_kind() -> Callable[[], Any]:
    monkey = sys.modules.get("gevent.monkey")
    kind: Any = monkey.get_original("select", "poll") if monkey else select.poll
    return kind  # type: ignore[no-any-return]
