"""gunicorn's server hooks: what its master does, and each worker right after the fork.

gunicorn.conf.py names them. This module is imported in the master, so it loads nothing
that gevent patches later.
"""

import logging
import os
import shutil
import signal
import tempfile
import time
from email.utils import formatdate
from functools import lru_cache
from typing import Any

from gunicorn.workers import SUPPORTED_WORKERS

from ..observability.log_format import BOUNDED
from ..settings import BadSettings
from . import engine_process
from .gunicorn_errors import write_error
from .private_names import GUNICORN, replace, require
from .request_head import GatewayRequest
from .worker import GatewayWorkerMixin

# By the names that operators use. gunicorn imports a class when it is chosen.
WORKER_CLASSES = {
    "gevent": "app.server.gevent_worker.GatewayWorker",
    "gthread": "app.server.thread_worker.GatewayThreadWorker",
}

# Where the workers put their counters, so that any of them can show the sum.
_METRICS_VARIABLE, _METRICS_PREFIX = "PROMETHEUS_MULTIPROC_DIR", "lastword-metrics-"

_TOKEN_VARIABLE = "GATEWAY_CONSOLE_TOKEN"
_generated_tokens: list[str] = []

_END_SIGNALS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)


def prepare() -> None:
    """Adapt gunicorn to the gateway. Called each time its settings are read.

    Raises IncompatibleLibrary for a gunicorn that lacks what is overridden.
    """
    require(GUNICORN)
    SUPPORTED_WORKERS.update(WORKER_CLASSES)
    replace("gunicorn.http.parser.RequestParser.mesg_class", GatewayRequest)
    replace("gunicorn.util.write_error", write_error)
    replace("gunicorn.util.http_date", http_date)
    # gunicorn quotes what it cannot parse, such as a key in a malformed header.
    logging.getLogger("gunicorn.error").addFilter(BOUNDED)
    # `new` is a token that is generated here, for trying things out: when_ready logs a
    # link with it. An application that is preloaded reads it before on_starting.
    if os.environ.get(_TOKEN_VARIABLE) == "new":
        os.environ[_TOKEN_VARIABLE] = os.urandom(18).hex()
        _generated_tokens.append(os.environ[_TOKEN_VARIABLE])


def http_date(timestamp: float | None = None) -> str:
    """The header Date, formatted once a second instead of once an answer."""
    return _format_date(int(time.time() if timestamp is None else timestamp))


@lru_cache(8)
def _format_date(second: int) -> str:
    return formatdate(second, usegmt=True)


def on_starting(server: Any) -> None:
    if _METRICS_VARIABLE not in os.environ:
        os.environ[_METRICS_VARIABLE] = tempfile.mkdtemp(prefix=_METRICS_PREFIX)
    # gunicorn has no hook in the master after a fork; Python has.
    os.register_at_fork(after_in_parent=_unblock_end_signals)
    if not issubclass(server.cfg.worker_class, GatewayWorkerMixin):
        server.log.warning(
            "Workers of class %s are not the gateway's own: requests under way are not "
            "ended in order. Supported are -k gevent and -k gthread.",
            server.cfg.worker_class_str,
        )


def when_ready(server: Any) -> None:
    """The sockets are open and no worker runs yet: start what workers share."""
    # The addresses, with the port that the kernel chose for 0. Workers need them to
    # know whether other machines can connect.
    os.environ["GATEWAY_BIND"] = ",".join(map(str, server.LISTENERS))
    try:
        engine_process.start(
            dict(os.environ), server.log.error_log, str(server.LISTENERS[0])
        )
    except BadSettings as e:
        server.halt(reason=str(e), exit_status=1)
    for token in _generated_tokens:
        # In the fragment, which browsers never send: it is in no access log. login.js
        # reads it.
        server.log.info("Console: %s/console/login#%s", server.LISTENERS[0], token)


# A new worker has the master's signal handlers until it installs its own. They put a
# signal into a queue that only the master reads: a SIGTERM right after the fork would
# be lost, and the master would wait for this worker until graceful_timeout. So they are
# blocked from before the fork until the worker has handlers that end it; the kernel
# keeps one that comes meanwhile and delivers it then.


def pre_fork(server: Any, worker: Any) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _END_SIGNALS)


def _unblock_end_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _END_SIGNALS)


def post_fork(server: Any, worker: Any) -> None:
    # What a worker writes (counters of the metrics, its stores) is for nobody else.
    os.umask(0o077)
    for number in _END_SIGNALS:
        signal.signal(number, lambda *_: os._exit(0))
    _unblock_end_signals()


def child_exit(server: Any, worker: Any) -> None:
    """Drop the gauges of a worker that has ended; its counters stay."""
    # Imported once workers exist, in which gevent patches what it loads.
    from prometheus_client import multiprocess

    mark_process_dead: Any = multiprocess.mark_process_dead
    mark_process_dead(worker.pid)


def on_exit(server: Any) -> None:
    engine_process.stop()
    folder = os.environ[_METRICS_VARIABLE]
    if os.path.basename(folder).startswith(_METRICS_PREFIX):
        shutil.rmtree(folder, ignore_errors=True)
