"""Splitting prompts x n into calls, and merging their answers and streams."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core import batch
from app.core.batch import StreamMerger
from app.core.completion import Choice, Completion, Logprobs, Usage
from app.core.request import CompletionRequest
from app.errors import UpstreamCut


def make_request(prompt: Any = "p", **params: Any) -> CompletionRequest:
    return CompletionRequest("m", prompt, params)


def make_answer(text: str, *, prompt_tokens: int = 3, mean: float = 0) -> Completion:
    choice = Choice(text, 0, Logprobs(("t",), (mean,), ({},), (0,)), "stop")
    return Completion(f"cmpl-{text}", 1, "m", (choice,), Usage(prompt_tokens, 2))


def test_parts_are_prompt_major() -> None:
    parts = batch.split(make_request(["a", "b"], n=2, best_of=2, max_tokens=5))

    numbers = [(part.request.prompt, part.prompt, part.sample) for part in parts]
    assert numbers == [("a", 0, 0), ("a", 0, 1), ("b", 1, 0), ("b", 1, 1)]
    assert all(part.request.params == {"max_tokens": 5} for part in parts)


def test_token_ids_are_one_prompt() -> None:
    assert [p.request.prompt for p in batch.split(make_request([1, 2]))] == [[1, 2]]
    assert [p.request.prompt for p in batch.split(make_request([[1], [2]]))] == [
        [1],
        [2],
    ]


def test_samples_get_different_seeds() -> None:
    """The first sample keeps the seed; the sum wraps at 64 bits."""
    parts = batch.split(make_request(["a", "b"], n=2, seed=2**63 - 1))

    seeds = [part.request.params["seed"] for part in parts]
    assert seeds == [2**63 - 1, -(2**63), 2**63 - 1, -(2**63)]


def test_choices_are_numbered_in_order() -> None:
    request = make_request(["a", "b"], n=2)
    parts = batch.split(request)
    joined = batch.join(request, parts, [make_answer(t) for t in "wxyz"])

    assert [(c.index, c.text) for c in joined.choices] == list(enumerate("wxyz"))
    assert joined.id == "cmpl-w"


def test_usage_counts_each_prompt_once() -> None:
    """And every generated token; prompts sent again are counted apart."""
    request = make_request(["a", "b"], n=2)
    answers = [
        make_answer(t, prompt_tokens=s)
        for t, s in zip("wxyz", (31, 31, 18, 18), strict=True)
    ]
    joined = batch.join(request, batch.split(request), answers)

    assert joined.usage == Usage(49, 8, repeated_tokens=49)


def test_best_of_keeps_the_likeliest() -> None:
    """And usage counts all samples."""
    request = make_request(["a", "b"], n=1, best_of=3)
    parts = batch.split(request)
    means = (-3, -1, -2, -0.5, -5, -4)
    answers = [make_answer(str(m), mean=m) for m in means]
    joined = batch.join(request, parts, answers)

    assert [c.text for c in joined.choices] == ["-1", "-0.5"]
    assert [c.index for c in joined.choices] == [0, 1]
    assert joined.usage == Usage(6, 12, repeated_tokens=12)
    assert all(part.request.params == {"logprobs": 0} for part in parts)


def test_ranking_logprobs_are_not_returned() -> None:
    hidden, shown = make_request(best_of=2), make_request(best_of=2, logprobs=1)
    answers = [make_answer("a"), make_answer("b")]

    def joined(request: CompletionRequest) -> Completion:
        return batch.join(request, batch.split(request), answers)

    assert joined(hidden).choices[0].logprobs is None
    assert joined(shown).choices[0].logprobs is not None


def test_choice_without_tokens_ranks_last() -> None:
    request = make_request(best_of=2)
    empty = Completion("i", 1, "m", (Choice("", 0, Logprobs(), "stop"),))
    joined = batch.join(
        request, batch.split(request), [empty, make_answer("x", mean=-99)]
    )

    assert joined.choices[0].text == "x"


def chunks_of(text: str, prompt_tokens: int) -> list[Completion]:
    chunks = [Completion("i", 1, "m", (Choice(letter),)) for letter in text]
    usage = Usage(prompt_tokens, len(text))
    return [*chunks, Completion("i", 1, "m", (Choice("", 0, None, "stop"),), usage)]


@given(
    st.integers(1, 3),
    st.lists(st.text("abc", max_size=4), min_size=1, max_size=3),
    st.randoms(use_true_random=False),
)
def test_merged_stream_equals_its_parts(n, texts, random) -> None:
    """However the chunks of the parts interleave."""
    request = make_request(texts, n=n)
    parts = batch.split(request)
    waiting = [
        (i, chunks_of(texts[p.prompt], p.prompt + 1)) for i, p in enumerate(parts)
    ]
    merger, merged = StreamMerger(request, parts), []
    while waiting:
        i, chunks = random.choice(waiting)
        merged += merger.feed(i, [chunks.pop(0)])
        if not chunks:
            merger.end_part(i)
        waiting = [(j, rest) for j, rest in waiting if rest]
    (last,) = merger.end()

    merged_texts = {index: "" for index in range(len(parts))}
    for chunk in merged:
        merged_texts[chunk.choices[0].index] += chunk.choices[0].text
    assert merged_texts == {i: texts[i // n] for i in range(len(parts))}
    ends = [c.choices[0].index for c in merged if c.choices[0].finish_reason]
    assert sorted(ends) == list(range(len(parts)))
    prompt_tokens = sum(range(1, len(texts) + 1))
    completion_tokens = n * sum(map(len, texts))
    repeated_tokens = (n - 1) * prompt_tokens
    assert last.usage == Usage(
        prompt_tokens, completion_tokens, repeated_tokens=repeated_tokens
    )
    assert (last.choices, {c.usage for c in merged}) == ((), {None})


def test_merged_chunks_share_id_and_model() -> None:
    """Those of the very first chunk; chunks that have them are passed on unchanged."""
    request = make_request(["a", "b"])
    merger = StreamMerger(request, batch.split(request))
    first = Completion("i", 1, "m", (Choice("x"),))
    second = Completion("j", 2, "other", (Choice("y"),), warnings=("odd",))

    assert merger.feed(0, [first])[0] is first
    assert merger.feed(1, [second]) == [
        Completion("i", 1, "m", (Choice("y", 1),), warnings=("odd",))
    ]


@given(
    st.integers(0, 1),
    st.lists(
        st.builds(
            Completion,
            st.sampled_from("iij"),
            st.sampled_from([1, 1, 2]),
            st.sampled_from(["m", "m", "other"]),
            st.lists(st.builds(Choice, st.text("ab")), max_size=2).map(tuple),
            st.sampled_from([None, None, Usage(1, 1)]),
            st.sampled_from([(), (), ("odd",)]),
        ),
        max_size=4,
    ),
)
def test_merged_chunks_equal_rebuilt_ones(part, chunks) -> None:
    """Those that pass as they are, too."""
    request = make_request(["a", "b"])
    merger = StreamMerger(request, batch.split(request))
    merger.feed(0, [Completion("i", 1, "m")])

    assert list(merger.feed(part, chunks)) == [
        Completion("i", 1, "m", (Choice(choice.text, part),), warnings=chunk.warnings)
        for chunk in chunks
        for choice in chunk.choices
    ]


def test_merger_refuses_end_with_open_parts() -> None:
    request = make_request(["a", "b"])
    merger = StreamMerger(request, batch.split(request))
    merger.feed(0, [Completion("i", 1, "m", (Choice("x", 0, None, "stop"),))])
    merger.end_part(0)

    with pytest.raises(UpstreamCut):
        merger.end()


def test_merger_without_chunks_sends_nothing() -> None:
    request = make_request("a")
    merger = StreamMerger(request, batch.split(request))
    merger.end_part(0)

    assert merger.end() == []
