"""The client address with nginx in front of a real gunicorn, and without."""

import http.client
import json
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.core.permissions import GatewayKey, VirtualKey
from app.settings import Settings
from app.store import factory
from tests.upstream import completion, whole

from .nginx import Nginx
from .server import Server, eventually, route_headers

pytestmark = pytest.mark.e2e

SECRET = "a secret of the tests"
BODY = json.dumps({"model": "m", "prompt": "Hi"})


@dataclass
class ProxiedGateway:
    """A gateway with a store, nginx in front of it, and a valid key."""

    server: Server
    nginx: Nginx
    key: str
    unix: str


@pytest.fixture(params=["gevent", "gthread"])
def gateway(request: Any, tmp_path: Path, script: Any) -> Iterator[ProxiedGateway]:
    upstream = script(whole(completion()))
    settings = Settings(instance=str(tmp_path / "instance"), secret_key=SECRET)
    store = factory.repository(settings)
    sealed = {"api_key": "sk-sealed"}
    store.put_virtual_key(
        VirtualKey("openai", "openai", sealed, custom_host=upstream.url)
    )
    store.put_config("main", {"virtual_key": "openai"})
    key = store.create_key(GatewayKey("job", config="main"))
    store.engine.dispose()
    unix = str(tmp_path / "gateway.sock")
    with ExitStack() as stack:
        server = Server(
            GUNICORN_CMD_ARGS=f"-k {request.param} --threads 64 "
            f"-b 127.0.0.1:0 -b unix:{unix}",
            WEB_CONCURRENCY="1",
            GATEWAY_INSTANCE=settings.instance,
            GATEWAY_SECRET_KEY=SECRET,
            GATEWAY_TRUSTED_PROXIES="127.0.0.1,unix",
        )
        stack.callback(server.stop)
        nginx = stack.enter_context(Nginx(server.url, server.url))
        yield ProxiedGateway(server, nginx, key, unix)


class Unix(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("gateway", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        self.sock.connect(self._path)


def send(
    connection: http.client.HTTPConnection, key: str, **headers: str
) -> tuple[int, str | None]:
    """The status of a request with *key*, and its Retry-After."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    fields |= {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    try:
        connection.request("POST", "/v1/completions", BODY, fields)
        response = connection.getresponse()
        response.read()
        return response.status, response.headers["Retry-After"]
    finally:
        connection.close()


def of(client: str, port: int) -> http.client.HTTPConnection:
    """A connection from the loopback address *client*."""
    source = (client, 0)
    return http.client.HTTPConnection("127.0.0.1", port, 20, source_address=source)


def flood(port: int, client: str, **headers: str) -> Counter[int]:
    """Send 40 wrong keys concurrently; return how often each status occurred."""

    def wrong(number: int) -> int:
        fields = {name: text.format(number) for name, text in headers.items()}
        status, wait = send(of(client, port), f"lw-wrong-{number}", **fields)
        assert status == 401 or wait == "1"
        return status

    with ThreadPoolExecutor(40) as pool:
        return Counter(pool.map(wrong, range(40)))


def test_wrong_keys_throttle_own_client(gateway: ProxiedGateway) -> None:
    port = gateway.nginx.port
    assert send(of("127.0.0.2", port), gateway.key)[0] == 200
    with ThreadPoolExecutor(1) as pool:
        flooded = pool.submit(flood, port, "127.0.0.2")
        while not flooded.done():
            assert send(of("127.0.0.2", port), gateway.key)[0] == 200
            assert send(of("127.0.0.3", port), gateway.key)[0] == 200
        statuses = flooded.result()

    assert set(statuses) == {401, 429} and statuses[429] >= 20
    assert send(of("127.0.0.3", port), "lw-wrong")[0] == 401
    assert gateway.server.get("/healthz").ok


def test_parallel_wrong_keys_stay_throttled(gateway: ProxiedGateway) -> None:
    """Each wrong key is counted before the next one is checked."""
    port = gateway.nginx.port
    first, second = flood(port, "127.0.0.2"), flood(port, "127.0.0.2")

    assert first[401] <= 15 and second[401] <= 10


@pytest.mark.parametrize("address", ["nginx", "direct"])
def test_forged_address_is_not_trusted(gateway: ProxiedGateway, address: str) -> None:
    """nginx replaces the client's header; without a proxy it is not read."""
    port = gateway.nginx.port if address == "nginx" else gateway.server.port
    statuses = flood(port, "127.0.0.4", X_Forwarded_For="203.0.113.{}")

    assert set(statuses) == {401, 429} and statuses[429] >= 20


def test_unix_socket_proxy_is_trusted(gateway: ProxiedGateway) -> None:
    def tries(client: str, count: int) -> list[int]:
        with ThreadPoolExecutor(40) as pool:
            done = pool.map(
                lambda _: send(Unix(gateway.unix), "lw-wrong", X_Forwarded_For=client)[
                    0
                ],
                range(count),
            )
            return [*done]

    assert 429 in tries("203.0.113.5", 40)
    assert tries("203.0.113.6", 1) == [401]
    assert send(Unix(gateway.unix), gateway.key)[0] == 200


def test_metrics_are_hidden_behind_proxy(gateway: ProxiedGateway) -> None:
    connection = Unix(gateway.unix)
    connection.request("GET", "/metrics")
    assert connection.getresponse().status == 404
    connection.close()
    forwarded = of("127.0.0.1", gateway.server.port)
    forwarded.request("GET", "/metrics", headers={"X-Forwarded-For": "127.0.0.1"})
    assert forwarded.getresponse().status == 404
    forwarded.close()
    assert gateway.server.get("/metrics").status_code == 200


# Loopback as a custom host


@pytest.mark.parametrize("command", [("gunicorn",), ("flask", "run", "--port", "0")])
def test_new_gateway_may_reach_loopback(script, command: tuple[str, ...]) -> None:
    """As `make serve` starts it, without settings; but not behind nginx."""
    upstream = script(whole(completion()))
    server = Server(command, GATEWAY_TRUSTED_CUSTOM_HOSTS=None, WEB_CONCURRENCY="1")
    try:
        assert server.complete(route_headers(upstream)).status_code == 200
        with Nginx(server.url, server.url) as nginx:
            connection = of("127.0.0.1", nginx.port)
            headers = route_headers(upstream) | {"Content-Type": "application/json"}
            connection.request("POST", "/v1/completions", BODY, headers)
            response = connection.getresponse()
            refused = json.loads(response.read())
            connection.close()
        assert response.status == 400
        assert "GATEWAY_TRUSTED_CUSTOM_HOSTS" in refused["error"]["message"]
        assert len(upstream.requests) == 1
    finally:
        server.stop()


def test_stored_key_disables_loopback_hosts(script, tmp_path: Path) -> None:
    upstream = script(whole(completion()))
    settings = Settings(instance=str(tmp_path / "instance"), secret_key=SECRET)
    server = Server(
        GATEWAY_TRUSTED_CUSTOM_HOSTS=None,
        GATEWAY_INSTANCE=settings.instance,
        GATEWAY_SECRET_KEY=SECRET,
        GATEWAY_STORE_TTL="0.0001",
        WEB_CONCURRENCY="1",
    )
    try:
        assert server.complete(route_headers(upstream)).status_code == 200
        store = factory.repository(settings)
        store.create_key(GatewayKey("job"))
        store.engine.dispose()
        eventually(lambda: server.complete(route_headers(upstream)).status_code == 400)
    finally:
        server.stop()


def test_invalid_trusted_proxies_stop_start() -> None:
    server = Server(GATEWAY_TRUSTED_PROXIES="127.0.0.1,nginx")
    try:
        eventually(
            lambda: "GATEWAY_TRUSTED_PROXIES='127.0.0.1,nginx'" in server.log_text
        )
        assert "'nginx' does not appear to be" in server.log_text
        assert server.wait() != 0
    finally:
        server.kill()
