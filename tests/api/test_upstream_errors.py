"""Errors of upstreams keep what helps: whole, streamed, before and after a frame."""

import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from tests.conftest import Caller, events
from tests.providers.test_context_length import LIMIT_REACHED, TOO_LONG
from tests.stored_gateway import StoredGateway
from tests.upstream import (
    DONE,
    Answer,
    Upstream,
    chunk,
    completion,
    data,
    delta,
    frame,
    head,
    reply,
    stream,
    whole,
)
from tests.wire.frames import frame as amazon_frame

Call = Callable[..., Caller]

AMAZON = "application/vnd.amazon.eventstream"


@pytest.fixture
def at(call: Call) -> Callable[..., Caller]:
    """Creates callers of one target: *upstream*, as a provider of this name."""

    def make(upstream: Upstream, provider: str = "openai", **target: Any) -> Caller:
        caller = call(upstream)
        config = {"provider": provider, "api_key": "sk-of-the-target"}
        caller.headers = {
            "x-portkey-config": json.dumps(
                config | {"custom_host": upstream.url} | target
            )
        }
        return caller

    return make


def last_error(response: Any) -> dict[str, Any]:
    """The error of *response*: all of it, or the last event of a stream."""
    if response.content_type == "application/json":
        body: dict[str, Any] = response.json
        return body
    assert b"[DONE]" not in response.get_data()
    *_, last = events(response)
    assert "error" in last
    return dict(last)


# Errors within a stream

BEGUN = {
    "native": data(frame("Hel")),
    "chat": data(delta("Hel")),
    "fim": data({"content": "Hel", "stop": False}),
}
TARGETS: dict[str, dict[str, Any]] = {
    "native": {"provider": "openai", "via": "native"},
    "chat": {"provider": "openai", "via": "chat"},
    "fim": {"provider": "llama-cpp", "via": "fim"},
}

FRAMES = {
    "event with text": b"event: error\ndata: out of memory\n\n",
    "event with JSON text": b'event: error\ndata: "out of memory"\n\n',
    "event with message": b'event: error\ndata: {"message": "out of memory"}\n\n',
    "event with detail": b'event: error\ndata: {"detail": "out of memory"}\n\n',
    "event with list": b"event: error\n" + data({"detail": [{"msg": "out of memory"}]}),
    "event with error": b'event: error\ndata: {"error": "out of memory"}\n\n',
    "event after data": b'data: {"message": "out of memory"}\nevent: error\n\n',
    "event in capitals": b"event: Error\ndata: out of memory\n\n",
    "line of llama.cpp": b'error: {"code":500,"message":"out of memory"}\n\n',
    "line without blank": b'error:{"message":"out of memory","type":"x"}\n\n',
    "bare JSON": b'{"error":{"message":"out of memory"}}\n\n',
    "message alone": data({"message": "out of memory", "type": "x", "code": 500}),
    "detail alone": data({"detail": "out of memory"}),
    "object": data({"object": "error", "message": "out of memory", "code": 500}),
    "error as JSON text": data({"error": '{"error":{"message":"out of memory"}}'}),
    "list": data([{"error": {"message": "out of memory", "code": 500}}]),
    "success": data({"success": False, "errors": [{"message": "out of memory"}]}),
    "base_resp": data(
        {"base_resp": {"status_code": 1013, "status_msg": "out of memory"}}
    ),
}


@pytest.mark.parametrize("mode", TARGETS)
@pytest.mark.parametrize("name", FRAMES)
def test_error_frame_keeps_its_message(at, script, mode: str, name: str) -> None:
    """As the first event, a plain error; later, the last frame; never a bare cut."""
    for begun in ((), (BEGUN[mode],)):
        for tail in ((), (DONE,)):
            upstream = script(stream(*begun, FRAMES[name], *tail))
            target = TARGETS[mode]
            response = at(upstream, **target).complete(stream=True, suffix=suffix(mode))
            body = last_error(response)

            assert body["error"]["message"] == "out of memory"
            assert body["provider"] == target["provider"]
            assert response.status_code == (200 if begun else body_status(name))


def suffix(mode: str) -> str | None:
    return "end" if mode == "fim" else None


def body_status(name: str) -> int:
    """Those that name one have it."""
    return 500 if b"500" in FRAMES[name] else 502


@pytest.mark.parametrize("size", [1, 7, 30])
def test_error_line_survives_any_cut(at, script, size: int) -> None:
    body = BEGUN["native"] + FRAMES["line of llama.cpp"]
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    caller = at(script(stream(*pieces)))

    message = last_error(caller.complete(stream=True))["error"]["message"]
    assert message == "out of memory"


@pytest.mark.parametrize("kind", ["ping", "status", "processing"])
def test_news_are_no_errors(at, script, kind: str) -> None:
    news = data({"type": kind, "message": "in the queue"})
    upstream = script(stream(news, data(frame("Hi", "stop")), DONE))
    response = at(upstream).complete(stream=True)

    assert b"Hi" in response.get_data() and b"[DONE]" in response.get_data()


def test_error_event_without_data_is_an_error(at, script) -> None:
    caller = at(script(stream(BEGUN["native"], b"event: error\n\n", DONE)))

    assert last_error(caller.complete(stream=True))["error"]["message"] == "no message"


def test_error_event_before_text_falls_back(at, script) -> None:
    """Whatever statuses the fallback lists: no status came."""
    bad = script(stream(b"event: error\ndata: out of memory\n\n"))
    good = script(stream(data(frame("Hi", "stop")), DONE))
    targets = [
        {"provider": "openai", "api_key": "sk-of-the-target", "custom_host": each.url}
        for each in (bad, good)
    ]
    strategy = {"mode": "fallback", "on_status_codes": [429]}
    caller = at(bad)
    caller.headers["x-portkey-config"] = json.dumps(
        {"strategy": strategy, "targets": targets}
    )
    response = caller.complete(stream=True)

    assert b"Hi" in response.get_data() and b"[DONE]" in response.get_data()
    assert (len(bad.requests), len(good.requests)) == (1, 1)


def test_error_event_before_text_is_retried(at, script, fake_sleep) -> None:
    limited = b'error: {"code":429,"message":"busy","type":"rate_limit_error"}\n\n'
    upstream = script(stream(limited), stream(data(frame("Hi", "stop")), DONE))
    response = at(upstream, retry={"attempts": 1}).complete(stream=True)

    assert b"Hi" in response.get_data() and len(upstream.requests) == 2


@pytest.fixture
def fake_sleep(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between retries, which take no time."""
    from app.gateway.clients.cancellation import Cancellation

    waits: list[float] = []
    monkeypatch.setattr(
        Cancellation, "wait", lambda self, seconds: waits.append(seconds)
    )
    return waits


# Errors of a choice


def choice_error(shape: Callable[..., dict[str, Any]], **error: Any) -> dict[str, Any]:
    document = shape("Hel")
    document["choices"][0] |= {"finish_reason": "error", "error": error}
    return document


@pytest.mark.parametrize("via", ["native", "chat"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_error_of_choice_keeps_its_message(at, script, via: str, streamed) -> None:
    error = {"code": 503, "message": "Provider disconnected"}
    shapes = {
        ("native", False): completion,
        ("native", True): frame,
        ("chat", False): reply,
        ("chat", True): delta,
    }
    document = choice_error(shapes[via, streamed], **error)
    answer = stream(BEGUN[via], data(document), DONE) if streamed else whole(document)
    response = at(script(answer), "openrouter", via=via).complete(stream=streamed)
    body = last_error(response)

    assert body["error"]["message"] == "Provider disconnected"
    assert response.status_code == (200 if streamed else 503)


# OpenRouter


RAW = "google/gemini-2.0 is temporarily rate-limited upstream. Please retry shortly"


@pytest.mark.parametrize(
    "raw",
    [RAW, json.dumps({"error": {"message": RAW}}), {"message": RAW}],
    ids=["text", "JSON in text", "JSON"],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_openrouter_metadata_travels_on(at, script, raw: Any, streamed: bool) -> None:
    metadata = {"provider_name": "Google", "raw": raw}
    error = {"code": 429, "message": "Provider returned error", "metadata": metadata}
    answers = [whole({"error": error, "user_id": "user_1"}, 429)]
    if streamed:
        answers.append(stream(BEGUN["chat"], data({"error": error}), DONE))
    for answer in answers:
        caller = at(script(answer), "openrouter", via="chat")
        body = last_error(caller.complete(stream=streamed))
        shown = body["error"]
        assert shown["message"] == f"Provider returned error (Google): {RAW}"
        assert shown["metadata"] == metadata
        assert "user_1" not in json.dumps(body)


def test_openrouter_error_after_length_is_charged(at, script) -> None:
    """Recorded: the budget is used up, an error follows, and the usage is beside it."""
    usage = {"prompt_tokens": 43, "completion_tokens": 10, "total_tokens": 53}
    error = {"code": 400, "message": "Token limit reached"}
    last = delta("") | {"error": error, "usage": usage}
    upstream = script(
        stream(
            b": OPENROUTER PROCESSING\n\n",
            data(delta("Hel")),
            data(delta("", "length")),
            data(last),
            DONE,
        )
    )
    caller = at(upstream, "openrouter", via="chat")
    response = caller.complete(stream=True, max_tokens=10)
    body = last_error(response)

    assert body["error"]["message"] == "Token limit reached"
    assert body["usage"] == usage
    assert charged(caller) == (43, 10)


@pytest.mark.parametrize("via", ["native", "chat"])
def test_usage_before_error_is_charged(at, script, via: str) -> None:
    usage = {"prompt_tokens": 43, "completion_tokens": 10, "total_tokens": 53}
    shape = frame if via == "native" else delta
    upstream = script(
        stream(
            data(shape("Hel")),
            data(shape("", "length") | {"usage": usage}),
            data({"error": {"message": "Token limit reached"}}),
        )
    )
    caller = at(upstream, "openrouter", via=via)
    last_error(caller.complete(stream=True, max_tokens=10))

    assert charged(caller) == (43, 10)


def test_usage_of_whole_error_is_charged(at, script) -> None:
    usage = {"prompt_tokens": 43, "completion_tokens": 10, "total_tokens": 53}
    document = choice_error(reply, message="Provider disconnected") | {"usage": usage}
    caller = at(script(whole(document)), "openrouter", via="chat")
    body = last_error(caller.complete())

    assert body["usage"] == usage
    assert charged(caller) == (43, 10)


def test_error_without_usage_costs_nothing(at, script) -> None:
    caller = at(script(stream(data({"error": {"message": "no"}}))), "openrouter")
    last_error(caller.complete(stream=True))

    assert charged(caller) == (0, 0)


def charged(caller: Caller) -> tuple[int, int]:
    """The tokens of the prompt, and of the completion, that the metrics have."""
    for response in caller.responses:
        response.close()
    text = caller.get("/metrics").get_data(as_text=True)
    counts = {"prompt": 0, "completion": 0}
    for line in text.splitlines():
        for kind in counts:
            if line.startswith("lastword_tokens_total") and f'"{kind}"' in line:
                counts[kind] += int(float(line.rsplit(" ", 1)[1]))
    return counts["prompt"], counts["completion"]


# Bedrock


def amazon(*frames: bytes) -> Answer:
    pieces = [chunk(piece) for piece in frames]
    kind = f"Content-Type: {AMAZON}"
    return [head(200, kind, "Transfer-Encoding: chunked"), *pieces, b"0\r\n\r\n"]


def amazon_message(payload: bytes = b"", **headers: str) -> bytes:
    """A frame with these headers, whose names have colons and dashes."""
    encoded = b""
    for name, value in headers.items():
        key = (":" + name.replace("_", "-")).encode()
        text = value.encode()
        encoded += struct.pack("!B", len(key)) + key
        encoded += struct.pack("!BH", 7, len(text)) + text
    prelude = struct.pack("!II", 16 + len(encoded) + len(payload), len(encoded))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + encoded + payload
    return message + struct.pack("!I", zlib.crc32(message))


TEXT = amazon_frame(
    {
        "event": "contentBlockDelta",
        "payload": {"contentBlockIndex": 0, "delta": {"text": "Hel"}},
    }
)
TITAN = amazon_frame({"event": "chunk", "payload": {"json": {"outputText": "Hel"}}})
AMAZON_ERRORS = {
    "exception": (
        amazon_frame(
            {"exception": "throttlingException", "payload": {"message": "slow down"}}
        ),
        429,
    ),
    "unknown exception": (
        amazon_message(
            b'{"message": "slow down"}', message_type="exception", exception_type="odd"
        ),
        502,
    ),
    "original message": (
        amazon_frame(
            {
                "exception": "modelStreamErrorException",
                "payload": {"message": "failed", "originalMessage": "slow down"},
            }
        ),
        424,
    ),
    "error": (
        amazon_message(
            message_type="error", error_code="InternalError", error_message="slow down"
        ),
        502,
    ),
    "error of a rate": (
        amazon_message(
            message_type="error",
            error_code="ThrottlingException",
            error_message="slow down",
        ),
        429,
    ),
    "error without message": (
        amazon_message(message_type="error", error_code="slow down"),
        502,
    ),
}


@pytest.mark.parametrize("name", AMAZON_ERRORS)
@pytest.mark.parametrize("model", ["anthropic.claude", "amazon.titan-text"])
def test_bedrock_errors_keep_their_message(at, script, model: str, name: str) -> None:
    pytest.importorskip("botocore")
    error, status = AMAZON_ERRORS[name]
    is_titan = model.startswith("amazon")
    via = "native" if is_titan else "chat"
    for begun in ((), (TITAN if is_titan else TEXT,)):
        caller = at(script(amazon(*begun, error)), "bedrock", via=via)
        response = caller.complete(stream=True, model=model)
        body = last_error(response)

        assert "slow down" in body["error"]["message"]
        assert response.status_code == (200 if begun else status)


def test_aws_error_with_capital_message(at, script) -> None:
    body = {"Message": "User: arn:aws:iam::1:user/x is not authorized"}
    response = at(script(whole(body, 403)), "bedrock").complete()

    assert response.json["error"]["message"] == body["Message"]


# Prompts that are too long


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("status, body", TOO_LONG.values(), ids=TOO_LONG.keys())
def test_long_prompt_has_openais_code(at, script, status, body, streamed) -> None:
    answers = [(whole(body, status), status)]
    if streamed and isinstance(body, dict):
        in_band = stream(BEGUN["chat"], data(body))
        answers += [(in_band, 200)]
    for answer, expected in answers:
        response = at(script(answer), via="chat").complete(stream=streamed)
        error = last_error(response)["error"]
        assert error["code"] == "context_length_exceeded"
        assert error["type"] != "exceed_context_size_error"
        assert response.status_code == expected


def test_long_prompt_in_stream_is_a_400(at, script) -> None:
    """No status came with it, and to retry it elsewhere as a 502 would be vain."""
    body = {"error": {"message": "prompt is too long: 9 tokens > 8 maximum"}}
    response = at(script(stream(data(body))), retry={"attempts": 3}).complete(
        stream=True
    )

    assert response.status_code == 400
    assert response.json["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("status, body", LIMIT_REACHED.values(), ids=LIMIT_REACHED)
def test_other_limit_keeps_its_code(at, script, status: int, body: Any) -> None:
    response = at(script(whole(body, status)), via="chat").complete()

    assert response.status_code == status
    assert response.json["error"]["code"] != "context_length_exceeded"


def test_long_prompt_falls_back_by_status(at, script) -> None:
    small = script(whole({"message": "Input is too long for requested model."}, 400))
    large = script(whole(reply()))
    targets = [
        {"provider": "groq", "api_key": "sk-of-the-target", "custom_host": each.url}
        for each in (small, large)
    ]
    strategy = {"mode": "fallback", "on_status_codes": [400]}
    caller = at(small)
    caller.headers["x-portkey-config"] = json.dumps(
        {"strategy": strategy, "targets": targets}
    )

    assert caller.complete().status_code == 200


# Waits in bodies


def google(delay: Any) -> dict[str, Any]:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
    help = {"@type": "type.googleapis.com/google.rpc.Help", "links": []}
    return {
        "error": {
            "code": 429,
            "message": "You exceeded your current quota",
            "status": "RESOURCE_EXHAUSTED",
            "details": [help, info],
        }
    }


WAITS: dict[str, tuple[Any, str, str | None]] = {
    "whole seconds": (google("37s"), "37", None),
    "fraction": (google("0.5s"), "1", "500"),
    "nanoseconds": (google("45.837906927s"), "46", "45838"),
    "object": (google({"seconds": 3, "nanos": 250_000_000}), "4", "3250"),
    "in a list": ([google("37s")], "37", None),
    "field": ({"error": {"message": "slow down", "retry_after": 12}}, "12", None),
    "metadata": (
        {"error": {"message": "x", "metadata": {"retry_after_seconds": 2.5}}},
        "3",
        "2500",
    ),
    "sentence of Groq": (
        {"error": {"message": "Limit 7000. Please try again in 1m0.3s. Visit https"}},
        "61",
        "60300",
    ),
    "sentence of Google": (
        {"error": {"message": "Quota exceeded.\nPlease retry in 47.5s."}},
        "48",
        "47500",
    ),
    "sentence of Azure": (
        {"error": {"message": "Please retry after 26 seconds."}},
        "26",
        None,
    ),
    "milliseconds": ({"error": {"message": "Please try again in 20ms."}}, "1", "20"),
}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("body, seconds, ms", WAITS.values(), ids=WAITS.keys())
def test_wait_in_body_is_retry_after(at, script, body, seconds, ms, streamed) -> None:
    response = at(script(whole(body, 429)), "google").complete(stream=streamed)

    assert response.status_code == 429
    assert response.headers.get("retry-after") == seconds
    assert response.headers.get("retry-after-ms") == ms


@pytest.mark.parametrize(
    "delay, waits",
    [("37s", [37.0]), ("0.5s", [0.5]), ("61s", []), ("0s", None), ("soon", None)],
)
def test_wait_in_body_is_obeyed(at, script, fake_sleep, delay, waits) -> None:
    answer = {"candidates": [{"content": {"parts": [{"text": "x"}]}}]}
    answer["candidates"][0]["finishReason"] = "STOP"  # type: ignore[assignment]
    upstream = script(whole(google(delay), 429), whole(answer))
    retry = {"attempts": 1, "use_retry_after_header": True}
    response = at(upstream, "google", retry=retry).complete()

    assert response.status_code == (200 if waits != [] else 429)
    if waits is None:
        assert len(fake_sleep) == 1 and fake_sleep[0] <= 1
    else:
        assert fake_sleep == waits


def test_wait_in_stream_is_retry_after(at, script) -> None:
    """The first event says it, where there was no status yet."""
    response = at(script(stream(data(google("0.5s")))), "google").complete(stream=True)

    assert response.status_code == 429
    assert (response.headers["retry-after"], response.headers["retry-after-ms"]) == (
        "1",
        "500",
    )


def test_wait_of_header_wins(at, script) -> None:
    upstream = script(whole(google("0.5s"), 429, "retry-after: 9"))
    response = at(upstream, "google").complete()

    assert response.headers["retry-after"] == "9"
    assert "retry-after-ms" not in response.headers


def test_openrouter_reset_is_a_date(at, script) -> None:
    headers = {"X-RateLimit-Limit": "20", "X-RateLimit-Reset": "1893456000000"}
    error = {"code": 429, "message": "Rate limit", "metadata": {"headers": headers}}
    response = at(script(whole({"error": error}, 429)), "openrouter").complete()

    date = parsedate_to_datetime(response.headers["retry-after"])
    assert date.timestamp() == 1893456000


@pytest.mark.parametrize("hint", ["-3", "1e400", "nan", "\u0663s", [], True, "9" * 400])
def test_odd_waits_are_ignored(at, script, hint: Any) -> None:
    body = google(hint)
    body["error"] |= {"retry_after": hint, "metadata": {"headers": hint}}
    response = at(script(whole(body, 429)), "google").complete()

    assert response.status_code == 429
    assert float(response.headers.get("retry-after", 0)) >= 0


# Paths


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("status", [404, 405])
def test_unknown_path_is_named(at, script, status: int, streamed: bool) -> None:
    upstream = script(whole({"detail": "Not Found"}, status))
    response = at(upstream).complete(stream=streamed)

    message = "Not Found (called: POST /v1/completions)"
    assert response.json["error"]["message"] == message
    assert response.json["called"] == "POST /v1/completions"


@pytest.mark.parametrize(
    "error",
    [
        {"message": "no such model", "code": "model_not_found"},
        {"message": "no such model", "param": "model"},
        {"message": "Invalid URL (POST /v1/completions)"},
    ],
    ids=["code", "param", "path"],
)
def test_message_about_more_than_path_stays(at, script, error: Any) -> None:
    response = at(script(whole({"error": error}, 404))).complete()

    assert response.json["error"]["message"] == error["message"]
    assert response.json["called"] == "POST /v1/completions"


def test_unknown_path_has_no_query_and_no_host(at, script) -> None:
    upstream = script(whole(b"nope", 404, content_type="text/plain"))
    response = at(upstream, "google").complete(stream=True, model="gemini-9")
    text = response.get_data(as_text=True)

    assert "gemini-9:streamGenerateContent)" in text
    assert "alt=sse" not in text and str(upstream.port) not in text


def test_key_in_path_is_redacted(at, script) -> None:
    upstream = script(whole(b"nope", 404, content_type="text/plain"))
    host = upstream.url.replace("/v1", "/sk-of-the-target/v1")
    response = at(upstream, custom_host=host).complete()

    assert "/[redacted]" in response.json["error"]["message"]
    assert "sk-of-the-target" not in response.get_data(as_text=True)


def test_unknown_path_of_models_is_named(at, script) -> None:
    caller = at(script(whole({"detail": "Not Found"}, 404)))

    message = caller.get("/v1/models").json["error"]["message"]
    assert message == "Not Found (called: GET /v1/models)"


# Secrets and sizes


KEY = "sk-Proj_0123/abc+DEF=ghi"


@pytest.mark.parametrize("name", ["innererror", "metadata", "content_filter_result"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_details_are_redacted(at, script, name: str, streamed: bool) -> None:
    inner = {"a": [{"b": f"key {KEY}"}], f"x-{KEY}": 1, "raw": f'{{"k":"{KEY}"}}'}
    error = {"message": "no", name: inner}
    answer = stream(BEGUN["native"], data({"error": error})) if streamed else None
    caller = at(script(answer or whole({"error": error}, 400)), api_key=KEY)
    body = last_error(caller.complete(stream=streamed))

    assert "Proj_0123" not in json.dumps(body)
    assert "[redacted]" in json.dumps(body["error"][name])


@pytest.mark.parametrize(
    "inner",
    [
        {str(i): "x" * 5000 for i in range(9)},
        {"raw": "x" * 10**5},
        json.loads("[" * 200 + "]" * 200),
        [[1] * 60] * 60,
    ],
    ids=["many", "long", "deep", "wide"],
)
def test_details_are_bounded(at, script, inner: Any) -> None:
    error = {"message": "no", "innererror": inner, "metadata": inner}
    response = at(script(whole({"error": error}, 400))).complete()

    assert response.status_code == 400
    assert response.json["error"]["message"].startswith("no")
    assert len(response.get_data()) < 40_000


def test_details_never_replace_standard_fields(at, script) -> None:
    error = {"message": "no", "attempts": "x", "innererror": {"code": "y"}}
    response = at(script(whole({"error": error}, 400))).complete()

    assert response.json["error"] == {
        "message": "no",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
        "innererror": {"code": "y"},
    }


# Azure's content filter

FILTERED = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure "
        "OpenAI's content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {
                "hate": {"filtered": False, "severity": "safe"},
                "violence": {"filtered": True, "severity": "medium"},
            },
        },
    }
}


@pytest.mark.parametrize("via", ["native", "chat"])
@pytest.mark.parametrize("provider", ["azure-openai", "azure-ai"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_inner_error_of_filter_travels_on(at, script, provider, via, streamed) -> None:
    upstream = script(whole(FILTERED, 400))
    response = at(upstream, provider, via=via).complete(stream=streamed)
    error = response.json["error"]

    assert response.status_code == 400
    assert (error["code"], error["param"]) == ("content_filter", "prompt")
    assert error["innererror"] == FILTERED["error"]["innererror"]


# An address that the operator has stored


@pytest.mark.parametrize("path", ["/tenant-5/v1", "/v1"])
def test_stored_path_is_not_shown(call, script, settings, path: str) -> None:
    pytest.importorskip("sqlalchemy")
    upstream = script(whole({"detail": "Not Found"}, 404))
    stored = replace(settings, secret_key="s" * 32, store_ttl=0)
    with StoredGateway(call, upstream, stored) as gateway:
        host = upstream.url.removesuffix("/v1") + path
        caller = gateway.caller(gateway.key())
        caller.headers["x-portkey-virtual-key"] = gateway.virtual_key(custom_host=host)
        response = caller.complete()

    message = "Not Found (called: POST .../completions)"
    assert response.json["error"]["message"] == message
    assert upstream.last.path == f"{path}/completions"
