"""Prompts x n as single upstream calls, and their answers as one completion.

For upstreams that take one prompt a call, or draw fewer choices than were asked for.
The choice of sample j of prompt i has index i * n + j, as on the real endpoint, where
also every prompt is counted once in `usage` and every generated token is.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from ..errors import UpstreamProtocol
from .completion import Choice, Completion, Logprobs, Usage
from .request import CompletionRequest

# What belongs to the whole batch, and not to one of its calls.
_BATCH_PARAMS = ("n", "best_of")


@dataclass(frozen=True, slots=True)
class Part:
    """One prompt and some of its choices, from number *sample* on, as a request."""

    request: CompletionRequest
    prompt: int
    sample: int


def split(request: CompletionRequest, most: int = 1) -> list[Part]:
    """The calls that answer *request*, prompt-major, of *most* choices each."""
    return [
        Part(_part(request, i, j, most), i, j)
        for i in range(len(request.prompts))
        for j in range(0, request.drawn, most)
    ]


def _part(request: CompletionRequest, i: int, j: int, most: int) -> CompletionRequest:
    params = {k: v for k, v in request.params.items() if k not in _BATCH_PARAMS}
    count = min(most, request.drawn - j)
    if count > 1:
        params["n"] = count
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
    """The *answers* to *parts*, in the same order, as the answer to *request*.

    Raises UpstreamProtocol if one holds fewer choices than were asked for.
    """
    for part, answer in zip(parts, answers, strict=True):
        _check(part, answer)
    choices = [
        replace(choice, index=index, logprobs=_wanted(request, choice))
        for index, choice in enumerate(_kept(request, parts, answers))
    ]
    return replace(
        answers[0],
        choices=tuple(choices),
        usage=sum(map(_usage, parts, answers), Usage()),
        warnings=tuple(dict.fromkeys(w for a in answers for w in a.warnings)),
    )


def _check(part: Part, answer: Completion) -> None:
    wanted, given = part.request.n, len(answer.choices)
    if given != wanted:
        raise UpstreamProtocol(f"upstream sent {given} of the {wanted} choices")


def _kept(
    request: CompletionRequest, parts: Sequence[Part], answers: Sequence[Completion]
) -> Iterator[Choice]:
    """The best n choices of each prompt, in the order of their mean log probability.

    Without `best_of` all are kept, as drawn.
    """
    pairs = zip(parts, answers, strict=True)
    for _, group in groupby(pairs, key=lambda pair: pair[0].prompt):
        drawn = [c for _, answer in group for c in answer.choices]
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
    if part.sample == 0:
        return usage
    again = usage.prompt_tokens
    return replace(usage, prompt_tokens=0, cached_tokens=0, repeated_tokens=again)


def merge(
    request: CompletionRequest,
    parts: Sequence[Part],
    chunks: Iterable[tuple[int, Completion]],
) -> Iterator[Completion]:
    """The *chunks* of parallel streams, each with its part's number, as one stream.

    All get the id, time and model of the first, and hold one choice each; the summed
    usage comes last, in a chunk without choices.
    """
    first: Completion | None = None
    usage = Usage()
    for number, chunk in chunks:
        part = parts[number]
        first = first or replace(chunk, choices=(), usage=None, warnings=())
        if chunk.usage:
            usage += _usage(part, chunk)
        for choice in chunk.choices:
            numbered = choice.at(part.prompt * request.n + part.sample + choice.index)
            as_it_is = first.is_piece(chunk, numbered)
            yield chunk if as_it_is else first.piece(numbered, chunk.warnings)
    if first:
        yield replace(first, usage=usage)
