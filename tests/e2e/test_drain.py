"""Stopping servers, killed workers, too many and too slow callers."""

import json
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.upstream import (
    DONE,
    Upstream,
    completion,
    data,
    frame,
    stream,
    until_closed,
    wait_for,
    whole,
)

from .server import Server, alive, children, eventually, route_headers

pytestmark = pytest.mark.e2e

WORKERS = pytest.mark.parametrize("worker", ["gevent", "gthread"])
FIRST, LAST = data(frame("Hel")), data(frame("lo", "stop"))


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """Starts gateways, which stop with the test."""
    servers: list[Server] = []

    def make(worker: str, **environ: str) -> Server:
        arguments = f"-k {worker} --threads 16"
        environ = {"WEB_CONCURRENCY": "1", "GUNICORN_CMD_ARGS": arguments} | environ
        servers.append(Server(**environ))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


def complete(server: Server, upstream: Upstream, **body: Any) -> Any:
    headers = route_headers(upstream)
    return server.complete(headers, **body)


# Stop and drain


@WORKERS
def test_idle_connections_do_not_delay_stop(start, worker: str) -> None:
    server = start(worker, GATEWAY_DRAIN_TIMEOUT="40")
    with requests.Session() as session, server.connect() as silent:
        assert session.get(server.url + "/healthz", timeout=10).ok
        server.signal(signal.SIGTERM)
        assert server.wait(10) == 0
        assert silent.recv(10) == b""


@WORKERS
def test_drain_finishes_streams_refuses_connections(start, script, worker: str) -> None:
    go_on = threading.Event()
    upstream = script(stream(FIRST, wait_for(go_on), LAST, DONE))
    server = start(worker)
    with complete(server, upstream, stream=True) as response:
        pieces = response.iter_content(len(FIRST))
        assert next(pieces) == FIRST
        server.signal(signal.SIGTERM)
        eventually(lambda: not can_connect(server))
        go_on.set()
        rest = b"".join(pieces)

    assert rest == LAST + DONE
    assert server.wait() == 0


def can_connect(server: Server) -> bool:
    try:
        server.connect().close()
    except OSError:
        return False
    return True


@WORKERS
def test_readyz_reports_draining(start, script, worker: str) -> None:
    """Over a connection that was open before the stop."""
    upstream = script(stream(FIRST, until_closed))
    server = start(worker, GATEWAY_DRAIN_TIMEOUT="3")
    with requests.Session() as session, complete(
        server, upstream, stream=True
    ) as response:
        assert session.get(server.url + "/readyz", timeout=5).ok
        next(response.iter_content(len(FIRST)))
        server.signal(signal.SIGTERM)
        eventually(lambda: "Handling signal: term" in server.log_text)
        readiness = session.get(server.url + "/readyz", timeout=5)

    assert readiness.status_code == 503
    assert readiness.json()["status"] == "draining"


@WORKERS
def test_drain_timeout_ends_stream_with_error(start, script, worker: str) -> None:
    upstream = script(stream(FIRST, until_closed))
    server = start(worker, GATEWAY_DRAIN_TIMEOUT="1")
    with complete(server, upstream, stream=True) as response:
        pieces = response.iter_content(len(FIRST))
        assert next(pieces) == FIRST
        server.signal(signal.SIGTERM)
        last = b"".join(pieces)
    error = json.loads(last.removeprefix(b"data: "))["error"]

    assert error["code"] == "shutting_down"
    assert server.wait() == 0
    assert upstream.wait_closed()


@WORKERS
def test_drain_timeout_answers_503(start, script, worker: str) -> None:
    upstream = script([until_closed])
    server = start(worker, GATEWAY_DRAIN_TIMEOUT="1")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(complete, server, upstream)
        eventually(lambda: upstream.requests)
        server.signal(signal.SIGTERM)
        response = answer.result()

    assert response.status_code == 503
    assert response.json()["error"]["code"] == "shutting_down"


@WORKERS
def test_reload_loses_no_request(start, script, worker: str) -> None:
    upstream = script(whole(completion()))
    server = start(worker, WEB_CONCURRENCY="2")
    before = set(children(server.pid))
    statuses: Counter[Any] = Counter()
    over = threading.Event()

    def keep_asking(_: int) -> None:
        while not over.is_set():
            statuses[complete(server, upstream).status_code] += 1

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(keep_asking, number) for number in range(4)]
        try:
            eventually(lambda: statuses.total() > 20)
            server.signal(signal.SIGHUP)
            eventually(lambda: not before & set(children(server.pid)), 20)
            after = statuses.total()
            eventually(lambda: statuses.total() > after + 20)
        finally:
            over.set()
        for each in asking:
            each.result()

    assert set(statuses) == {200}


@WORKERS
def test_killed_worker_is_replaced(start, script, worker: str) -> None:
    upstream = script(whole(completion()))
    server = start(worker, WEB_CONCURRENCY="2")
    eventually(lambda: len(children(server.pid)) == 2)
    victim, other = children(server.pid)
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: not alive(victim))
    statuses = {complete(server, upstream).status_code for _ in range(10)}
    eventually(lambda: len(children(server.pid)) == 2)

    assert statuses == {200}
    assert other in children(server.pid)


# Too many and too slow callers


@WORKERS
def test_overload_is_refused_at_once(start, script, worker: str) -> None:
    go_on = threading.Event()
    upstream = script(stream(FIRST, wait_for(go_on), LAST, DONE))
    server = start(worker, GATEWAY_MAX_REQUESTS="2")
    held = [complete(server, upstream, stream=True) for _ in range(2)]
    refused = complete(server, upstream)
    assert server.get("/healthz").ok
    go_on.set()
    for response in held:
        assert response.content.endswith(DONE)
    again = complete(server, script(whole(completion())))

    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "1"
    assert refused.json()["error"]["code"] == "overloaded"
    assert again.status_code == 200


@WORKERS
def test_stalled_client_is_disconnected(start, script, worker: str) -> None:
    """Backpressure reaches the upstream; the answer is not buffered in memory."""
    sent = []

    def endless(connection: socket.socket) -> None:
        piece = data(frame("x" * 60_000))
        chunk = b"%x\r\n%b\r\n" % (len(piece), piece)
        while True:
            connection.sendall(chunk)
            sent.append(len(chunk))

    upstream = script(stream(endless))
    server = start(worker, GATEWAY_IDLE_TIMEOUT="1")
    body = json.dumps({"model": "m", "prompt": "Hi", "stream": True})
    lines = [
        "POST /v1/completions HTTP/1.1",
        "Host: gateway",
        "x-portkey-provider: openai",
        f"x-portkey-custom-host: {upstream.url}",
        "Authorization: Bearer sk-1",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    with server.connect() as connection:
        connection.sendall("\r\n".join([*lines, "", body]).encode())

        assert upstream.wait_closed(10)
    assert sum(sent) < 64 * 2**20
    assert "Traceback" not in server.log_text
