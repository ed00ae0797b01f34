"""gunicorn's settings; a comment for each that is not its default."""

import os
import signal

from gunicorn import util

from app import engine, malformed

# Requests that no application gets to see are answered in the same shape as others.
util.write_error = malformed.write_error

wsgi_app = "wsgi:app"
bind = os.environ.get("GATEWAY_BIND", "127.0.0.1:8787")
workers = int(os.environ.get("WEB_CONCURRENCY") or min(os.cpu_count() or 1, 4))

# A stream occupies its worker's thread for minutes: greenlets are cheaper. Measured on
# 2 cores: 2,000 streams at once fit in 80-105 MB a worker; gthread lost half of them.
worker_class = "gevent"
worker_connections = 2000
# Streams that run when the server is told to stop get this many seconds to end.
graceful_timeout = 60
# Longer than a proxy keeps its idle connections (nginx: 60), so that it ends them.
keepalive = 75
# A config of 32 KiB travels in a header.
limit_request_field_size = 65536
# One path for all servers of a user would be shared by all.
control_socket_disable = True
# The workers' heartbeat must not wait for a disk.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None


def when_ready(server):
    """The sockets are open and no worker runs yet: start what they share.

    Workers learn where they are reached, from which they see who can reach them.
    """
    os.environ["GATEWAY_BIND"] = ",".join(map(str, server.LISTENERS))
    engine.start(dict(os.environ), server.log.error_log, str(server.LISTENERS[0]))


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
    for number in _ENDING:
        signal.signal(number, lambda *_: os._exit(0))
    _let_through()


def on_exit(server):
    engine.stop()
