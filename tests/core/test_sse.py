"""Server-sent events, split at any byte.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core import sse
from app.core.sse import Event, SSEDecoder
from app.errors import UpstreamCut, UpstreamProtocol
from tests.wire import answer


def decode(*blocks: bytes, limit: int = 2**24) -> list[Event]:
    decoder = SSEDecoder(limit)
    events = [event for block in blocks for event in decoder.feed(block)]
    return events + decoder.end()


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"], ids=repr)
def test_lines_end_with_cr_lf_or_crlf(end: bytes) -> None:
    lines = [
        b"event: x",
        b"data: 1",
        b"data:2",
        b": comment",
        b"",
        b"data: 3",
        b"",
        b"",
    ]

    assert decode(end.join(lines)) == [Event(b"1\n2", b"x"), Event(b"3")]


def test_one_space_after_colon_is_removed() -> None:
    assert decode(b"data:  x \n\n") == [Event(b" x ")]


def test_field_without_colon_is_empty() -> None:
    assert decode(b"data\n\n") == [Event(b"")]


def test_events_without_data_are_dropped() -> None:
    assert decode(b"retry: 3\n\n: x\n\nevent: y\n\nid: 1\n\n\n\n") == []


def test_name_ends_with_its_event() -> None:
    assert decode(b"event: a\n\ndata: 1\n\n") == [Event(b"1")]


def test_byte_order_mark_is_removed() -> None:
    assert decode(b"\xef\xbb", b"\xbfdata: 1\n\n") == [Event(b"1")]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n", b""], ids=repr)
@pytest.mark.parametrize("data", [b'{"a": 1}', b"[DONE]", b" [DONE] "], ids=repr)
def test_last_event_needs_no_blank_line(data: bytes, end: bytes) -> None:
    assert decode(b"data: 1\n\ndata: " + data + end) == [Event(b"1"), Event(data)]


@pytest.mark.parametrize("rest", [b'data: {"a": 1', b'data:{"a', b'data: "[DONE]'])
def test_line_that_is_cut_off_is_refused(rest: bytes) -> None:
    with pytest.raises(UpstreamCut):
        decode(b"data: 1\n\n" + rest)


@pytest.mark.parametrize(
    "rest",
    [b"", b"da", b"data:", b"data: ", b"data:  ", b"data: \t", b"event: a\ndata:  "]
    + [b"data: [DO", b"data:  [DON", b"data:[", b": pi", b"id"],
)
def test_rest_without_data_is_dropped(rest: bytes) -> None:
    assert decode(b"data: 1\n\n" + rest) == [Event(b"1")]


def test_event_completes_with_its_blank_line() -> None:
    decoder = SSEDecoder(limit=100)

    assert decoder.feed(b"data: 1\r\n\r") == [Event(b"1")]
    assert decoder.feed(b"\ndata: 2\n\n") == [Event(b"2")]


@pytest.mark.parametrize(
    "blocks", [[b"data: " + b"x" * 99], [b"x" * 60, b"x" * 60], [b"data: 55555\n"] * 30]
)
def test_oversized_event_is_refused(blocks: list[bytes]) -> None:
    with pytest.raises(UpstreamProtocol):
        decode(*blocks, limit=99)


@pytest.mark.parametrize("idle", [b": x\n\n", b"\n", b"event: x\n\n", b"id: 1\n"])
def test_endless_comments_are_refused(idle: bytes) -> None:
    with pytest.raises(UpstreamProtocol, match="99 bytes without an event"):
        decode(b"data: 1\n\n", *[idle] * 100, limit=99)


def test_comments_between_events_are_unlimited() -> None:
    beats = [b": x\n\n"] * 10 + [b"data: 1\n\n"]

    assert decode(*beats * 20, limit=99) == [Event(b"1")] * 20


def test_tiny_blocks_take_little_memory() -> None:
    decoder = SSEDecoder(limit=10**6)
    tracemalloc.start()
    for _ in range(50_000):
        decoder.feed(bytes(bytearray(b"xy")))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 500_000


RECORDINGS = ["ok_stream", "ok_batch2_stream", "ok_stream_logprobs", "ok_n2_stream"]


@pytest.mark.parametrize("name", RECORDINGS)
def test_recording_decodes_wherever_cut(name: str) -> None:
    _, body = answer(f"llamacpp/{name}")
    for ends in (b"\n", b"\r\n", b"\r"):
        stream = body.replace(b"\n", ends)
        whole = decode(stream)
        for cut in range(len(stream) + 1):
            assert decode(stream[:cut], stream[cut:]) == whole
        assert decode(*(stream[i : i + 1] for i in range(len(stream)))) == whole


lines = st.sampled_from(
    [b"data: a", b"data:b", b"data", b"event: e", b": c", b"id: 1", b"retry: 1", b"x"]
    + [b"", b"", "data: é🎉".encode(), b"data: {}"]
)
ends = st.sampled_from([b"\n", b"\r", b"\r\n"])


@given(st.lists(st.tuples(lines, ends)), st.lists(st.integers(0, 400)))
def test_cuts_between_bytes_never_matter(parts, cuts) -> None:
    # After a bare CR, an empty line that ends with LF would form a CRLF.
    stream = b"".join(
        line + end for line, end in parts if not (line == b"" and end == b"\n")
    )
    cuts = sorted({0, *(c for c in cuts if c < len(stream)), len(stream)})
    blocks = [stream[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]

    assert decode(*blocks) == decode(stream)


@given(st.binary(), st.lists(st.integers(0, 100)))
def test_any_bytes_decode_wherever_cut(stream: bytes, cuts: list[int]) -> None:
    cuts = sorted({0, *(c for c in cuts if c < len(stream)), len(stream)})
    blocks = [stream[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]

    assert decode(*blocks) == decode(stream)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_encoded_event_decodes_to_itself(text: str) -> None:
    (event,) = decode(sse.encode(json.dumps(text, ensure_ascii=False).encode()))

    assert json.loads(event.data) == text


@given(st.text(st.sampled_from('a–é😀\x85\u2028\u2029\x0b\x0c\x1c\x1d\x1e\r\n"\\')))
def test_encoded_event_is_one_line_everywhere(text: str) -> None:
    """Also for clients that split at all that Python takes for the end of a line."""
    encoded = sse.encode(json.dumps(text, ensure_ascii=False).encode())
    first, *others = encoded.decode().splitlines()

    assert json.loads(first.removeprefix("data: ")) == text
    assert others == [""]


def test_multi_line_data_encodes_as_one() -> None:
    assert sse.encode(b'{"a":\n1}') == b'data: {"a":1}\n\n'


PIECES = [b"data: 1\n\n", b"data: 22\n\n", b"data:3\n\n", b"\n", b"\n\n", b"data: "]
PIECES += [b": c\n\n", b"event: e\n", b"data: 4\n", b"data: 5\r\n\r\n", b"\r", b"x"]


@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=4).map(b"".join)))
def test_plain_block_equals_line_reading(blocks: list[bytes]) -> None:
    decoder = SSEDecoder(2**20)
    by_lines = [event for block in blocks for event in decoder._feed_lines(block)]

    by_blocks = SSEDecoder(2**20)
    assert [event for block in blocks for event in by_blocks.feed(block)] == by_lines
