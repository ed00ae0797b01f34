"""Heartbeats keep the connection alive while the upstream of a stream is silent."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.upstream import (
    DONE,
    Upstream,
    completion,
    cut_stream,
    data,
    frame,
    stream,
    until_closed,
    wait_for,
    whole,
)

from .server import Server, eventually

pytestmark = pytest.mark.e2e

HELLO = [data(frame("Hel")), data(frame("lo", "stop"))]
COMMENT = b": keep-alive\n\n"


@pytest.fixture(scope="module", params=["gevent", "gthread"])
def gateway(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A gateway that sends five heartbeats per second."""
    server = Server(
        GUNICORN_CMD_ARGS=f"-k {request.param} --threads 16",
        WEB_CONCURRENCY="1",
        GATEWAY_HEARTBEAT="0.2",
    )
    yield server
    server.stop()


def complete(gateway: Server, *upstreams: Upstream, **body: Any) -> Any:
    """Request a stream, with a fallback through *upstreams*."""
    targets = [{"provider": "openai", "custom_host": each.url} for each in upstreams]
    config = {"strategy": {"mode": "fallback"}, "targets": targets}
    headers = {
        "Authorization": "Bearer sk-1",
        "x-portkey-config": json.dumps(config),
    }
    return gateway.complete(headers, **{"stream": True} | body)


def silence(event: threading.Event) -> Any:
    """A pause until *event* is set."""
    return wait_for(event)


class Reader:
    """Reads a streamed answer piece by piece; sets *event* after so many comments."""

    def __init__(self, response: Any, event: threading.Event, comments: int = 2):
        self.pieces: list[bytes] = []
        piece = b""
        for byte in response.iter_content(1):
            piece += byte
            if piece.endswith(b"\n\n"):
                self.pieces.append(piece)
                piece = b""
                if self.pieces.count(COMMENT) == comments:
                    event.set()
        assert piece == b""

    @property
    def events(self) -> list[bytes]:
        return [piece for piece in self.pieces if piece != COMMENT]


def test_heartbeat_between_events(gateway: Server, script) -> None:
    go_on = threading.Event()
    upstream = script(stream(HELLO[0], silence(go_on), HELLO[1], DONE))
    with complete(gateway, upstream) as response:
        read = Reader(response, go_on)

    assert read.events == [*HELLO, DONE]
    assert read.pieces[0] == HELLO[0] and read.pieces[1:3] == [COMMENT, COMMENT]
    assert read.pieces[-1] == DONE


def test_heartbeat_never_splits_an_event(gateway: Server, script) -> None:
    go_on = threading.Event()
    begin, rest = HELLO[0][:20], HELLO[0][20:]
    upstream = script(stream(begin, silence(go_on), rest, HELLO[1], DONE))
    with complete(gateway, upstream) as response:
        read = Reader(response, go_on)

    assert read.events == [*HELLO, DONE]


def test_heartbeat_before_first_event(gateway: Server, script) -> None:
    go_on = threading.Event()
    upstream = script([silence(go_on), *stream(*HELLO, DONE)])
    with complete(gateway, upstream) as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        read = Reader(response, go_on)

    assert read.pieces[:2] == [COMMENT, COMMENT]
    assert read.events == [*HELLO, DONE]


def test_fallback_continues_after_heartbeat(gateway: Server, script) -> None:
    go_on = threading.Event()
    busy = script([silence(go_on), *whole({"error": {"message": "busy"}}, 503)])
    with complete(gateway, busy, script(stream(*HELLO, DONE))) as response:
        read = Reader(response, go_on)

    assert read.events == [*HELLO, DONE]


def test_late_failure_ends_stream(gateway: Server, script) -> None:
    go_on = threading.Event()
    busy = script([silence(go_on), *whole({"error": {"message": "busy"}}, 503)])
    with complete(gateway, busy) as response:
        read = Reader(response, go_on)
    (event,) = read.events
    error = json.loads(event.removeprefix(b"data: "))["error"]

    assert response.status_code == 200
    assert error["message"] == "busy"


def test_early_failure_keeps_its_status(gateway: Server, script) -> None:
    limited = script(whole({"error": {"message": "slow down"}}, 429))
    response = complete(gateway, limited)

    assert response.status_code == 429
    assert response.json()["error"]["message"] == "slow down"


def test_truncated_stream_ends_in_error(gateway: Server, script) -> None:
    go_on = threading.Event()
    upstream = script(cut_stream(HELLO[0], silence(go_on)))
    with complete(gateway, upstream) as response:
        read = Reader(response, go_on)

    assert read.events[0] == HELLO[0]
    assert b'"error"' in read.events[-1] and len(read.events) == 2


def test_whole_answer_has_no_heartbeat(gateway: Server, script) -> None:
    upstream = script([0.5, *whole(completion())])
    response = complete(gateway, upstream, stream=False)

    assert response.json() == completion()


def test_hangup_before_first_event_closes_upstream(gateway: Server, script) -> None:
    """Although the answer has begun."""
    upstream = script([until_closed])
    with complete(gateway, upstream) as response:
        assert next(response.iter_content(len(COMMENT))) == COMMENT

    assert upstream.wait_closed()


def test_silent_streams_do_not_block_others(gateway: Server, script) -> None:
    go_on = threading.Event()
    upstream = script([silence(go_on), *stream(*HELLO, DONE)])
    silent = [complete(gateway, upstream) for _ in range(8)]
    assert complete(gateway, script(whole(completion())), stream=False).ok
    go_on.set()

    for response in silent:
        assert Reader(response, threading.Event()).events == [*HELLO, DONE]
    eventually(lambda: gateway.get("/readyz").ok)
