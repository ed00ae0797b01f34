"""deploy/nginx.conf in a real nginx, with two gateways, one of each worker class.

Tests of nginx alone use scripted servers in place of the gateways.
"""

import itertools
import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests

from tests.upstream import (
    DONE,
    Answer,
    ReceivedRequest,
    Upstream,
    close,
    closing_stream,
    completion,
    data,
    frame,
    reset,
    stream,
    until_closed,
    wait_for,
    whole,
)

from .nginx import Nginx, nowhere
from .server import Server, eventually, route_headers

pytestmark = pytest.mark.e2e

WORKERS = ("gevent", "gthread")
HELLO = [data(frame("Hel")), data(frame("lo")), data(frame("!", "stop"))]


def started(stack: ExitStack, worker: str) -> Server:
    server = Server(
        GUNICORN_CMD_ARGS=f"-k {worker} --threads 16",
        WEB_CONCURRENCY="1",
        GATEWAY_TRUSTED_PROXIES="127.0.0.1",
    )
    stack.callback(server.stop)
    return server


@pytest.fixture(scope="module")
def gateways() -> Iterator[dict[str, Server]]:
    """Gateways by their worker class."""
    with ExitStack() as stack:
        yield {worker: started(stack, worker) for worker in WORKERS}


@pytest.fixture(scope="module")
def front(gateways: dict[str, Server]) -> Iterator[Nginx]:
    """nginx in front of both."""
    with Nginx(*(server.url for server in gateways.values())) as nginx:
        yield nginx


@pytest.fixture(scope="module", params=WORKERS)
def before_one(
    request: pytest.FixtureRequest, gateways: dict[str, Server]
) -> Iterator[Nginx]:
    """nginx in front of one of them, so that it is known which one answers."""
    url = gateways[request.param].url
    with Nginx(url, url) as nginx:
        yield nginx


def complete(
    nginx: Nginx, headers: dict[str, str] | None = None, **body: Any
) -> requests.Response:
    return requests.post(
        nginx.url + "/v1/completions",
        json={"model": "m", "prompt": "Hi"} | body,
        headers=headers,
        stream=bool(body.get("stream")),
        timeout=30,
    )


def in_openais_shape(response: requests.Response) -> Any:
    """The error in *response*, in OpenAI's format."""
    assert response.headers["content-type"] == "application/json", response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


# Requests and answers that pass


def test_nginx_accepts_configuration(front: Nginx) -> None:
    output = front.test()

    assert "test is successful" in output and "[warn]" not in output


def test_whole_answer_passes_nginx(before_one: Nginx, script) -> None:
    upstream = script(whole(completion(" there")))
    response = complete(before_one, route_headers(upstream))

    assert response.status_code == 200
    assert response.json() == completion(" there")


def test_nginx_relays_events_at_once(before_one: Nginx, script) -> None:
    go_on = threading.Event()
    upstream = script(stream(HELLO[0], wait_for(go_on), *HELLO[1:], DONE))
    with complete(before_one, route_headers(upstream), stream=True) as response:
        lines = filter(None, response.iter_lines(1))

        assert next(lines) == HELLO[0].strip() and not go_on.is_set()
        go_on.set()
        assert [*lines] == [line.strip() for line in [*HELLO[1:], DONE]]


def test_nginx_buffering_is_off(script) -> None:
    """The gateway requests it with a header; this upstream does not."""
    go_on = threading.Event()
    gateway = script(closing_stream(HELLO[0], wait_for(go_on), DONE))
    with Nginx(gateway.url, gateway.url) as nginx:
        with complete(nginx, stream=True) as response:
            assert next(response.iter_lines(1)) == HELLO[0].strip()
            assert gateway.closed == 0 and not go_on.is_set()
            go_on.set()


def test_nginx_balances_both_gateways(front: Nginx, gateways, script) -> None:
    upstream = script(whole(completion()))
    for _ in range(4):
        assert complete(front, route_headers(upstream)).status_code == 200

    log = front.log("lastword.access")
    assert all(f'by="127.0.0.1:{one.port}"' in log for one in gateways.values())


def test_headers_pass_in_both_directions(before_one: Nginx, script) -> None:
    upstream = script(whole(completion(), 200, "x-ratelimit-remaining-tokens: 7"))
    headers = route_headers(upstream) | {"x-portkey-trace-id": "mine"}
    response = complete(before_one, headers)

    assert upstream.last.headers["authorization"] == "Bearer sk-of-the-caller"
    assert response.headers["x-portkey-provider"] == "openai"
    assert response.headers["x-portkey-trace-id"] == "mine"
    assert response.headers["x-lastword-via"] == "native"
    assert response.headers["x-ratelimit-remaining-tokens"] == "7"


def test_config_of_32_kb_passes_nginx(before_one: Nginx, script) -> None:
    upstream = script(whole(completion()))
    target = {"provider": "openai", "custom_host": upstream.url, "name": "x" * 500}
    config = json.dumps({"strategy": {"mode": "fallback"}, "targets": [target] * 56})
    assert 31_000 < len(config) < 32_768

    answered = complete(before_one, {"x-portkey-config": config, "api-key": "k"})
    assert answered.status_code == 200


def test_longest_response_headers_pass_nginx(before_one: Nginx, script) -> None:
    """An answer that is charged must not fail because its headers are long."""
    lines = [f"openai-{number}: {'x' * 4000}" for number in range(20)]
    upstream = script(whole(completion(), 200, *lines))
    trace = "x" * 128
    response = complete(
        before_one, route_headers(upstream) | {"x-portkey-trace-id": trace}
    )

    assert response.status_code == 200
    assert response.headers["x-portkey-trace-id"] == trace
    assert len(str(response.headers)) > 16_000


def test_long_trace_ids_are_not_logged(before_one: Nginx, script) -> None:
    upstream = script(whole(completion()))
    sent = route_headers(upstream) | {"x-portkey-trace-id": "y" * 30_000}
    response = complete(before_one, sent)
    eventually(lambda: " 400 " in before_one.log("lastword.access"))

    assert response.status_code == 400
    assert "y" * 129 not in before_one.log("lastword.access") + str(response.headers)
    assert upstream.requests == []


def test_nginx_sets_forwarding_headers(script) -> None:
    """A client's own forwarding headers are replaced. Slashes in models are kept."""
    gateway = script(whole({}))
    path = "/v1/engines/org%2Fmodel//completions?api-version=1"
    claims = {"X-Forwarded-For": "10.1.1.1", "X-Forwarded-Proto": "https"}
    with Nginx(gateway.url, gateway.url) as nginx:
        requests.post(nginx.url + path, headers=claims, timeout=10)

    request = gateway.last
    assert request.path == path
    assert request.headers["x-forwarded-for"] == "127.0.0.1"
    assert request.headers["x-forwarded-proto"] == "http"
    assert request.headers["host"] == "127.0.0.1"
    assert request.headers["x-portkey-trace-id"]


def test_nginx_reuses_gateway_connections(script) -> None:
    gateway = script(whole({}))
    with Nginx(gateway.url, gateway.url) as nginx:
        for _ in range(20):
            complete(nginx)

    # One connection for each server line and each of two workers.
    assert gateway.opened <= 4


def test_access_log_has_trace_without_keys(front: Nginx, script) -> None:
    upstream = script(whole(completion()))
    trace = "a trace of the logs' test"
    requests.post(
        front.url + "/v1/completions?key=of-the-query",
        json={"model": "m", "prompt": "Hi"},
        headers=route_headers(upstream) | {"x-portkey-trace-id": trace},
        timeout=10,
    )
    eventually(lambda: trace in front.log("lastword.access"))
    *_, line = front.log("lastword.access").splitlines()

    assert '"POST /v1/completions" 200' in line and 'answered="200"' in line
    written = front.log("lastword.access") + front.log("lastword.error")
    assert "sk-of-the-caller" not in written and "of-the-query" not in written


# Refused requests


@pytest.mark.parametrize("size", [11_000_000, 12_000_000], ids=["gateway", "nginx"])
def test_oversized_body_gets_openai_error(before_one: Nginx, script, size: int) -> None:
    upstream = script(whole(completion()))
    response = complete(before_one, route_headers(upstream), prompt="x" * size)

    assert response.status_code == 413
    error = in_openais_shape(response)
    assert error["code"] == "request_too_large"
    assert ("10485760 bytes" in error["message"]) == (size < 11 * 2**20)
    assert upstream.requests == []


# The request can be refused before its body has arrived.
EARLY_REFUSALS: dict[str, tuple[str, dict[str, str], int]] = {
    "provider": (
        "/v1/completions",
        {"x-portkey-provider": "nobody", "api-key": "sk-of-the-caller"},
        400,
    ),
    "content type": ("/v1/completions", {"Content-Type": "text/plain"}, 400),
    "method": ("/v1/models", {}, 405),
    "path": ("/" + "x" * 5000, {}, 414),
    "headers": ("/v1/completions", {f"a{n}": "" for n in range(120)}, 431),
}


@pytest.mark.parametrize("worker", WORKERS)
@pytest.mark.parametrize("wrong", EARLY_REFUSALS)
def test_early_refusal_arrives_despite_body(
    gateways: dict[str, Server], worker: str, wrong: str
) -> None:
    """To nginx, a gateway that closes during a request body has failed."""
    path, headers, status = EARLY_REFUSALS[wrong]
    headers = {"Content-Type": "application/json"} | headers
    url, body = gateways[worker].url, b"x" * 5_000_000
    with Nginx(url, url) as nginx:
        for _ in range(5):
            answer = requests.post(nginx.url + path, body, headers=headers, timeout=10)

            assert answer.status_code == status


UNREADABLE = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
    "no path": b"POST\r\n\r\n",
    "bad length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
    "bad chunk": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz",
    "length and chunks": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bad coding": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: zip\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "trace": b"TRACE / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "endless header": b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 45_000 + b"\r\n\r\n",
    "endless path": b"GET /" + b"x" * 45_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "long path": b"GET /"
    + b"x" * 10_000
    + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_malformed_request_gets_openai_error(front: Nginx, name: str) -> None:
    with front.connect() as connection:
        connection.sendall(UNREADABLE[name])
        head, _, body = read_all(connection).partition(b"\r\n\r\n")

    assert 400 <= int(head.split()[1]) <= 501, head
    assert b"Content-Type: application/json" in head
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


def test_nginx_error_location_is_internal(front: Nginx) -> None:
    response = requests.get(front.url + "/lastword_error", timeout=10)

    assert response.status_code == 404
    assert in_openais_shape(response)


def read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("path", ["/metrics", "/console", "/console/login"])
def test_operator_paths_are_not_proxied(front: Nginx, path: str) -> None:
    response = requests.get(front.url + path, timeout=10)

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "invalid_url"


def test_documentation_page_is_proxied(front: Nginx) -> None:
    page = requests.get(front.url + "/docs", timeout=10)

    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    for path in ("/openapi.json", "/docs/swagger-ui-bundle.js"):
        assert requests.get(front.url + path, timeout=10).status_code == 200


def test_no_gateway_gets_openai_error() -> None:
    with Nginx(nowhere(), nowhere()) as nginx:
        for _ in range(6):
            response = complete(nginx, {"x-portkey-trace-id": "mine"})

            assert response.status_code == 502
            assert in_openais_shape(response)["code"] == "gateway_unavailable"
            assert response.headers["x-portkey-trace-id"] == "mine"


# Callers that hang up


def request(upstream: Upstream, **body: Any) -> bytes:
    content = json.dumps({"model": "m", "prompt": "Hi"} | body).encode()
    lines = ["POST /v1/completions HTTP/1.1", "Host: gateway"]
    lines += [f"{name}: {value}" for name, value in route_headers(upstream).items()]
    lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


def test_hangup_mid_stream_closes_upstream(before_one: Nginx, script) -> None:
    steps = [step for _ in range(200) for step in (data(frame("x")), 0.02)]
    upstream = script(stream(*steps))
    with complete(before_one, route_headers(upstream), stream=True) as response:
        next(response.iter_lines(1))

    assert upstream.wait_closed(3)


# What the upstream sends before it stalls, and what the caller receives of it.
SILENT = {
    "whole answer": ([until_closed], b""),
    "first event": ([until_closed], b""),
    "second event": (stream(HELLO[0], until_closed), b"data: "),
}


@pytest.mark.parametrize("awaited", SILENT)
def test_hangup_during_silence_closes_upstream(
    before_one: Nginx, script, awaited: str
) -> None:
    answer, arrives = SILENT[awaited]
    upstream = script(answer)
    with before_one.connect() as connection:
        connection.sendall(request(upstream, stream=awaited != "whole answer"))
        eventually(lambda: upstream.requests)
        received = b""
        while arrives not in received:
            received += connection.recv(4096)

    assert upstream.wait_closed(3)


# Failing gateways


def received_prompts(upstream: Upstream) -> Counter[str]:
    """How often each prompt arrived."""
    return Counter(one.json["prompt"] for one in upstream.requests if is_whole(one))


def is_whole(request: ReceivedRequest) -> bool:
    """Whether the request is complete: a killed gateway may have sent a part."""
    return len(request.body) == int(request.headers["content-length"])


def test_nginx_skips_unreachable_gateway(script) -> None:
    gateway = script(whole({}))
    prompts = [f"{number}" for number in range(8)]
    with Nginx(nowhere(), gateway.url) as nginx:
        statuses = [complete(nginx, prompt=prompt).status_code for prompt in prompts]

    assert statuses == [200] * 8
    assert received_prompts(gateway) == Counter(prompts)


FAILURES: dict[str, list[Answer]] = {
    "hangs up": [[close]],
    "breaks down": [[reset]],
    "is busy": [whole({}, 503)],
    "hangs up on a kept connection": [whole({}), [close]],
    "breaks down on a kept connection": [whole({}), [reset]],
}


@pytest.mark.parametrize("failure", FAILURES)
def test_sent_request_is_not_retried(script, failure) -> None:
    """It may be charged already. Nor is it sent twice to the same gateway."""
    gateways = [script(*FAILURES[failure]) for _ in range(2)]
    prompts = [f"{number}" for number in range(4)]
    with Nginx(*(gateway.url for gateway in gateways)) as nginx:
        statuses = [complete(nginx, prompt=prompt).status_code for prompt in prompts]

    assert sum(map(received_prompts, gateways), Counter()) == Counter(prompts)
    assert set(statuses) & {502, 503}


def test_provider_503_keeps_gateway_available(script) -> None:
    gateway = script(whole({}, 503))
    with Nginx(gateway.url, gateway.url) as nginx:
        for _ in range(10):
            answer = requests.get(nginx.url + "/v1/models", timeout=10)
            assert answer.json() == {} and complete(nginx).json() == {}

    assert len(gateway.requests) == 20


@dataclass
class Traffic:
    """Concurrent callers that send one unique request after another."""

    send: Callable[[int], bool]
    answers: list[tuple[float, bool]] = field(default_factory=list)

    def since(self, moment: float) -> list[bool]:
        """For each request that began after *moment*, whether it succeeded."""
        return [good for begun, good in self.answers if begun > moment]

    @contextmanager
    def of(self, callers: int) -> Iterator[None]:
        over, numbers = threading.Event(), itertools.count()

        def keep_asking() -> None:
            while not over.is_set():
                begun = time.monotonic()
                self.answers.append((begun, self.send(next(numbers))))

        with ThreadPoolExecutor(callers) as pool:
            asking = [pool.submit(keep_asking) for _ in range(callers)]
            try:
                yield
            finally:
                over.set()
            for each in asking:
                each.result()


def in_a_moment(request: ReceivedRequest) -> Answer:
    if request.json.get("stream"):
        return stream(HELLO[0], 0.02, *HELLO[1:], DONE)
    return [0.02, *whole(completion())]


def is_answered(nginx: Nginx, upstream: Upstream, number: int) -> bool:
    """Whether a request gets a complete answer; it is a stream if *number* is odd."""
    body = {"prompt": f"{number}", "stream": number % 2 == 1}
    try:
        with complete(nginx, route_headers(upstream), **body) as response:
            end = DONE if body["stream"] else b"}"
            return response.status_code == 200 and response.content.endswith(end)
    except requests.exceptions.RequestException:
        return False


@pytest.mark.parametrize("killed", [0, 1], ids=WORKERS)
def test_killed_gateway_loses_no_new_request(script, killed: int) -> None:
    upstream = script(in_a_moment)
    with ExitStack() as stack:
        servers = [started(stack, worker) for worker in WORKERS]
        nginx = stack.enter_context(Nginx(*(server.url for server in servers)))
        traffic = Traffic(lambda number: is_answered(nginx, upstream, number))
        with traffic.of(8):
            eventually(lambda: len(traffic.answers) > 50)
            os.killpg(servers[killed].pid, signal.SIGKILL)
            servers[killed].wait()
            gone = time.monotonic()
            eventually(lambda: len(traffic.since(gone)) > 100)

    assert all(traffic.since(gone))
    assert set(received_prompts(upstream).values()) == {1}


def test_removed_gateway_loses_no_request(script) -> None:
    """The gateway is removed from nginx first, then stopped."""
    upstream = script(in_a_moment)
    with ExitStack() as stack:
        servers = [started(stack, worker) for worker in WORKERS]
        nginx = stack.enter_context(Nginx(*(server.url for server in servers)))
        traffic = Traffic(lambda number: is_answered(nginx, upstream, number))
        with traffic.of(8):
            eventually(lambda: len(traffic.answers) > 50)
            nginx.take_away(servers[1].url)
            servers[1].stop()
            gone = time.monotonic()
            eventually(lambda: len(traffic.since(gone)) > 50)

    assert all(traffic.since(0))
    assert set(received_prompts(upstream).values()) == {1}
