"""Logs and traces of a real gunicorn: JSON lines, and spans of its workers."""

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.collector import Collector
from tests.upstream import DONE, completion, data, frame, stream, whole

from .server import Server, children, eventually

pytestmark = pytest.mark.e2e


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.stop()


def lines(server: Server) -> list[dict[str, Any]]:
    """The log lines, each of which has to be JSON."""
    return [json.loads(line) for line in server.log]


@pytest.mark.parametrize("worker", ["gevent", "gthread"])
def test_json_logs_and_final_spans(script, collector: Collector, worker: str) -> None:
    upstream = script(
        whole(completion()), stream(data(frame("Hel")), data(frame("lo", "stop")), DONE)
    )
    server = Server(
        GATEWAY_LOG_FORMAT="json",
        WEB_CONCURRENCY="1",
        GUNICORN_CMD_ARGS=f"-k {worker} --threads 8 --access-logfile -",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
    )
    try:
        # gunicorn logs that it listens before it has forked.
        eventually(lambda: children(server.pid) != [])
        (first,) = children(server.pid)
        os.kill(first, signal.SIGKILL)
        eventually(lambda: children(server.pid) not in ([], [first]))
        headers = {"x-portkey-provider": "openai", "Authorization": "Bearer sk-1"}
        headers |= {"x-portkey-custom-host": upstream.url, "x-portkey-trace-id": "t 1"}
        assert server.complete(headers).status_code == 200
        assert server.complete(headers, stream=True).content.endswith(DONE)
    finally:
        server.stop()

    records = lines(server)
    loggers = {line["logger"] for line in records}
    assert loggers == {"gunicorn.error", "gunicorn.access", "lastword"}
    events = [line["event"] for line in records]
    assert events.count("request") == 2 and "lastword has begun" in events
    assert any(event.startswith("Worker (pid:") for event in events)
    assert {line["process"] for line in records} > {server.pid}
    traced = {line["otel_trace_id"] for line in records if line["event"] == "request"}
    assert traced == {span.trace_id for span in collector.spans}
    # The stop came at once: pending spans were exported when the worker ended.
    assert len(collector.spans) == 4
    tried = {span.span_id for span in collector.tries}
    parents = [each.headers["traceparent"].split("-")[2] for each in upstream.requests]
    assert set(parents) == tried


def test_start_failure_is_logged_as_json() -> None:
    server = Server(GATEWAY_LOG_FORMAT="json", GATEWAY_IDLE_TIMEOUT="soon")

    assert server.wait() == 1
    *_, last = [line["event"] for line in lines(server) if line["level"] == "error"]
    assert "GATEWAY_IDLE_TIMEOUT='soon'" in last
