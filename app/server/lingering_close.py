"""Lingering close (RFC 9112, section 9.6) in a thread of its own, for gthread."""

import atexit
import socket
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from .worker import KEEPALIVE_LINGER, SMALL_WRITE

# Seconds between two checks of the sockets that linger.
_INTERVAL = 0.1


class LingeringClose:
    """Closes connections when their client has, or after a while.

    gthread does so in the thread that dispatches requests, where all others would wait
    for a client that keeps its end open. What a client still sends is read and dropped:
    to close a socket with unread input sends a reset, and the client loses the answer.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._incoming: SimpleQueue[tuple[Any, float]] = SimpleQueue()
        self._lingering: list[tuple[Any, float]] = []

    def start(self) -> None:
        """Start the thread. When the process ends, open sockets keep their time."""

        def run() -> None:
            # It sleeps in `get` until there is a first socket, then polls.
            while True:
                self._lingering.append(self._incoming.get())
                while self.check():
                    time.sleep(_INTERVAL)

        def finish() -> None:
            deadline = time.monotonic() + KEEPALIVE_LINGER
            while self._lingering or not self._incoming.empty():
                if time.monotonic() > deadline:
                    break
                time.sleep(_INTERVAL / 10)

        threading.Thread(target=run, name="lingering-close", daemon=True).start()
        atexit.register(finish)

    def close(self, client: socket.socket) -> None:
        """Close *client* later. Replaces gunicorn's close_graceful."""
        try:
            client.shutdown(socket.SHUT_WR)
            client.setblocking(False)
        except OSError:
            client.close()
            return
        self._incoming.put((client, self._now() + KEEPALIVE_LINGER))

    def check(self) -> int:
        """Close the sockets whose client has closed its end, or whose time is up.

        Returns how many are left.
        """
        while not self._incoming.empty():
            self._lingering.append(self._incoming.get())
        self._lingering[:] = [
            (client, until)
            for client, until in self._lingering
            if not self._close_if_due(client, until)
        ]
        return len(self._lingering)

    def _close_if_due(self, client: socket.socket, until: float) -> bool:
        try:
            # A client that fills the whole buffer is not going to end.
            is_due = len(client.recv(SMALL_WRITE)) in (0, SMALL_WRITE)
        except BlockingIOError:
            is_due = False
        except OSError:
            is_due = True
        if is_due or self._now() > until:
            client.close()
            return True
        return False
