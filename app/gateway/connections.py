"""Connections that remember: requests' adapter over urllib3's pools, with a memory.

Servers close connections that lie idle, some after 5 seconds or 100 requests. A call on
such a connection fails before the first byte of an answer; it was not seen, and may be
sent again on a new one. That is only so if the connection had served before.
"""

import http
import http.client
import io
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from . import pulse

Watch = Callable[[socket.socket], None]

_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)
_due: ContextVar[float] = ContextVar("due")


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Show *watch* the socket of every call within, before the call is sent on it.

    What it raises ends the call.
    """
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


@contextmanager
def due(at: float) -> Iterator[None]:
    """Calls within have to be sent, and the heads of their answers to be there, by
    then on the monotonic clock.
    """
    token = _due.set(at)
    try:
        yield
    finally:
        _due.reset(token)


class NoAnswer(http.client.RemoteDisconnected):
    """The connection ended before the first byte of an answer."""


class StaleConnection(NoAnswer):
    """... and it had served before: the server closed it while it lay idle."""


class CutHead(http.client.HTTPException):
    """The connection ended in the head of an answer."""


class Malformed(http.client.HTTPException):
    """What came is not HTTP, or could be read in more than one way."""


class Source(io.RawIOBase):
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
        return io.BufferedReader(self, 2**13)

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


# Heads before the one that counts ("103 Early Hints"), and no more of them.
_MOST_INTERIM = 100
_LONGEST_LINE = 2**16

_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\n]*)?\r?\n")
_LENGTH = re.compile(r"[0-9]{1,18}")
# A folded header has line ends in it.
_CONTROLS = re.compile(r"[\0-\x08\n-\x1f\x7f]")


class _Answer(http.client.HTTPResponse):
    """An answer, read to the letter: where it ends is never a matter of opinion.

    What comes after the end would be the head of the next answer, which is another
    caller's: such a connection is not used again.
    """

    def __init__(
        self, connection: "Remembering", is_last: bool, wire: socket.socket, **told: Any
    ) -> None:
        self._connection, self._is_last = connection, is_last
        self._source = connection.source = Source(wire, _due.get())
        super().__init__(self._source, **told)  # type: ignore[arg-type]

    def begin(self) -> None:
        try:
            super().begin()
        except (ConnectionError, http.client.HTTPException) as e:
            if not self._source.begun and isinstance(e, ConnectionError):
                raise NoAnswer(str(e)) from e
            if self._source.ended or isinstance(e, ConnectionError):
                raise CutHead from e
            raise
        if self._source.ended:
            raise CutHead
        self._check()

    def _read_status(self) -> tuple[str, int, str]:
        """The status of the answer, past those that say that it will come."""
        for _ in range(_MOST_INTERIM):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status >= 200:
                return version, status, reason
            if status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                break
            http.client.parse_headers(self.fp)
        raise Malformed("no answer, only announcements")

    def _check(self) -> None:
        """Refuse a head that others could read otherwise; note when it ends."""
        if self.headers.get_payload() or _CONTROLS.search(_values(self.headers)):
            raise Malformed("a header that is none")
        told = _length(self.headers.get_all("Content-Length", []))
        codings = self.headers.get_all("Transfer-Encoding", [])
        if codings and (len(codings) > 1 or not self.chunked):
            raise Malformed("a transfer encoding that nobody asked for")
        self._frame(told)
        self.will_close = self.will_close or self._is_last

    def _frame(self, told: int | None) -> None:
        """Say where the body ends, of which the head has *told* the length."""
        if self.status in _BODILESS:
            self.will_close = self.will_close or self.chunked or bool(told)
            self.chunked, self.length = False, 0
        elif self.chunked:
            self.will_close = self.will_close or told is not None
        else:
            self.length = told

    def _get_chunk_left(self) -> int | None:
        if self.chunk_left == 0:
            if self._safe_read(2) != b"\r\n":  # type: ignore[attr-defined]
                raise Malformed("a chunk longer than it said")
            self.chunk_left = None
        found: int | None = super()._get_chunk_left()  # type: ignore[misc]
        return found

    def _read_next_chunk_size(self) -> int:
        line = self.fp.readline(_LONGEST_LINE)
        if found := _CHUNK.fullmatch(line):
            return int(found[1], 16)
        if self._source.ended:
            raise http.client.IncompleteRead(b"")
        raise Malformed("the size of a chunk that is none")

    def _read_and_discard_trailer(self) -> None:
        try:
            http.client.parse_headers(self.fp)
        except http.client.HTTPException as e:
            raise Malformed("no end after the last chunk") from e

    def _close_conn(self) -> None:
        surplus = self._source.surplus(self.fp)
        super()._close_conn()  # type: ignore[misc]
        if surplus:
            self._connection.close()


_BODILESS = (http.HTTPStatus.NO_CONTENT, http.HTTPStatus.NOT_MODIFIED)


def _values(headers: http.client.HTTPMessage) -> str:
    return "".join(str(value) for _, value in headers.raw_items())


def _length(values: Sequence[str]) -> int | None:
    """The length that all of *values* name. Raises Malformed if they differ."""
    told = {length.strip() for value in values for length in value.split(",")}
    if not told:
        return None
    only = _LENGTH.fullmatch(told.pop())
    if told or only is None:
        raise Malformed("a length that is none")
    return int(only[0])


class Remembering(HTTPConnection):
    """A connection that knows whether it has served, and the answer it serves now."""

    source: Source | None = None
    served = 0

    def connect(self) -> None:
        super().connect()
        self.served = 0
        self._show()

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._show()
        is_last = kwargs["headers"].get("Connection") == "close"
        answer: Any = partial(_Answer, self, is_last)
        self.response_class = answer
        super().request(*args, **kwargs)

    def _show(self) -> None:
        """Show who watches where a call will be sent, and give it its time."""
        if self.sock is None:
            return
        if watch := _watch.get():
            watch(self.sock)
        arm(self.sock, _due.get())

    def getresponse(self) -> Any:
        try:
            answer = super().getresponse()
        except NoAnswer as e:
            if self.served:
                raise StaleConnection(str(e)) from e
            raise
        self.served += 1
        return answer


class RememberingTLS(Remembering, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = Remembering


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = RememberingTLS


class Adapter(HTTPAdapter):
    """requests' adapter with those connections."""

    pools: tuple[type[HTTPConnectionPool], type[HTTPSConnectionPool]] = _Pool, _TLSPool

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        http_pool, https_pool = self.pools
        schemes = {"http": http_pool, "https": https_pool}
        self.poolmanager.pool_classes_by_scheme = schemes

    def close(self) -> None:
        """Close what lies idle now; urllib3 would wait for the last answer's memory."""
        pools = self.poolmanager.pools
        for key in pools.keys():
            pools[key].close()
        super().close()
