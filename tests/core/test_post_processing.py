"""Post-processing of answers, compared with simple models."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.completion import Choice, Completion, Logprobs, Usage
from app.core.post_processing import NO_TEXT, PostProcessing, PostProcessor, whole
from app.errors import UpstreamCut, UpstreamProtocol

TEXTS = st.text("ab\n–", max_size=12)
STOPS = st.lists(st.text("ab\n–", min_size=1, max_size=4), max_size=3)


def piece(
    text: str = "", reason: str | None = None, index: int = 0, **changes: Any
) -> Completion:
    logprobs = changes.pop("logprobs", None)
    choices = (Choice(text, index, logprobs, reason),)
    return Completion("cmpl-1", 1, "m", choices, **changes)


def cut(text: str, positions: Sequence[int]) -> list[Completion]:
    """*text* as a stream cut at *positions*, with its end."""
    bounds = [0, *sorted(p % (len(text) + 1) for p in positions), len(text)]
    pairs = zip(bounds, bounds[1:], strict=False)
    return [*(piece(text[a:b]) for a, b in pairs), piece("", "length")]


def process(
    pieces: Iterable[Completion], shape: PostProcessing
) -> Iterator[Completion]:
    """The chunks that *pieces* become, processed as in the gateway."""
    processor = PostProcessor(shape)
    for next_piece in pieces:
        yield from processor.feed(next_piece)
        if processor.finished:
            break
    yield from processor.end()


def texts(pieces: Sequence[Completion]) -> str:
    return "".join(choice.text for p in pieces for choice in p.choices)


def stopped(text: str, stops: Sequence[str]) -> str:
    """*text*, read character by character, up to the first complete stop sequence."""
    for end in range(len(text) + 1):
        matches = [stop for stop in stops if text[:end].endswith(stop)]
        if matches:
            return text[: end - max(map(len, matches))]
    return text


# Stop sequences


@given(TEXTS, STOPS, st.lists(st.integers(0, 12), max_size=6))
def test_text_ends_before_first_stop(
    text: str, stops: list[str], positions: list[int]
) -> None:
    pieces = list(process(cut(text, positions), PostProcessing(stops=stops)))
    expected = stopped(text, stops)

    assert texts(pieces) == expected
    reasons = [c.finish_reason for p in pieces for c in p.choices if c.finish_reason]
    was_cut = any(stop in text for stop in stops)
    assert reasons == ["stop" if was_cut else "length"]
    assert (
        texts([whole(piece(text, "length"), PostProcessing(stops=stops))]) == expected
    )


@given(TEXTS, STOPS, st.lists(st.integers(0, 12), max_size=6))
def test_only_possible_stops_are_held(
    text: str, stops: list[str], positions: list[int]
) -> None:
    """After each chunk only a possible beginning of a stop sequence is held back."""
    processor = PostProcessor(PostProcessing(stops=stops))
    doubt = max((len(stop) - 1 for stop in stops), default=0)
    received = released = ""
    for next_piece in cut(text, positions)[:-1]:
        received += next_piece.choices[0].text
        released += texts(processor.feed(next_piece))

        assert stopped(received, stops).startswith(released)
        assert len(released) >= len(stopped(received, stops)) - doubt


def test_stop_sequence_finishes_processing() -> None:
    """Nothing more is needed from the upstream, and later chunks are ignored."""
    processor = PostProcessor(PostProcessing(stops=["ba"]))
    finished, chunks = [], []
    for _ in range(3):
        chunks += processor.feed(piece("ab"))
        finished.append(processor.finished)
    (last,) = processor.end()

    assert finished == [False, True, True]
    assert texts(chunks) == "a"
    assert last.usage == Usage(0, 1, estimated=True)


# Echo, budgets, log probabilities


@given(TEXTS, TEXTS, st.lists(st.integers(0, 12), max_size=3))
def test_echo_comes_once_and_first(
    prompt: str, text: str, positions: list[int]
) -> None:
    pieces = list(
        process(cut(text, positions), PostProcessing(prompt=prompt, echo=True))
    )

    assert texts(pieces) == prompt + text
    assert pieces[0].choices[0].text.startswith(prompt)


def test_zero_budget_suppresses_text() -> None:
    shape = PostProcessing(prompt="p", echo=True, suppress_text=True)
    answer = whole(piece("x", "stop", usage=Usage(1, 1)), shape)

    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason) == ("p", "length")
    assert answer.usage == Usage(1, 0)


def tokens(*texts: str, start: int) -> Logprobs:
    offsets, offset = [], start
    for text in texts:
        offsets.append(offset)
        offset += len(text)
    return Logprobs(texts, [-0.5] * len(texts), [{}] * len(texts), offsets)


def test_logprobs_match_released_text() -> None:
    shape = PostProcessing(prompt="Hi", stops=["END"], logprobs=True)
    stream = [
        piece("a E", logprobs=tokens("a", " E", start=2)),
        piece("ND of", logprobs=tokens("ND", " of", start=5)),
        piece("", "stop"),
    ]
    pieces = list(process(stream, shape))
    released = [c.logprobs for p in pieces for c in p.choices if c.logprobs]
    together = sum(released, Logprobs())

    assert texts(pieces) == "a "
    assert together.tokens == ["a", " E"] and together.text_offset == [2, 3]


def test_missing_logprobs_are_an_error() -> None:
    with pytest.raises(UpstreamProtocol, match="log probabilities"):
        list(process([piece("text", "stop")], PostProcessing(logprobs=True)))

    empty = whole(piece("", "stop"), PostProcessing(logprobs=True))
    assert empty.choices[0].logprobs == Logprobs()


# Several choices


def test_every_choice_must_end() -> None:
    both = [piece("a", "stop", 0), piece("b", None, 1)]

    with pytest.raises(UpstreamCut):
        list(process(both, PostProcessing(count=2)))
    with pytest.raises(UpstreamCut):
        list(process(both[:1], PostProcessing(count=2)))
    with pytest.raises(UpstreamCut):
        list(process([], PostProcessing()))


def test_surplus_choice_is_an_error() -> None:
    with pytest.raises(UpstreamCut):
        list(
            process(
                [piece("a", "stop", 0), piece("b", "stop", 1)], PostProcessing(count=1)
            )
        )


def test_choices_stop_independently() -> None:
    stream = [piece("a|", None, 0), piece("b", None, 1), piece("c", "stop", 1)]
    pieces = list(process(stream, PostProcessing(count=2, stops=["|"])))

    assert texts([p for p in pieces if p.choices and p.choices[0].index == 0]) == "a"
    assert texts([p for p in pieces if p.choices and p.choices[0].index == 1]) == "bc"


def test_text_after_end_is_dropped() -> None:
    pieces = list(process([piece("a", "stop"), piece("b", "stop")], PostProcessing()))

    assert texts(pieces) == "a"


# Chunks without text


def test_budget_spent_on_reasoning_warns() -> None:
    silent = whole(piece("", "length"), PostProcessing(may_reason=True))
    visible = whole(piece("x", "length"), PostProcessing(may_reason=True))

    assert (silent.warnings, visible.warnings) == ((NO_TEXT,), ())
    assert silent.choices[0].finish_reason == "length"


# Usage


def test_missing_usage_is_estimated() -> None:
    *before, last = process(
        [piece("four", usage=None), piece("", "stop")], PostProcessing("abc")
    )

    assert {p.usage for p in before} == {None}
    assert last.choices == () and last.usage == Usage(1, 1, estimated=True)


def test_last_usage_of_stream_counts() -> None:
    stream = [piece("a", usage=Usage(5, 1)), piece("b", "stop", usage=Usage(5, 2))]

    assert list(process(stream, PostProcessing()))[-1].usage == Usage(5, 2)


# Chunks that are passed on unchanged

LOGPROBS = Logprobs(("a",), (-0.5,), ({"a": -0.5},), (0,))
PIECES = st.builds(
    piece,
    TEXTS,
    st.sampled_from([None, None, None, "stop", "length"]),
    st.integers(0, 1),
    logprobs=st.sampled_from([None, None, LOGPROBS]),
    usage=st.sampled_from([None, None, Usage(3, 2)]),
    warnings=st.sampled_from([(), (), ("odd",)]),
)
SHAPES = st.builds(
    PostProcessing,
    prompt=TEXTS,
    count=st.just(2),
    echo=st.booleans(),
    stops=st.one_of(st.just([]), STOPS),
    suppress_text=st.booleans(),
    may_reason=st.booleans(),
)


def outcome(pieces: Sequence[Completion], shape: PostProcessing) -> list[Any]:
    """The chunks, and the error that ends them, if any."""
    chunks: list[Any] = []
    try:
        chunks += process(pieces, shape)
    except UpstreamCut as e:
        chunks.append(str(e))
    return chunks


@given(st.lists(PIECES, max_size=8), SHAPES)
def test_unchanged_chunks_equal_rebuilt_ones(
    pieces: list[Completion], shape: PostProcessing
) -> None:
    """With and without the shortcut for chunks that can pass as they are."""
    with patch.object(PostProcessor, "_pass_plain_text", lambda *_: False):
        rebuilt = outcome(pieces, shape)

    assert outcome(pieces, shape) == rebuilt
