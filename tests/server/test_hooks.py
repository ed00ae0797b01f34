"""The supported worker classes of gunicorn."""

import pytest
from gunicorn.util import load_class

from app.server.hooks import WORKER_CLASSES
from app.server.worker import GatewayWorkerMixin
from tests.e2e.server import Server, eventually


@pytest.mark.parametrize("name", WORKER_CLASSES)
def test_worker_class_extends_gunicorns(name: str) -> None:
    own = load_class(WORKER_CLASSES[name])

    assert issubclass(own, GatewayWorkerMixin)
    assert issubclass(own, load_class(name))


@pytest.mark.e2e
def test_unsupported_worker_class_logs_warning() -> None:
    server = Server(GUNICORN_CMD_ARGS="-k sync", WEB_CONCURRENCY="1")
    try:
        eventually(lambda: "Supported are -k gevent and -k gthread" in server.log_text)
        assert server.get("/healthz").status_code == 200
    finally:
        server.stop()
