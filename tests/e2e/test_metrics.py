"""Metrics are summed over all workers."""

import json
import os
import signal
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.upstream import DONE, completion, data, frame, stream, until_closed, whole

from .server import Server, children, eventually

pytestmark = pytest.mark.e2e

WORKERS = pytest.mark.parametrize("worker", ["gevent", "gthread"])


def counted(server: Server, name: str) -> float:
    """The sum of all series of that name, from any worker."""
    text = server.get("/metrics").text
    samples = [s for f in text_string_to_metric_families(text) for s in f.samples]
    return sum(s.value for s in samples if s.name == f"lastword_{name}")


def with_breaker(url: str) -> str:
    target = {"provider": "openai", "api_key": "sk-1", "custom_host": url}
    strategy = {"mode": "fallback", "cb_config": {"failure_threshold": 5}}
    return json.dumps({"strategy": strategy, "targets": [target]})


@WORKERS
def test_metrics_sum_living_and_dead_workers(
    script, tmp_path: Path, worker: str
) -> None:
    upstream = script(whole(completion()))
    running = script(stream(data(frame("Hel")), until_closed, DONE))
    arguments = {
        "WEB_CONCURRENCY": "2",
        "GUNICORN_CMD_ARGS": f"-k {worker} --threads 8",
    }
    server = Server(TMPDIR=str(tmp_path), **arguments)
    try:
        server.wait_until_ready()
        headers = {"x-portkey-provider": "openai", "Authorization": "Bearer sk-1"}
        for _ in range(20):
            to = {"x-portkey-config": with_breaker(upstream.url)}
            assert server.complete(headers | to).status_code == 200
        eventually(lambda: counted(server, "requests_total") == 20)
        assert counted(server, "breakers") == 1

        to = {"x-portkey-custom-host": running.url}
        with server.complete(headers | to, stream=True) as response:
            # A reference is kept: the connection is closed with the iterator.
            pieces = response.iter_content(None)
            next(pieces)
            eventually(lambda: counted(server, "streams_open") == 1)
        eventually(lambda: counted(server, "streams_open") == 0)
        eventually(lambda: counted(server, "left_total") == 1)

        first, *_ = children(server.pid)
        os.kill(first, signal.SIGKILL)
        eventually(lambda: first not in children(server.pid))
        server.wait_until_ready()
        assert counted(server, "requests_total") == 21
    finally:
        server.stop()
    assert list(tmp_path.glob("lastword-metrics-*")) == []
