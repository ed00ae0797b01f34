"""The gevent worker, gunicorn's option `-k gevent`: the default."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import gevent.socket
from gunicorn.workers.ggevent import GeventWorker

from .private_names import GEVENT_WORKER, replace, require
from .worker import KEEPALIVE_LINGER, SMALL_WRITE, GatewayWorkerMixin

require(GEVENT_WORKER)

_gevent_sendall = gevent.socket.socket.sendall


class GatewayWorker(GatewayWorkerMixin, GeventWorker):  # type: ignore[misc]
    """A greenlet for each connection; idle connections do not delay its end.

    gunicorn's own worker would wait as long as ever for a next request when it is told
    to end: a proxy that keeps its connections could hold it for the whole of
    graceful_timeout.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.idle_seconds = float(self.cfg.keepalive)
        # The greenlets that wait for a next request, by the timeouts that end it.
        self.idle: dict[Any, Any] = {}

    def request_capacity(self) -> int:
        connections: int = self.worker_connections
        return connections * 9 // 10

    def patch(self) -> None:
        super().patch()
        replace("gevent.socket.socket.sendall", send_small_at_once)

    @contextmanager
    def timeout_ctx(self) -> Iterator[None]:
        """Let the block wait for a request, and leave it quietly when time is up."""
        # All other greenlets have a turn first: a client that sends one request upon
        # the other would be served again and again, as long as upstream is quick.
        gevent.sleep(0)
        timeout = gevent.Timeout(self.idle_seconds, False)
        self.idle[timeout] = gevent.getcurrent()
        try:
            with timeout:
                yield
        finally:
            del self.idle[timeout]

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.idle_seconds = KEEPALIVE_LINGER
        gevent.spawn_later(KEEPALIVE_LINGER, self.end_idle)
        super().handle_exit(sig, frame)

    def end_idle(self) -> None:
        """End the waits that began before SIGTERM, with the time of before."""

        def expire(timeout: Any, greenlet: Any) -> None:
            # Between two callbacks of the loop its request may have come.
            if timeout in self.idle:
                greenlet.throw(timeout)

        for timeout, greenlet in list(self.idle.items()):
            gevent.get_hub().loop.run_callback(expire, timeout, greenlet)


def send_small_at_once(self: Any, data: Any, flags: int = 0) -> None:
    """A socket's sendall in one system call for small pieces.

    gevent's own asks the kernel for the size of the send buffer each time.
    """
    if len(data) <= SMALL_WRITE:
        data = memoryview(data)[self.send(data, flags) :]
    if len(data):
        _gevent_sendall(self, data, flags)
