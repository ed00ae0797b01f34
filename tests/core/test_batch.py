"""Prompts x n as calls, and answers as choices."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.core import batch
from app.core.completion import Choice, Completion, Logprobs, Usage
from app.core.request import CompletionRequest


def asked(prompt: Any = "p", **params: Any) -> CompletionRequest:
    return CompletionRequest("m", prompt, params)


def answered(text: str, *, sent: int = 3, made: int = 2, mean: float = 0) -> Completion:
    choice = Choice(text, 0, Logprobs(("t",), (mean,), ({},), (0,)), "stop")
    return Completion(f"cmpl-{text}", 1, "m", (choice,), Usage(sent, made))


def test_parts_are_prompt_major_and_ask_for_one_choice() -> None:
    parts = batch.split(asked(["a", "b"], n=2, best_of=2, max_tokens=5))

    places = [(part.request.prompt, part.prompt, part.sample) for part in parts]
    assert places == [("a", 0, 0), ("a", 0, 1), ("b", 1, 0), ("b", 1, 1)]
    assert all(part.request.params == {"max_tokens": 5} for part in parts)


def test_token_ids_are_one_prompt_and_their_arrays_are_many() -> None:
    assert [p.request.prompt for p in batch.split(asked([1, 2]))] == [[1, 2]]
    assert [p.request.prompt for p in batch.split(asked([[1], [2]]))] == [[1], [2]]


def test_samples_of_one_seed_differ_and_the_first_keeps_it() -> None:
    parts = batch.split(asked(["a", "b"], n=2, seed=2**63 - 1))

    seeds = [part.request.params["seed"] for part in parts]
    assert seeds == [2**63 - 1, -(2**63), 2**63 - 1, -(2**63)]


def test_choices_are_numbered_in_order() -> None:
    request = asked(["a", "b"], n=2)
    parts = batch.split(request)
    joined = batch.join(request, parts, [answered(t) for t in "wxyz"])

    assert [(c.index, c.text) for c in joined.choices] == list(enumerate("wxyz"))
    assert joined.id == "cmpl-w"


def test_usage_counts_each_prompt_once_and_every_token_and_what_was_sent_again() -> (
    None
):
    request = asked(["a", "b"], n=2)
    answers = [
        answered(t, sent=s) for t, s in zip("wxyz", (31, 31, 18, 18), strict=True)
    ]
    joined = batch.join(request, batch.split(request), answers)

    assert joined.usage == Usage(49, 8, repeated_tokens=49)


def test_the_best_of_the_drawn_are_kept_and_all_are_counted() -> None:
    request = asked(["a", "b"], n=1, best_of=3)
    parts = batch.split(request)
    means = (-3, -1, -2, -0.5, -5, -4)
    answers = [answered(str(m), mean=m) for m in means]
    joined = batch.join(request, parts, answers)

    assert [c.text for c in joined.choices] == ["-1", "-0.5"]
    assert [c.index for c in joined.choices] == [0, 1]
    assert joined.usage == Usage(6, 12, repeated_tokens=12)
    assert all(part.request.params == {"logprobs": 0} for part in parts)


def test_log_probabilities_for_ranking_alone_are_not_shown() -> None:
    hidden, shown = asked(best_of=2), asked(best_of=2, logprobs=1)
    answers = [answered("a"), answered("b")]

    def joined(request: CompletionRequest) -> Completion:
        return batch.join(request, batch.split(request), answers)

    assert joined(hidden).choices[0].logprobs is None
    assert joined(shown).choices[0].logprobs is not None


def test_a_choice_without_tokens_ranks_last() -> None:
    request = asked(best_of=2)
    empty = Completion("i", 1, "m", (Choice("", 0, Logprobs(), "stop"),))
    joined = batch.join(request, batch.split(request), [empty, answered("x", mean=-99)])

    assert joined.choices[0].text == "x"


def chunks_of(text: str, sent: int) -> list[Completion]:
    running = [Completion("i", 1, "m", (Choice(letter),)) for letter in text]
    last = Completion(
        "i", 1, "m", (Choice("", 0, None, "stop"),), Usage(sent, len(text))
    )
    return [*running, last]


@given(
    st.integers(1, 3),
    st.lists(st.text("abc", max_size=4), min_size=1, max_size=3),
    st.randoms(use_true_random=False),
)
def test_a_merged_stream_says_the_same_as_its_parts(n, texts, random) -> None:
    """However the parts' chunks come interleaved."""
    request = asked(texts, n=n)
    parts = batch.split(request)
    waiting = [
        (i, chunks_of(texts[p.prompt], p.prompt + 1)) for i, p in enumerate(parts)
    ]
    arriving = []
    while waiting:
        i, chunks = random.choice(waiting)
        arriving.append((i, chunks.pop(0)))
        waiting = [(j, rest) for j, rest in waiting if rest]
    *merged, last = batch.merge(request, parts, arriving)

    said = {index: "" for index in range(len(parts))}
    for chunk in merged:
        said[chunk.choices[0].index] += chunk.choices[0].text
    assert said == {i: texts[i // n] for i in range(len(parts))}
    ends = [c.choices[0].index for c in merged if c.choices[0].finish_reason]
    assert sorted(ends) == list(range(len(parts)))
    sent = sum(range(1, len(texts) + 1))
    made, again = n * sum(map(len, texts)), (n - 1) * sent
    assert last.usage == Usage(sent, made, repeated_tokens=again)
    assert (last.choices, {c.usage for c in merged}) == ((), {None})
