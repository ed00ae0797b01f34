"""What upstreams really send, byte by byte: compressed, under a wrong type, not quite
JSON, cut within characters. Each kind whole and streamed, native, FIM and bridged.
"""

import gzip
import json
import random
import re
import zlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from tests.conftest import Caller
from tests.upstream import (
    DONE,
    STREAM,
    Answer,
    Upstream,
    chunk,
    close,
    completion,
    cut_stream,
    data,
    delta,
    frame,
    head,
    reply,
    whole,
)

KINDS = ("native", "fim", "chat")
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
EVERY_FORM = pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
TEXT = "Grüße 😀 – fin"


def ask(caller: Caller, kind: str, **body: Any) -> TestResponse:
    """A completion in this mode, of the upstream that the caller's headers name."""
    provider = {"fim": "mistral-ai"}.get(kind, "openai")
    suffix = {"suffix": "}"} if kind == "fim" else {}
    config = {
        "provider": provider,
        "custom_host": caller.headers["x-portkey-custom-host"],
        "api_key": "k",
        "via": kind,
    }
    headers = {"x-portkey-config": json.dumps(config)}
    return caller.complete(headers=headers, **suffix, **body)


def piece(kind: str, text: str, finish: str | None = None, index: int = 0) -> Any:
    """A chunk of a stream as the upstream of this kind sends it."""
    return (frame if kind == "native" else delta)(text, finish, index)


def document(kind: str, text: str) -> Any:
    return (completion if kind == "native" else reply)(text)


def events_of(kind: str, *texts: str) -> list[Any]:
    return [*(piece(kind, text) for text in texts), piece(kind, "", "stop")]


def sse(events: Sequence[Any]) -> bytes:
    return b"".join(map(data, events)) + DONE


def typed(body: bytes, content_type: str, *headers: str) -> Answer:
    """*body* in one chunk, under this type if any."""
    lines = (f"Content-Type: {content_type}",) if content_type else ()
    framing = "Transfer-Encoding: chunked"
    return [head(200, *lines, *headers, framing), chunk(body), b"0\r\n\r\n"]


def frames_in(response: TestResponse) -> list[Any]:
    """The frames of a whole stream, read as the strictest client reads them."""
    lines = [line for line in response.text.splitlines() if line]
    assert lines[-1] == "data: [DONE]", response.text
    return [
        json.loads(line.removeprefix("data: "), parse_constant=pytest.fail)
        for line in lines[:-1]
    ]


def texts_in(response: TestResponse) -> list[str]:
    """The text of each choice of a whole answer, in either form."""
    assert response.status_code == 200, response.text
    if response.content_type.startswith("text/event-stream"):
        documents = frames_in(response)
    else:
        documents = [json.loads(response.text, parse_constant=pytest.fail)]
    texts: dict[int, str] = {}
    for each in documents:
        for choice in each["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    return [texts[index] for index in sorted(texts)]


# Compression


def packed(body: bytes, coding: str, members: int) -> bytes:
    if coding == "gzip":
        size = -(-len(body) // members)
        parts = [body[i : i + size] for i in range(0, len(body), size)]
        return b"".join(map(gzip.compress, parts))
    return zlib.compress(body)


def framed(body: bytes, framing: str, header: Sequence[str], cuts: list[int]) -> Answer:
    bounds = [0, *sorted(cut % len(body) for cut in cuts), len(body)]
    pairs = zip(bounds, bounds[1:], strict=False)
    pieces = [body[start:end] for start, end in pairs if start < end]
    if framing == "chunked":
        opening = head(200, *header, "Transfer-Encoding: chunked")
        return [opening, *map(chunk, pieces), b"0\r\n\r\n"]
    if framing == "length":
        return [head(200, *header, f"Content-Length: {len(body)}"), *pieces]
    return [head(200, *header, "Connection: close"), *pieces, close]


@EVERY_FORM
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    coding=st.sampled_from(["gzip", "deflate"]),
    members=st.integers(1, 3),
    framing=st.sampled_from(["chunked", "length", "close"]),
    cuts=st.lists(st.integers(0, 9999), max_size=6),
)
def test_compressed_answer_is_whole(
    call, script, streams, coding, members, framing, cuts
) -> None:
    """And its connection serves the next call, where it can."""
    body = sse(events_of("native", *TEXT)) if streams else data(completion(TEXT))[6:]
    kind = "text/event-stream" if streams else "application/json"
    header = (f"Content-Type: {kind}", f"Content-Encoding: {coding}")
    upstream = script(framed(packed(body, coding, members), framing, header, cuts))
    caller = call(upstream)
    try:
        for _ in range(2):
            response = caller.complete(stream=streams)
            assert texts_in(response) == [TEXT]
            response.close()
        assert upstream.opened == (2 if framing == "close" else 1)
    finally:
        caller.leave()
        upstream.stop()


# Types

TYPES = [
    "application/json",
    "text/plain",
    "application/octet-stream",
    "text/html; charset=utf-8",
    "Text/Event-Stream",
    "text/event-stream; charset=utf-8",
    "application/x-ndjson",
    "",
]
EVERY_TYPE = pytest.mark.parametrize("content_type", TYPES)
BEGINNINGS = [b"", b": hello\n\n", b"\n\n", b"event: x\n", b"\xef\xbb\xbf", b"id: 1\n"]


@EVERY_TYPE
@EVERY_KIND
def test_stream_of_any_type_is_read(call, script, kind, content_type) -> None:
    events = events_of(kind, "Grüße", " 😀 –", " fin")
    for beginning in BEGINNINGS:
        upstream = script(typed(beginning + sse(events), content_type))
        response = ask(call(upstream), kind, stream=True)

        assert texts_in(response) == [TEXT]


@EVERY_TYPE
@EVERY_KIND
@pytest.mark.parametrize("indent", [None, 1], ids=["one line", "many lines"])
def test_document_of_any_type_in_place_of_stream(
    call, script, kind, content_type, indent
) -> None:
    body = json.dumps(document(kind, TEXT), indent=indent).encode() + b"\n"
    upstream = script(typed(body, content_type))
    response = ask(call(upstream), kind, stream=True)

    assert texts_in(response) == [TEXT]


@EVERY_FORM
@EVERY_KIND
def test_document_that_is_the_only_chunk(call, script, kind, streams) -> None:
    body = json.dumps(piece(kind, TEXT, "stop")).encode()
    upstream = script(typed(body, "application/json"))

    assert texts_in(ask(call(upstream), kind, stream=streams)) == [TEXT]


OLLAMA = [
    {"model": "m", "response": "Grüße", "done": False},
    {"model": "m", "response": " 😀 – fin", "done": False},
    {"model": "m", "response": "", "done": True, "done_reason": "stop"},
]
LINES = "".join(f"{json.dumps(each)}\n" for each in OLLAMA).encode()


@EVERY_TYPE
@EVERY_FORM
def test_json_lines_of_any_type_are_read(call, script, content_type, streams) -> None:
    upstream = script(typed(LINES, content_type))
    headers = {"x-portkey-provider": "ollama"}
    response = call(upstream).complete(headers=headers, stream=streams)

    assert texts_in(response) == [TEXT]


def test_array_of_chunks_is_a_stream(call, script) -> None:
    """Google's, where `alt=sse` gets lost."""
    parts = [{"text": "Grüße"}], [{"text": " 😀 – fin"}]
    chunks: list[Any] = [{"candidates": [{"content": {"parts": p}}]} for p in parts]
    chunks[-1]["candidates"][0]["finishReason"] = "STOP"
    upstream = script(typed(json.dumps(chunks, indent=1).encode(), "application/json"))
    headers = {"x-portkey-provider": "google"}
    response = call(upstream).complete(headers=headers, stream=True)

    assert texts_in(response) == [TEXT]


@EVERY_FORM
@EVERY_KIND
def test_html_with_status_200_is_bad_gateway(call, script, kind, streams) -> None:
    page = b"<!doctype html>\n<title>Sign in</title>\n"
    for content_type in ("text/html", "text/event-stream", ""):
        response = ask(call(script(typed(page, content_type))), kind, stream=streams)

        assert response.status_code == 502
        assert "Sign in" in response.json["error"]["message"]


@EVERY_TYPE
@EVERY_KIND
def test_stream_nobody_asked_for_is_whole(call, script, kind, content_type) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
    last = piece(kind, "", "length") | {"usage": usage}
    events = [piece(kind, "Grüße"), piece(kind, " 😀 – fin"), last]
    for beginning in BEGINNINGS:
        upstream = script(typed(beginning + sse(events), content_type))
        response = ask(call(upstream), kind)

        assert texts_in(response) == [TEXT]
        assert response.json["object"] == "text_completion"
        assert response.json["choices"][0]["finish_reason"] == "length"
        assert response.json["usage"]["completion_tokens"] == 6


@EVERY_KIND
def test_stream_nobody_asked_for_keeps_choices_apart(call, script, kind) -> None:
    events = [piece(kind, "a", index=1), piece(kind, "b"), piece(kind, "c", index=1)]
    events += [piece(kind, "", "stop", 1), piece(kind, "", "stop")]
    many = {"n": 2} if kind != "fim" else {}
    if kind == "fim":
        events = [each for each in events if not each["choices"][0]["index"]]
    upstream = script(typed(sse(events), "application/json"))
    response = ask(call(upstream), kind, **many)

    assert texts_in(response) == (["b"] if kind == "fim" else ["b", "ac"])


@EVERY_KIND
def test_cut_stream_nobody_asked_for_is_bad_gateway(call, script, kind) -> None:
    cut = data(piece(kind, "Grüße")) + data(piece(kind, " 😀"))
    for answer in (typed(cut, "text/event-stream"), cut_stream(cut)):
        response = ask(call(script(answer)), kind)

        assert response.status_code == 502


def test_error_in_stream_nobody_asked_for(call, script) -> None:
    error = data({"error": {"message": "overloaded", "code": 503}})
    upstream = script(typed(data(frame("Hel")) + error, "text/event-stream"))
    response = call(upstream).complete()

    assert response.status_code == 503
    assert response.json["error"]["message"].endswith("overloaded")


def test_budget_bounds_document_of_unknown_type(call, script) -> None:
    page = b"{" + b" " * 200_000
    upstream = script(typed(page, "text/event-stream"))
    response = call(upstream, max_answer_bytes=100_000).complete(stream=True)

    assert response.status_code == 502
    assert "longer than 100000 bytes" in response.json["error"]["message"]


# Infinities

INFINITIES = pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])


@INFINITIES
@EVERY_FORM
@EVERY_KIND
def test_infinity_loses_no_answer(call, script, kind, streams, number) -> None:
    text = 'NaN, "Infinity" and -Infinity: [NaN, -Infinity]'
    score = {"score": [float(number), {"deep": float(number)}]}
    if streams:
        body = sse([each | score for each in events_of(kind, text[:9], text[9:])])
    else:
        body = json.dumps(document(kind, text) | score).encode()
    assert number in body.decode().replace(json.dumps(text)[1:-1], "")
    response = ask(call(script(typed(body, "text/event-stream"))), kind, stream=streams)

    assert texts_in(response) == [text]


@INFINITIES
@EVERY_FORM
def test_infinite_logprob_of_native_answer(call, script, number, streams) -> None:
    value = float(number)
    logprobs = {
        "tokens": ["a", "NaN"],
        "token_logprobs": [value, -0.5],
        "top_logprobs": [{"a": value}, {"NaN": -0.5}],
        "text_offset": [2, 3],
    }
    choice = {"text": "aNaN", "index": 0, "logprobs": logprobs, "finish_reason": "stop"}
    answer = frame() | {"choices": [choice]}
    body = sse([answer]) if streams else json.dumps(answer).encode()
    upstream = script(typed(body, "text/event-stream"))
    response = call(upstream).complete(stream=streams, logprobs=1)

    (sent,) = [
        each["choices"][0]["logprobs"]
        for each in (frames_in(response) if streams else [response.json])
        if each["choices"][0]["logprobs"]
    ]
    assert sent["token_logprobs"] == [-9999.0, -0.5]
    assert sent["top_logprobs"] == [{"a": -9999.0}, {"NaN": -0.5}]
    assert sent["tokens"] == ["a", "NaN"]


@INFINITIES
@EVERY_FORM
def test_infinite_logprob_of_chat(call, script, number, streams) -> None:
    value = float(number)
    other = {"token": "b", "logprob": value, "bytes": None}
    entry = {"token": "a", "logprob": -0.5, "bytes": None, "top_logprobs": [other]}
    answer = piece("chat", "a", "stop") if streams else document("chat", "a")
    answer["choices"][0]["logprobs"] = {"content": [entry | {"logprob": value}]}
    body = sse([answer]) if streams else json.dumps(answer).encode()
    upstream = script(typed(body, "text/event-stream"))
    response = ask(call(upstream), "chat", stream=streams, logprobs=1)

    documents = frames_in(response) if streams else [response.json]
    (sent,) = [
        each["choices"][0]["logprobs"]
        for each in documents
        if each["choices"] and each["choices"][0]["logprobs"]
    ]
    assert sent["token_logprobs"] == [-9999.0]
    assert sent["top_logprobs"] == [{"b": -9999.0, "a": -9999.0}]


# Characters


@EVERY_KIND
@pytest.mark.parametrize("finish", [None, "stop"], ids=["reason last", "everywhere"])
def test_halves_of_two_frames_are_joined(call, script, kind, finish) -> None:
    texts = ["Grüße \ud83d", "", "\ude00 \ud83d", "\ude00\ud83d", "\ude00", " fin"]
    events = [piece(kind, text, finish) for text in texts]
    upstream = script(typed(sse([*events, piece(kind, "", "stop")]), STREAM[14:]))
    response = ask(call(upstream), kind, stream=True)

    assert texts_in(response) == ["Grüße 😀 😀😀 fin"]


@EVERY_KIND
@pytest.mark.parametrize(
    "texts",
    [["a\ud83d", "b\ude00"], ["a\ud83d", "b\ud83d"], ["a\ude00", "b\ude00"]],
    ids=["mixed up", "first halves", "second halves"],
)
def test_lone_half_becomes_replacement_character(call, script, kind, texts) -> None:
    events = events_of(kind, *texts)
    upstream = script(typed(sse(events), "text/event-stream"))
    response = ask(call(upstream), kind, stream=True)

    assert texts_in(response) == ["a\ufffdb\ufffd"]


@pytest.mark.parametrize("kind", ["native", "chat"])
def test_halves_of_two_choices_do_not_mix(call, script, kind) -> None:
    pieces = [("a\ud83d", 0), ("b\ud83e", 1), ("c", 1), ("\ude00d", 0), ("\ude00", 1)]
    events = [piece(kind, text, index=index) for text, index in pieces]
    events += [piece(kind, "", "stop", index) for index in (0, 1)]
    upstream = script(typed(sse(events), "text/event-stream"))
    response = ask(call(upstream), kind, stream=True, n=2)

    assert texts_in(response) == ["a😀d", "b\ufffdc\ufffd"]


@EVERY_KIND
@pytest.mark.parametrize("half", ["\ud83d", "\ude00"], ids=["first", "second"])
def test_lone_half_of_whole_answer(call, script, kind, half) -> None:
    body = json.dumps(document(kind, f"a{half}b 😀{half}")).encode()
    response = ask(call(script(typed(body, "application/json"))), kind)

    assert texts_in(response) == ["a\ufffdb 😀\ufffd"]


def test_stop_sequence_of_joined_halves(call, script) -> None:
    """One that the gateway enforces: Perplexity takes none."""
    upstream = script(typed(sse(events_of("chat", "a\ud83d", "\ude00b")), ""))
    headers = {"x-portkey-provider": "perplexity-ai"}
    response = call(upstream).complete(headers=headers, stream=True, stop="😀")

    assert texts_in(response) == ["a"]


def test_offsets_of_split_characters(call, script) -> None:
    """A character counts once, also if two tokens share it."""
    events = [piece("chat", text) for text in ("a\ud83d", "\ude00b")]
    for event, tokens in zip(events, (["a", "\ud83d"], ["\ude00", "b"]), strict=True):
        entries = [{"token": t, "logprob": -1.0, "top_logprobs": []} for t in tokens]
        event["choices"][0]["logprobs"] = {"content": entries}
    body = sse([*events, piece("chat", "", "stop")])
    response = ask(
        call(script(typed(body, "text/event-stream"))), "chat", stream=True, logprobs=0
    )

    choices = [each["choices"] for each in frames_in(response)]
    logprobs = [c[0]["logprobs"] for c in choices if c and c[0]["logprobs"]]
    offsets = [offset for each in logprobs for offset in each["text_offset"]]
    assert texts_in(response) == ["a😀b"]
    assert (offsets[0], offsets[1], offsets[3]) == (2, 3, 4)


@EVERY_FORM
@EVERY_KIND
@pytest.mark.parametrize("broken", [b"\xff", b"\xe2\x82", b"\xed\xa0\xbd", b"\xc0\xaf"])
def test_broken_utf8_becomes_replacement(call, script, kind, streams, broken) -> None:
    body = (
        sse(events_of(kind, "one", "two XX", "three"))
        if streams
        else json.dumps(document(kind, "onetwo XXthree")).encode()
    ).replace(b"XX", broken)
    upstream = script(typed(body, "text/event-stream"))
    (text,) = texts_in(ask(call(upstream), kind, stream=streams))

    assert re.fullmatch("onetwo \ufffd+three", text)


# Byte order marks


@EVERY_FORM
@EVERY_KIND
def test_mark_before_json_is_ignored(call, script, kind, streams) -> None:
    mark = b"\xef\xbb\xbf"
    if streams:
        events = [json.dumps(each).encode() for each in events_of(kind, *TEXT)]
        body = sse([mark + event for event in events])
    else:
        body = mark + json.dumps(document(kind, TEXT)).encode()
    response = ask(call(script(typed(body, ""))), kind, stream=streams)

    assert texts_in(response) == [TEXT]
    assert "\ufeff" not in response.text


def test_mark_before_request_is_ignored(call, script) -> None:
    upstream = script(whole(completion()))
    caller = call(upstream)
    body = b'\xef\xbb\xbf{"model": "m", "prompt": "Hi"}'

    assert caller.post(body).status_code == 200
    assert upstream.last.json["prompt"] == "Hi"


@pytest.mark.parametrize("half", [r"\ud83d", r"\ude00"])
@pytest.mark.parametrize("field", ["prompt", "stop", "suffix", "user"])
def test_half_character_in_request_is_refused(call, script, field, half) -> None:
    """As by OpenAI: a model would read another prompt than was sent."""
    upstream = script(whole(completion()))
    fields = {"model": '"m"', "prompt": '"Hi"'} | {field: f'"Hi{half}"'}
    body = ", ".join(f'"{key}": {value}' for key, value in fields.items())
    response = call(upstream).post(f"{{{body}}}".encode())

    assert response.status_code == 400
    assert "surrogate" in response.json["error"]["message"]
    assert upstream.requests == []


# Ends of lines

SEPARATORS = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1dh\x1ei\r\nj"


@EVERY_FORM
@EVERY_KIND
def test_separators_end_no_line(call, script, kind, streams) -> None:
    """For clients that split where Python does. `texts_in` is one."""
    if streams:
        texts = [*SEPARATORS, *SEPARATORS]
        raw = [json.dumps(e, ensure_ascii=False) for e in events_of(kind, *texts)]
        body = sse([each.encode() for each in raw])
    else:
        answer = document(kind, SEPARATORS * 2)
        body = json.dumps(answer, ensure_ascii=False).encode()
    response = ask(call(script(typed(body, ""))), kind, stream=streams)

    assert texts_in(response) == [SEPARATORS * 2]


def test_separators_of_error_end_no_line(call, script) -> None:
    error = {"error": {"message": "a\u2028b\x85c"}}
    body = sse([frame("Hi"), json.dumps(error, ensure_ascii=False).encode()])
    response = call(script(typed(body, "text/event-stream"))).complete(stream=True)
    *_, last = [line for line in response.text.splitlines() if line]

    assert (
        "a\u2028b\x85c" in json.loads(last.removeprefix("data: "))["error"]["message"]
    )


# Random


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.sampled_from('aé–😀𝄞\u2028\x85 "\\n')),
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(KINDS),
)
def test_text_cut_anywhere_is_whole(call, script, text, seed, kind) -> None:
    """Between any two UTF-16 code units, as JavaScript cuts."""
    choose = random.Random(seed)
    units = text.encode("utf-16-le")
    cuts = sorted(2 * choose.randrange(len(units) // 2 + 1) for _ in range(5))
    bounds = [0, *cuts, len(units)]
    texts = [
        units[start:end].decode("utf-16-le", "surrogatepass")
        for start, end in zip(bounds, bounds[1:], strict=False)
    ]
    upstream: Upstream = script(typed(sse(events_of(kind, *texts)), "text/plain"))
    caller = call(upstream)
    try:
        assert texts_in(ask(caller, kind, stream=True)) == [text]
    finally:
        caller.leave()
        upstream.stop()
