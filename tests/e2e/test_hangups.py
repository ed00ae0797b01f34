"""A caller's hang-up closes the upstream call, whatever the request waits for."""

import json
import socket
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

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

from .server import Server, eventually

pytestmark = pytest.mark.e2e

LATER = ("Retry-After: 30", "Connection: close")
BUSY = whole({"error": {"message": "busy"}}, 429, *LATER)


@dataclass(frozen=True)
class Situation:
    """An upstream answer that does not end by itself, and the request for it.

    The upstream gets *calls* requests before the caller hangs up.
    """

    answer: Any
    config: dict[str, Any]
    body: dict[str, Any]
    calls: int = 1


SILENT = [until_closed]
BEGUN = stream(data(frame("Hel")), until_closed)
PATIENT = {"retry": {"attempts": 5, "use_retry_after_headers": True}}
SITUATIONS = {
    "in the middle of a stream": Situation(BEGUN, {}, {"stream": True}),
    "before the first event": Situation(SILENT, {}, {"stream": True}),
    "before a whole answer": Situation(SILENT, {}, {}),
    "between two tries": Situation(BUSY, PATIENT, {}),
    "with calls side by side": Situation(SILENT, {"provider": "groq"}, {"n": 4}, 4),
    "with streams side by side": Situation(
        SILENT, {"provider": "groq"}, {"n": 4, "stream": True}, 4
    ),
    "with another target to go": Situation(
        SILENT,
        {"strategy": {"mode": "fallback"}, "targets": [{"provider": "openai"}] * 2},
        {},
    ),
}


def request(upstream: Upstream, situation: Situation) -> bytes:
    """The caller's request that leads into *situation*."""
    body = json.dumps({"model": "m", "prompt": "Hi"} | situation.body).encode()
    config = {"provider": "openai", "custom_host": upstream.url}
    lines = [
        "POST /v1/completions HTTP/1.1",
        "Host: gateway",
        "Authorization: Bearer sk-1",
        f"x-portkey-config: {json.dumps(config | situation.config)}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class ObservedGateway:
    """A gateway with one worker, and its ledger."""

    server: Server
    instance: Path

    def send(self, upstream: Upstream, situation: Situation) -> socket.socket:
        """Send a request; return its connection."""
        connection = self.server.connect()
        connection.sendall(request(upstream, situation))
        return connection

    def ends(self) -> list[tuple[str, int]]:
        """How requests have ended, and how many calls each has made."""
        file = self.instance / "gateway.db"
        if not file.exists():
            return []
        connection = sqlite3.connect(file)
        try:
            query = "SELECT ended, attempts FROM requests ORDER BY id"
            return connection.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []
        finally:
            connection.close()


@pytest.fixture(params=["gevent", "gthread"])
def gateway(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[ObservedGateway]:
    server = Server(
        GUNICORN_CMD_ARGS=f"-k {request.param} --threads 8",
        WEB_CONCURRENCY="1",
        GATEWAY_INSTANCE=str(tmp_path),
    )
    yield ObservedGateway(server, tmp_path)
    server.stop()


def has_called(upstream: Upstream, calls: int) -> bool:
    return len(upstream.requests) >= calls


def test_hangup_closes_upstream_in_every_situation(
    gateway: ObservedGateway, script
) -> None:
    """And other callers are not disturbed."""
    for name, situation in SITUATIONS.items():
        upstream = script(situation.answer)
        connection = gateway.send(upstream, situation)
        eventually(partial(has_called, upstream, situation.calls))
        connection.close()

        assert upstream.wait_closed(3), name
        assert len(upstream.requests) == situation.calls, name
    good = script(whole(completion()))
    answered = gateway.send(good, Situation((), {}, {}))

    assert b"200 OK" in answered.recv(65536)
    answered.close()
    ends = ["left"] * len(SITUATIONS) + ["whole"]
    eventually(lambda: [end for end, _ in gateway.ends()] == ends, actual=gateway.ends)
    assert "Traceback" not in gateway.server.log_text


def test_simultaneous_hangups_spare_other_callers(
    gateway: ObservedGateway, script
) -> None:
    go_on = threading.Event()
    upstream = script(
        stream(data(frame("a")), wait_for(go_on), data(frame("b", "stop")), DONE)
    )
    streaming = Situation((), {}, {"stream": True})
    staying, leaving = (
        [gateway.send(upstream, streaming) for _ in "123"] for _ in "12"
    )
    eventually(lambda: len(upstream.requests) == 6)
    for connection in leaving:
        connection.close()
    eventually(lambda: [end for end, _ in gateway.ends()] == ["left"] * 3)
    go_on.set()
    for connection in staying:
        received = b""
        while b"[DONE]" not in received:
            received += connection.recv(65536)
        connection.close()

    eventually(
        lambda: sorted(end for end, _ in gateway.ends()) == ["left"] * 3 + ["whole"] * 3
    )


def test_pipelined_request_is_no_hangup(gateway: ObservedGateway, script) -> None:
    go_on = threading.Event()
    upstream = script([wait_for(go_on), *whole(completion())])
    connection = gateway.send(upstream, Situation((), {}, {}))
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n")
    eventually(lambda: upstream.requests)
    # Long enough for several checks of the connection.
    eventually(lambda: go_on.wait(1) or True)
    go_on.set()
    received = b""
    while b'"status"' not in received:
        received += connection.recv(65536)
    connection.close()

    assert received.count(b"200 OK") == 2
