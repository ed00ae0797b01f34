"""Callers that hang up repeatedly still use up their budgets."""

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from app.core.limits import Limits
from app.core.permissions import GatewayKey, VirtualKey
from app.settings import Settings
from app.store import factory
from tests.conftest import upgrade_database
from tests.upstream import STREAM, Upstream, chunk, data, frame, head, until_closed

from .server import Server, eventually

pytestmark = pytest.mark.e2e

SECRET = "a secret of the tests"
# A thousandth of a dollar per token.
PRICES = [{"provider": "*", "model": "*", "input": 1000, "output": 1000}]
LENGTH = 49


@dataclass
class Gateway:
    """A gateway with one worker, and a key with a budget of 1000 tokens."""

    server: Server
    key: str
    upstream: Upstream

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def hang_up(self, **body: Any) -> None:
        """Send a request, and hang up as soon as the upstream has it."""
        before = len(self.upstream.requests)
        sent = {"model": "m", "prompt": "Hiya", "max_tokens": LENGTH} | body
        with self.server.connect() as connection:
            connection.sendall(self._request(json.dumps(sent).encode()))
            eventually(lambda: len(self.upstream.requests) > before)
            if body.get("stream"):
                self._read_until(connection, b'"c"')

    @staticmethod
    def _read_until(connection: socket.socket, last: bytes) -> None:
        received = b""
        while last not in received:
            received += connection.recv(65536)

    def _request(self, body: bytes) -> bytes:
        lines = [
            "POST /v1/completions HTTP/1.1",
            "Host: gateway",
            *(f"{name}: {value}" for name, value in self.headers.items()),
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body

    def refusal(self) -> requests.Response:
        """The answer to one more request, after all cancelled ones are settled."""
        assert self.upstream.wait_closed()
        return self.server.complete(self.headers, max_tokens=LENGTH)


@pytest.fixture(params=["gevent", "gthread"])
def gateway(
    request: pytest.FixtureRequest, tmp_path: Path, script: Any
) -> Iterator[Gateway]:
    upstream = script([until_closed])
    settings = Settings(secret_key=SECRET, instance=str(tmp_path))
    upgrade_database(settings)
    store = factory.repository(settings)
    sealed = {"api_key": "sk-sealed"}
    store.put_virtual_key(
        VirtualKey("openai", "openai", sealed, custom_host=upstream.url)
    )
    store.put_config("main", {"virtual_key": "openai"})
    limits = Limits.of({"money_per_day": 1})
    key = store.create_key(GatewayKey("job", config="main", limits=limits))
    store.engine.dispose()
    server = Server(
        # Enough for all that hang up before the first hang-up is noticed.
        GUNICORN_CMD_ARGS=f"-k {request.param} --threads 64",
        WEB_CONCURRENCY="1",
        GATEWAY_SECRET_KEY=SECRET,
        GATEWAY_INSTANCE=str(tmp_path),
        GATEWAY_PRICES=json.dumps(PRICES),
    )
    yield Gateway(server, key, upstream)
    server.stop()


def test_whole_call_hangups_consume_budget(gateway: Gateway) -> None:
    """Twenty requests of 50 tokens each, although no answer is read."""
    for _ in range(20):
        gateway.hang_up()
    refused = gateway.refusal()

    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "insufficient_quota"
    assert "Limit $1, Used $1, Requested $0.05" in refused.json()["error"]["message"]
    assert len(gateway.upstream.requests) == 20


def test_stream_hangups_consume_budget(gateway: Gateway) -> None:
    """Each stream has a prompt of one token, and three tokens were sent."""
    begun = [
        head(200, STREAM, "Transfer-Encoding: chunked"),
        *(chunk(data(frame(text))) for text in "abc"),
        until_closed,
    ]
    gateway.upstream.answers[:] = [begun]
    for _ in range(30):
        gateway.hang_up(stream=True)
    messages: list[str] = []

    def used() -> bool:
        refused = gateway.server.complete(gateway.headers, max_tokens=1000)
        assert refused.json()["error"]["code"] == "insufficient_quota"
        messages.append(refused.json()["error"]["message"])
        return "Used $0.12," in messages[-1]

    eventually(used, actual=lambda: messages[-1])
