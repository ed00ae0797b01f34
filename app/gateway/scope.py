"""What one request holds open upstream, so that it can be let go of at once."""

import threading
from types import TracebackType

from .upstream import HTTPReply


class ScopeClosed(Exception):
    """The request has ended; nothing more may be opened for it."""


class Scope:
    """The open replies of one request. Thread-safe: a fan-out opens many at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[HTTPReply] = set()
        self._closed = False

    def hold(self, reply: HTTPReply) -> HTTPReply:
        """Keep *reply* until it is dropped. Raises ScopeClosed, with it gone."""
        with self._lock:
            if not self._closed:
                self._open.add(reply)
                return reply
        reply.abort()
        raise ScopeClosed

    def drop(self, reply: HTTPReply) -> None:
        """Close *reply*, which has been read."""
        with self._lock:
            self._open.discard(reply)
        reply.close()

    def finish(self) -> None:
        """Close everything, all of it read: connections may serve again."""
        for reply in self._take():
            reply.close()

    def abort(self) -> None:
        """Break everything off."""
        for reply in self._take():
            reply.abort()

    def _take(self) -> set[HTTPReply]:
        with self._lock:
            self._closed = True
            replies, self._open = self._open, set()
        return replies

    def __enter__(self) -> "Scope":
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
