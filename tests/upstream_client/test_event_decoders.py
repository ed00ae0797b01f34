"""Streams in other formats than server-sent events: split, broken, endless."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.sse import Event
from app.errors import UpstreamCut, UpstreamProtocol
from app.upstream.event_decoders import event_decoder
from tests.wire.frames import frame

NDJSON, AMAZON = "application/x-ndjson", "application/vnd.amazon.eventstream"
FRAMES = [
    frame({"event": "messageStart", "payload": {"role": "assistant"}}),
    frame({"event": "chunk", "payload": {"json": {"text": "–"}}}),
    frame({"exception": "throttlingException", "payload": {"message": "slow down"}}),
]


def decoded(content_type: str, blocks: Iterable[bytes], limit: int = 999) -> Any:
    decoder = event_decoder(content_type, limit)
    assert decoder
    events = [event for block in blocks for event in decoder.feed(block)]
    return events + decoder.end()


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


def test_json_document_has_no_decoder() -> None:
    assert event_decoder("application/json", 9) is None
    assert event_decoder("", 9) is None
