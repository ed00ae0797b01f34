"""The thread worker, gunicorn's option `-k gthread`."""

from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from .lingering_close import LingeringClose
from .private_names import THREAD_WORKER, replace, require
from .worker import GatewayWorkerMixin

require(THREAD_WORKER)


class GatewayThreadWorker(GatewayWorkerMixin, ThreadWorker):  # type: ignore[misc]
    """A thread for each request; connections are closed in one of their own."""

    def request_capacity(self) -> int:
        # One thread is left to answer 503, or /healthz.
        threads: int = self.cfg.threads
        return max(1, threads - 1)

    def load_wsgi(self) -> None:
        super().load_wsgi()
        closing = LingeringClose()
        replace("gunicorn.util.close_graceful", closing.close)
        closing.start()

    def set_accept_enabled(self, enabled: Any) -> None:
        super().set_accept_enabled(enabled)
        # gunicorn leaves the listening sockets open until the last request has ended.
        # Until then the kernel would accept connections that nobody serves.
        if not self.alive:
            for listener in self.sockets:
                listener.close()
