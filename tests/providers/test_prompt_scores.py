"""Scores of a prompt: all of them, however an engine writes its tokens."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.completion import Usage
from app.errors import UpstreamProtocol
from app.providers.protocols.choice_logprobs import PromptScores

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
CUTS = st.lists(st.integers(0, 80), max_size=20)


def escaped(token: bytes) -> str:
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)


# How engines write a token that is no text: llama-cpp-python, vLLM, OpenAI.
WRITE: dict[str, Callable[[bytes], str]] = {
    "ignored": lambda token: token.decode("utf-8", "ignore"),
    "replaced": lambda token: token.decode("utf-8", "replace"),
    "escaped": escaped,
}


def cut(text: str, cuts: Sequence[int]) -> list[bytes]:
    """The bytes of *text* as tokens, cut anywhere."""
    data = text.encode()
    bounds = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return [data[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]


def offsets_of(tokens: Sequence[bytes], written: Sequence[str], how: str) -> Any:
    if how == "of bytes":
        starts = [b"".join(tokens[:i]) for i in range(len(tokens))]
        return [len(start.decode("utf-8", "ignore")) for start in starts]
    return [len("".join(written[:i])) for i in range(len(written))]


HOW = st.sampled_from(["of bytes", "added up", "none"])


def shown_missing(
    prompt: Any, text: str, tokens: Any, offsets: Any, usage: Usage | None = None
) -> bool:
    scores = PromptScores(prompt)
    try:
        scores.add(text, {"tokens": tokens, "text_offset": offsets})
    except UpstreamProtocol:
        return True
    return scores.are_missing(usage)


@given(TEXTS, TEXTS, CUTS, CUTS, st.sampled_from(list(WRITE)), HOW, st.booleans())
def test_complete_scores_are_never_refused(
    prompt: str,
    answer: str,
    prompt_cuts: list[int],
    answer_cuts: list[int],
    style: str,
    how: str,
    is_counted: bool,
) -> None:
    of_prompt, of_answer = cut(prompt, prompt_cuts), cut(answer, answer_cuts)
    tokens = of_prompt + of_answer
    written = list(map(WRITE[style], tokens))
    offsets = [] if how == "none" else offsets_of(tokens, written, how)
    usage = Usage(len(of_prompt), len(of_answer)) if is_counted else None

    assert not shown_missing(prompt, prompt + answer, written, offsets, usage)
    ids = list(range(len(of_prompt)))
    assert not shown_missing(ids, prompt + answer, written, offsets, usage)


@given(TEXTS, TEXTS, CUTS, st.sampled_from(list(WRITE)))
def test_answer_behind_the_prompt_is_refused(
    prompt: str, answer: str, cuts: list[int], style: str
) -> None:
    tokens = cut(answer, cuts)
    written = list(map(WRITE[style], tokens))
    start = len(prompt)
    offsets = [start + each for each in offsets_of(tokens, written, "of bytes")]
    # An answer that repeats the prompt cannot be told from an echo by its text.
    if not answer.startswith(prompt):
        assert shown_missing(prompt, answer, written, offsets)


@given(st.text("abc ", min_size=1), TEXTS.filter(str.strip))
def test_text_without_the_prompt_is_refused(prompt: str, answer: str) -> None:
    tokens = [answer]
    prompt += "?"
    if "".join(prompt.split()) not in "".join(answer.split()):
        assert shown_missing(prompt, answer, tokens, [])


@pytest.mark.parametrize(
    "kept, is_missing", [(0, True), (1, True), (2, True), (3, False), (4, False)]
)
def test_first_tokens_of_the_prompt_are_not_enough(kept: int, is_missing: bool) -> None:
    tokens = ["One", " two", " three", "!"][:kept]

    assert shown_missing("One two three", "One two three!", tokens, []) is is_missing
