"""What a worker of gunicorn needs besides, so that it ends well and is never overfull.

Reaches into gunicorn's classes where they have no hook. Whether that still holds with a
new version of gunicorn, tests/e2e/test_drain.py says.
"""

import atexit
import ctypes
import gc
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from functools import lru_cache
from queue import SimpleQueue
from typing import Any

# Seconds in which a client may still send something on a connection that is kept, after
# its worker was told to end. gthread does so by itself.
_LINGER = 2.0

# Seconds between two looks at those that have been told so.
_EVERY = 0.1

# Bytes that a socket nearly always takes as a whole.
_SMALL = 2**16


def equip(worker: Any, drain_timeout: float) -> None:
    """Have a *worker* that is about to serve fill up, and end, as the gateway wants it.

    Answers under way have *drain_timeout* seconds when it is told to end.
    """
    _settle()
    return_memory()
    callers = worker.wsgi.extensions["lastword"].clients
    callers.most = callers.most or _room(worker.cfg)
    at_the_end: list[Callable[[], None]] = [lambda: callers.drain(drain_timeout)]
    if worker.cfg.worker_class_str == "gthread":
        _close_with_the_door(worker)
        Farewells().begin()
    else:
        at_the_end.append(_Idle(worker).end)
        _send_at_once()
    before: Any = signal.getsignal(signal.SIGTERM)

    def end(number: int, frame: Any) -> None:
        for step in at_the_end:
            step()
        before(number, frame)

    signal.signal(signal.SIGTERM, end)


def http_date(timestamp: float | None = None) -> str:
    """The date of an answer, which is the same for all of a second."""
    return _date(int(time.time() if timestamp is None else timestamp))


@lru_cache(8)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


# Objects that a search for garbage waits for. A request leaves a dozen in circles.
_GARBAGE = 10_000


def _settle() -> None:
    """Look for garbage less often, and never among what is there before all requests:
    a hundred thousand objects of modules and packages, which stay anyway.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE)


# glibc's mallopt: its parameters, and bytes. Source: mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE = 2**20


def return_memory() -> None:
    """Have blocks of a mebibyte and more go back to the system when they are freed.

    glibc by itself raises that limit to 32 MiB with the first large block that is
    freed, and from then on keeps as much, for each of its arenas, of which every thread
    may have one: after large answers a worker would stay at its largest.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, 2 * _LARGE)


def _room(cfg: Any) -> int:
    """How many requests a worker can hold, and still say to others that it is full."""
    threads: int = cfg.threads
    if cfg.worker_class_str == "gthread":
        return max(1, threads - 1)
    connections: int = cfg.worker_connections
    return connections * 9 // 10


def _close_with_the_door(worker: Any) -> None:
    """gthread accepts no more when it ends, and leaves the socket open: close it.

    Else the kernel would go on accepting for it, and nobody would ever answer.
    """
    enable = worker.set_accept_enabled

    def set_accept_enabled(enabled: bool) -> None:
        enable(enabled)
        if not worker.alive:
            for listener in worker.sockets:
                listener.close()

    worker.set_accept_enabled = set_accept_enabled


class Farewells:
    """Takes leave of connections in a thread of its own.

    gthread does it in the one that hands out requests, where all others would wait for
    a client that keeps its end open. What it may still say is thrown away, so that the
    kernel does not take back an answer that is on its way.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._coming: SimpleQueue[tuple[Any, float]] = SimpleQueue()
        self._waiting: list[tuple[Any, float]] = []

    def begin(self) -> None:
        """Do it for this process. When it ends, those who are left have their time."""
        from gunicorn import util

        util.close_graceful = self.close
        threading.Thread(target=self._work, name="farewells", daemon=True).start()
        atexit.register(self._end)

    def close(self, client: Any) -> None:
        """Close the socket *client* when its other side has, or after a while."""
        try:
            client.shutdown(socket.SHUT_WR)
            client.setblocking(False)
        except OSError:
            client.close()
            return
        self._coming.put((client, self._now() + _LINGER))

    def _work(self) -> None:
        while True:
            self._waiting.append(self._coming.get())
            while self.look():
                time.sleep(_EVERY)

    def look(self) -> int:
        """Close those whose time has come; how many are left."""
        while not self._coming.empty():
            self._waiting.append(self._coming.get())
        self._waiting[:] = [w for w in self._waiting if not self._is_over(*w)]
        return len(self._waiting)

    def _is_over(self, client: Any, until: float) -> bool:
        """Whether *client* is closed, now at the latest."""
        try:
            # Who goes on and on is no longer listened to.
            left = len(client.recv(_SMALL)) in (0, _SMALL)
        except BlockingIOError:
            left = False
        except OSError:
            left = True
        if left or self._now() > until:
            client.close()
            return True
        return False

    def _end(self) -> None:
        until = time.monotonic() + _LINGER
        while (self._waiting or not self._coming.empty()) and time.monotonic() < until:
            time.sleep(_EVERY / 10)


def _send_at_once() -> None:
    """gevent's sendall asks for the size of a buffer each time: send small pieces as
    they are, which is one system call instead of two.
    """
    from gevent import socket

    sendall = socket.socket.sendall

    def at_once(self: Any, data: Any, flags: int = 0) -> None:
        if len(data) <= _SMALL:
            data = memoryview(data)[self.send(data, flags) :]
        if len(data):
            sendall(self, data, flags)

    socket.socket.sendall = at_once


class _Idle:
    """The connections on which a gevent worker waits for a next request.

    By itself it would wait as long as ever when it is told to end: a proxy that keeps
    its connections could hold it for the whole of graceful_timeout.
    """

    def __init__(self, worker: Any) -> None:
        self._waiting: dict[Any, Any] = {}
        self._seconds = float(worker.cfg.keepalive)
        worker.timeout_ctx = self._wait

    @contextmanager
    def _wait(self) -> Iterator[None]:
        """Let the block wait for a request, and end quietly when it waits no more.

        All others come first: who sends one request upon the other would be served
        again and again, as long as upstream is quick.
        """
        import gevent

        gevent.sleep(0)
        timeout = gevent.Timeout(self._seconds, False)
        self._waiting[timeout] = gevent.getcurrent()
        try:
            with timeout:
                yield
        finally:
            del self._waiting[timeout]

    def end(self) -> None:
        """Let them have a moment, and then wait no more. May be called by a signal."""
        import gevent

        self._seconds = _LINGER
        gevent.spawn_later(_LINGER, self._give_up)

    def _give_up(self) -> None:
        import gevent

        for timeout, greenlet in list(self._waiting.items()):
            gevent.get_hub().loop.run_callback(self._throw, timeout, greenlet)

    def _throw(self, timeout: Any, greenlet: Any) -> None:
        if timeout in self._waiting:
            greenlet.throw(timeout)
