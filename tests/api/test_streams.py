"""Streams: what is passed on, what is repaired, and how they end.

Numbers are those of the cases in docs/contract.md.
"""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Caller, events, read_until
from tests.upstream import (
    DONE,
    Answer,
    Step,
    chunk,
    close,
    closing_stream,
    completion,
    cut_stream,
    data,
    frame,
    head,
    reset,
    stream,
    wait_for,
    whole,
)

HELLO = [data(frame("Hel")), data(frame("lo")), data(frame("!", "stop"))]


def streamed(
    call: Callable[..., Caller], script: Any, *steps: Step, **body: Any
) -> Any:
    """The events that a caller gets of a stream made of *steps*."""
    return events(call(script(stream(*steps))).complete(stream=True, **body))


# Cases 58-64: the form of a stream


@pytest.mark.parametrize("framing", [stream, closing_stream], ids=["chunked", "close"])
def test_58_first_event_arrives_immediately(
    call, script, framing: Callable[..., Answer]
) -> None:
    go_on = threading.Event()
    upstream = script(framing(HELLO[0], wait_for(go_on), *HELLO[1:], DONE))
    response = call(upstream).complete(stream=True)
    pieces = response.iter_encoded()

    assert next(pieces) == HELLO[0]
    assert not go_on.is_set()
    go_on.set()
    assert b"".join(pieces) == b"".join([*HELLO[1:], DONE])
    response.close()


def test_58_stream_headers_disable_buffering(call, script) -> None:
    response = call(script(stream(*HELLO, DONE))).complete(stream=True)

    assert response.content_type.startswith("text/event-stream")
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["X-Accel-Buffering"] == "no"
    assert "Content-Length" not in response.headers


def test_valid_stream_passes_byte_for_byte(call, script) -> None:
    response = call(script(stream(*HELLO, DONE))).complete(stream=True)

    assert response.get_data() == b"".join([*HELLO, DONE])


def test_59_stream_has_one_id_and_time(call, script) -> None:
    changing = [
        data(frame("a", id="cmpl-7", created=1)),
        data(frame("b", id="cmpl-8", created=2)),
        data(frame("c", "stop", id="", created=3, object="text.completion")),
    ]
    *frames, _ = streamed(call, script, *changing, DONE)

    assert {(f["id"], f["created"], f["object"]) for f in frames} == {
        ("cmpl-7", 1, "text_completion")
    }


def test_59_stream_without_id_gets_one(call, script) -> None:
    *frames, _ = streamed(
        call, script, data(frame("a", id="")), data(frame("", "stop", id="")), DONE
    )

    (only,) = {f["id"] for f in frames}
    assert only.startswith("cmpl-") and len(only) > 30


def test_60_finish_reason_comes_once(call, script) -> None:
    quirky = [
        data(frame("a", "")),
        data(frame("b", "eos")),
        data(frame("", "stop")),
    ]
    *frames, done = streamed(call, script, *quirky, DONE)

    ends = [(f["choices"][0]["text"], f["choices"][0]["finish_reason"]) for f in frames]
    assert ends == [("a", None), ("b", "stop")]
    assert done == "[DONE]"


@pytest.mark.parametrize(
    "tail", [(DONE,), (), (DONE, DONE)], ids=["one", "none", "two"]
)
def test_61_exactly_one_done_ends_a_stream(call, script, tail) -> None:
    got = streamed(call, script, *HELLO, *tail)

    assert got.count("[DONE]") == 1
    assert got[-1] == "[DONE]"


USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
NO_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
COUNTED = {
    "openai": [
        data(frame("a", usage=None)),
        data(frame("b", "stop", usage=None)),
        data(frame(usage=USAGE, choices=[])),
    ],
    "ollama": [
        data(frame("a", usage=NO_USAGE)),
        data(frame("b", "stop", usage=NO_USAGE)),
        data(frame(usage=USAGE, choices=[])),
    ],
    "llama.cpp": [data(frame("a")), data(frame("b", "stop", usage=USAGE))],
}


@pytest.mark.parametrize("style", COUNTED)
def test_62_64_requested_usage_comes_last(call, script, style) -> None:
    options = {"stream_options": {"include_usage": True}}
    *frames, last, done = streamed(call, script, *COUNTED[style], DONE, **options)

    assert [f["usage"] for f in frames] == [None, None]
    assert (last["choices"], last["usage"]) == ([], USAGE)
    assert last["id"] == frames[0]["id"] and last["created"] == frames[0]["created"]
    assert done == "[DONE]"


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": False}}])
@pytest.mark.parametrize("style", COUNTED)
def test_63_unrequested_usage_is_absent(call, script, style, options) -> None:
    *frames, _ = streamed(call, script, *COUNTED[style], DONE, **options)

    assert len(frames) == 2
    assert not any("usage" in f for f in frames)


def test_requested_continuous_usage_passes(call, script) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    counted = [data(frame("a", usage=USAGE)), data(frame("b", "stop", usage=USAGE))]
    upstream = script(stream(*counted, data(frame(choices=[], usage=USAGE)), DONE))
    response = call(upstream).complete(stream=True, stream_options=options)

    assert [f["usage"] for f in events(response)[:-1]] == [USAGE] * 3
    assert upstream.last.json["stream_options"] == options


def test_67_choices_keep_their_index(call, script) -> None:
    both = [
        data(frame("b", index=1)),
        data(frame("a", index=0)),
        data(frame("B", "stop", index=1)),
        data(frame("A", "length", index=0)),
    ]

    assert streamed(call, script, *both, DONE, n=2) == [
        json.loads(e.removeprefix(b"data: ")) for e in both
    ] + ["[DONE]"]


def test_choices_of_one_frame_are_split(call, script) -> None:
    one = {"text": "x", "index": 0, "logprobs": None, "finish_reason": "stop"}
    *frames, _ = streamed(call, script, data(frame(choices=[one, one | {"index": 1}])))

    assert [[c["index"] for c in f["choices"]] for f in frames] == [[0], [1]]


# Case 70: the bytes of a stream


def test_70_unusual_events_are_normalised(call, script) -> None:
    first, second, third = (json.dumps(json.loads(e[6:])) for e in HELLO)
    cut = second.index('"lo"') + 2
    odd = (
        f"\ufeff: ping\r\nevent: message\r\nid: 1\r\ndata:{first}\r\n\r\n"
        "retry: 3000\r\n\r\n"
        ": OPENROUTER PROCESSING\n\n"
        f"data: {third[:5]}\rdata: {third[5:]}\r\r".replace(third[5:], third[5:])
    )
    middle = f"data: {second}\n\n".encode()
    half = odd.index("retry")
    response = call(
        script(
            stream(odd[:half].encode(), middle[:cut], middle[cut:], odd[half:].encode())
        )
    ).complete(stream=True)

    texts = [f["choices"][0]["text"] for f in events(response)[:-1]]
    assert texts == ["Hel", "lo", "!"]


def test_70_split_characters_stay_whole(call, script) -> None:
    body = b"".join(
        [data(json.dumps(frame("é🎉", "stop"), ensure_ascii=False).encode())]
    )
    cuts = [i for i in range(1, len(body)) if body[i] & 0xC0 == 0x80]
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    *frames, _ = streamed(call, script, *pieces)

    assert frames[0]["choices"][0]["text"] == "é🎉"


@pytest.mark.parametrize("nothing", [b"data: null\n\n", b"data:\n\n", b"retry: 5\n\n"])
def test_events_that_break_sdks_are_dropped(call, script, nothing: bytes) -> None:
    got = streamed(call, script, nothing, HELLO[0], nothing, *HELLO[1:], nothing, DONE)

    assert len(got) == 4


# Cases 73-77: failures


def test_73_error_before_stream_is_plain(call, script) -> None:
    slow_down = {"error": {"message": "Slow down", "type": "requests", "code": None}}
    response = call(script(whole(slow_down, 429, "retry-after: 7"))).complete(
        stream=True
    )

    assert response.status_code == 429
    assert response.content_type == "application/json"
    assert response.headers["retry-after"] == "7"
    assert response.json["error"]["message"] == "Slow down"
    assert response.json["provider"] == "openai"


@pytest.mark.parametrize(
    "error, status, code",
    [
        ({"message": "boom", "code": 503}, 503, None),
        ({"message": "boom", "type": "x", "code": "overloaded"}, 502, "overloaded"),
        ("boom", 502, None),
    ],
    ids=["status as code", "code", "text"],
)
def test_74_error_as_first_event_is_plain(
    call, script, error: Any, status: int, code: str | None
) -> None:
    upstream = script(stream(b": ping\n\n", data({"error": error}), DONE))
    response = call(upstream).complete(stream=True)

    assert response.status_code == status
    assert response.json["error"]["message"] == "boom"
    assert response.json["error"]["code"] == code


@pytest.mark.parametrize(
    "answer",
    [
        stream(DONE),
        stream(),
        stream(b": only a comment\n\n"),
        [head(200, "Content-Type: text/event-stream", "Connection: close"), close],
        [head(200, "Content-Type: text/event-stream", "Connection: close"), reset],
    ],
    ids=["done", "nothing", "comment", "close", "reset"],
)
def test_74_empty_stream_is_plain_error(call, script, answer: Answer) -> None:
    response = call(script(answer)).complete(stream=True)

    assert response.status_code == 502
    assert response.json["error"]["type"] == "server_error"


@pytest.mark.parametrize("by", [reset, close], ids=["reset", "close"])
def test_75_truncated_stream_ends_in_error(call, script, by: Step) -> None:
    response = call(script(cut_stream(*HELLO[:2], by=by))).complete(stream=True)
    *frames, last = events(response)

    assert [f["choices"][0]["finish_reason"] for f in frames] == [None, None]
    assert set(last["error"]) == {"message", "type", "param", "code"}
    assert "broke off" in last["error"]["message"]
    assert last["provider"] == "openai"


@pytest.mark.parametrize("tail", [(), (DONE,)], ids=["without done", "with done"])
@pytest.mark.parametrize("framing", [stream, closing_stream], ids=["chunked", "close"])
def test_76_missing_finish_reason_is_an_error(
    call, script, framing: Callable[..., Answer], tail: tuple[bytes, ...]
) -> None:
    response = call(script(framing(*HELLO[:2], *tail))).complete(stream=True)
    *_, last = events(response)

    assert last["error"]["message"] == (
        "upstream ended the stream before the completion was done"
    )


def test_76_every_choice_must_finish(call, script) -> None:
    one_of_two = [data(frame("a", index=0)), data(frame("b", "stop", index=1))]
    *_, last = streamed(call, script, *one_of_two, DONE, n=2)

    assert "error" in last


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_76_failure_reason_is_an_error(call, script, reason) -> None:
    *_, last = streamed(call, script, HELLO[0], data(frame("", reason)), DONE)

    assert reason in last["error"]["message"]


def test_77_midstream_error_is_last_event(call, script) -> None:
    error = {"error": {"message": "CUDA out of memory", "type": "x", "code": 500}}
    *frames, last = streamed(call, script, HELLO[0], data(error), HELLO[1], DONE)

    assert len(frames) == 1
    assert last["error"]["message"] == "CUDA out of memory"


def test_77_error_frame_may_have_choices(call, script) -> None:
    error = {"error": {"message": "boom"}}
    caller = call(script(stream(HELLO[0], data(error))), error_frame_choices=True)
    *_, last = events(caller.complete(stream=True))

    assert (last["choices"], last["error"]["message"]) == ([], "boom")


@pytest.mark.parametrize("junk", [b"{", b"hello", b"[1]", b"\xff\xfe"])
def test_invalid_event_ends_the_stream(call, script, junk) -> None:
    *frames, last = streamed(call, script, HELLO[0], data(junk), *HELLO[1:], DONE)

    assert len(frames) == 1
    assert "error" in last


def test_cut_after_last_choice_is_complete(call, script) -> None:
    response = call(script(cut_stream(*HELLO))).complete(stream=True)

    assert events(response)[-1] == "[DONE]"


def test_whole_answer_becomes_a_stream(call, script) -> None:
    response = call(script(whole(completion("Hello")))).complete(stream=True)
    only, done = events(response)

    assert only["choices"][0]["text"] == "Hello"
    assert (response.content_type, done) == ("text/event-stream", "[DONE]")


def test_html_instead_of_stream_is_an_error(call, script) -> None:
    upstream = script(whole(b"<html>hi</html>", content_type="text/html"))
    response = call(upstream).complete(stream=True)

    assert response.status_code == 502
    assert "<html>hi</html>" in response.json["error"]["message"]


def test_endless_event_is_cut(call, script) -> None:
    flood = [HELLO[0], b"data: ", *[b"x" * 4096] * 64]
    caller = call(script(stream(*flood)), max_event_bytes=65536)
    *_, last = events(caller.complete(stream=True))

    assert "more than 65536 bytes" in last["error"]["message"]


# Cases 57 and 81: clients


def test_57_tabbys_frames_all_have_choices(call, script) -> None:
    *frames, _ = streamed(
        call,
        script,
        *HELLO,
        DONE,
        suffix=None,
        max_tokens=5,
        temperature=0.1,
        presence_penalty=0.0,
    )

    assert all("choices" in f for f in frames)


def test_81_caller_may_leave_before_done(call, script) -> None:
    upstream = script(stream(*HELLO, DONE))
    caller = call(upstream)
    response = caller.complete(stream=True)
    assert read_until(response, marker=b'"stop"').startswith(b"".join(HELLO))
    response.close()

    # The connection of a finished answer may be reused.
    caller.leave()
    assert upstream.wait_closed()


def test_hang_up_closes_the_upstream(call, script) -> None:
    never = threading.Event()
    upstream = script(stream(HELLO[0], wait_for(never)))
    response = call(upstream).complete(stream=True)
    assert next(response.iter_encoded()) == HELLO[0]
    response.close()
    never.set()

    assert upstream.wait_closed()


def test_finished_stream_returns_its_connection(call, script) -> None:
    upstream = script(stream(*HELLO, DONE))
    caller = call(upstream)
    for _ in range(3):
        caller.complete(stream=True).get_data()

    assert upstream.opened == 1
    assert len(upstream.requests) == 3


# Timeouts


def test_silent_stream_ends_in_error(call, script) -> None:
    never = threading.Event()
    caller = call(script(stream(HELLO[0], wait_for(never))), idle_timeout=0.2)
    *_, last = events(caller.complete(stream=True))
    never.set()

    assert "fell silent for 0.2 s" in last["error"]["message"]
    assert last["error"]["code"] == "timeout"


def test_upstream_heartbeat_is_no_event(call, script) -> None:
    pings = [step for _ in range(20) for step in (b": ping\n\n", 0.05)]
    caller = call(script(stream(*pings, *HELLO, DONE)))
    began = time.monotonic()
    response = caller.complete(
        stream=True, headers={"x-portkey-request-timeout": "300"}
    )

    assert response.status_code == 408
    assert time.monotonic() - began < 0.9


def test_slow_stream_outlives_request_timeout(call, script) -> None:
    slow = [HELLO[0], 0.15, HELLO[1], 0.15, HELLO[2], DONE]
    response = call(script(stream(*slow))).complete(
        stream=True, headers={"x-portkey-request-timeout": "200"}
    )

    assert events(response)[-1] == "[DONE]"


def test_chunk_framing_does_not_matter(call, script) -> None:
    body = b"".join([*HELLO, DONE])
    one_by_one = [head(200, "Content-Type: text/event-stream", "Connection: close")]
    answers = [
        [*one_by_one, *(body[i : i + 1] for i in range(len(body))), close],
        [
            head(200, "Content-Type: text/event-stream", "Transfer-Encoding: chunked"),
            b"".join(chunk(body[i : i + 1]) for i in range(len(body))),
            b"0\r\n\r\n",
        ],
    ]
    for answer in answers:
        assert call(script(answer)).complete(stream=True).get_data() == body
