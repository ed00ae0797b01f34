"""Broken and malicious upstreams: each leads to the right error, in time.

After each of them no connection stays open, and the next caller gets its answer.
"""

import gzip
import json
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.conftest import Caller, events
from tests.upstream import (
    DONE,
    STREAM,
    Answer,
    Step,
    chunk,
    close,
    closing_stream,
    completion,
    data,
    dripped,
    forever,
    frame,
    head,
    reset,
    stream,
    wait_for,
    whole,
)

SMALL: dict[str, Any] = {"max_answer_bytes": 100_000, "max_event_bytes": 100_000}
SHORT: dict[str, Any] = {"first_byte_timeout": 0.3, "idle_timeout": 0.2}
GOOD = whole(completion("good"))
BODY = json.dumps(completion("good")).encode()
HELLO = [data(frame("Hel")), data(frame("lo")), data(frame("!", "stop"))]
CHUNKED = head(200, STREAM, "Transfer-Encoding: chunked")
BEGUN = CHUNKED + chunk(HELLO[0])

both = pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
Call = Callable[..., Caller]


def fails(
    call: Call, script: Any, answer: Answer, streams: bool, **limits: Any
) -> dict[str, Any]:
    """The error response for *answer*; the next request succeeds."""
    upstream = script(answer, GOOD)
    caller = call(upstream, **SMALL | limits)
    began = time.monotonic()
    response = caller.complete(stream=streams)
    assert time.monotonic() - began < 5
    assert response.content_type == "application/json"
    assert response.json["provider"] == "openai"
    assert upstream.wait_closed()
    good = caller.complete()
    assert good.json["choices"][0]["text"] == "good"
    assert [each.connection for each in upstream.requests] == [1, 2]
    error: dict[str, Any] = response.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error | {"status": response.status_code}


def breaks(call: Call, script: Any, answer: Answer, **limits: Any) -> str:
    """The error event at the end of a stream that began well."""
    upstream = script(answer, GOOD)
    caller = call(upstream, **SMALL | limits)
    began = time.monotonic()
    first, *_, last = events(caller.complete(stream=True))
    assert time.monotonic() - began < 5
    assert first["choices"][0]["text"] == "Hel"
    assert upstream.wait_closed()
    assert caller.complete().json["choices"][0]["text"] == "good"
    assert set(last["error"]) == {"message", "type", "param", "code"}
    assert last["provider"] == "openai"
    return str(last["error"]["message"])


# Heads


def headed(*lines: str) -> bytes:
    return head(200, "Content-Type: application/json", *lines)


NOT_HTTP: dict[str, Answer] = {
    "endless status line": [b"HTTP/1.1 200 ", forever(b"x" * 4096)],
    "endless header": [b"HTTP/1.1 200 OK\r\nX-A: ", forever(b"x" * 4096)],
    "endless name of a header": [b"HTTP/1.1 200 OK\r\n", forever(b"x" * 4096)],
    "headers without end": [b"HTTP/1.1 200 OK\r\n", forever(b"X-A: b\r\n" * 99)],
    "100 without end": [forever(head(100) * 99)],
    "103 without end": [forever(head(103, "Link: </a>") * 99)],
    "another protocol": [head(101, "Upgrade: h2c"), forever(b"PRI * HTTP/2.0")],
    "binary": [forever(bytes(range(256)))],
    "NUL for ever": [forever(b"\0" * 4096)],
    "a status of text": [b"HTTP/1.1 OK 200\r\n\r\n", close],
    "a status of two digits": [b"HTTP/1.1 20\r\n\r\n", close],
    "HTTP/2": [b"HTTP/2.0 200 OK\r\n\r\n", close],
    "a header without colon": [headed("nonsense", "Content-Length: 2"), b"{}"],
    "a folded header": [headed("x-request-id: a\r\n b", "Content-Length: 2"), b"{}"],
    "a folded first header": [head(200, " a: b", "Content-Length: 2"), b"{}"],
    "a header without a name": [headed(": b", "Content-Length: 2"), b"{}"],
    "a header in a header": [headed("X-A: b\rContent-Length: 2"), b"{}"],
    "a header with NUL": [headed("x-request-id: a\0b", "Content-Length: 2"), b"{}"],
    "two lengths": [headed("Content-Length: 2", "Content-Length: 3"), b"{} "],
    "two lengths in one": [headed("Content-Length: 2, 3"), b"{} "],
    "a negative length": [headed("Content-Length: -2"), BODY, close],
    "a length with a sign": [headed("Content-Length: +2"), b"{}"],
    "a length of text": [headed("Content-Length: two"), BODY, close],
    "a length beyond reason": [headed(f"Content-Length: {10**30}"), forever(b" ")],
    "an unknown transfer": [headed("Transfer-Encoding: gzip"), BODY, close],
    "two transfers": [headed("Transfer-Encoding: gzip, chunked"), chunk(BODY)],
    "chunked twice": [headed(*["Transfer-Encoding: chunked"] * 2), chunk(BODY), close],
}


@both
@pytest.mark.parametrize("name", NOT_HTTP)
def test_malformed_head_is_bad_gateway(call, script, name, streams) -> None:
    error = fails(call, script, NOT_HTTP[name], streams)

    assert (error["status"], error["type"]) == (502, "server_error")
    assert error["message"] == "upstream's answer is not HTTP"


def test_informational_responses_are_skipped(call, script) -> None:
    early = [head(100), head(102), head(103, "Link: </style.css>"), *GOOD]

    assert call(script(early)).complete().status_code == 200


@both
@pytest.mark.parametrize("framed", [GOOD[0], stream(*HELLO, DONE)[0]])
def test_dripping_head_times_out(call, script, framed, streams) -> None:
    """No single byte is late; the deadline is for the whole head."""
    error = fails(
        call, script, [*dripped(framed)], streams, **SHORT | {"idle_timeout": 9}
    )

    assert (error["status"], error["code"]) == (504, "timeout")


@both
def test_endless_informational_responses_time_out(call, script, streams) -> None:
    error = fails(call, script, [forever(head(102), 0.05)], streams, **SHORT)

    assert (error["status"], error["code"]) == (504, "timeout")


def test_request_timeout_covers_dripping_head(call, script) -> None:
    upstream = script(dripped(GOOD[0]))
    response = call(upstream).complete(headers={"x-portkey-request-timeout": "200"})

    assert response.status_code == 408
    assert upstream.wait_closed()


def test_unread_request_times_out(call, script) -> None:
    """Also on a reused connection."""
    never = threading.Event()
    upstream = script(stream(*HELLO, DONE), [wait_for(never)])
    caller = call(upstream, **SHORT)
    caller.complete(stream=True).get_data()
    response = caller.complete(prompt="x" * 9_000_000)
    never.set()

    assert (response.status_code, upstream.opened) == (504, 1)


def test_late_read_request_is_answered(call, script) -> None:
    """The wait for a stream's end is short; the next request has its full timeout."""
    upstream = script([*stream(*HELLO, DONE), 0.3], GOOD)
    caller = call(upstream)
    first = caller.complete(stream=True)
    first.get_data()
    first.close()
    second = caller.complete(prompt="x" * 9_000_000)

    assert (second.status_code, upstream.opened) == (200, 1)


# Bodies


WHOLE_CHUNKED = headed("Transfer-Encoding: chunked")
CHUNKS: dict[str, list[Step]] = {
    "a negative size": [b"-5\r\n", forever(b"hello")],
    "a size with a sign": [b"+5\r\n", forever(b"hello")],
    "a size with a prefix": [b"0x5\r\n", forever(b"hello")],
    "a size with a line in it": [b"5_0\r\n", forever(b"hello")],
    "a size of text": [b"five\r\n", forever(b"hello")],
    "no size": [b"\r\n", forever(b"hello\r\n")],
    "a size beyond reason": [b"f" * 99 + b"\r\n", forever(b"hello")],
    "an endless size": [forever(b"0" * 4096)],
    "an endless extension": [b"5;a=", forever(b"x" * 4096)],
    "a chunk longer than it says": [b"5\r\nhello!!", b"0\r\n\r\n"],
    "no chunk at all": [forever(b'{"choices":' * 999)],
}


@both
@pytest.mark.parametrize("name", CHUNKS)
def test_malformed_chunks_are_bad_gateway(call, script, name, streams) -> None:
    answer = [CHUNKED if streams else WHOLE_CHUNKED, *CHUNKS[name]]
    error = fails(call, script, answer, streams)

    assert error["status"] == 502
    assert error["message"] == "upstream's answer is not HTTP"


@pytest.mark.parametrize("name", CHUNKS)
def test_malformed_chunks_end_stream_in_error(call, script, name) -> None:
    assert breaks(call, script, [BEGUN, *CHUNKS[name]]) == (
        "upstream's answer is not HTTP"
    )


@both
def test_endless_trailers_are_bad_gateway(call, script, streams) -> None:
    first = CHUNKED if streams else WHOLE_CHUNKED + chunk(BODY)
    answer = [first + b"0\r\n", forever(b"X-A: b\r\n" * 99)]

    assert "not HTTP" in fails(call, script, answer, streams)["message"]


@pytest.mark.parametrize("pause", [0, 0.01])
def test_endless_trailers_do_not_delay_stream(call, script, pause) -> None:
    *begun, _ = stream(*HELLO, DONE)
    upstream = script([*begun, b"0\r\n", forever(b"X", pause)], GOOD)
    caller = call(upstream)
    began = time.monotonic()
    response = caller.complete(stream=True)

    assert events(response)[-1] == "[DONE]"
    response.close()
    assert time.monotonic() - began < 5
    assert upstream.wait_closed()
    assert caller.complete().status_code == 200


ENDLESS: dict[str, tuple[list[Step], str]] = {
    "line": ([b"data: ", forever(b"x" * 4096)], "a line of more than 100000"),
    "comment": ([b": ", forever(b"x" * 4096)], "a line of more than 100000"),
    "event": ([forever(b"data: x\n" * 512)], "100000 bytes without an event"),
    "big event": ([forever(b"data: " + b"x" * 4096 + b"\n")], "than 100000 bytes"),
    "comments": ([forever(b": x\n" * 999)], "100000 bytes without an event"),
    "blank lines": ([forever(b"\n" * 4096)], "100000 bytes without an event"),
    "names": ([forever(b"event: x\n\n" * 512)], "100000 bytes without an event"),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_endless_stream_start_is_bad_gateway(call, script, name) -> None:
    steps, words = ENDLESS[name]
    answer = [head(200, STREAM, "Connection: close"), *steps]
    error = fails(call, script, answer, True)

    assert error["status"] == 502
    assert words in error["message"]


@pytest.mark.parametrize("name", ENDLESS)
def test_endless_event_ends_stream_in_error(call, script, name) -> None:
    steps, words = ENDLESS[name]
    answer = [head(200, STREAM, "Connection: close"), HELLO[0], *steps]

    assert words in breaks(call, script, answer)


@both
def test_endless_tiny_chunks_are_refused(call, script, streams) -> None:
    first = CHUNKED + chunk(b"data: ") if streams else WHOLE_CHUNKED
    limits = {"max_answer_bytes": 20_000, "max_event_bytes": 20_000}
    error = fails(call, script, [first, forever(chunk(b"xy") * 999)], streams, **limits)

    assert "20000 bytes" in error["message"]


DRIPS: dict[str, Step] = {
    "comments": forever(chunk(b": x\n\n"), 0.05),
    "an event": forever(chunk(b"data: x\n"), 0.05),
    "a line": forever(chunk(b"x"), 0.05),
    "the size of a chunk": forever(b"0", 0.05),
    "an extension": forever(b";a", 0.05),
    "empty pieces": forever(b"1;\r\n\n\r\n", 0.05),
}


@pytest.mark.parametrize("name", DRIPS)
def test_dripping_first_event_times_out(call, script, name) -> None:
    error = fails(call, script, [CHUNKED, DRIPS[name]], True, **SHORT)

    assert (error["status"], error["code"]) == (504, "timeout")


@pytest.mark.parametrize("name", DRIPS)
def test_dripping_event_ends_stream(call, script, name) -> None:
    message = breaks(call, script, [BEGUN, DRIPS[name]], **SHORT)

    assert "fell silent for 0.2 s" in message


@pytest.mark.parametrize("pause", [0, 0.05])
def test_whitespace_does_not_begin_answer(call, script, pause) -> None:
    """Some servers send it for minutes to keep the connection open."""
    answer = [headed("Connection: close"), forever(b"\n", pause)]
    error = fails(call, script, answer, False, **SHORT, max_answer_bytes=10**8)

    assert (error["status"], error["code"]) == (504, "timeout")


def test_whitespace_keeps_answer_alive(call, script) -> None:
    """The answer may come later than the idle timeout."""
    spaced = [head(200, "Connection: close"), *[b"\n", 0.1] * 3, BODY, close]
    answer = call(script(spaced), idle_timeout=0.2).complete()

    assert answer.json["choices"][0]["text"] == "good"


def test_slow_document_instead_of_stream_is_whole(call, script) -> None:
    """Each piece in time renews the timeout, also if a stream was requested."""
    pieces = [BODY[i : i + 40] for i in range(0, len(BODY), 40)]
    slow = [step for piece in pieces for step in (piece, 0.07)]
    length = f"Content-Length: {len(BODY)}"
    answer = [head(200, length, "Content-Type: application/json"), *slow]
    caller = call(script(answer), first_byte_timeout=0.3, idle_timeout=0.3)
    streamed = caller.complete(stream=True).get_data()

    assert b"good" in streamed and streamed.endswith(DONE)


def test_long_document_instead_of_stream_is_not_read(call, script) -> None:
    answer = [head(200, "Content-Length: 999999", "Content-Type: application/json")]
    response = call(script(answer), max_answer_bytes=9999).complete(stream=True)

    assert response.status_code == 502 and "announces 999999" in response.text


def test_slow_steady_answer_is_whole(call, script) -> None:
    pieces = [BODY[i : i + 40] for i in range(0, len(BODY), 40)]
    slow = [step for piece in pieces for step in (piece, 0.07)]
    answer = [head(200, f"Content-Length: {len(BODY)}"), *slow]
    caller = call(script(answer), first_byte_timeout=0.3, idle_timeout=0.3)

    assert caller.complete().get_data() == BODY


def test_slow_client_is_no_idle_upstream(call, script) -> None:
    slow = stream(HELLO[0], 0.05, *HELLO[1:], DONE)
    caller = call(script(slow), idle_timeout=0.1)
    response = caller.complete(stream=True)
    pieces = response.iter_encoded()
    next(pieces)
    time.sleep(0.2)

    assert b"".join(pieces).endswith(DONE)


# Lengths, and what comes after the end


@both
def test_short_body_is_truncated(call, script, streams) -> None:
    long = [headed(f"Content-Length: {len(BODY) + 1}"), BODY, close]

    assert "broke off" in fails(call, script, long, streams)["message"]


EVIL = b"".join(whole(completion("evil")))
DONE_EARLY = head(200, STREAM, f"Content-Length: {len(b''.join([*HELLO, DONE]))}")
DESYNCED: dict[str, tuple[Answer, bool]] = {
    "a short length": ([GOOD[0] + EVIL], False),
    "a short length, much later": ([GOOD[0], 0.05, EVIL], False),
    "after the last chunk": (
        [WHOLE_CHUNKED + chunk(BODY) + b"0\r\n\r\n" + EVIL],
        False,
    ),
    "both framings": (
        [headed("Content-Length: 5", "Transfer-Encoding: chunked") + chunk(BODY)]
        + [b"0\r\n\r\n"],
        False,
    ),
    "a stream in chunks": ([*stream(*HELLO, DONE)[:-1], b"0\r\n\r\n" + EVIL], True),
    "a stream with a length": ([DONE_EARLY, *HELLO, DONE + EVIL], True),
}


@pytest.mark.parametrize("name", DESYNCED)
def test_surplus_bytes_close_the_connection(call, script, name) -> None:
    """Surplus bytes are not read as the next answer."""
    answer, streams = DESYNCED[name]
    upstream = script(answer, GOOD)
    caller = call(upstream)
    first = caller.complete(stream=streams)

    assert first.status_code == 200 and b"evil" not in first.get_data()
    first.close()
    time.sleep(0.1)
    assert caller.complete().json["choices"][0]["text"] == "good"
    assert [each.connection for each in upstream.requests] == [1, 2]


@both
@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize(
    "framing", ["Content-Length: 999", "Transfer-Encoding: chunked", "X-A: b"]
)
def test_bodyless_status_body_is_ignored(
    call, script, status, framing, streams
) -> None:
    error = fails(call, script, [head(status, framing) + EVIL], streams)

    assert error["status"] == 502


@both
@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_redirects_are_not_followed(call, script, upstream, status, streams) -> None:
    elsewhere = whole(b"", status, f"Location: {upstream.url}", "Connection: close")
    error = fails(call, script, elsewhere, streams)

    assert f"{status}" in error["message"]
    assert upstream.requests == []


# Encodings


def bomb(wbits: int, size: int = 64 * 2**20) -> bytes:
    """*size* zero bytes, compressed to a few thousand."""
    packer = zlib.compressobj(9, wbits=wbits)
    zeros = bytes(2**20)
    return b"".join(packer.compress(zeros) for _ in range(size >> 20)) + packer.flush()


GZIP, ZLIB, RAW = 31, 15, -15
BOMBS = {"gzip": bomb(GZIP), "x-gzip": bomb(GZIP), "deflate": bomb(ZLIB)}
BOMBS |= {"gzip, gzip": gzip.compress(BOMBS["gzip"]), "Deflate": bomb(RAW)}
BOMBS |= {"gzip,gzip,gzip": gzip.compress(BOMBS["gzip, gzip"])}


@both
@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("coding", BOMBS)
def test_decompression_bomb_is_refused(call, script, coding, status, streams) -> None:
    """An error body is read up to its limit, and the status is kept."""
    kind = "text/event-stream" if streams else "application/json"
    headers = (f"Content-Encoding: {coding}", "Connection: close")
    answer = whole(BOMBS[coding], status, *headers, content_type=kind)
    tracemalloc.start()
    error = fails(call, script, answer, streams)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    expected = 502, "than 100000 bytes"
    if status == 500:
        expected = 500, "upstream answered 500: \ufffd"
    assert error["status"] == expected[0]
    assert expected[1] in error["message"]
    assert peak < 2**24


def test_bomb_of_empty_lines_ends_stream(call, script) -> None:
    packed = gzip.compress(b"".join(HELLO[:1]) + b"\n" * 10**7)
    answer = [head(200, STREAM, "Content-Encoding: gzip", "Connection: close"), packed]

    assert "without an event" in breaks(call, script, [*answer, close])


@both
@pytest.mark.parametrize(
    "coding", ["br", "zstd", "compress", "gzip, br", "\xff", "x" * 99]
)
def test_unrequested_encoding_is_refused(call, script, coding, streams) -> None:
    answer = [headed(f"Content-Encoding: {coding}", "Content-Length: 2"), b"{}"]
    error = fails(call, script, answer, streams)

    assert error["status"] == 502
    assert "is encoded, unasked, as" in error["message"]


def test_encoded_error_keeps_its_status(call, script) -> None:
    answer = whole(b"\x8b\x01", 429, "Content-Encoding: br", "Connection: close")

    assert fails(call, script, answer, False)["status"] == 429


@both
@pytest.mark.parametrize("lost", [0.3, 0.6, 0.9, 1])
def test_truncated_gzip_is_bad_gateway(call, script, lost, streams) -> None:
    packed = gzip.compress(HELLO[0] if streams else BODY)
    packed = packed[: round(len(packed) * (1 - lost))]
    content_type = STREAM if streams else "Content-Type: application/json"
    headers = ("Content-Encoding: gzip", "Connection: close")
    error = fails(
        call, script, [head(200, content_type, *headers), packed, close], streams
    )

    assert error["status"] == 502


def test_truncated_gzip_ends_stream_in_error(call, script) -> None:
    packer = zlib.compressobj(wbits=GZIP)
    packed = packer.compress(HELLO[0] + HELLO[1]) + packer.flush(zlib.Z_SYNC_FLUSH)
    answer = [head(200, STREAM, "Content-Encoding: gzip", "Connection: close"), packed]

    breaks(call, script, [*answer, close])


# Contents


def saying(text: bytes) -> bytes:
    """A frame or an answer whose text consists of these bytes."""
    return BODY.replace(b"good", text)


NO_JSON: dict[str, bytes] = {
    "html": b"<!doctype html><title>Sign in</title>",
    "binary": bytes(range(256)),
    "NUL": b"\0" * 999,
    "NUL in a text": saying(b"a\0b"),
    "UTF-16": BODY.decode().encode("utf-16"),
    "deep": b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep and open": b"[" * 90_000,
    "deep objects": b'{"a":' * 15_000 + b"1" + b"}" * 15_000,
    "two documents": BODY + BODY,
    "half a document": BODY[:-1],
}


@both
@pytest.mark.parametrize("name", NO_JSON)
def test_malformed_json_is_bad_gateway(call, script, name, streams) -> None:
    answer = whole(NO_JSON[name], 200, "Connection: close")
    error = fails(call, script, answer, streams, max_answer_bytes=10**6)

    assert error["status"] == 502
    assert len(error["message"]) < 300 and error["message"].isprintable()


@pytest.mark.parametrize("name", NO_JSON)
def test_malformed_first_event_is_bad_gateway(call, script, name) -> None:
    document = NO_JSON[name].translate(None, b"\r\n")
    answer = closing_stream(data(document), *HELLO, DONE)
    error = fails(call, script, answer, True, max_event_bytes=10**6)

    assert error["status"] == 502


ODD_JSON: dict[str, bytes] = {
    "a huge integer": BODY.replace(b"1700000000", b"9" * 400),
    "a huge number": BODY.replace(b"1700000000", b"1e400"),
    "a huge index": BODY.replace(b'"index": 0', b'"index": 1e308'),
    "a negative index": BODY.replace(b'"index": 0', b'"index": -1'),
    "an index of text": BODY.replace(b'"index": 0', b'"index": "x"'),
    "an index that is a list": BODY.replace(b'"index": 0', b'"index": [1]'),
    "keys twice": BODY.replace(b'"index": 0', b'"index": 9, "index": 0'),
    "choices twice": b'{"choices": 5, ' + BODY[1:],
    "a text of numbers": BODY.replace(b'"good"', b"[1, 2]"),
    "a text that is an object": BODY.replace(b'"good"', b'{"a": 1}'),
    "odd log probabilities": BODY.replace(b'"logprobs": null', b'"logprobs": 7'),
    "an odd reason": BODY.replace(b'"stop"', b'{"a": [1]}'),
    "an odd id": BODY.replace(b'"cmpl-upstream"', b"[[]]"),
    "odd usage": BODY.replace(b'"prompt_tokens": 1', b'"prompt_tokens": "x"'),
    "usage beyond reason": BODY.replace(
        b'"prompt_tokens": 1', b'"prompt_tokens": 1e99'
    ),
    "negative usage": BODY.replace(b'"prompt_tokens": 1', b'"prompt_tokens": -9'),
}


@both
@pytest.mark.parametrize("name", ODD_JSON)
def test_odd_json_is_no_gateway_failure(call, script, name, streams) -> None:
    """Other tests check whether it is answered or refused."""
    assert ODD_JSON[name] != BODY
    answer = data(ODD_JSON[name]) if streams else ODD_JSON[name]
    steps = closing_stream(answer, DONE) if streams else whole(answer)
    response = call(script(steps)).complete(stream=streams)

    assert response.status_code in (200, 502)
    assert b"The gateway failed" not in response.get_data()


# Truncated recordings


def brief(text: str, finish: str | None = None) -> bytes:
    """A frame without optional fields."""
    return data({"choices": [{"text": text, "index": 0, "finish_reason": finish}]})


FRAMES = [brief("a"), brief("b", "stop")]
LENGTH = head(200, f"Content-Length: {len(BODY)}")
EXCHANGES: dict[str, tuple[bytes, bool]] = {
    "length": (LENGTH + BODY, False),
    "chunks": (
        WHOLE_CHUNKED + chunk(BODY[:50]) + chunk(BODY[50:]) + b"0\r\n\r\n",
        False,
    ),
    "closing": (head(200, "Connection: close") + BODY, False),
    "stream in chunks": (
        CHUNKED + b"".join(map(chunk, [*FRAMES, DONE])) + b"0\r\n\r\n",
        True,
    ),
    "closing stream": (
        head(200, STREAM, "Connection: close") + b"".join([*FRAMES, DONE]),
        True,
    ),
}


def is_right(response: Any) -> bool:
    """Whether it is the whole answer. If not, it has to be a well-formed error."""
    if response.status_code != 200:
        assert response.status_code == 502
        assert set(response.json["error"]) == {"message", "type", "param", "code"}
        return False
    if response.content_type == "application/json":
        assert response.get_data() == BODY
        return True
    *frames, last = events(response)
    if last != "[DONE]":
        assert last["error"]["type"] == "server_error"
        return False
    texts = [choice["text"] for each in frames for choice in each["choices"]]
    assert texts == ["a", "b"]
    return True


@pytest.mark.parametrize("by", [reset, close], ids=["reset", "close"])
@pytest.mark.parametrize("name", EXCHANGES)
def test_truncation_at_any_byte_is_detected(call, script, name, by) -> None:
    """The answer is either complete or an error."""
    exchange, streams = EXCHANGES[name]
    upstream = script(lambda _: [exchange[: len(upstream.requests) - 1], by])
    caller = call(upstream)
    right = []
    for _ in range(len(exchange) + 1):
        response = caller.complete(stream=streams)
        right.append(is_right(response))
        response.close()

    assert len(upstream.requests) == len(exchange) + 1
    assert not any(right[: exchange.index(b"\r\n\r\n")])
    assert right == sorted(right)
    assert by is reset or right[-1]
    assert upstream.wait_closed()


@pytest.mark.parametrize("cut", [1, 8, 12, 40])
@pytest.mark.parametrize("by", [reset, close], ids=["reset", "close"])
def test_partly_answered_request_is_not_retried(call, script, cut, by) -> None:
    """One byte of an answer is enough, also on a reused connection."""
    upstream = script(GOOD, [GOOD[0][:cut], 0.05, by], GOOD)
    caller = call(upstream)
    statuses = [caller.complete().status_code for _ in range(3)]

    assert statuses == [200, 502, 200]
    assert [each.connection for each in upstream.requests] == [1, 1, 2]


CHANGES = st.lists(
    st.tuples(st.integers(0, 999), st.integers(0, 9), st.binary(max_size=9)),
    min_size=1,
    max_size=3,
)


@both
@examples(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES, by=st.sampled_from([reset, close]))
def test_random_bytes_are_no_gateway_failure(
    call, script, streams, changes, by
) -> None:
    exchange = EXCHANGES["stream in chunks" if streams else "chunks"][0]
    for offset, length, bytes_ in changes:
        offset %= len(exchange)
        exchange = exchange[:offset] + bytes_ + exchange[offset + length :]
    upstream = script([exchange, by])
    response = call(upstream, **SMALL).complete(stream=streams)
    text = response.get_data()
    response.close()

    assert response.status_code != 500
    assert b"The gateway failed" not in text
    assert upstream.wait_closed()


GREENLETS = """
from gevent import monkey; monkey.patch_all()
import threading
from app.errors import UpstreamCut
from app.upstream.timeouts import Deadline, Timeouts
from app.upstream.client import HTTPClient
from app.providers import HTTPRequest
from tests.upstream import Upstream, data, stream, until_closed

upstream = Upstream([stream(data(1), until_closed)])
reply = HTTPClient(Timeouts(9, 9, 9)).send(
    HTTPRequest("POST", upstream.url, {}, b"{}"), Deadline.after(9)
)
blocks, found = reply.blocks(), []
next(blocks)

def read():
    try:
        next(blocks)
    except UpstreamCut as e:
        reply.abort()
        found.append(e)

reader = threading.Thread(target=read)
reader.start()
reply.break_off()
reader.join(5)
assert found and upstream.wait_closed()
"""


def test_greenlet_cancels_anothers_read() -> None:
    subprocess.run([sys.executable, "-c", GREENLETS], check=True, timeout=30)


def test_cancellation_spares_reused_connection(call, script) -> None:
    """A returned connection may serve another caller before the first call ends."""
    go_on = threading.Event()
    unfinished = stream(*HELLO[:2])
    slow = [GOOD[0][:40], wait_for(go_on), GOOD[0][40:]]
    upstream = script(unfinished, slow)
    caller = call(upstream)
    response = caller.complete(stream=True)
    pieces = response.iter_encoded()
    received = b""
    while b"before the completion was done" not in received:
        received += next(pieces)
    assert received.startswith(b"".join(HELLO[:2]))
    others: list[Any] = []
    other = threading.Thread(target=lambda: others.append(caller.complete()))
    other.start()
    while len(upstream.requests) < 2:
        time.sleep(0.005)
    response.close()
    go_on.set()
    other.join(5)

    assert others[0].get_data() == BODY


@pytest.mark.parametrize("text", [b"a\0b", b"a\tb", b"a\\xb"])
def test_invalid_text_ends_stream_in_error(
    call: Call, script: Any, text: bytes
) -> None:
    """Also in frames with the same form as those before them."""
    broken = data(frame("good")).replace(b"good", text)

    breaks(call, script, closing_stream(HELLO[0], broken, *HELLO[1:], DONE))
