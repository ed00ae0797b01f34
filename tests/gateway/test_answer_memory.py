"""Answers over a limit are released: no frame and no cycle holds their bytes."""

import gc
import gzip
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Caller
from tests.upstream import (
    STREAM,
    Answer,
    Upstream,
    chunk,
    close,
    data,
    frame,
    head,
    reply,
    stream,
    until_closed,
    whole,
)

LIMIT = 2**21
PIECE = 2**16
# Above the limit; and just below it, so that it is read whole.
OVER, UNDER = b"x" * (LIMIT + PIECE), b"x" * (LIMIT - PIECE)
JSON, NDJSON = "Content-Type: application/json", "Content-Type: application/x-ndjson"
CHUNKED = "Transfer-Encoding: chunked"


def chunked(body: bytes, *lines: str, status: int = 200) -> Answer:
    pieces = [chunk(body[i : i + PIECE]) for i in range(0, len(body), PIECE)]
    return [head(status, CHUNKED, *lines) + b"".join(pieces) + b"0\r\n\r\n"]


def closing(body: bytes, *lines: str, status: int = 200) -> Answer:
    return [head(status, "Connection: close", *lines) + body, close]


def gzipped(body: bytes, *lines: str, status: int = 200) -> Answer:
    packed = gzip.compress(body, 1)
    length = f"Content-Length: {len(packed)}"
    return [head(status, "Content-Encoding: gzip", length, *lines) + packed]


BEGUN = data(frame("Hel"))
WHOLE: dict[str, Answer] = {
    "declared": whole(OVER),
    "chunked": chunked(OVER, JSON),
    "closing": closing(OVER, JSON),
    "gzip": gzipped(OVER * 4, JSON),
    "no JSON": whole(UNDER),
    "no completion": whole({"text": UNDER.decode()}),
    "no choices": whole({"choices": [UNDER.decode()]}),
    "a redirect": chunked(OVER, "Location: http://127.0.0.1:1/", status=302),
    "an error": chunked(OVER, JSON, status=500),
    "a declared error": whole(OVER, 500),
    "a closing error": closing(OVER, JSON, status=429),
    "an error in gzip": gzipped(OVER * 4, JSON, status=400),
    "an error in JSON": whole({"error": {"message": UNDER.decode()}}, 400),
    "an error within": whole({"error": {"message": UNDER.decode()}}),
}
STREAMS: dict[str, Answer] = {
    "event": stream(data(OVER)),
    "event of lines": stream(b"data: x\n" * (LIMIT // 8 + 9999)),
    "whole answer": chunked(OVER, JSON),
    "no JSON": stream(data(UNDER)),
    "late event": stream(BEGUN, data(OVER)),
    "late noise": stream(BEGUN, data(UNDER)),
    "late error": stream(BEGUN, data({"error": {"message": UNDER.decode()}})),
    "event in gzip": gzipped(data(OVER * 4), STREAM),
}

Call = Callable[..., Caller]


def assert_releases(call: Callable[[], Any]) -> None:
    """Assert that *call* keeps no bytes of an answer, not even in garbage cycles."""
    for _ in range(1):
        call()
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(2):
            call()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()

    assert held < LIMIT


@pytest.mark.parametrize(
    "streams, heartbeat",
    [(False, None), (True, None), (True, 9.0)],
    ids=["whole", "stream", "stream with heartbeat"],
)
@pytest.mark.parametrize("name", WHOLE)
def test_refused_answers_are_released(
    call: Call, script: Any, name: str, streams: bool, heartbeat: float | None
) -> None:
    caller = limited(call, script(WHOLE[name]), heartbeat=heartbeat)

    assert_releases(lambda: refused(caller, stream=streams))


@pytest.mark.parametrize("heartbeat", [None, 9.0], ids=["", "heartbeat"])
@pytest.mark.parametrize("name", STREAMS)
def test_refused_events_are_released(
    call: Call, script: Any, name: str, heartbeat: float | None
) -> None:
    caller = limited(call, script(STREAMS[name]), heartbeat=heartbeat)

    assert_releases(lambda: refused(caller, stream=True))


def test_refused_lines_are_released(call: Call, script: Any) -> None:
    caller = limited(call, script(chunked(OVER, NDJSON)))
    caller.headers["x-portkey-provider"] = "ollama"

    assert_releases(lambda: refused(caller, stream=True))


def test_fanout_parts_share_size_limit(call: Call, script: Any) -> None:
    """Four chats answer one request: each is below the limit, two together are not."""
    part = whole(reply("x" * (LIMIT * 2 // 3)))
    caller = limited(call, script(part))
    caller.headers["x-portkey-provider"] = "groq"
    prompts = ["a", "b", "c", "d"]

    assert caller.complete().status_code == 200
    assert f"longer than {LIMIT} bytes" in refused(caller, prompt=prompts)
    assert_releases(lambda: refused(caller, prompt=prompts))


def test_oversized_content_length_is_not_read(call: Call, script: Any) -> None:
    """A Content-Length above the limit is refused before the body arrives."""
    upstream = script([head(200, JSON, f"Content-Length: {LIMIT + 1}"), until_closed])
    message = refused(limited(call, upstream))

    assert f"its head announces {LIMIT + 1}" in message
    assert upstream.wait_closed()


def test_error_body_is_read_to_limit(call: Call, script: Any) -> None:
    """One mebibyte: the rest is not read, and the status is the upstream's."""
    endless = [head(503, "Connection: close"), b"y" * 2**20, until_closed]
    upstream = script(endless)
    caller = call(upstream)
    response = caller.complete()

    assert response.status_code == 503
    assert "upstream answered 503: yyy" in response.json["error"]["message"]
    assert upstream.wait_closed()


def limited(call: Call, upstream: Upstream, **settings: Any) -> Caller:
    return call(upstream, max_answer_bytes=LIMIT, max_event_bytes=LIMIT, **settings)


def refused(caller: Caller, **body: Any) -> str:
    """The error of a refused request; the caller keeps no response."""
    response = caller.complete(**body)
    text = response.get_data(as_text=True)
    assert '"error"' in text and len(text) < 2 * PIECE
    assert "The gateway failed" not in text
    response.close()
    caller.responses.clear()
    return text
