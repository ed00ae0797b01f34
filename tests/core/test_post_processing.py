"""What the gateway adds to and takes from an answer: against short models."""

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core import post_processing
from app.core.completion import Choice, Completion, Logprobs, Usage
from app.core.post_processing import SILENT, PostProcessing, shaped, whole
from app.errors import UpstreamCut, UpstreamProtocol

TEXTS = st.text("ab\n–", max_size=12)
STOPS = st.lists(st.text("ab\n–", min_size=1, max_size=4), max_size=3)


def piece(
    text: str = "", reason: str | None = None, index: int = 0, **changes: Any
) -> Completion:
    logprobs = changes.pop("logprobs", None)
    choices = (Choice(text, index, logprobs, reason),)
    return Completion("cmpl-1", 1, "m", choices, **changes)


def cut(text: str, places: Sequence[int]) -> list[Completion]:
    """*text* as a stream, cut at *places*, and its end."""
    bounds = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    pairs = zip(bounds, bounds[1:], strict=False)
    return [*(piece(text[a:b]) for a, b in pairs), piece("", "length")]


def texts(pieces: Sequence[Completion]) -> str:
    return "".join(choice.text for p in pieces for choice in p.choices)


def stopped(text: str, stops: Sequence[str]) -> str:
    """*text*, read letter by letter, up to the first stop sequence that is complete."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))]
    return text


# Stop sequences


@given(TEXTS, STOPS, st.lists(st.integers(0, 12), max_size=6))
def test_a_text_ends_before_the_first_stop_however_it_is_cut(
    text: str, stops: list[str], places: list[int]
) -> None:
    pieces = list(shaped(cut(text, places), PostProcessing(stops=stops)))
    expected = stopped(text, stops)

    assert texts(pieces) == expected
    reasons = [c.finish_reason for p in pieces for c in p.choices if c.finish_reason]
    was_cut = any(stop in text for stop in stops)
    assert reasons == ["stop" if was_cut else "length"]
    assert (
        texts([whole(piece(text, "length"), PostProcessing(stops=stops))]) == expected
    )


@given(TEXTS, STOPS, st.lists(st.integers(0, 12), max_size=6))
def test_no_part_of_a_stop_leaks_and_nothing_else_is_held_back(
    text: str, stops: list[str], places: list[int]
) -> None:
    """After each piece all is said but what may be the beginning of a stop."""
    given_, said = "", ""
    stream = cut(text, places)[:-1]

    def feed() -> Any:
        nonlocal given_
        for next_piece in stream:
            given_ += next_piece.choices[0].text
            yield next_piece

    source = shaped(feed(), PostProcessing(stops=stops))
    try:
        for made in source:
            said += texts([made])
            doubt = max((len(stop) - 1 for stop in stops), default=0)
            assert stopped(given_, stops).startswith(said)
            assert len(said) >= len(stopped(given_, stops)) - doubt
    except UpstreamCut:
        pass  # This stream has no end, unless a stop is one.


def test_a_stop_ends_the_reading_of_its_upstream() -> None:
    read = []

    def endless() -> Any:
        while True:
            read.append(1)
            yield piece("ab")

    pieces = list(shaped(endless(), PostProcessing(stops=["ba"])))

    assert texts(pieces) == "a" and len(read) == 2
    assert pieces[-1].usage == Usage(0, 1, estimated=True)


# Echo, budgets, log probabilities


@given(TEXTS, TEXTS, st.lists(st.integers(0, 12), max_size=3))
def test_an_echo_comes_once_and_first(
    prompt: str, text: str, places: list[int]
) -> None:
    pieces = list(shaped(cut(text, places), PostProcessing(prompt=prompt, echo=True)))

    assert texts(pieces) == prompt + text
    assert pieces[0].choices[0].text.startswith(prompt)


def test_no_budget_means_no_token_though_one_was_made() -> None:
    shape = PostProcessing(prompt="p", echo=True, nothing=True)
    made = whole(piece("x", "stop", usage=Usage(1, 1)), shape)

    (choice,) = made.choices
    assert (choice.text, choice.finish_reason) == ("p", "length")
    assert made.usage == Usage(1, 0)


def tokens(*texts: str, start: int) -> Logprobs:
    offsets, at = [], start
    for text in texts:
        offsets.append(at)
        at += len(text)
    return Logprobs(texts, [-0.5] * len(texts), [{}] * len(texts), offsets)


def test_the_tokens_are_those_of_the_text_that_was_said() -> None:
    shape = PostProcessing(prompt="Hi", stops=["END"], logprobs=True)
    stream = [
        piece("a E", logprobs=tokens("a", " E", start=2)),
        piece("ND of", logprobs=tokens("ND", " of", start=5)),
        piece("", "stop"),
    ]
    pieces = list(shaped(stream, shape))
    said = [c.logprobs for p in pieces for c in p.choices if c.logprobs]
    together = sum(said, Logprobs())

    assert texts(pieces) == "a "
    assert together.tokens == ["a", " E"] and together.text_offset == [2, 3]


def test_log_probabilities_that_do_not_come_are_an_error() -> None:
    with pytest.raises(UpstreamProtocol, match="log probabilities"):
        list(shaped([piece("text", "stop")], PostProcessing(logprobs=True)))

    empty = whole(piece("", "stop"), PostProcessing(logprobs=True))
    assert empty.choices[0].logprobs == Logprobs()


# Several choices


def test_every_choice_has_to_end() -> None:
    both = [piece("a", "stop", 0), piece("b", None, 1)]

    with pytest.raises(UpstreamCut):
        list(shaped(both, PostProcessing(count=2)))
    with pytest.raises(UpstreamCut):
        list(shaped(both[:1], PostProcessing(count=2)))
    with pytest.raises(UpstreamCut):
        list(shaped([], PostProcessing()))


def test_a_choice_that_nobody_asked_for_is_an_error() -> None:
    with pytest.raises(UpstreamCut):
        list(
            shaped(
                [piece("a", "stop", 0), piece("b", "stop", 1)], PostProcessing(count=1)
            )
        )


def test_each_choice_is_cut_for_itself() -> None:
    stream = [piece("a|", None, 0), piece("b", None, 1), piece("c", "stop", 1)]
    pieces = list(shaped(stream, PostProcessing(count=2, stops=["|"])))

    assert texts([p for p in pieces if p.choices and p.choices[0].index == 0]) == "a"
    assert texts([p for p in pieces if p.choices and p.choices[0].index == 1]) == "bc"


def test_what_comes_after_an_end_is_dropped() -> None:
    pieces = list(shaped([piece("a", "stop"), piece("b", "stop")], PostProcessing()))

    assert texts(pieces) == "a"


# Silence


def test_a_budget_that_went_to_thoughts_is_told() -> None:
    silent = whole(piece("", "length"), PostProcessing(may_reason=True))
    said = whole(piece("x", "length"), PostProcessing(may_reason=True))

    assert (silent.warnings, said.warnings) == ((SILENT,), ())
    assert silent.choices[0].finish_reason == "length"


# Usage


def test_usage_comes_last_and_is_estimated_where_nobody_counts() -> None:
    *before, last = shaped(
        [piece("four", usage=None), piece("", "stop")], PostProcessing("abc")
    )

    assert {p.usage for p in before} == {None}
    assert last.choices == () and last.usage == Usage(1, 1, estimated=True)


def test_the_last_count_of_a_stream_is_the_right_one() -> None:
    stream = [piece("a", usage=Usage(5, 1)), piece("b", "stop", usage=Usage(5, 2))]

    assert list(shaped(stream, PostProcessing()))[-1].usage == Usage(5, 2)


# What is passed on as it is

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
    nothing=st.booleans(),
    may_reason=st.booleans(),
)


def outcome(pieces: Sequence[Completion], shape: PostProcessing) -> list[Any]:
    """What comes of them, and what it ends with."""
    came: list[Any] = []
    try:
        came += shaped(pieces, shape)
    except UpstreamCut as e:
        came.append(str(e))
    return came


@given(st.lists(PIECES, max_size=8), SHAPES)
def test_what_is_passed_on_as_it_is_would_have_been_made_the_same(
    pieces: list[Completion], shape: PostProcessing
) -> None:
    slowly = {"_is_plain": lambda *_: False}
    with (
        patch.multiple(post_processing._Running, **slowly),
        patch.object(Completion, "is_piece", lambda *_: False),
    ):
        made = outcome(pieces, shape)

    assert outcome(pieces, shape) == made
