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


# The drain. On SIGTERM gunicorn closes the listening sockets and waits, for at most
# graceful_timeout, until no greenlet of a connection is left. The mixin gives requests
# under way their time (GATEWAY_DRAIN_TIMEOUT). What is left are connections that are
# kept alive and idle: each waits for a next request for `keepalive` seconds, 75. So on
# SIGTERM that wait becomes two seconds, also for those that had begun before.


class GatewayWorker(GatewayWorkerMixin, GeventWorker):  # type: ignore[misc]
    """A greenlet for each connection; idle connections do not delay its end.

    After SIGTERM gunicorn's own worker waits for a next request as long as before: a
    proxy that keeps its connections holds it for the whole graceful_timeout.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.idle_seconds = float(self.cfg.keepalive)
        # The greenlets that wait for a next request, by the timeouts that end it.
        self.idle: dict[Any, Any] = {}

    def request_capacity(self) -> int:
        # A tenth is left for connections that are only answered 503, or /healthz.
        connections: int = self.worker_connections
        return connections * 9 // 10

    def patch(self) -> None:
        super().patch()
        replace("gevent.socket.socket.sendall", send_small_at_once)

    @contextmanager
    def timeout_ctx(self) -> Iterator[None]:
        """Let the block wait for a request; leave it without an error on timeout."""
        # All other greenlets run first: a client that sends one request after the other
        # would be served again and again, as long as upstream is quick.
        gevent.sleep(0)
        # With False the block just ends; gunicorn then closes the connection.
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
        """End the waits that began before SIGTERM, and still have the longer time."""

        def expire(timeout: Any, greenlet: Any) -> None:
            # Its request may have come since, in an earlier callback of the loop: that
            # must not be cut off.
            if timeout in self.idle:
                greenlet.throw(timeout)

        # In the hub: `throw` from a greenlet would switch to the other at once, and
        # never come back here.
        for timeout, greenlet in list(self.idle.items()):
            gevent.get_hub().loop.run_callback(expire, timeout, greenlet)


def send_small_at_once(self: Any, data: Any, flags: int = 0) -> None:
    """A socket's sendall in one system call for small pieces.

    gevent's own asks the kernel for the size of the send buffer each time.
    """
    if len(data) <= SMALL_WRITE:
        # A non-blocking send; what the kernel did not take goes the long way.
        data = memoryview(data)[self.send(data, flags) :]
    if len(data):
        _gevent_sendall(self, data, flags)
