"""Prompts x n as single upstream calls, and their answers as one completion.

For upstreams that take one prompt and draw one choice a call. The choice of sample j
of prompt i has index i * n + j, as on the real endpoint, where also every prompt is
counted once in `usage` and every generated token is.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from .completion import Choice, Completion, Logprobs, Usage
from .request import CompletionRequest

# What belongs to the whole batch, and not to one of its calls.
_BATCH_PARAMS = ("n", "best_of")


@dataclass(frozen=True, slots=True)
class Part:
    """One prompt and one choice of a request, as a request of its own."""

    request: CompletionRequest
    prompt: int
    sample: int


def split(request: CompletionRequest) -> list[Part]:
    """The calls that answer *request*, prompt-major."""
    return [
        Part(_single(request, i, j), i, j)
        for i in range(len(request.prompts))
        for j in range(request.drawn)
    ]


def _single(request: CompletionRequest, i: int, j: int) -> CompletionRequest:
    params = {k: v for k, v in request.params.items() if k not in _BATCH_PARAMS}
    if "seed" in params:
        # One seed for all would draw the same text n times.
        params["seed"] = _shifted(params["seed"], j)
    if request.drawn > request.n:
        # Ranking needs log probabilities, asked for or not.
        params.setdefault("logprobs", 0)
    return replace(request, prompt=request.prompts[i], params=params)


def _shifted(seed: int, by: int) -> int:
    """*seed* + *by*, wrapped into the range of a signed 64-bit integer."""
    return (seed + by + 2**63) % 2**64 - 2**63


def join(
    request: CompletionRequest, parts: Sequence[Part], answers: Sequence[Completion]
) -> Completion:
    """The *answers* to *parts*, in the same order, as the answer to *request*."""
    choices = [
        replace(choice, index=index, logprobs=_wanted(request, choice))
        for index, choice in enumerate(_kept(request, answers))
    ]
    usage = sum(map(_usage, parts, answers), Usage())
    return replace(answers[0], choices=tuple(choices), usage=usage)


def _kept(
    request: CompletionRequest, answers: Sequence[Completion]
) -> Iterator[Choice]:
    """The best n choices of each prompt, in the order of their mean log probability.

    Without `best_of` all are kept, as drawn.
    """
    for start in range(0, len(answers), request.drawn):
        drawn = [a.choices[0] for a in answers[start : start + request.drawn]]
        if request.drawn > request.n:
            drawn.sort(key=_likelihood, reverse=True)
        yield from drawn[: request.n]


def _likelihood(choice: Choice) -> float:
    return choice.logprobs.mean if choice.logprobs else float("-inf")


def _wanted(request: CompletionRequest, choice: Choice) -> Logprobs | None:
    return choice.logprobs if request.logprobs is not None else None


def _usage(part: Part, answer: Completion) -> Usage:
    """What *answer* adds to the sum: its prompt only once for all its samples."""
    usage = answer.usage or Usage()
    return usage if part.sample == 0 else replace(usage, prompt_tokens=0)


def merge(
    request: CompletionRequest,
    parts: Sequence[Part],
    chunks: Iterable[tuple[int, Completion]],
) -> Iterator[Completion]:
    """The *chunks* of parallel streams, each with its part's number, as one stream.

    All get the id, time and model of the first; the summed usage comes last, in a
    chunk without choices.
    """
    first: Completion | None = None
    usage = Usage()
    for number, chunk in chunks:
        part = parts[number]
        first = first or replace(chunk, choices=(), usage=None)
        usage += _usage(part, chunk)
        if chunk.choices:
            yield replace(first, choices=_renumbered(request, part, chunk))
    if first:
        yield replace(first, usage=usage)


def _renumbered(
    request: CompletionRequest, part: Part, chunk: Completion
) -> tuple[Choice, ...]:
    index = part.prompt * request.n + part.sample
    return tuple(replace(choice, index=index) for choice in chunk.choices)
