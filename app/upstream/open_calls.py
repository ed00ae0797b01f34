"""What one request holds open upstream, so that it can be let go of at once."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from ..gateway.usage_charges import CallRecord, CallStage
from .client import HTTPReply
from .http1.connection import break_off, watched


class OpenCallsClosed(Exception):
    """The request has ended; nothing more may be opened for it."""


class _Calling:
    """One call of *scope*, which may be sent on several connections in turn."""

    def __init__(self, scope: "OpenCalls", record: CallRecord | None) -> None:
        self._scope, self._record = scope, record
        self.wires: set[socket.socket] = set()
        self.sent(False)

    def connected(self, wire: socket.socket) -> None:
        self._scope.enter(wire)
        self.wires.add(wire)

    def sent(self, sent: bool) -> None:
        if self._record:
            self._record.stage = CallStage.SENT if sent else CallStage.UNSENT


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
    def calling(self, record: CallRecord | None = None) -> Iterator[None]:
        """While a call within waits for its reply, `abort` breaks that off, too.

        Whether it has been sent is noted in *record*. A call that would begin after the
        end raises ScopeClosed.
        """
        calling = _Calling(self, record)
        try:
            with watched(calling):
                yield
        finally:
            with self._lock:
                self._calling -= calling.wires

    def enter(self, wire: socket.socket) -> None:
        """Have `abort` break *wire* off as well. Raises ScopeClosed."""
        with self._lock:
            if self._closed:
                raise OpenCallsClosed
            self._calling.add(wire)

    def hold(self, reply: HTTPReply) -> HTTPReply:
        """Keep *reply* until it is dropped. Raises ScopeClosed, with it gone."""
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
