"""Client connections: watches for callers that hang up or stop reading.

One thread per worker process polls the sockets of all requests under way, four times a
second. A caller that has closed its sending side is considered gone: whether it would
still read shows only when something is sent, and no HTTP client half-closes.
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

# Seconds.
_POLL_INTERVAL = 0.25

# The peer has closed its side or the connection; systems without POLLRDHUP report only
# the latter.
_HANGUP_EVENTS = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


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
        """Shut it down, which also ends a write that is blocked on it."""
        if self.socket is not None:
            break_off(self.socket)


class ClientConnections:
    """The connections of all requests under way. One per process.

    A caller that reads nothing for *patience* seconds is disconnected. At most *most*
    requests are under way at a time; None is no limit.
    """

    def __init__(
        self,
        patience: float,
        max_connections: int | None = None,
        every: float = _POLL_INTERVAL,
    ) -> None:
        self.max_connections = max_connections
        self._patience, self._poll_interval = patience, every
        self._lock = threading.Lock()
        self._connections: set[ClientConnection] = set()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._drain_deadline: float | None = None

    @contextmanager
    def watching(self, client: socket.socket | None) -> Iterator[ClientConnection]:
        """The connection to *client*, watched until it is forgotten.

        If the block fails, that is at once. Without a socket nothing is watched. Raises
        Busy.
        """
        connection = ClientConnection(client)
        connection.forget = lambda: self._forget(connection)
        with self._lock:
            if (
                self.max_connections is not None
                and len(self._connections) >= self.max_connections
            ):
                raise Busy
            self._connections.add(connection)
            if client is not None and self._thread is None:
                self._thread = threading.Thread(
                    target=self._poll_until_closed, name="callers", daemon=True
                )
                self._thread.start()
        try:
            yield connection
        except BaseException:
            connection.forget()
            raise

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
        return self._drain_deadline is not None

    def drain(self, seconds: float) -> None:
        """Give the requests under way *seconds*. Safe to call in a signal handler."""
        self._drain_deadline = time.monotonic() + seconds

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        thread = self._thread
        if thread and thread is not threading.current_thread():
            thread.join(5)

    def _poll_until_closed(self) -> None:
        while not self._closed.wait(self._poll_interval):
            with self._lock:
                connections = list(self._connections)
            try:
                self._cancel_lost(connections)
            except Exception:
                # A thread that died here would leave all callers unwatched.
                logger.exception("callers are not watched for a moment")

    def _cancel_lost(self, connections: Sequence[ClientConnection]) -> None:
        """Cancel requests whose caller has hung up or stalled; all, after draining."""
        now = time.monotonic()
        stalled = [
            connection
            for connection in connections
            if (since := connection.sending) is not None
            and now - since > self._patience
        ]
        for connection in (*_closed_by_peer(connections), *stalled):
            connection.cancellation.cancel(CallerLeft())
            connection.break_off()
        if self._drain_deadline is not None and now > self._drain_deadline:
            for connection in connections:
                connection.cancellation.cancel(ShuttingDown())


class Sending:
    """A response body; a piece counts as being written until the next is requested."""

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
        """Close the body, and forget the connection."""
        self._connection.forget()
        if close := getattr(self._body, "close", None):
            close()


def _closed_by_peer(connections: Sequence[ClientConnection]) -> list[ClientConnection]:
    """The connections that their peer has closed."""
    # Read once each: the thread of a request may close its socket meanwhile.
    by_number = {each.number: each for each in connections}
    by_number.pop(-1, None)
    poll = unpatched_poll()
    for number in by_number:
        poll.register(number, _HANGUP_EVENTS)
    return [by_number[number] for number, _ in poll.poll(0)]
