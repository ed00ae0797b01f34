"""The gateway under a real gunicorn: framing, latency of events, and stop."""

import json
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import requests

from tests.upstream import (
    DONE,
    closing_stream,
    completion,
    data,
    frame,
    stream,
    wait_for,
    whole,
)

from .server import Server, children, eventually, route_headers

pytestmark = pytest.mark.e2e

HELLO = [data(frame("Hel")), data(frame("lo")), data(frame("!", "stop"))]
BODY = json.dumps({"model": "m", "prompt": "Hi"}).encode()


def request_head(upstream, *lines: str) -> bytes:
    """A minimal request: no User-Agent, no Accept."""
    named = [f"{name}: {value}" for name, value in route_headers(upstream).items()]
    first = ["POST /v1/completions HTTP/1.1", "Host: gateway"]
    return "\r\n".join([*first, *named, *lines, "", ""]).encode()


def read_answer(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("framing", [stream, closing_stream], ids=["chunked", "close"])
def test_events_are_relayed_at_once(gunicorn: Server, script, framing) -> None:
    """The first event arrives before the last is sent."""
    go_on = threading.Event()
    upstream = script(framing(HELLO[0], wait_for(go_on), *HELLO[1:], DONE))
    with gunicorn.complete(route_headers(upstream), stream=True) as response:
        lines = response.iter_lines(1)

        assert next(lines) == HELLO[0].strip()
        go_on.set()
        assert list(filter(None, lines))[-1] == b"data: [DONE]"


def test_chunked_body_is_read(gunicorn: Server, script) -> None:
    upstream = script(whole(completion()))
    response = requests.post(
        gunicorn.url + "/v1/completions",
        data=iter([BODY[:5], BODY[5:]]),
        headers=route_headers(upstream)
        | {"Content-Type": "application/json; charset=utf-8"},
        timeout=10,
    )

    assert response.status_code == 200
    assert upstream.last.json == {"model": "m", "prompt": "Hi", "max_tokens": 100}


def test_expect_100_continue_is_answered(gunicorn: Server, script) -> None:
    upstream = script(whole(completion()))
    wait = f"Content-Length: {len(BODY)}", "Expect: 100-continue", "Connection: close"
    with gunicorn.connect() as connection:
        connection.sendall(request_head(upstream, *wait))
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(BODY)

        assert read_answer(connection).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("framing", ["Content-Length", "chunked"])
def test_oversized_body_gets_readable_413(
    gunicorn: Server, script, framing: str
) -> None:
    upstream = script(whole(completion()))
    body = json.dumps({"model": "m", "prompt": "x" * 11_000_000}).encode()
    response = requests.post(
        gunicorn.url + "/v1/completions",
        data=body if framing == "Content-Length" else iter([body]),
        headers=route_headers(upstream) | {"Content-Type": "application/json"},
        timeout=30,
    )

    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"
    assert upstream.requests == []


def test_header_of_32_kb_is_accepted(gunicorn: Server, script) -> None:
    upstream = script(whole(completion()))
    metadata = {"x-portkey-metadata": json.dumps({"user": "x" * 32_000})}

    assert gunicorn.complete(route_headers(upstream) | metadata).status_code == 200


NO_HTTP = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
    "no path": b"POST\r\n\r\n",
    "bad length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
    b"Content-Length: 2\r\n\r\nab",
    "length and chunks": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "header without name": b"GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
    "endless header": b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 70_000 + b"\r\n\r\n",
    "endless path": b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("name", NO_HTTP)
def test_malformed_http_gets_json_error(gunicorn: Server, name) -> None:
    with gunicorn.connect() as connection:
        connection.sendall(NO_HTTP[name])
        connection.shutdown(socket.SHUT_WR)
        head, _, body = read_answer(connection).partition(b"\r\n\r\n")

    assert 400 <= int(head.split()[1]) < 500, head
    assert b"application/json" in head
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


BAD_BODIES = {
    "bad chunk": ("Transfer-Encoding: chunked", b"zz\r\nhello\r\n0\r\n\r\n"),
    "unfinished chunk": ("Transfer-Encoding: chunked", b"ff\r\n{"),
    "short body": ("Content-Length: 100", b'{"model": "m"'),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_truncated_body_is_a_400(gunicorn: Server, script, name: str) -> None:
    framing, body = BAD_BODIES[name]
    upstream = script(whole(completion()))
    with gunicorn.connect() as connection:
        connection.sendall(request_head(upstream, framing) + body)
        connection.shutdown(socket.SHUT_WR)
        head, _, answer = read_answer(connection).partition(b"\r\n\r\n")

    assert head.split()[1] == b"400", head
    assert json.loads(answer)["error"]["type"] == "invalid_request_error"
    assert upstream.requests == []


def test_config_of_32_kb_is_accepted(gunicorn: Server, script) -> None:
    upstream = script(whole(completion()))
    target = {"provider": "openai", "custom_host": upstream.url, "name": "x" * 500}
    config = {"strategy": {"mode": "fallback"}, "targets": [target] * 56}
    text = json.dumps(config)
    assert 31_000 < len(text) < 32_768
    headers = {"x-portkey-config": text, "Authorization": "Bearer k"}

    assert gunicorn.complete(headers).status_code == 200


def test_connection_serves_many_requests(gunicorn: Server, script) -> None:
    upstream = script(whole(completion()))
    with requests.Session() as session:
        for _ in range(20):
            response = session.post(
                gunicorn.url + "/v1/completions",
                json={"model": "m", "prompt": "Hi"},
                headers=route_headers(upstream),
                timeout=10,
            )
            assert response.status_code == 200

    assert upstream.opened == 1


def test_closed_idle_connections_lose_no_request(gunicorn: Server, script) -> None:
    """The upstream closes each connection after one answer, without notice."""

    def cut(connection: socket.socket) -> None:
        connection.shutdown(socket.SHUT_RDWR)

    upstream = script([*whole(completion()), 0.01, cut])
    for _ in range(30):
        assert gunicorn.complete(route_headers(upstream)).status_code == 200


def test_hangup_mid_stream_closes_upstream(gunicorn: Server, script) -> None:
    steps = [step for _ in range(200) for step in (data(frame("x")), 0.02)]
    upstream = script(stream(*steps))
    with gunicorn.complete(route_headers(upstream), stream=True) as response:
        next(response.iter_lines(1))

    assert upstream.wait_closed(3)


def test_truncated_stream_ends_in_error(gunicorn: Server, script) -> None:
    upstream = script(stream(*HELLO[:2]))
    with gunicorn.complete(route_headers(upstream), stream=True) as response:
        *_, last = filter(None, response.iter_lines())

    assert b'"error"' in last and b"[DONE]" not in last


def test_streams_run_concurrently(gunicorn: Server, script) -> None:
    all_there = threading.Barrier(12, timeout=10)
    upstream = script(stream(HELLO[0], lambda _: all_there.wait(), *HELLO[1:], DONE))
    texts: list[bytes] = []

    def read() -> None:
        with gunicorn.complete(route_headers(upstream), stream=True) as response:
            texts.append(response.content)

    readers = [threading.Thread(target=read) for _ in range(12)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(20)

    assert texts == [b"".join([*HELLO, DONE])] * 12


@pytest.mark.parametrize("worker", ["gevent", "gthread"])
def test_sigterm_lets_stream_finish(script, worker: str) -> None:
    go_on = threading.Event()
    upstream = script(stream(HELLO[0], wait_for(go_on), *HELLO[1:], DONE))
    server = Server(GUNICORN_CMD_ARGS=f"-k {worker}", WEB_CONCURRENCY="1")
    with server.complete(route_headers(upstream), stream=True) as response:
        lines = response.iter_lines(1)
        next(lines)
        server.signal(signal.SIGTERM)
        eventually(lambda: any("Handling signal: term" in line for line in server.log))
        go_on.set()

        assert list(filter(None, lines))[-1] == b"data: [DONE]"
    assert server.wait() == 0


def test_plain_gunicorn_starts_without_engine() -> None:
    server = Server()
    try:
        ready = server.get("/readyz")
        refused = server.complete()

        assert ready.json() == {"status": "ok", "engine": "off"}
        assert refused.status_code == 400
        assert "x-portkey-provider header is required" in refused.json()["message"]
    finally:
        server.stop()


def test_flask_run_finds_application() -> None:
    server = Server(("flask", "run", "--port", "0"))
    try:
        assert server.get("/healthz").json() == {"status": "ok"}
    finally:
        server.stop()


def test_invalid_settings_are_named_at_start() -> None:
    server = Server(GATEWAY_IDLE_TIMEOUT="soon", GATEWAY_FANOUT="0")
    server.wait()

    log = server.log_text
    assert "GATEWAY_IDLE_TIMEOUT='soon'" in log and "GATEWAY_FANOUT='0'" in log


def test_web_concurrency_sets_worker_count() -> None:
    server = Server(WEB_CONCURRENCY="3")
    try:
        eventually(lambda: len(children(server.pid)) == 3)
    finally:
        server.stop()


def test_lingering_connections_do_not_block() -> None:
    """A client that keeps its finished connection open occupies no thread."""
    server = Server(GUNICORN_CMD_ARGS="-k gthread --threads 4", WEB_CONCURRENCY="1")
    request = b"GET /healthz HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"

    def complete_all(kept: ExitStack) -> list[bytes]:
        answers = []
        for _ in range(12):
            connection = kept.enter_context(server.connect())
            connection.sendall(request)
            answers.append(read_answer(connection))
        return answers

    try:
        server.wait_until_ready()
        with ExitStack() as kept, ThreadPoolExecutor(1) as pool:
            # Two seconds of lingering for each in sequence would take twice as long.
            answers = pool.submit(complete_all, kept).result(timeout=12)
    finally:
        server.stop()
    assert all(b" 200 " in answer for answer in answers)
