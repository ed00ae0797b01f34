"""What one request holds open upstream, so that it can be let go of at once."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol

from .client import HTTPReply
from .http1.connection import break_off


class OpenCallsClosed(Exception):
    """The request has ended; nothing more may be opened for it."""


class SentNote(Protocol):
    """Where it is noted whether a call has been sent: the record of its charges."""

    is_sent: bool


class CallInProgress:
    """One call that waits for its reply. Shown each socket that it is sent on."""

    def __init__(self, open_calls: "OpenCalls", record: SentNote | None) -> None:
        self._open_calls, self._record = open_calls, record
        self.wires: set[socket.socket] = set()

    def connected(self, wire: socket.socket) -> None:
        self._open_calls.enter(wire)
        self.wires.add(wire)

    def sent(self, sent: bool) -> None:
        if self._record:
            self._record.is_sent = sent


class OpenCalls:
    """The calls and the open replies of one request.

    Thread-safe: a fan-out opens many at a time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calling: set[socket.socket] = set()
        self._open: set[HTTPReply] = set()
        self._closed = False

    @contextmanager
    def calling(self, record: SentNote | None = None) -> Iterator[CallInProgress]:
        """The observer of a call that is made within, and waits for its reply there.

        `abort` breaks the call off, too. Whether it has been sent is noted in *record*.
        A call that would begin after the end raises OpenCallsClosed.
        """
        call = CallInProgress(self, record)
        try:
            yield call
        finally:
            with self._lock:
                self._calling -= call.wires

    def enter(self, wire: socket.socket) -> None:
        """Have `abort` break *wire* off as well. Raises OpenCallsClosed."""
        with self._lock:
            if self._closed:
                raise OpenCallsClosed
            self._calling.add(wire)

    def hold(self, reply: HTTPReply) -> HTTPReply:
        """Keep *reply* until it is dropped. Raises OpenCallsClosed, with it gone."""
        with self._lock:
            if not self._closed:
                self._open.add(reply)
                return reply
        reply.abort()
        raise OpenCallsClosed

    def drop(self, reply: HTTPReply) -> None:
        """Close *reply*, which has been read."""
        with self._lock:
            self._open.discard(reply)
        reply.close()

    def abandon(self, reply: HTTPReply) -> None:
        """Break *reply* off, which nobody will read to its end."""
        with self._lock:
            self._open.discard(reply)
        reply.abort()

    def finish(self) -> None:
        """Close everything, all of it read: connections may serve again."""
        for reply in self._take():
            reply.close()

    def abort(self) -> None:
        """Break everything off, from any thread. Who reads a reply lets go of it."""
        with self._lock:
            self._closed = True
            for wire in self._calling:
                break_off(wire)
            for reply in self._open:
                reply.break_off()

    def _take(self) -> set[HTTPReply]:
        with self._lock:
            self._closed = True
            replies, self._open = self._open, set()
        return replies

    def __enter__(self) -> "OpenCalls":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish if all went well, else abort."""
        if kind is None:
            self.finish()
        else:
            self.abort()
