"""Watches over callers: those that hang up, that take nothing, that are too many.

One thread for each worker process looks at the sockets of all requests under way, four
times a second. A caller that has closed its sending side has left: whether it would
still read cannot be told before something is sent, and no client of HTTP does that.
"""

import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from ...errors import Busy, CallerLeft, ShuttingDown
from ...upstream.http1.connection import break_off, unpatched_poll
from .cancellation import Cancellation

logger = logging.getLogger("lastword")

# Seconds between two looks.
_EVERY = 0.25

# The other side has closed, or is gone; where that is not known, it has reset.
_GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


@dataclass(slots=True, eq=False)
class ClientConnection:
    """The connection of one request under way.

    *sending* is since when its caller is being sent a piece, by the monotonic clock;
    None while there is nothing to send. *is_streaming* says that a stream has begun.
    """

    socket: socket.socket | None
    cancellation: Cancellation = field(default_factory=Cancellation)
    sending: float | None = None
    is_streaming: bool = False
    forget: Callable[[], None] = lambda: None

    @property
    def number(self) -> int:
        """Its file descriptor; -1 if there is none (any more)."""
        return -1 if self.socket is None else self.socket.fileno()

    def break_off(self) -> None:
        """End it; whoever is about to send something there waits no longer."""
        if self.socket is not None:
            break_off(self.socket)


class ClientConnections:
    """Watches over all whose requests are under way. One for each process.

    Who takes nothing for *patience* seconds is let go of. At most *most* requests are
    under way at a time; None is no limit.
    """

    def __init__(
        self, patience: float, most: int | None = None, every: float = _EVERY
    ) -> None:
        self.most = most
        self._patience, self._every = patience, every
        self._lock = threading.Lock()
        self._connections: set[ClientConnection] = set()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._ends: float | None = None

    @contextmanager
    def watching(self, client: socket.socket | None) -> Iterator[ClientConnection]:
        """The connection to *client*, watched until it is forgotten.

        It is at once if the block fails. Without a socket nobody is watched. Raises
        Busy.
        """
        connection = self._watch(client)
        try:
            yield connection
        except BaseException:
            connection.forget()
            raise

    def _watch(self, client: socket.socket | None) -> ClientConnection:
        connection = ClientConnection(client)
        connection.forget = lambda: self._forget(connection)
        with self._lock:
            if self.most is not None and len(self._connections) >= self.most:
                raise Busy
            self._connections.add(connection)
            if client is not None and self._thread is None:
                self._start()
        return connection

    def _forget(self, connection: ClientConnection) -> None:
        with self._lock:
            self._connections.discard(connection)

    @property
    def count(self) -> int:
        """How many requests are under way."""
        return len(self._connections)

    @property
    def streams(self) -> int:
        """How many of them are streams that have begun."""
        with self._lock:
            return sum(each.is_streaming for each in self._connections)

    @property
    def is_draining(self) -> bool:
        """Whether this process is about to end."""
        return self._ends is not None

    def drain(self, seconds: float) -> None:
        """Let those who are here have so many *seconds*. May be called by a signal."""
        self._ends = time.monotonic() + seconds

    def close(self) -> None:
        """Watch no longer."""
        self._closed.set()
        thread = self._thread
        if thread and thread is not threading.current_thread():
            thread.join(5)

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._work, name="callers", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self._closed.wait(self._every):
            with self._lock:
                connections = list(self._connections)
            try:
                self._look(connections)
            except Exception:
                logger.exception("callers are not watched for a moment")

    def _look(self, connections: Sequence[ClientConnection]) -> None:
        for connection in (*_gone(connections), *filter(self._is_stalled, connections)):
            connection.cancellation.cancel(CallerLeft())
            connection.break_off()
        if self._ends is not None and time.monotonic() > self._ends:
            for connection in connections:
                connection.cancellation.cancel(ShuttingDown())

    def _is_stalled(self, connection: ClientConnection) -> bool:
        since = connection.sending
        return since is not None and time.monotonic() - since > self._patience


class Sending:
    """A body whose pieces are on their way until the next one is asked for."""

    def __init__(self, body: Iterator[bytes], connection: ClientConnection) -> None:
        self._body, self._connection = body, connection

    def __iter__(self) -> "Sending":
        return self

    def __next__(self) -> bytes:
        self._connection.sending = None
        piece = next(self._body)
        self._connection.sending = time.monotonic()
        return piece

    def close(self) -> None:
        """Close the body, and let go of the connection."""
        self._connection.forget()
        if close := getattr(self._body, "close", None):
            close()


def _gone(connections: Sequence[ClientConnection]) -> list[ClientConnection]:
    """Those whose other side has closed."""
    # Asked once each: a socket may be closed by its own thread meanwhile.
    by_number = {each.number: each for each in connections}
    by_number.pop(-1, None)
    poll = unpatched_poll()
    for number in by_number:
        poll.register(number, _GONE)
    return [by_number[number] for number, _ in poll.poll(0)]
