"""gunicorn's settings; a comment for each that is not its default."""

import math
import os

from app.server import hooks
from app.server.hooks import (  # noqa: F401 - gunicorn reads them here
    child_exit,
    on_exit,
    on_starting,
    post_fork,
    pre_fork,
    when_ready,
)

hooks.prepare()

wsgi_app = "wsgi:app"
# A reload (SIGHUP) reads this file again, and by then when_ready has overwritten
# GATEWAY_BIND with the addresses of the open sockets. So the original is kept.
bind = os.environ.setdefault(
    "GATEWAY_LISTEN", os.environ.get("GATEWAY_BIND", "127.0.0.1:8787")
)
workers = int(os.environ.get("WEB_CONCURRENCY") or min(os.cpu_count() or 1, 4))

# A stream occupies its worker's threads for minutes: greenlets are cheaper. Measured on
# 2 cores with 2 workers (make soak): 2,000 streams of 2 events a second, for a minute,
# in 250 MB in all, none lost or cut, /healthz in 5 ms. gthread, measured without the
# rest of the gateway, lost half of them. `-k gevent` and `-k gthread` choose these
# classes too.
worker_class = hooks.WORKER_CLASSES["gevent"]
worker_connections = 2200
# Streams that run when the server is told to stop get GATEWAY_DRAIN_TIMEOUT seconds to
# end. After that the gateway ends them itself, with an error, for which the rest is
# left.
graceful_timeout = math.ceil(float(os.environ.get("GATEWAY_DRAIN_TIMEOUT") or 60)) + 5
# Longer than a proxy keeps its idle connections (nginx: 60), so that it ends them.
keepalive = 75
# A config of 32 KiB travels in a header; gunicorn's default is 8190 bytes.
limit_request_field_size = 65536
# gunicorn's control socket has one default path, which all its servers of a user share.
control_socket_disable = True
# Workers show that they are alive by touching a file, which must not wait for a disk.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None
# gunicorn's own lines, in the format of the gateway's.
if os.environ.get("GATEWAY_LOG_FORMAT") == "json":
    logger_class = "app.server.gunicorn_logger.JSONLogger"
