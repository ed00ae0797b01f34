"""What both kinds of gunicorn worker of the gateway do when they start and end.

The gunicorn master imports this module, so it loads nothing that gevent patches later.
tests/e2e/test_drain.py shows whether a new version of gunicorn still works with it.
"""

import ctypes
import gc
from typing import TYPE_CHECKING, Any

from gunicorn.workers.base import Worker

if TYPE_CHECKING:
    from ..gateway.clients.connections import ClientConnections

# Seconds in which a client may still send a request on a kept-alive connection after
# its worker was told to end. gthread has the same figure built in.
KEEPALIVE_LINGER = 2.0

# Bytes that a socket nearly always takes as a whole.
SMALL_WRITE = 2**16

# Objects allocated before a garbage collection, ten times Python's default and
# more: a request leaves only a dozen in reference cycles.
_GC_THRESHOLD = 10_000

# glibc's mallopt: its parameters, and bytes. Source: mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE_BLOCK = 2**20


class GatewayWorkerMixin(Worker):  # type: ignore[misc]  # gunicorn has no types
    """Bounds the requests of a worker, and ends those under way when it is to end."""

    # None until the application is loaded: SIGTERM may come before.
    connections: "ClientConnections | None" = None

    def request_capacity(self) -> int:
        """The most requests at a time that leave room to answer others with 503."""
        raise NotImplementedError

    def load_wsgi(self) -> None:
        super().load_wsgi()
        # What exists before the first request, a hundred thousand objects of modules,
        # is never garbage: after `freeze` the collector does not visit it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)
        return_memory()
        self.connections = self.wsgi.extensions["lastword"].clients
        self.connections.max_connections = (
            self.connections.max_connections or self.request_capacity()
        )

    def run(self) -> None:
        """Answer requests until the worker is to end; then report the last of them."""
        try:
            super().run()
        finally:
            # Not left to atexit, as elsewhere: from 3.12 on Python starts no thread any
            # more by then, and the last spans are exported by one.
            if self.connections is not None:
                self.wsgi.extensions["lastword"].close()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Handle SIGTERM: requests under way have the drain timeout to end."""
        if self.connections is not None:
            settings = self.wsgi.extensions["lastword.settings"]
            self.connections.drain(settings.drain_timeout)
        super().handle_exit(sig, frame)


def return_memory() -> None:
    """Make glibc return blocks of a mebibyte or more to the system when freed.

    glibc by itself raises that limit to 32 MiB with the first large block that is
    freed, and from then on keeps as much, for each of its arenas, of which every thread
    may have one: after large answers a worker would stay at its largest.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
        mallopt(_M_TRIM_THRESHOLD, 2 * _LARGE_BLOCK)
