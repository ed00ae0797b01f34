"""Streams in other formats than server-sent events: split, broken, endless."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.sse import Event
from app.errors import UpstreamCut, UpstreamProtocol
from app.upstream.client import ByteBudget
from app.upstream.event_decoders import StreamDecoder, events_in_whole
from tests.wire.frames import frame

NDJSON, AMAZON = "application/x-ndjson", "application/vnd.amazon.eventstream"
FRAMES = [
    frame({"event": "messageStart", "payload": {"role": "assistant"}}),
    frame({"event": "chunk", "payload": {"json": {"text": "–"}}}),
    frame({"exception": "throttlingException", "payload": {"message": "slow down"}}),
]


def decoded(content_type: str, blocks: Iterable[bytes], limit: int = 999) -> Any:
    decoder = StreamDecoder(content_type, limit, ByteBudget(limit))
    events = [event for block in blocks for event in decoder.feed(block)]
    return events + decoder.end()


def is_document(content_type: str, *blocks: bytes) -> bool:
    decoder = StreamDecoder(content_type, 999, ByteBudget(999))
    for block in blocks:
        decoder.feed(block)
    decoder.end()
    return decoder.is_document


def pieces(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(p % (len(data) + 1) for p in places), len(data)]
    return [data[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]


@given(st.lists(st.integers(0, 999), max_size=9))
def test_aws_frames_survive_any_cut(places: list[int]) -> None:
    events = decoded(AMAZON, pieces(b"".join(FRAMES), places))

    assert [event.name for event in events] == [
        b"messageStart",
        b"chunk",
        b"throttlingException",
    ]
    assert events[0].data == b'{"role": "assistant"}'


@pytest.mark.parametrize("position", [0, 9, 20, -1])
def test_wrong_frame_checksum_is_upstream_error(position: int) -> None:
    broken = bytearray(FRAMES[0])
    broken[position] ^= 1

    with pytest.raises(UpstreamProtocol):
        decoded(AMAZON, [bytes(broken), *FRAMES[1:]])


@given(st.integers(1, len(FRAMES[1]) - 1))
def test_half_a_frame_at_the_end_is_a_cut(length: int) -> None:
    with pytest.raises(UpstreamCut):
        decoded(AMAZON, [FRAMES[0] + FRAMES[1][:length]])


def test_huge_frame_length_is_refused() -> None:
    with pytest.raises(UpstreamProtocol):
        decoded(AMAZON, [b"\x7f\xff\xff\xff" + b"\0" * 64])


def test_frame_over_limit_is_refused() -> None:
    long = frame({"event": "chunk", "payload": {"text": "x" * 2000}})

    with pytest.raises(UpstreamProtocol):
        decoded(AMAZON, pieces(long, list(range(0, 2000, 100))))


@given(st.lists(st.integers(0, 99), max_size=9))
def test_lines_survive_any_cut(places: list[int]) -> None:
    lines = '{"a": "–"}\n\n{"b": 2}\r\n{"c": 3}'.encode()
    events = decoded(NDJSON + "; charset=utf-8", pieces(lines, places))

    assert [event.data.strip() for event in events] == [
        '{"a": "–"}'.encode(),
        b'{"b": 2}',
        b'{"c": 3}',
    ]
    assert all(isinstance(event, Event) for event in events)


def test_endless_line_is_refused() -> None:
    with pytest.raises(UpstreamProtocol, match="longer than 999 bytes"):
        decoded(NDJSON, [b"x" * 500] * 3)


SSE = "text/event-stream"
TYPES = ["", "application/json", "text/plain", "Text/Event-Stream", SSE, NDJSON]
EVENTS = b'\n: hi\n\nevent: x\ndata: {"a": 1}\n\ndata: [DONE]\n\n'
LINES = b'\n{"a": 1}\n\n{"b": {"NaN": NaN}}\n'
PRETTY = b'\xef\xbb\xbf{\n "a": [\n  {},\n  {}\n ]\n}\n'
ONE_LINE = b'{"a": 1}\n\n'
ARRAY = b'[{"a": 1},\n{"b": 2}]'
HTML = b"<html>\n{}\n{}\n"
CUTS = st.lists(st.integers(0, 99), max_size=6)
EVERY_TYPE = pytest.mark.parametrize("content_type", TYPES)


@EVERY_TYPE
@given(CUTS)
def test_start_of_body_decides(content_type: str, places: list[int]) -> None:
    read = [
        [event.data.strip() for event in decoded(content_type, pieces(body, places))]
        for body in (EVENTS, LINES, ARRAY)
    ]

    assert read == [
        [b'{"a": 1}', b"[DONE]"],
        [b'{"a": 1}', b'{"b": {"NaN": NaN}}'],
        [b'{"a":1}', b'{"b":2}'],
    ]


@EVERY_TYPE
@given(CUTS, st.text(" \r\n", max_size=5))
def test_blank_space_behind_a_mark_means_nothing(
    content_type: str, places: list[int], blanks: str
) -> None:
    for body in (EVENTS, LINES):
        plain = [event.data.strip() for event in decoded(content_type, [body])]
        start = b"\xef\xbb\xbf" + blanks.encode()
        read = decoded(content_type, pieces(start + body, places))

        assert [event.data.strip() for event in read] == plain


@EVERY_TYPE
@pytest.mark.parametrize("body", [PRETTY, ONE_LINE, HTML, b'{"a":', b"[1, 2]", b"[{}"])
@given(CUTS)
def test_document_is_one_event(
    content_type: str, body: bytes, places: list[int]
) -> None:
    if content_type == NDJSON and body == ONE_LINE:
        return
    (event,) = decoded(content_type, pieces(body, places))

    # A byte order mark is none of its text.
    assert event.data == body.removeprefix(b"\xef\xbb\xbf")
    assert is_document(content_type, *pieces(body, places))


@pytest.mark.parametrize("content_type", [SSE, NDJSON, AMAZON])
def test_right_type_is_never_a_document(content_type: str) -> None:
    body = {SSE: EVENTS, NDJSON: LINES, AMAZON: b"".join(FRAMES)}[content_type]

    assert not is_document(content_type)
    assert not is_document(content_type, body)


@pytest.mark.parametrize("body", [b"{" + b" " * 2000, b"{\n" * 1000, b"[" * 2000])
@pytest.mark.parametrize("content_type", TYPES)
def test_document_over_budget_is_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(UpstreamProtocol, match="longer than 999 bytes"):
        decoded(content_type, pieces(body, list(range(0, 2000, 100))))


def test_line_over_limit_is_no_line() -> None:
    body = b'{"a": "%b"}\n{}\n' % (b"x" * 50)
    decoder = StreamDecoder("", 40, ByteBudget(999))

    assert decoder.feed(body) == [] and decoder.end() == [Event(body)]


@pytest.mark.parametrize("body", [EVENTS, LINES], ids=["events", "lines"])
def test_whole_body_with_events_has_them(body: bytes) -> None:
    found = events_in_whole(body, "application/json", 999)

    assert found and len(found) == 2


@pytest.mark.parametrize("body", [b"", PRETTY, ONE_LINE, ARRAY, HTML, b"data", b"{\n"])
def test_whole_document_has_no_events(body: bytes) -> None:
    assert events_in_whole(body, "text/event-stream", 999) is None
