"""Splits prompts x n into upstream calls, and joins their answers to one completion.

For upstreams that take one prompt a call, or return fewer choices than requested. As
on OpenAI's endpoint, sample j of prompt i has index i * n + j, and `usage` counts each
prompt once and every generated token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from ..errors import UpstreamCut, UpstreamProtocol
from .completion import Choice, Completion, Usage
from .post_processing import incomplete
from .request import CompletionRequest

# Parameters of the whole batch, which no single call gets as they are.
_BATCH_PARAMS = ("n", "best_of")


@dataclass(frozen=True, slots=True)
class Part:
    """One prompt and some of its choices, from number *sample* on, as a request."""

    request: CompletionRequest
    prompt: int
    sample: int


def split(request: CompletionRequest, max_choices: int = 1) -> list[Part]:
    """The calls that answer *request*, prompt-major, each of at most *max_choices*."""
    params = {k: v for k, v in request.params.items() if k not in _BATCH_PARAMS}
    parts = []
    for i, prompt in enumerate(request.prompts):
        for sample in range(0, request.drawn, max_choices):
            part_params = dict(params)
            count = min(max_choices, request.drawn - sample)
            if count > 1:
                part_params["n"] = count
            if "seed" in params:
                # One seed for all would draw the same text n times. The sum is wrapped
                # into the range of a signed 64-bit integer.
                seed = params["seed"] + sample
                part_params["seed"] = (seed + 2**63) % 2**64 - 2**63
            if request.drawn > request.n:
                # Ranking needs log probabilities, requested by the caller or not.
                part_params.setdefault("logprobs", 0)
            part = replace(request, prompt=prompt, params=part_params)
            parts.append(Part(part, i, sample))
    return parts


def join(
    request: CompletionRequest, parts: Sequence[Part], answers: Sequence[Completion]
) -> Completion:
    """The *answers* to *parts*, in the same order, as the answer to *request*.

    Raises UpstreamProtocol if an answer does not have as many choices as its part.
    """
    for part, answer in zip(parts, answers, strict=True):
        count, expected = len(answer.choices), part.request.n
        check_choice_count(count, expected)
        if count > expected:
            raise UpstreamProtocol("upstream sent more choices than it was asked for")
    # The best n choices of each prompt, in the order of their mean log probability;
    # without `best_of` all of them, as drawn.
    best: list[Choice] = []
    pairs = zip(parts, answers, strict=True)
    for _, group in groupby(pairs, key=lambda pair: pair[0].prompt):
        drawn = [choice for _, answer in group for choice in answer.choices]
        if request.drawn > request.n:
            drawn.sort(
                key=lambda c: c.logprobs.mean if c.logprobs else float("-inf"),
                reverse=True,
            )
        best += drawn[: request.n]
    # Log probabilities may have been requested only for the ranking.
    with_logprobs = request.logprobs is not None
    choices = [
        replace(choice, index=i, logprobs=choice.logprobs if with_logprobs else None)
        for i, choice in enumerate(best)
    ]
    return replace(
        answers[0],
        choices=tuple(choices),
        usage=sum(map(_usage_share, parts, answers), Usage()),
        warnings=tuple(dict.fromkeys(w for a in answers for w in a.warnings)),
        extra=_joined_extra(parts, answers),
    )


def check_choice_count(count: int, expected: int) -> None:
    """Raise UpstreamCut if a whole answer has fewer choices than asked for."""
    if count < expected:
        raise incomplete("answer", count, expected)


def _usage_share(part: Part, answer: Completion) -> Usage:
    """What *answer* adds to the sum: its prompt only once for all its samples."""
    usage = answer.usage or Usage()
    return usage.of_repeated_prompt() if part.sample else usage


def _extra_of_part(part: Part, extra: Mapping[str, Any] | None) -> dict[str, Any]:
    """The *extra* fields of the answer to *part*, with the numbers of its prompts."""
    # A prompt has results once, however many calls it takes.
    if not extra or part.sample:
        return {}
    fields: dict[str, Any] = {}
    for name, value in extra.items():
        if isinstance(value, list):
            value = [
                (
                    {**item, "prompt_index": part.prompt + item["prompt_index"]}
                    if isinstance(item, dict) and type(item.get("prompt_index")) is int
                    else item
                )
                for item in value
            ]
        fields[name] = value
    return fields


def _joined_extra(
    parts: Sequence[Part], answers: Sequence[Completion]
) -> dict[str, Any] | None:
    """The extra fields of all *answers*; lists of the same name are one."""
    joined: dict[str, Any] = {}
    for part, answer in zip(parts, answers, strict=True):
        for name, value in _extra_of_part(part, answer.extra).items():
            earlier = joined.get(name)
            if isinstance(value, list) and isinstance(earlier, list):
                value = [*earlier, *value]
            joined[name] = value
    return joined or None


class StreamMerger:
    """Merges the parallel streams of a request's parts into one stream.

    Feed it the chunks of any part, as they arrive; it returns the chunks to send. All
    have the id, time and model of the very first, and hold one choice each.
    """

    def __init__(self, request: CompletionRequest, parts: Sequence[Part]) -> None:
        # The index of the first choice of each part in the merged stream.
        self._offsets = [part.prompt * request.n + part.sample for part in parts]
        self._parts = parts
        self._open_parts = set(range(len(parts)))
        self._head: Completion | None = None
        self._usage = Usage()

    def feed(
        self, part_number: int, chunks: Sequence[Completion]
    ) -> Sequence[Completion]:
        """What *chunks*, of the part with that number, become in the merged stream."""
        if not chunks:
            return ()
        if self._head is None:
            first = chunks[0]
            self._head = Completion(first.id, first.created, first.model)
        head, offset = self._head, self._offsets[part_number]
        merged: list[Completion] = []
        for chunk in chunks:
            if chunk.usage is not None:
                self._usage += _usage_share(self._parts[part_number], chunk)
            elif (
                offset == 0
                and len(chunk.choices) == 1
                and not chunk.extra
                and chunk.id == head.id
                and chunk.created == head.created
                and chunk.model == head.model
            ):
                # As it has to be already: nearly all chunks of a request's only part,
                # or of its first one, which are most of all streams.
                merged.append(chunk)
                continue
            extra = _extra_of_part(self._parts[part_number], chunk.extra) or None
            for choice in chunk.choices:
                indexed = Choice(
                    choice.text,
                    offset + choice.index,
                    choice.logprobs,
                    choice.finish_reason,
                    choice.extra,
                )
                merged.append(
                    Completion(
                        head.id,
                        head.created,
                        head.model,
                        (indexed,),
                        warnings=chunk.warnings,
                        extra=extra,
                    )
                )
                extra = None
        return merged

    def end_part(self, part_number: int) -> None:
        """Note that the stream of this part has come to its regular end."""
        self._open_parts.discard(part_number)

    def end(self) -> list[Completion]:
        """The closing chunk: the summed usage, without choices.

        Raises UpstreamCut if a part has not ended: a merged stream that lacks the rest
        of a part must not look complete.
        """
        if self._open_parts:
            raise UpstreamCut(
                "upstream ended the answer before the completion was done"
            )
        return [replace(self._head, usage=self._usage)] if self._head else []
