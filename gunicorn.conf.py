"""gunicorn's settings; a comment for each that is not its default."""

import logging
import math
import os
import shutil
import signal
import tempfile

from gunicorn import util
from gunicorn.http.message import Message, Request

from app.observability.log_format import BOUNDED
from app.server import engine_process, gunicorn_errors
from app.server.worker import equip, http_date
from app.settings import BadSettings

# Requests that no application gets to see are answered in the same shape as others.
util.write_error = gunicorn_errors.write_error
gunicorn_errors.bound_heads(Message)
gunicorn_errors.check_heads(Request)
util.http_date = http_date
# gunicorn quotes what it cannot read, a key in a broken header as well.
logging.getLogger("gunicorn.error").addFilter(BOUNDED)

wsgi_app = "wsgi:app"
# Kept apart for a reload, which reads this again: when_ready writes where the workers
# are reached into the variable that was read here first.
bind = os.environ.setdefault(
    "GATEWAY_LISTEN", os.environ.get("GATEWAY_BIND", "127.0.0.1:8787")
)
workers = int(os.environ.get("WEB_CONCURRENCY") or min(os.cpu_count() or 1, 4))

# A stream occupies its worker's threads for minutes: greenlets are cheaper. Measured on
# 2 cores with 2 workers (make soak): 2,000 streams of 2 events a second, for a minute,
# in 250 MB in all, none lost or cut, /healthz in 5 ms. gthread, measured without the
# rest of the gateway, lost half of them.
worker_class = "gevent"
worker_connections = 2200
# Streams that run when the server is told to stop get this many seconds to end. After
# that the gateway ends them itself, with an error, for which the rest is left.
drain_timeout = float(os.environ.get("GATEWAY_DRAIN_TIMEOUT") or 60)
graceful_timeout = math.ceil(drain_timeout) + 5
# Longer than a proxy keeps its idle connections (nginx: 60), so that it ends them.
keepalive = 75
# A config of 32 KiB travels in a header.
limit_request_field_size = 65536
# One path for all servers of a user would be shared by all.
control_socket_disable = True
# The workers' heartbeat must not wait for a disk.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None


# Its own lines are as all others.
if os.environ.get("GATEWAY_LOG_FORMAT") == "json":
    logger_class = "app.server.gunicorn_logger.JSONLogger"

# Where the workers put what they count, so that any of them can tell of all.
_COUNTED, _OURS = "PROMETHEUS_MULTIPROC_DIR", "lastword-metrics-"


# `new` is a token that is made here, for who just tries things out: the log says how to
# come in with it.
_TOKEN, _is_new = "GATEWAY_CONSOLE_TOKEN", False
if os.environ.get(_TOKEN) == "new":
    os.environ[_TOKEN], _is_new = os.urandom(18).hex(), True


def on_starting(server):
    if _COUNTED not in os.environ:
        os.environ[_COUNTED] = tempfile.mkdtemp(prefix=_OURS)


def when_ready(server):
    """The sockets are open and no worker runs yet: start what they share.

    Workers learn where they are reached, from which they see who can reach them.
    """
    os.environ["GATEWAY_BIND"] = ",".join(map(str, server.LISTENERS))
    try:
        engine_process.start(
            dict(os.environ), server.log.error_log, str(server.LISTENERS[0])
        )
    except BadSettings as e:
        server.halt(reason=str(e), exit_status=1)
    if _is_new:
        # What stands behind # is sent to no server, and so is in no log of requests.
        link = f"{server.LISTENERS[0]}/console/login#{os.environ[_TOKEN]}"
        server.log.info("Console: %s", link)


# A new worker has the master's signal handlers until it has its own. They would put a
# signal into a queue that nobody reads, and the master would wait for this worker until
# graceful_timeout. So these wait until the worker has handlers that end it.
_ENDING = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)


def _let_through():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


def pre_fork(server, worker):
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)


os.register_at_fork(after_in_parent=_let_through)


def post_fork(server, worker):
    # What a worker writes (counters of the metrics, its stores) is for nobody else.
    os.umask(0o077)
    for number in _ENDING:
        signal.signal(number, lambda *_: os._exit(0))
    _let_through()


def post_worker_init(worker):
    """The worker has its handlers: have the gateway hear of its end as well."""
    equip(worker, drain_timeout)


def child_exit(server, worker):
    """What the worker showed, it shows no longer; what it has counted stays."""
    # Not before the workers are there, in which gevent patches what it loads.
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)


def on_exit(server):
    engine_process.stop()
    folder = os.environ[_COUNTED]
    if os.path.basename(folder).startswith(_OURS):
        shutil.rmtree(folder, ignore_errors=True)
